"""Keep-alive: a ping at regular intervals, and an answer of any kind in time, or the peer is gone. Pure."""

from __future__ import annotations

from math import inf
from typing import Final

# Less than this is how late any thread may run on a busy machine; more means that we ourselves were starved.
OWN_LAG_SECONDS: Final = 0.5
MAX_UNANSWERED: Final = 256  # pings whose pongs are still recognised; on a narrow line many are on their way
# A line that brought data and falls silent is asked after so long: with the time for an answer a frozen screen is
# marked within a second, and with the lag allowed an old value is none any more within three.
SILENT_SECONDS: Final = 0.4
# Between a ping and such a question: a line with a frame every half second is sent 96 pings a minute. Upbit does not
# say whether they count among the 100 messages a minute that it allows.
SPACED_SECONDS: Final = 0.7
# What was made that long after a ping has come and the pong has not: a peer that does not answer pings.
GIVE_UP_SECONDS: Final = 10.0


class KeepAlive:
    """Pings and their deadlines on one connection.

    Any byte received proves the peer alive: on a slow line the pong waits behind data. A deadline that finds
    our own loop late is put off by that lag, because what the peer sent meanwhile may not have reached us.
    """

    def __init__(self, now: float, interval: float, timeout: float) -> None:
        self._interval = interval
        self._timeout = timeout
        self._next_ping = now + interval
        self._asked_at: float | None = None  # since when nothing at all was heard after a ping
        self._grace = 0.0
        self._count = 0
        self.has_data = False  # since the latest question of `ask`
        self._sent_at: dict[bytes, float] = {}  # of pings not yet answered, oldest first
        self._pinged_at = -inf
        self.heard_at = now
        self.pong_at: float | None = None
        self.pong_seconds: float | None = None

    def heard(self, now: float) -> None:
        self.heard_at = now
        self._asked_at = None
        self._grace = 0.0

    @property
    def ask_due(self) -> float:
        """When a line that brought data and fell silent is asked whether it is merely quiet; once for each silence."""
        # The regular ping may be seconds away, and until one is overdue what came last passes for the present state.
        if not self.has_data or self._sent_at:
            return inf
        return max(self.heard_at + SILENT_SECONDS, self._pinged_at + SPACED_SECONDS)

    def ask(self, now: float) -> bytes | None:
        """The ping to send for that now, if one is due."""
        if now < self.ask_due:
            return None
        self.has_data = False
        return self.ping_at_once(now)

    @property
    def unanswered_since(self) -> float:
        """When the oldest ping was sent whose answer is still to come; inf if there is none."""
        return next(iter(self._sent_at.values()), inf)

    def give_up(self, proven_at: float) -> float | None:
        """Take those pings for answered that never will be: what was made long after them has come, as `proven_at`
        says. The latest such ping's time, if there is one."""
        bound = proven_at - GIVE_UP_SECONDS
        if self.unanswered_since > bound:
            return None
        latest = max(at for at in self._sent_at.values() if at <= bound)
        self._sent_at = {each: at for each, at in self._sent_at.items() if at > bound}
        return latest

    def ponged(self, payload: bytes, now: float) -> float | None:
        """How many seconds after its ping this answer came; None if it answers none of ours."""
        sent_at = self._sent_at.pop(payload, None)
        if sent_at is None:
            return None
        self.pong_at = now
        self.pong_seconds = now - sent_at
        # Those before it will not be answered any more (RFC 6455: the latest is enough).
        self._sent_at = {each: at for each, at in self._sent_at.items() if at > sent_at}
        return self.pong_seconds

    def ping(self, now: float) -> bytes | None:
        """The ping to send now, if one is due."""
        if now < self._next_ping:
            return None
        self._next_ping = now + self._interval
        # From the first unanswered one: a further ping must not put off the deadline of the one before it.
        if self._asked_at is None:
            self._asked_at = now
        return self.ping_at_once(now)

    def ping_at_once(self, now: float) -> bytes:
        """A ping besides the regular ones: it asks how far Upbit has read, and sets no deadline to a long line."""
        self._count += 1
        payload = b"%d" % self._count
        self._sent_at[payload] = self._pinged_at = now
        if len(self._sent_at) > MAX_UNANSWERED:
            del self._sent_at[next(iter(self._sent_at))]
        return payload

    def is_frozen(self, now: float, own_lag: float) -> bool:
        """Whether nothing came for the whole time an answer may take."""
        if self._asked_at is None or now < self._deadline:
            return False
        # Bounded: a machine that is always late must still notice a dead peer.
        is_our_own_fault = own_lag > OWN_LAG_SECONDS and self._grace < self._timeout
        if is_our_own_fault:
            self._grace += max(own_lag, now - self._deadline + OWN_LAG_SECONDS)
            return now >= self._deadline
        return True

    @property
    def due(self) -> float:
        return min(self._next_ping, self._deadline, self.ask_due)

    @property
    def _deadline(self) -> float:
        return inf if self._asked_at is None else self._asked_at + self._timeout + self._grace
