"""Current means proven: no fault makes an old price pass for the present one."""

from __future__ import annotations

import itertools
import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from tests.support.threads import all_at_once
from tests.support.waiting import promised
from upbit_backbone import (
    ChannelUnavailableError,
    DataSource,
    InvalidRequestError,
    MarketDataBackbone,
    StaleDataError,
    TickerData,
    UpbitBackboneError,
)
from upbit_backbone.simulator import FakeUpbit

Ask = Callable[..., Any]
# Everything ten times as fast as by default.
BRISK = {
    "liveness_seconds": 1.0,
    "ping_interval_seconds": 0.3,
    "pong_timeout_seconds": 0.5,
    "stall_probe_seconds": 0.5,
    "reconnect_cap_seconds": 0.3,
    "rest_max_age_seconds": 0.1,
}
GRACE_SECONDS = 2.0  # what REST shows first may be on its way on the stream
SLACK_SECONDS = 1.0  # a loaded machine
prices = itertools.count(200_000_000, 1000)


def traded(upbit: FakeUpbit, symbol: str = "KRW-BTC") -> int:
    price = next(prices)
    upbit.publish_trade(symbol, price=price)
    return price


def test_a_frozen_line_is_believed_for_no_longer_than_the_bound(streaming: Ask, upbit: FakeUpbit, until: Ask) -> None:
    market = streaming("KRW-BTC", **BRISK)
    upbit.freeze()
    price, frozen_at = traded(upbit), time.monotonic()

    def is_new() -> bool:
        asked_at = time.monotonic()
        is_old = market.get_ticker("KRW-BTC").current_price != price
        assert not is_old or asked_at - frozen_at <= BRISK["liveness_seconds"] + SLACK_SECONDS
        return not is_old

    until(is_new, "the price that REST shows")
    assert market.get_ticker("KRW-BTC").source is DataSource.REST
    upbit.thaw()
    # A line that has proved itself alive may have this trade on its way yet.
    until(
        lambda: (
            (ticker := market.get_ticker("KRW-BTC")).source is DataSource.WEBSOCKET and ticker.current_price == price
        ),
        "the stream is back",
    )


@pytest.mark.parametrize("muted", [None, ["KRW-BTC"]], ids=["all markets", "one market"])
def test_a_silent_stall_is_found_out_by_asking_rest(
    streaming: Ask, upbit: FakeUpbit, until: Ask, muted: list[str] | None
) -> None:
    market = streaming("KRW-BTC", "KRW-ETH", **BRISK)
    lively_until = time.monotonic() + 2.0
    until(lambda: traded(upbit) and traded(upbit, "KRW-ETH") and time.monotonic() > lively_until, "habits are known")
    upbit.mute(muted)
    price = traded(upbit)

    def is_new() -> bool:
        if muted is not None:
            traded(upbit, "KRW-ETH")
        return bool(market.get_ticker("KRW-BTC").current_price == price)

    until(is_new, "the price that REST shows")
    if muted is not None:
        assert market.get_ticker("KRW-ETH").source is DataSource.WEBSOCKET
        assert market.health().sessions[0].reconnects == 0
    upbit.unmute()


@pytest.mark.endurance  # habits are learned in seconds
def test_a_lively_market_that_falls_silent_alone_while_rest_is_away_is_called_current_no_more(
    streaming: Ask, upbit: FakeUpbit, until: Ask
) -> None:
    market = streaming("KRW-BTC", "KRW-ETH", **BRISK)
    lively_until = time.monotonic() + 8.0
    until(lambda: traded(upbit) and traded(upbit, "KRW-ETH") and time.monotonic() > lively_until, "habits are known")
    upbit.rest_fault("*", status=503, times=None, seconds=120.0)
    upbit.mute(["KRW-BTC"])
    traded(upbit)

    def is_marked() -> bool:
        traded(upbit, "KRW-ETH")
        try:
            return bool(market.get_ticker("KRW-BTC", timeout=2.0).degraded)
        except StaleDataError as error:  # with the last known value and its age
            return "KRW-BTC" in str(error)

    until(is_marked, "it is marked")
    assert not market.get_ticker("KRW-ETH").degraded
    assert market.health().sessions[0].reconnects == 0
    upbit.unmute()


def test_old_state_after_a_reconnection_does_not_pass_for_the_present_one(
    streaming: Ask, upbit: FakeUpbit, until: Ask
) -> None:
    market = streaming("KRW-BTC", **BRISK)
    price = traded(upbit)
    until(lambda: market.get_ticker("KRW-BTC").current_price == price, "the trade")
    upbit.stale_timestamps(60_000)
    upbit.close_sessions(1001)
    until(lambda: market.health().sessions[0].reconnects == 1, "the line is back")
    newer = traded(upbit)
    until(lambda: market.get_ticker("KRW-BTC").current_price == newer, "the newest price")
    ticker = market.get_ticker("KRW-BTC")
    assert ticker.source is DataSource.REST


