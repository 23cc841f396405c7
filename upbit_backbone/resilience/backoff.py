"""Backoff: how long to wait before the next attempt; an immutable value that returns its successor. Pure.

"Start over" is simply the first value again. Randomness is passed in: a callable giving floats in [0, 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

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
