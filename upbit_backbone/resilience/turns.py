"""Who waits for a rate group, and in which order: the urgent first, equals as they came."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from heapq import heappop, heappush

from ..models.enums import Priority, RateGroup
from .window import Slot


class Waiter:
    """One thread that wants to send. `bell` wakes it; `slot` is its turn, once it has come."""

    __slots__ = ("bell", "group", "is_gone", "number", "priority", "slot")

    def __init__(self, group: RateGroup, priority: Priority, number: int) -> None:
        self.group = group
        self.priority = priority
        self.number = number
        self.bell = threading.Event()
        self.slot: Slot | None = None
        self.is_gone = False

    def __lt__(self, other: Waiter) -> bool:
        return (self.priority, self.number) < (other.priority, other.number)


class TurnQueue:
    """The waiters of one group. Those who give up are marked, and left out when they come up."""

    def __init__(self) -> None:
        self._heap: list[Waiter] = []

    def join(self, waiter: Waiter) -> None:
        heappush(self._heap, waiter)

    def first(self) -> Waiter | None:
        while self._heap and self._heap[0].is_gone:
            heappop(self._heap)
        return self._heap[0] if self._heap else None

    def leave_first(self) -> None:
        heappop(self._heap)

    def ahead_of(self, waiter: Waiter) -> int:
        return sum(1 for each in self if each < waiter)

    def __iter__(self) -> Iterator[Waiter]:
        return (each for each in self._heap if not each.is_gone)

    def __len__(self) -> int:
        return sum(1 for _ in self)
