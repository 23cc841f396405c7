"""History with the live candle at its end: what a chart viewer asks for once a second."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from .._concurrency import Clock
from ..exchange.timeframes import Timeframe, timeframe_of
from ..models.market import CandleData
from ..models.topic import Topic
from ..store.intelligent_cache import IntelligentCache
from .candles import CandleHistory
from .closed_candles import SETTLE
from .ranges import DEFAULT_COUNT

LiveCandle = Callable[[Topic, float], Any]

# A candle is taken for final SETTLE after its end. Twenty times the latest tick ever seen after an end (54 ms) will do
# for not asking again each second until then: what was told so late is shown, and asked for once more at the end.
SEEN_SECONDS: Final = timedelta(seconds=1)
MAX_SEEN: Final = 1_000


class _Seen(NamedTuple):
    """Closed candles whose last was over for a moment, but not final, when Upbit told them."""

    end: datetime  # they start before this
    asked_at: datetime
    wanted: int
    rows: list[CandleData]

    def answers(self, end: datetime, count: int, now: datetime) -> bool:
        has_settled = self.asked_at - self.end >= SEEN_SECONDS
        return self.end == end and self.wanted >= count and has_settled and self.asked_at <= now < self.end + SETTLE


class _Told(NamedTuple):
    """A chart as REST told it, the forming candle of `period` included."""

    period: datetime
    wanted: int
    rows: list[CandleData]


class CandlesWithLive:
    """`CandleHistory.get`, but the forming candle comes from the stream where one is current.

    Then the closed ones are all that is asked of the history, which keeps them: a chart that is drawn every second
    costs a few requests per period instead of one per drawing. `asked` is told of every question about the present, so
    that a candle that is asked for often can be streamed. Until it is, a chart that REST told at most `max_age` seconds
    ago is told again from `cache`, as a ticker is.
    """

    def __init__(
        self,
        history: CandleHistory,
        *,
        live: LiveCandle,
        asked: Callable[[Topic], None],
        exchange_now: Callable[[], datetime],
        cache: IntelligentCache,
        max_age: float,
        clock: Clock,
    ) -> None:
        self._history = history
        self._cache = cache
        self._max_age = max_age
        self._live = live
        self._asked = asked
        self._exchange_now = exchange_now
        self._clock = clock
        self._seen: dict[tuple[str, str], _Seen] = {}  # replaced entry by entry, so no lock

    def get(self, symbol: str, timeframe: str, *, count: int | None, **options: Any) -> list[CandleData]:
        """As `CandleHistory.get`; see there for the options and errors. The arguments are known to be good."""
        unit = timeframe_of(timeframe)
        is_about_now = all(options.get(bound) is None for bound in ("to", "start", "end"))
        is_plain = options.get("fill", "none") == "none"
        if not (is_about_now and is_plain):
            return self._history.get(symbol, unit, count=count, **options)
        forming = self._forming(symbol, unit)
        if forming is None:
            return self._told(symbol, unit, DEFAULT_COUNT if count is None else count, options)
        closed_count = (DEFAULT_COUNT if count is None else count) - 1
        closed: list[CandleData] = []
        if closed_count:
            closed = self._closed(symbol, unit, closed_count, forming.timestamp, options)
        is_over = unit.next_start(forming.timestamp) <= self._exchange_now()  # nobody has traded since
        return [*as_closed(closed), dataclasses.replace(forming, is_closed=is_over)]

    def _told(self, symbol: str, unit: Timeframe, count: int, options: dict[str, Any]) -> list[CandleData]:
        """The newest `count` as REST tells them, or told them a moment ago in the same period."""
        # Before asking, so that an invalidation meanwhile keeps the answer out.
        key, generation = ("chart", symbol, unit.word), self._cache.generation()
        period = unit.floor(self._exchange_now())
        told: _Told | None = None if is_watched(options) else self._cache.get_cached_data(key, self._max_age)
        # Never across a period's end: the chart would lack the candle that has begun.
        if told is not None and told.wanted >= count and told.period == period:
            return told.rows[-count:]
        rows = self._history.get(symbol, unit, count=count, **options)
        self._cache.cache_data(key, _Told(period, count, rows), self._max_age, generation)
        return list(rows)

    def _closed(
        self, symbol: str, unit: Timeframe, count: int, end: datetime, options: dict[str, Any]
    ) -> list[CandleData]:
        """The newest `count` that start before `end`."""
        now = self._exchange_now()
        seen = self._seen.get((symbol, unit.word))
        if seen is not None and seen.answers(end, count, now) and not is_watched(options):
            return seen.rows[-count:]
        rows = self._history.get(symbol, unit, count=count, **{**options, "to": end})
        if now < end + SETTLE:
            if len(self._seen) >= MAX_SEEN:
                self._seen.clear()
            self._seen[symbol, unit.word] = _Seen(end, now, count, rows)
        return rows

    def _forming(self, symbol: str, unit: Timeframe) -> CandleData | None:
        """The live candle, if it is provably current; asking counts."""
        if unit.data_type is None:
            return None
        topic = Topic(unit.data_type, symbol)
        self._asked(topic)
        candle = self._live(topic, self._clock.monotonic())
        return candle if isinstance(candle, CandleData) else None

    def __repr__(self) -> str:
        return f"<CandlesWithLive {self._history!r}>"


def is_watched(options: dict[str, Any]) -> bool:
    """Whether somebody wants to hear of the download or be able to call it off, so that there must be one."""
    return options.get("progress") is not None or options.get("cancel") is not None


def as_closed(candles: Sequence[CandleData]) -> list[CandleData]:
    """The same rows, all closed: a later candle exists. Rows that say so already stay as they are."""
    return [candle if candle.is_closed else dataclasses.replace(candle, is_closed=True) for candle in candles]
