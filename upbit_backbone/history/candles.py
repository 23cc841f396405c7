"""Candles of any stretch of the past, whatever its length, and with the live one at their end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, Unpack

from .._concurrency import SYSTEM_CLOCK, Clock, Deadline, WorkerPool, check_timeout
from ..backfill.pages import CandlesPage
from ..errors import ClosedError, InvalidRequestError
from ..exchange.endpoints import MAX_CANDLES
from ..exchange.timeframes import Timeframe, timeframe_of
from ..models.enums import Priority
from ..models.events import Event
from ..models.market import CandleData
from ..models.request import Topic
from ..store.intelligent_cache import IntelligentCache
from .closed_candles import MAX_ROWS, SETTLE, ClosedCandles
from .download import CancelToken, Pace
from .pages import Progress, Source, Walk
from .ranges import DEFAULT_COUNT, Bounds, CandleRange, candle_range

BEGINNING_SECONDS: Final = 5.0  # some thirty requests at Upbit's rate, at worst
SECONDS_PER_PAGE: Final = 0.5  # five times what Upbit's rate needs; what the default timeout grows by
# Of all downloads together, each of which keeps a few under way. So many that none waits here for another's pages:
# whose turn it is is the limiter's to say. Threads are born when there are pages for them.
MOST_PAGES: Final = 128


class CandleHistory:
    """Downloads candles page by page, several pages at once, and remembers closed ones.

    Thread-safe; each call runs on the thread that makes it. `exchange_now` gives the exchange's time (aware UTC): a
    candle counts as closed if its period was over when it was asked for.

    Which candles is said alike everywhere: `count` with optional `to`, or `start` with optional `end`, and `fill`.
    """

    def __init__(
        self,
        candles_page: CandlesPage,
        *,
        exchange_now: Callable[[], datetime],
        timeout_seconds: float = 5.0,
        max_kept_rows: int = MAX_ROWS,
        clock: Clock = SYSTEM_CLOCK,
        emit: Callable[[Event], object] = lambda event: None,
    ) -> None:
        self.kept = ClosedCandles(max_kept_rows)
        self._exchange_now = exchange_now
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._pool = WorkerPool(MOST_PAGES, "upbit-candles")
        self._source = Source(candles_page, exchange_now, self._pool, Pace(), self.kept, clock, emit)
        self._is_closed = False

    def get(
        self,
        symbol: str,
        timeframe: str | Timeframe,
        *,
        timeout: float | None = None,
        priority: Priority = Priority.NORMAL,
        progress: Progress | None = None,
        cancel: CancelToken | None = None,
        **bounds: Unpack[Bounds],
    ) -> list[CandleData]:
        """Candles, oldest first, unique: the newest `count` that start before `to`, or all of [start, end).

        Without any bound the newest 200. Exactly `count` come if they exist: periods without trades have no row, and
        pages are walked until the count or the beginning is reached. The forming candle has `is_closed=False`. A candle
        that came and cannot be read is missing, never filled, and told in a HistoryGapEvent; where nothing is left,
        MalformedDataError says why.
        With `fill="forward"` missing periods are made up (`is_filled=True`), a count counts periods, and the answer
        ends with the period in which you asked. Only the last row may have `is_closed=False`.

        `timeout` is for the whole call; the default is the usual one plus half a second for each page.
        `progress(done, total)` is called on this thread after each page: rows of `count`, or periods of a range.
        Once `cancel.is_set()`, DownloadCancelledError follows within a moment. Every error carries what was fetched
        before it in `.partial` and the question for the rest in `.resume`.
        """
        unit, now = timeframe_of(timeframe), self._exchange_now()
        wanted = candle_range(symbol, unit, now=now, **bounds)
        walk = Walk(self._open(), wanted, now, self._deadline(wanted, timeout, now), priority, progress, cancel)
        return walk.whole_filled() if wanted.filled else walk.whole()

    def iter(
        self,
        symbol: str,
        timeframe: str | Timeframe,
        *,
        newest_first: bool = False,
        timeout: float | None = None,
        priority: Priority = Priority.NORMAL,
        progress: Progress | None = None,
        cancel: CancelToken | None = None,
        **bounds: Unpack[Bounds],
    ) -> Iterator[CandleData]:
        """The candles of `get` one by one, oldest first, holding only some pages in memory; ranges of any length.

        Upbit can only be walked backwards, so with `count` (where nobody knows yet when the oldest row was) all rows
        are fetched before the first comes out. `newest_first=True` gives them as they arrive, flat in memory, for
        counts and ranges alike. `timeout` limits the whole walk; without it each page has ten seconds. Wrong
        arguments raise here, not at the first row.
        """
        now = self._exchange_now()
        wanted = candle_range(symbol, timeframe_of(timeframe), now=now, max_candles=None, **bounds)
        # A made-up candle carries the close before it, which in this order comes later.
        if newest_first and wanted.filled:
            raise InvalidRequestError("fill='forward' needs the oldest candle first; leave out newest_first=True")
        deadline = Deadline.after(timeout, self._clock.monotonic)
        walk = Walk(self._open(), wanted, now, deadline, priority, progress, cancel)
        # Checked above and walked here, because a generator raises nothing before its first row is asked for.
        if newest_first:
            return (row for chunk in walk.newest_first() for row in reversed(chunk))
        return walk.filled(walk.oldest_first()) if wanted.filled else walk.oldest_first()

    def history_start(
        self,
        symbol: str,
        timeframe: str | Timeframe,
        *,
        timeout: float | None = None,
        priority: Priority = Priority.NORMAL,
    ) -> datetime | None:
        """Where the candles of a market begin: the start of its oldest one (aware UTC), None where there is none.

        Found in about five requests, some twenty for units that Upbit does not keep for ever (seconds: three months),
        and none once it is known. `timeout` is for the whole call (default: the usual one and five seconds more).
        """
        unit, now = timeframe_of(timeframe), self._exchange_now()
        wanted = candle_range(symbol, unit, now=now, count=1)
        seconds = self._timeout_seconds + BEGINNING_SECONDS if timeout is None else timeout
        deadline = Deadline.after(check_timeout(seconds), self._clock.monotonic)
        first = Walk(self._open(), wanted, now, deadline, priority).first()
        return None if first is None else first.timestamp

    def deadline_for(
        self,
        symbol: str,
        timeframe: str | Timeframe,
        *,
        timeout: float | None = None,
        **bounds: Unpack[Bounds],
    ) -> Deadline:
        """When `get` with these arguments would have to end; raises what it would raise for them, and asks nobody."""
        now = self._exchange_now()
        wanted = candle_range(symbol, timeframe_of(timeframe), now=now, **bounds)
        return self._deadline(wanted, timeout, now)

    def _deadline(self, wanted: CandleRange, timeout: float | None, now: datetime) -> Deadline:
        if timeout is None:
            start = wanted.start
            rows = wanted.count or (wanted.timeframe.periods(start, min(wanted.end or now, now)) if start else 0)
            timeout = self._timeout_seconds + SECONDS_PER_PAGE * (rows // MAX_CANDLES)
        return Deadline.after(check_timeout(timeout), self._clock.monotonic)

    def _open(self) -> Source:
        if self._is_closed:
            raise ClosedError("the candle history is closed")
        return self._source

    def close(self, deadline: Deadline) -> list[str]:
        """Downloads under way end with ClosedError; names of threads that did not stop by the deadline."""
        # Before the pool, so that nothing new is handed to it.
        self._is_closed = True
        return self._pool.close(deadline)

    def __repr__(self) -> str:
        return f"<CandleHistory {'closed' if self._is_closed else 'open'}, {len(self.kept)} candles kept>"


# With the live candle at their end: what a chart viewer asks for once a second.

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