def test_max_age_is_about_the_proof_not_about_the_last_trade(streaming: Ask, upbit: FakeUpbit, wire: Any) -> None:
    upbit.publish_trade("KRW-XRP", price=500)
    market = streaming("KRW-XRP", ping_interval_seconds=0.3)
    assert market.get_ticker("KRW-XRP", max_age=10).source is DataSource.WEBSOCKET
    wire.start_over()
    assert market.get_ticker("KRW-XRP", max_age=0).source is DataSource.REST
    assert market.get_ticker("KRW-XRP", max_age=0).source is DataSource.REST
    assert len(wire.requests) == 2  # an earlier answer is none for max_age=0
    assert market.get_ticker("KRW-XRP", max_age=60).source is DataSource.WEBSOCKET


def test_with_both_channels_down_the_last_known_value_comes_in_the_error(
    streaming: Ask, upbit: FakeUpbit, until: Ask, stopwatch: Ask
) -> None:
    market = streaming("KRW-BTC", "KRW-ETH", **BRISK)
    price = traded(upbit)
    until(lambda: market.get_ticker("KRW-BTC").current_price == price, "the trade")
    upbit.refuse(30, target="all")
    try:
        until(lambda: not market.explain("ticker", "KRW-BTC").rule.startswith("live"), "the line is lost")
        seconds, error = stopwatch(lambda: market.get_ticker("KRW-BTC", timeout=1.0))
        assert isinstance(error, StaleDataError)
        assert error.last_known.current_price == price
        assert 0 < error.age < 30
        assert "KRW-BTC" in str(error)
        assert ".last_known" in str(error)
        assert seconds < promised(1.0)
        seconds, error = stopwatch(lambda: market.get_tickers(["KRW-BTC", "KRW-ETH"], timeout=1.0))
        assert isinstance(error, StaleDataError)
        assert {ticker.symbol for ticker in error.last_known.values()} == {"KRW-BTC", "KRW-ETH"}
        assert seconds < promised(1.0)
        _, error = stopwatch(lambda: market.get_orderbook("KRW-BTC", timeout=0.5))
        assert type(error) is ChannelUnavailableError
        assert error.last_known is None
    finally:
        upbit.refuse(0, target="all")


def test_a_grouped_book_has_a_grouped_one_as_its_last_known(
    backbone: Callable[..., MarketDataBackbone], upbit: FakeUpbit, until: Ask, stopwatch: Ask
) -> None:
    market, level = backbone(**BRISK), Decimal(100_000)
    with market.live_orderbook("KRW-BTC") as whole, market.live_orderbook("KRW-BTC", level=level) as grouped:
        until(lambda: whole.is_current and grouped.is_current, "both books")
        assert whole.book.level == 0
        upbit.refuse(30, target="all")
        try:
            until(lambda: not grouped.is_current, "the line is lost")
            with pytest.raises(StaleDataError) as caught:
                _ = grouped.book
            _, error = stopwatch(lambda: market.get_orderbook("KRW-BTC", level=level, timeout=0.5))
            for last_known in (caught.value.last_known, error.last_known):
                assert last_known.level == level
                assert all(unit.price % level == 0 for unit in (*last_known.asks, *last_known.bids))
        finally:
            upbit.refuse(0, target="all")


def test_no_unproven_value_is_given_as_current_in_a_storm(
    backbone: Callable[..., MarketDataBackbone], own_upbit: Ask
) -> None:
    """Judged by the simulator's own record: an answer may be no older than the proof bound, or it must say so."""
    symbols = ["KRW-BTC", "KRW-ETH", "KRW-XRP"]
    upbit = own_upbit(markets=symbols, trades_per_second=60, rest_limit=100)
    market = backbone(at=upbit, rest_requests_per_second=50, **BRISK)
    held = market.subscribe(symbols)  # noqa: F841
    is_over = threading.Event()
    answers: list[tuple[float, TickerData]] = []
    failures: list[UpbitBackboneError] = []

    def ask(number: int) -> None:
        while not is_over.is_set():
            asked_at = time.time()
            try:
                answers.append((asked_at, market.get_ticker(symbols[number % 3], timeout=2.0)))
            except UpbitBackboneError as error:
                failures.append(error)
            is_over.wait(0.0005)

    def break_things() -> None:
        faults: list[Callable[[], object]] = [
            lambda: upbit.close_sessions(1001),
            lambda: upbit.freeze(1.5),
            lambda: upbit.drop_sessions("rst"),
            lambda: upbit.rest_fault(status=503, times=5),
            lambda: upbit.mute(seconds=2.5),
            lambda: upbit.send_json('{"ty":"ticker","cd":'),
            lambda: (upbit.stale_timestamps(5_000), upbit.close_sessions(1001)),
        ]
        for fault in faults:
            fault()
            is_over.wait(1.2)
        is_over.set()

    outcomes = all_at_once(5, lambda number: ask(number) if number < 4 else break_things())
    assert [outcome for outcome in outcomes if outcome is not None] == []
    assert len(answers) > 10_000
    traded_at = {symbol: [row["trade_timestamp"] for row in upbit.trades(symbol)] for symbol in symbols}
    offset = upbit.now_ms() / 1000 - time.time()
    bound = BRISK["liveness_seconds"] + BRISK["stall_probe_seconds"] + GRACE_SECONDS + SLACK_SECONDS
    stale = [
        (asked_at, ticker)
        for asked_at, ticker in answers
        if not ticker.degraded and is_outdated(ticker, asked_at + offset - bound, traded_at[ticker.symbol])
    ]
    assert stale == []
    assert len(failures) <= len(answers) / 1000


