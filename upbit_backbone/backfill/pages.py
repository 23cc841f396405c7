"""Backfill pages: history from REST until a gap is covered; which to ask for next (pure), and who asks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Final, Generic, Protocol, TypeVar

from .._concurrency import Clock, Deadline
from ..exchange.endpoints import MAX_CANDLES, MAX_DAYS_AGO, MAX_TRADES
from ..exchange.fields import SHUFFLE
from ..models.enums import DataType, Priority
from ..models.market import CandleData, TradeData
from ..models.request import Topic
from ..unify.rest import unread_of
from .sequence import Gap

# Which page of history to ask for next, until a gap is covered. Pure: the pages are handed in.

SECONDS_KEPT: Final = timedelta(days=85)  # docs: list-candles-seconds, "three months"


T = TypeVar("T", TradeData, CandleData)

# count, cursor, days_ago
TradePage = Callable[[int, int | None, int | None], Sequence[TradeData]]
# count, to (exclusive)
CandlePage = Callable[[int, datetime], Sequence[CandleData]]
# How many of these the stream has not given.
CountMissing = Callable[[Sequence[Any]], int]


class Fetch(ABC, Generic[T]):
    """What has been fetched for one gap, newest first. A step that raises changes nothing and may be repeated."""

    def __init__(self, gap: Gap[T], most: int) -> None:
        self.floor = gap.floor
        self._start = gap.start
        self.items: list[T] = []
        self.is_done = False
        self.shortfall: str | None = None  # why not everything could be had
        self._most = most
        self._oldest: T | None = None  # of those that were taken out
        self._unread = 0  # rows that came and cannot be read

    @property
    @abstractmethod
    def is_doubtful(self) -> bool:
        """Whether REST did not even show the two ends of the gap, so that its silence proves nothing."""

    def take_settled(self) -> list[T]:
        """Take out, oldest first, what nothing that is parked can stand between; only of a gap with a start."""
        return []

    def missing(self, start: datetime, end: datetime) -> tuple[datetime, datetime]:
        """Bounds, both inclusive, of what this fetch did not bring of a gap from `start` to `end`."""
        oldest = self._oldest or (self.items[-1] if self.items else None)
        if oldest is None or self._unread or (self.is_done and self.shortfall is None):
            return start, end
        return start, max(start, min(end, self._reached(oldest)))

    def _reached(self, oldest: T) -> datetime:
        """Everything later than this was fetched, where `oldest` came last."""
        return oldest.timestamp

    def _end(self, shortfall: str | None = None) -> None:
        self.is_done = True
        self.shortfall = shortfall
        if self._unread and shortfall is None:
            self.shortfall = f"rows of Upbit's answers that cannot be read: {self._unread}"


class TradeFetch(Fetch[TradeData]):
    """Pages by cursor through one UTC day after the other, back to the gap's floor.

    Nothing depends on what day it is, or on it staying the same: an empty page ends its day, and when midnight passes
    between two pages, a day is paged through again rather than not at all. `is_behind` holds as long as REST has not
    shown the first trade behind the gap, and `is_short` as long as it has shown nothing as old as the last one before
    it: what lacks what the stream has shown may lack others, too.
    """

    def __init__(self, gap: Gap[TradeData], most: int) -> None:
        super().__init__(gap, most)
        self.is_behind = True
        # Where a subscriber said where to begin, nobody has shown what was there.
        self.is_short = gap.before is not None
        self._has_begun = False
        self._is_day_doubted = False
        self._first = gap.first
        self._before = gap.before
        self._missing = 0
        self._ids: set[int | None] = set()
        self._cursor: int | None = None
        self._cursors: set[int | None] = set()  # used on this day
        self._after_id = None if gap.start is None else gap.start.after_id
        self._days_ago = 0
        # One more than lie between, because midnight may have passed since.
        self._days = (gap.first.timestamp.date() - gap.floor.date()).days + 1

    @property
    def is_doubtful(self) -> bool:
        return self.is_behind or (self.is_short and self.shortfall is None)

    def step(self, page_of: TradePage, missing: CountMissing) -> None:
        """Ask for one page and take it in."""
        page = page_of(MAX_TRADES, self._cursor, self._days_ago or None)
        self._unread += len(unread_of(page))
        # By id and not by time: pages overlap where midnight passed between two of them, and ids are unique but not in
        # order.
        fresh = [trade for trade in page if trade.sequential_id not in self._ids]
        self.items += fresh
        self._ids.update(trade.sequential_id for trade in fresh)
        self._missing += missing(fresh)
        if self.is_behind:
            self.is_behind = not any(self._is_first_or_later(trade) for trade in fresh)
        if self.is_short:
            self.is_short = not any(self._is_before_or_earlier(trade) for trade in fresh)
        if self._start is not None and self._reaches_start(fresh):
            return
        # A cursor that comes back would page in a circle.
        if not page or page[-1].sequential_id in self._cursors:
            self._end_day()
        # Two seconds further than the gap: trades overtake each other by as much, so one that is missing may stand
        # behind an older one.
        elif page[-1].timestamp < self.floor - SHUFFLE:
            self._end()
        elif self._missing > self._most:
            self._end(f"more than {self._most} trades are missing")
        else:
            self._cursor = page[-1].sequential_id
            self._cursors.add(self._cursor)
            self._is_day_doubted = False

    def missing(self, start: datetime, end: datetime) -> tuple[datetime, datetime]:
        """As for any fetch; and where REST lags behind the stream, the newest ones are among the missing."""
        low, high = super().missing(start, end)
        if not self.is_behind or not self.items:
            return low, high
        if self.is_done and self.shortfall is None:
            low = max(start, min(end, max(trade.timestamp for trade in self.items) - SHUFFLE))
        return low, end

    def _reaches_start(self, fresh: list[TradeData]) -> bool:
        """Of a gap whose start was said: mark what came; whether that was all, or REST is not worth asking on."""
        ids = [trade.sequential_id for trade in fresh]
        is_named = self._after_id is not None and self._after_id in ids
        kept = fresh[: ids.index(self._after_id)] if is_named else fresh
        # Here, and not when all is merged: that is done under the lock which the stream's thread takes, too.
        self.items[len(self.items) - len(fresh) :] = [replace(trade, is_backfilled=True) for trade in kept]
        is_first_page, self._has_begun = bool(fresh) and not self._has_begun, self._has_begun or bool(fresh)
        if is_named:
            self._end()
        elif is_first_page and self.is_behind:
            # Newest first: what the first page lacks, no later one has, and there may be hundreds.
            self._end("REST does not show what the stream has shown")
        return self.is_done

    def take_settled(self) -> list[TradeData]:
        if self._start is None:
            return []
        # Twice, because a parked trade may be stamped as much before the first one as that may be late in REST's list.
        limit = self._first.timestamp - 2 * SHUFFLE
        settled = [trade for trade in self.items if self.floor <= trade.timestamp < limit]
        if self.items:
            self._oldest = self.items[-1]
        self.items = [trade for trade in self.items if trade.timestamp >= limit]
        settled.reverse()
        settled.sort(key=attrgetter("timestamp"))
        return settled

    def _reached(self, oldest: TradeData) -> datetime:
        return oldest.timestamp + SHUFFLE  # whoever overtook it may be later and stand behind it in the list

    def _is_first_or_later(self, trade: TradeData) -> bool:
        return trade.sequential_id == self._first.sequential_id or trade.timestamp > self._first.timestamp

    def _is_before_or_earlier(self, trade: TradeData) -> bool:
        before = self._before
        return before is None or trade.sequential_id == before.sequential_id or trade.timestamp < before.timestamp

    def _end_day(self) -> None:
        """An empty page ends a day; where no trade of the stream's stands behind it as a proof, the second one does."""
        if self._start is not None and not self._is_day_doubted:
            self._is_day_doubted = True
            return
        self._is_day_doubted = False
        self._go_a_day_back()

    def _go_a_day_back(self) -> None:
        self._cursor = None
        self._cursors.clear()
        if self._days_ago >= self._days:
            self._end()
        elif self._days_ago >= MAX_DAYS_AGO:
            self._end(f"Upbit keeps trades for {MAX_DAYS_AGO} days")
        else:
            self._days_ago += 1


