"""Data that Upbit has not sent yet: an odd field costs itself, an odd row itself, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from typing import Any

import pytest

from upbit_backbone import (
    HealthStatus,
    MalformedDataError,
    MarketDataBackbone,
    MessageTooBigError,
    NoTradesYetError,
    UnreadFieldEvent,
)
from upbit_backbone.simulator import FakeUpbit

Make = Callable[..., MarketDataBackbone]
Ask = Callable[..., Any]
PRICES = {"TickerData": "current_price", "TradeData": "price", "CandleData": "close_price"}
NOW_MS = 1_793_697_435_188


def ticker(code: str, **more: Any) -> dict[str, Any]:
    return {"market": code, "trade_price": 100, "timestamp": NOW_MS, "change": "RISE"} | more


def listed(code: str, **more: Any) -> dict[str, Any]:
    return {"market": code, "korean_name": "x", "english_name": "X"} | more


def candle(minute: int, **more: Any) -> dict[str, Any]:
    return {
        "market": "KRW-BTC", "candle_date_time_utc": f"2026-11-03T09:{minute:02d}:00", "opening_price": 1,
        "high_price": 1, "low_price": 1, "trade_price": 1, "timestamp": NOW_MS, "candle_acc_trade_volume": 1,
        "unit": 1,
    } | more  # fmt: skip


def answers(upbit: FakeUpbit, path: str, rows: list[Any]) -> None:
    """From now on REST answers `path` with these rows."""
    upbit.rest_fault(path, mode="shape", body=json.dumps(rows), times=None, seconds=60.0)


@pytest.fixture
def odd(own_upbit: Callable[..., FakeUpbit], backbone: Make) -> tuple[MarketDataBackbone, FakeUpbit]:
    """A backbone and its own simulator, whose answers a test may bend."""
    upbit = own_upbit()
    return backbone(upbit, promote_after_questions=1000), upbit


def test_one_odd_row_of_the_market_list_costs_one_flag(odd: tuple[MarketDataBackbone, FakeUpbit]) -> None:
    market, upbit = odd
    grown = {"market_event": {"warning": True, "caution": {"PRICE_FLUCTUATIONS": {"level": 2}}}}
    answers(upbit, "/v1/market/all", [listed("KRW-BTC"), listed("KRW-ETH", **grown), None, {"market": 5}])
    markets = market.get_markets()
    assert [each.symbol for each in markets] == ["KRW-BTC", "KRW-ETH"]
    assert (markets[1].warning, markets[1].cautions) == (True, None)
    assert market.performance().counters["unread.market.cautions"] == 1


def book(code: str, **more: Any) -> dict[str, Any]:
    units = [{"ask_price": 101, "ask_size": 1, "bid_price": 100, "bid_size": 1}]
    return {"market": code, "timestamp": NOW_MS, "orderbook_units": units} | more


@pytest.mark.parametrize(
    "odd_row", [None, {"market": "a word"}, {"market": "KRW-OTHER"}], ids=["absent", "word", "other"]
)
def test_a_market_that_answers_leave_out_costs_no_list_its_others(
    odd: tuple[MarketDataBackbone, FakeUpbit], odd_row: dict[str, Any] | None
) -> None:
    market, upbit = odd
    codes = ["KRW-BTC", "KRW-ETH", "KRW-XRP"]
    answers(upbit, "/v1/market/all", [listed(code) for code in codes])
    for path, row in {"/v1/ticker": ticker, "/v1/ticker/all": ticker, "/v1/orderbook": book}.items():
        lacking = [] if odd_row is None else [row("KRW-ETH") | odd_row]
        answers(upbit, path, [row("KRW-BTC"), *lacking, row("KRW-XRP")])
    assert list(market.get_tickers(quote="KRW", max_age=0, timeout=60)) == ["KRW-BTC", "KRW-XRP"]
    assert list(market.get_tickers(codes, max_age=0, timeout=60)) == ["KRW-BTC", "KRW-XRP"]
    assert list(market.get_orderbooks(codes, max_age=0, timeout=60)) == ["KRW-BTC", "KRW-XRP"]
    for _ in range(3):  # asked one after another they become a sweep, which is one list
        assert market.get_orderbook("KRW-XRP", max_age=0, strategy="rest_only", timeout=60).symbol == "KRW-XRP"
    for asks in (market.get_ticker, market.get_orderbook):
        with pytest.raises(MalformedDataError, match="KRW-ETH"):
            asks("KRW-ETH", max_age=0, strategy="rest_only", timeout=60)
    with pytest.raises(MalformedDataError, match="KRW-ETH"):
        market.get_orderbooks(["KRW-ETH"], max_age=0, timeout=60)


def test_an_answer_that_leaves_out_most_of_a_list_is_an_error_and_no_shorter_list(
    odd: tuple[MarketDataBackbone, FakeUpbit],
) -> None:
    market, upbit = odd
    codes = ["KRW-BTC", "KRW-ETH", "KRW-XRP"]
    answers(upbit, "/v1/market/all", [listed(code) for code in codes])
    for path in ("/v1/ticker", "/v1/ticker/all"):
        answers(upbit, path, [ticker("KRW-BTC")])
    answers(upbit, "/v1/orderbook", [book("KRW-BTC")])
    swept = market.get_tickers(quote="KRW", max_age=0, timeout=60)  # by the stream, where REST does not do
    assert list(swept) == codes
    assert all(each.degraded for each in swept.values())
    with pytest.raises(MalformedDataError):
        market.get_orderbooks(codes, max_age=0, timeout=60)


def test_an_order_book_that_cannot_be_read_costs_no_other_one(odd: tuple[MarketDataBackbone, FakeUpbit]) -> None:
    market, upbit = odd
    codes = ["KRW-BTC", "KRW-ETH", "KRW-XRP"]
    answers(upbit, "/v1/market/all", [listed(code) for code in codes])
    answers(upbit, "/v1/orderbook", [book("KRW-BTC"), book("KRW-ETH", orderbook_units=None), book("KRW-XRP")])
    assert list(market.get_orderbooks(codes, max_age=0, timeout=60)) == ["KRW-BTC", "KRW-XRP"]
    with pytest.raises(MalformedDataError, match=r"KRW-ETH.*orderbook_units"):
        market.get_orderbooks(["KRW-ETH"], max_age=0, timeout=60)


@pytest.mark.parametrize(
    ("odd_rows", "words"),
    [([], "left it out"), ([{"market": None}], "cannot be read"), ([None], "cannot be read")],
    ids=["absent", "nameless", "null"],
)
def test_an_instrument_that_cannot_be_read_costs_itself_and_is_an_error_for_who_asks_for_it(
    odd: tuple[MarketDataBackbone, FakeUpbit], odd_rows: list[Any], words: str
) -> None:
    market, upbit = odd
    answers(upbit, "/v1/market/all", [listed("KRW-BTC"), listed("KRW-ETH")])
    answers(upbit, "/v1/orderbook/instruments", [{"market": "KRW-BTC", "tick_size": "1000"}, *odd_rows])
    assert list(market.get_instruments(["KRW-BTC", "KRW-ETH"])) == ["KRW-BTC"]
    with pytest.raises(MalformedDataError, match=f"KRW-ETH.*{words}"):
        market.get_instruments(["KRW-ETH"])


def test_a_sweep_gives_the_rows_that_can_be_read_and_the_breaker_stays_closed(
    odd: tuple[MarketDataBackbone, FakeUpbit],
) -> None:
    market, upbit = odd
    broken = ticker("KRW-ETH", trade_price="n/a")
    rows = [ticker("KRW-BTC", change="UPPER"), broken, ticker("KRW-XRP", trade_price=None)]
    answers(upbit, "/v1/market/all", [listed(row["market"]) for row in rows])
    for path in ("/v1/ticker", "/v1/ticker/all"):
        answers(upbit, path, rows)
    for _ in range(8):
        swept = market.get_tickers(quote="KRW", max_age=0, timeout=60)
        assert list(swept) == ["KRW-BTC"]
        assert swept["KRW-BTC"].change == "UPPER"
    assert {group.breaker for group in market.health().groups} == {"closed"}


def test_a_named_list_gives_the_rest_and_who_asks_for_the_row_itself_is_told_which_it_is(
    odd: tuple[MarketDataBackbone, FakeUpbit],
) -> None:
    market, upbit = odd
    rows = [ticker("KRW-BTC"), ticker("KRW-ETH", trade_price="n/a"), ticker("KRW-XRP", trade_price=None)]
    for path in ("/v1/ticker", "/v1/ticker/all"):
        answers(upbit, path, rows)
    assert list(market.get_tickers(["KRW-ETH", "KRW-BTC", "KRW-XRP"])) == ["KRW-BTC"]
    with pytest.raises(MalformedDataError, match=r"KRW-ETH.*trade_price"):
        market.get_tickers(["KRW-ETH"])
    with pytest.raises(MalformedDataError, match=r"KRW-ETH.*trade_price"):
        market.get_ticker("KRW-ETH", strategy="rest_only")
    with pytest.raises(NoTradesYetError, match="KRW-XRP") as caught:
        market.get_ticker("KRW-XRP")
    assert caught.value.retryable
    assert caught.value.symbol == "KRW-XRP"


def test_an_order_book_that_cannot_be_read_costs_no_other(odd: tuple[MarketDataBackbone, FakeUpbit]) -> None:
    market, upbit = odd
    units = [{"ask_price": 2, "ask_size": 1, "bid_price": 1, "bid_size": 1}]
    good = {"market": "KRW-BTC", "timestamp": NOW_MS, "orderbook_units": units}
    answers(upbit, "/v1/orderbook", [good, good | {"market": "KRW-ETH", "orderbook_units": None}])
    assert market.get_orderbook("KRW-BTC", strategy="rest_only").total_ask_size is None
    with pytest.raises(MalformedDataError, match=r"KRW-ETH.*orderbook_units"):
        market.get_orderbook("KRW-ETH", strategy="rest_only")


def test_a_bomb_is_fetched_once_and_told_at_once(odd: tuple[MarketDataBackbone, FakeUpbit]) -> None:
    market, upbit = odd
    market.get_markets()
    questions: list[tuple[str, Callable[[], object]]] = [
        ("/v1/ticker", lambda: market.get_ticker("KRW-BTC")),
        ("/v1/ticker", lambda: market.get_tickers(["KRW-BTC", "KRW-ETH"])),
        ("/v1/orderbook", lambda: market.get_orderbook("KRW-BTC")),
        ("/v1/candles/minutes/1", lambda: market.get_candles("KRW-BTC", "1m", count=100)),
        ("/v1/trades/ticks", lambda: market.get_trades("KRW-BTC", count=600)),
    ]
    for path, ask in questions:
        upbit.rest_fault(path, mode="gzip_bomb", times=None, seconds=60.0)
        before = len(upbit.requests())
        with pytest.raises(MessageTooBigError):
            ask()
        asked = [request["path"] for request in upbit.requests()[before:]]
        assert len(asked) == 1, (path, asked)
        upbit.clear_faults()
    assert {group.breaker for group in market.health().groups} == {"closed"}


def test_one_price_prints_in_one_way_however_each_channel_spells_it(
    odd: tuple[MarketDataBackbone, FakeUpbit], until: Ask
) -> None:
    market, upbit = odd
    upbit.publish_trade("KRW-BTC", price=106_691_000, volume="0.00079276", ask_bid="BID")
    by_rest = market.get_ticker("KRW-BTC", strategy="rest_only")
    told = [by_rest.current_price, market.get_trades("KRW-BTC", count=1)[0].price]
    told.append(market.get_candles("KRW-BTC", "1m", count=1)[0].close_price)
    kinds = ["ticker", "trade", "candle.1m"]
    with market.subscribe("KRW-BTC", kinds, overflow="drop_oldest") as items:
        streamed = [items.get(timeout=10) for _ in kinds]
    told += [getattr(item, PRICES[type(item).__name__]) for item in streamed]
    assert {str(price) for price in told} == {"106691000"}
    assert {repr(price) for price in told} == {"Decimal('106691000')"}
    assert '"current_price": "106691000"' in by_rest.to_json()
    with market.subscribe("KRW-BTC", "orderbook") as books:
        prices = [level.price for book in (books.get(timeout=10), market.get_orderbook("KRW-BTC", strategy="rest_only"))
                  for level in (*book.asks, *book.bids)]  # fmt: skip
    assert len(prices) > 50
    assert all(str(price).isdecimal() for price in prices)


def stream(upbit: FakeUpbit, code: str, **more: Any) -> None:
    message = {"ty": "ticker", "cd": code, "tp": 100, "tms": NOW_MS, "c": "RISE", "st": "REALTIME"} | more
    upbit.send_json(json.dumps(message))


def test_a_stream_with_words_and_fields_of_tomorrow_is_delivered_and_counted(
    odd: tuple[MarketDataBackbone, FakeUpbit], until: Ask
) -> None:
    market, upbit = odd
    events: list[Any] = []
    tickers = market.subscribe("KRW-BTC", "ticker", overflow="drop_oldest")
    with closing(market.on_event(events.append)), tickers:
        newest = tickers.get(timeout=10)
        stamp = int(newest.timestamp.timestamp() * 1000) + 5
        stream(upbit, "KRW-BTC", c="UPPER", dd={"when": "soon"}, tms=stamp)
        odd_one = tickers.get(timeout=10)
        assert (odd_one.current_price, odd_one.change, odd_one.delisting_date) == (Decimal(100), "UPPER", None)
        told = until(lambda: next((each for each in events if isinstance(each, UnreadFieldEvent)), None), "an event")
        assert (told.field, told.count) == ("ticker.delisting_date", 1)
    assert market.health().status is HealthStatus.HEALTHY


def test_a_stream_of_which_nothing_can_be_read_is_unhealthy_and_its_value_no_answer(
    odd: tuple[MarketDataBackbone, FakeUpbit], until: Ask
) -> None:
    market, upbit = odd
    with market.subscribe("KRW-BTC", "ticker") as tickers:
        tickers.get(timeout=10)
        assert market.health().status is HealthStatus.HEALTHY
        stream(upbit, "KRW-BTC", tp="n/a")
        stream(upbit, "KRW-BTC", tp="n/a")
        report = until(lambda: (seen := market.health()).status is HealthStatus.UNHEALTHY and seen, "bad health")
        assert "could be read" in report.reasons[0]
        assert "tp (current_price)" in report.reasons[0]
        assert market.get_ticker("KRW-BTC").source == "rest"
