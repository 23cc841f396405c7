"""Parts in front of the REST channel: the reader, the board of tickers, and the probe for silent stalls."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.waiting import promised
from upbit_backbone._concurrency import SYSTEM_CLOCK, Deadline, join_all, spawn
from upbit_backbone.channels.markets import MarketDirectory
from upbit_backbone.channels.rest import AnswerCheck, RestChannel
from upbit_backbone.channels.snapshots import OrderbookSnapshot, TickerSnapshot
from upbit_backbone.channels.stream import StallProbe
from upbit_backbone.errors import (
    ChannelUnavailableError,
    InvalidRequestError,
    MalformedDataError,
    NetworkError,
    ServerError,
    StaleDataError,
    UnknownSymbolError,
)
from upbit_backbone.models.enums import DataSource, DataType, Priority, RequestKind
from upbit_backbone.models.market import OrderbookData, TickerData, TradeData
from upbit_backbone.models.request import DataRequest, Topic
from upbit_backbone.models.session import SessionHealth
from upbit_backbone.simulator import FakeUpbit
from upbit_backbone.store.live_store import LiveStore

Make = Callable[..., Any]


TYPES = {TickerData: DataType.TICKER, TradeData: DataType.TRADE, OrderbookData: DataType.ORDERBOOK}


class Desk:
    """A channel with its directory, reader, board and probe."""

    def __init__(self, made: Any, upbit: FakeUpbit) -> None:
        self.rest, self._upbit, self._remembered = made.rest, upbit, made.remembered
        self._since = self._last()
        self.store = LiveStore(10.0)
        self.directory = MarketDirectory(
            lambda deadline, priority: made.rest.markets(deadline=deadline),
            refused=made.rest.refuses,
            max_age=300.0,
            clock=SYSTEM_CLOCK,
        )
        check = AnswerCheck(self.store, made.rest.cache, SYSTEM_CLOCK, None)
        self.reader = RestChannel(made.rest, self.directory, check)
        self.asked: list[Topic] = []
        self.last_asked: dict[Topic, float] = {}
        self.board = TickerSnapshot(
            store=self.store, rest=made.rest, directory=self.directory, check=check, asked=self.asked.extend,
            last_asked=self.last_asked,
            acquire=lambda owner, requests: None, release=lambda owner: None, clock=SYSTEM_CLOCK, max_symbols=1000,
        )  # fmt: skip
        self.books = OrderbookSnapshot(
            store=self.store, rest=made.rest, directory=self.directory, check=check, asked=self.asked.extend,
            last_asked=self.last_asked, clock=SYSTEM_CLOCK, max_symbols=1000,
        )  # fmt: skip
        self.probe = StallProbe(made.rest, self.store, SYSTEM_CLOCK)

    def _last(self) -> int:
        log = self._upbit.wire_log(limit=1)
        return int(log[-1]["n"]) if log else 0

    @property
    def paths(self) -> list[str]:
        return [request["path"] for request in self._upbit.requests(since=self._since)]

    def ask(self, symbol: str, **options: Any) -> Any:
        request = DataRequest(options.pop("kind", RequestKind.TICKER), (symbol,), **options)
        item = self.reader.fetch(request, Deadline.after(10))
        self.directory.learn(each.symbol for each in self._remembered)
        return item

    def tickers(self, symbols: list[str] | None = None, quote: str | None = None, seconds: float = 10.0) -> Any:
        return self.board.tickers(symbols, quote, Priority.NORMAL, None, Deadline.after(seconds))

    def stream(self, item: TickerData | TradeData | OrderbookData) -> Topic:
        health = SessionHealth("session-1")
        health.epoch, health.connected, health.heard_at = 1, True, time.monotonic()
        topic = Topic(TYPES[type(item)], item.symbol)
        assert self.store.put(topic, item, health, 1, health.heard_at)
        return topic


@pytest.fixture
def desk(scene: Make, upbit: FakeUpbit) -> Desk:
    return Desk(scene(), upbit)


# --- one market ---


def test_the_first_question_about_a_quote_is_its_list_which_answers_the_next_ones_too(desk: Desk) -> None:
    assert desk.ask("KRW-BTC").symbol == "KRW-BTC"
    assert desk.ask("KRW-ETH", max_age=30.0).symbol == "KRW-ETH"
    assert desk.paths == ["/v1/ticker/all"]


def test_a_question_that_must_be_fresh_asks_for_its_market_alone(desk: Desk) -> None:
    assert desk.ask("KRW-BTC", max_age=0.0).symbol == "KRW-BTC"
    assert desk.paths == ["/v1/market/all", "/v1/ticker"]


@pytest.mark.parametrize("kind", [RequestKind.TICKER, RequestKind.ORDERBOOK])
def test_an_answer_that_was_longer_on_its_way_than_max_age_is_marked(
    desk: Desk, upbit: FakeUpbit, kind: RequestKind
) -> None:
    assert not desk.ask("KRW-BTC", kind=kind, max_age=5.0).degraded
    desk.rest.cache.invalidate_cache()
    path = "/v1/ticker" if kind is RequestKind.TICKER else "/v1/orderbook"
    upbit.rest_fault(path, mode="latency", latency=0.4)
    assert desk.ask("KRW-BTC", kind=kind, max_age=0.2).degraded


def test_what_a_stream_has_shown_since_is_given_instead_of_a_replica_that_lags(desk: Desk) -> None:
    told = desk.ask("KRW-BTC")
    later = told.timestamp + timedelta(seconds=9)
    topic = desk.stream(replace(told, timestamp=later, trade_timestamp=later, source=DataSource.WEBSOCKET))
    desk.store.forget(topic)
    again = desk.ask("KRW-BTC", max_age=0.0)
    assert again.trade_timestamp == told.trade_timestamp, "of a stream that is gone nobody knows"
    desk.stream(replace(told, timestamp=later, trade_timestamp=later, source=DataSource.WEBSOCKET))
    newest = desk.ask("KRW-BTC", max_age=0.0)
    assert (newest.timestamp, newest.degraded) == (later, True)
    assert desk.tickers(["KRW-BTC"])["KRW-BTC"].timestamp == later


def test_where_there_is_no_list_of_a_quote_the_one_market_is_asked_for(desk: Desk, upbit: FakeUpbit) -> None:
    upbit.rest_fault("/v1/ticker/all", mode="status", status=404, body="", times=None, seconds=30.0)
    assert desk.ask("KRW-BTC").symbol == "KRW-BTC"
    assert desk.paths[-1] == "/v1/ticker"


def test_a_sweep_over_books_is_one_list_and_a_single_book_is_not(desk: Desk) -> None:
    desk.ask("KRW-BTC", kind=RequestKind.ORDERBOOK, is_sweep=True)
    desk.ask("KRW-ETH", kind=RequestKind.ORDERBOOK, max_age=30.0)
    assert desk.paths == ["/v1/market/all", "/v1/orderbook"]


def test_unknown_markets_and_groupings_are_told_apart(desk: Desk) -> None:
    with pytest.raises(UnknownSymbolError, match="KRW-NOPE"):
        desk.ask("KRW-NOPE")
    with pytest.raises(UnknownSymbolError, match="KRW-NOPE"):
        desk.ask("KRW-NOPE", kind=RequestKind.ORDERBOOK)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
def test_who_is_interrupted_while_a_list_waits_for_company_leaves_nothing_behind(
    desk: Desk, upbit: FakeUpbit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upbit_backbone.rest.batching.PREDECESSOR_SECONDS", 10.0)
    upbit.rest_fault("/v1/ticker/all", mode="latency", latency=0.5, times=1)
    first = spawn(lambda: desk.ask("KRW-BTC"), "test-first")
    while not desk.paths:
        threading.Event().wait(0.002)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.03)
        with pytest.raises(KeyboardInterrupt):
            desk.ask("BTC-ETH")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert join_all([first], Deadline.after(10)) == []
    assert desk.ask("BTC-ETH").symbol == "BTC-ETH"
    began = time.monotonic()
    assert desk.ask("USDT-BTC", is_sweep=True).symbol == "USDT-BTC"
    assert time.monotonic() - began < promised(4.0)  # behind a list that nobody is on any more it would wait for ten


# --- absence is no proof ---


def answers(upbit: FakeUpbit, path: str, body: str, *, status: int = 200, times: int | None = None) -> None:
    lasts = {"times": times} if times is not None else {"times": None, "seconds": 30.0}
    upbit.rest_fault(path, mode="status", status=status, body=body, **lasts)


def listing(codes: list[str]) -> str:
    return json.dumps([{"market": code, "korean_name": code, "english_name": code} for code in codes])


@pytest.mark.parametrize("kind", [RequestKind.TICKER, RequestKind.ORDERBOOK])
def test_an_empty_answer_is_asked_for_again(desk: Desk, upbit: FakeUpbit, kind: RequestKind) -> None:
    path = "/v1/ticker" if kind is RequestKind.TICKER else "/v1/orderbook"
    answers(upbit, path, "[]", times=1)
    assert desk.ask("KRW-BTC", kind=kind, max_age=0.0).symbol == "KRW-BTC"
    assert desk.paths.count(path) == 2


@pytest.mark.parametrize("kind", [RequestKind.TICKER, RequestKind.ORDERBOOK])
def test_an_answer_that_stays_empty_is_an_error_worth_retrying(desk: Desk, upbit: FakeUpbit, kind: RequestKind) -> None:
    answers(upbit, "/v1/ticker", "[]")
    answers(upbit, "/v1/orderbook", "[]")
    with pytest.raises(MalformedDataError, match=r"KRW-BTC.*ask again") as caught:
        desk.ask("KRW-BTC", kind=kind, max_age=0.0)
    assert caught.value.retryable


def test_a_market_that_is_refused_but_listed_is_an_error_worth_retrying(desk: Desk, upbit: FakeUpbit) -> None:
    refusal = json.dumps({"error": {"name": 404, "message": "Code not found"}})
    answers(upbit, "/v1/ticker", refusal, status=404)
    with pytest.raises(ServerError, match=r"KRW-BTC.*lists it") as caught:
        desk.ask("KRW-BTC", max_age=0.0)
    assert caught.value.retryable


@pytest.mark.parametrize("keep", [0, 1, 20])
def test_a_sweep_that_was_cut_is_completed(desk: Desk, upbit: FakeUpbit, keep: int) -> None:
    codes = [code for code in upbit.markets() if code.startswith("KRW-")]
    rows = list(desk.rest.tickers(codes[:keep], deadline=Deadline.after(10)).values()) if keep else []
    body = json.dumps([_as_upbit(row) for row in rows])
    answers(upbit, "/v1/ticker/all", body)
    assert list(desk.tickers(quote="KRW")) == codes


def _as_upbit(row: TickerData) -> dict[str, object]:
    stamp = int(row.timestamp.timestamp() * 1000)
    return {"market": row.symbol, "trade_price": float(row.current_price), "timestamp": stamp, "trade_timestamp": stamp}


def test_what_is_missing_in_a_cut_market_list_is_asked_for_by_name(desk: Desk, upbit: FakeUpbit) -> None:
    answers(upbit, "/v1/market/all", listing(["KRW-BTC"]))
    desk.directory.require(("KRW-BTC", "KRW-ETH", "KRW-XRP"), Deadline.after(10))
    assert desk.paths == ["/v1/market/all", "/v1/ticker", "/v1/ticker"]
    with pytest.raises(UnknownSymbolError) as caught:
        desk.directory.require(("KRW-ETH", "KRW-NOPE"), Deadline.after(10))
    assert caught.value.symbols == ("KRW-NOPE",)


# --- many tickers ---


def test_what_streams_is_not_asked_for_and_the_rest_is_one_list(desk: Desk) -> None:
    live = desk.rest.tickers(["KRW-XRP"], deadline=Deadline.after(10))["KRW-XRP"]
    desk.stream(live)
    found = desk.tickers(["KRW-ETH", "KRW-XRP", "BTC-ETH"])
    assert list(found) == ["KRW-ETH", "KRW-XRP", "BTC-ETH"]
    assert found["KRW-XRP"] is live
    assert desk.paths == ["/v1/ticker", "/v1/market/all", "/v1/ticker"]
    assert {topic.symbol for topic in desk.asked} == {"KRW-ETH", "BTC-ETH"}


def test_what_streams_is_asked_for_by_whoever_asks_for_many_at_once(desk: Desk) -> None:
    """Else a minute's polling would end the stream that answered it."""
    before = time.monotonic()
    ticker = desk.stream(desk.rest.tickers(["KRW-XRP"], deadline=Deadline.after(10))["KRW-XRP"])
    book = desk.stream(desk.rest.orderbooks(["KRW-XRP"], levels=5, deadline=Deadline.after(10))["KRW-XRP"])
    assert list(desk.tickers(["KRW-XRP"])) == ["KRW-XRP"]
    assert list(desk.books.orderbooks(["KRW-XRP"], 5, Priority.NORMAL, None, Deadline.after(10))) == ["KRW-XRP"]
    assert desk.last_asked.keys() == {ticker, book}
    assert all(before <= at <= time.monotonic() for at in desk.last_asked.values())
    assert desk.asked == []


