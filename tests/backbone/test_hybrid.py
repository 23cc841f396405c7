"""The hybrid: REST answers the first question, the stream the later ones, and nobody waits for the change."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.support.waiting import promised
from upbit_backbone import DataSource, DataStrategy, MarketDataBackbone
from upbit_backbone.simulator import FakeUpbit

Ask = Callable[..., Any]
Backbone = Callable[..., MarketDataBackbone]
SLOW = 0.3
PLENTY = 15.0


def test_the_first_answer_takes_one_round_trip(
    market: MarketDataBackbone, upbit: FakeUpbit, wire: Any, stopwatch: Ask
) -> None:
    upbit.set_options(latency=SLOW)
    seconds, ticker = stopwatch(lambda: market.get_ticker("KRW-BTC"))
    assert ticker.source is DataSource.REST
    assert len(wire.requests) == 1
    assert SLOW <= seconds < promised(SLOW + 1.0)


def test_promotion_delays_no_answer(market: MarketDataBackbone, upbit: FakeUpbit, stopwatch: Ask) -> None:
    upbit.handshake_fault("delay", times=None, seconds=5.0)  # a stream that is slow to come
    market.get_ticker("KRW-BTC")
    for _ in range(5):
        seconds, ticker = stopwatch(lambda: market.get_ticker("KRW-BTC"))
        assert ticker.symbol == "KRW-BTC"
        assert seconds < promised(2.0)
    assert "1 of at most" in repr(market.router)


def test_what_nobody_asks_for_any_more_is_not_streamed_any_more(
    backbone: Backbone, upbit: FakeUpbit, until: Ask, is_live: Ask
) -> None:
    market = backbone(demote_after_seconds=1.5)
    for _ in range(3):
        market.get_ticker("KRW-BTC")
        market.get_ticker("KRW-ETH")
    until(lambda: {("ticker", "KRW-BTC"), ("ticker", "KRW-ETH")} <= upbit.subscribed(), "both are streamed")

    def only_one_is_left() -> bool:
        market.get_ticker("KRW-BTC")  # this one stays in use
        return upbit.subscribed() == {("ticker", "KRW-BTC")}

    until(only_one_is_left, "the unused one is dropped, the used one kept")
    assert is_live(market, "ticker", "KRW-BTC")
    until(lambda: not is_live(market, "ticker", "KRW-ETH"), "what is not subscribed is not live")
    assert market.get_ticker("KRW-ETH").source is DataSource.REST


def test_never_more_topics_are_promoted_than_configured(backbone: Backbone, upbit: FakeUpbit, until: Ask) -> None:
    market = backbone(max_promoted_topics=5)
    symbols = [code for code in upbit.markets() if code.startswith("KRW-")][:20]
    for _ in range(4):
        for symbol in symbols:
            market.get_ticker(symbol)
        for symbol in symbols:
            market.get_orderbook(symbol, levels=1)
    until(lambda: len(upbit.subscribed()) == 5, "five are streamed")
    market.get_candles("KRW-BTC", "1m", 2)
    assert len(upbit.subscribed()) == 5


def test_the_threshold_of_promotion_is_the_configured_one(backbone: Backbone) -> None:
    market = backbone(promote_after_questions=5)
    for _ in range(4):
        assert not market.explain("ticker", "KRW-BTC").promote
        market.get_ticker("KRW-BTC", max_age=0)
    assert market.explain("ticker", "KRW-BTC").promote


def test_a_realtime_value_is_newer_than_the_call(streaming: Ask, upbit: FakeUpbit, until: Ask) -> None:
    market = streaming("KRW-BTC")
    asked_at, prices = datetime.now(UTC), iter(range(150_000_000, 200_000_000, 1000))
    answer = market.submit(market.get_ticker, "KRW-BTC", realtime=True, timeout=PLENTY)
    until(lambda: upbit.publish_trade("KRW-BTC", price=next(prices)) and answer.done(), "an answer")
    ticker = answer.result()
    assert ticker.source is DataSource.WEBSOCKET
    assert ticker.received_at >= asked_at
    assert ticker.current_price >= 150_000_000
    assert not ticker.degraded


def test_a_quiet_market_is_answered_by_rest_at_half_the_deadline_and_is_not_degraded(
    streaming: Ask, wire: Any, stopwatch: Ask
) -> None:
    market = streaming("KRW-BTC")
    wire.start_over()
    seconds, ticker = stopwatch(lambda: market.get_ticker("KRW-BTC", realtime=True, timeout=3.0))
    assert ticker.source is DataSource.REST
    assert not ticker.degraded
    assert 1.5 <= seconds < promised(3.0)
    assert wire.paths == ["/v1/ticker"]


def test_a_realtime_value_of_a_symbol_nobody_streams_is_its_first_frame(market: MarketDataBackbone) -> None:
    book = market.get_orderbook("KRW-ETH", realtime=True)
    assert book.source is DataSource.WEBSOCKET
    assert len(book.asks) == 30


def test_the_caller_may_choose_the_channel(streaming: Ask, wire: Any) -> None:
    market = streaming("KRW-BTC")
    for strategy, source in {
        DataStrategy.REST_ONLY: DataSource.REST,
        DataStrategy.PREFER_REST: DataSource.REST,
        DataStrategy.WEBSOCKET_ONLY: DataSource.WEBSOCKET,
        DataStrategy.PREFER_WEBSOCKET: DataSource.WEBSOCKET,
        DataStrategy.CACHE_OK: DataSource.WEBSOCKET,
        "rest_only": DataSource.REST,
    }.items():
        assert market.get_ticker("KRW-BTC", strategy=strategy).source is source, strategy
    assert market.get_ticker("KRW-XRP", strategy="websocket_only").source is DataSource.WEBSOCKET


def test_the_forming_candle_comes_from_the_stream(streaming: Ask, upbit: FakeUpbit, wire: Any, until: Ask) -> None:
    upbit.publish_trade("KRW-BTC", price=140_000_000)
    market = streaming("KRW-BTC", kinds=("candle.60m",))
    rows = market.get_candles("KRW-BTC", "1h", 10)
    assert len(rows) == 10
    wire.start_over()
    upbit.publish_trade("KRW-BTC", price=141_000_000)
    until(lambda: market.get_candles("KRW-BTC", "1h", 10)[-1].close_price == 141_000_000, "the trade in the candle")
    forming = market.get_candles("KRW-BTC", "1h", 10)[-1]
    assert forming.source is DataSource.WEBSOCKET
    assert not forming.is_closed
    assert wire.requests == []
    by_rest = market.get_candles("KRW-BTC", "1h", 10, strategy=DataStrategy.REST_ONLY)
    joined = market.get_candles("KRW-BTC", "1h", 10)
    assert [(row.timestamp, row.close_price, row.volume, row.is_closed) for row in joined] == [
        (row.timestamp, row.close_price, row.volume, row.is_closed) for row in by_rest
    ]


def test_a_minute_that_has_ended_is_closed_though_nobody_has_traded_since(
    own_upbit: Ask, backbone: Backbone, until: Ask
) -> None:
    upbit = own_upbit(markets=["KRW-BTC"])
    market = backbone(at=upbit)
    row = upbit.publish_trade("KRW-BTC", price=99_000_000)
    held = market.subscribe("KRW-BTC", "candle.1s")  # noqa: F841
    until(lambda: market.explain("candle.1s", "KRW-BTC").rule == "history-joined", "the candle is streamed")
    until(lambda: market.get_candles("KRW-BTC", "1s", 3)[-1].is_closed, "the second has ended")
    last = market.get_candles("KRW-BTC", "1s", 3)[-1]
    assert last.close_price == Decimal(row["price"])
    assert last.source is DataSource.WEBSOCKET
    upbit.publish_trade("KRW-BTC", price=99_100_000)
    until(lambda: market.get_candles("KRW-BTC", "1s", 3)[-1].close_price == 99_100_000, "a new second")
    assert market.get_candles("KRW-BTC", "1s", 3)[-2].timestamp == last.timestamp


@pytest.mark.parametrize("count", [1, 2, 200, None])
def test_candles_with_the_live_one_are_exactly_as_many_as_asked(streaming: Ask, count: int | None) -> None:
    market = streaming("KRW-ETH", kinds=("candle.1m",))
    rows = market.get_candles("KRW-ETH", "1m", count)
    assert len(rows) == (200 if count is None else count)
    starts = [row.timestamp for row in rows]
    assert starts == sorted(set(starts))
