"""Upbit's own rules, and what its data can do without anything being broken."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from tests.chaos.watched import Watched, say
from tests.support.waiting import PAUSE, promised, wait_until
from upbit_backbone import DataSource, MarketDataBackbone
from upbit_backbone._concurrency import Deadline, join_all, spawn
from upbit_backbone.backfill import gap_repair
from upbit_backbone.delivery.subscription import Subscription
from upbit_backbone.errors import UnknownSymbolError
from upbit_backbone.models.events import GapEvent, SubscriptionEvent
from upbit_backbone.models.market import TradeData
from upbit_backbone.simulator import FakeUpbit

Watch = Callable[..., Watched]
MakeUpbit = Callable[..., FakeUpbit]
Backbone = Callable[..., MarketDataBackbone]

KINDS = ["ticker", "trade", "orderbook", "candle.1m"]
SYMBOLS = ["KRW-BTC", "KRW-ETH", "KRW-XRP", "KRW-SOL"]
AGREED_SECONDS = 2.5  # the aim is 1.1 s on a machine of one's own


def moment(trade: TradeData) -> float:
    return trade.timestamp.timestamp() * 1000


@pytest.mark.parametrize("seed", [7, 8])
def test_the_set_on_the_wire_is_the_union_of_what_32_threads_hold(
    backbone: Backbone, quiet: FakeUpbit, seed: int
) -> None:
    say(f"seed {seed}")
    market = backbone(quiet)
    seen = Watched(market, quiet)
    held: list[tuple[Subscription, tuple[str, str]]] = []  # whose last reference went would end
    before = len(seen.messages())
    began = time.monotonic()

    def one(number: int) -> None:
        chance = random.Random(seed * 1000 + number)
        mine: list[tuple[Subscription, tuple[str, str]]] = []
        for _ in range(16):
            if mine and chance.random() < 0.5:
                mine.pop(chance.randrange(len(mine)))[0].close()
            else:
                kind, symbol = chance.choice(KINDS), chance.choice(SYMBOLS)
                mine.append((market.subscribe(symbol, kind), (kind, symbol)))
        held.extend(mine)

    threads = [spawn(partial(one, number), f"test-subscriber-{number}") for number in range(32)]
    assert join_all(threads, Deadline.after(20)) == []
    took = time.monotonic() - began
    requested = {request for _, request in held} | {("trade", "KRW-BTC")}
    agreed = time.monotonic()
    wait_until(
        lambda: quiet.subscribed() == requested, lambda: f"{quiet.subscribed() ^ requested}", promised(AGREED_SECONDS)
    )
    sent = seen.messages()[before:]
    say(f"512 changes in {took:.2f} s: {len(sent)} messages, agreed {time.monotonic() - agreed:.3f} s after the last")
    assert len(sent) <= 2 + 3 * (took + 1)
    (connection,) = {message["conn"] for message in sent}
    assert quiet.busiest("message", conn=connection) <= 5


def test_after_a_break_one_message_restores_the_identical_set(watch: Watch, upbit: FakeUpbit) -> None:
    seen = watch(upbit, SYMBOLS, KINDS)
    wait_until(lambda: len(upbit.subscribed()) == 16, "the whole set")
    requested = upbit.subscribed()
    PAUSE.wait(0.6)  # beyond the pause between two messages
    for _ in range(3):
        before = len(seen.messages())
        seen.recovers(lambda: upbit.close_sessions(1001))
        PAUSE.wait(0.2)
        assert upbit.subscribed() == requested
        assert len(seen.messages()) == before + 1
    assert '"codes":[]' not in str(seen.messages()).replace(" ", "")
    assert seen.is_whole(*SYMBOLS)


@pytest.mark.parametrize("outage", [0.0, 2.0])
def test_what_happened_during_a_break_is_delivered_with_a_receipt(
    watch: Watch, upbit: FakeUpbit, outage: float
) -> None:
    seen = watch(upbit, SYMBOLS[:2])
    if outage:
        seen.recovers(lambda: upbit.refuse(outage))
    else:
        seen.recovers(lambda: upbit.drop_sessions("fin"))
    assert seen.is_whole(*SYMBOLS[:2])
    receipts = seen.receipts(*SYMBOLS[:2]) if outage else seen.of(GapEvent)
    assert all(gap.complete and gap.start <= gap.end for gap in receipts)
    if outage:
        filled = {s: sum(t.is_backfilled for t in seen.trades(s)) for s in SYMBOLS[:2]}
        assert filled == {gap.symbol: gap.recovered for gap in receipts}


def test_a_gap_over_utc_midnight_is_filled_from_both_days(own_upbit: MakeUpbit, backbone: Backbone) -> None:
    server = own_upbit(seed=41, trades_per_second=40.0, start_time="2026-11-20T23:59:57Z")
    seen = Watched(backbone(server), server, ["KRW-BTC"])
    midnight = datetime(2026, 11, 21, tzinfo=UTC).timestamp() * 1000
    assert server.now_ms() < midnight, "too late for this test"
    took = seen.recovers(lambda: server.refuse(3.0 + max(0.0, (midnight - server.now_ms()) / 1000 - 1.5)))
    say(f"over midnight: {took:.3f} s")
    assert seen.is_whole()
    (gap,) = seen.receipts()
    assert gap.complete
    assert gap.start.day == 20
    assert gap.end.day == 21


def test_a_gap_that_rest_cannot_fill_is_told_with_its_bounds(
    own_upbit: MakeUpbit, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a market is gone is believed after two minutes, here one second: the stream has just shown it."""
    monkeypatch.setattr(gap_repair, "BEHIND_SECONDS", 1.0)
    server = own_upbit(seed=42, trades_per_second=40.0)
    seen = Watched(backbone(server), server, ["KRW-BTC"])
    gone = '{"error":{"name":404,"message":"Code not found"}}'
    server.rest_fault("/v1/trades/*", status=404, times=None, body=gone, seconds=60)
    server.refuse(1.0)
    assert_told_what_is_missing(seen, server)


