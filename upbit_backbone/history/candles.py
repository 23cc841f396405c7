"""Candles of any stretch of the past, whatever its length: `CandleHistory`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final, Unpack

from .._concurrency import SYSTEM_CLOCK, Clock, Deadline, WorkerPool, check_timeout
from ..backfill.pages import CandlesPage
from ..errors import ClosedError, InvalidRequestError
from ..exchange.endpoints import MAX_CANDLES
from ..exchange.timeframes import Timeframe, timeframe_of
from ..models.enums import Priority
from ..models.events import Event
from ..models.market import CandleData
from .closed_candles import MAX_ROWS, ClosedCandles
from .download import CancelToken, Pace
from .pages import Progress, Source, Walk
from .ranges import Bounds, CandleRange, candle_range

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
