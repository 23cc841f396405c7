"""What a session tells about itself, as opposed to about the market: its health, and Upbit's notices."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from .enums import DataSource
from .request import Topic

# What a stream says about itself, as opposed to about the market.


class UpStatus(NamedTuple):
    """Upbit's `{"status":"UP"}`, the answer to a text PING: a sign of life."""


class StreamError(NamedTuple):
    """Upbit's error object; the server closes the connection shortly after."""

    name: str
    message: str


class SubscriptionList(NamedTuple):
    """The answer to LIST_SUBSCRIPTIONS: (type, codes as Upbit spells them, level or None) per entry."""

    entries: tuple[tuple[str, tuple[str, ...], str | None], ...]
    ticket: str | None


class FirstFrame(NamedTuple):
    """The first frame of a topic in the present epoch has arrived."""

    topic: Topic


class UnknownMessage(NamedTuple):
    """A well-formed message of a type we do not know (yet): never an error."""

    type: str


@dataclass(frozen=True, slots=True)
class RefusedFrames:
    """So many frames of a read could not be read: they came, but are no data."""

    count: int


Notice = UpStatus | StreamError | SubscriptionList | FirstFrame | UnknownMessage | RefusedFrames


# Session health: the sign of life of one WebSocket session, and how late what it brings is.

MAX_LAG_SECONDS = 2.0
MOMENT_SECONDS = 0.05
# A flowing line that fell silent is asked within a second. Of what was made since its last news nothing is known by
# then: the answer is waited for by the time of that news, not of the question. By the question's, a line that had been
# 1.5 s late and became 6 s late showed a price of 4.4 s ago as the present one. What was answered since is known, too.
ASKED_WITHIN_SECONDS = 1.0
FLOWING_SECONDS = 0.75
ANSWER_SECONDS = 0.25  # how long what we sent may go unanswered at least; Upbit was seen to take 0.17 s
# What took longer stood in a freeze, and says nothing about how long answers take.
SLOW_ANSWER_SECONDS = 0.4
FORGOTTEN_WITH_EACH = 0.03  # of the slowest answer: one that waited behind a burst is no measure for ever