class CandleFetch(Fetch[CandleData]):
    """Pages by exclusive `to` back to the gap's floor."""

    def __init__(self, gap: Gap[CandleData], most: int) -> None:
        super().__init__(gap, most)
        # `to` is exclusive on Upbit: the candle at the ceiling has come by the stream.
        self._to = gap.ceiling
        is_long_ago = gap.start is not None and gap.first.timestamp - gap.floor > SECONDS_KEPT
        self._may_be_cut = is_long_ago and gap.first.timeframe == "1s"

    @property
    def is_doubtful(self) -> bool:
        # The candle before the gap had a trade, so REST has it: without it, a page was empty or cut. Of a start that
        # somebody said nothing of the kind is known.
        return (
            self._start is None
            and self.shortfall is None
            and not any(candle.timestamp <= self.floor for candle in self.items)
        )

    def step(self, page_of: CandlePage, missing: CountMissing) -> None:
        """Ask for one page and take it in."""
        page = page_of(MAX_CANDLES, self._to)
        self._unread += len(unread_of(page))
        # An answer that does not heed `to` would be walked over for ever.
        fresh = [candle for candle in page if candle.timestamp < self._to]
        self.items += fresh
        if not fresh or fresh[-1].timestamp <= self.floor:
            is_cut = self._may_be_cut and not fresh
            self._end("Upbit keeps candles of seconds for three months" if is_cut else None)
        elif len(self.items) > self._most:
            self._end(f"more than {self._most} candles")
        else:
            self._to = fresh[-1].timestamp


