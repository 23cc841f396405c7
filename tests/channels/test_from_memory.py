"""What answers without REST: the live value, and the next frame."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.support.clock import ManualClock
from tests.support.waiting import wait_until
from upbit_backbone._concurrency import SYSTEM_CLOCK, Deadline, SystemClock, join_all, spawn
from upbit_backbone.channels.markets import GIVEN_UP_SECONDS, MarketDirectory
from upbit_backbone.channels.stream import LiveChannel, StreamWaitChannel, topic_of
from upbit_backbone.errors import (
    ChannelUnavailableError,
    MalformedDataError,
    NetworkError,
    RequestTimeoutError,
    ServerError,
    StaleDataError,
    UnknownSymbolError,
)
from upbit_backbone.models.enums import DataSource, DataType, RequestKind
from upbit_backbone.models.market import MarketInfo, OrderbookData, OrderbookUnit, TickerData
from upbit_backbone.models.request import DataRequest, SubscriptionRequest, Topic
from upbit_backbone.models.session import SessionHealth
from upbit_backbone.store.live_store import LiveStore

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
ASK = DataRequest(RequestKind.TICKER, ("KRW-BTC",))


def ticker(price: int) -> TickerData:
    at = NOON + timedelta(seconds=price)
    return TickerData("KRW-BTC", Decimal(price), *[Decimal(price)] * 6, at, DataSource.WEBSOCKET)


def book(levels: int) -> OrderbookData:
    units = tuple(OrderbookUnit(Decimal(100 + level), Decimal(1)) for level in range(levels))
    return OrderbookData("KRW-BTC", units, units, Decimal(levels), Decimal(levels), NOON, DataSource.WEBSOCKET)


class Stream:
    """A store with one session that is well, and who requested for what on it."""

    def __init__(self) -> None:
        self.store = LiveStore(10.0)
        self.health = SessionHealth("session-1")
        self.health.epoch, self.health.connected = 1, True
        self.health.heard_at = time.monotonic()
        self.requested: list[Topic] = []
        self.released: list[Topic] = []
        self.directory = MarketDirectory(
            lambda deadline, priority: [MarketInfo("KRW-BTC", "비트코인", "Bitcoin", DataSource.REST)],
            refused=lambda symbol, deadline: True,
            max_age=60.0,
            clock=SYSTEM_CLOCK,
        )
        self.channel = StreamWaitChannel(self.store, self.directory, self.acquire, self.release, SYSTEM_CLOCK)

    def say(self, item: TickerData | OrderbookData) -> None:
        kind = DataType.TICKER if isinstance(item, TickerData) else DataType.ORDERBOOK
        self.health.heard_at = time.monotonic()
        assert self.store.put(Topic(kind, item.symbol), item, self.health, 1, self.health.heard_at)

    def acquire(self, owner: object, requests: Iterable[SubscriptionRequest]) -> None:
        self.requested += [request.topic for request in requests]

    def release(self, owner: object) -> None:
        self.released += self.requested[len(self.released) :]


@pytest.fixture
def stream() -> Stream:
    return Stream()


# --- the live value ---


def test_a_live_value_is_given_and_a_book_cut_to_the_levels_asked(stream: Stream) -> None:
    live = LiveChannel(stream.store, SYSTEM_CLOCK)
    stream.say(ticker(7))
    stream.say(book(30))
    assert live.fetch(ASK, Deadline.after(0)) == ticker(7)
    cut = live.fetch(DataRequest(RequestKind.ORDERBOOK, ("KRW-BTC",), levels=5), Deadline.after(0))
    assert isinstance(cut, OrderbookData)
    assert (len(cut.asks), len(cut.bids)) == (5, 5)


def test_where_nothing_is_live_the_error_says_why(stream: Stream) -> None:
    live = LiveChannel(stream.store, SYSTEM_CLOCK)
    with pytest.raises(StaleDataError, match="KRW-BTC"):
        live.fetch(ASK, Deadline.after(0))
    stream.say(ticker(7))
    stream.health.connected = False
    with pytest.raises(StaleDataError, match="KRW-BTC"):
        live.fetch(ASK, Deadline.after(0))


def test_a_grouped_book_is_another_stream_than_a_plain_one() -> None:
    grouped = DataRequest(RequestKind.ORDERBOOK, ("KRW-BTC",), level=Decimal(10000))
    assert topic_of(grouped) != topic_of(DataRequest(RequestKind.ORDERBOOK, ("KRW-BTC",)))
    assert topic_of(ASK) == Topic(DataType.TICKER, "KRW-BTC")


# --- the next frame ---


def test_what_is_proven_current_answers_at_once_and_is_not_subscribed(stream: Stream) -> None:
    stream.say(ticker(7))
    assert stream.channel.fetch(ASK, Deadline.after(5)) == ticker(7)
    assert stream.requested == []


def test_realtime_takes_the_first_frame_after_the_call_and_subscribes_only_as_long(stream: Stream) -> None:
    stream.say(ticker(7))
    asked = DataRequest(RequestKind.TICKER, ("KRW-BTC",), realtime=True)
    answers: list[object] = []
    thread = spawn(lambda: answers.append(stream.channel.fetch(asked, Deadline.after(10))), "test-next")
    wait_until(lambda: stream.requested, "the request for the stream")
    stream.say(ticker(8))
    assert join_all([thread], Deadline.after(10)) == []
    assert answers == [ticker(8)]
    assert stream.requested == stream.released == [Topic(DataType.TICKER, "KRW-BTC")]


def test_a_quiet_market_is_a_timeout_and_a_lost_line_is_not(stream: Stream) -> None:
    asked = DataRequest(RequestKind.TICKER, ("KRW-BTC",), realtime=True)
    stream.say(ticker(7))
    with pytest.raises(RequestTimeoutError, match="quiet market"):
        stream.channel.fetch(asked, Deadline.after(0.05))
    stream.health.connected = False
    with pytest.raises(ChannelUnavailableError):
        stream.channel.fetch(asked, Deadline.after(0.05))
    assert stream.requested == stream.released


def test_an_unknown_market_is_never_subscribed(stream: Stream) -> None:
    with pytest.raises(UnknownSymbolError, match="did you mean KRW-BTC"):
        stream.channel.fetch(DataRequest(RequestKind.TICKER, ("KRW-BTCC",)), Deadline.after(5))
    assert stream.requested == []


# --- which markets exist ---


class Directory(MarketDirectory):
    """Given one list after the other; Upbit refuses by name what is not in `exists` (None: refuses all)."""

    def __init__(self, *lists: list[str] | Exception, max_age: float = 0.0, exists: Iterable[str] = ()) -> None:
        self.waiting, self.loads, self.named = list(lists), 0, list[str]()
        self.exists = set(exists)
        super().__init__(self.give, refused=self.refuse, max_age=max_age, clock=SYSTEM_CLOCK)

    def give(self, deadline: Deadline, priority: object) -> list[MarketInfo]:
        self.loads += 1
        given = self.waiting.pop(0)
        if isinstance(given, Exception):
            raise given
        return [MarketInfo(code, code, code, DataSource.REST) for code in given]

    def refuse(self, symbol: str, deadline: Deadline) -> bool:
        self.named.append(symbol)
        return symbol not in self.exists


def test_a_failed_refresh_keeps_the_last_good_list() -> None:
    known = Directory(["KRW-BTC", "BTC-ETH"], NetworkError("gone"))
    assert known.age() is None
    first = known.markets(Deadline.after(5))
    assert known.markets(Deadline.after(5)) == first
    assert known.loads == 2
    assert known.listed("BTC") == ("BTC-ETH",)


def test_a_list_from_before_the_machines_sleep_is_asked_for_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Directory(["KRW-BTC"], ["KRW-BTC", "KRW-ETH"], max_age=300.0)
    assert known.markets(Deadline.after(5)) == known.markets(Deadline.after(5))
    assert known.loads == 1
    monkeypatch.setattr(SystemClock, "wall_seconds", staticmethod(lambda: time.time() + 3600.0))
    known.markets(Deadline.after(5))
    assert known.loads == 2


def test_without_any_list_nothing_is_refused() -> None:
    known = Directory(NetworkError("gone"), NetworkError("gone"))
    known.require(("KRW-ANY",), Deadline.after(5))
    assert known.loads == 1
    with pytest.raises(NetworkError):
        known.markets(Deadline.after(5))


def test_who_subscribes_often_waits_once_for_a_list_that_nobody_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of a hundred subscriptions would have waited two seconds for a REST that hangs."""
    known = Directory(NetworkError("gone"), ["KRW-BTC"])
    clock = ManualClock()
    monkeypatch.setattr(known, "_clock", clock)
    for symbol in ("KRW-BTC", "KRW-ETH", "BTC-KRW"):
        known.require((known.meant(symbol, Deadline.after(5)),), Deadline.after(5))
    assert known.loads == 1
    clock.now += GIVEN_UP_SECONDS
    with pytest.raises(UnknownSymbolError):
        known.require(("KRW-ETH",), Deadline.after(5))


