"""An order book that moves: thirty levels a side at most, always consistent with the last trade."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

from upbit_backbone.simulator.engine.ticks import TickGrid

DEPTH = 30
REMEMBERED_SECONDS = 60.0  # how far back it is known how the book was


@dataclass(slots=True, frozen=True)
class BookView:
    """One published state; levels are (price, size), best first, padded with (0, 0) up to `DEPTH`."""

    ms: int
    level: int
    asks: list[tuple[int, int]]
    bids: list[tuple[int, int]]
    total_ask: int
    total_bid: int


class Book:
    """The resting orders of one pair. Prices follow from the best prices and the gaps; sizes change in place.

    Changes happen at any time; the world sees the book as it was when `show` was called last.
    """

    def __init__(self, grid: TickGrid, rng: random.Random, last_price: int, last_is_bid: bool, typical: int, ms: int):
        self._grid = grid
        self._rng = rng
        self._typical = typical
        self.ms = ms
        # Most BTC markets have fewer than thirty levels; their padding with zeros is what clients trip over.
        shallow = grid.quote == "BTC" and rng.random() < 0.6
        self._depths = [rng.randrange(2, DEPTH) if shallow else DEPTH for _ in range(2)]
        self._gaps = [[1 if rng.random() < 0.7 else rng.randrange(2, 5) for _ in range(DEPTH)] for _ in range(2)]
        self._sizes = [[self._size() for _ in range(DEPTH)] for _ in range(2)]
        # What lies below the thirtieth level counts in the totals, so a cut book never adds up to them, as at Upbit.
        self._beyond = [self._size() * 3 if depth == DEPTH else 0 for depth in self._depths]
        self.best_ask = self.best_bid = 0
        # REST and the streams of every depth must tell the same book until the next is shown, or a test could not
        # compare them.
        self._shown: dict[int, BookView | None] = {}
        self.shown_ms = ms
        self._past: deque[BookView] = deque()
        self.trade_at(last_price, last_is_bid, ms)

    @property
    def best_ask_size(self) -> int:
        return self._sizes[0][0]

    @property
    def best_bid_size(self) -> int:
        return self._sizes[1][0]

    def trade_at(self, price: int, is_bid: bool, ms: int) -> None:
        """A trade took the best ask (`is_bid`) or hit the best bid: that side's best price is now `price`."""
        if is_bid:
            self.best_ask, self.best_bid = price, self._grid.down(price)
        else:
            self.best_ask, self.best_bid = self._grid.up(price), price
        # A price of one tick has no allowed price below it; the book then moves up rather than to zero.
        if self.best_bid <= 0:
            self.best_bid, self.best_ask = self._grid.tick(1), self._grid.up(self._grid.tick(1))
        self._sizes[0 if is_bid else 1][0] = self._size()
        self.ms = ms

    def move(self, ticks: int, ms: int) -> None:
        """Shifts both best prices; used when orders are withdrawn or placed between the best prices."""
        for _ in range(abs(ticks)):
            if ticks > 0:
                self.best_bid, self.best_ask = self.best_ask, self._grid.up(self.best_ask)
            elif self._grid.down(self.best_bid) > 0:
                self.best_ask, self.best_bid = self.best_bid, self._grid.down(self.best_bid)
        self.ms = ms

    def flicker(self, ms: int) -> None:
        """A few sizes change."""
        for _ in range(self._rng.randrange(1, 4)):
            side = self._rng.randrange(2)
            self._sizes[side][int(self._rng.random() ** 2 * self._depths[side])] = self._size()
        self.ms = ms

    def show(self, ms: int) -> None:
        """Publishes the present state under the time `ms`."""
        self._shown.clear()
        self.shown_ms = ms
        if (shown := self.view()) is not None:
            self._past.append(shown)
        # One older than the bound is kept: it is how the book was at the bound.
        while len(self._past) > 1 and self._past[1].ms < ms - REMEMBERED_SECONDS * 1000:
            self._past.popleft()

    def view_at(self, ms: int) -> BookView | None:
        """The published book, not grouped, as it was at `ms`; the oldest that is remembered where that is later."""
        earlier = [view for view in self._past if view.ms <= ms]
        return earlier[-1] if earlier else next(iter(self._past), None)

    def view(self, level: int = 0) -> BookView | None:
        """The published book grouped by `level` (0: not grouped), or None where Upbit does not offer that grouping."""
        if level not in self._shown:
            self._shown[level] = self._view(level)
        return self._shown[level]

    def _view(self, level: int) -> BookView | None:
        if level and level not in self._grid.levels(self.best_bid):
            return None
        whole = self._shown.get(0)
        if level and whole is not None:
            asks = self._grouped([one for one in whole.asks if one[0]], level, True)
            bids = self._grouped([one for one in whole.bids if one[0]], level, False)
            return BookView(whole.ms, level, _full(asks), _full(bids), whole.total_ask, whole.total_bid)
        asks, bids = self._side(0), self._side(1)
        total_ask = sum(size for _, size in asks) + self._beyond[0]
        total_bid = sum(size for _, size in bids) + self._beyond[1]
        return BookView(self.shown_ms, 0, _full(asks), _full(bids), total_ask, total_bid)

    def _side(self, side: int) -> list[tuple[int, int]]:
        price, levels = (self.best_bid, self.best_ask)[side == 0], []
        step = self._grid.up if side == 0 else self._grid.down
        for gap, size in zip(self._gaps[side][: self._depths[side]], self._sizes[side], strict=False):
            if price <= 0:
                break
            levels.append((price, size))
            price = step(price, gap)
        return levels

    def _grouped(self, levels: list[tuple[int, int]], level: int, upwards: bool) -> list[tuple[int, int]]:
        groups: dict[int, int] = {}
        for price, size in levels:
            bucket = -(-price // level) * level if upwards else price // level * level
            groups[bucket] = groups.get(bucket, 0) + size
        bucket, deeper = list(groups)[-1], iter(self._sizes[not upwards])
        while len(groups) < DEPTH:
            bucket += level if upwards else -level
            if bucket <= 0:
                break
            groups[bucket] = next(deeper) * 7
        return [(price, size) for price, size in groups.items() if price > 0]

    def _size(self) -> int:
        return int(self._typical * self._rng.random() ** 3) + 1_000


def _full(levels: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Exactly `DEPTH` levels; what is missing is (0, 0), as Upbit pads short sides."""
    return (levels + [(0, 0)] * DEPTH)[:DEPTH]
