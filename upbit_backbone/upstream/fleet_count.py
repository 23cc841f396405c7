"""Fleet count: one count of what is asked of a host for all machines behind one address, at Redis; and while that is
away, a share of it for each machine, in the file by which its processes share it.

    together ──▶ doubtful ──▶ apart ──▶ together

Between one count and the other a machine sends nothing for a second, until what was counted there has ended. A server
that only hiccups is therefore asked a second time before anybody goes his own way. When it is back, others may not know
of it for a while, also here: so long all who do send no more than one share between them, which no machine has taken.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Callable
from enum import Enum
from typing import Final, TypeVar

from .._concurrency import Clock, get_logger
from ..errors import UpbitBackboneError, one_line
from ..exchange.endpoints import CONNECTS_PER_SECOND, REQUESTS_PER_SECOND
from ..limits.ban import Ban
from ..limits.between_processes import ARRIVED_SECONDS, Claim, SharedCountFile
from ..models.enums import RateGroup
from .redis_count import AT_REDIS, RedisCount, Taken

log = get_logger("upbit_backbone.upstream")

RETRY_SECONDS: Final = 3.0  # with the next request after this, Redis is asked again
# Whoever asks anything knows by then that Redis is there again, and what he asked apart has ended.
CAREFUL_SECONDS: Final = RETRY_SECONDS + 2 * ARRIVED_SECONDS

T = TypeVar("T")


class _State(Enum):
    TOGETHER = "together"
    DOUBTFUL = "doubtful"  # Redis did not answer once
    APART = "apart"


class FleetCount:
    """As `SharedCountFile`, for all machines. Usable from any thread; OSError where the file is needed and cannot be
    had."""

    def __init__(self, host: str, clock: Clock, *, url: str, prefix: str, egress: str) -> None:
        self._clock = clock
        self._file = SharedCountFile(host, clock)
        self._settings = (url, prefix, egress, host)
        self._redis = self._connected()
        self._lock = threading.Lock()  # guards the five below; nothing is asked under it
        self._state = _State.TOGETHER
        self._members = 1  # machines that share, as far as was last heard
        self._wait_until = float("-inf")  # nothing is sent before
        self._retry_at = float("-inf")  # Redis is not asked before
        self._trouble = ""
        self._is_left = False

    def _connected(self) -> RedisCount:
        url, prefix, egress, host = self._settings
        member, process = self._machine(), uuid.uuid4().hex[:16]
        return RedisCount(url, prefix, egress, host, member=member, process=process, clock=self._clock)

    def _machine(self) -> str:
        """A name for those who share a file: they take one share between them."""
        try:
            text = self._file.identity()
        except OSError:
            text = uuid.uuid4().hex
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def trouble(self) -> str | None:
        """Why the limits are not kept together at the moment, and by what share; None if they are."""
        if self._state is not _State.APART:
            return None
        return f"limits are kept on this machine alone, with 1/{self._shares} of them, because {self._trouble}"

    @property
    def _shares(self) -> int:
        """One for each machine, and one for all who find Redis again before the others do."""
        return self._members + 1

    # --- requests -----------------------------------------------------------------------------------------------

    def take(self, group: RateGroup, limit: int, owner: int) -> Claim:
        """Count one more request of `owner`, where fewer than `limit` count at present; waits for Redis alone."""
        now = self._clock.monotonic()
        with self._lock:
            self._is_left = False
            if now < self._wait_until:
                return Claim(self._wait_until - now)
            is_apart = self._state is _State.APART
            shares = self._shares
            is_asked = not is_apart or now >= self._retry_at
            if is_apart and is_asked:
                self._retry_at = now + RETRY_SECONDS  # one at a time: it may take a while to fail
        if is_apart and is_asked and self._has_returned(shares):
            return Claim(ARRIVED_SECONDS)
        if is_apart:
            return self._file.take(group, max(1, limit // shares), owner)
        try:
            taken = self._redis.take(group, limit, owner)
        except UpbitBackboneError as error:
            return Claim(self._missed(error, now))
        self._heard(taken)
        return taken.claim

    def _heard(self, taken: Taken) -> None:
        with self._lock:
            self._members = taken.members or self._members
            if self._state is _State.DOUBTFUL:
                self._state = _State.TOGETHER

    def _missed(self, error: UpbitBackboneError, asked_at: float) -> float:
        """Seconds for which nothing is sent, after Redis did not answer what was asked of it at `asked_at`."""
        now = self._clock.monotonic()
        with self._lock:
            is_second = self._state is _State.DOUBTFUL and asked_at >= self._wait_until
            if self._state is _State.TOGETHER:
                # What was counted there ends meanwhile, should it turn out to be gone.
                self._state = _State.DOUBTFUL
                self._wait_until = now + ARRIVED_SECONDS
            elif is_second:
                self._state = _State.APART
                self._retry_at = now + RETRY_SECONDS
                self._trouble = one_line(error)
            wait = max(0.001, self._wait_until - now)
        if is_second:
            log.warning("limits are not shared with other machines", extra={"why": self.trouble})
        return wait

    def _has_returned(self, shares: int) -> bool:
        try:
            self._redis.be_careful(shares, CAREFUL_SECONDS)
        except UpbitBackboneError as error:
            log.debug("limits: %s", one_line(error))
            return False
        with self._lock:
            self._state = _State.TOGETHER
            self._wait_until = self._clock.monotonic() + ARRIVED_SECONDS  # what was sent apart ends meanwhile
        log.info("limits are shared with other machines again", extra={"place": self._redis.place})
        return True

    def settle(self, group: RateGroup, owner: int, at: int | None, free_at: float | None) -> None:
        """The request of `owner`, which was counted `at`, counts until `free_at`; None: it was never sent."""
        # Interrupted before it could be told where it was counted, it may be in either.
        if at is None or at == AT_REDIS:
            self._asking(lambda: self._redis.settle(group, owner, free_at))
        if at is None or at != AT_REDIS:
            ends = None if free_at is None else free_at + self._spread(group)
            self._in_file(lambda: self._file.settle(group, owner, at, ends))
        if self._is_left:
            self.close()

    def _spread(self, group: RateGroup) -> float:
        """Seconds more for which a request counts where there are more machines than the limit has places: of the
        usual ten requests a second, nineteen machines may send one every two seconds each."""
        places = CONNECTS_PER_SECOND if group is RateGroup.WEBSOCKET_CONNECT else REQUESTS_PER_SECOND
        return max(0.0, self._shares / places - 1.0)

    def holds(self, group: RateGroup, owner: int, at: int | None) -> bool:
        """Whether the request of `owner`, not yet settled, still counts; False where it cannot be known."""
        if at == AT_REDIS:
            return bool(self._asking(lambda: self._redis.holds(group, owner)))
        return self._file.holds(group, owner, at)

    def counted(self, group: RateGroup) -> int:
        """Requests of all that count at present."""
        counted = self._asking(lambda: self._redis.counted(group))
        return counted if counted is not None else self._file.counted(group)

    def pause(self, group: RateGroup, seconds: float) -> float:
        """Nobody sends to `group` for so long, because of a 429. The time that names it to the others."""
        told_at = self._asking(lambda: self._redis.pause(group, seconds))
        named = self._in_file(lambda: self._file.pause(group, seconds))
        return told_at or named or self._clock.monotonic()

    # --- bans: in both, so that nobody forgets one on the way from the one to the other --------------------------

    def impose_ban(self, seconds: float | None, sent_at: float | None, *, at_connect: bool) -> Ban:
        """As `Ban.imposed`, for all."""
        there = self._asking(lambda: self._redis.impose_ban(seconds, sent_at, at_connect=at_connect))
        here = self._in_file(lambda: self._file.impose_ban(seconds, sent_at, at_connect=at_connect))
        return max((each for each in (there, here) if each is not None), key=lambda ban: ban.until, default=Ban())

    def passed(self, sent_at: float) -> None:
        """As `Ban.passed`; costs nothing where no ban was seen."""
        self._asking(lambda: self._redis.passed(sent_at))
        self._in_file(lambda: self._file.passed(sent_at))

    def connecting(self) -> Ban:
        """Before a line that broke tries a handshake: the ban, in which the attempt is noted where it may be made."""
        found = self._asking(self._redis.connecting)
        return self._file.connecting() if found is None else found

    def _asking(self, action: Callable[[], T]) -> T | None:
        """What Redis answers, None where it does not, or is not asked."""
        if self._state is _State.APART:
            return None
        now = self._clock.monotonic()
        try:
            return action()
        except UpbitBackboneError as error:
            self._missed(error, now)
            return None

    def _in_file(self, action: Callable[[], T]) -> T | None:
        """What the file's count says; without a file, OSError where it is needed, else None."""
        try:
            return action()
        except OSError:
            if self._state is _State.APART:
                raise
            return None

    # --- life ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the file and of Redis, until either is used again."""
        self._is_left = True
        self._file.close()
        self._redis.close()

    def leave_to_parent(self) -> None:
        """In a forked child: what is the parent's stays so."""
        self._lock = threading.Lock()
        self._file.leave_to_parent()
        self._redis = self._connected()

    def __repr__(self) -> str:
        return f"<FleetCount {self._redis!r} {self._state.value}>"
