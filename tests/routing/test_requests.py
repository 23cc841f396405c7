"""What a caller may say, and what is answered to the rest."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.exchange.markets import CODE, normalise_symbol, normalise_symbols, swapped
from upbit_backbone.models.enums import DataStrategy, DataType, Priority, RequestKind
from upbit_backbone.routing.requests import build_request, data_types, whole_number


@pytest.mark.parametrize(
    ("spelling", "code"),
    [
        ("KRW-BTC", "KRW-BTC"),
        ("BTC/KRW", "KRW-BTC"),
        ("BTC-KRW", "BTC-KRW"),  # what is meant is for the market list to tell
        ("USDC-BTC", "USDC-BTC"),
        ("BTC-USDT", "BTC-USDT"),  # a real market of Upbit's BTC board: taken as it stands
        ("USDT-BTC", "USDT-BTC"),
        ("BTC/USDT", "USDT-BTC"),
        ("KRW-1INCH", "KRW-1INCH"),
    ],
)
def test_spellings_without_doubt_are_understood(spelling: str, code: str) -> None:
    assert normalise_symbol(spelling) == code


@pytest.mark.parametrize(
    ("code", "other"),
    [("BTC-KRW", "KRW-BTC"), ("ETH-BTC", "BTC-ETH"), ("KRW-BTC", None), ("BTC-USDT", None), ("USDC-BTC", "BTC-USDC")],
)
def test_a_code_that_looks_swapped_has_a_second_reading_and_no_other(code: str, other: str | None) -> None:
    assert swapped(code) == other


@pytest.mark.parametrize(
    ("spelling", "hint"),
    [
        ("krw-btc", "did you mean 'KRW-BTC'?"),
        ("btc/krw", "did you mean 'KRW-BTC'?"),
        ("KRW_BTC", "did you mean 'KRW-BTC'?"),
        (" KRW-BTC", "did you mean 'KRW-BTC'?"),
        ("BTC", "expected a market code such as 'KRW-BTC'"),
        ("", "expected a market code such as 'KRW-BTC'"),
        ("KRW-BTC\n", "did you mean"),
        ("KRW-BTC&markets=KRW-ETH", "expected a market code"),
        ("../../orders?x=", "expected a market code"),
        ("ＫＲＷ-BTC", "expected a market code"),
    ],
)
def test_other_spellings_are_refused_with_a_hint(spelling: str, hint: str) -> None:
    with pytest.raises(InvalidRequestError, match=hint.replace("?", r"\?")):
        normalise_symbol(spelling)


@pytest.mark.parametrize("thing", [None, 7, b"KRW-BTC", ["KRW-BTC"], 1.5, object()])
def test_a_symbol_of_the_wrong_type_is_named_in_the_error(thing: object) -> None:
    with pytest.raises(InvalidRequestError, match="symbol"):
        normalise_symbol(thing)


@given(st.text(max_size=40))
def test_whatever_is_accepted_has_the_form_of_a_code(text: str) -> None:
    try:
        code = normalise_symbol(text)
    except InvalidRequestError:
        return
    assert CODE.fullmatch(code)


def test_several_symbols_keep_their_order_and_lose_repetitions() -> None:
    assert normalise_symbols(["KRW-ETH", "BTC/KRW", "KRW-ETH"], limit=10) == ("KRW-ETH", "KRW-BTC")


@pytest.mark.parametrize("symbols", [[], (), set(), 7, None, ["KRW-BTC", 3], [f"KRW-A{n}" for n in range(11)]])
def test_no_symbols_too_many_or_wrong_ones_are_refused(symbols: Any) -> None:
    with pytest.raises(InvalidRequestError):
        normalise_symbols(symbols, limit=10)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"priority": 99}, "priority"),
        ({"priority": "urgent"}, "HIGH, NORMAL, LOW"),
        ({"strategy": "fastest"}, "rest_only"),
        ({"max_age": float("nan")}, "max_age"),
        ({"max_age": -1}, "max_age"),
        ({"max_age": "1"}, "max_age"),
        ({"realtime": "yes"}, "realtime"),
        ({"levels": 0}, "levels"),
        ({"levels": 31}, "levels"),
        ({"levels": True}, "levels"),
        ({"level": -1}, "level"),
        ({"level": "many"}, "level"),
        ({"level": float("inf")}, "level"),
    ],
)
def test_a_bad_option_is_named_with_what_is_allowed(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        build_request(RequestKind.TICKER, "KRW-BTC", **fields)


def test_words_are_understood_where_members_are_meant() -> None:
    asked = build_request(
        RequestKind.ORDERBOOK, "KRW-BTC", priority="high", strategy="rest_only", level="0.1", levels=5
    )
    assert (asked.priority, asked.strategy) == (Priority.HIGH, DataStrategy.REST_ONLY)
    assert (asked.level, asked.levels) == (Decimal("0.1"), 5)
    assert data_types("candle.1m") == (DataType.CANDLE_1M,)
    assert data_types([DataType.TICKER, "trade", "ticker"]) == (DataType.TICKER, DataType.TRADE)


@pytest.mark.parametrize("types", [[], "prices", None, 5, ["ticker", 5]])
def test_unknown_data_types_are_refused_with_the_list_of_those_that_exist(types: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"candle\.240m"):
        data_types(types)


@pytest.mark.parametrize("count", [0, -1, 10**9, 1.0, "1", True, None])
def test_a_count_out_of_range_or_of_another_type_is_refused(count: object) -> None:
    with pytest.raises(InvalidRequestError, match="from 1 to 200"):
        whole_number(count, "count", low=1, high=200)