def test_what_was_in_an_answer_exists_until_a_list_and_upbit_itself_say_otherwise() -> None:
    known = Directory(["KRW-ETH"], ["KRW-ETH"], max_age=60.0)
    known.learn(["KRW-BTC"])
    known.require(("KRW-BTC",), Deadline.after(5))
    assert known.loads == 0
    known.markets(Deadline.after(5))
    assert known.loads == 2  # half of what is known was missing
    with pytest.raises(UnknownSymbolError):
        known.require(("KRW-BTC",), Deadline.after(5))
    assert known.named == ["KRW-BTC"]


EIGHT = [f"KRW-{base}" for base in ("BTC", "ETH", "XRP", "ADA", "SOL", "DOT", "TRX", "XLM")]


@pytest.mark.parametrize("cut", [[], EIGHT[:1], EIGHT[:4], EIGHT[1:]])
def test_a_list_that_shrank_is_asked_for_again(cut: list[str]) -> None:
    known = Directory(EIGHT, cut, EIGHT)
    known.markets(Deadline.after(5))
    assert [market.symbol for market in known.markets(Deadline.after(5))] == EIGHT
    assert known.loads == 3


def test_a_list_that_says_twice_that_it_shrank_is_believed() -> None:
    known = Directory(EIGHT, EIGHT[:4], EIGHT[:4])
    known.markets(Deadline.after(5))
    assert [market.symbol for market in known.markets(Deadline.after(5))] == EIGHT[:4]


