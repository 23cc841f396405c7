"""`subscribe(…, since=)`: the past, then what is live, each once and in order, whatever the line does meanwhile."""

from __future__ import annotations

import gc
import queue
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.waiting import wait_until
from upbit_backbone import DataType, InvalidRequestError, MarketDataBackbone, Subscription, TradeData
from upbit_backbone.models.events import GapEvent
from upbit_backbone.simulator import FakeUpbit

MakeUpbit = Callable[..., FakeUpbit]
Backbone = Callable[..., MarketDataBackbone]

TODAY = datetime(2026, 3, 2, tzinfo=UTC)
# Early in Upbit's day, which has trades before the simulator began all the same; far from the next midnight.
START = "2026-03-02T02:00:00Z"
BTC, ETH = "KRW-BTC", "KRW-ETH"


@pytest.fixture
def server(own_upbit: MakeUpbit) -> FakeUpbit:
    return own_upbit(seed=71, markets=[BTC, ETH], start_time=START)


@pytest.fixture
def market(server: FakeUpbit, backbone: Backbone) -> MarketDataBackbone:
    # Every break is a first break, and nobody waits for long; but what is live waits for a repair however slow the
    # machine, since these tests want everything in order.
    found = backbone(at=server, healthy_after_seconds=0.01, reconnect_cap_seconds=0.5, gap_hold_seconds=60.0)
    found.get_markets()  # tells Upbit's time, which is not ours
    return found


def received(subscription: Subscription[Any], until: int, symbol: str = BTC) -> list[TradeData]:
    """What comes, up to the trade of that id."""
    items: list[TradeData] = []
    while not items or (items[-1].symbol, items[-1].sequential_id) != (symbol, until):
        items.append(subscription.get(timeout=30.0))
    return items


def ids(items: list[TradeData], symbol: str = BTC) -> list[int | None]:
    return [item.sequential_id for item in items if item.symbol == symbol]


def receipts(events: list[Any], name: str) -> list[GapEvent]:
    return [event for event in list(events) if isinstance(event, GapEvent) and event.subscription == name]


def cut_when_asked(server: FakeUpbit, how: Callable[[], object]) -> None:
    """Cut the line once REST was asked for the past, which is not there yet."""
    wait_until(lambda: server.requests("/v1/trades/ticks"), "a page of the past")
    how()


def test_trades_since_today_come_whole_and_once_over_cut_lines(server: FakeUpbit, market: MarketDataBackbone) -> None:
    server.burst(BTC, 2_600)  # six pages
    server.set_options(latency=0.05)
    server.set_rate(60.0)
    events: list[Any] = []
    market.on_event(events.append)
    with market.subscribe([BTC, ETH], "trade", since="today") as trades:
        cut_when_asked(server, lambda: server.close_sessions(1001))
        items = [trades.get(timeout=30.0) for _ in range(2_700)]
        server.drop_sessions("rst")
        wait_until(lambda: len([each for each in events if getattr(each, "is_recovery", False)]) >= 2, "two recoveries")
        items += [trades.get(timeout=30.0) for _ in range(50)]
        server.pause()
        last = server.publish_trade(BTC)["sequential_id"]
        items += received(trades, last)
        wait_until(lambda: len(receipts(events, trades.id)) == 2, "a receipt for each market")
        assert all(receipt.complete for receipt in receipts(events, trades.id))
    server.set_options(latency=0.0)
    assert ids(items) == [each.sequential_id for each in market.get_trades(BTC, since=TODAY)]
    others = [each.sequential_id for each in market.get_trades(ETH, since=TODAY)]
    assert ids(items, ETH) == others[: len(ids(items, ETH))]
    assert items[0].is_backfilled
    assert not items[-1].is_backfilled


@pytest.mark.parametrize("outage", [{"status": 503}, {"mode": "reset"}, {"mode": "empty"}])
def test_the_past_is_waited_for_while_rest_fails(
    server: FakeUpbit, market: MarketDataBackbone, outage: dict[str, Any]
) -> None:
    server.burst(BTC, 700)
    server.rest_fault("/v1/trades/*", times=1, **outage)
    with market.subscribe(BTC, "trade", since=TODAY) as trades:
        wait_until(lambda: [each for each in server.requests("/v1/trades/ticks") if each["fault"]], "a failure")
        last = server.publish_trade(BTC)["sequential_id"]
        items = received(trades, last)
    assert ids(items) == [each.sequential_id for each in market.get_trades(BTC, since=TODAY)]


