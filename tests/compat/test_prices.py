"""The stand-in's prices, books, market lists and tick sizes: shapes, types and errors as pyupbit has them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from decimal import Decimal
from types import ModuleType
from typing import Any

import pandas
import pytest
import requests

from tests.support.waiting import PAUSE, wait_until
from upbit_backbone.compat.pyupbit import quotation_api
from upbit_backbone.errors import UnknownSymbolError, UpbitBackboneError
from upbit_backbone.simulator import FakeUpbit

ROW = (
    "market trade_date trade_time trade_date_kst trade_time_kst trade_timestamp opening_price high_price "
    "low_price trade_price prev_closing_price change change_price change_rate signed_change_price "
    "signed_change_rate trade_volume acc_trade_price acc_trade_price_24h acc_trade_volume "
    "acc_trade_volume_24h highest_52_week_price highest_52_week_date lowest_52_week_price "
    "lowest_52_week_date timestamp"
)


def upbits_own(upbit: FakeUpbit, path: str) -> Any:
    """What Upbit says over the wire, asked past our limiter: so it may be one question too many for this second."""
    while (answer := requests.get(f"{upbit.rest_url}{path}", timeout=20)).status_code == 429:
        PAUSE.wait(0.2)
    return answer.json()


def test_one_market_is_a_float_and_several_are_a_dict_in_the_order_asked(pyupbit: ModuleType) -> None:
    assert type(pyupbit.get_current_price("KRW-BTC")) is float
    assert type(pyupbit.get_current_price(["KRW-BTC"])) is float
    prices = pyupbit.get_current_price(["KRW-XRP", "KRW-BTC", "KRW-XRP"])
    assert list(prices) == ["KRW-XRP", "KRW-BTC"]
    assert {type(price) for price in prices.values()} == {float}
    assert list(pyupbit.get_current_price(("KRW-BTC",))) == ["KRW-BTC"]
    assert list(pyupbit.get_current_price(pandas.Index(["KRW-ETH", "KRW-BTC"]))) == ["KRW-ETH", "KRW-BTC"]


def test_a_text_of_several_markets_is_the_price_of_the_first(pyupbit: ModuleType) -> None:
    assert pyupbit.get_current_price("KRW-ETH,KRW-BTC") == pyupbit.get_current_price("KRW-ETH")


def test_a_text_of_several_markets_never_gives_the_second_for_a_first_that_cannot_be_read(
    pyupbit: ModuleType, upbit: FakeUpbit
) -> None:
    price = pyupbit.get_current_price("KRW-BTC")
    tickers, books = (upbits_own(upbit, f"/v1/{path}?markets=KRW-ETH") for path in ("ticker", "orderbook"))
    for path, rows in {"/v1/ticker": tickers, "/v1/orderbook": books}.items():
        body = json.dumps([{"market": "KRW-BTC"}, *rows])
        upbit.rest_fault(path, mode="shape", body=body, times=None, seconds=60.0)
    quotation = pyupbit.get_orderbook("KRW-BTC,KRW-ETH")
    assert quotation["market"] == "KRW-BTC"
    assert pyupbit.get_current_price("KRW-BTC,KRW-ETH") == price


def test_nothing_asked_is_an_empty_dict(pyupbit: ModuleType) -> None:
    assert pyupbit.get_current_price([]) == {}
    assert pyupbit.get_current_price((), verbose=True) == []
    assert pyupbit.get_current_price([], limit_info=True)[0] == {}


def test_verbose_is_upbits_row_key_by_key(pyupbit: ModuleType, upbit: FakeUpbit) -> None:
    (row,) = pyupbit.get_current_price("KRW-BTC", verbose=True)
    (said,) = upbits_own(upbit, "/v1/ticker?markets=KRW-BTC")
    assert list(row) == ROW.split() == list(said)
    assert row | {"timestamp": 0} == said | {"timestamp": 0}
    assert type(row["timestamp"]) is int


def test_a_row_is_the_same_whichever_way_it_came(pyupbit: ModuleType, upbit: FakeUpbit) -> None:
    (by_rest,) = pyupbit.get_current_price("KRW-ETH", verbose=True)
    with pyupbit.backbone().subscribe("KRW-ETH", "ticker") as stream:
        stream.get(timeout=30)
        (by_stream,) = pyupbit.get_current_price("KRW-ETH", verbose=True)
    volatile = {"timestamp": 0}
    assert by_stream | volatile == by_rest | volatile


def test_limit_info_comes_beside_the_answer(pyupbit: ModuleType) -> None:
    price, limit = pyupbit.get_current_price("KRW-BTC", limit_info=True)
    assert type(price) is float
    assert limit["group"] == "ticker"
    assert {type(limit[name]) for name in ("min", "sec")} == {int}
    assert pyupbit.get_tickers(limit_info=True)[1]["group"] == "market"
    assert pyupbit.get_orderbook("KRW-BTC", limit_info=True)[1]["group"] == "orderbook"


@pytest.mark.parametrize("ticker", [None, 5, {"KRW-BTC"}, {"KRW-BTC": 1}, ["KRW-BTC", None]])
def test_what_is_no_list_of_markets_is_a_type_error(pyupbit: ModuleType, ticker: Any) -> None:
    with pytest.raises(TypeError):
        pyupbit.get_current_price(ticker)


@pytest.mark.parametrize("ticker", ["KRW-NOSUCH", "BTC-KRW", "BTC/KRW", "krw-btc", ["KRW-BTC", "KRW-NOSUCH"]])
def test_an_unknown_market_raises_pyupbits_error_with_ours_as_its_cause(pyupbit: ModuleType, ticker: Any) -> None:
    with pytest.raises(pyupbit.errors.UpbitError) as caught:
        pyupbit.get_current_price(ticker)
    assert isinstance(caught.value.__cause__, UpbitBackboneError)
    assert str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 - our own


def test_a_swapped_market_spoils_a_list_that_also_has_the_right_one(pyupbit: ModuleType) -> None:
    for ask in (pyupbit.get_current_price, pyupbit.get_orderbook):
        with pytest.raises(pyupbit.errors.UpbitError, match="BTC-KRW"):
            ask(["KRW-BTC", "BTC-KRW"])


def test_strict_raises_ours(pyupbit: ModuleType) -> None:
    pyupbit.strict()
    with pytest.raises(UnknownSymbolError):
        pyupbit.get_orderbook("KRW-NOSUCH")


@pytest.mark.parametrize("status", [429, 503])
def test_a_limit_and_a_failing_upbit_are_waited_out(pyupbit: ModuleType, upbit: FakeUpbit, status: int) -> None:
    upbit.rest_fault("/v1/ticker*", status=status, times=2)
    assert pyupbit.get_current_price("KRW-BTC") > 0


def test_what_the_network_fails_in_is_also_the_error_of_requests(
    pyupbit: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from upbit_backbone.compat.pyupbit import asking

    monkeypatch.setattr(asking, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setenv("UPBIT_BACKBONE_REST_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("UPBIT_BACKBONE_WEBSOCKET_URL", "ws://127.0.0.1:9/websocket/v1")
    monkeypatch.setenv("UPBIT_BACKBONE_TIMEOUT_SECONDS", "0.5")
    with pytest.raises(requests.exceptions.RequestException) as caught:
        pyupbit.get_current_price("KRW-BTC")
    assert isinstance(caught.value, pyupbit.errors.UpbitError)


def test_a_list_is_one_request_and_a_loop_ends_in_the_stream(pyupbit: ModuleType, upbit: FakeUpbit) -> None:
    markets = pyupbit.get_tickers(fiat="KRW")
    before = len(upbit.requests(group="ticker"))
    pyupbit.get_current_price(markets)
    assert len(upbit.requests(group="ticker")) - before <= 1
    for _ in range(5):
        pyupbit.get_current_price("KRW-BTC")
    wait_until(lambda: pyupbit.status().live_topics >= 1, "a stream for what is asked often")
    wait_until(lambda: pyupbit.backbone().explain("ticker", "KRW-BTC").channel == "live", "the stream to answer")
    before = len(upbit.requests(group="ticker"))
    for _ in range(100):
        pyupbit.get_current_price("KRW-BTC")
    assert len(upbit.requests(group="ticker")) == before
    assert "streams live" in str(pyupbit.status())


def test_the_first_price_after_a_list_of_markets_is_a_question_about_them_all(
    pyupbit: ModuleType, upbit: FakeUpbit
) -> None:
    first, *others = pyupbit.get_tickers(fiat="KRW")
    before = len(upbit.requests(group="ticker"))
    assert pyupbit.get_current_price(first) > 0
    (request,) = upbit.requests(group="ticker")[before:]
    assert set(request["query"]["markets"].split(",")) == {first, *others}


def test_what_was_asked_right_after_a_list_of_markets_is_streamed_from_then_on(pyupbit: ModuleType) -> None:
    markets = pyupbit.get_tickers(fiat="KRW")
    assert all(pyupbit.get_current_price(market) > 0 for market in markets)
    explain = pyupbit.backbone().explain
    wait_until(lambda: all(explain("ticker", each).channel == "live" for each in markets), "all to be streamed")


def test_what_a_list_of_prices_said_is_given_once_and_not_by_another_backbone(
    pyupbit: ModuleType, upbit: FakeUpbit
) -> None:
    asked = pyupbit.backbone()
    board = quotation_api._Board(asked, "KRW")
    ticker = board.take("KRW-BTC")
    assert ticker is not None
    assert ticker.symbol == "KRW-BTC"
    assert board.take("KRW-BTC") is None
    assert board.take("KRW-NOSUCH") is None
    asked.close()
    assert board.is_over(pyupbit.backbone())


def test_what_a_list_of_prices_said_is_given_for_a_moment_only(
    pyupbit: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotation_api, "BOARD_SECONDS", 0.0)
    markets = pyupbit.get_tickers(fiat="KRW")
    assert all(pyupbit.get_current_price(market) > 0 for market in markets)
    assert not quotation_api._boards


def test_a_list_of_prices_that_fails_is_not_the_end_of_the_loop(pyupbit: ModuleType, upbit: FakeUpbit) -> None:
    upbit.rest_fault("/v1/ticker/all", status=404, body="", times=None, seconds=30.0)
    assert all(pyupbit.get_current_price(market) > 0 for market in pyupbit.get_tickers(fiat="KRW"))


def test_a_book_is_upbits_dict_and_several_are_a_list(pyupbit: ModuleType, upbit: FakeUpbit) -> None:
    book = pyupbit.get_orderbook("KRW-BTC")
    (said,) = upbits_own(upbit, "/v1/orderbook?markets=KRW-BTC")
    assert list(book) == list(said)
    assert json.loads(json.dumps(book)) == said
    assert len(book["orderbook_units"]) == 30
    assert [each["market"] for each in pyupbit.get_orderbook(["KRW-ETH", "KRW-BTC"])] == ["KRW-ETH", "KRW-BTC"]
    assert type(pyupbit.get_orderbook(("KRW-BTC",))) is list
    assert pyupbit.get_orderbook(["KRW-BTC"])["market"] == "KRW-BTC"
    assert pyupbit.get_orderbook("krw-btc")["market"] == "KRW-BTC"  # of books Upbit takes lower case


def test_a_book_also_answers_to_what_pyupbit_once_gave(pyupbit: ModuleType) -> None:
    book = pyupbit.get_orderbook(tickers="KRW-BTC")
    assert book[0]["orderbook_units"] == book["orderbook_units"]
    assert type(book).__name__ == "dict"
    assert type(pickle.loads(pickle.dumps(book))) is dict  # noqa: S301 - our own
    with pytest.raises(KeyError):
        book["nothing"]


def test_a_thin_book_is_filled_up_with_nothing(pyupbit: ModuleType) -> None:
    from datetime import UTC, datetime

    from upbit_backbone import DataSource, OrderbookData, OrderbookUnit
    from upbit_backbone.compat.pyupbit.payloads import orderbook_row

    one = OrderbookUnit(Decimal("0.5"), Decimal(2))
    thin = OrderbookData(
        "KRW-BTC", (one,), (), Decimal(2), Decimal(0), datetime(2026, 1, 1, tzinfo=UTC), DataSource.REST
    )
    units = orderbook_row(thin)["orderbook_units"]
    assert len(units) == 30
    assert units[0] == {"bid_price": 0.0, "bid_size": 0.0, "ask_price": 0.5, "ask_size": 2.0}
    assert set(units[1].values()) == {0.0}


def test_markets_are_found_by_the_beginning_of_their_code(pyupbit: ModuleType, upbit: FakeUpbit) -> None:
    listed = [row["market"] for row in upbits_own(upbit, "/v1/market/all")]
    assert pyupbit.get_tickers() == listed
    assert pyupbit.get_tickers(fiat="KRW") == [code for code in listed if code.startswith("KRW")]
    assert pyupbit.get_tickers(("KRW-B", "BTC")) == ["KRW-BTC", "BTC-ETH"]
    assert pyupbit.get_tickers("krw") == []
    with pytest.raises(TypeError):
        pyupbit.get_tickers(None)


@pytest.mark.parametrize(("options", "path"), [({"verbose": True}, ""), ({"is_details": True}, "?is_details=true")])
def test_market_rows_are_upbits(pyupbit: ModuleType, upbit: FakeUpbit, options: dict[str, bool], path: str) -> None:
    assert pyupbit.get_tickers(**options) == upbits_own(upbit, f"/v1/market/all{path}")


@pytest.mark.parametrize(
    ("price", "method", "expected"),
    [
        (2_345_678, "floor", 2_345_000),
        (1_234_567.8, "ceil", 1_235_000),
        (999_999, "round", 1_000_000),
        (1000, "floor", 1000),
        (123.456, "floor", 123.4),
        (12.3456, "round", 12.35),
        (0.123456, "anything", 0.1235),
        (0.000012345, "floor", 0.00001234),
        (-5, "floor", -5.0),
    ],
)
def test_tick_sizes_are_pyupbits(pyupbit: ModuleType, price: float, method: str, expected: float) -> None:
    size = pyupbit.get_tick_size(price, method)
    assert (type(size), size) == (type(expected), expected)


@pytest.mark.parametrize("price", [Decimal("12.5"), "5", None])
def test_what_pyupbit_cannot_size_is_the_same_error(pyupbit: ModuleType, price: Any) -> None:
    with pytest.raises(TypeError):
        pyupbit.get_tick_size(price)


@pytest.mark.parametrize("ask", ["get_current_price", "get_orderbook", "get_tickers"])
def test_every_function_works_without_an_argument(pyupbit: ModuleType, ask: str) -> None:
    question: Callable[[], Any] = getattr(pyupbit, ask)
    assert question()
