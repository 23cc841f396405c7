"""Order books by REST: asked in few depths and trimmed, so that different wishes meet on one list."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from decimal import Decimal
from typing import Final

from .._concurrency import Deadline
from ..models.enums import Priority
from ..models.market import OrderbookData
from ..wire.endpoints import check_levels
from .rest_lists import ListDesk

DEPTHS: Final = (1, 5, 15, 30)
MAX_DESKS: Final = 64


class BookDesks:
    """One desk for each depth and price grouping, made when first asked for."""

    def __init__(self, make: Callable[[int, Decimal], ListDesk[OrderbookData]]) -> None:
        self._make = make
        self._lock = threading.Lock()  # guards _desks
        self._desks: dict[tuple[int, Decimal], ListDesk[OrderbookData]] = {}

    def ask(
        self,
        symbols: Iterable[str],
        levels: int,
        level: Decimal | int,
        deadline: Deadline,
        priority: Priority,
        max_age: float | None,
    ) -> dict[str, OrderbookData]:
        """Books with at most `levels` levels a side; see `ListDesk.ask`."""
        check_levels(levels, level)
        depth = next(each for each in DEPTHS if each >= levels)
        books = self._desk(depth, Decimal(level)).ask(symbols, deadline, priority, max_age)
        if depth == levels:
            return books
        return {
            symbol: replace(book, asks=book.asks[:levels], bids=book.bids[:levels]) for symbol, book in books.items()
        }

    def _desk(self, depth: int, level: Decimal) -> ListDesk[OrderbookData]:
        with self._lock:
            desk = self._desks.get((depth, level))
            if desk is None:
                if len(self._desks) >= MAX_DESKS:
                    self._desks.clear()  # whoever waits at one of them keeps it
                desk = self._desks[depth, level] = self._make(depth, level)
            return desk
