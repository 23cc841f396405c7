"""How far Upbit's clock is from ours, from the Date headers of its answers. Pure.

A Date has a resolution of one second, so each answer only says: the offset lies between two bounds. Many answers
together narrow it down.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final

SAMPLES: Final = 32
RESOLUTION_SECONDS: Final = 1.0


class ClockOffset:
    """Server time minus local wall time, in seconds. Written by whoever gets an answer, one at a time."""

    def __init__(self) -> None:
        self._bounds: deque[tuple[float, float]] = deque(maxlen=SAMPLES)

    def learn(self, date: str | None, received_at: datetime, elapsed: float) -> None:
        """One answer's Date header; it was written between the request's departure and the answer's arrival."""
        moment = _moment(date)
        if moment is None:
            return
        latest = (moment - received_at).total_seconds() + elapsed + RESOLUTION_SECONDS
        self._bounds.append((latest - elapsed - RESOLUTION_SECONDS, latest))

    def estimate(self) -> float | None:
        """None before the first answer. Where the bounds contradict each other (a clock was set) their median."""
        bounds = list(self._bounds)
        if not bounds:
            return None
        low, high = max(low for low, _ in bounds), min(high for _, high in bounds)
        if low <= high:
            return (low + high) / 2
        from statistics import median  # as rare as it is dear to load

        return median((low + high) / 2 for low, high in bounds)


@lru_cache(maxsize=8)  # answers of one second share their date
def _moment(date: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(date or "")
    except (ValueError, TypeError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else None
