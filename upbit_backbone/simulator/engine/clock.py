"""The simulator's own time: it starts where it is told to and can be moved forward."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Clock:
    """Wall time in milliseconds that runs with the monotonic clock and jumps only when `advance` is called."""

    def __init__(self, start_time: str | None = None) -> None:
        start = time.time() if start_time is None else parse_utc(start_time).timestamp()
        self._offset = start - time.monotonic()

    def now_ms(self) -> int:
        return int((time.monotonic() + self._offset) * 1000)

    def seconds(self) -> float:
        return time.monotonic() + self._offset

    def advance(self, seconds: float) -> None:
        self._offset += seconds


def parse_utc(text: str) -> datetime:
    """ISO 8601 to an aware UTC datetime; a time without an offset is UTC."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
