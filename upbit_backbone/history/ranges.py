"""What is asked: the caller's words made into one half-open range on the period grid. Pure.

Two ways to ask exist and cannot be mixed: `count` candles before `to`, or all candles of [`start`, `end`).
Bounds are period starts: a candle belongs to the answer if its period *starts* at or after `start` and before `to`
or `end`. Naive datetimes are refused, because nobody can know which clock they were read from.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypedDict

from .._arguments import Moment, aware, whole_number
from ..errors import InvalidRequestError
from ..exchange.endpoints import MAX_CANDLES as PAGE_ROWS
from ..exchange.timeframes import Timeframe
from ..models.report import DownloadEstimate

DEFAULT_COUNT: Final = 200
MAX_CANDLES: Final = 1_000_000  # about 1 GB of rows and 500 s of Upbit's rate; more only by iter_candles over a range
CLOCK_SLACK: Final = timedelta(seconds=60)  # a range is "in the future" only beyond what a bad clock explains
ALLOWED: Final = "allowed are count= with optional to=, or start= with optional end="

Fill = Literal["none", "forward"]


class Bounds(TypedDict, total=False):
    """Which candles: the keyword arguments of everything that asks for some; see `candle_range`."""

    count: int | None
    to: Moment | None
    start: Moment | None
    end: Moment | None
    fill: Fill


@dataclass(frozen=True, slots=True)
class CandleRange:
    """Candles of one market and unit whose periods start in [start, end).

    `start` None: as far back as `count` reaches. `end` None: up to now, the forming candle included. Both lie on the
    period grid. `filled`: periods without trades are to be made up from the close before them.
    """

    symbol: str
    timeframe: Timeframe
    start: datetime | None
    end: datetime | None
    count: int | None
    filled: bool = False

    @property
    def is_empty(self) -> bool:
        return self.start is not None and self.end is not None and self.start >= self.end


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """The question that fetches what an interrupted download did not: `get(**point.arguments())`.

    Its rows and the error's `partial` do not overlap, and together they are the whole answer.
    """

    symbol: str
    timeframe: str
    count: int | None = None
    to: datetime | None = None
    start: datetime | None = None
    end: datetime | None = None
    fill: Fill = "none"

    def arguments(self) -> dict[str, Any]:
        """As keyword arguments for get_candles or iter_candles."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in given.items() if value not in (None, "none")}


def candle_range(
    symbol: str,
    timeframe: Timeframe,
    *,
    now: datetime,
    count: int | None = None,
    to: Moment | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    fill: Fill = "none",
    max_candles: int | None = MAX_CANDLES,
) -> CandleRange:
    """The validated range, or InvalidRequestError that lists what is allowed. `now` is the exchange's time.

    With `fill="forward"` a count counts periods, so it becomes a range; and it ends with the period of `now`, because a
    download takes time, and what begins meanwhile was not asked for. Ranges in the future come back empty.
    """
    refuse_mixtures(count, to, start, end)
    if fill not in ("none", "forward"):
        raise InvalidRequestError(f"fill={fill!r}: expected 'none' or 'forward'")
    stop = None if to is None and end is None else aware(end if to is None else to, "end" if to is None else "to")
    first = None if start is None else aware(start, "start")
    if first is not None and stop is not None and first >= stop:
        raise InvalidRequestError(f"start={first} is not before end={stop}; ranges are half-open: [start, end)")
    is_filled, stop = fill == "forward", None if stop is None else timeframe.ceil(stop)
    next_period = timeframe.next_start(timeframe.floor(now))
    if is_filled:
        # The clock is looked at once: read again after the download, it made up candles for periods that had begun
        # meanwhile.
        stop = min(stop or next_period, next_period)
    if first is None:
        count = checked_count(count, max_candles or MAX_CANDLES)
        if not is_filled:
            return CandleRange(symbol, timeframe, None, stop, count)
        first = timeframe.shift(stop or next_period, -count)
    elif first > now + CLOCK_SLACK:
        return CandleRange(symbol, timeframe, next_period, next_period, None, is_filled)
    first = timeframe.ceil(first)
    if max_candles is not None:
        _check_length(timeframe.periods(first, min(stop or next_period, next_period)), max_candles)
    return CandleRange(symbol, timeframe, first, stop, None, is_filled)


def refuse_mixtures(count: object, to: object, start: object, end: object) -> None:
    """InvalidRequestError for bounds of both ways to ask."""
    given = [
        name for name, value in (("count", count), ("to", to), ("start", start), ("end", end)) if value is not None
    ]
    mixes_ways = start is not None and (count is not None or to is not None)
    end_without_start = end is not None and start is None
    if mixes_ways or end_without_start:
        raise InvalidRequestError(f"{' and '.join(f'{name}=' for name in given)} do not go together; {ALLOWED}")


def checked_count(count: int | None, cap: int) -> int:
    """`count`, or the default of one page; InvalidRequestError unless it is a whole number from 1 to `cap`."""
    if count is None:
        return DEFAULT_COUNT
    return whole_number(count, "count", low=1, high=cap, more="; for more, walk a range with iter_candles")


def _check_length(periods: int, cap: int) -> None:
    if periods > cap:
        raise InvalidRequestError(
            f"the range holds {periods:,} periods, more than the {cap:,} that one list may hold; "
            "use iter_candles(start=, end=), which keeps only a few pages in memory, or a larger timeframe"
        )


def estimated(wanted: CandleRange, beginning: datetime | None, now: datetime, per_second: float) -> DownloadEstimate:
    """What a download takes at most at so many requests a second, if the market's candles begin at `beginning`."""
    rows = wanted.count or 0
    if wanted.start is not None:
        first = wanted.start if beginning is None else max(wanted.start, beginning)
        # The forming candle counts, too: it is a row.
        end = wanted.timeframe.next_start(wanted.timeframe.floor(now))
        rows = wanted.timeframe.periods(first, end if wanted.end is None else min(end, wanted.end))
    requests = -(-rows // PAGE_ROWS)
    return DownloadEstimate(requests=requests, seconds=requests / per_second, rows=rows)
