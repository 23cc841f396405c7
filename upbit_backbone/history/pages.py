"""Candle pages: fetched for one question, put together and handed out in the order that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from itertools import chain
from typing import Final

from .._concurrency import Clock, Deadline, WorkerPool, calls_users, get_logger
from ..backfill.pages import CandlesPage
from ..errors import MalformedDataError, UpbitBackboneError, one_line
from ..exchange.endpoints import MAX_CANDLES
from ..exchange.timeframes import FIRST_MOMENT, Timeframe
from ..models.enums import DataSource, Priority
from ..models.events import Event
from ..models.market import CandleData
from ..unify.reader import UnreadRow
from ..unify.rest import UnreadablePageError, history_gap, holes_in, nothing_left, rows_of, unread_of
from .closed_candles import ClosedCandles, settled_before
from .download import PAGE_SECONDS, Answer, CancelToken, Download, Pace, check, raise_with_rest
from .paging import Area, Page, first_candle
from .ranges import CandleRange, Fill, ResumePoint

# Candles made up for periods in which nobody traded, only where asked for. Pure.

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


LONG_BLOCKS: Final = 2  # a range of more blocks is worth a request to learn whether anything is at its beginning
# About five thousand candles: enough for several pages at once, little enough that a download of years stays flat in
# memory.
BLOCK_PAGES: Final = 24  # how much of a range is fetched at a time where the oldest candle comes first

log = get_logger("upbit_backbone")

Progress = Callable[[int, int | None], object]


@dataclass(frozen=True, slots=True)
class Source:
    """Where the walks of one history get their candles from."""

    candles_page: CandlesPage
    exchange_now: Callable[[], datetime]
    pool: WorkerPool
    pace: Pace
    kept: ClosedCandles
    clock: Clock
    emit: Callable[[Event], object] = lambda event: None


@dataclass(frozen=True, slots=True)
class Walk:
    """What is wanted, as of when, until when, and who hears of it. Runs on the thread that consumes it.

    Errors carry the question for the rest, and from `whole` also what came before them.
    """

    source: Source
    wanted: CandleRange
    now: datetime
    deadline: Deadline
    priority: Priority
    progress: Progress | None = None
    cancel: CancelToken | None = None
    holes: dict[datetime, UnreadRow] = field(default_factory=dict)  # periods whose candle came and cannot be read

    # -- the orders -------------------------------------------------------------------------------------------------

    def whole(self) -> list[CandleData]:
        """All rows, oldest first."""
        chunks: list[list[CandleData]] = []
        try:
            chunks.extend(self.newest_first())
        except UpbitBackboneError as error:
            # Only errors of the walk itself say where to go on; an argument that was refused has nothing to add.
            if error.resume is not None:
                error.partial = list(chain.from_iterable(reversed(chunks)))
            raise
        rows = list(chain.from_iterable(reversed(chunks)))
        if self.holes and not rows:
            raise nothing_left(self.wanted.symbol, list(self.holes.values()))
        return rows

    def newest_first(self) -> Iterator[list[CandleData]]:
        """Certain rows as they become certain: chunks newest first, each chunk oldest first."""
        wanted = self.wanted
        if wanted.is_empty:
            return
        area = self._area(wanted.start, wanted.end)
        # Only for the total: where the beginning is known, periods before it must not count as still to come.
        first = self.source.kept.first(wanted.symbol, wanted.timeframe)
        begin = area.low if first is None else max(area.low, first.timestamp)
        total = wanted.count or wanted.timeframe.periods(begin, min(wanted.end or self.now, self.now))
        try:
            for _ in self._download(iter([area])).run():
                self._tell(area.rows if wanted.count else area.settled_periods, total)
                yield from area.take()
        except UpbitBackboneError as error:
            yield from area.take()  # nothing that is certain may be lost
            raise_with_rest(error, [], _rest_of(wanted, area))

    def oldest_first(self) -> Iterator[CandleData]:
        """A range block by block, each block complete before its first row comes out; a count at its end."""
        # Upbit answers backwards from `to`, so nobody knows where a count begins before all of it has come.
        if self.wanted.start is None:
            yield from self.whole()  # begins with the first row asked for
        elif not self.wanted.is_empty:
            yield from self._block_by_block(self.wanted.start)

    def _block_by_block(self, start: datetime) -> Iterator[CandleData]:
        wanted = self.wanted
        start = self._beginning(start)
        total = wanted.timeframe.periods(start, min(wanted.end or self.now, self.now))
        done, resume_at = 0, start
        try:
            for area, is_done in self._download(self._blocks(start)).run():
                if not is_done:
                    continue
                chunks = list(area.take())
                for row in chain.from_iterable(reversed(chunks)):
                    # Before the row is handed out: the consumer may never come back, and what he has he need not ask
                    # for again.
                    resume_at = wanted.timeframe.next_start(row.timestamp)
                    yield row
                done += area.settled_periods
                self._tell(done, total)
        except UpbitBackboneError as error:
            # The rest is asked for in the same words, so that both parts together are the whole answer.
            fill: Fill = "forward" if wanted.filled else "none"
            rest = ResumePoint(wanted.symbol, wanted.timeframe.word, start=resume_at, end=wanted.end, fill=fill)
            raise_with_rest(error, [], rest)

    def _beginning(self, start: datetime) -> datetime:
        """`start`, or where the candles begin if that is later: what lies before would cost a request per block."""
        wanted, end = self.wanted, min(self.wanted.end or self.now, self.now)
        # A short range costs less than finding out where it begins.
        if wanted.timeframe.periods(start, end) <= LONG_BLOCKS * BLOCK_PAGES * MAX_CANDLES:
            return start
        try:
            if self.source.kept.first(wanted.symbol, wanted.timeframe) is None and self.page(
                wanted.timeframe, 1, wanted.timeframe.next_start(start)
            ):
                return start
            first = self.first()
        except UpbitBackboneError as error:
            # It saves requests and is not needed for the answer; whatever is wrong, the pages will tell.
            log.info("beginning of a history not found", extra={"symbol": wanted.symbol, "why": one_line(error)})
            return start
        return end if first is None else max(start, min(first.timestamp, end))

    def first(self) -> CandleData | None:
        """The oldest candle there is of this market and unit."""
        wanted, kept = self.wanted, self.source.kept
        known = kept.first(wanted.symbol, wanted.timeframe)
        if known is not None:
            return known
        # Before the request: what was over by then is final in its answer, whatever time that takes.
        asked_at = self.source.exchange_now()
        found = first_candle(self.page, wanted.timeframe)
        if found is not None:
            final = settled_before(wanted.timeframe, asked_at)
            until = min(wanted.timeframe.next_start(found.timestamp), final)
            # "Nothing before it" is kept, too: whoever asks again for the beginning costs no request.
            kept.put(wanted.symbol, wanted.timeframe, FIRST_MOMENT, until, [found])
        return found

    def page(self, unit: Timeframe, count: int, to: datetime | None) -> list[CandleData]:
        """One page of any unit, newest first."""
        check(self.deadline, self.cancel)
        page_deadline = self.deadline.sooner(PAGE_SECONDS)
        return self.source.candles_page(
            self.wanted.symbol, unit.word, count=count, to=to, deadline=page_deadline, priority=self.priority
        )

    def _blocks(self, start: datetime) -> Iterator[Area]:
        low: datetime | None = start
        area: Area | None = None
        while low is not None:
            # What the block before has taught saves the next one from guessing: too large a block is a page too many.
            density = area.density if area is not None else None
            high = self.wanted.timeframe.shift(low, int(BLOCK_PAGES * MAX_CANDLES / (density or 1.0)))
            is_last = high >= (self.wanted.end or self.now)
            area = self._area(low, self.wanted.end if is_last else high, density)
            yield area
            low = None if is_last else high

    def whole_filled(self) -> list[CandleData]:
        """All rows of the range, oldest first, with its holes filled."""
        try:
            rows = self.whole()
        except UpbitBackboneError as error:
            if error.resume is None:
                raise
            # Between the rows that came and those that did not, nobody knows the price to carry: the rest asks for it.
            raise_with_rest(error, self._fill_after_first(error.partial), self._rest_before(error.partial))
        try:
            return list(self.filled(iter(rows)))
        except UpbitBackboneError as error:  # the price before the range could not be had
            raise_with_rest(error, self._fill_after_first(rows), self._rest_before(rows))

    def filled(self, rows: Iterator[CandleData]) -> Iterator[CandleData]:
        """`rows` of the range, oldest first, with its holes filled.

        The close before it is looked up where the range begins with a hole.
        """
        wanted = self.wanted
        if wanted.start is None or wanted.end is None or wanted.is_empty:
            return
        first = next(rows, None)
        # Only where the range begins with a hole: one request more, and for nothing else.
        previous = self._before(wanted.start) if first is None or first.timestamp > wanted.start else None
        real = rows if first is None else chain([first], rows)
        filled = fill_forward(real, wanted.timeframe, wanted.start, wanted.end, previous=previous, now=self.now)
        # Somebody traded there: a period whose candle cannot be read is no period without trades.
        yield from (row for row in filled if not (row.is_filled and row.timestamp in self.holes))

    def _before(self, start: datetime) -> CandleData | None:
        """The last candle before the range."""
        before = replace(self.wanted, start=None, end=start, count=1, filled=False)
        try:
            found = replace(self, wanted=before, progress=None, cancel=None, holes={}).whole()
        except UpbitBackboneError as error:
            raise_with_rest(error, [], self._rest_before([]))
        return found[0] if found else None

    def _fill_after_first(self, rows: Sequence[CandleData]) -> list[CandleData]:
        wanted = self.wanted
        if not rows or wanted.end is None:
            return []
        start = rows[0].timestamp
        filled = fill_forward(rows, wanted.timeframe, start, wanted.end, previous=None, now=self.now)
        return [row for row in filled if not (row.is_filled and row.timestamp in self.holes)]

    def _rest_before(self, rows: Sequence[CandleData]) -> ResumePoint:
        wanted = self.wanted
        end = rows[0].timestamp if rows else wanted.end
        return ResumePoint(wanted.symbol, wanted.timeframe.word, start=wanted.start, end=end, fill="forward")

    @calls_users
    def _tell(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(min(done, total), total)

    # -- the pages --------------------------------------------------------------------------------------------------

    def _area(self, low: datetime | None, high: datetime | None, density: float | None = None) -> Area:
        wanted = self.wanted
        area = Area(wanted.timeframe, low, high, now=self.now, wanted=wanted.count, density=density)
        final = settled_before(wanted.timeframe, self.now)
        for stretch in self.source.kept.known(wanted.symbol, wanted.timeframe, area.low, min(high or final, final)):
            # What is kept counts as proven, so that a chart asked for again costs the part that was not closed yet.
            area.add(*stretch)
        return area

    def _download(self, areas: Iterator[Area]) -> Download:
        return Download(
            areas,
            fetch=self._fetch,
            keep=self._keep,
            pool=self.source.pool,
            urgency=self.priority,
            pace=self.source.pace,
            deadline=self.deadline,
            cancel=self.cancel,
            clock=self.source.clock,
        )

    def _keep(self, low: datetime, high: datetime, answer: Answer) -> None:
        wanted, unit = self.wanted, self.wanted.timeframe
        final = settled_before(unit, answer.asked_at)
        for hole in answer.holes:  # nothing is known of these periods, so that they are asked for again
            self.source.kept.put(wanted.symbol, unit, low, min(hole, final), answer.rows)
            low = unit.next_start(hole)
        self.source.kept.put(wanted.symbol, unit, low, min(high, final), answer.rows)
        if answer.unread:
            self.holes.update((row.at, row) for row in answer.unread if row.at is not None)
            self.source.emit(history_gap(wanted.symbol, unit.word, answer.unread, self.source.clock.wall()))

    def _fetch(self, page: Page, deadline: Deadline) -> Answer:
        source, unit = self.source, self.wanted.timeframe
        began = source.clock.monotonic()
        asked_at = source.exchange_now()  # before asking: what was over by then is closed in the answer
        try:
            rows = source.candles_page(
                self.wanted.symbol, unit.word, count=page.count, to=page.to, deadline=deadline, priority=self.priority
            )
        # Its rows are holes that are told, not a failure of the page: the walk must not end for them, nor take them for
        # the end of history.
        except UnreadablePageError as error:
            rows = rows_of(error)
        seconds = source.clock.monotonic() - began
        return Answer(_in_order(rows, unit, page, asked_at), asked_at, seconds, unread_of(rows), holes_in(rows))


def _in_order(rows: list[CandleData], timeframe: Timeframe, page: Page, asked_at: datetime) -> list[CandleData]:
    """Oldest first, unique, with the forming candle marked; MalformedDataError for rows that were not asked for."""
    # Newest first as it comes, so of two rows for one period the newer one stays.
    by_start = {row.timestamp: row for row in reversed(rows)}
    ordered = [by_start[start] for start in sorted(by_start)]
    # `to` is exclusive on Upbit (docs, and measured); rows beyond it belong to another question.
    if ordered and ordered[-1].timestamp >= page.high:
        raise MalformedDataError(
            f"{ordered[-1].symbol} {timeframe}: a candle that starts at {ordered[-1].timestamp} came for to={page.to}",
            field="candle_date_time_utc",
        )
    for index in range(len(ordered) - 1, -1, -1):
        row = ordered[index]
        has_successor = index < len(ordered) - 1
        # A later candle closes the one before it, whatever our clock says.
        is_closed = has_successor or timeframe.next_start(row.timestamp) <= asked_at
        if is_closed == row.is_closed:
            if is_closed:
                break
        else:
            ordered[index] = replace(row, is_closed=is_closed)
    return ordered


def _rest_of(wanted: CandleRange, area: Area) -> ResumePoint:
    end = area.certain_from if area.knows_its_end else wanted.end
    if wanted.count is not None:
        return ResumePoint(wanted.symbol, wanted.timeframe.word, count=wanted.count - area.rows, to=end)
    return ResumePoint(wanted.symbol, wanted.timeframe.word, start=wanted.start, end=end)
