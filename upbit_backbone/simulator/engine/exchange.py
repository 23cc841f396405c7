"""All pairs together: who trades next, when books move, and what has changed since the last look."""

from __future__ import annotations

import random
from bisect import bisect
from collections import deque
from itertools import accumulate

from upbit_backbone.simulator.engine.clock import Clock
from upbit_backbone.simulator.engine.history import BlockCache, Trade
from upbit_backbone.simulator.engine.listing import listings
from upbit_backbone.simulator.engine.market import Market

MAX_CATCH_UP_SECONDS = 0.25


class Exchange:
    """The venue. `advance` makes the trades that are due; `publish` makes one by hand."""

    def __init__(
        self,
        seed: int,
        markets: int | list[str] | None,
        clock: Clock,
        trades_per_second: float,
        books_per_second: float = 0.0,
        unordered_ids: bool = False,
        retained_trades: int = 300_000,
    ) -> None:
        self.clock = clock
        self._seed = seed
        start = clock.now_ms()
        cache = BlockCache()
        self.markets = {row.code: Market(seed, row, start, cache) for row in listings(seed, markets)}
        self.trades_per_second = trades_per_second
        self.books_per_second = books_per_second
        self.paused = False
        self.paused_codes: set[str] = set()
        self._unordered_ids = unordered_ids
        self._trade_rng = random.Random(f"{seed}/trades")
        self._book_rng = random.Random(f"{seed}/books")
        self._id_rng = random.Random(f"{seed}/ids")
        self._last_ids: dict[str, int] = {}
        self._retained: deque[Market] = deque()
        self._max_retained = retained_trades
        self._trades_due = self._books_due = 0.0
        self._last_seconds = clock.seconds()
        self._weigh()

    def list_market(self, code: str) -> None:
        """A pair more, at the end of the list; without a trade of its own until there is one."""
        if code in self.markets:
            raise ValueError(f"{code} is listed already")
        (row,) = listings(self._seed, [code])
        self.markets[code] = Market(self._seed, row, self.clock.now_ms(), BlockCache())
        self._weigh()

    def delist(self, code: str) -> None:
        del self.markets[code]
        self._weigh()

    def advance(self) -> tuple[list[tuple[Market, Trade]], set[Market]]:
        """The trades made since the last call, in order, and the pairs whose book changed."""
        now = self.clock.seconds()
        # A machine that stood still owes the market no burst: clients would be tested against our own load.
        passed = min(MAX_CATCH_UP_SECONDS, max(0.0, now - self._last_seconds))
        self._last_seconds = now
        if self.paused or not self._order:
            return [], set()
        trades = self._make_trades(passed)
        moved = {market for market, _ in trades}
        self._books_due += passed * (self.books_per_second or 2 * self.trades_per_second)
        while self._books_due >= 1.0:
            self._books_due -= 1.0
            market = self._pick(self._book_rng)
            if market.code not in self.paused_codes:
                market.book.flicker(self.clock.now_ms())
                moved.add(market)
        return trades, moved

    def publish(
        self, code: str, price: int | None = None, volume: int | None = None, is_bid: bool | None = None
    ) -> tuple[Market, Trade]:
        """A trade now. What is not given is chosen like for any other trade."""
        return self._trade(self.markets[code], price, volume, is_bid)

    def _make_trades(self, passed: float) -> list[tuple[Market, Trade]]:
        self._trades_due += passed * self.trades_per_second
        made = []
        while self._trades_due >= 1.0:
            self._trades_due -= 1.0
            market = self._pick(self._trade_rng)
            if market.code not in self.paused_codes:
                made.append(self._trade(market, None, None, None))
        return made

    def _trade(
        self, market: Market, price: int | None, volume: int | None, is_bid: bool | None
    ) -> tuple[Market, Trade]:
        rng, book, now = market.rng, market.book, self.clock.now_ms()
        if is_bid is None:
            is_bid = rng.random() < 0.5
        if price is None:
            # A weak pull towards where it began: after hours a random walk would have left every realistic price.
            pull = -1 if book.best_bid > market.listing.price * 1.2e8 else 1
            if rng.random() < 0.25:
                book.move(pull if rng.random() < 0.05 else rng.choice((-1, 1)), now)
            price = book.best_ask if is_bid else book.best_bid
        if volume is None:
            volume = int(market.typical * rng.random() ** 4) + 1_000
        # Trades of one pair never go back in time, even where the clock was set or a step was late.
        now = max(now, market.live[-1].ms if market.live else market.start_ms)
        trade = market.add_trade(now, price, volume, is_bid, self._next_id(market, now))
        self._retained.append(market)
        if len(self._retained) > self._max_retained:
            self._retained.popleft().forget_oldest()
        return market, trade

    def _next_id(self, market: Market, ms: int) -> int:
        last = self._last_ids.get(market.code, 0)
        # Made from the millisecond, as Upbit's ids are, in steps of two: the odd ones are for those out of order.
        fresh = max(ms * 10_000, last + 2 if last // 10_000 >= ms else 0)
        self._last_ids[market.code] = fresh
        if self._unordered_ids and self._id_rng.random() < 0.3:
            return fresh - 20_000_000 + 1  # odd, hence still unique; smaller than those of the last two seconds
        return fresh

    def _pick(self, rng: random.Random) -> Market:
        return self._order[bisect(self._weights, rng.random() * self._weights[-1])]

    def _weigh(self) -> None:
        self._order = list(self.markets.values())
        self._weights = list(accumulate(market.listing.trades_per_minute for market in self._order))
