"""Requests that cost nothing: whatever a program asks, however clumsily, hardly anything goes on the wire."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.threads import all_at_once
from upbit_backbone import DataSource, MarketDataBackbone, OrderbookData, TickerData, UnknownSymbolError
from upbit_backbone.routing import promotion
from upbit_backbone.simulator import FakeUpbit

Ask = Callable[..., Any]


@pytest.fixture(autouse=True)
def patient_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep is one however long the machine takes for an answer."""
    monkeypatch.setattr(promotion, "SWEEP_GAP_SECONDS", 60.0)


def of_quote(upbit: FakeUpbit, quote: str, count: int) -> list[str]:
    return [code for code in upbit.markets() if code.startswith(f"{quote}-")][:count]


def test_a_hundred_threads_asking_the_same_cold_make_one_request(market: MarketDataBackbone, wire: Any) -> None:
    answers = all_at_once(100, lambda _: market.get_ticker("KRW-BTC"))
    assert all(isinstance(answer, TickerData) for answer in answers)
    assert len(wire.requests) == 1


@pytest.mark.parametrize("step", [1, 8], ids=["one quote", "three quotes"])
def test_a_hundred_threads_asking_a_hundred_symbols_cold_make_two_requests(
    market: MarketDataBackbone, upbit: FakeUpbit, wire: Any, step: int
) -> None:
    symbols = upbit.markets()[::step][:100]
    upbit.set_options(latency=0.7)  # all have asked before the first answer, on a busy machine too
    answers = all_at_once(100, lambda number: market.get_ticker(symbols[number]))
    assert [answer.symbol for answer in answers] == symbols
    assert len(wire.requests) <= 2


def lifetimes_since(began: float) -> int:
    """How often what REST says of now, good for a second, was needed meanwhile: once, but by a slow machine."""
    return 1 + int(time.monotonic() - began)


def test_a_loop_over_250_symbols_costs_three_requests_once_and_then_nothing(
    market: MarketDataBackbone, upbit: FakeUpbit, wire: Any, until: Ask
) -> None:
    symbols = of_quote(upbit, "KRW", 250)
    began = time.monotonic()
    assert [market.get_ticker(symbol).symbol for symbol in symbols] == symbols
    assert len(wire.requests) <= 3 * lifetimes_since(began)
    wire.start_over()
    assert [market.get_ticker(symbol).symbol for symbol in symbols] == symbols
    assert len(wire.requests) <= 3 * (lifetimes_since(began) - 1)
    until(lambda: len(upbit.subscribed()) >= 250, "all of them are streamed")
    streamed = time.monotonic()
    until(lambda: time.monotonic() - streamed > 1.2, "what REST said has become too old")
    wire.start_over()
    assert {market.get_ticker(symbol).source for symbol in symbols} == {DataSource.WEBSOCKET}
    assert wire.requests == []


def test_a_loop_over_symbols_of_all_quotes_in_any_order_costs_three_requests(
    market: MarketDataBackbone, upbit: FakeUpbit, wire: Any
) -> None:
    symbols = sorted(upbit.markets()[::3], key=lambda code: code[::-1])[:250]
    began = time.monotonic()
    assert [market.get_ticker(symbol).symbol for symbol in symbols] == symbols
    assert len({symbol.partition("-")[0] for symbol in symbols}) == 3
    assert len(wire.requests) <= 3 * lifetimes_since(began)


def test_polling_250_symbols_every_second_costs_hardly_any_request(
    market: MarketDataBackbone, upbit: FakeUpbit, wire: Any, until: Ask
) -> None:
    symbols = of_quote(upbit, "KRW", 250)
    began = time.monotonic()
    for second in range(6):
        until(lambda due=began + second: time.monotonic() >= due, "the next second")
        for symbol in symbols:
            market.get_ticker(symbol)
    assert len(wire.requests) <= 5


def test_a_hot_symbol_is_answered_by_the_stream_after_its_first_questions(
    market: MarketDataBackbone, upbit: FakeUpbit, wire: Any, until: Ask, is_live: Ask
) -> None:
    began = time.monotonic()
    for _ in range(3):
        assert market.get_ticker("KRW-BTC").source is DataSource.REST
    until(lambda: is_live(market, "ticker", "KRW-BTC"), "the symbol is streamed")
    upbit.publish_trade("KRW-BTC", price=123_456_000)
    until(lambda: market.get_ticker("KRW-BTC").current_price == 123_456_000, "the stream's price")
    assert len(wire.requests) <= lifetimes_since(began)
    wire.start_over()
    before = market.performance().live_answers
    for _ in range(1000):
        assert market.get_ticker("KRW-BTC").source is DataSource.WEBSOCKET
    assert market.performance().live_answers >= before + 1000
    assert wire.requests == []


def test_a_sweep_over_order_books_is_one_list(
    market: MarketDataBackbone, upbit: FakeUpbit, wire: Any, until: Ask, is_live: Ask
) -> None:
    symbols = of_quote(upbit, "KRW", 250)
    began = time.monotonic()
    for symbol in symbols:
        assert isinstance(market.get_orderbook(symbol), OrderbookData)
    assert len(wire.requests) <= 5 * lifetimes_since(began)
    assert wire.paths.count("/v1/market/all") == 1
    until(lambda: all(is_live(market, "orderbook", symbol) for symbol in symbols), "all books are streamed")
    wire.start_over()
    assert {market.get_orderbook(symbol).source for symbol in symbols} == {DataSource.WEBSOCKET}
    assert wire.requests == []


