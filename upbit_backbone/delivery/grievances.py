"""What there is to say about a consumer that does not keep up, and how often. Pure; its mailbox holds the lock."""

from __future__ import annotations

from .sampling import Sampler

SLOW_CALLBACK_SECONDS = 5.0


class Grievances:
    """Losses, parking and slow callbacks of one subscription; each is told sparingly."""

    def __init__(self) -> None:
        self.lost = 0
        self.busy_since: float | None = None  # monotonic time at which the callback under way was called
        self._losses = Sampler()
        self._has_told_of_slowness = False
        self.is_parking = False

    def begin_turn(self, now: float) -> None:
        self.busy_since = now

    def end_turn(self) -> None:
        self.busy_since = None
        self._has_told_of_slowness = False

    def parked(self, waiting: int, bound: int) -> None:
        """So many wait now; parking is over once half the bound has been read."""
        self.is_parking = waiting > bound // 2

    def about(self, lost: int, waiting: int, bound: int, capacity: int, now: float) -> str | None:
        """What to report now that `lost` more found no room and `waiting` wait; None if it is not time to."""
        self.lost += lost
        if lost and self._losses.is_due(self.lost, now):
            return f"more than {capacity} items waited"
        if waiting > bound and not self.is_parking:
            self.is_parking = True
            return f"more than {bound} items wait; parking up to {capacity}"
        if self.busy_since is not None and not self._has_told_of_slowness:
            busy = now - self.busy_since
            if busy > SLOW_CALLBACK_SECONDS:
                self._has_told_of_slowness = True
                return f"the callback has been busy for {busy:.1f} s and {waiting} items wait"
        return None
