"""When the next of many alike is worth a report. Pure."""

from __future__ import annotations

REPORT_EVERY_SECONDS = 10.0


class Sampler:
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
        while self._next_count <= count:
            self._next_count *= 10
        self._last = now
        return True
