"""Whether an exchange time can be believed. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

# A stamp so far ahead of all others and of our clock is garbage; believed, it would make all that follows "older".
IMPLAUSIBLY_AHEAD = timedelta(days=1)
# But so many in a row are right, and our own clock is wrong.
CONVINCING_OUTLIERS = 20


class Horizon:
    """The latest exchange time one session may reasonably show. Touched by its thread only.

    Our own clock may be wrong by any amount, so the first stamp is believed as it is.
    """

    __slots__ = ("_newest", "_outliers", "_wall")

    def __init__(self) -> None:
        self._wall: datetime | None = None
        self._newest: datetime | None = None  # what was last convincing, and later
        self._outliers = 0

    def advance(self, wall: datetime) -> None:
        """Our clock shows `wall`."""
        self._wall = wall

    def allows(self, stamp: datetime) -> bool:
        """Whether to believe `stamp`; to be asked once for each message, in order."""
        newest = self._newest
        if newest is None or stamp > newest:
            if newest is not None and self._is_outlier(stamp, newest):
                self._outliers += 1
                if self._outliers < CONVINCING_OUTLIERS:
                    return False
            self._newest = stamp
        if self._outliers:
            self._outliers = 0
        return True

    def _is_outlier(self, stamp: datetime, newest: datetime) -> bool:
        reference = newest if self._wall is None else max(newest, self._wall)
        return stamp > reference + IMPLAUSIBLY_AHEAD