def test_a_loop_that_asks_for_price_and_book_of_each_market_is_two_sweeps_at_once(
    market: MarketDataBackbone, upbit: FakeUpbit, wire: Any
) -> None:
    symbols = of_quote(upbit, "KRW", 100)
    began = time.monotonic()
    for symbol in symbols:
        assert market.get_ticker(symbol).symbol == symbol
        assert market.get_orderbook(symbol).symbol == symbol
    assert len(wire.requests) <= 8 * lifetimes_since(began)


def test_a_chart_viewer_costs_nothing_after_its_first_rounds(
    market: MarketDataBackbone, upbit: FakeUpbit, wire: Any, until: Ask
) -> None:
    symbols = of_quote(upbit, "KRW", 5)

    def look() -> None:
        for symbol in symbols:
            assert len(market.get_candles(symbol, "1m", 200)) == 200
            assert len(market.get_candles(symbol, "1m")) == 200
            assert len(market.get_candles(symbol, "1m", 1)) == 1
            market.get_ticker(symbol)
            market.get_orderbook(symbol)

    look()
    look()
    topics = {(kind, symbol) for kind in ("ticker", "orderbook", "candle.1m") for symbol in symbols}
    look()
    until(lambda: topics <= upbit.subscribed(), "everything in the window is streamed")
    until(
        lambda: all(market.explain(kind, code).rule in ("live", "history-joined") for kind, code in topics),
        "everything is live",
    )
    look()  # the last closed candle may just have become final
    wire.start_over()
    for _ in range(5):
        look()
    assert len(wire.requests) <= 5  # one for each market, should a minute end just now


def test_many_tickers_are_one_request_and_come_in_the_order_asked(
    market: MarketDataBackbone, upbit: FakeUpbit, wire: Any
) -> None:
    began = time.monotonic()
    everything = market.get_tickers()
    assert list(everything) == upbit.markets()
    assert wire.paths == ["/v1/market/all", "/v1/ticker/all"]
    wire.start_over()
    won = market.get_tickers(quote="KRW")
    assert list(won) == of_quote(upbit, "KRW", 1000)
    few = market.get_tickers(["USDT-BTC", "KRW-BTC", "BTC/KRW"])
    assert list(few) == ["USDT-BTC", "KRW-BTC"]
    assert len(wire.requests) <= 2 * (lifetimes_since(began) - 1)  # a moment ago is young enough


def test_an_unknown_symbol_in_a_list_is_named_and_spoils_nothing(market: MarketDataBackbone, wire: Any) -> None:
    market.get_tickers(quote="KRW")
    wire.start_over()
    with pytest.raises(UnknownSymbolError, match="KRW-BTCC") as caught:
        market.get_tickers(["KRW-BTC", "KRW-BTCC", "KRW-ETH"])
    assert caught.value.symbols == ("KRW-BTCC",)
    assert "KRW-BTC" in caught.value.suggestions
    assert {market.get_ticker(symbol).symbol for symbol in ("KRW-BTC", "KRW-ETH")} == {"KRW-BTC", "KRW-ETH"}
    assert [request["query"] for request in wire.requests] == [{"markets": "KRW-BTCC"}]  # Upbit's own word on it


def test_many_tickers_asked_again_and_again_are_streamed(
    market: MarketDataBackbone, upbit: FakeUpbit, wire: Any, until: Ask
) -> None:
    symbols = of_quote(upbit, "KRW", 30)
    for _ in range(3):
        market.get_tickers(symbols)
    until(lambda: {("ticker", symbol) for symbol in symbols} <= upbit.subscribed(), "they are streamed")
    until(
        lambda: {ticker.source for ticker in market.get_tickers(symbols).values()} == {DataSource.WEBSOCKET},
        "they come from the stream",
    )


def test_several_backbones_of_a_process_share_the_limits(
    backbone: Callable[..., MarketDataBackbone], upbit: FakeUpbit, wire: Any
) -> None:
    three = [backbone() for _ in range(3)]
    symbols = of_quote(upbit, "KRW", 24)
    answers = all_at_once(24, lambda number: three[number % 3].get_trades(symbols[number], 1, timeout=15))
    assert [error for error in answers if isinstance(error, Exception)] == []
    assert all(request["status"] == 200 for request in wire.requests)
    assert upbit.busiest(group="trade") <= 10


def test_the_limits_were_kept_on_the_wire_in_all_of_this(upbit: FakeUpbit) -> None:
    for group in ("ticker", "orderbook", "trade", "candle", "market"):
        assert upbit.busiest(group=group) <= 10, group
    assert upbit.busiest("handshake") <= 5
    assert {429, 418}.isdisjoint(request["status"] for request in upbit.requests())


def test_many_order_books_are_one_request_in_the_order_asked_and_then_come_from_the_streams(
    market: MarketDataBackbone, upbit: FakeUpbit, wire: Any, until: Ask
) -> None:
    symbols = of_quote(upbit, "KRW", 40)[::-1]
    books = market.get_orderbooks(symbols, levels=5)
    assert list(books) == symbols
    assert {len(book.asks) for book in books.values()} == {5}
    assert len([path for path in wire.paths if path == "/v1/orderbook"]) == 1
    with market.subscribe(symbols[:3], "orderbook") as stream:
        until(lambda: {stream.get(timeout=30).symbol for _ in range(3)} == set(symbols[:3]))
        live = market.get_orderbooks(symbols[:3])
        assert {book.source for book in live.values()} == {DataSource.WEBSOCKET}


def test_many_order_books_refuse_by_name_what_does_not_exist(market: MarketDataBackbone) -> None:
    with pytest.raises(UnknownSymbolError, match="KRW-NOSUCH"):
        market.get_orderbooks(["KRW-BTC", "KRW-NOSUCH"])
