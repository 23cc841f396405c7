"""One pair: its history, the trades since the start, and what Upbit derives from them."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from upbit_backbone.simulator.engine.book import Book
from upbit_backbone.simulator.engine.history import (
    DAY_MS,
    MINUTE_MS,
    BlockCache,
    Candle,
    History,
    Trade,
    aggregate,
    merge,
    typical_volume,
)
from upbit_backbone.simulator.engine.listing import Listing
from upbit_backbone.simulator.engine.ticks import UNIT, TickGrid

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class TickerState:
    """Everything a ticker says, at one moment; volumes in 1e-8, turnovers in 1e-16."""

    ms: int
    last: Trade
    open: int
    high: int
    low: int
    prev_close: int
    volume: int
    turnover: int
    ask_volume: int
    bid_volume: int
    volume_24h: int
    turnover_24h: int
    year: tuple[int, int, int, int]


class Market:
    """The life of one pair. `add_trade` is the only way anything changes after the start (besides the book)."""

    def __init__(self, seed: int, listing: Listing, start_ms: int, cache: BlockCache) -> None:
        self.listing = listing
        self.code = listing.code
        self.grid = TickGrid(listing.code)
        self.start_ms = start_ms
        self.history = History(seed, listing, start_ms, cache)
        # A generator for each purpose: a book that flickers once more must not change which trades a seed makes.
        self.rng = random.Random(f"{seed}/{listing.code}/trades")
        self._book_rng = random.Random(f"{seed}/{listing.code}/book")
        self.typical = typical_volume(listing.price, self.grid.quote)
        self.live: deque[Trade] = deque()
        self.dropped_until = start_ms
        """Live trades before this moment are no longer retained one by one."""
        # Of live trades only minutes are kept for good, and merged into every longer period: single trades are
        # forgotten, their candles never.
        self._minutes: dict[int, Candle] = {}
        # Made when first asked for, as the book is: the past of 855 pairs is not made before somebody asks for it.
        self._days: _Days | None = None
        self._book: Book | None = None

    @property
    def book(self) -> Book:
        if self._book is None:
            last = self.last_trade()
            self._book = Book(self.grid, self._book_rng, last.price, last.is_bid, self.typical, last.ms)
            self._book.show(last.ms)
        return self._book

    def last_trade(self) -> Trade:
        """The newest trade; a pair that never traded is given one at the start of its history."""
        if self.live:
            return self.live[-1]
        if self._days is not None:
            return self._days.last
        for day in range(self.start_ms // DAY_MS, self.history.first_day - 1, -1):
            trades = self.history.trades(day)
            if trades:
                return trades[-1]
        ms = self.history.first_day * DAY_MS
        price = self.grid.round(int(self.listing.price * UNIT))
        return Trade(ms, price, self.typical, True, ms * 10_000)

    def add_trade(self, ms: int, price: int, volume: int, is_bid: bool, trade_id: int) -> Trade:
        """Records a trade made now; the book and all candles follow."""
        # Before the trade is recorded: made afterwards, the running sums would find it in the past and count it twice.
        self._day_sums(ms)
        trade = Trade(ms, price, volume, is_bid, trade_id)
        book = self.book
        self.live.append(trade)
        start = ms - ms % MINUTE_MS
        candle = self._minutes.get(start)
        one = Candle(start, price, price, price, price, volume, volume * price, ms)
        self._minutes[start] = one if candle is None else merge([candle, one], start)
        self._day_sums(ms).add(trade)
        book.trade_at(price, is_bid, ms)
        return trade

    def forget_oldest(self) -> None:
        """Drops the oldest retained live trade; candles keep it."""
        self.dropped_until = self.live.popleft().ms + 1

    def ticker(self, now_ms: int) -> TickerState:
        return self._day_sums(now_ms).state(now_ms)

    def ticker_at(self, ms: int, now_ms: int) -> TickerState:
        """The ticker as it was at `ms`, not long ago; its highs, lows and opening price are the present ones."""
        state = self._day_sums(now_ms).state(now_ms)
        before = self.last_trade()
        for trade in reversed(self.live):
            before = trade
            if trade.ms <= ms:
                break
            state.volume -= trade.volume
            state.volume_24h -= trade.volume
            state.turnover -= trade.volume * trade.price
            state.turnover_24h -= trade.volume * trade.price
            state.bid_volume -= trade.is_bid * trade.volume
            state.ask_volume -= (not trade.is_bid) * trade.volume
        state.ms, state.last = ms, before
        return state

    def trades_of_day(self, day: int) -> list[Trade]:
        """All retained trades of a UTC day in the order in which they happened."""
        past = self.history.trades(day)
        begin, end = day * DAY_MS, (day + 1) * DAY_MS
        if not self.live or self.live[-1].ms < begin or self.live[0].ms >= end:
            return past
        return past + [trade for trade in self.live if begin <= trade.ms < end]

    def minutes_of_day(self, day: int) -> list[Candle]:
        past = self.history.minutes(day)
        if not self._minutes or (day + 1) * DAY_MS <= self.start_ms:
            return past
        begin, end = day * DAY_MS, (day + 1) * DAY_MS
        live = [candle for start, candle in self._minutes.items() if begin <= start < end]
        # The simulator was started in the middle of a minute, of which history has the first part.
        if past and live and past[-1].start_ms == live[0].start_ms:
            return [*past[:-1], merge([past[-1], live[0]], live[0].start_ms), *live[1:]]
        return past + live

    def day_candle(self, day: int) -> Candle | None:
        if (day + 1) * DAY_MS <= self.start_ms:
            return self.history.day(day)
        minutes = self.minutes_of_day(day)
        return merge(minutes, day * DAY_MS) if minutes else None

    def unmade_days(self, first: int, end: int) -> Iterator[int]:
        """Past days from `first` to before `end`, newest first, whose candle is not made: each takes a while."""
        history = self.history
        for day in range(min(end, self.start_ms // DAY_MS) - 1, max(first, history.first_day) - 1, -1):
            if not history.has_day(day):
                yield day

    def candle(self, period_ms: int, start_ms: int) -> Candle | None:
        """One candle of up to a day, or None if nobody traded in it."""
        end = start_ms + period_ms
        if period_ms < MINUTE_MS:
            inside = [trade for trade in self._recent(start_ms) if trade.ms < end]
            return aggregate(inside, period_ms)[0] if inside else None
        if start_ms >= self.start_ms:
            found = (self._minutes.get(minute) for minute in range(start_ms, end, MINUTE_MS))
            minutes = [one for one in found if one is not None]
        else:
            minutes = [one for one in self.minutes_of_day(start_ms // DAY_MS) if start_ms <= one.start_ms < end]
        return merge(minutes, start_ms) if minutes else None

    def candles_back(self, period_ms: int, before_ms: int, not_before_ms: int = 0) -> Iterator[Candle]:
        """Candles of up to a day, newest first, that start before `before_ms`."""
        first = max(self.history.first_day, not_before_ms // DAY_MS)
        for day in range((before_ms - 1) // DAY_MS, first - 1, -1):
            for candle in reversed(self._periods(day, period_ms)):
                if not_before_ms <= candle.start_ms < before_ms:
                    yield candle

    def day_candles_back(self, before_ms: int) -> Iterator[Candle]:
        for day in range((before_ms - 1) // DAY_MS, self.history.first_day - 1, -1):
            candle = self.day_candle(day)
            if candle is not None:
                yield candle

    def prev_close(self, day: int) -> int:
        """The close of the last earlier day with trades, or the first price of all."""
        for candle in self.day_candles_back(day * DAY_MS):
            return candle.close
        first = self.day_candle(day)
        return first.open if first else self.last_trade().price

    def _periods(self, day: int, period_ms: int) -> list[Candle]:
        if period_ms < MINUTE_MS:
            return aggregate(self.trades_of_day(day), period_ms)
        minutes = self.minutes_of_day(day)
        if period_ms == MINUTE_MS:
            return minutes
        groups: dict[int, list[Candle]] = {}
        for minute in minutes:
            groups.setdefault(minute.start_ms - minute.start_ms % period_ms, []).append(minute)
        return [merge(group, start) for start, group in groups.items()]

    def _recent(self, since_ms: int) -> list[Trade]:
        """Trades since a moment, in order; cheap when the moment is recent."""
        if since_ms < self.start_ms:
            return [trade for trade in self.trades_of_day(since_ms // DAY_MS) if trade.ms >= since_ms]
        found = []
        for trade in reversed(self.live):
            # Read from the end: a second candle is asked of hundreds of thousands of trades, once a second for each
            # pair.
            if trade.ms < since_ms:
                break
            found.append(trade)
        return found[::-1]

    def _day_sums(self, now_ms: int) -> _Days:
        if self._days is None:
            self._days = _Days(self, now_ms)
        self._days.roll(now_ms)
        return self._days


class _Days:
    """Running sums of the current UTC day and of the last 24 hours."""

    def __init__(self, market: Market, now_ms: int) -> None:
        self._market = market
        self.last = market.last_trade()
        self.day = now_ms // DAY_MS
        self._prev_close = market.prev_close(self.day)
        self._year = market.history.extremes(self.day)
        self._ask = self._bid = 0
        for trade in market.trades_of_day(self.day):
            self._ask += (not trade.is_bid) * trade.volume
            self._bid += trade.is_bid * trade.volume
        today = market.minutes_of_day(self.day)
        self._today = merge(today, self.day * DAY_MS) if today else None
        earlier = [one for one in market.minutes_of_day(self.day - 1) if one.start_ms > now_ms - DAY_MS]
        self._window = deque((one.start_ms, one.volume, one.turnover) for one in earlier + today)
        self._volume_24h = sum(row[1] for row in self._window)
        self._turnover_24h = sum(row[2] for row in self._window)

    def roll(self, now_ms: int) -> None:
        """Starts a new day at 00:00 UTC and lets what is older than 24 hours go."""
        if now_ms // DAY_MS > self.day:
            self.day = now_ms // DAY_MS
            # The last price before midnight, also where nobody has traded for days: that is what Upbit compares with.
            self._prev_close = self.last.price
            self._today, self._ask, self._bid = None, 0, 0
        while self._window and self._window[0][0] <= now_ms - DAY_MS:
            _, volume, turnover = self._window.popleft()
            self._volume_24h -= volume
            self._turnover_24h -= turnover

    def add(self, trade: Trade) -> None:
        self.last = trade
        one = Candle(self.day * DAY_MS, trade.price, trade.price, trade.price, trade.price, trade.volume,
                     trade.price * trade.volume, trade.ms)  # fmt: skip
        self._today = one if self._today is None else merge([self._today, one], one.start_ms)
        self._ask += (not trade.is_bid) * trade.volume
        self._bid += trade.is_bid * trade.volume
        self._volume_24h += one.volume
        self._turnover_24h += one.turnover
        # Seconds and not trades are kept for 24 hours: a busy pair would keep a million rows.
        if self._window and self._window[-1][0] + 1_000 > trade.ms:
            start, volume, turnover = self._window.pop()
            self._window.append((start, volume + one.volume, turnover + one.turnover))
        else:
            self._window.append((trade.ms, one.volume, one.turnover))
        high, high_day, low, low_day = self._year
        if trade.price > high:
            self._year = (trade.price, self.day, low, low_day)
        elif trade.price < low:
            self._year = (high, high_day, trade.price, self.day)

    def state(self, now_ms: int) -> TickerState:
        close = self._prev_close
        today = self._today or Candle(0, close, close, close, close, 0, 0, 0)
        return TickerState(now_ms, self.last, today.open, today.high, today.low, close, today.volume, today.turnover,
                           self._ask, self._bid, self._volume_24h, self._turnover_24h, self._year)  # fmt: skip


@lru_cache(maxsize=4096)
def day_label(day: int) -> str:
    """`yyyy-MM-dd` of a day counted from 1970."""
    return (_EPOCH + timedelta(days=day)).strftime("%Y-%m-%d")
