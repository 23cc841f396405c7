"""The past of a pair, made on demand: the same seed, pair and day always give the same trades.

A day is a Poisson stream of trades along a price path that is known at every full hour without knowing any other
hour (layered value noise). The last `DENSE_DAYS` days are as busy as the pair is; before that at most a few dozen
trades a day were kept, so that years of daily candles cost little. Candles of the past are never made directly:
they are always the aggregation of these trades.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple, TypeVar

from upbit_backbone.simulator.engine.listing import Listing
from upbit_backbone.simulator.engine.ticks import UNIT, TickGrid

DAY_MS = 86_400_000
MINUTE_MS = 60_000
DENSE_DAYS = 100
SPARSE_TRADES_PER_MINUTE = 0.03
FIRST_DAY = 17_434
"""2017-09-25, where the real KRW-BTC history starts."""
_LAYERS = ((3, 0.004), (17, 0.010), (121, 0.030), (733, 0.080), (4391, 0.250))


Row = TypeVar("Row")


class Trade(NamedTuple):
    """One trade; prices and volumes in units of 1e-8."""

    ms: int
    price: int
    volume: int
    is_bid: bool
    id: int


class Candle(NamedTuple):
    """Open, high, low and close of one period; the turnover is in units of 1e-16."""

    start_ms: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    turnover: int
    last_ms: int


def noise(seed: int, period: int, hour: int, hours: int) -> list[float]:
    """Smooth noise in [-1, 1] with features of about `period` hours: of so many hours, beginning with `hour`."""
    index, within = divmod(hour, period)
    left, right = _lattice(seed + period, index), _lattice(seed + period, index + 1)
    found: list[float] = []
    for _ in range(hours):
        t = within / period
        # Smoothstep: without it prices would have a kink at every knot, and a series of candles show it.
        t = t * t * (3.0 - 2.0 * t)
        found.append(left * (1.0 - t) + right * t)
        within += 1
        if within == period:
            index, within = index + 1, 0
            left, right = right, _lattice(seed + period, index + 1)
    return found


@lru_cache(maxsize=16_384)
def _lattice(seed: int, index: int) -> float:
    # A hash instead of random.Random: seeding one costs far more, and a chart asks for thousands of hours.
    mixed = (index * 0x9E3779B97F4A7C15 + seed * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return ((mixed ^ (mixed >> 31)) >> 11) / float(1 << 52) - 1.0


def is_maintenance(ms: int) -> bool:
    """Every fourth Sunday from 17:00 to 20:00 UTC nobody could trade, so there are no candles at all."""
    day, within = divmod(ms, DAY_MS)
    return day % 28 == 3 and 17 * 3_600_000 <= within < 20 * 3_600_000


def aggregate(trades: Iterable[tuple[int, int, int, bool, int]], period_ms: int) -> list[Candle]:
    """Trades in time order to candles in time order; a period without a trade has no candle."""
    candles: list[Candle] = []
    start, end = 0, -1
    first = high = low = close = volume = turnover = last = 0
    # One loop without objects or calls: this makes every candle there is, a day of trades at a time.
    for ms, price, amount, _, _ in trades:
        if ms >= end:
            if end >= 0:
                candles.append(Candle(start, first, high, low, close, volume, turnover, last))
            start = ms - ms % period_ms
            end = start + period_ms
            first = high = low = price
            volume = turnover = 0
        if price > high:
            high = price
        elif price < low:
            low = price
        close = price
        volume += amount
        turnover += price * amount
        last = ms
    if end >= 0:
        candles.append(Candle(start, first, high, low, close, volume, turnover, last))
    return candles


def merge(candles: list[Candle], start_ms: int) -> Candle:
    """Several candles in time order (at least one) as one that starts at `start_ms`."""
    return Candle(
        start_ms,
        candles[0].open,
        max(candle.high for candle in candles),
        min(candle.low for candle in candles),
        candles[-1].close,
        sum(candle.volume for candle in candles),
        sum(candle.turnover for candle in candles),
        candles[-1].last_ms,
    )


class History:
    """All that happened to one pair before the simulator started."""

    def __init__(self, seed: int, listing: Listing, end_ms: int, cache: BlockCache) -> None:
        self.end_ms = end_ms
        self._end_day = end_ms // DAY_MS
        self._listing = listing
        self._grid = TickGrid(listing.code)
        self._seed = seed
        rng = random.Random(f"{seed}/{listing.code}")
        self._noise_seed = rng.getrandbits(48)
        # One pair in ten was listed lately, so that questions reach the beginning of a history; never one that tests
        # rely on.
        recently = rng.random() < 0.1 and listing.code not in ("KRW-BTC", "KRW-ETH", "KRW-XRP", "BTC-ETH", "USDT-BTC")
        age = rng.randrange(20, 300) if recently else rng.randrange(700, self._end_day - FIRST_DAY)
        self.first_day = FIRST_DAY if listing.code == "KRW-BTC" else self._end_day - age
        self._cache = cache
        self._days: dict[int, Candle | None] = {}

    def trades(self, day: int) -> list[Trade]:
        """All trades of one UTC day (counted from 1970), oldest first."""
        if not self.first_day <= day <= self._end_day:
            return []
        return self._cache.trades(self._listing.code, day, self._make_day)

    def minutes(self, day: int) -> list[Candle]:
        """The minute candles of one UTC day, oldest first."""
        if not self.first_day <= day <= self._end_day:
            return []
        return self._cache.minutes(self._listing.code, day, lambda d: aggregate(self.trades(d), MINUTE_MS))

    def day(self, day: int) -> Candle | None:
        """The daily candle, or None for a day without a trade."""
        if day not in self._days:
            # Its trades are not kept: two hundred months are half a million of them, and whoever asks for candles does
            # not ask for those.
            whole = aggregate(self._walk(day), DAY_MS) if self.first_day <= day <= self._end_day else []
            self._days[day] = whole[0] if whole else None
        return self._days[day]

    def extremes(self, day: int, days: int = 364) -> tuple[int, int, int, int]:
        """(highest price, its day, lowest price, its day) over the year before `day`.

        This is the envelope of the price path, sampled weekly: no candle of the year lies outside it, yet the
        extreme need not have been traded. Reading a year of trades of 855 pairs for it would take minutes.
        """
        sampled = [(self._levels(at * 24, 1)[0], at) for at in range(max(self.first_day, day - days), day + 1, 7)]
        sampled = sampled or [(self._levels(day * 24, 1)[0], day)]
        (high, high_day), (low, low_day) = max(sampled), min(sampled)
        # What the path can add between two samples, and the noise of single trades.
        wiggle = 1.0 + 2 * sum(amplitude for period, amplitude in _LAYERS if period < 200) + 0.08
        return (self._grid.round(int(high * wiggle)), high_day, self._grid.round(int(low / wiggle)), low_day)

    def has_day(self, day: int) -> bool:
        """Whether the daily candle is made already."""
        return day in self._days

    def _levels(self, hour: int, hours: int) -> list[float]:
        """Where the price path is at so many full hours."""
        layers = [
            [amplitude * each for each in noise(self._noise_seed, period, hour, hours)] for period, amplitude in _LAYERS
        ]
        middle = self._listing.price * UNIT
        return [middle * math.exp(sum(swings)) for swings in zip(*layers, strict=True)]

    def _make_day(self, day: int) -> list[Trade]:
        return list(map(Trade._make, self._walk(day)))

    def _walk(self, day: int) -> Iterator[tuple[int, int, int, bool, int]]:
        """The trades of a day, as plain tuples: most are only added up."""
        rate = self._listing.trades_per_minute
        if day < self._end_day - DENSE_DAYS:
            rate = min(rate, SPARSE_TRADES_PER_MINUTE)
        # Of the day alone: a day is the same whichever was asked for before it, and after the cache has dropped it.
        rng = random.Random(f"{self._seed}/{self._listing.code}/{day}")
        rnd, log, step = rng.random, math.log, -MINUTE_MS / rate
        knots = self._levels(day * 24, 25)
        typical = typical_volume(self._listing.price, self._grid.quote)
        grid_stretch, begin = self._grid.stretch, day * DAY_MS
        end, moment, last_ms, counter = min(begin + DAY_MS, self.end_ms), float(begin), -1, 0
        # None in the last week, lest tests that look at the recent past depend on the day on which they run.
        quiet = day % 28 == 3 and day < self._end_day - 7
        hour_begin = hour_end = low = high = tick = 0
        knot = rise = 0.0
        while True:
            moment += step * log(1.0 - rnd())
            ms = int(moment)
            if ms >= end:
                return
            if quiet and is_maintenance(ms):
                moment = float(begin + 20 * 3_600_000)
                continue
            # Several trades of one millisecond need ids of their own.
            counter = counter + 1 if ms == last_ms else 0
            last_ms = ms
            if ms >= hour_end:
                hour = (ms - begin) // 3_600_000
                hour_begin = begin + hour * 3_600_000
                hour_end = hour_begin + 3_600_000
                knot, rise = knots[hour], knots[hour + 1] - knots[hour]
            raw = int((knot + rise * (ms - hour_begin) / 3_600_000) * (1.0 + 0.0012 * (rnd() + rnd() - 1.0)))
            is_bid = rnd() < 0.5
            # Looked up when the price leaves the stretch that has this tick: there are three thousand trades a day.
            if not low <= raw < high:
                tick, low, high = grid_stretch(raw)
            price = raw // tick * tick + (tick if is_bid else 0)
            yield ms, price if price > tick else tick, int(typical * rnd() ** 4) + 1_000, is_bid, ms * 10_000 + counter


def typical_volume(price: float, quote: str) -> int:
    """A large but not unusual trade: about two million won, in units of 1e-8 of the base."""
    worth = {"KRW": 2_000_000.0, "BTC": 0.015, "USDT": 1_400.0}.get(quote, 1_400.0)
    return int(worth / price * UNIT) + 1


class BlockCache:
    """Days made so far, shared by all pairs and bounded by the number of rows it keeps."""

    def __init__(self, max_rows: int = 60_000) -> None:
        self._max_rows = max_rows
        self._trades: OrderedDict[tuple[str, int], list[Trade]] = OrderedDict()
        self._minutes: OrderedDict[tuple[str, int], list[Candle]] = OrderedDict()
        self._rows = {id(self._trades): 0, id(self._minutes): 0}

    def trades(self, code: str, day: int, make: Callable[[int], list[Trade]]) -> list[Trade]:
        return self._get(self._trades, (code, day), make)

    def minutes(self, code: str, day: int, make: Callable[[int], list[Candle]]) -> list[Candle]:
        return self._get(self._minutes, (code, day), make)

    def _get(
        self, kept: OrderedDict[tuple[str, int], list[Row]], key: tuple[str, int], make: Callable[[int], list[Row]]
    ) -> list[Row]:
        rows = kept.get(key)
        if rows is None:
            rows = kept[key] = make(key[1])
            self._rows[id(kept)] += len(rows) + 1
            # Bounded by rows and not by days: a day of KRW-BTC has thousands, one of a quiet pair three.
            while self._rows[id(kept)] > self._max_rows and len(kept) > 1:
                self._rows[id(kept)] -= len(kept.popitem(last=False)[1]) + 1
        else:
            kept.move_to_end(key)
        return rows
