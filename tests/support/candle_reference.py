"""Upbit's candles and trades as a plain model: no paging tricks, no cleverness, obviously right.

`ReferenceExchange` answers like Upbit (newest first, at most 200 or 500, `to` exclusive, no row without a trade, the
forming candle first), from a list of trades or of ready-made candles.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache

from upbit_backbone._concurrency import Deadline
from upbit_backbone.exchange.timeframes import Timeframe, timeframe_of
from upbit_backbone.models.enums import DataSource, Priority, Side
from upbit_backbone.models.market import CandleData, TradeData

SYMBOL = "KRW-BTC"


def trade(at: datetime, price: int = 100, volume: str = "1", number: int = 0) -> TradeData:
    return TradeData(
        symbol=SYMBOL,
        price=Decimal(price),
        volume=Decimal(volume),
        side=Side.BID,
        timestamp=at,
        sequential_id=number or int(at.timestamp() * 10_000_000),
        source=DataSource.REST,
    )


def candle(unit: Timeframe, start: datetime, price: int = 100) -> CandleData:
    value = Decimal(price)
    return CandleData(
        symbol=SYMBOL,
        timeframe=unit.word,
        open_price=value,
        high_price=value + 2,
        low_price=value - 2,
        close_price=value + 1,
        volume=Decimal("1.5"),
        traded_value=value,
        timestamp=start,
        source=DataSource.REST,
    )


@lru_cache(maxsize=8)
def ready_made(unit: Timeframe, starts: tuple[datetime, ...]) -> tuple[CandleData, ...]:
    """Nobody can change them, so whoever wants ten thousand gets those that were made before."""
    return tuple(candle(unit, start, 100 + index % 50) for index, start in enumerate(starts))


def brute_force(unit: Timeframe, trades: Iterable[TradeData], now: datetime) -> list[CandleData]:
    """Every candle of `unit` up to `now`, oldest first, straight from the trades."""
    periods: dict[datetime, list[TradeData]] = {}
    for each in sorted((each for each in trades if each.timestamp <= now), key=lambda each: each.timestamp):
        periods.setdefault(unit.floor(each.timestamp), []).append(each)
    return [
        CandleData(
            symbol=SYMBOL,
            timeframe=unit.word,
            open_price=inside[0].price,
            high_price=max(each.price for each in inside),
            low_price=min(each.price for each in inside),
            close_price=inside[-1].price,
            volume=sum((each.volume for each in inside), Decimal(0)),
            traded_value=sum((each.price * each.volume for each in inside), Decimal(0)),
            timestamp=start,
            last_trade_at=inside[-1].timestamp,
            source=DataSource.REST,
            is_closed=unit.next_start(start) <= now,
        )
        for start, inside in sorted(periods.items())
    ]


class ReferenceExchange:
    """`now` can be moved; `faults` maps the number of a call (from 1) to the error it raises."""

    def __init__(self, now: datetime, *, trades: Iterable[TradeData] = (), latency: float = 0.0) -> None:
        self.now = now
        self.trades = list(trades)
        self.latency = latency
        self.faults: dict[int, Exception] = {}
        self.calls: list[tuple[str, datetime | None, int]] = []
        self.most_at_once = self._under_way = 0
        self.rate: Callable[[], None] = lambda: None
        self._ready: dict[str, list[CandleData]] = {}
        self._lock = threading.Lock()  # guards calls, and how many are under way

    def tell_now(self) -> datetime:
        return self.now

    def serve(self, unit: Timeframe, starts: Iterable[datetime]) -> None:
        """Serve ready-made candles for these period starts instead of aggregating trades."""
        self._ready[unit.word] = [*ready_made(unit, tuple(sorted(starts)))]

    def candles(self, unit: Timeframe) -> list[CandleData]:
        ready = self._ready.get(unit.word)
        if ready is None:
            return brute_force(unit, self.trades, self.now)
        count = bisect_left(ready, self.now + timedelta(microseconds=1), key=lambda row: row.timestamp)
        if not count:
            return []
        newest = ready[count - 1]
        return [*ready[: count - 1], replace(newest, is_closed=unit.next_start(newest.timestamp) <= self.now)]

    def candles_page(
        self,
        symbol: str,
        timeframe: str,
        *,
        count: int,
        to: datetime | None = None,
        deadline: Deadline,
        priority: Priority,
    ) -> list[CandleData]:
        self._begin("candles", to, count)
        assert symbol == SYMBOL
        assert 1 <= count <= 200, count
        rows = self.candles(timeframe_of(timeframe))
        stop = len(rows) if to is None else bisect_left(rows, to, key=lambda row: row.timestamp)
        # The channel does not know which candle is forming: everything comes as closed.
        return [replace(row, is_closed=True) for row in reversed(rows[max(0, stop - count) : stop])]

    def trades_page(
        self,
        symbol: str,
        *,
        count: int,
        cursor: int | None = None,
        days_ago: int | None = None,
        to: object = None,
        deadline: Deadline,
        priority: Priority,
    ) -> list[TradeData]:
        self._begin("trades", None, count)
        assert symbol == SYMBOL
        assert 1 <= count <= 500, count
        assert days_ago is None or 0 <= days_ago <= 7, days_ago
        day = (self.now - timedelta(days=days_ago or 0)).date()
        rows = [each for each in self.trades if each.timestamp <= self.now and each.timestamp.date() == day]
        rows.sort(key=lambda each: each.timestamp)
        if cursor is not None:
            known = [index for index, each in enumerate(rows) if each.sequential_id == cursor]
            rows = rows[: known[0]] if known else [each for each in rows if (each.sequential_id or 0) < cursor]
        return rows[::-1][:count]

    def _begin(self, kind: str, to: datetime | None, count: int) -> None:
        with self._lock:
            self.calls.append((kind, to, count))
            fault = self.faults.pop(len(self.calls), None)
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
        self.rate()
        if self.latency:
            time.sleep(self.latency)
        with self._lock:
            self._under_way -= 1
        if fault is not None:
            raise fault


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]
