"""Time that passes when a test says so."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from math import floor

START = datetime(2026, 11, 20, 5, 0, tzinfo=UTC)
BEGIN = 1000.0  # what the monotonic clock says at START: as arbitrary as a real one


TICK = 1 / 64  # of Windows' clocks before Python 3.13: 15.6 ms


def ticked(moment: float) -> float:
    """What a clock that ticks so coarsely says at `moment`."""
    return floor(moment / TICK) * TICK


class CoarseClock:
    """The machine's clocks as Windows shows them: most questions in a row get the same answer."""

    def monotonic(self) -> float:
        return ticked(time.monotonic())

    def wall(self) -> datetime:
        return datetime.fromtimestamp(ticked(time.time()), UTC)


class ManualClock:
    """Stands still until `now` is moved.

    `wall_ahead` is the wall clock's alone: the machine slept, or somebody set it.
    """

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self.now = BEGIN
        self.wall_ahead = 0.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> datetime:
        return self._start + timedelta(seconds=self.now - BEGIN + self.wall_ahead)