def test_a_program_goes_on_behind_the_last_trade_it_had(server: FakeUpbit, market: MarketDataBackbone) -> None:
    server.burst(BTC, 20)
    with market.subscribe(BTC, "trade") as trades:
        had = trades.get(timeout=30.0).sequential_id
    assert had is not None
    server.burst(BTC, 1_200)  # while nobody listens
    missed = [each.sequential_id for each in market.get_trades(BTC, since=TODAY)]
    with market.subscribe(BTC, "trade", since=had) as trades:
        last = server.publish_trade(BTC)["sequential_id"]
        items = received(trades, last)
    assert ids(items) == [*missed[missed.index(had) + 1 :], last]


def test_the_last_trade_a_program_had_does_not_come_again(server: FakeUpbit, market: MarketDataBackbone) -> None:
    with market.subscribe(BTC, "trade") as trades:
        had = trades.get(timeout=30.0).sequential_id
    assert had is not None
    with market.subscribe(BTC, "trade", since=had) as trades:
        wait_until(lambda: ("trade", BTC) in server.subscribed(), "the subscription")
        made = [server.publish_trade(BTC)["sequential_id"] for _ in range(3)]
        assert ids(received(trades, made[-1])) == made


def test_a_position_outlasts_the_program(server: FakeUpbit, market: MarketDataBackbone, backbone: Backbone) -> None:
    with market.subscribe([BTC, ETH], "trade") as trades:
        items = [trades.get(timeout=30.0)]
        for symbol in (BTC, ETH, BTC):
            items += received(trades, server.publish_trade(symbol)["sequential_id"], symbol)
        position = trades.position
    market.close()
    server.pause()
    missed = [server.publish_trade(symbol)["sequential_id"] for symbol in (BTC, ETH) for _ in range(300)]
    later = backbone(at=server)
    later.get_markets()
    with later.subscribe([BTC, ETH], [DataType.TRADE, DataType.TICKER], since=position) as both:
        assert both.position == position
        found = [both.get(timeout=30.0) for _ in range(600)]
        while len(trades_of(found)) < 600:
            found.append(both.get(timeout=30.0))
        behind = both.position
    assert {item.sequential_id for item in trades_of(found)} == set(missed)
    for symbol in (BTC, ETH):
        assert ids(trades_of(found), symbol) == sorted(ids(trades_of(found), symbol))
    with later.subscribe([BTC, ETH], "trade", since=behind) as trades:
        last = server.publish_trade(ETH)["sequential_id"]
        assert ids(received(trades, last, ETH), ETH) == [last]


def trades_of(items: list[Any]) -> list[TradeData]:
    return [item for item in items if isinstance(item, TradeData)]


def test_the_position_of_other_markets_is_refused(market: MarketDataBackbone) -> None:
    with pytest.raises(InvalidRequestError, match="another subscription"):
        market.subscribe(BTC, "trade", since="position-1 trade:KRW-ETH=1@1")
    with pytest.raises(InvalidRequestError, match="position-1"):
        market.subscribe(BTC, "trade", since="position-7 trade:KRW-BTC=1@1")


def test_what_upbit_no_longer_keeps_has_a_receipt(server: FakeUpbit, market: MarketDataBackbone) -> None:
    events: list[Any] = []
    market.on_event(events.append)
    since = TODAY - timedelta(days=30)
    with market.subscribe(BTC, "trade", since=since) as trades:
        wait_until(lambda: receipts(events, trades.id), "a receipt")
        first = trades.get(timeout=30.0)
    (receipt,) = receipts(events, trades.id)
    assert (receipt.start, receipt.complete, receipt.missing_start) == (since, False, since)
    assert "7 days" in receipt.reason
    assert receipt.missing_end is not None
    assert first.timestamp <= receipt.missing_end <= TODAY - timedelta(days=6)


