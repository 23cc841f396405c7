"""The line is back and REST is not. Live data flows, nothing is lost, and everything is told."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.chaos.watched import Watched, say
from tests.support.waiting import wait_until
from upbit_backbone import DataType, HealthStatus, MarketDataBackbone
from upbit_backbone.models.events import ConnectionEvent, ConnectionState, GapEvent
from upbit_backbone.simulator import FakeUpbit

MakeUpbit = Callable[..., FakeUpbit]
Backbone = Callable[..., MarketDataBackbone]

SYMBOLS = ["KRW-BTC", "KRW-ETH"]
SILENT_SECONDS = 2.5  # a hold of two seconds, and the way of a frame
OUTAGE_SECONDS = 4.5
TROUBLES: dict[str, dict[str, Any]] = {
    "503": {"status": 503},
    "418": {"status": 418, "headers": {"Retry-After": "4"}},
    "403": {"status": 403},
    "hang": {"mode": "hang"},
    "garbage": {"mode": "garbage"},
    "empty": {"mode": "empty"},
}


class Stamped(list[Any]):
    """Remembers when each item came."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def append(self, item: Any) -> None:
        self.times.append(time.monotonic())
        super().append(item)


def receipts_of(events: list[Any]) -> list[GapEvent]:
    return [event for event in list(events) if isinstance(event, GapEvent)]


def ids_of(items: list[Any]) -> list[tuple[str, int]]:
    return [(item.symbol, item.sequential_id) for item in list(items)]


def is_back(event: object) -> bool:
    return isinstance(event, ConnectionEvent) and event.is_recovery


def everything(server: FakeUpbit, first: list[tuple[str, int]]) -> set[tuple[str, int]]:
    """Every trade from the first one seen of each market on."""
    made = {symbol: [row["sequential_id"] for row in server.trades(symbol)] for symbol in SYMBOLS}
    starts = {symbol: next(number for each, number in first if each == symbol) for symbol in SYMBOLS}
    since = {symbol: ids.index(starts[symbol]) if starts[symbol] in ids else 0 for symbol, ids in made.items()}
    return {(symbol, number) for symbol, ids in made.items() for number in ids[since[symbol] :]}


@pytest.mark.parametrize("trouble", list(TROUBLES))
def test_live_trades_flow_soon_after_the_line_is_back_whatever_rest_does(
    own_upbit: MakeUpbit, backbone: Backbone, trouble: str
) -> None:
    server = own_upbit(seed=61, trades_per_second=40.0, markets=SYMBOLS)
    market = backbone(server)
    seen, strict = Stamped(), Stamped()
    events = Stamped()
    market.on_event(events.append)
    market.subscribe_realtime(SYMBOLS, DataType.TRADE, seen.append)
    market.subscribe_realtime(SYMBOLS, DataType.TRADE, strict.append, gap_order="strict")
    for items in (seen, strict):
        wait_until(lambda items=items: {symbol for symbol, _ in ids_of(items)} == set(SYMBOLS), "both markets")
    server.rest_fault("/v1/*", times=None, seconds=OUTAGE_SECONDS, **TROUBLES[trouble])
    broken_at = time.monotonic()
    server.refuse(1.0)
    wait_until(lambda: seen.times[-1] > broken_at + 1.2, "live data")
    back_at = wait_until(
        lambda: [
            at for at, event in zip(events.times, list(events), strict=False) if at > broken_at and is_back(event)
        ],
        "the line's return to be told",
    )[0]
    wait_until(lambda: market.health().gaps.late, "the health to know of gaps")
    assert market.health().status is not HealthStatus.HEALTHY
    assert any("gap repair" in reason for reason in market.health().reasons)
    wait_until(lambda: time.monotonic() > broken_at + OUTAGE_SECONDS + 0.5, "the outage's end")
    wait_until(lambda: not market.health().gaps.open, "every gap to be filled", 20.0)
    server.pause()
    for items in (seen, strict):  # each from its own first trade on: they did not subscribe in the same moment
        wanted = everything(server, ids_of(items))
        wait_until(
            lambda items=items, wanted=wanted: set(ids_of(items)) >= wanted,
            lambda items=items, wanted=wanted: f"every trade; {len(wanted - set(ids_of(items)))} of {len(wanted)} left",
        )
        assert max(Counter(ids_of(items)).values()) == 1
    live = [at for at, item in zip(seen.times, list(seen), strict=True) if not item.is_backfilled and at > broken_at]
    silence = max(
        later - sooner for sooner, later in itertools.pairwise([back_at, *(at for at in live if at > back_at)])
    )
    say(f"{trouble}: longest silence {silence:.2f} s")
    assert silence <= SILENT_SECONDS
    recovered = sum(item.is_backfilled for item in seen)
    wait_until(lambda: sum(gap.recovered for gap in receipts_of(events)) == recovered, "a receipt for each trade")
    receipts = receipts_of(events)
    assert {gap.symbol for gap in receipts if gap.late} == set(SYMBOLS)
    assert all(gap.complete for gap in receipts)
    for symbol in SYMBOLS:
        in_order = [item.timestamp for item in list(strict) if item.symbol == symbol]
        assert in_order == sorted(in_order)


