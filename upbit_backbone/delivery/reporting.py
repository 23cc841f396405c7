"""Backpressure reports: trouble of one subscription, told often enough to be noticed, seldom enough to be read."""

from __future__ import annotations

# When the next of many alike is worth a report. Pure.

REPORT_EVERY_SECONDS = 10.0


class LogThrottle:
    """Says yes to the first, then to every tenfold count, and otherwise at most once per interval."""

    __slots__ = ("_interval", "_last", "_next_count")

    def __init__(self, interval: float = REPORT_EVERY_SECONDS) -> None:
        self._interval = interval
        self._last = float("-inf")
        self._next_count = 1

    def is_due(self, count: int, now: float) -> bool:
        """Whether to report, `count` being the total so far and `now` monotonic."""
        is_milestone = count >= self._next_count
        is_time = now - self._last >= self._interval
        if not (is_milestone or is_time):
            return False
        # Tenfold steps: the first loss is told at once, a million of them in seven reports.
        while self._next_count <= count:
            self._next_count *= 10
        self._last = now
        return True


# What there is to say about a consumer that does not keep up, and how often. Pure; its mailbox holds the lock.

SLOW_CALLBACK_SECONDS = 5.0
UNREAD_SECONDS = 60.0  # nobody who means to read lets it wait so long; a forgotten loop or notebook cell does


class BackpressureReporter:
    """Losses, parking and slow callbacks of one subscription; each is told sparingly."""

    def __init__(self) -> None:
        self.lost = 0
        self.busy_since: float | None = None  # monotonic time at which the callback under way was called
        self._losses = LogThrottle()
        self._has_told_of_slowness = False
        self.is_parking = False
        self.unread_since: float | None = None  # when the first item came after the last that was read
        self._has_told_unread = False

    def begin_turn(self, now: float) -> None:
        self.busy_since = now

    def end_turn(self) -> None:
        self.busy_since = None
        self._has_told_of_slowness = False

    def parked(self, waiting: int, bound: int) -> None:
        """So many wait now; parking is over once half the bound has been read."""
        # Half and not the bound itself, or a consumer at the edge would be told of again with every item.
        self.is_parking = waiting > bound // 2

    def about(self, lost: int, waiting: int, bound: int, capacity: int, now: float) -> str | None:
        """What to report now that `lost` more found no room and `waiting` wait; None if it is not time to."""
        self.lost += lost
        if lost and self._losses.is_due(self.lost, now):
            return f"more than {capacity} items waited"
        if waiting > bound and not self.is_parking:
            self.is_parking = True
            return f"more than {bound} items wait; parking up to {capacity}"
        if self.busy_since is None and self.unread_since is not None and not self._has_told_unread:
            unread = now - self.unread_since
            if unread > UNREAD_SECONDS:
                self._has_told_unread = True
                return f"nobody has read it for {unread:.0f} s and {waiting} items wait; close() what is not needed"
        if self.busy_since is not None and not self._has_told_of_slowness:
            busy = now - self.busy_since
            if busy > SLOW_CALLBACK_SECONDS:
                self._has_told_of_slowness = True
                return f"the callback has been busy for {busy:.1f} s and {waiting} items wait"
        return None