@pytest.mark.parametrize(("first", "second"), [(EIGHT[:2], EIGHT[:5]), ([], []), (EIGHT[:1], [])])
def test_lists_that_contradict_each_other_leave_the_last_good_one(first: list[str], second: list[str]) -> None:
    known = Directory(EIGHT, first, second)
    known.markets(Deadline.after(5))
    assert [market.symbol for market in known.markets(Deadline.after(5))] == EIGHT
    assert known.knows("KRW-XLM")


def test_a_first_list_that_is_empty_is_an_error() -> None:
    with pytest.raises(MalformedDataError):
        Directory([], []).markets(Deadline.after(5))


def test_what_a_cut_list_lacks_is_refused_only_if_upbit_refuses_it_too() -> None:
    known = Directory(EIGHT[:4], max_age=60.0, exists=EIGHT)
    known.require(EIGHT, Deadline.after(5))
    known.require(EIGHT, Deadline.after(5))
    assert known.loads == 1
    assert known.named == EIGHT[4:]
    with pytest.raises(UnknownSymbolError) as caught:
        known.require([*EIGHT, "KRW-NOPE"], Deadline.after(5))
    assert caught.value.symbols == ("KRW-NOPE",)


def test_what_a_cut_list_lacks_and_another_answer_showed_is_not_gone_because_one_endpoint_refuses_it() -> None:
    known = Directory(EIGHT[:4], max_age=60.0, exists=EIGHT)
    known.require(EIGHT, Deadline.after(5))
    error = known.verdict(EIGHT[-1], Deadline.after(5))
    assert type(error) is ServerError
    assert error.retryable


@pytest.mark.parametrize(
    ("lists", "verdict"),
    [
        ([EIGHT], ServerError),
        ([EIGHT[1:]], UnknownSymbolError),
        ([NetworkError("gone")], UnknownSymbolError),
    ],
)
def test_a_refusal_by_name_counts_only_with_the_list(lists: list[Any], verdict: type[Exception]) -> None:
    error = Directory(*lists).verdict(EIGHT[0], Deadline.after(5))
    assert type(error) is verdict
    assert error.retryable is (verdict is ServerError)


def test_a_market_known_before_is_not_gone_while_no_list_can_be_had() -> None:
    known = Directory(EIGHT, NetworkError("gone"), max_age=60.0)
    known.markets(Deadline.after(5))
    known._loaded_at -= 30.0  # too old to tell what has been delisted since
    assert isinstance(known.verdict(EIGHT[0], Deadline.after(5)), ServerError)
