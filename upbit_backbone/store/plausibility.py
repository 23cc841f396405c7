"""Whether an exchange time can be believed. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

# A stamp so far ahead of all others and of our clock is garbage; believed, it would make all that follows "older".
IMPLAUSIBLY_AHEAD = timedelta(days=1)
# But three in a row are right, and our own clock is wrong.
CONVINCING_OUTLIERS = 3


class Horizon:
    """The latest exchange time one session may reasonably show. Touched by its thread only."""

    __slots__ = ("_limit", "_newest", "_outliers")

    def __init__(self) -> None:
        self._newest: datetime | None = None
        self._limit: datetime | None = None
        self._outliers = 0

    def advance(self, wall: datetime) -> None:
        """Our clock shows `wall`."""
        newest = wall if self._newest is None else max(wall, self._newest)
        self._limit = newest + IMPLAUSIBLY_AHEAD

    def allows(self, stamp: datetime) -> bool:
        """Whether to believe `stamp`; to be asked once for each message, in order."""
        if self._limit is not None and stamp > self._limit:
            self._outliers += 1
            if self._outliers < CONVINCING_OUTLIERS:
                return False
            self._limit = stamp + IMPLAUSIBLY_AHEAD
        if self._outliers:
            self._outliers = 0
        if self._newest is None or stamp > self._newest:
            self._newest = stamp
        return True
