"""Days that begin at another hour than Upbit's (00:00 UTC, 09:00 in Korea), made of its hours or minutes, exact."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from itertools import groupby
from typing import Any, Final

from .._arguments import Moment, aware
from ..errors import InvalidRequestError
from ..exchange.timeframes import FIRST_MOMENT, Timeframe, timeframe_of
from ..models.market import CandleData
from ..models.readable import KST
from .aggregate import ONE_DAY, merged
from .candles import CandleHistory
from .ranges import MAX_CANDLES, checked_count, refuse_mixtures

DAY: Final = timedelta(days=1)
PARTS: Final = tuple(timeframe_of(word) for word in ("1h", "30m", "15m", "10m", "5m", "1m"))
# Where days without a trade have to be made up for by older ones, so many are looked through at once.
MORE_DAYS: Final = 30


@dataclass(frozen=True, slots=True)
class DayGrid:
    """Days that begin `offset` after 00:00 UTC, made of candles of `part`."""

    offset: timedelta
    part: Timeframe

    def floor(self, moment: datetime) -> datetime:
        """The start (UTC) of the day that `moment` is in."""
        return ONE_DAY.floor(moment - self.offset) + self.offset

    def ceil(self, moment: datetime) -> datetime:
        start = self.floor(moment)
        return start if start == moment else start + DAY

    def days(self, parts: Iterable[CandleData], now: datetime) -> list[CandleData]:
        """The days of `parts`, which are oldest first. A day is closed once its end is over."""
        found = []
        for start, group in groupby(parts, lambda part: self.floor(part.timestamp)):
            day = merged(list(group), ONE_DAY, start)
            found.append(replace(day, is_closed=start + DAY <= now))
        return found


def day_grid(day_start: object) -> DayGrid:
    """The days that begin at this time of day, Korean time unless it has a zone."""
    what = f"day_start={day_start!r}: expected a datetime.time in whole minutes, such as time(0) for midnight in Korea"
    if not isinstance(day_start, time) or day_start.second or day_start.microsecond:
        raise InvalidRequestError(what)
    zone = day_start.tzinfo or KST
    # By two dates half a year apart: where clocks change, days of 24 hours do not begin at one time.
    winter, summer = (
        datetime.combine(datetime(2025, month, 1), day_start.replace(tzinfo=zone)).utcoffset() for month in (1, 7)
    )
    if winter is None or winter != summer:
        raise InvalidRequestError(f"{what}; its zone changes its clocks")
    clock = timedelta(hours=day_start.hour, minutes=day_start.minute)
    offset = (clock - winter) % DAY
    part = next((part for part in PARTS if not offset % timedelta(seconds=part.seconds)), None)
    if part is None:
        raise InvalidRequestError(what)
    return DayGrid(offset, part)


class DaysHistory:
    """Thread-safe, without state of its own: what was asked is kept by the history of the parts."""

    def __init__(self, history: CandleHistory, grid: DayGrid, now: datetime) -> None:
        self._history = history
        self._grid = grid
        self._now = now

    def get(
        self,
        symbol: str,
        *,
        count: int | None = None,
        to: Moment | None = None,
        start: Moment | None = None,
        end: Moment | None = None,
        **options: Any,
    ) -> list[CandleData]:
        """Days, oldest first: the newest `count` that begin before `to`, or those that begin in [start, end)."""
        refuse_mixtures(count, to, start, end)
        stop = self._stop(to if end is None else end, "to" if end is None else "end")
        if start is None:
            return self._newest(symbol, checked_count(count, MAX_CANDLES // 24), stop, options)
        first = self._grid.ceil(aware(start, "start"))
        return [] if first >= stop else self._between(symbol, first, stop, options)

    def _stop(self, moment: Moment | None, name: str) -> datetime:
        """The end (exclusive) of the last day wanted, at most of the one that is under way."""
        latest = self._grid.floor(self._now) + DAY
        return latest if moment is None else min(latest, self._grid.ceil(aware(moment, name)))

    def _between(self, symbol: str, start: datetime, stop: datetime, options: dict[str, Any]) -> list[CandleData]:
        parts = self._history.get(symbol, self._grid.part, start=start, end=stop, **options)
        return self._grid.days(parts, self._now)

    def _newest(self, symbol: str, count: int, stop: datetime, options: dict[str, Any]) -> list[CandleData]:
        days = self._between(symbol, max(FIRST_MOMENT, stop - count * DAY), stop, options)
        asked_from = stop - count * DAY
        beginning: datetime | None = None
        while len(days) < count:  # days without a trade have no candle, or the market is younger
            if beginning is None:
                beginning = self._history.history_start(symbol, self._grid.part, timeout=options.get("timeout"))
            if beginning is None or asked_from <= beginning:
                break
            earlier = max(count - len(days), MORE_DAYS) * DAY
            days = self._between(symbol, asked_from - earlier, asked_from, options) + days
            asked_from -= earlier
        return days[-count:]
