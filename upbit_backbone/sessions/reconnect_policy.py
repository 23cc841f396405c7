"""Reconnect policy: at once after a first break, ever more slowly while nothing helps. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from typing import Final

from ..config import BackboneConfig
from ..errors import BannedError, MessageTooBigError, RateLimitError, UpbitBackboneError
from ..exchange.status import DEFAULT_BAN_SECONDS, DEFAULT_LIMITED_SECONDS

# How long to wait before the next attempt. "Start over" is simply the first value again. Randomness is passed in: a
# callable giving floats in [0, 1).

Random = Callable[[], float]

_STEADY_JITTER = 0.03


@dataclass(frozen=True, slots=True)
class Backoff:
    """The first retry is immediate; later ones wait with decorrelated jitter, never longer than `cap`.

    `attempt` counts the delays given so far and `previous` is the last of them, in seconds.
    """

    base: float = 0.25
    cap: float = 2.0
    attempt: int = 0
    previous: float = 0.0

    def retry(self, random: Random) -> tuple[float, Backoff]:
        """Seconds to wait now, and the policy for the time after that."""
        # At once, because most breaks are a moment's; not again before something reset the policy, or a peer that
        # closes at once would be dialled in a circle.
        if self.attempt == 0:
            return self._after(0.0)
        low = min(self.base, self.cap)
        # Decorrelated jitter: drawn from the last delay and not from the count, so that many clients that lost the same
        # server do not come back in step.
        high = max(low, self.previous * 3)
        return self._after(min(self.cap, low + (high - low) * random()))

    def retry_slowly(self, seconds: float, random: Random) -> tuple[float, Backoff]:
        """At least `seconds` (and at most 3 % more), where asking in a hurry cannot help."""
        # Never less than was asked for: Upbit lengthens the block of those who come back early.
        return self._after(seconds * (1 + _STEADY_JITTER * random()))

    def _after(self, delay: float) -> tuple[float, Backoff]:
        return delay, replace(self, attempt=self.attempt + 1, previous=delay)


# How one session uses it.

OFFLINE_AFTER_SECONDS: Final = 60.0  # trouble that has lasted this long is an outage, not an accident
PERMANENT_SECONDS: Final = 60.0  # 401, 403, 404, TLS: waiting alone repairs nothing
DEFERRED_SECONDS: Final = 0.1  # where our own limiter names no time: nothing went on the wire, so soon again
DATA_PROVES_SECONDS: Final = 10.0
MIN_PAUSE_SECONDS: Final = 0.5
# A line that brought data shows that Upbit serves us: so often in a row it is missed for a moment only, before its
# breaks count as trouble like any other. Five connects a second remain the limit of all sessions together.
QUICK_BREAKS: Final = 10
QUICK_BASE_SECONDS, QUICK_CAP_SECONDS = 0.1, 0.35
_QUICK: Final = Backoff(base=QUICK_BASE_SECONDS, cap=QUICK_CAP_SECONDS)


class ReconnectPolicy:
    """One session's patience. Only proven health, never a mere handshake, makes it start over."""

    def __init__(self, config: BackboneConfig, random: Random) -> None:
        self._fresh = Backoff(cap=config.reconnect_cap_seconds)
        self._offline_cap = config.offline_reconnect_cap_seconds
        self._healthy_after = config.healthy_after_seconds
        self._random = random
        self._backoff = self._fresh
        self._quick = _QUICK
        self.attempt = 0  # how many there were since health was last proven, the next one included
        self._has_brought_data = False
        self._troubled_since: float | None = None
        self._attempt_at = -inf
        self._banned_until = -inf
        self._limited_until = -inf  # by a 429, which unlike a ban concerns connecting only
        self._healthy_at = inf
        self.retry_at = -inf

    @property
    def banned_until(self) -> float:
        return self._banned_until

    def dialling(self, now: float) -> None:
        self._attempt_at = now
        # Each connection has to show it anew: one that opens and breaks without data is trouble, however good the one
        # before was.
        self._has_brought_data = False
        # Since the first attempt of a trouble, not the latest: how long it has lasted decides between an accident and
        # an outage.
        if self._troubled_since is None:
            self._troubled_since = now

    def opened(self, now: float) -> None:
        self._healthy_at = now + self._healthy_after

    def data_came(self, now: float) -> bool:
        """Whether this brings the proof of health nearer."""
        self._troubled_since = None
        self._has_brought_data = True
        # A quiet market proves its line by time alone, a busy one sooner; neither by a handshake, or a peer that
        # accepts and hangs up would be dialled without a pause for ever.
        proven_at = now + DATA_PROVES_SECONDS
        if self._healthy_at == inf or proven_at >= self._healthy_at:
            return False
        self._healthy_at = proven_at
        return True

    @property
    def due(self) -> float:
        return self._healthy_at

    def prove(self, now: float) -> None:
        """Enough health was seen: the next break is a first break again."""
        if now >= self._healthy_at:
            self.start_over()

    def start_over(self) -> None:
        self._backoff = self._fresh
        self._quick = _QUICK
        self.attempt = 0
        self._troubled_since = None
        self._healthy_at = inf

    def line_lost(self, now: float) -> None:
        """A connection that had been open is gone."""
        self._healthy_at = inf
        if self._troubled_since is None:
            self._troubled_since = now
        if self._has_brought_data and self._quick.attempt < QUICK_BREAKS:
            delay, self._quick = self._quick.retry(self._random)
        else:
            delay = self._delay(now)
        self._retry_after(delay, now, counted_from=now)

    def open_failed(self, error: UpbitBackboneError, now: float) -> None:
        if isinstance(error, BannedError):
            self.ban(now + (error.retry_after or DEFAULT_BAN_SECONDS))
            # No ladder: the ban's end is the time, and coming back before it lengthens the block.
            self._retry_after(0.0, now, counted_from=now)
        elif isinstance(error, RateLimitError):
            self._limited_until = now + (error.retry_after or DEFAULT_LIMITED_SECONDS)
            self._retry_after(self._delay(now), now, counted_from=now)
        elif not error.retryable and not isinstance(error, MessageTooBigError):
            # Garbage at the door, however much of it, may be gone a moment later; a 403 or a bad certificate is not.
            delay, self._backoff = self._backoff.retry_slowly(PERMANENT_SECONDS, self._random)
            self._retry_after(delay, now, counted_from=self._attempt_at)
        else:
            self._retry_after(self._delay(now), now, counted_from=self._attempt_at)

    def deferred(self, error: UpbitBackboneError, now: float) -> None:
        """Our own limiter asks for patience; that is no failed attempt."""
        if isinstance(error, BannedError):
            self.ban(now + (error.retry_after or DEFAULT_BAN_SECONDS))
        # Nothing went on the wire, so neither the ladder nor the count of attempts moves.
        self.retry_at = max(now + (error.retry_after or DEFERRED_SECONDS), self._forbidden_until)

    def ban(self, until: float) -> None:
        self._banned_until = max(self._banned_until, until)
        self.retry_at = max(self.retry_at, self._banned_until)

    def retry_now(self, now: float) -> None:
        """Somebody has news that make waiting pointless; only Upbit's own word still holds."""
        self.retry_at = max(now, self._forbidden_until)

    def _delay(self, now: float) -> float:
        if self._quick.attempt and not self._backoff.attempt:
            _, self._backoff = self._backoff.retry(self._random)  # its immediate retry: there was one already
        is_outage = self._troubled_since is not None and now - self._troubled_since > OFFLINE_AFTER_SECONDS
        if is_outage:
            delay, self._backoff = self._backoff.retry_slowly(self._offline_cap, self._random)
        else:
            delay, self._backoff = self._backoff.retry(self._random)
        return delay

    def _retry_after(self, delay: float, now: float, *, counted_from: float) -> None:
        self.attempt += 1
        # An attempt that took long has done part of the waiting, but never all of it.
        pause = now + min(delay, MIN_PAUSE_SECONDS)
        self.retry_at = max(pause, counted_from + delay, self._forbidden_until)

    @property
    def _forbidden_until(self) -> float:
        return max(self._banned_until, self._limited_until)