def test_from_twenty_markets_of_a_quote_on_its_whole_list_is_asked(desk: Desk, upbit: FakeUpbit) -> None:
    won = [code for code in upbit.markets() if code.startswith("KRW-")][:20]
    assert list(desk.tickers(won)) == won
    assert desk.paths == ["/v1/market/all", "/v1/ticker/all"]


def test_symbols_and_quote_together_or_an_unknown_quote_are_refused(desk: Desk) -> None:
    with pytest.raises(InvalidRequestError, match="not both"):
        desk.tickers(["KRW-BTC"], "KRW")
    with pytest.raises(InvalidRequestError, match="USDT"):
        desk.tickers(quote="EUR")


def test_when_neither_channel_answers_the_last_known_values_are_in_the_error(desk: Desk, upbit: FakeUpbit) -> None:
    known = desk.tickers(["KRW-BTC"])
    upbit.rest_fault("/v1/ticker", mode="status", status=500, times=None, seconds=30.0)
    with pytest.raises(ChannelUnavailableError, match="KRW-ETH"):
        desk.tickers(["KRW-ETH"], seconds=0.6)
    desk.store.remember(known.values())
    desk.rest.cache.invalidate_cache()
    with pytest.raises(StaleDataError) as caught:
        desk.tickers(["KRW-BTC"], seconds=0.6)
    assert caught.value.last_known == known
    assert caught.value.age >= 0