class SessionHealth:
    """Written by its session's own thread only; read by anyone without a lock (each attribute is replaced whole).

    `epoch` grows with every connection, so that data from before a break can never pass for data after it.
    `heard_at` is the monotonic time of the last sign of life (data, pong or UP). `suspect` holds while a silent
    stall is suspected; `mute` are single topics proven mute while the others flow. `connected` is False from the
    moment the line is known to be lost. `clock_offset` is the wall clock minus the monotonic one when the session last
    looked: whoever finds another one later knows before the session does that the machine slept.

    `lag` is by how many seconds what came last was late, at most, and `is_late` whether that is too much for a value
    to be called current. Everything Upbit had sent by `proven_at` (monotonic; None: not known yet) has come.
    `news_at` is when something new came: neither a repetition nor a new stamp on an old trade. Of what we sent since
    `unanswered_since` (monotonic; inf: all is answered) nothing has been answered yet: Upbit answers in order.
    `source` is what data of the present connection carries.
    """

    __slots__ = (
        "_asked_at",
        "_line_lag",
        "_newest",
        "_news_lag",
        "_news_lag_at",
        "_slow",
        "_thawed_at",
        "clock_offset",
        "connected",
        "epoch",
        "heard_at",
        "is_late",
        "lag",
        "max_lag",
        "mute",
        "news_at",
        "proven_at",
        "round_trip",
        "session",
        "source",
        "suspect",
        "unanswered_since",
    )

    def __init__(self, session: str, max_lag: float = MAX_LAG_SECONDS) -> None:
        self.session = session
        self.max_lag = max_lag
        self.source = DataSource.WEBSOCKET
        self.epoch = 0
        self.connected = False
        self.heard_at = -inf
        self.clock_offset: float | None = None
        self.suspect = False
        self.mute: frozenset[Topic] = frozenset()
        self.news_at = -inf
        self.reset_lag()

    def reset_lag(self) -> None:
        """A new connection: nothing is known of its lag, and nothing that came on it can be current before it is."""
        self._line_lag = 0.0
        self._newest = -inf
        self._news_lag = 0.0
        self._news_lag_at = -inf
        self._asked_at = -inf  # when the latest was sent of what we sent and has been answered
        self.round_trip = inf  # the quickest on this connection
        self._slow = 0.0  # the slowest lately
        self._thawed_at = -inf
        self.lag = 0.0
        self.is_late = False
        self.proven_at: float | None = None
        self.unanswered_since = inf

    def news_came(self, lag: float, now: float) -> None:
        """By its stamp, what has just come was on its way for `lag` seconds at most.

        One market may be later than the others, which is its own affair: what counts is the newest anything has shown.
        """
        # By the newest of all markets: one that is later than the others says nothing about the line they share.
        self._newest = max(self._newest, now - lag)
        self._news_lag, self._news_lag_at = now - self._newest, now
        self._line_lag = min(self._line_lag, self._news_lag)
        self._judge(now)

    def answered(self, seconds: float, now: float, asked_at: float | None = None) -> None:
        """An answer to something we sent `seconds` ago (a pong, or the first frame of a subscription), or sent at
        `asked_at` where something else has shown since that the line was no later.

        What Upbit sends comes in order, so all it had sent before we asked is here. That says nothing of data it holds
        back before sending: where news was late, only news shows the end of it, or a quiet as long as the delay.
        """
        asked_at = now - seconds if asked_at is None else asked_at
        self._line_lag = seconds
        self._asked_at = max(self._asked_at, asked_at)
        # The quickest, because every longer one has waited somewhere: what is taken for the way must not include that.
        self.round_trip = min(self.round_trip, now - asked_at)
        self._slow *= 1 - FORGOTTEN_WITH_EACH
        if seconds >= SLOW_ANSWER_SECONDS:
            self._thawed_at = now
        elif asked_at >= self._thawed_at:  # else it stood in the same freeze, and only its end
            self._slow = max(self._slow, seconds)
        if now - self._news_lag_at > self._news_lag:
            self._news_lag = 0.0
        self._judge(now)

    def is_unanswered(self, now: float) -> bool:
        """Whether nothing at all has come for longer than an answer takes, though one is due: a frozen line, as a rule.

        A hint for screens, which come too early with it at little cost. What may be given as current is decided by
        what is known of the line's lag, a second or two later.
        """
        # By the answers so far: on a long way each takes longer, and on some now and then one. Before the first one
        # nobody can say.
        longest = max(ANSWER_SECONDS, 2 * self.round_trip, 1.5 * self._slow)
        return now - max(self.unanswered_since, self.heard_at) > longest

    @property
    def overdue_at(self) -> float:
        """When the silence about what we sent counts against the line; never while what comes proves to be young."""
        if self.is_late:
            return inf
        if self._was_flowing():
            return self._known_until + self.max_lag + FLOWING_SECONDS
        return max(self.unanswered_since, self._newest) + self.max_lag + MOMENT_SECONDS

    def overdue(self, now: float) -> None:
        """No answer by `overdue_at`: the line is late by as long, whether or not anything comes on it."""
        self._line_lag = now - (self._known_until if self._was_flowing() else max(self.unanswered_since, self._newest))
        self._judge(now)

    @property
    def _known_until(self) -> float:
        """All that Upbit had made by then has come, as what came or was answered shows."""
        return max(self._newest, self._asked_at)

    def _was_flowing(self) -> bool:
        """Whether news came right before the silence that has been asked about. On a quiet line the last news is too
        long ago to say anything of its way."""
        return self._news_lag_at <= self.unanswered_since < self._news_lag_at + ASKED_WITHIN_SECONDS

    def longest_way(self, now: float) -> float:
        """For how many seconds what comes now was on its way at most: as long as the quickest round trip, unless an
        answer is overdue. Then all that can be said is that it was sent after the latest that has been answered."""
        is_overdue = now - self.unanswered_since > self.round_trip
        return now - self._asked_at if is_overdue else self.round_trip

    def _judge(self, now: float) -> None:
        self.lag = lag = max(self._line_lag, self._news_lag)
        self.is_late = lag > self.max_lag
        self.proven_at = now - lag

    def __repr__(self) -> str:
        state = "connected" if self.connected else "not connected"
        late = f" {self.lag:.1f} s late" if self.is_late else ""
        return f"<SessionHealth {self.session} epoch {self.epoch} {state}{late}{' suspect' if self.suspect else ''}>"
