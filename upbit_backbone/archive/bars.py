"""Bars: candles made of trades by number, volume or value instead of time, exactly. Pure.

A bar closes with the trade that fills it; trades are not split, so a bar may hold a little more than was asked for, and
every trade is in one bar. The last bar is open (`is_closed=False`) unless it is full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Final

from ..errors import InvalidRequestError
from ..history.aggregate import candle_of
from ..models.market import CandleData, TradeData
from ..models.number import ZERO, plain

_ONE: Final = Decimal(1)
# What a trade adds, by the word for the kind of bar.
_MEASURES: Final[dict[str, Callable[[TradeData], Decimal]]] = {
    "ticks": lambda trade: _ONE,
    "volume": lambda trade: trade.volume,
    "value": lambda trade: trade.price * trade.volume,
}


def bars_by(kind: str, size: object, trades: Iterable[TradeData]) -> list[CandleData]:
    """Bars of so many `kind` ("ticks", "volume" in coins, "value" in the quote currency), from trades in order.

    A bar's `timestamp` is that of its first trade, and its `timeframe` says what it is ("1000 ticks").
    InvalidRequestError for a `size` that is not above zero.
    """
    enough = _number(kind, size)
    measure, label = _MEASURES[kind], f"{plain(enough)} {kind}"
    bars: list[CandleData] = []
    waiting: list[TradeData] = []
    filled = ZERO
    for trade in trades:
        waiting.append(trade)
        filled += measure(trade)
        if filled >= enough:
            bars.append(candle_of(waiting, label, waiting[0].timestamp))
            waiting, filled = [], ZERO
    if waiting:
        bars.append(candle_of(waiting, label, waiting[0].timestamp, is_closed=False))
    return bars


def _number(kind: str, size: object) -> Decimal:
    try:
        number = Decimal(str(size))
    except ArithmeticError:
        number = ZERO
    if isinstance(size, bool) or not number.is_finite() or number <= 0:
        raise InvalidRequestError(f"{kind}={size!r}: expected a number > 0")
    return number
