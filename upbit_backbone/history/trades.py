"""Trades of today and the seven days before, as far as Upbit keeps them: `TradesHistory`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, time, timedelta
from operator import attrgetter
from typing import Final

from .._arguments import Moment, aware, whole_number
from .._concurrency import SYSTEM_CLOCK, Clock, Deadline, calls_users
from ..backfill.pages import TradesPage
from ..errors import DownloadCancelledError, InvalidRequestError, RequestTimeoutError, UpbitBackboneError
from ..exchange.endpoints import MAX_DAYS_AGO, MAX_TRADES
from ..models.enums import Priority
from ..models.events import Event
from ..models.market import TradeData
from ..unify.rest import UnreadablePageError, history_gap, nothing_left, rows_of, unread_of
from .download import PAGE_SECONDS, CancelToken, copied
from .ranges import checked_count

DAY: Final = timedelta(days=1)
MAX_COUNT: Final = 1_000_000
SECONDS_PER_PAGE: Final = 0.5
OPEN_ENDED_SECONDS: Final = 300.0  # a busy day of KRW-BTC is several hundred pages

Progress = Callable[[int, int | None], object]


class TradesHistory:
    """Pages back through the trades, day by day, each id once. Thread-safe; runs on the calling thread.

    Each page's cursor is in the page before it, so pages come one after the other.
    """

    def __init__(
        self,
        trades_page: TradesPage,
        *,
        exchange_now: Callable[[], datetime],
        timeout_seconds: float = 5.0,
        clock: Clock = SYSTEM_CLOCK,
        emit: Callable[[Event], object] = lambda event: None,
    ) -> None:
        self._emit = emit
        self._trades_page = trades_page
        self._exchange_now = exchange_now
        self._timeout_seconds = timeout_seconds
        self._clock = clock

    def get(
        self,
        symbol: str,
        *,
        count: int | None = None,
        since: Moment | None = None,
        days_ago: int | None = None,
        timeout: float | None = None,
        priority: Priority = Priority.NORMAL,
        progress: Progress | None = None,
        cancel: CancelToken | None = None,
    ) -> list[TradeData]:
        """Trades, oldest first, unique: the newest `count`, or all since a moment, or all of the day `days_ago`.

        Without any bound the newest 200. `days_ago` (0 is today, UTC) may be combined with `count`. The default
        `timeout` is the usual one plus half a second for each page of a count, and five minutes where the number is
        unknown. An error carries what was fetched in `.partial`; `progress(done, total)` is called after each page.
        """
        first, count, days_ago = self._bounds(count, since, days_ago)
        deadline = self._deadline(count, timeout)
        rows: list[TradeData] = []
        try:
            rows.extend(self._walk(symbol, count, first, days_ago, deadline, priority, progress, cancel))
        except UpbitBackboneError as error:
            # A copy, because equal questions share one error object, and this list is only ours.
            carrying = copied(error)
            carrying.partial = _oldest_first(rows)
            raise carrying from error
        return _oldest_first(rows)

    def deadline_for(
        self,
        *,
        count: int | None = None,
        since: Moment | None = None,
        days_ago: int | None = None,
        timeout: float | None = None,
    ) -> Deadline:
        """When `get` with these arguments would have to end; raises what it would raise for them, and asks nobody."""
        _, count, _ = self._bounds(count, since, days_ago)
        return self._deadline(count, timeout)

    def _deadline(self, count: int | None, timeout: float | None) -> Deadline:
        if timeout is None:
            pages = (count or 0) // MAX_TRADES
            timeout = OPEN_ENDED_SECONDS if count is None else self._timeout_seconds + SECONDS_PER_PAGE * pages
        return Deadline.after(timeout, self._clock.monotonic)

    def iter(
        self,
        symbol: str,
        *,
        count: int | None = None,
        since: Moment | None = None,
        days_ago: int | None = None,
        timeout: float | None = None,
        priority: Priority = Priority.NORMAL,
        progress: Progress | None = None,
        cancel: CancelToken | None = None,
    ) -> Iterator[TradeData]:
        """The trades of `get` as they arrive, newest first. `timeout` limits the whole walk; default: none."""
        first, count, days_ago = self._bounds(count, since, days_ago)
        deadline = Deadline.after(timeout, self._clock.monotonic)
        return self._walk(symbol, count, first, days_ago, deadline, priority, progress, cancel)

    def _bounds(
        self, count: int | None, since: Moment | None, days_ago: int | None
    ) -> tuple[datetime | None, int | None, int | None]:
        """The earliest moment wanted, the count and the day, all checked."""
        if since is not None and (count is not None or days_ago is not None):
            raise InvalidRequestError("since= stands alone; allowed are count=, days_ago=, both of them, or since=")
        # Upbit answers 400 to an eighth day (measured).
        if days_ago is not None:
            days_ago = whole_number(days_ago, "days_ago", low=0, high=MAX_DAYS_AGO, more="; 0 is today (UTC)")
        if count is not None or (since is None and days_ago is None):
            count = checked_count(count, MAX_COUNT)
        today = self._today()
        first = None if since is None else aware(since, "since")
        oldest = today - MAX_DAYS_AGO * DAY
        if first is not None and first < oldest:
            raise InvalidRequestError(
                f"since={first.isoformat()}: Upbit keeps trades of today and {MAX_DAYS_AGO} days before, now from "
                f"{oldest.isoformat()}; for older times ask for candles"
            )
        return (today - days_ago * DAY if days_ago is not None else first), count, days_ago

    @calls_users
    def _walk(
        self,
        symbol: str,
        count: int | None,
        first: datetime | None,
        days_ago: int | None,
        deadline: Deadline,
        priority: Priority,
        progress: Progress | None,
        cancel: CancelToken | None,
    ) -> Iterator[TradeData]:
        """Wanted trades, newest first, until the count, the first moment or the oldest day is reached."""
        # The day asked for may have become yesterday meanwhile, so it is kept by its date.
        end = None if days_ago is None or first is None else first + DAY
        seen: set[int] = set()
        done = 0
        for page in self._pages(symbol, count, first, days_ago or 0, deadline, priority, cancel):
            for row in page:
                is_known = row.sequential_id is not None and row.sequential_id in seen
                # Pages overlap where midnight passed between two of them, and rows of the day after may come first.
                if is_known or (end is not None and row.timestamp >= end):
                    continue
                if first is not None and row.timestamp < first:
                    return
                if row.sequential_id is not None:
                    seen.add(row.sequential_id)
                done += 1
                yield row
                if done == count:
                    break
            if progress is not None:
                progress(done, count)
            if done == count:
                return

    def _pages(
        self,
        symbol: str,
        count: int | None,
        first: datetime | None,
        days_ago: int,
        deadline: Deadline,
        priority: Priority,
        cancel: CancelToken | None,
    ) -> Iterator[Sequence[TradeData]]:
        """Pages of one day after the other. The day is kept as a date, because midnight may pass on the way.

        `lag` is by how many days Upbit's idea of today differs from ours, which for some seconds around midnight is
        more than none: it is learned from the rows. A day is over when two answers say so, since one may be cut short.
        """
        today = self._today()
        day, lag = today - days_ago * DAY, 0
        cursor: int | None = None
        has_begun = False  # something that can be read has come
        is_doubted = False  # a page was short or empty: the day is over if the next one is empty
        size = min(count or MAX_TRADES, MAX_TRADES)
        while first is None or day + DAY > first:
            last_seen, today = today, self._today()
            if today != last_seen:
                lag = min(lag, 0)  # if Upbit's midnight came first, ours has now caught up
            asked = max((today - day) // DAY + lag, 0)
            if asked > MAX_DAYS_AGO:
                return
            _check(deadline, cancel)
            page = self._page(symbol, size, cursor, asked or None, deadline.sooner(PAGE_SECONDS), priority)
            # Nothing at all could be read, so there is nothing to go on from: an empty answer would look like a market
            # without trades.
            is_unreadable = bool(unread_of(page)) and not page
            if is_unreadable and not has_begun:
                raise nothing_left(symbol, unread_of(page))
            has_begun = has_begun or bool(page)
            told_day = _midnight(page[0].timestamp) if page else day
            if told_day < day and asked > 0:
                lag -= 1  # this is the day before the wanted one
                continue
            lag = asked - (today - told_day) // DAY
            day, is_short = told_day, len(page) + len(unread_of(page)) < size
            yield page
            if is_short and self._today() != today:
                continue  # midnight passed: whose day was that? What comes twice counts once
            oldest = page[-1].sequential_id if page else None
            if oldest is not None and oldest != cursor:
                cursor, is_doubted = oldest, is_short
            # A cursor that does not move, or a second empty page: only then is the day over. One cut page used to move
            # the walk on and left a hole.
            elif page or is_doubted:
                day, cursor, is_doubted = day - DAY, None, False
            else:
                is_doubted = True

    def _page(
        self,
        symbol: str,
        size: int,
        cursor: int | None,
        days_ago: int | None,
        deadline: Deadline,
        priority: Priority,
    ) -> Sequence[TradeData]:
        """One page; what cannot be read of it is told."""
        try:
            page: Sequence[TradeData] = self._trades_page(
                symbol, count=size, cursor=cursor, days_ago=days_ago, deadline=deadline, priority=priority
            )
        except UnreadablePageError as error:
            page = rows_of(error)
        if unread := unread_of(page):
            self._emit(history_gap(symbol, "trade", unread, self._clock.wall()))
        return page

    def _today(self) -> datetime:
        return _midnight(self._exchange_now())

    def __repr__(self) -> str:
        return "<TradesHistory>"


def _midnight(moment: datetime) -> datetime:
    return datetime.combine(moment.astimezone(UTC).date(), time(), UTC)


def _check(deadline: Deadline, cancel: CancelToken | None) -> None:
    if cancel is not None and cancel.is_set():
        raise DownloadCancelledError("the download was cancelled; .partial has what came before")
    if deadline.expired:
        raise RequestTimeoutError("the trades did not all come by the deadline; .partial has what came before")


def _oldest_first(rows: list[TradeData]) -> list[TradeData]:
    # Ids are not in order (docs); within one moment Upbit's own order is kept.
    rows.reverse()
    rows.sort(key=attrgetter("timestamp"))
    return rows
