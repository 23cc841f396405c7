"""History start: where the candles of a market begin, found in a handful of requests.

A year has one candle of a year, so one page of the coarsest unit tells the year in which trading began; the next finer
unit of which that year holds a page or less tells the week, and so on down to the unit that is wanted: four or five
requests. Fine units may be kept for less long than coarse ones (seconds: three months, docs: list-candles-seconds);
then the rest is found by halving, about twenty requests. What was found is believed once Upbit has nothing before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Final

from ..exchange.endpoints import MAX_CANDLES
from ..exchange.timeframes import FIRST_MOMENT, TIMEFRAMES, Timeframe
from ..models.market import CandleData

COARSEST: Final = TIMEFRAMES[-1]

# The newest rows, at most so many, that start before a moment (None: now), in any order.
PageBefore = Callable[[Timeframe, int, datetime | None], Sequence[CandleData]]


def first_candle(page: PageBefore, unit: Timeframe) -> CandleData | None:
    """The oldest candle of `unit` there is, None where there is none. Raises what `page` raises."""
    known_empty, first = _down_the_units(page, unit)
    if first is None:
        first = _oldest(page(unit, 1, None) or page(unit, 1, None))  # one empty answer is no proof
        if first is None:
            return None
    elif not (before := page(unit, 1, first.timestamp)):
        return first
    else:  # the coarse units knew less than the fine one
        known_empty, first = FIRST_MOMENT, before[0]
    return _by_halving(page, unit, known_empty, first)


def _down_the_units(page: PageBefore, unit: Timeframe) -> tuple[datetime, CandleData | None]:
    """The oldest candle of `unit` as far as the coarser ones lead to it, and before what they know of nothing."""
    rung = COARSEST
    oldest = _oldest(page(rung, MAX_CANDLES, None))
    while oldest is not None and rung != unit:
        # The beginning lies within this one candle of the coarser unit, whatever it is in the finer.
        low, high = oldest.timestamp, rung.next_start(oldest.timestamp)
        finer = next(each for each in TIMEFRAMES if _leads_on(each, low, high, rung, unit))
        oldest = _oldest(page(finer, MAX_CANDLES, high))
        if oldest is None:
            return low, None
        rung = finer
    return FIRST_MOMENT, oldest


def _leads_on(each: Timeframe, low: datetime, high: datetime, above: Timeframe, target: Timeframe) -> bool:
    """Whether `each` lies between the two units and [low, high) is a page of it at most."""
    is_between = TIMEFRAMES.index(target) <= TIMEFRAMES.index(each) < TIMEFRAMES.index(above)
    return is_between and each.periods(low, high) <= MAX_CANDLES


def _by_halving(page: PageBefore, unit: Timeframe, known_empty: datetime, first: CandleData) -> CandleData:
    """The oldest candle, which starts at or after `known_empty` and not after `first`."""
    while True:
        low = known_empty
        while (periods := unit.periods(low, first.timestamp)) > MAX_CANDLES:
            middle = unit.shift(unit.ceil(low), periods // 2)
            found = page(unit, 1, middle)
            if found:
                first = found[0]
            else:
                low = middle
        rows = page(unit, MAX_CANDLES, first.timestamp)
        first = _oldest(rows) or first
        # An empty answer on the way may have been a hiccup, so what is below the end of the way is asked for at last.
        if not rows or (len(rows) < MAX_CANDLES and not page(unit, 1, first.timestamp)):
            return first


def _oldest(rows: Sequence[CandleData]) -> CandleData | None:
    return min(rows, key=attrgetter("timestamp"), default=None)
