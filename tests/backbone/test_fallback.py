"""One channel fails: the other answers at once, says so, and everything recovers by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.waiting import promised
from upbit_backbone import (
    BannedError,
    BreakerEvent,
    ChannelUnavailableError,
    DataSource,
    MarketDataBackbone,
    RateLimitEvent,
    ServerError,
    StaleDataError,
    UpbitBackboneError,
)
from upbit_backbone.simulator import FakeUpbit

Ask = Callable[..., Any]
Backbone = Callable[..., MarketDataBackbone]


@pytest.mark.parametrize(
    "fault", [{"mode": "status", "status": 500}, {"mode": "hang"}, {"mode": "reset"}, {"mode": "html"}]
)
def test_a_failing_rest_is_replaced_by_the_stream(
    backbone: Backbone, own_upbit: Ask, stopwatch: Ask, fault: dict[str, Any]
) -> None:
    upbit = own_upbit(markets=["KRW-BTC", "KRW-ETH"])
    market = backbone(at=upbit)
    upbit.rest_fault(times=None, **fault)
    seconds, ticker = stopwatch(lambda: market.get_ticker("KRW-BTC", timeout=8.0))
    assert ticker.source is DataSource.WEBSOCKET
    assert ticker.degraded
    assert seconds < promised(8.0)
    _, tickers = stopwatch(lambda: market.get_tickers(["KRW-BTC", "KRW-ETH"], timeout=8.0))
    assert {each.source for each in tickers.values()} == {DataSource.WEBSOCKET}
    assert tickers["KRW-ETH"].degraded


def test_a_refusing_rest_is_replaced_by_the_stream(backbone: Backbone, own_upbit: Ask, stopwatch: Ask) -> None:
    upbit = own_upbit(markets=["KRW-BTC"])
    market = backbone(at=upbit)
    upbit.refuse(30, target="rest")
    seconds, book = stopwatch(lambda: market.get_orderbook("KRW-BTC", levels=5))
    assert book.source is DataSource.WEBSOCKET
    assert book.degraded
    assert len(book.asks) == 5
    assert seconds < promised(5.0)


def test_an_open_breaker_sends_questions_to_the_stream_at_once_and_closes_again(
    backbone: Backbone, own_upbit: Ask, stopwatch: Ask, until: Ask
) -> None:
    upbit = own_upbit()
    market = backbone(at=upbit, breaker_reset_seconds=3.0, breaker_failures=3)
    events: list[Any] = []
    market.on_event(events.append)
    market.get_ticker("KRW-BTC")
    upbit.rest_fault("/v1/ticker*", status=500, times=None)
    until(
        lambda: (
            stopwatch(lambda: market.get_ticker("KRW-ETH", strategy="rest_only", max_age=0))[1]
            and market.explain("ticker", "KRW-ETH").rule == "rest-closed"
        ),
        "the breaker opens",
    )
    seconds, ticker = stopwatch(lambda: market.get_ticker("KRW-XRP"))
    assert ticker.source is DataSource.WEBSOCKET
    assert ticker.degraded
    assert seconds < promised(0.0)
    assert market.get_orderbook("KRW-BTC").source is DataSource.REST  # its group has a breaker of its own
    upbit.clear_faults()
    until(lambda: market.explain("ticker", "KRW-SOL").rule != "rest-closed", "the breaker lets a question through")
    until(
        lambda: not isinstance(stopwatch(lambda: market.get_ticker("KRW-SOL", strategy="rest_only"))[1], Exception),
        "REST answers again",
    )
    states = [(event.old, event.new) for event in events if isinstance(event, BreakerEvent)]
    until(lambda: any(isinstance(event, BreakerEvent) for event in events), "listeners heard of it")
    assert states[:1] in ([("closed", "open")], [])


def test_a_lost_stream_is_replaced_by_rest_and_the_answers_say_so(streaming: Ask, upbit: FakeUpbit, until: Ask) -> None:
    market = streaming("KRW-BTC", reconnect_cap_seconds=1.0)
    upbit.refuse(4.0, target="websocket")
    until(lambda: market.explain("ticker", "KRW-BTC").rule == "stream-lost", "the line is lost")
    ticker = market.get_ticker("KRW-BTC")
    assert ticker.source is DataSource.REST
    assert ticker.degraded
    until(lambda: market.get_ticker("KRW-BTC").source is DataSource.WEBSOCKET, "the stream is back")
    assert not market.get_ticker("KRW-BTC").degraded


def test_what_was_never_streamed_is_not_degraded_by_a_stream_that_is_down(backbone: Backbone, own_upbit: Ask) -> None:
    upbit = own_upbit(markets=["KRW-BTC"])
    upbit.refuse(30, target="websocket")
    ticker = backbone(at=upbit).get_ticker("KRW-BTC")
    assert ticker.source is DataSource.REST
    assert not ticker.degraded


def test_a_cold_backbone_without_any_channel_says_so_by_the_deadline(
    backbone: Backbone, own_upbit: Ask, stopwatch: Ask
) -> None:
    upbit = own_upbit(markets=["KRW-BTC"])
    upbit.refuse(30, target="all")
    market = backbone(at=upbit)
    for ask in (
        lambda: market.get_ticker("KRW-BTC", timeout=0.5),
        lambda: market.get_orderbook("KRW-BTC", timeout=0.5),
        lambda: market.get_tickers(["KRW-BTC"], timeout=0.5),
    ):
        seconds, error = stopwatch(ask)
        assert type(error) is ChannelUnavailableError
        assert "KRW-BTC" in str(error)
        assert seconds < promised(0.5)


def test_with_the_breaker_open_and_the_stream_gone_a_question_waits_for_whichever_comes_back(
    backbone: Backbone, own_upbit: Ask, until: Ask, stopwatch: Ask
) -> None:
    upbit = own_upbit(markets=["KRW-BTC", "KRW-ETH"])
    market = backbone(at=upbit, breaker_failures=2, breaker_reset_seconds=5.0)
    market.get_ticker("KRW-BTC")
    upbit.refuse(30, target="websocket")
    held = market.subscribe("KRW-BTC")  # noqa: F841
    until(lambda: market.explain("ticker", "KRW-BTC", max_age=0).rule == "stream-lost", "the stream cannot connect")
    upbit.rest_fault("/v1/ticker*", status=500, times=2)
    until(
        lambda: (
            stopwatch(lambda: market.get_ticker("KRW-ETH", strategy="rest_only", max_age=0, timeout=0.3))[1]
            and market.explain("ticker", "KRW-BTC", max_age=0).rule == "both-closed"
        ),
        "both are closed",
    )
    seconds, ticker = stopwatch(lambda: market.get_ticker("KRW-BTC", max_age=0))
    assert ticker.source is DataSource.REST
    assert ticker.degraded
    assert seconds < promised(5.0)


def test_a_ban_stops_every_part_of_every_backbone_until_its_end(
    backbone: Backbone, own_upbit: Ask, stopwatch: Ask, until: Ask
) -> None:
    upbit = own_upbit()
    first, second = backbone(at=upbit), backbone(at=upbit)
    events: list[Any] = []
    second.on_event(events.append)
    first.get_ticker("KRW-BTC")
    upbit.ban(60.0)
    seconds, error = stopwatch(lambda: first.get_orderbook("KRW-BTC"))
    assert isinstance(error, BannedError)
    assert error.until is not None
    assert 0 < error.retry_after <= 60
    assert seconds < promised(0.0)
    log = upbit.wire_log(limit=1_000_000)
    since, banned_at = log[-1]["n"], time.monotonic()
    questions: list[Callable[[], Any]] = [
        lambda: first.get_trades("KRW-BTC", 1),
        lambda: second.get_candles("KRW-BTC", "1m", 1),
        lambda: second.get_ticker("KRW-ETH"),
        lambda: backbone(at=upbit).get_markets(),
        lambda: first.get_orderbook("KRW-BTC", strategy="rest_only"),
        lambda: second.get_ticker("KRW-ETH", realtime=True),
        lambda: first.get_tickers(["KRW-BTC", "KRW-SOL"], max_age=0),
    ]
    while time.monotonic() < banned_at + 1.0:
        for ask in questions:
            seconds, outcome = stopwatch(ask)
            assert isinstance(outcome, BannedError | StaleDataError), outcome
            assert "block" in str(outcome)
            assert seconds < promised(0.0)
    entries = upbit.wire_log(since=since, limit=1_000_000)
    assert [entry for entry in entries if entry["kind"] in ("request", "handshake")] == []
    assert any(isinstance(event, RateLimitEvent) and event.banned for event in events)
    assert first.explain("ticker", "KRW-ADA", max_age=0).rule == "banned"


def test_after_a_ban_everything_goes_on(backbone: Backbone, own_upbit: Ask, stopwatch: Ask, until: Ask) -> None:
    upbit = own_upbit(markets=["KRW-BTC"], retry_after=True)
    market = backbone(at=upbit)
    upbit.ban(2.0)
    _, error = stopwatch(lambda: market.get_ticker("KRW-BTC"))
    assert isinstance(error, BannedError)
    until(lambda: not isinstance(stopwatch(lambda: market.get_ticker("KRW-BTC"))[1], UpbitBackboneError), "an answer")
    refused = [request for request in upbit.requests() if request["status"] == 418]
    assert len(refused) <= 2  # the one that was told, and at most the probe at the end


def test_live_answers_go_on_during_a_ban(
    backbone: Backbone, own_upbit: Ask, until: Ask, is_live: Ask, stopwatch: Ask
) -> None:
    upbit = own_upbit(markets=["KRW-BTC", "KRW-ETH"])
    market = backbone(at=upbit)
    held = market.subscribe("KRW-BTC")  # noqa: F841
    until(lambda: is_live(market, "ticker", "KRW-BTC"), "live")
    upbit.ban(30.0)
    _, error = stopwatch(lambda: market.get_trades("KRW-BTC", 1))
    assert isinstance(error, BannedError)
    assert market.get_ticker("KRW-BTC").source is DataSource.WEBSOCKET


def test_a_line_that_breaks_in_a_ban_of_rest_comes_back_and_everybody_is_told_what_goes_on(
    backbone: Backbone, own_upbit: Ask, until: Ask, is_live: Ask, stopwatch: Ask
) -> None:
    upbit = own_upbit(markets=["KRW-BTC"])
    market = backbone(at=upbit)
    held = market.subscribe("KRW-BTC")  # noqa: F841
    until(lambda: is_live(market, "ticker", "KRW-BTC"), "live")
    upbit.rest_fault("/v1/*", status=418, times=None, headers={"Retry-After": "60"})
    _, error = stopwatch(lambda: market.get_trades("KRW-BTC", 1))
    assert isinstance(error, BannedError)
    seconds, _ = stopwatch(lambda: (upbit.drop_sessions("fin"), until(lambda: upbit.subscribed(), "a new line")))
    assert seconds < promised(1.0)
    until(lambda: is_live(market, "ticker", "KRW-BTC"), "live again")
    assert market.get_ticker("KRW-BTC").source is DataSource.WEBSOCKET
    words = "one that breaks tries to connect once a second"
    assert words in str(market.explain("ticker", "KRW-BTC", strategy="rest_only"))
    assert any(words in reason for reason in market.health().reasons)
    upbit.handshake_fault("status", status=418, times=None)
    upbit.drop_sessions("fin")
    words = "one that breaks waits, because a handshake was refused, too"
    until(lambda: any(words in reason for reason in market.health().reasons), words)
    assert words in str(market.explain("ticker", "KRW-BTC", strategy="rest_only"))


def test_the_error_of_a_forced_channel_is_that_channels_own(backbone: Backbone, own_upbit: Ask, stopwatch: Ask) -> None:
    upbit = own_upbit(markets=["KRW-BTC"])
    market = backbone(at=upbit)
    market.get_ticker("KRW-BTC")
    upbit.rest_fault(status=500, times=None)
    _, error = stopwatch(lambda: market.get_ticker("KRW-BTC", strategy="rest_only", max_age=0))
    assert isinstance(error, ServerError | ChannelUnavailableError)
    assert error.retryable
