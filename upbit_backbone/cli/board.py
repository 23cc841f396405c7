"""What a live view knows: the newest item per symbol, its recent prices and how often it moves. No terminal here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ..models.market import CandleData, OrderbookData, TickerData, TradeData

MEMORY = 400
RATE_SECONDS = 5.0
TAPE = 100

PRICE_OF: dict[type, Callable[[Any], Decimal | None]] = {
    TickerData: lambda item: item.current_price,
    TradeData: lambda item: item.price,
    OrderbookData: lambda item: item.mid_price,
    CandleData: lambda item: item.close_price,
}


@dataclass(slots=True)
class Row:
    """One symbol. `direction` is the sign of the last price move, `moved_at` when it happened (monotonic)."""

    item: Any = None
    prices: deque[float] = field(default_factory=lambda: deque(maxlen=MEMORY))
    arrivals: deque[float] = field(default_factory=lambda: deque(maxlen=2_000))
    arrived_at: float = 0.0
    moved_at: float = float("-inf")
    direction: int = 0
    count: int = 0

    def rate(self, now: float) -> float:
        """Items per second lately."""
        while self.arrivals and now - self.arrivals[0] > RATE_SECONDS:
            self.arrivals.popleft()
        return len(self.arrivals) / RATE_SECONDS


class Board:
    """Rows in the order in which the symbols were asked for, and the newest items of all as a tape."""

    def __init__(self, symbols: list[str]) -> None:
        self.rows: dict[str, Row] = {symbol: Row() for symbol in symbols}
        self.tape: deque[Any] = deque(maxlen=TAPE)
        self.count = 0

    def take(self, item: Any, now: float) -> None:
        row = self.rows.setdefault(item.symbol, Row())
        self.count += 1
        row.count += 1
        row.item, row.arrived_at = item, now
        row.arrivals.append(now)
        self.tape.appendleft(item)
        price = PRICE_OF[type(item)](item)
        if price is None:
            return
        if row.prices and float(price) != row.prices[-1]:
            row.direction = 1 if float(price) > row.prices[-1] else -1
            row.moved_at = now
        row.prices.append(float(price))

    def rate(self, now: float) -> float:
        return sum(row.rate(now) for row in self.rows.values())
