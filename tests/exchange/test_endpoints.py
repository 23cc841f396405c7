"""Nothing a user passes ever changes where a request goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.errors import InvalidRequestError, UnknownTimeframeError
from upbit_backbone.exchange import endpoints
from upbit_backbone.exchange.endpoints import PATHS, Remaining, parse_remaining
from upbit_backbone.exchange.timeframes import WORDS
from upbit_backbone.models.enums import RateGroup

NOON = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)


def query(target: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(target).query, strict_parsing=True))


@pytest.mark.parametrize(
    ("call", "target", "group"),
    [
        (endpoints.markets(), "/v1/market/all?is_details=true", RateGroup.MARKET),
        (endpoints.tickers(["KRW-BTC", "BTC-ETH"]), "/v1/ticker?markets=KRW-BTC%2CBTC-ETH", RateGroup.TICKER),
        (endpoints.tickers_of_quotes(["KRW", "BTC"]), "/v1/ticker/all?quote_currencies=KRW%2CBTC", RateGroup.TICKER),
        (endpoints.orderbooks(["KRW-BTC"]), "/v1/orderbook?markets=KRW-BTC&count=30", RateGroup.ORDERBOOK),
        (
            endpoints.orderbooks(["KRW-BTC"], 5, 10000),
            "/v1/orderbook?markets=KRW-BTC&count=5&level=10000",
            RateGroup.ORDERBOOK,
        ),
        (
            endpoints.orderbooks(["KRW-XRP"], 5, Decimal("0.10")),
            "/v1/orderbook?markets=KRW-XRP&count=5&level=0.1",
            RateGroup.ORDERBOOK,
        ),
        (
            endpoints.trades("KRW-BTC", 500, to=NOON, days_ago=7),
            "/v1/trades/ticks?market=KRW-BTC&count=500&to=12%3A00%3A00&days_ago=7",
            RateGroup.TRADE,
        ),
        (
            endpoints.trades("KRW-BTC", 1, cursor=17951516403650000, days_ago=0),
            "/v1/trades/ticks?market=KRW-BTC&count=1&cursor=17951516403650000",
            RateGroup.TRADE,
        ),
        (
            endpoints.candles("1h", "KRW-BTC", 200, to=NOON),
            "/v1/candles/minutes/60?market=KRW-BTC&count=200&to=2026-11-20T12%3A00%3A00Z",
            RateGroup.CANDLE,
        ),
        (endpoints.candles("1d", "KRW-BTC", 1), "/v1/candles/days?market=KRW-BTC&count=1", RateGroup.CANDLE),
    ],
)
def test_what_goes_on_the_wire(call: endpoints.RestCall, target: str, group: RateGroup) -> None:
    assert (call.target, call.group) == (target, group)


def test_times_are_utc_and_a_fraction_of_a_second_rounds_up() -> None:
    kst = NOON.astimezone(timezone(timedelta(hours=9)))
    assert query(endpoints.candles("1m", "KRW-BTC", 1, to=kst).target)["to"] == "2026-11-20T12:00:00Z"
    late = NOON + timedelta(microseconds=1)
    assert query(endpoints.candles("1s", "KRW-BTC", 1, to=late).target)["to"] == "2026-11-20T12:00:01Z"


@pytest.mark.parametrize(
    "symbol",
    [
        "krw-btc",
        "KRW-BTC\n",
        "KRW-BTC&count=9",
        "KRW-BTC,KRW-ETH",
        "../KRW-BTC",
        "KRW-BTC%2CKRW-ETH",
        "ＫＲＷ-BTC",
        "KRW-",
        "-BTC",
        "KRWBTC",
        "K-BTC",
        "KRW-" + "A" * 21,
        "KRW-BTC-ETH",
        "",
        None,
        7,
        b"KRW-BTC",
    ],
)
def test_symbols_that_are_none_never_get_into_a_call(symbol: Any) -> None:
    for make in (
        lambda: endpoints.tickers(["KRW-BTC", symbol]),
        lambda: endpoints.orderbooks([symbol]),
        lambda: endpoints.trades(symbol, 1),
        lambda: endpoints.candles("1m", symbol, 1),
    ):
        with pytest.raises(InvalidRequestError):
            make()


@pytest.mark.parametrize("count", [0, -1, 201, 10**9, 1.5, True, "5", None])
def test_counts_out_of_range_are_refused_instead_of_silently_cut(count: Any) -> None:
    with pytest.raises(InvalidRequestError, match="from 1 to 200"):
        endpoints.candles("1m", "KRW-BTC", count)


def test_other_bad_arguments_are_refused() -> None:
    for make in (
        lambda: endpoints.tickers([]),
        lambda: endpoints.tickers_of_quotes(["krw"]),
        lambda: endpoints.tickers_of_quotes([]),
        lambda: endpoints.candles("1m", "KRW-BTC", 1, to=datetime(2026, 1, 1)),
        lambda: endpoints.candles("1m", "KRW-BTC", 1, to="now"),  # type: ignore[arg-type]
        lambda: endpoints.trades("KRW-BTC", 501),
        lambda: endpoints.trades("KRW-BTC", 1, days_ago=8),
        lambda: endpoints.trades("KRW-BTC", 1, cursor=-1),
        lambda: endpoints.orderbooks(["KRW-BTC"], 31),
        lambda: endpoints.orderbooks(["KRW-BTC"], 5, Decimal("NaN")),
        lambda: endpoints.orderbooks(["KRW-BTC"], 5, Decimal("-1")),
        lambda: endpoints.check_levels(0),
    ):
        with pytest.raises(InvalidRequestError):
            make()
    with pytest.raises(UnknownTimeframeError):
        endpoints.candles("2m", "KRW-BTC", 1)


ANYTHING = st.one_of(st.text(max_size=30), st.from_regex(r"[A-Z0-9]{2,10}-[A-Z0-9]{1,20}\n?", fullmatch=True))


@given(symbols=st.lists(ANYTHING, max_size=5), word=st.sampled_from(WORDS) | st.text(max_size=12))
def test_the_path_on_the_wire_is_always_one_of_ours(symbols: list[str], word: str) -> None:
    makers = [
        lambda: endpoints.tickers(symbols),
        lambda: endpoints.orderbooks(symbols),
        lambda: endpoints.instruments(symbols),
        lambda: endpoints.tickers_of_quotes(symbols),
        lambda: endpoints.trades(symbols[0], 1),
        lambda: endpoints.candles(word, symbols[0], 1),
    ]
    for make in makers:
        try:
            call = make()
        except (InvalidRequestError, IndexError):
            continue
        parts = urlsplit("https://api.upbit.com" + call.target)
        assert unquote(parts.path) == parts.path
        assert parts.path in PATHS
        assert (parts.hostname, parts.fragment) == ("api.upbit.com", "")
        assert tuple(query(call.target).items()) == call.params
        assert call.target.isascii()
        assert "\n" not in str(call)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("group=candles; min=600; sec=9", Remaining(RateGroup.CANDLE, "candles", 9)),
        ("group=crix-trades; min=600; sec=0", Remaining(RateGroup.TRADE, "crix-trades", 0)),
        ("sec=3;GROUP=Ticker", Remaining(RateGroup.TICKER, "ticker", 3)),
        ("group=origin; min=6; sec=0", Remaining(None, "origin", 0)),
        ("group=default; min=1799; sec=29", Remaining(None, "default", 29)),
        ("group=ticker; min=600", None),
        ("min=600; sec=9", None),
        ("group=ticker; sec=-1", None),
        ("group=ticker; sec=1e3", None),
        ("group=ticker; sec=٣", None),
        ("group=ticker; sec=" + "9" * 300, None),
        ("", None),
        (None, None),
    ],
)
def test_remaining_req_is_read_or_left_alone(header: str | None, expected: Remaining | None) -> None:
    assert parse_remaining(header) == expected


@given(st.text(max_size=300) | st.from_regex(r"group=.{0,20};? ?sec=.{0,9}"))
def test_remaining_req_never_raises(header: str) -> None:
    found = parse_remaining(header)
    assert found is None or found.per_second >= 0
