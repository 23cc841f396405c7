"""Tap: where a recorder is attached; told of everything that comes in, never allowed to hold it up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from ..models.request import Topic


class Tap(Protocol):
    """Called by whoever receives, on its own thread, with the very times it gives the data. Never blocks or raises."""

    # Raw, before anything is decoded: a replay has to meet the poison as well. With the receiver's times, because times
    # of the tap's own would give a replay other ages than the original had.
    def frames(
        self, session: str, epoch: int, frames: Sequence[bytes], monotonic: float, received_at: datetime
    ) -> None: ...

    def subscribed(self, session: str, epoch: int, topics: frozenset[Topic]) -> None: ...

    def interrupted(self, session: str, epoch: int, topics: frozenset[Topic], reason: str) -> None: ...

    def rest(self, path: str, status: int, body: bytes, received_at: datetime) -> None:
        """An answer to GET `path` (with its query) in whatever status."""
