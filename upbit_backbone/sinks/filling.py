"""Filling: what Upbit still has of a hole, in batches of which the last says that the hole is closed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, time, timedelta
from itertools import islice
from typing import Any, Final

from ..exchange.endpoints import MAX_DAYS_AGO
from ..exchange.fields import SHUFFLE
from ..exchange.timeframes import Timeframe, timeframe_of
from ..history.closed_candles import SETTLE
from ..models.enums import DataType
from .base import Batch, Hole, Span

FILL_ROWS: Final = 1_000
# By more than this Upbit's answers were never seen to lag behind its stream.
BEHIND: Final = timedelta(seconds=120)
STATE_TYPES: Final = frozenset({DataType.TICKER.value, DataType.ORDERBOOK.value})

# Trades of a market since a moment, newest first; candles of a market and timeframe in [start, end), in any order.
Trades = Callable[[str, datetime], Iterable[Any]]
Candles = Callable[[str, Timeframe, datetime, datetime], Iterable[Any]]


def is_fillable(kind: str) -> bool:
    """Whether Upbit can be asked for it afterwards. Tickers and order books of the past it has none."""
    return kind not in STATE_TYPES


def oldest_trade(now: datetime) -> datetime:
    """From when on Upbit keeps trades: today (UTC) and seven days before it."""
    return datetime.combine(now.astimezone(UTC).date(), time(), UTC) - timedelta(days=MAX_DAYS_AGO)


class HoleFiller:
    """Asks for what is missing. `fill` blocks for as long as Upbit needs and raises what asking raises."""

    def __init__(self, trades: Trades, candles: Candles, exchange_now: Callable[[], datetime]) -> None:
        self._trades = trades
        self._candles = candles
        self._exchange_now = exchange_now

    def fill(self, hole: Hole) -> Iterator[Batch]:
        """The missing items; with the last of them the span that is complete now, smaller than the hole where Upbit
        keeps no more. No span comes while Upbit's answers may lag behind its stream: ask again some time later.
        Nothing at all comes for what can never be had again."""
        if hole.type == DataType.TRADE.value:
            yield from self._of_trades(hole)
        elif is_fillable(hole.type):
            yield from self._of_candles(hole)

    def _of_trades(self, hole: Hole) -> Iterator[Batch]:
        oldest = oldest_trade(self._exchange_now())
        start = max(hole.start, oldest)
        if hole.end is not None and hole.end <= start:
            return
        newest: datetime | None = None
        waiting: list[Any] = []
        # Trades overtake each other, and the walk ends with the first that is too old.
        for row in self._trades(hole.symbol, max(start - SHUFFLE, oldest)):
            newest = row.timestamp if newest is None else max(newest, row.timestamp)
            if start <= row.timestamp and (hole.end is None or row.timestamp < hole.end):
                waiting.append(row)
            if len(waiting) >= FILL_ROWS:
                yield Batch(waiting)
                waiting = []
        yield Batch(waiting, spans=() if newest is None else self._proven(hole, start, newest))

    def _proven(self, hole: Hole, start: datetime, newest: datetime) -> tuple[Span, ...]:
        """What is complete now that Upbit has shown all until `newest`."""
        # Whatever is older than that by the time in which trades overtake each other was published before it.
        end, is_up_to_date = newest - SHUFFLE, True
        if hole.end is not None and self._exchange_now() - hole.end > BEHIND:
            end = hole.end
        elif hole.end is not None:
            # A hole ends so much behind the first trade that the stream gave. An answer without that one is of a
            # server that lags behind, and what else it lacks nobody knows.
            end, is_up_to_date = min(hole.end, end), newest >= hole.end - SHUFFLE
        return _filled(hole, start, end) if is_up_to_date and start < end else ()

    def _of_candles(self, hole: Hole) -> Iterator[Batch]:
        unit, now = timeframe_of(hole.type), self._exchange_now()
        start = unit.floor(hole.start)
        end = unit.floor(now - SETTLE if hole.end is None else hole.end)
        if start >= end:
            return
        rows = iter(self._candles(hole.symbol, unit, start, end))
        while piece := list(islice(rows, FILL_ROWS)):
            yield Batch(piece)
        # The last candle may change for some seconds after its end.
        yield Batch(spans=_filled(hole, start, end) if end <= now - SETTLE else ())

    def __repr__(self) -> str:
        return "<HoleFiller>"


def _filled(hole: Hole, start: datetime, end: datetime) -> tuple[Span, ...]:
    return (Span(hole.symbol, hole.type, start, end, is_fill=True),)
