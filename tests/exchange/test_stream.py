"""What we say to Upbit: every request in one frame, in Upbit's own spelling, and nothing unchecked."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.exchange.stream import list_message, listed_topics, rounded_depth, subscription_message
from upbit_backbone.models.enums import DataType
from upbit_backbone.models.request import SubscriptionRequest, Topic
from upbit_backbone.models.session import SubscriptionList

BTC_TICKER = SubscriptionRequest(Topic(DataType.TICKER, "KRW-BTC"))


def said(*requests: SubscriptionRequest) -> list[dict[str, object]]:
    parts: list[dict[str, object]] = json.loads(subscription_message("t-1", requests, "SIMPLE"))
    return parts


def book(symbol: str, depth: int | None = None, level: str = "0") -> SubscriptionRequest:
    return SubscriptionRequest(Topic(DataType.ORDERBOOK, symbol, Decimal(level)), depth)


def test_all_types_and_codes_travel_in_one_frame_with_the_ticket_first_and_the_format_last() -> None:
    requests = [
        SubscriptionRequest(Topic(DataType.TRADE, "KRW-ETH")),
        BTC_TICKER,
        SubscriptionRequest(Topic(DataType.TICKER, "BTC-ETH")),
    ]
    assert said(*requests) == [
        {"ticket": "t-1"},
        {"type": "ticker", "codes": ["BTC-ETH", "KRW-BTC"]},
        {"type": "trade", "codes": ["KRW-ETH"]},
        {"format": "SIMPLE"},
    ]


def test_the_order_of_requests_does_not_change_the_message() -> None:
    requests = [book("KRW-BTC", 5), BTC_TICKER, SubscriptionRequest(Topic(DataType.CANDLE_1M, "KRW-BTC"))]
    assert said(*requests) == said(*reversed(requests))


def test_books_are_grouped_by_level_and_carry_their_depth_as_a_suffix() -> None:
    requests = [book("KRW-BTC", 5), book("KRW-ETH"), book("KRW-BTC", 15, "10000"), book("KRW-XRP", 1, "0.10")]
    assert said(*requests)[1:-1] == [
        {"type": "orderbook", "codes": ["KRW-BTC.5", "KRW-ETH"]},
        {"type": "orderbook", "codes": ["KRW-XRP.1"], "level": "0.1"},
        {"type": "orderbook", "codes": ["KRW-BTC.15"], "level": "10000"},
    ]


@pytest.mark.parametrize("level", ["1E+4", "10000", "10000.00"])
def test_a_level_is_spelled_in_plain_digits(level: str) -> None:
    assert said(book("KRW-BTC", level=level))[1]["level"] == "10000"


def test_a_tiny_level_gets_no_exponent() -> None:
    assert said(book("KRW-PEPE", level="1E-7"))[1]["level"] == "0.0000001"


@pytest.mark.parametrize(("asked", "sent"), [(1, 1), (2, 5), (5, 5), (6, 15), (15, 15), (16, 30), (30, 30), (99, 30)])
def test_depth_is_rounded_up_to_one_that_upbit_knows(asked: int, sent: int) -> None:
    assert said(book("KRW-BTC", asked))[1]["codes"] == [f"KRW-BTC.{sent}"]
    assert rounded_depth(asked) == sent


def test_no_depth_means_upbits_default_and_only_books_have_one() -> None:
    assert rounded_depth(None) == 30
    assert said(SubscriptionRequest(Topic(DataType.TRADE, "KRW-BTC"), 5))[1]["codes"] == ["KRW-BTC"]


def test_an_empty_set_is_never_said() -> None:
    with pytest.raises(InvalidRequestError, match="close the connection"):
        subscription_message("t", [], "SIMPLE")


@pytest.mark.parametrize(
    "symbol", ["krw-btc", "KRW-BTC\n", "KRW-BTC.5", "", "KRW", 'KRW-"]', "KRW-BTC,KRW-ETH", 5, None]
)
def test_a_malformed_code_is_refused(symbol: object) -> None:
    with pytest.raises(InvalidRequestError):
        subscription_message("t", [SubscriptionRequest(Topic(DataType.TICKER, symbol))], "SIMPLE")  # type: ignore[arg-type]


@pytest.mark.parametrize("wanted", [book("KRW-BTC", 0), book("KRW-BTC", -1), book("KRW-BTC", level="NaN"),
                                  book("KRW-BTC", level="-1"), book("KRW-BTC", level="Infinity"),
                                  book("KRW-BTC", True), SubscriptionRequest(Topic("myOrder", "KRW-BTC"))])  # fmt: skip
def test_a_malformed_depth_level_or_type_is_refused(wanted: SubscriptionRequest) -> None:
    with pytest.raises(InvalidRequestError):
        subscription_message("t", [wanted], "SIMPLE")


@pytest.mark.parametrize(("ticket", "name"), [("", "SIMPLE"), ('"', "SIMPLE"), ("x" * 65, "SIMPLE"), ("t", "XML")])
def test_a_malformed_ticket_or_format_is_refused(ticket: str, name: str) -> None:
    with pytest.raises(InvalidRequestError):
        subscription_message(ticket, [BTC_TICKER], name)
    with pytest.raises(InvalidRequestError):
        list_message(ticket, name)


def test_the_question_for_subscriptions_carries_the_streams_own_format() -> None:
    assert json.loads(list_message("q1", "SIMPLE_LIST")) == [
        {"ticket": "q1"},
        {"method": "LIST_SUBSCRIPTIONS"},
        {"format": "SIMPLE_LIST"},
    ]


def test_upbits_list_is_read_without_depth_suffixes_and_unknown_types() -> None:
    listed = SubscriptionList(
        (
            ("ticker", ("KRW-BTC", "KRW-ETH"), None),
            ("orderbook", ("KRW-BTC.5",), "10000"),
            ("orderbook", ("KRW-ETH",), "0.0"),
            ("novelty", ("KRW-BTC",), None),
        ),
        "q1",
    )
    assert listed_topics(listed) == {
        Topic(DataType.TICKER, "KRW-BTC"),
        Topic(DataType.TICKER, "KRW-ETH"),
        Topic(DataType.ORDERBOOK, "KRW-BTC", Decimal(10000)),
        Topic(DataType.ORDERBOOK, "KRW-ETH"),
    }


@given(st.text(max_size=30))
def test_whatever_the_symbol_the_message_holds_only_market_codes(symbol: str) -> None:
    try:
        text = subscription_message("t", [SubscriptionRequest(Topic(DataType.TICKER, symbol))], "SIMPLE")
    except InvalidRequestError:
        return
    assert json.loads(text)[1] == {"type": "ticker", "codes": [symbol]}
    assert symbol.isascii()
    assert symbol.replace("-", "").isalnum()


def test_all_markets_of_upbit_fit_into_one_frame() -> None:
    requests = [SubscriptionRequest(Topic(kind, f"KRW-C{number}")) for kind in DataType for number in range(855)]
    assert sum(len(entry["codes"]) for entry in said(*requests)[1:-1]) == len(requests)  # type: ignore[arg-type]
