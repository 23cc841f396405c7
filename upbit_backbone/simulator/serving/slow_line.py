"""A line that is narrow, long or uneven: what is written to a connection leaves later, in order, in pieces."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

FROZEN_SECONDS = 0.02  # how often a frozen connection looks whether it is thawed
PIECES_PER_SECOND = 50  # so that a narrow line brings crumbs, as a real one does, and not a message at a time


@dataclass(slots=True)
class LineFault:
    """What is wrong with the lines of a door. Bytes a second (0: no limit), seconds, and shares of the messages."""

    bandwidth: float = 0.0
    latency: float = 0.0
    jitter: float = 0.0
    duplicates: float = 0.0
    reorders: float = 0.0
    until: float | None = None

    @property
    def is_on(self) -> bool:
        return self.until is None or time.monotonic() < self.until


class SlowLine:
    """One connection's bytes on their way. `fault` is asked each time, so that it may change or end meanwhile, and
    nothing leaves while `is_frozen` says so."""

    def __init__(
        self,
        put: Callable[[bytes], None],
        fault: Callable[[], LineFault | None],
        is_frozen: Callable[[], bool],
        seed: str,
    ) -> None:
        self._put = put
        self._fault = fault
        self._is_frozen = is_frozen
        self._random = random.Random(seed)
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._due = self._free_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._when_empty: Callable[[], None] | None = None
        self.size = 0

    def write(self, data: bytes) -> None:
        fault = self._fault()
        way = 0.0 if fault is None else max(0.0, fault.latency + self._random.uniform(-fault.jitter, fault.jitter))
        # TCP keeps the order: a piece that is quicker waits for the one before it.
        self._due = max(self._due, self._loop.time() + way)
        self._waiting.append((self._due, data))
        self.size += len(data)
        if self._timer is None:
            self._pump()

    def when_empty(self, action: Callable[[], None]) -> None:
        """Once everything has left; at once if it has."""
        self._when_empty = action
        if not self._waiting:
            action()

    def drop(self) -> None:
        """Nothing of it leaves any more."""
        self._waiting.clear()
        self.size = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pump(self) -> None:
        self._timer = None
        while self._waiting:
            now, (due, data) = self._loop.time(), self._waiting[0]
            wait = FROZEN_SECONDS if self._is_frozen() else max(due, self._free_at) - now
            if wait > 0:
                self._timer = self._loop.call_later(wait, self._pump)
                return
            self._waiting.popleft()
            fault = self._fault()
            piece = data
            if fault is not None and fault.bandwidth:
                piece = data[: max(1, int(fault.bandwidth / PIECES_PER_SECOND))]
                self._free_at = max(self._free_at, now) + len(piece) / fault.bandwidth
            if len(piece) < len(data):
                self._waiting.appendleft((due, data[len(piece) :]))
            self.size -= len(piece)
            self._put(piece)
        if self._when_empty is not None:
            self._when_empty()
