"""How late live data comes, though our clock and Upbit's never agree.

The difference "received minus exchange time" is clock offset plus time on the way. Its smallest value of the last
minutes is taken for the offset (with the quickest way in it); what a message exceeds it by is its lag.
"""

from __future__ import annotations

import threading
from collections import deque
from datetime import datetime

OFFSET_MEMORY_SECONDS = 300.0
BUCKET_SECONDS = 10.0


class LagMeter:
    """One meter for all sessions. Sample it once per batch of frames, with a live item: snapshots may be old."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards both
        self._smallest: deque[tuple[float, float]] = deque()  # (start of bucket, smallest difference in it)
        self._newest: dict[str, float] = {}

    def sample(self, session: str, exchange_time: datetime, received_at: datetime, monotonic: float) -> None:
        difference = (received_at - exchange_time).total_seconds()
        with self._lock:
            self._newest[session] = difference
            self._remember(difference, monotonic)

    def _remember(self, difference: float, monotonic: float) -> None:
        if self._smallest and monotonic - self._smallest[-1][0] < BUCKET_SECONDS:
            start, smallest = self._smallest[-1]
            if difference < smallest:
                self._smallest[-1] = (start, difference)
            return
        self._smallest.append((monotonic, difference))
        while monotonic - self._smallest[0][0] > OFFSET_MEMORY_SECONDS:
            self._smallest.popleft()

    @property
    def offset(self) -> float | None:
        """Our clock minus Upbit's in seconds, including the quickest way; None before the first sample."""
        with self._lock:
            return min((smallest for _, smallest in self._smallest), default=None)

    def lag(self, session: str) -> float | None:
        """How much later than the quickest the newest data of `session` came; None before the first sample."""
        offset = self.offset
        with self._lock:
            newest = self._newest.get(session)
        return None if offset is None or newest is None else max(0.0, newest - offset)

    def forget(self, session: str) -> None:
        with self._lock:
            self._newest.pop(session, None)

    def __repr__(self) -> str:
        offset = self.offset
        return "<LagMeter no samples>" if offset is None else f"<LagMeter offset {offset:+.3f} s>"
