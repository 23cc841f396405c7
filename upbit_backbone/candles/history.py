"""Candles of any stretch of the past, whatever its length: `CandleHistory`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from itertools import chain
from typing import Any, Final, Protocol

from .._concurrency import SYSTEM_CLOCK, Clock, Deadline, WorkerPool, check_timeout
from ..errors import ClosedError, InvalidRequestError, MalformedDataError, UpbitBackboneError
from ..models.enums import Priority
from ..models.market import CandleData
from ..models.timeframe import Timeframe, timeframe_of
from .closed_store import MAX_ROWS, ClosedCandles, settled_before
from .download import PARALLEL_PAGES, Answer, CancelToken, Download, Pace, raise_with_rest
from .filling import fill_forward
from .paging import PAGE_ROWS, Area, Page
from .ranges import CandleRange, Fill, ResumePoint, candle_range

BLOCK_PAGES: Final = 24  # how much of a range iter_candles fetches at a time, oldest block first
SECONDS_PER_PAGE: Final = 0.5  # five times what Upbit's rate needs; what the default timeout grows by

Progress = Callable[[int, int | None], object]


class CandlesPage(Protocol):
    """One page as Upbit gives it: at most 200 rows that start before `to`, newest first."""

    def __call__(
        self, symbol: str, timeframe: str, *, count: int, to: datetime | None, deadline: Deadline, priority: Priority
    ) -> list[CandleData]: ...


class CandleHistory:
    """Downloads candles page by page, several pages at once, and remembers closed ones.

    Thread-safe; each call runs on the thread that makes it. `exchange_now` gives the exchange's time (aware UTC): a
    candle counts as closed if its period was over when it was asked for.
    """

    def __init__(
        self,
        candles_page: CandlesPage,
        *,
        exchange_now: Callable[[], datetime],
        timeout_seconds: float = 5.0,
        max_kept_rows: int = MAX_ROWS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._candles_page = candles_page
        self._exchange_now = exchange_now
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._pool = WorkerPool(PARALLEL_PAGES, "upbit-candles")
        self._pace = Pace()
        self._is_closed = False
        self.kept = ClosedCandles(max_kept_rows)

    # -- for people -------------------------------------------------------------------------------------------------

    def get(
        self,
        symbol: str,
        timeframe: str | Timeframe,
        *,
        count: int | None = None,
        to: datetime | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        fill: Fill = "none",
        timeout: float | None = None,
        priority: Priority = Priority.NORMAL,
        progress: Progress | None = None,
        cancel: CancelToken | None = None,
    ) -> list[CandleData]:
        """Candles, oldest first, unique: the newest `count` that start before `to`, or all of [start, end).

        Without any bound the newest 200. Exactly `count` come if they exist: periods without trades have no row, and
        pages are walked until the count or the beginning is reached. The forming candle has `is_closed=False`.
        With `fill="forward"` missing periods are made up (`is_filled=True`) and a count counts periods.

        `timeout` is for the whole call; the default is the usual one plus half a second for each page.
        `progress(done, total)` is called on this thread after each page: rows of `count`, or periods of a range.
        Once `cancel.is_set()`, DownloadCancelledError follows within a moment. Every error carries what was fetched
        before it in `.partial` and the question for the rest in `.resume`.
        """
        unit, now = timeframe_of(timeframe), self._exchange_now()
        wish = candle_range(symbol, unit, now=now, count=count, to=to, start=start, end=end, fill=fill)
        deadline = self._deadline(wish, timeout, now)
        rows = self._whole(wish, now, deadline, priority, progress, cancel)
        if not wish.filled:
            return rows
        return list(self._filled(wish, iter(rows), rows[:1], deadline, priority))

    def iter(
        self,
        symbol: str,
        timeframe: str | Timeframe,
        *,
        count: int | None = None,
        to: datetime | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        fill: Fill = "none",
        newest_first: bool = False,
        timeout: float | None = None,
        priority: Priority = Priority.NORMAL,
        progress: Progress | None = None,
        cancel: CancelToken | None = None,
    ) -> Iterator[CandleData]:
        """The candles of `get` one by one, oldest first, holding only some pages in memory; ranges of any length.

        Upbit can only be walked backwards, so with `count` (where nobody knows yet when the oldest row was) all rows
        are fetched before the first comes out. `newest_first=True` gives them as they arrive, flat in memory, for
        counts and ranges alike. `timeout` limits the whole walk; without it each page has ten seconds. Wrong
        arguments raise here, not at the first row.
        """
        unit, now = timeframe_of(timeframe), self._exchange_now()
        wish = candle_range(
            symbol, unit, now=now, count=count, to=to, start=start, end=end, fill=fill, max_candles=None
        )
        if newest_first and wish.filled:
            raise InvalidRequestError("fill='forward' needs the oldest candle first; leave out newest_first=True")
        deadline = Deadline.after(timeout, self._clock.monotonic)
        if newest_first:
            chunks = self._newest_first(wish, now, deadline, priority, progress, cancel)
            return (row for chunk in chunks for row in reversed(chunk))
        if wish.start is None:
            return self._counted(wish, now, deadline, priority, progress, cancel)
        rows = self._oldest_first(wish, now, deadline, priority, progress, cancel)
        return self._filled(wish, rows, None, deadline, priority) if wish.filled else rows

    def deadline_for(
        self,
        symbol: str,
        timeframe: str | Timeframe,
        *,
        count: int | None = None,
        to: datetime | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        fill: Fill = "none",
        timeout: float | None = None,
    ) -> Deadline:
        """When `get` with these arguments would have to end; raises what it would raise for them, and asks nobody."""
        unit, now = timeframe_of(timeframe), self._exchange_now()
        wish = candle_range(symbol, unit, now=now, count=count, to=to, start=start, end=end, fill=fill)
        return self._deadline(wish, timeout, now)

    # -- the three walks --------------------------------------------------------------------------------------------

    def _whole(self, wish: CandleRange, now: datetime, deadline: Deadline, *rest: Any) -> list[CandleData]:
        chunks: list[list[CandleData]] = []
        try:
            chunks.extend(self._newest_first(wish, now, deadline, *rest))
        except UpbitBackboneError as error:
            if error.resume is not None:
                error.partial = list(chain.from_iterable(reversed(chunks)))
            raise
        return list(chain.from_iterable(reversed(chunks)))

    def _counted(self, wish: CandleRange, now: datetime, deadline: Deadline, *rest: Any) -> Iterator[CandleData]:
        yield from self._whole(wish, now, deadline, *rest)  # begins with the first row asked for

    def _newest_first(
        self,
        wish: CandleRange,
        now: datetime,
        deadline: Deadline,
        priority: Priority,
        progress: Progress | None,
        cancel: CancelToken | None,
    ) -> Iterator[list[CandleData]]:
        """Certain rows as they become certain: chunks newest first, each chunk oldest first."""
        if wish.is_empty:
            return
        area = self._area(wish, wish.start, wish.end, now)
        total = wish.count or wish.timeframe.periods(area.low, min(wish.end or now, now))
        try:
            for _ in self._download(wish, iter([area]), deadline, priority, cancel).run():
                if progress is not None:
                    progress(area.rows if wish.count else min(area.settled_periods, total), total)
                yield from area.take()
        except UpbitBackboneError as error:
            yield from area.take()  # nothing that is certain may be lost
            raise_with_rest(error, [], _rest_of(wish, area))

    def _oldest_first(
        self,
        wish: CandleRange,
        now: datetime,
        deadline: Deadline,
        priority: Priority,
        progress: Progress | None,
        cancel: CancelToken | None,
    ) -> Iterator[CandleData]:
        """A range block by block, each block complete before its first row comes out."""
        if wish.is_empty or wish.start is None:
            return
        total = wish.timeframe.periods(wish.start, min(wish.end or now, now))
        done, resume_at = 0, wish.start
        try:
            for area, is_done in self._download(wish, self._blocks(wish, now), deadline, priority, cancel).run():
                if not is_done:
                    continue
                chunks = list(area.take())
                for row in chain.from_iterable(reversed(chunks)):
                    resume_at = wish.timeframe.next_start(row.timestamp)
                    yield row
                done += area.settled_periods
                if progress is not None:
                    progress(min(done, total), total)
        except UpbitBackboneError as error:
            raise_with_rest(error, [], ResumePoint(wish.symbol, wish.timeframe.word, start=resume_at, end=wish.end))

    def _blocks(self, wish: CandleRange, now: datetime) -> Iterator[Area]:
        low, area = wish.start, None
        while low is not None:
            density = area.density if area is not None else None
            high = wish.timeframe.shift(low, int(BLOCK_PAGES * PAGE_ROWS / (density or 1.0)))
            is_last = high >= (wish.end or now)
            area = self._area(wish, low, wish.end if is_last else high, now, density)
            yield area
            low = None if is_last else high

    def _filled(
        self,
        wish: CandleRange,
        rows: Iterator[CandleData],
        first: list[CandleData] | None,
        deadline: Deadline,
        priority: Priority,
    ) -> Iterator[CandleData]:
        """`rows` with holes filled; the close before the range is looked up where the range begins with a hole."""
        if wish.start is None or wish.is_empty:
            return
        head = list(first) if first is not None else [row for row in [next(rows, None)] if row is not None]
        rows = rows if first is not None else chain(head, rows)
        previous = None
        if not head or head[0].timestamp > wish.start:
            before = CandleRange(wish.symbol, wish.timeframe, None, wish.start, 1)
            found = self._whole(before, self._exchange_now(), deadline, priority, None, None)
            previous = found[0] if found else None
        now = self._exchange_now()
        end = wish.timeframe.next_start(wish.timeframe.floor(now))
        end = end if wish.end is None else min(end, wish.end)
        yield from fill_forward(rows, wish.timeframe, wish.start, end, previous=previous, now=now)

    # -- one page ---------------------------------------------------------------------------------------------------

    def _area(
        self,
        wish: CandleRange,
        low: datetime | None,
        high: datetime | None,
        now: datetime,
        density: float | None = None,
    ) -> Area:
        area = Area(wish.timeframe, low, high, now=now, wanted=wish.count, density=density)
        final = settled_before(wish.timeframe, now)
        for stretch in self.kept.known(wish.symbol, wish.timeframe, area.low, min(high or final, final)):
            area.add(*stretch)
        return area

    def _download(
        self,
        wish: CandleRange,
        areas: Iterator[Area],
        deadline: Deadline,
        priority: Priority,
        cancel: CancelToken | None,
    ) -> Download:
        if self._is_closed:
            raise ClosedError("the candle history is closed")

        def keep(low: datetime, high: datetime, answer: Answer) -> None:
            final = settled_before(wish.timeframe, answer.asked_at)
            self.kept.put(wish.symbol, wish.timeframe, low, min(high, final), answer.rows)

        def fetch(page: Page, deadline: Deadline) -> Answer:
            return self._fetch(wish, page, deadline, priority)

        return Download(
            areas,
            fetch=fetch,
            keep=keep,
            pool=self._pool,
            pace=self._pace,
            deadline=deadline,
            cancel=cancel,
            clock=self._clock,
        )

    def _fetch(self, wish: CandleRange, page: Page, deadline: Deadline, priority: Priority) -> Answer:
        began = self._clock.monotonic()
        asked_at = self._exchange_now()  # before asking: what was over by then is closed in the answer
        rows = self._candles_page(
            wish.symbol, wish.timeframe.word, count=page.count, to=page.to, deadline=deadline, priority=priority
        )
        seconds = self._clock.monotonic() - began
        return Answer(_in_order(rows, wish.timeframe, page, asked_at), asked_at, seconds)

    def _deadline(self, wish: CandleRange, timeout: float | None, now: datetime) -> Deadline:
        if timeout is None:
            start = wish.start
            rows = wish.count or (wish.timeframe.periods(start, min(wish.end or now, now)) if start else 0)
            timeout = self._timeout_seconds + SECONDS_PER_PAGE * (rows // PAGE_ROWS)
        return Deadline.after(check_timeout(timeout), self._clock.monotonic)

    def close(self, deadline: Deadline) -> list[str]:
        """Downloads under way end with ClosedError; names of threads that did not stop by the deadline."""
        self._is_closed = True
        return self._pool.close(deadline)

    def __repr__(self) -> str:
        return f"<CandleHistory {'closed' if self._is_closed else 'open'}, {len(self.kept)} candles kept>"


def _in_order(rows: list[CandleData], timeframe: Timeframe, page: Page, asked_at: datetime) -> list[CandleData]:
    """Oldest first, unique, with the forming candle marked; MalformedDataError for rows that were not asked for."""
    by_start = {row.timestamp: row for row in reversed(rows)}
    ordered = [by_start[start] for start in sorted(by_start)]
    if ordered and ordered[-1].timestamp >= page.high:
        raise MalformedDataError(
            f"{ordered[-1].symbol} {timeframe}: a candle that starts at {ordered[-1].timestamp} came for to={page.to}",
            field="candle_date_time_utc",
        )
    for index in range(len(ordered) - 1, -1, -1):
        row = ordered[index]
        has_successor = index < len(ordered) - 1
        is_closed = has_successor or timeframe.next_start(row.timestamp) <= asked_at
        if is_closed == row.is_closed:
            if is_closed:
                break
        else:
            ordered[index] = replace(row, is_closed=is_closed)
    return ordered


def _rest_of(wish: CandleRange, area: Area) -> ResumePoint:
    end = area.certain_from if area.knows_its_end else wish.end
    if wish.count is not None:
        return ResumePoint(wish.symbol, wish.timeframe.word, count=wish.count - area.rows, to=end)
    return ResumePoint(wish.symbol, wish.timeframe.word, start=wish.start, end=end)