def is_outdated(ticker: TickerData, before: float, traded_at: list[int]) -> bool:
    """Whether the market had traded again after the ticker's trade and before that time."""
    shown = round((ticker.trade_timestamp or ticker.timestamp).timestamp() * 1000)
    following = bisect_right(traded_at, shown)
    return following < len(traded_at) and traded_at[following] <= before * 1000


def test_the_age_of_a_known_value_is_told_in_the_error(streaming: Ask, upbit: FakeUpbit, stopwatch: Ask) -> None:
    market = streaming("KRW-BTC")
    upbit.rest_fault(status=500, times=None)
    _, error = stopwatch(lambda: market.get_ticker("KRW-BTC", strategy="rest_only", timeout=1.0))
    assert isinstance(error, UpbitBackboneError)
    assert error.retryable
    assert market.get_ticker("KRW-BTC").source is DataSource.WEBSOCKET


def test_the_markets_that_are_not_current_are_named(upbit: FakeUpbit, backbone: Ask, until: Ask) -> None:
    market = backbone(**BRISK)
    tickers = market.subscribe(["KRW-BTC", "KRW-ETH"], "ticker")
    trades = market.subscribe("KRW-BTC", "trade")
    until(lambda: not market.stale_symbols(tickers) and not market.stale_symbols(trades), "both are current")
    upbit.handshake_fault(times=None)
    upbit.drop_sessions()
    until(lambda: market.stale_symbols(tickers) == {"KRW-BTC", "KRW-ETH"}, "a cut line makes all of it stale")
    assert market.stale_symbols(trades) == {"KRW-BTC"}
    upbit.clear_faults()
    until(lambda: not market.stale_symbols(tickers) and not market.stale_symbols(trades), "and the recovery current")
    tickers.close()
    assert market.stale_symbols(tickers) == {"KRW-BTC", "KRW-ETH"}
    with pytest.raises(InvalidRequestError, match="subscribe"):
        market.stale_symbols("KRW-BTC")


def test_a_frozen_line_makes_subscriptions_and_candle_series_stale_alike(
    upbit: FakeUpbit, backbone: Ask, until: Ask
) -> None:
    # Neither pings nor pongs end this line while the test runs: that it is silent is all there is to see.
    market = backbone(liveness_seconds=1.0, ping_interval_seconds=60.0, pong_timeout_seconds=60.0)
    trades, series = market.subscribe("KRW-BTC", "trade"), market.candle_series("KRW-BTC", "1m", 5)
    until(lambda: not market.stale_symbols(trades) and not market.stale_symbols(series), "both are current")
    upbit.freeze(target="all")
    until(lambda: market.stale_symbols(trades) and market.stale_symbols(series), "nothing of a silent line is current")
    upbit.thaw()
    until(lambda: not market.stale_symbols(trades) and not market.stale_symbols(series), "and all of it again")
    series.close()
    assert market.stale_symbols(series) == {"KRW-BTC"}


def test_a_line_that_froze_is_no_longer_shown_as_live_while_its_values_still_count_as_current(
    upbit: FakeUpbit, backbone: Ask, until: Ask
) -> None:
    # Neither its lag nor its silence ends anything while the test runs: that it owes an answer is all there is to see.
    market = backbone(liveness_seconds=60.0, max_lag_seconds=60.0, ping_interval_seconds=0.5, pong_timeout_seconds=60.0)
    tickers, trades = market.subscribe("KRW-BTC", "ticker"), market.subscribe("KRW-BTC", "trade")
    series = market.candle_series("KRW-BTC", "1m", 5)
    sources = (tickers, trades, series)
    until(lambda: not any(map(market.stale_symbols, sources)), "all is current")
    upbit.freeze(target="all")
    until(lambda: all(map(market.stale_symbols, sources)), "nothing of a frozen line is shown as live")
    assert market.get_ticker("KRW-BTC").source is DataSource.WEBSOCKET
    upbit.thaw()
    until(lambda: not any(map(market.stale_symbols, sources)), "and all of it again")