# Where repairs get their pages from: REST, by two callables, one for trades and one for candles.

PAGE_SECONDS: Final = 5.0  # a page that hangs is asked for again; patience with REST is counted elsewhere


class TradesPage(Protocol):
    """One page as Upbit gives it: at most 500 trades of one UTC day before `cursor`, newest first."""

    def __call__(
        self,
        symbol: str,
        *,
        count: int,
        cursor: int | None = None,
        days_ago: int | None = None,
        deadline: Deadline,
        priority: Priority,
    ) -> list[TradeData]: ...


class CandlesPage(Protocol):
    """One page as Upbit gives it: at most 200 candles that start before `to` (None: now), newest first."""

    def __call__(
        self,
        symbol: str,
        timeframe: str,
        *,
        count: int,
        to: datetime | None = None,
        deadline: Deadline,
        priority: Priority,
    ) -> list[CandleData]: ...


class Pages:
    """Fetches one page at a time, at most `most` items for a gap. For workers' threads: it blocks."""

    def __init__(self, trades_page: TradesPage, candles_page: CandlesPage, *, most: int, clock: Clock) -> None:
        self._trades_page = trades_page
        self._candles_page = candles_page
        self._most = most
        self._clock = clock

    def begin(self, topic: Topic, gap: Gap[Any]) -> Fetch[Any]:
        is_trade = topic.data_type is DataType.TRADE
        return (TradeFetch if is_trade else CandleFetch)(gap, self._most)

    def step(self, topic: Topic, gap: Gap[Any], fetch: Fetch[Any], missing: CountMissing) -> None:
        """Add the next page to `fetch`. An error of ours changes nothing, and the same page may be asked again."""
        deadline = Deadline.after(PAGE_SECONDS, self._clock.monotonic)
        symbol = topic.symbol
        # Once live data flows again, a long repair must not push itself before the questions people ask.
        priority = Priority.NORMAL if gap.is_released else Priority.HIGH
        if isinstance(fetch, TradeFetch):
            fetch.step(
                lambda count, cursor, days_ago: self._trades_page(
                    symbol, count=count, cursor=cursor, days_ago=days_ago, deadline=deadline, priority=priority
                ),
                missing,
            )
        elif isinstance(fetch, CandleFetch):
            unit = gap.first.timeframe
            fetch.step(
                lambda count, to: self._candles_page(
                    symbol, unit, count=count, to=to, deadline=deadline, priority=priority
                ),
                missing,
            )

    def __repr__(self) -> str:
        return f"<Pages of at most {self._most} items>"
