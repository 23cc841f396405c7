"""Candles made up for periods in which nobody traded, only where asked for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Final

from ..models.enums import DataSource
from ..models.market import CandleData
from ..models.timeframe import Timeframe

NOTHING: Final = Decimal(0)


def filled_candle(previous: CandleData, timeframe: Timeframe, start: datetime, now: datetime) -> CandleData:
    """A period without trades: every price is the close before it, nothing was traded."""
    price = previous.close_price
    return CandleData(
        symbol=previous.symbol,
        timeframe=timeframe.word,
        open_price=price,
        high_price=price,
        low_price=price,
        close_price=price,
        volume=NOTHING,
        traded_value=NOTHING,
        timestamp=start,
        source=DataSource.DERIVED,
        is_closed=timeframe.next_start(start) <= now,
        is_filled=True,
    )


def fill_forward(
    rows: Iterable[CandleData],
    timeframe: Timeframe,
    start: datetime,
    end: datetime,
    *,
    previous: CandleData | None,
    now: datetime,
) -> Iterator[CandleData]:
    """`rows` (oldest first) with every missing period of [start, end) made up from the close before it.

    Periods before the first trade of all (`previous` None and no row yet) stay empty: there is no price to carry.
    """
    expected = start
    for row in rows:
        if previous is not None:
            for missing in timeframe.starts(expected, row.timestamp):
                yield filled_candle(previous, timeframe, missing, now)
        yield row
        previous, expected = row, timeframe.next_start(row.timestamp)
    if previous is not None:
        for missing in timeframe.starts(expected, end):
            yield filled_candle(previous, timeframe, missing, now)
