"""Every blocking call ends by its deadline, whatever the servers do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.threads import all_at_once
from tests.support.waiting import promised
from upbit_backbone import MarketDataBackbone, UpbitBackboneError
from upbit_backbone.simulator import FakeUpbit

Ask = Callable[..., Any]
TIMEOUT = 0.6

QUESTIONS: dict[str, Callable[[MarketDataBackbone, float], Any]] = {
    "get_ticker": lambda market, timeout: market.get_ticker("KRW-BTC", timeout=timeout),
    "get_ticker realtime": lambda market, timeout: market.get_ticker("KRW-BTC", realtime=True, timeout=timeout),
    "get_ticker by REST": lambda market, timeout: market.get_ticker("KRW-BTC", strategy="rest_only", timeout=timeout),
    "get_ticker by stream": lambda market, timeout: market.get_ticker(
        "KRW-BTC", strategy="websocket_only", timeout=timeout
    ),
    "get_tickers": lambda market, timeout: market.get_tickers(["KRW-BTC", "KRW-ETH"], timeout=timeout),
    "get_tickers of a quote": lambda market, timeout: market.get_tickers(quote="KRW", timeout=timeout),
    "get_orderbook": lambda market, timeout: market.get_orderbook("KRW-BTC", timeout=timeout),
    "get_trades": lambda market, timeout: market.get_trades("KRW-BTC", 1000, timeout=timeout),
    "get_candles": lambda market, timeout: market.get_candles("KRW-BTC", "1m", 1000, timeout=timeout),
    "iter_candles": lambda market, timeout: list(market.iter_candles("KRW-BTC", count=500, timeout=timeout)),
    "get_markets": lambda market, timeout: market.get_markets(timeout=timeout),
    "candle_series": lambda market, timeout: market.candle_series("KRW-BTC", timeout=timeout).close(),
    "live_orderbook": lambda market, timeout: market.live_orderbook("KRW-BTC", timeout=timeout).close(),
    "check_rest_api_health": lambda market, timeout: market.check_rest_api_health(timeout),
}
FAULTS: dict[str, Callable[[FakeUpbit], Any]] = {
    "silence": lambda upbit: upbit.freeze(target="all"),
    "drip": lambda upbit: (
        upbit.rest_fault(mode="drip", times=None, interval=0.2),
        upbit.handshake_fault("drip", times=None, interval=0.2),
    ),
    "errors": lambda upbit: (upbit.rest_fault(status=500, times=None), upbit.handshake_fault(status=503, times=None)),
    "too slow": lambda upbit: upbit.set_options(latency=5.0),
}


@pytest.fixture(scope="module", params=FAULTS)
def broken(request: pytest.FixtureRequest) -> Iterator[FakeUpbit]:
    with FakeUpbit(trades_per_second=0, ban_after=0, markets=["KRW-BTC", "KRW-ETH"]) as upbit:
        FAULTS[request.param](upbit)
        yield upbit


def test_a_cold_question_to_broken_servers_ends_by_its_deadline(
    broken: FakeUpbit, backbone: Callable[..., MarketDataBackbone], stopwatch: Ask
) -> None:
    market = backbone(at=broken)
    asked = list(QUESTIONS)
    timed = all_at_once(len(asked), lambda number: stopwatch(lambda: QUESTIONS[asked[number]](market, TIMEOUT)))
    for name, (seconds, outcome) in zip(asked, timed, strict=True):
        assert seconds <= promised(TIMEOUT), name
        assert isinstance(outcome, UpbitBackboneError) or not isinstance(outcome, Exception), f"{name}: {outcome!r}"


def test_the_default_timeout_is_for_the_whole_call(
    broken: FakeUpbit, backbone: Callable[..., MarketDataBackbone], stopwatch: Ask
) -> None:
    market = backbone(at=broken, timeout_seconds=1.0)
    questions: list[Callable[[], Any]] = [
        lambda: market.get_ticker("KRW-BTC"),
        lambda: market.get_trades("KRW-BTC", 10),
        lambda: market.get_candles("KRW-BTC", "1m", 10),
        lambda: market.get_orderbook("KRW-BTC"),
        lambda: market.get_markets(),
        lambda: market.subscribe("KRW-BTC"),
    ]
    for seconds, outcome in all_at_once(len(questions), lambda number: stopwatch(questions[number])):
        assert seconds <= promised(1.0), outcome


def test_a_timeout_of_nothing_is_answered_from_memory_or_not_at_all(
    streaming: Callable[..., MarketDataBackbone], stopwatch: Ask
) -> None:
    market = streaming("KRW-BTC")
    assert market.get_ticker("KRW-BTC", timeout=0).symbol == "KRW-BTC"
    seconds, error = stopwatch(lambda: market.get_ticker("KRW-ETH", timeout=0))
    assert isinstance(error, UpbitBackboneError)
    assert seconds < promised(0.0)


def test_32_threads_may_ask_everything_at_once(backbone: Callable[..., MarketDataBackbone], own_upbit: Ask) -> None:
    upbit = own_upbit(trades_per_second=100, markets=20)
    market = backbone(at=upbit)
    symbols = upbit.markets()
    ends_at = time.monotonic() + 3.0

    def ask(number: int) -> int:
        rounds = 0
        while time.monotonic() < ends_at:
            symbol = symbols[(number + rounds) % len(symbols)]
            match (number + rounds) % 8:
                case 0:
                    assert market.get_orderbook(symbol, levels=5, timeout=10).symbol == symbol
                case 1:
                    assert set(market.get_tickers(symbols[:5], timeout=10)) == set(symbols[:5])
                case 2:
                    market.unsubscribe(market.subscribe_realtime(symbol, callback=lambda item: None))
                case 3:
                    assert market.explain("orderbook", symbol).channels
                case 4:
                    assert market.health().status
                case 5 if rounds < 8:
                    assert market.get_candles(symbol, "1m", 3, timeout=10)
                case 6:
                    market.invalidate_cache(symbol)
                case _:
                    assert market.get_ticker(symbol, timeout=10).symbol == symbol
            rounds += 1
        return rounds

    rounds = all_at_once(32, ask)
    assert [outcome for outcome in rounds if not isinstance(outcome, int)] == []
    assert all(rounds)
    for group in ("ticker", "orderbook", "candle", "market", "trade"):
        assert upbit.busiest(group=group) <= 10, group
    assert {429, 418}.isdisjoint(request["status"] for request in upbit.requests())