def test_an_id_that_upbit_does_not_know_has_a_receipt(server: FakeUpbit, market: MarketDataBackbone) -> None:
    events: list[Any] = []
    with market.subscribe(BTC, "trade", since=1, on_event=events.append) as trades:
        wait_until(lambda: receipts(events, trades.id), "a receipt")
    assert [receipt.complete for receipt in receipts(events, trades.id)] == [False]


def test_the_past_is_for_the_one_who_asked_for_it_and_outside_its_bound(
    server: FakeUpbit, market: MarketDataBackbone
) -> None:
    server.burst(BTC, 900)
    events: list[Any] = []
    with market.subscribe(BTC, "trade", on_event=events.append) as others:
        others.get(timeout=30.0)
        with market.subscribe(BTC, "trade", since="today", maxsize=10) as trades:
            first = trades.get(timeout=30.0)
            wait_until(lambda: trades.queue.qsize() > 800, "the past")
            last = server.publish_trade(BTC)["sequential_id"]
            items = [first, *received(trades, last)]
            assert trades.stats.dropped == 0
        assert others.get(timeout=30.0).sequential_id == last
        assert receipts(events, trades.id) == []
    assert ids(items) == [each.sequential_id for each in market.get_trades(BTC, since=TODAY)]


def test_candles_since_a_time_are_those_of_rest_and_then_the_live_one(
    server: FakeUpbit, market: MarketDataBackbone
) -> None:
    server.publish_trade(BTC)
    since = TODAY - timedelta(hours=3, seconds=30)
    told = market.get_candles(BTC, "1m", start=since - timedelta(minutes=1), strategy="rest_only")
    past = [each for each in told if each.is_closed and each.timestamp >= since - timedelta(seconds=30)]
    with market.subscribe(BTC, DataType.CANDLE_1M, since=since) as candles:
        items = [candles.get(timeout=30.0) for _ in range(len(past) + 1)]
        price = items[-1].close_price + 1000
        server.publish_trade(BTC, price=price)
        while items[-1].close_price != price:
            items.append(candles.get(timeout=30.0))
    assert items[: len(past)] == past
    assert all(item.is_backfilled for item in items[: len(past)])
    assert {item.timestamp for item in items[len(past) :]}.isdisjoint({item.timestamp for item in past})


@pytest.mark.parametrize(
    ("symbols", "types", "since", "word"),
    [
        (BTC, "ticker", "today", "no past"),
        (BTC, ["trade", "orderbook"], TODAY, "no past"),
        ([BTC, ETH], "trade", 17951516403650000, "one market"),
        (BTC, "1m", 17951516403650000, "one market"),
        (BTC, "trade", datetime(2026, 3, 2), "zone"),
        (BTC, "trade", "yesterday", "today"),
        (BTC, "trade", True, "since"),
        (BTC, "trade", datetime(2100, 1, 1, tzinfo=UTC), "yet to come"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(
    market: MarketDataBackbone, symbols: Any, types: Any, since: Any, word: str
) -> None:
    with pytest.raises(InvalidRequestError, match=word):
        market.subscribe(symbols, types, since=since)


def test_closing_before_the_past_has_come_ends_it(server: FakeUpbit, market: MarketDataBackbone) -> None:
    server.rest_fault("/v1/trades/*", status=503, times=None, seconds=60)
    events: list[Any] = []
    market.on_event(events.append)
    trades = market.subscribe(BTC, "trade", since="today")
    wait_until(lambda: server.requests("/v1/trades/ticks"), "a page of the past")
    with pytest.raises(queue.Empty):
        trades.get(timeout=0.0)
    trades.close()
    (receipt,) = wait_until(lambda: [each for each in list(events) if isinstance(each, GapEvent)], "a receipt")
    assert (receipt.subscription, receipt.complete) == (trades.id, False)


def test_a_subscription_that_nobody_holds_any_more_ends_with_its_past(
    server: FakeUpbit, market: MarketDataBackbone
) -> None:
    server.rest_fault("/v1/trades/*", status=503, times=None, seconds=60)
    trades = market.subscribe(BTC, "trade", since="today")
    wait_until(lambda: server.requests("/v1/trades/ticks"), "a page of the past")
    del trades
    gc.collect()
    wait_until(lambda: market._parts._backlogs.get().stats().open == 0, "the end of its repair")
    assert not market._parts.hub.has_subscribers
