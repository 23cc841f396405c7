"""The library explains itself, and its helpers do what they say."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

import upbit_backbone as ub
from upbit_backbone import (
    Channel,
    ChannelDecision,
    DataRequest,
    DataSource,
    DataType,
    InvalidRequestError,
    MarketDataBackbone,
    RequestKind,
    UnknownSymbolError,
)
from upbit_backbone.simulator import FakeUpbit

Ask = Callable[..., Any]


def test_every_answer_can_be_explained_beforehand(streaming: Ask, upbit: FakeUpbit, wire: Any) -> None:
    market = streaming("KRW-BTC", kinds=("ticker", "candle.1m"))
    market.get_ticker("KRW-XRP")
    wire.start_over()
    expected = {
        "live": market.explain("ticker", "KRW-BTC"),
        "rest": market.explain("ticker", "KRW-SOL", max_age=0),
        "cache": market.explain("ticker", "KRW-XRP"),
        "realtime": market.explain(DataType.TICKER, "BTC/KRW", realtime=True, timeout=3),
        "rest-forced": market.explain("orderbook", "KRW-BTC", strategy="rest_only", levels=5),
        "stream-forced": market.explain("orderbook", "KRW-BTC", strategy="websocket_only"),
        "history-joined": market.explain("candles", "KRW-BTC", timeframe="1m", count=200),
        "history": market.explain("candle", "KRW-BTC", timeframe="1d", count=200, fill="forward"),
        "history-cached": market.explain("markets"),
    }
    for rule, decision in expected.items():
        assert isinstance(decision, ChannelDecision)
        assert decision.rule == rule, decision
        assert "\n" not in str(decision)
        assert decision.reason in str(decision)
    assert market.explain("trades", "KRW-BTC").channels == (Channel.REST,)
    assert market.explain(DataType.CANDLE_1M, "KRW-BTC").rule == "history-joined"
    assert str(expected["live"]).startswith("LIVE → REST: stream proven alive")
    assert wire.arrivals == []


def test_explaining_changes_nothing(market: MarketDataBackbone) -> None:
    for _ in range(10):
        assert market.explain("ticker", "KRW-BTC").rule == "rest"


def test_the_router_can_be_asked_and_told_by_its_specified_names(market: MarketDataBackbone, upbit: FakeUpbit) -> None:
    market.get_ticker("KRW-BTC")
    router = market.router
    decision = router.analyze_request(DataRequest(kind=RequestKind.TICKER, symbols=("KRW-BTC",)))
    assert decision.channel is Channel.CACHE
    rest = router.get_performance_metrics()[Channel.REST]
    assert rest.requests - rest.failures == 1  # other tests may have used up the second's requests of the address
    assert rest.success_rate == 1 / rest.requests
    assert router.update_routing_strategy() is False


def test_a_rest_that_is_measured_slow_is_asked_second_until_it_is_well_again(
    market: MarketDataBackbone, upbit: FakeUpbit, stopwatch: Ask
) -> None:
    upbit.rest_fault(status=500, times=24)
    for _ in range(12):
        stopwatch(lambda: market.get_markets(timeout=0.3))
        stopwatch(lambda: market.get_trades("KRW-BTC", 1, timeout=0.3))
    assert market.router.update_routing_strategy() is True
    decision = market.explain("ticker", "KRW-BTC")
    assert decision.rule == "rest-poor"
    assert decision.channel is Channel.WEBSOCKET
    assert market.get_ticker("KRW-BTC").source is DataSource.WEBSOCKET


def test_the_cache_can_be_read_filled_and_emptied(market: MarketDataBackbone, wire: Any) -> None:
    assert market.get_cached_data(("ticker", "KRW-BTC")) is None
    ticker = market.get_ticker("KRW-BTC")
    assert market.get_cached_data(("ticker", "KRW-BTC")) == ticker
    assert market.invalidate_cache("KRW-BTC", "ticker") == 1
    assert market.get_cached_data(("ticker", "KRW-BTC")) is None
    assert market.cache_data(("mine", "anything"), {"answer": 42}, ttl=60) is True
    assert market.get_cached_data(("mine", "anything")) == {"answer": 42}
    market.get_ticker("KRW-BTC")
    assert len(wire.requests) == 2
    assert market.invalidate_cache() > 0
    assert market.get_cached_data(("mine", "anything")) is None


def test_rubbish_in_the_cache_is_no_answer(market: MarketDataBackbone) -> None:
    market.cache_data(("ticker", "KRW-BTC"), "rubbish")
    assert market.get_ticker("KRW-BTC").source is DataSource.REST


def test_live_data_never_comes_from_the_cache(streaming: Ask) -> None:
    market = streaming("KRW-BTC")
    assert market.get_ticker("KRW-BTC").source is DataSource.WEBSOCKET
    assert market.get_cached_data(("ticker", "KRW-BTC")) is None


def test_futures_carry_answers_and_errors(market: MarketDataBackbone) -> None:
    answer = market.submit(market.get_ticker, "KRW-BTC", timeout=10)
    assert isinstance(answer, Future)
    assert answer.result(10).symbol == "KRW-BTC"
    assert isinstance(market.submit(market.get_ticker, "KRW-BTCC").exception(10), UnknownSymbolError)
    assert isinstance(market.submit(market.get_candles, "KRW-BTC", "7m").exception(10), InvalidRequestError)


def test_every_long_lived_object_tells_its_state_in_one_line(streaming: Ask) -> None:
    market = streaming("KRW-BTC")
    subscription = market.subscribe("KRW-ETH")
    series = market.candle_series("KRW-BTC", "1m", 10)
    book = market.live_orderbook("KRW-BTC")
    parts = market._parts
    things = [market, subscription, series, book, parts, *vars(parts).values(), *parts.router._readers.values()]
    ours = [thing for thing in things if type(thing).__module__.startswith("upbit_backbone")]
    assert len(ours) > 25
    for thing in ours:
        text = repr(thing)
        assert "\n" not in text
        assert " object at 0x" not in text, type(thing)
    series.close()
    book.close()


SCRIPT = """
import upbit_backbone as ub
ticker = ub.get_ticker("KRW-BTC", False)
book = ub.get_orderbook("KRW-BTC", 5)
trades = ub.get_trades("KRW-BTC", 3)
candles = ub.get_candles("KRW-BTC", "1m", 3)
tickers = ub.get_tickers(["KRW-BTC", "KRW-ETH"])
markets = ub.get_markets("KRW")
print(ticker.symbol, len(book.asks), len(trades), len(candles), sorted(tickers), markets[0].symbol)
first = ub.shared_backbone()
first.close()
assert ub.get_ticker("KRW-BTC").symbol == "KRW-BTC" and ub.shared_backbone() is not first
"""


def test_a_script_needs_no_object_at_all(upbit: FakeUpbit) -> None:
    environment = {**os.environ, **upbit.environment()}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    assert done.stdout.strip() == "KRW-BTC 5 3 3 ['KRW-BTC', 'KRW-ETH'] KRW-BTC"
    assert done.returncode == 0


def test_settings_come_from_arguments_then_the_environment(upbit: FakeUpbit, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in upbit.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("UPBIT_BACKBONE_TIMEOUT_SECONDS", "7.5")
    with MarketDataBackbone(demote_after_seconds=5) as market:
        assert market.config.rest_url == upbit.rest_url
        assert market.config.timeout_seconds == 7.5
        assert market.config.demote_after_seconds == 5
        assert market.get_ticker("KRW-BTC").symbol == "KRW-BTC"
    assert ub.UnifiedMarketDataAPI is MarketDataBackbone


def test_nothing_is_started_before_the_first_question(backbone: Ask, wire: Any) -> None:
    market = backbone()
    repr(market)
    market.health()
    market.explain("ticker", "KRW-BTC")
    assert wire.arrivals == []


@pytest.mark.parametrize("spelling", ["KRW-BTC", "BTC/KRW", "BTC-KRW"])
def test_spellings_without_doubt_are_understood(market: MarketDataBackbone, spelling: str) -> None:
    assert market.get_ticker(spelling).symbol == "KRW-BTC"
    assert market.get_tickers(spelling)["KRW-BTC"].symbol == "KRW-BTC"


def test_a_recording_is_played_to_its_end_and_its_loops_end(
    streaming: Ask, upbit: FakeUpbit, until: Ask, tmp_path: Any
) -> None:
    market = streaming("KRW-BTC")
    path = tmp_path / "one.upbit"
    recorder = market.record(path)
    prices = [91_000_000 + step * 1000 for step in range(5)]
    subscription = market.subscribe("KRW-BTC", "trade")
    until(lambda: ("trade", "KRW-BTC") in upbit.subscribed(), "subscribed")
    for price in prices:
        upbit.publish_trade("KRW-BTC", price=price)
    while subscription.get(timeout=10).price != prices[-1]:
        pass  # the trade that was there before comes first
    recorder.close()
    market.close()
    with MarketDataBackbone.replay(path) as replayed:
        heard = [trade.price for trade in replayed.subscribe("KRW-BTC", "trade")]
    assert heard[-len(prices) :] == prices


def test_a_queue_of_ones_own_is_filled(market: MarketDataBackbone, upbit: FakeUpbit) -> None:
    mine: queue.Queue[Any] = queue.Queue()
    market.subscribe("KRW-BTC", queue=mine)
    assert mine.get(timeout=10).symbol == "KRW-BTC"