# --- the probe ---


def test_a_stream_that_missed_a_trade_is_convicted_and_a_quiet_one_is_not(desk: Desk, upbit: FakeUpbit) -> None:
    upbit.publish_trade("KRW-BTC")
    told = desk.rest.trades_page("KRW-BTC", deadline=Deadline.after(10))[0]
    topic = desk.stream(told)
    assert desk.probe(frozenset({topic})) == frozenset()
    upbit.publish_trade("KRW-BTC")
    assert desk.probe(frozenset({topic})) == {topic}


def test_a_book_behind_rests_convicts_its_stream_and_no_answer_convicts_nobody(desk: Desk, upbit: FakeUpbit) -> None:
    book = Topic(DataType.ORDERBOOK, "KRW-BTC")
    assert desk.probe(frozenset({book})) == {book}  # not a single book was streamed
    upbit.rest_fault("/v1/orderbook", mode="status", status=400, body="", times=None, seconds=30.0)
    assert desk.probe(frozenset({book})) is None
    assert desk.probe(frozenset()) is None


def test_a_value_from_the_future_is_never_behind(desk: Desk) -> None:
    told = desk.rest.tickers(["KRW-ETH"], deadline=Deadline.after(10))["KRW-ETH"]
    later = datetime.now(UTC) + timedelta(hours=1)
    ahead = TradeData(told.symbol, told.current_price, told.current_price, None, later, 1, DataSource.WEBSOCKET)
    assert desk.probe(frozenset({desk.stream(ahead)})) == frozenset()


