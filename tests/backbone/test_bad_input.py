"""What cannot be asked is refused at once, in words, and nothing of it reaches the wire."""

from __future__ import annotations

import queue
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from upbit_backbone import (
    ClosedError,
    DataStrategy,
    InvalidRequestError,
    MarketDataBackbone,
    UnknownSymbolError,
    UnknownTimeframeError,
)

NAIVE = datetime(2026, 11, 20)  # whose clock was that?
NAN = float("nan")

Question = Callable[[MarketDataBackbone, Any], Any]

SYMBOL_QUESTIONS: dict[str, Question] = {
    "get_ticker": lambda market, symbol: market.get_ticker(symbol),
    "get_ticker realtime": lambda market, symbol: market.get_ticker(symbol, realtime=True),
    "get_tickers": lambda market, symbol: market.get_tickers([symbol]),
    "get_orderbook": lambda market, symbol: market.get_orderbook(symbol),
    "get_trades": lambda market, symbol: market.get_trades(symbol),
    "get_candles": lambda market, symbol: market.get_candles(symbol),
    "iter_candles": lambda market, symbol: market.iter_candles(symbol),
    "subscribe": lambda market, symbol: market.subscribe([symbol]),
    "subscribe_realtime": lambda market, symbol: market.subscribe_realtime([symbol], callback=print),
    "candle_series": lambda market, symbol: market.candle_series(symbol),
    "live_orderbook": lambda market, symbol: market.live_orderbook(symbol),
    "explain": lambda market, symbol: market.explain("ticker", symbol),
}
SYMBOLS: list[tuple[Any, str]] = [
    ("krw-btc", "did you mean 'KRW-BTC'"),
    ("KRW_BTC", "did you mean 'KRW-BTC'"),
    ("BTC", "such as 'KRW-BTC'"),
    ("", "such as 'KRW-BTC'"),
    ("KRW-BTC&markets=KRW-ETH", "such as 'KRW-BTC'"),
    ("KRW-BTC\n", "KRW-BTC"),
    (None, "such as 'KRW-BTC'"),
    (5, "such as 'KRW-BTC'"),
    (b"KRW-BTC", "such as 'KRW-BTC'"),
    (["KRW-BTC"], "such as 'KRW-BTC'"),
]


@pytest.mark.parametrize("name", SYMBOL_QUESTIONS)
def test_a_symbol_that_is_none_is_refused_with_a_hint(market: MarketDataBackbone, wire: Any, name: str) -> None:
    for symbol, hint in SYMBOLS:
        with pytest.raises(InvalidRequestError, match="expected") as caught:
            SYMBOL_QUESTIONS[name](market, symbol)
        assert hint in str(caught.value)
        assert "\n" not in str(caught.value)
    assert wire.arrivals == []


@pytest.mark.parametrize("name", [name for name in SYMBOL_QUESTIONS if name != "explain"])
def test_a_market_that_does_not_exist_is_named_with_near_ones(market: MarketDataBackbone, wire: Any, name: str) -> None:
    if name.startswith("subscribe"):
        market.get_markets()  # without the list they begin at once; what becomes of those stands in a file of its own
    with pytest.raises(UnknownSymbolError, match="KRW-BTCC") as caught:
        list(SYMBOL_QUESTIONS[name](market, "KRW-BTCC") or ())
    assert caught.value.symbols == ("KRW-BTCC",)
    assert "KRW-BTC" in caught.value.suggestions
    assert len(wire.requests) <= 4  # the market list, and Upbit's own word on that name
    # Its candles are asked for at once, without the list: Upbit's refusal of the first page is its word on the name.
    assert sum(request["path"] == "/v1/candles/minutes/1" for request in wire.requests) <= (name == "get_candles")