def test_closing_delivers_what_waits_or_gives_a_receipt_for_it(own_upbit: MakeUpbit, backbone: Backbone) -> None:
    server = own_upbit(seed=62, trades_per_second=100.0, markets=SYMBOLS)
    market = backbone(server, gap_hold_seconds=30.0)
    events: list[Any] = []
    market.on_event(events.append)
    told: list[Any] = []
    subscription = market.subscribe(SYMBOLS, DataType.TRADE, on_event=told.append)
    seen: list[Any] = []
    reader = threading.Thread(target=lambda: seen.extend(iter(subscription)))
    reader.start()
    wait_until(lambda: {symbol for symbol, _ in ids_of(seen)} == set(SYMBOLS), "both markets")
    server.rest_fault("/v1/*", mode="hang", times=None, seconds=60)
    server.refuse(0.5)
    wait_until(lambda: market.health().gaps.parked > 100, "parked trades")
    server.pause()
    market.close()
    reader.join(5.0)
    receipts = receipts_of(events)
    assert {gap.symbol for gap in receipts} == set(SYMBOLS)
    assert receipts_of(told) == receipts
    delivered = set(ids_of(seen))
    for symbol in SYMBOLS:
        rows = [row for row in server.trades(symbol) if (symbol, row["sequential_id"]) not in delivered]
        missing = [row["trade_timestamp"] / 1000 for row in rows]
        first = next(item for item in seen if item.symbol == symbol).timestamp.timestamp()
        gaps = [
            (gap.missing_start.timestamp(), gap.missing_end.timestamp()) for gap in receipts if gap.symbol == symbol
        ]
        untold = [at for at in missing if at > first and not any(low <= at <= high for low, high in gaps)]
        assert untold == []


@pytest.mark.parametrize("refusals", [1, 2, 5])
def test_threads_that_cannot_be_started_delay_a_repair_and_nothing_else(
    own_upbit: MakeUpbit, backbone: Backbone, monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    server = own_upbit(seed=64, trades_per_second=40.0, markets=SYMBOLS)
    seen = Watched(backbone(server), server, SYMBOLS)
    start, refused = threading.Thread.start, itertools.count()

    def start_or_not(thread: threading.Thread) -> None:
        if thread.name.startswith("upbit-job") and next(refused) < refusals:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_not)
    seen.recovers(lambda: server.refuse(1.0))
    wait_until(lambda: seen.of(GapEvent), lambda: seen.reasons())
    for symbol in SYMBOLS:
        balance = seen.balance(symbol)
        assert (balance.lost, balance.doubled) == (0, 0)
    assert next(refused) >= refusals
    assert len(seen.breaks) == 1, "a thread that is not to be had is no reason to drop a line"


@pytest.mark.parametrize("count", [30_000, pytest.param(50_000, marks=pytest.mark.endurance)])
def test_a_burst_of_one_market_arrives_whole(own_upbit: MakeUpbit, backbone: Backbone, count: int) -> None:
    server = own_upbit(seed=63, markets=["KRW-BTC"])
    # A busy machine takes more than ten seconds for these: no reason to take up another line, which is not the subject.
    market = backbone(server, queue_size=100_000, max_lag_seconds=60.0)
    seen = Watched(market, server)
    subscription = market.subscribe("KRW-BTC", DataType.TRADE)
    before = subscription.stats.received
    server.burst("KRW-BTC", count)
    wait_until(lambda: subscription.stats.received >= before + count, lambda: f"{subscription.stats}", 90.0)
    published = [row["sequential_id"] for row in server.trades("KRW-BTC")]
    wait_until(lambda: len(seen.items) >= len(published), "every trade", 30.0)
    made = set(published)
    got = [item.sequential_id for item in seen.items if item.sequential_id in made]
    assert got == published
    assert (subscription.stats.dropped, subscription.stats.lost) == (0, 0)
    assert seen.connections(ConnectionState.WAITING) == []