def test_of_what_a_witness_has_seen_rest_is_not_asked(desk: Desk) -> None:
    told = desk.ask("KRW-BTC")
    topic = desk.stream(replace(told, source=DataSource.WEBSOCKET))
    other = Topic(DataType.TICKER, "KRW-ETH")
    had = len(desk.paths)
    later = told.timestamp + timedelta(seconds=9)
    desk.probe.witness = lambda topics: {topic: later}
    assert desk.probe(frozenset({topic})) == {topic}
    desk.probe.witness = lambda topics: {topic: told.trade_timestamp}
    assert desk.probe(frozenset({topic})) == frozenset()
    desk.probe.witness = lambda topics: {other: None}  # who streams it, and has seen nothing of it
    assert desk.probe(frozenset({other})) == frozenset()
    assert len(desk.paths) == had
    desk.probe.witness = lambda topics: {topic: later}
    assert desk.probe(frozenset({topic, other})) == {topic, other}
    assert desk.paths[had:] == ["/v1/ticker"]


def test_where_a_witness_cannot_be_asked_rest_is(desk: Desk) -> None:
    def fails(topics: frozenset[Topic]) -> dict[Topic, None]:
        raise NetworkError("Redis is away")

    topic = desk.stream(replace(desk.ask("KRW-BTC"), source=DataSource.WEBSOCKET))
    had = len(desk.paths)
    desk.probe.witness = fails
    assert desk.probe(frozenset({topic})) == frozenset()
    assert desk.paths[had:] == ["/v1/ticker"]