REFUSED: dict[str, tuple[Callable[[MarketDataBackbone], Any], str]] = {
    "count 0": (lambda market: market.get_candles("KRW-BTC", "1m", 0), "count=0: expected a whole number"),
    "count -1": (lambda market: market.get_candles("KRW-BTC", "1m", -1), "count=-1: expected a whole number"),
    "count 10**9": (lambda market: market.get_candles("KRW-BTC", "1m", 10**9), "iter_candles"),
    "count True": (lambda market: market.get_candles("KRW-BTC", "1m", True), "count=True: expected a whole number"),
    "count text": (lambda market: market.get_candles("KRW-BTC", "1m", "5"), "count='5': expected a whole number"),
    "count float": (lambda market: market.get_candles("KRW-BTC", "1m", 5.0), "count=5.0: expected a whole number"),
    "trades 0": (lambda market: market.get_trades("KRW-BTC", 0), "count=0: expected a whole number"),
    "trades 10**9": (lambda market: market.get_trades("KRW-BTC", 10**9), "expected a whole number"),
    "trades True": (lambda market: market.get_trades("KRW-BTC", True), "count=True: expected a whole number"),
    "days_ago 8": (
        lambda market: market.get_trades("KRW-BTC", days_ago=8),
        "days_ago=8: expected a whole number from 0 to 7",
    ),
    "since naive": (lambda market: market.get_trades("KRW-BTC", since=NAIVE), "time zone"),
    "since text": (lambda market: market.get_trades("KRW-BTC", since="today"), "expected a time"),
    "series size": (lambda market: market.candle_series("KRW-BTC", "1m", 0), "size=0: expected a whole number"),
    "series callback": (lambda market: market.candle_series("KRW-BTC", on_update=5), "on_update=5: expected"),
    "to naive": (lambda market: market.get_candles("KRW-BTC", to=NAIVE), "time zone"),
    "start naive": (lambda market: market.get_candles("KRW-BTC", start=NAIVE), "time zone"),
    "end alone": (lambda market: market.get_candles("KRW-BTC", end=datetime(2026, 1, 1, tzinfo=UTC)), "allowed"),
    "start and count": (
        lambda market: market.get_candles("KRW-BTC", count=5, start=datetime(2026, 1, 1, tzinfo=UTC)),
        "do not go together",
    ),
    "to text": (lambda market: market.get_candles("KRW-BTC", to="2026-01-01"), "'2026-01-01 00:00+09:00'"),
    "fill": (lambda market: market.get_candles("KRW-BTC", fill="zero"), "fill='zero': expected"),
    "progress": (lambda market: market.get_candles("KRW-BTC", progress=5), "progress=5: expected"),
    "cancel": (lambda market: market.get_candles("KRW-BTC", cancel=True), "cancel=True: expected"),
    "candles by stream": (
        lambda market: market.get_candles("KRW-BTC", strategy=DataStrategy.WEBSOCKET_ONLY),
        "no history",
    ),
    "iter newest filled": (
        lambda market: market.iter_candles("KRW-BTC", count=5, fill="forward", newest_first=True),
        "newest_first",
    ),
    "timeout nan": (lambda market: market.get_ticker("KRW-BTC", timeout=NAN), "timeout=nan: expected"),
    "timeout negative": (lambda market: market.get_ticker("KRW-BTC", timeout=-1), "timeout=-1: expected"),
    "timeout text": (lambda market: market.get_ticker("KRW-BTC", timeout="5"), "timeout='5': expected"),
    "timeout True": (lambda market: market.get_ticker("KRW-BTC", timeout=True), "timeout=True: expected"),
    "timeout of tickers": (lambda market: market.get_tickers(["KRW-BTC"], timeout=NAN), "timeout=nan: expected"),
    "timeout of candles": (lambda market: market.get_candles("KRW-BTC", timeout=NAN), "timeout=nan: expected"),
    "timeout of iter": (lambda market: market.iter_candles("KRW-BTC", timeout=-1), "timeout=-1: expected"),
    "timeout of trades": (lambda market: market.get_trades("KRW-BTC", timeout=-1), "timeout=-1: expected"),
    "timeout of markets": (lambda market: market.get_markets(timeout="1"), "timeout='1': expected"),
    "timeout of series": (lambda market: market.candle_series("KRW-BTC", timeout=NAN), "timeout=nan: expected"),
    "timeout of book": (lambda market: market.live_orderbook("KRW-BTC", timeout=NAN), "timeout=nan: expected"),
    "max_age": (lambda market: market.get_ticker("KRW-BTC", max_age=-0.1), "max_age=-0.1: expected"),
    "max_age text": (lambda market: market.get_tickers(max_age="1"), "max_age='1': expected"),
    "max_age of markets": (lambda market: market.get_markets(max_age=NAN), "max_age=nan: expected"),
    "realtime": (lambda market: market.get_ticker("KRW-BTC", realtime="yes"), "realtime='yes': expected"),
    "realtime None": (lambda market: market.get_ticker("KRW-BTC", realtime=None), "realtime=None: expected"),
    "strategy": (lambda market: market.get_ticker("KRW-BTC", strategy="fastest"), "rest_only"),
    "priority": (lambda market: market.get_ticker("KRW-BTC", priority=7), "priority=7: expected one of HIGH"),
    "priority of tickers": (lambda market: market.get_tickers(priority="now"), "priority='now': expected"),
    "priority of trades": (lambda market: market.get_trades("KRW-BTC", priority=7), "priority=7: expected"),
    "levels 0": (lambda market: market.get_orderbook("KRW-BTC", levels=0), "levels=0: expected"),
    "levels 31": (lambda market: market.get_orderbook("KRW-BTC", levels=31), "levels=31: expected"),
    "levels True": (lambda market: market.get_orderbook("KRW-BTC", levels=True), "levels=True: expected"),
    "levels of live book": (lambda market: market.live_orderbook("KRW-BTC", levels=31), "levels=31: expected"),
    "level": (lambda market: market.get_orderbook("KRW-BTC", level=-1), "level=-1: expected"),
    "level float": (lambda market: market.get_orderbook("KRW-BTC", level=0.1), "level=0.1: expected"),
    "quote": (lambda market: market.get_tickers(quote="krw"), "quote 'krw': expected"),
    "quote and symbols": (lambda market: market.get_tickers(["KRW-BTC"], quote="KRW"), "either symbols or quote"),
    "quote of markets": (lambda market: market.get_markets(5), "quote 5: expected"),
    "no symbols": (lambda market: market.get_tickers([]), "at least one market code"),
    "symbols number": (lambda market: market.get_tickers(5), "symbols 5: expected"),
    "subscribe nothing": (lambda market: market.subscribe([]), "at least one market code"),
    "subscribe no types": (lambda market: market.subscribe("KRW-BTC", []), "at least one of ticker"),
    "subscribe type": (lambda market: market.subscribe("KRW-BTC", "prices"), "candle.240m"),
    "subscribe overflow": (lambda market: market.subscribe("KRW-BTC", overflow="drop"), "Overflow.CONFLATE"),
    "subscribe maxsize": (lambda market: market.subscribe("KRW-BTC", maxsize=0), "maxsize=0: expected"),
    "subscribe queue": (lambda market: market.subscribe("KRW-BTC", queue=[]), "queue.Queue"),
    "subscribe heap": (lambda market: market.subscribe("KRW-BTC", queue=queue.PriorityQueue()), "queue.Queue"),
    "subscribe levels": (lambda market: market.subscribe("KRW-BTC", "orderbook", levels=0), "levels=0: expected"),
    "subscribe level": (lambda market: market.subscribe("KRW-BTC", "orderbook", level="x"), "level='x': expected"),
    "subscribe on_event": (lambda market: market.subscribe("KRW-BTC", on_event=5), "on_event=5: expected"),
    "callback None": (lambda market: market.subscribe_realtime("KRW-BTC"), "callback=None: expected"),
    "callback": (lambda market: market.subscribe_realtime("KRW-BTC", callback="print"), "callback='print': expected"),
    "on_error": (lambda market: market.subscribe_realtime("KRW-BTC", callback=print, on_error=1), "on_error=1"),
    "unsubscribe": (lambda market: market.unsubscribe(5), "expected what subscribe"),
    "on_event": (lambda market: market.on_event(None), "on_event=None: expected"),
    "alert": (lambda market: market.alert("call me"), "callback='call me': expected"),
    "submit": (lambda market: market.submit("get_ticker", "KRW-BTC"), "method='get_ticker': expected"),
    "explain kind": (lambda market: market.explain("price", "KRW-BTC"), "kind='price': expected one of ticker"),
    "explain option": (lambda market: market.explain("ticker", "KRW-BTC", speed=5), "'speed' is no option"),
    "cache key": (lambda market: market.get_cached_data("KRW-BTC"), "('ticker', 'KRW-BTC')"),
    "cache list": (lambda market: market.cache_data(("ticker", []), 1), "('ticker', 'KRW-BTC')"),
    "cache ttl": (lambda market: market.cache_data(("mine", 1), 1, ttl=NAN), "ttl=nan: expected"),
    "cache kind": (lambda market: market.invalidate_cache(data_type=5), "data_type=5: expected"),
    "cache symbol": (lambda market: market.invalidate_cache("krw-btc"), "did you mean 'KRW-BTC'"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_asked_is_refused_before_anything_goes_on_the_wire(
    market: MarketDataBackbone, wire: Any, what: str
) -> None:
    ask, words = REFUSED[what]
    with pytest.raises(InvalidRequestError) as caught:
        ask(market)
    assert words in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert wire.arrivals == []


def test_bad_options_are_refused_on_the_hot_path_too(streaming: Callable[..., MarketDataBackbone]) -> None:
    market = streaming("KRW-BTC")
    for options in ({"timeout": NAN}, {"timeout": "1"}, {"priority": 7}, {"realtime": None}, {"max_age": -1}):
        with pytest.raises(InvalidRequestError, match="expected"):
            market.get_ticker("KRW-BTC", **options)


@pytest.mark.parametrize("timeframe", ["2m", "1M ", "", None, 60, "1 minute"])
def test_unknown_timeframes_are_refused_with_the_list_of_those_that_exist(
    market: MarketDataBackbone, wire: Any, timeframe: Any
) -> None:
    for ask in (market.get_candles, market.iter_candles, market.candle_series):
        with pytest.raises(UnknownTimeframeError, match=r"1m.*1d"):
            ask("KRW-BTC", timeframe)
    assert wire.arrivals == []


def test_a_quote_that_nobody_uses_is_named_with_those_in_use(market: MarketDataBackbone) -> None:
    with pytest.raises(InvalidRequestError, match="BTC, KRW, USDT"):
        market.get_tickers(quote="EUR")


def test_after_close_every_method_says_so_at_once(
    backbone: Callable[..., MarketDataBackbone], wire: Any, streaming: Callable[..., MarketDataBackbone], tmp_path: Any
) -> None:
    market = streaming("KRW-BTC")
    market.close()
    wire.start_over()
    methods: list[Callable[[], Any]] = [
        *(lambda ask=ask: ask(market, "KRW-BTC") for ask in SYMBOL_QUESTIONS.values()),
        lambda: market.get_markets(),
        lambda: market.get_tickers(),
        lambda: market.unsubscribe("sub-1"),
        lambda: market.on_event(print),
        lambda: market.check_rest_api_health(),
        lambda: market.check_websocket_health(),
        lambda: market.alert(print),
        lambda: market.record(tmp_path / "recording"),
        lambda: market.submit(market.get_ticker, "KRW-BTC"),
        lambda: market.get_cached_data(("ticker", "KRW-BTC")),
        lambda: market.cache_data(("ticker", "KRW-BTC"), 1),
        lambda: market.invalidate_cache(),
        lambda: market.router,
        lambda: market.__enter__(),
    ]
    for method in methods:
        with pytest.raises(ClosedError, match="closed"):
            method()
    assert wire.arrivals == []
    market.close()
    assert market.closed
    assert "closed" in repr(market)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"timeout_seconds": -1}, "timeout_seconds=-1: expected"),
        ({"region": "jp"}, "kr, sg, id, th"),
        ({"rest_url": "http://api.upbit.com"}, "https"),
        ({"speed": 1}, "'speed' is no setting"),
        ({"timeout": 1}, "'timeout' is no setting; did you mean timeout_seconds"),
        ({"config": 5}, "expected a BackboneConfig"),
        ({"on_event": 5}, "on_event=5: expected"),
    ],
)
def test_bad_settings_are_refused_when_the_backbone_is_made(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        MarketDataBackbone(**settings)