def test_rest_that_fails_until_patience_ends_costs_the_gap_and_not_the_stream(
    own_upbit: MakeUpbit, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patience is an hour, here two seconds; REST is asked again and again until then."""
    monkeypatch.setattr(gap_repair, "PATIENCE_SECONDS", 2.0)
    server = own_upbit(seed=43, trades_per_second=40.0)
    seen = Watched(backbone(server), server, ["KRW-BTC"])
    server.rest_fault("/v1/trades/*", status=503, times=None, seconds=60)
    server.refuse(0.5)
    wait_until(lambda: seen.reconnects, "the line")
    back_at = time.monotonic()
    gap = assert_told_what_is_missing(seen, server)
    assert time.monotonic() - back_at > 1.0, "given up at once"
    assert "503" in gap.reason or "failed again and again" in gap.reason
    assert len(server.requests(path="/v1/trades/ticks")) >= 2


def assert_told_what_is_missing(seen: Watched, server: FakeUpbit) -> GapEvent:
    """The receipt's bounds hold all that is missing, and the stream goes on."""
    wait_until(lambda: seen.of(GapEvent), "the receipt")
    (gap,) = seen.of(GapEvent)
    seen.flows()
    assert not gap.complete
    assert gap.reason
    assert gap.missing_start is not None
    assert gap.missing_end is not None
    ours = seen.trades("KRW-BTC")
    got = {trade.sequential_id for trade in ours}
    first, newest = (moment(trade) for trade in (ours[0], max(ours, key=moment)))
    made = [row for row in server.trades("KRW-BTC") if first < row["trade_timestamp"] < newest - 1]
    missing = [row for row in made if row["sequential_id"] not in got]
    assert missing, "nothing was missing"
    low, high = gap.missing_start.timestamp() * 1000 - 1, gap.missing_end.timestamp() * 1000 + 1
    assert all(low <= row["trade_timestamp"] <= high for row in missing)
    return gap


def test_doubled_replayed_and_shuffled_trades_come_once_each(watch: Watch, upbit: FakeUpbit) -> None:
    seen = watch(upbit)
    upbit.duplicate_trades(True)
    upbit.shuffle_trades(0.4)
    PAUSE.wait(1.0)
    upbit.replay_trades("KRW-BTC", 10)
    seen.recovers(lambda: upbit.drop_sessions("rst"))
    upbit.replay_trades("KRW-BTC", 10)
    PAUSE.wait(0.6)
    upbit.shuffle_trades(0.0)
    upbit.duplicate_trades(False)
    PAUSE.wait(0.5)
    balance = seen.balance()
    assert (balance.lost, balance.doubled) == (0, 0), balance
    assert balance.made > 30


def test_older_state_is_never_delivered_after_newer(watch: Watch, upbit: FakeUpbit) -> None:
    seen = watch(upbit, SYMBOLS, ["ticker", "orderbook"], healthy_after_seconds=0.01)
    upbit.stale_timestamps(1_500)
    PAUSE.wait(0.5)
    upbit.stale_timestamps(0)
    PAUSE.wait(0.3)
    upbit.drop_sessions("fin")
    seen.flows(more=20)
    newest: dict[tuple[str, str], Any] = {}
    for item in list(seen.items):
        key = type(item).__name__, item.symbol
        assert key not in newest or newest[key] <= item.timestamp, key
        newest[key] = item.timestamp
    assert len(newest) == 8


def test_a_corrected_candle_replaces_the_one_before(own_upbit: MakeUpbit, backbone: Backbone) -> None:
    server = own_upbit(seed=43, start_time="2026-11-20T10:00:40Z")
    market = backbone(server)
    server.publish_trade("KRW-BTC", price=130_000_000)
    seen = Watched(market, server, ["KRW-BTC"], ["candle.1m"], overflow="drop_oldest")
    server.publish_trade("KRW-BTC", price=131_000_000)
    server.advance_clock(60)
    server.publish_trade("KRW-BTC", price=132_000_000)
    wait_until(lambda: len({candle.timestamp for candle in seen.items}) == 2, "two candles")
    for ago in (1, 0, 1):
        server.repeat_candle("KRW-BTC", "candle.1m", ago)
    PAUSE.wait(0.3)
    last = {candle.timestamp: candle for candle in list(seen.items)}
    assert len(last) == 2, "a candle was invented, or one has two keys"
    rest = {candle.timestamp: candle for candle in market.get_candles("KRW-BTC", "1m", 5)}
    for start, candle in last.items():
        ours, theirs = candle, rest[start]
        assert (ours.open_price, ours.high_price, ours.low_price, ours.close_price, ours.volume) == (
            theirs.open_price, theirs.high_price, theirs.low_price, theirs.close_price, theirs.volume)  # fmt: skip


def test_an_unknown_market_is_refused_before_the_wire_and_spoils_nothing(watch: Watch, quiet: FakeUpbit) -> None:
    seen = watch(quiet)
    messages = len(seen.messages())
    with pytest.raises(UnknownSymbolError, match="KRW-NOPE"):
        seen.market.subscribe(["KRW-ETH", "KRW-NOPE"])
    with pytest.raises(UnknownSymbolError, match="KRW-NOPE"):
        seen.market.get_tickers(["KRW-ETH", "KRW-NOPE"])
    PAUSE.wait(0.2)
    assert len(seen.messages()) == messages
    assert seen.market.get_tickers(["KRW-ETH"]).keys() == {"KRW-ETH"}


def test_a_delisted_market_is_told_and_the_others_live(own_upbit: MakeUpbit, backbone: Backbone) -> None:
    server = own_upbit(seed=44, trades_per_second=40.0)
    market = backbone(server, first_frame_seconds=0.5)
    seen = Watched(market, server, SYMBOLS, ["trade"])
    wait_until(lambda: {item.symbol for item in seen.items} == set(SYMBOLS), "all markets")
    server.delist("KRW-XRP")
    seen.recovers(lambda: server.drop_sessions("fin"))
    wait_until(
        lambda: any("KRW-XRP" in str(event.topics) for event in seen.of(SubscriptionEvent)), "the news", promised(6.0)
    )
    assert seen.is_whole("KRW-BTC", "KRW-ETH", "KRW-SOL")
    assert market.get_tickers(quote="KRW").keys() == set(SYMBOLS) - {"KRW-XRP"}


def test_a_silent_market_does_not_let_the_connection_idle_away(own_upbit: MakeUpbit, backbone: Backbone) -> None:
    server = own_upbit(seed=45, idle_seconds=0.8)
    server.publish_trade("KRW-BTC")
    seen = Watched(backbone(server, ping_interval_seconds=0.3), server)
    PAUSE.wait(2.0)
    trade = server.publish_trade("KRW-BTC")
    seen.arrives(trade)
    assert seen.breaks == []
    assert seen.market.get_ticker("KRW-BTC").source in (DataSource.REST, DataSource.WEBSOCKET)
    assert threading.active_count() < 40
