"""The one door for data: everything wanted comes through once and in order, and poison harms nothing but itself."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.clock import ManualClock
from upbit_backbone._concurrency import SYSTEM_CLOCK, Clock, Deadline
from upbit_backbone.backfill.gap_repair import GapRepair
from upbit_backbone.delivery.event_bus import EventBus
from upbit_backbone.delivery.hub import Hub
from upbit_backbone.errors import MalformedDataError
from upbit_backbone.exchange.endpoints import tickers
from upbit_backbone.exchange.fields import Spelling
from upbit_backbone.intake import Intake, SessionExpectation
from upbit_backbone.models.enums import DataSource, DataType
from upbit_backbone.models.events import MalformedEvent, UnreadFieldEvent
from upbit_backbone.models.half_made import SAMPLED_EVERY, rest_of
from upbit_backbone.models.lazy_book import LazyBook
from upbit_backbone.models.market import OrderbookData, TickerData, TradeData, frame_of
from upbit_backbone.models.request import Topic
from upbit_backbone.models.session import FirstFrame, RefusedFrames, SessionHealth, StreamError, UpStatus
from upbit_backbone.simulator import FakeUpbit
from upbit_backbone.store.live_store import LiveStore
from upbit_backbone.unify.stream import StreamDecoder
from upbit_backbone.unify.writer import encode_frame
from upbit_backbone.wire.rest_transport import RestTransport

NOW_MS = 1_772_366_400_000
TICKER = Topic(DataType.TICKER, "KRW-BTC")
TRADE = Topic(DataType.TRADE, "KRW-BTC")
BOOK = Topic(DataType.ORDERBOOK, "KRW-BTC")
HOUR = Topic(DataType.CANDLE_60M, "KRW-BTC")
EVERYTHING = frozenset({TICKER, TRADE, BOOK, HOUR})


def ticker(number: int, code: str = "KRW-BTC", stamp: int | None = None) -> bytes:
    fields = {
        "type": "ticker", "code": code, "opening_price": 1, "high_price": 2, "low_price": 1, "trade_price": number,
        "prev_closing_price": 1, "change": "RISE", "change_price": 1, "signed_change_price": 1, "change_rate": 0.1,
        "signed_change_rate": 0.1, "trade_volume": 1, "acc_trade_volume": 1, "acc_trade_volume_24h": 1,
        "acc_trade_price": 1, "acc_trade_price_24h": 1, "trade_date": "20260301", "trade_time": "120000",
        "trade_timestamp": NOW_MS, "ask_bid": "BID", "acc_ask_volume": 1, "acc_bid_volume": 1,
        "highest_52_week_price": 9, "highest_52_week_date": "2026-01-01", "lowest_52_week_price": 1,
        "lowest_52_week_date": "2026-01-01", "market_state": "ACTIVE", "delisting_date": None,
        "timestamp": NOW_MS + number if stamp is None else stamp, "stream_type": "REALTIME",
    }  # fmt: skip
    return json.dumps(fields, separators=(",", ":")).encode()


def trade(number: int, code: str = "KRW-BTC") -> bytes:
    fields = {
        "type": "trade", "code": code, "timestamp": NOW_MS + number, "trade_date": "2026-03-01",
        "trade_time": "12:00:00", "trade_timestamp": NOW_MS + number, "trade_price": number + 1, "trade_volume": 1,
        "ask_bid": "BID", "prev_closing_price": 1, "change": "RISE", "change_price": 1, "sequential_id": number,
        "best_ask_price": 2, "best_ask_size": 1, "best_bid_price": 1, "best_bid_size": 1, "stream_type": "REALTIME",
    }  # fmt: skip
    return json.dumps(fields, separators=(",", ":")).encode()


def book(number: int, level: float = 0, units: str | None = None, stamp: int | None = None) -> bytes:
    units = '{"ask_price":11.5,"bid_price":10.5,"ask_size":1,"bid_size":2}' if units is None else units
    return (
        f'{{"type":"orderbook","code":"KRW-BTC","timestamp":{NOW_MS + number if stamp is None else stamp},'
        f'"total_ask_size":{number + 1},"total_bid_size":2.5,"orderbook_units":[{units}],'
        f'"stream_type":"REALTIME","level":{level}}}'
    ).encode()


def candle() -> bytes:
    fields = {
        "type": "candle.60m", "code": "KRW-BTC", "candle_date_time_utc": "2026-03-01T12:00:00",
        "candle_date_time_kst": "2026-03-01T21:00:00", "opening_price": 1, "high_price": 1, "low_price": 1,
        "trade_price": 1, "candle_acc_trade_volume": 1, "candle_acc_trade_price": 1, "timestamp": NOW_MS,
        "stream_type": "SNAPSHOT",
    }  # fmt: skip
    return json.dumps(fields, separators=(",", ":")).encode()


@pytest.fixture(scope="module")
def upbit() -> Iterator[FakeUpbit]:
    with FakeUpbit(trades_per_second=0, markets=3) as server:
        yield server


class Bench:
    """An intake with everything behind it, and a session that speaks to it."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self.events = EventBus()
        self.store = LiveStore(10.0)
        self.hub = Hub(self.events, current=lambda topic: self.intake.current(topic))
        self.jobs: list[Callable[[], None]] = []
        self.repair = GapRepair(
            trades_page=lambda symbol, **_: [],
            candles_page=lambda symbol, timeframe, **_: [],
            publish=self.hub.publish,
            emit=self.events.emit,
            run_job=self.jobs.append,
            wanted=self.hub.is_wanted,
        )
        self.intake = Intake(self.store, self.hub, repair=self.repair, emit=self.events.emit, clock=clock)
        self.health = SessionHealth("ws-1")
        self.health.connected = True
        self.health.heard_at = time.monotonic()
        self.health.epoch = 1

    def streams(self, *topics: Topic) -> None:
        self.intake.subscribed(self.health, self.health.epoch, frozenset(topics))

    def read(self, *frames: bytes) -> list[Any]:
        return list(self.intake.frames(self.health, self.health.epoch, list(frames), time.monotonic()))

    def current(self, topic: Topic) -> Any:
        return self.store.current(topic, time.monotonic())

    def reported(self) -> list[MalformedEvent]:
        return [event for event in self.events.recent() if isinstance(event, MalformedEvent)]


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.hub.close(Deadline.after(2))
    bench.events.close(Deadline.after(2))


def test_what_is_wanted_is_kept_and_published(bench: Bench) -> None:
    bench.streams(*EVERYTHING)
    subscription = bench.hub.subscribe(EVERYTHING)
    notices = bench.read(ticker(1), trade(2), book(3), candle(), b'{"status":"UP"}')
    assert notices == [FirstFrame(TICKER), FirstFrame(TRADE), FirstFrame(BOOK), FirstFrame(HOUR), UpStatus()]
    got = subscription.queue.drain()
    assert [type(item).__name__ for item in got] == ["TickerData", "TradeData", "OrderbookData", "CandleData"]
    assert all(item.source is DataSource.WEBSOCKET for item in got)
    assert [bench.current(topic) for topic in (TICKER, TRADE, BOOK, HOUR)] == got


def test_the_first_frame_is_announced_once_per_epoch(bench: Bench) -> None:
    bench.streams(TICKER)
    assert bench.read(ticker(1), ticker(2)) == [FirstFrame(TICKER)]
    bench.streams(TICKER, TRADE)
    assert bench.read(ticker(3), trade(1)) == [FirstFrame(TRADE)]
    bench.health.epoch = 2
    bench.streams(TICKER, TRADE)
    assert bench.read(ticker(4)) == [FirstFrame(TICKER)]


def test_a_snapshot_of_an_earlier_subscription_does_not_pass_for_the_present_ones(bench: Bench) -> None:
    bench.streams(TICKER, TRADE)
    bench.streams(TRADE)  # the ticker is let go, and asked for again, before anything has come
    bench.health.unanswered_since = time.monotonic()
    bench.streams(TRADE, TICKER)
    subscription = bench.hub.subscribe([TICKER])

    assert bench.read(ticker(1)) == [], "sent before Upbit had read the last subscription"
    assert bench.current(TICKER) is None
    assert "late" in (bench.store.why_not(TICKER, time.monotonic()) or "")
    assert len(subscription.queue.drain()) == 1, "news all the same"

    bench.health.unanswered_since = inf
    assert bench.read(ticker(1)) == [FirstFrame(TICKER)]
    assert bench.current(TICKER) is not None


def test_what_was_left_or_never_asked_for_is_not_taken(bench: Bench) -> None:
    subscription = bench.hub.subscribe([TICKER])
    assert bench.read(ticker(1)) == []  # before anything was subscribed
    bench.streams(TICKER)
    bench.read(ticker(2), ticker(3, "KRW-ETH"))
    bench.streams(BOOK)
    bench.read(ticker(4))  # still on its way when we left
    assert [int(item.current_price) for item in subscription.queue.drain()] == [2]
    assert bench.intake.counts()["unwanted"] == 3
    assert bench.current(TICKER) is None
    assert bench.store.last_known(DataType.TICKER, "KRW-BTC").current_price == 2


def test_after_an_interruption_nothing_of_that_line_is_taken(bench: Bench) -> None:
    bench.streams(TICKER)
    bench.read(ticker(1))
    bench.intake.interrupted(bench.health, 1, frozenset({TICKER}), "closed")
    bench.read(ticker(2))
    assert bench.store.last_known(DataType.TICKER, "KRW-BTC").current_price == 1


def test_sessions_that_were_closed_as_idle_leave_their_counts_and_nothing_else(bench: Bench) -> None:
    for number in range(50):
        bench.health = SessionHealth(f"session-{number}")
        bench.streams(TICKER)
        bench.read(ticker(1, "KRW-ETH"))
        bench.streams()

    assert bench.intake.counts()["unwanted"] == 50
    assert repr(bench.intake).startswith("<Intake 1 sessions")


def test_errors_of_the_stream_are_for_the_session(bench: Bench) -> None:
    assert bench.read(b'{"error":{"name":"WRONG_FORMAT","message":"no"}}') == [StreamError("WRONG_FORMAT", "no")]


def test_older_state_is_not_delivered_after_newer(bench: Bench) -> None:
    bench.streams(TICKER, BOOK)
    subscription = bench.hub.subscribe([TICKER, BOOK], overflow="drop_oldest")
    bench.read(ticker(5), ticker(4), book(5), book(4), ticker(6), book(6))
    got = subscription.queue.drain()
    assert [int(item.current_price) for item in got if isinstance(item, TickerData)] == [5, 6]
    assert [int(item.total_ask_size) for item in got if isinstance(item, OrderbookData)] == [6, 7]
    assert bench.intake.counts()["outdated"] == 2


def test_trades_come_once(bench: Bench) -> None:
    bench.streams(TRADE)
    subscription = bench.hub.subscribe([TRADE])
    bench.read(trade(1), trade(3), trade(1), trade(2), trade(3))
    assert [item.sequential_id for item in subscription.queue.drain()] == [1, 3, 2]
    assert bench.intake.counts()["repeated"] == 2


def test_the_price_grouping_decides_where_a_book_belongs(bench: Bench) -> None:
    grouped = Topic(DataType.ORDERBOOK, "KRW-BTC", level=Decimal(10000))
    bench.streams(BOOK, grouped)
    plain, coarse = bench.hub.subscribe([BOOK]), bench.hub.subscribe([grouped])
    bench.read(book(1), book(2, level=10000.0), book(3, level=5000))
    assert [int(item.total_ask_size) for item in plain.queue.drain()] == [2]
    assert [int(item.total_ask_size) for item in coarse.queue.drain()] == [3]


def test_a_book_is_decoded_by_its_first_reader_only(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []
    decoder, read_half = bench.intake._decoder, bench.intake._decoder.half_book
    monkeypatch.setattr(decoder, "half_book", lambda raw, *more: decoded.append(raw) or read_half(raw, *more))
    bench.streams(BOOK)
    first, second = bench.hub.subscribe([BOOK]), bench.hub.subscribe([BOOK])
    frames = [book(number) for number in range(100)]
    bench.read(*frames)
    assert decoded == []
    assert first.get(timeout=1) is second.get(timeout=1) is bench.current(BOOK)
    assert decoded == frames[-1:]


def test_tickers_that_nobody_looks_at_are_not_made(bench: Bench) -> None:
    bench.streams(TICKER)
    bench.read(*(ticker(number) for number in range(1, 2 * SAMPLED_EVERY)))
    newest = bench.current(TICKER)
    assert rest_of(newest) is not None
    assert (newest.symbol, newest.timestamp.timestamp() * 1000) == ("KRW-BTC", NOW_MS + 2 * SAMPLED_EVERY - 1)
    assert newest.current_price == 2 * SAMPLED_EVERY - 1


@pytest.mark.parametrize("is_thorough", [False, True])
def test_tickers_that_are_looked_at_wholly_are_made_on_arrival(bench: Bench, is_thorough: bool) -> None:
    bench.streams(TICKER)
    for number in range(1, 2 * SAMPLED_EVERY):
        bench.read(ticker(number))
        is_half = rest_of(bench.current(TICKER)) is not None
        assert is_half == (not is_thorough or number in (1, SAMPLED_EVERY))
        assert bench.current(TICKER).current_price == number
        assert not is_thorough or bench.current(TICKER).to_dict()["symbol"] == "KRW-BTC"


def test_a_ticker_that_cannot_be_read_is_counted_on_arrival(bench: Bench) -> None:
    bench.streams(TICKER)
    bench.read(ticker(1), ticker(2).replace(b'"acc_trade_price_24h":1', b'"acc_trade_price":-1'))
    assert bench.intake.malformed() == 0  # one field of many, which is told
    assert [event.field for event in bench.events.recent() if isinstance(event, UnreadFieldEvent)] == [
        "ticker.traded_value_today"
    ]
    bench.read(ticker(3).replace(b'"trade_price":3', b'"trade_price":-3'))
    assert bench.intake.malformed() == 1


def test_a_book_with_an_absurd_number_in_it_is_counted_when_it_is_read(bench: Bench) -> None:
    bench.streams(BOOK)
    subscription = bench.hub.subscribe([BOOK])
    bench.read(book(1, units='{"ask_price":11.5,"bid_price":10.5,"ask_size":1,"bid_size":1E400}'))
    assert bench.intake.malformed() == 0
    with pytest.raises(queue.Empty):
        subscription.get(timeout=0)
    assert bench.intake.malformed() == 1
    bench.read(book(2))
    assert subscription.get(timeout=0).total_ask_size == 3


POISON = [
    b"",
    b"garbage",
    b"\xff\xfe\x00",
    b"[]" * 3,
    b"null",
    b"{}",
    b"[1]",
    b'{"type":"ticker"}',
    b'{"type":"ticker","code":"KRW-BTC","trade_price":NaN}',
    b"[" * 100_000,
    b'{"type":"trade","code":"KRW-BTC","trade_price":' + b"9" * 5000 + b"}",
    book(50, units="]["),
    book(50)[:-30],
    ticker(60, stamp=9_999_999_999_999),
    book(60, stamp=9_999_999_999_999),
]


@pytest.mark.parametrize("poison", POISON, ids=lambda raw: raw[:30].decode("latin-1"))
def test_poison_affects_only_itself(bench: Bench, poison: bytes) -> None:
    bench.streams(TICKER, TRADE, BOOK)
    subscription = bench.hub.subscribe([TICKER, TRADE, BOOK], overflow="drop_oldest")
    bench.read(ticker(1), trade(1), book(1), poison, ticker(2), trade(2), book(2))
    got = subscription.queue.drain()
    assert [type(item).__name__ for item in got] == ["TickerData", "TradeData", "OrderbookData"] * 2
    assert bench.current(TICKER).current_price == 2
    assert bench.current(BOOK).total_ask_size == 3
    assert bench.intake.malformed() == bench.intake.malformed("ws-1") == 1
    assert len(bench.reported()) == 1


def test_a_broken_book_is_counted_when_it_is_first_read_and_never_when_overtaken(bench: Bench) -> None:
    bench.streams(BOOK)
    subscription = bench.hub.subscribe([BOOK])
    bench.read(book(1, units="]["), book(2))
    assert subscription.get(timeout=1).total_ask_size == 3
    assert bench.intake.malformed() == 0
    bench.read(book(3, units="]["))
    assert bench.current(BOOK) is None
    assert bench.current(BOOK) is None
    assert subscription.queue.drain() == []
    assert bench.intake.malformed() == 1
    received, delivered, dropped, pending = subscription.queue.counts()
    assert (received, delivered, dropped, pending) == (3, 1, 2, 0)


def altered(raw: bytes, **fields: Any) -> bytes:
    return json.dumps(json.loads(raw) | fields, separators=(",", ":")).encode()


def test_a_field_that_cannot_be_read_is_told_by_name_and_its_message_delivered(bench: Bench) -> None:
    bench.streams(TICKER)
    subscription = bench.hub.subscribe([TICKER], overflow="drop_oldest")
    for number in range(1, 101):
        bench.read(altered(ticker(number), delisting_date="soon", change="UPPER"))
    got = subscription.queue.drain()
    assert len(got) == 100
    assert {(item.delisting_date, item.change) for item in got} == {(None, "UPPER")}
    told = [event for event in bench.events.recent() if isinstance(event, UnreadFieldEvent)]
    assert [(event.field, event.key, event.count) for event in told] == [
        ("ticker.delisting_date", "delisting_date", count) for count in (1, 10, 100)
    ]
    assert bench.intake.malformed() == 0
    assert bench.intake.refusals() == []


def test_in_a_list_only_the_bad_elements_are_lost_and_each_is_counted(bench: Bench) -> None:
    bench.streams(TICKER, TRADE)
    subscription = bench.hub.subscribe([TICKER, TRADE], overflow="drop_oldest")
    bad = altered(ticker(2), trade_price={})
    bench.read(b"[" + b",".join([ticker(1), bad, trade(1), b"5"]) + b"]")
    assert [type(item).__name__ for item in subscription.queue.drain()] == ["TickerData", "TradeData"]
    assert bench.intake.malformed() == 2


def test_what_cannot_be_read_is_no_data_for_the_session(bench: Bench) -> None:
    bench.streams(TICKER)
    assert bench.read(ticker(1), b"x", altered(ticker(2), timestamp="now")) == [FirstFrame(TICKER), RefusedFrames(2)]


def test_a_value_is_not_current_once_a_newer_one_came_that_cannot_be_read(bench: Bench) -> None:
    bench.streams(TICKER, TRADE)
    bench.read(ticker(1))
    bench.read(altered(ticker(2), trade_price="n/a"))
    assert bench.current(TICKER) is None
    assert bench.store.last_known(DataType.TICKER, "KRW-BTC").current_price == 1
    bench.read(ticker(3))
    assert bench.current(TICKER).current_price == 3


def test_refusals_are_told_by_topic_and_for_all_and_end_with_the_next_that_can_be_read(bench: Bench) -> None:
    bench.streams(TICKER, TRADE)
    bench.read(ticker(1), trade(1))
    bench.read(altered(ticker(2), trade_price="n/a"))
    assert bench.intake.refusals() == []  # one alone may be an accident
    bench.read(altered(ticker(3), trade_price="n/a"))
    whole, single = bench.intake.refusals()
    assert (whole.session, whole.topic, whole.count) == ("ws-1", None, 2)
    assert (single.topic, single.count) == (str(TICKER), 2)
    assert "trade_price" in single.reason
    bench.read(trade(2))
    assert [each.topic for each in bench.intake.refusals()] == [str(TICKER)]
    bench.read(ticker(4))
    assert bench.intake.refusals() == []


def test_a_stream_that_begins_with_what_cannot_be_read_is_refused_from_the_first_frame(bench: Bench) -> None:
    bench.streams(TICKER)
    bench.read(altered(ticker(1), trade_price="n/a"))
    assert [each.topic for each in bench.intake.refusals()] == [None, str(TICKER)]


def test_a_stream_of_nothing_but_an_unknown_type_is_refused_and_what_is_new_beside_others_is_not(bench: Bench) -> None:
    renamed = altered(ticker(1), type="ticker2")
    bench.streams(TICKER)
    bench.read(renamed)
    (whole,) = bench.intake.refusals()
    assert whole.topic is None
    assert "ticker2" in whole.reason
    bench.read(ticker(2))
    bench.read(renamed, renamed, renamed)
    assert bench.intake.refusals() == []
    assert bench.intake.malformed() == 0


def test_books_that_cannot_be_read_are_refused_though_they_are_decoded_late(bench: Bench) -> None:
    bench.streams(BOOK)
    bench.read(book(1))
    bench.read(book(2, units='{"ask_price":{}}'))
    assert bench.current(BOOK) is None
    bench.read(book(3, units='{"ask_price":{}}'), book(4, units='{"ask_price":{}}'))
    assert [each.count for each in bench.intake.refusals()] == [3, 3]
    bench.read(book(5))
    assert bench.current(BOOK).total_ask_size == 6
    assert bench.intake.refusals() == []


def test_a_market_without_a_trade_yet_has_spoken_and_is_no_refusal(bench: Bench) -> None:
    bench.streams(TICKER)
    assert bench.read(altered(ticker(1), trade_price=None)) == [FirstFrame(TICKER)]
    assert bench.intake.malformed() == 0
    assert bench.intake.refusals() == []
    assert bench.current(TICKER) is None


def test_poison_is_reported_in_samples_and_in_one_safe_line() -> None:
    bench = Bench(ManualClock())  # or a machine that takes long for so many would report now and then besides
    for _ in range(1000):
        bench.read(b"\x1b[31mred\nnext line " + b"x" * 10_000)
    events = bench.reported()
    assert [event.count for event in events] == [1, 10, 100, 1000]
    assert len(events[0].sample) <= 200
    assert "\n" not in events[0].sample
    assert "\x1b" not in events[0].sample


@given(st.lists(st.binary(max_size=60) | st.sampled_from(POISON), max_size=20))
@settings(max_examples=200, deadline=None)
def test_nothing_ever_escapes(frames: list[bytes]) -> None:
    bench = Bench()
    bench.streams(*EVERYTHING)
    bench.read(trade(1), *frames)
    assert FirstFrame(TICKER) in bench.read(ticker(1))
    assert bench.current(TICKER).current_price == 1


def test_the_first_frame_of_a_topic_that_the_line_never_had_counts_while_a_ping_is_unanswered(bench: Bench) -> None:
    bench.streams(TRADE)
    bench.health.unanswered_since = time.monotonic()
    bench.streams(TRADE, TICKER, BOOK)
    assert bench.read(ticker(1)) == [FirstFrame(TICKER)]
    assert bench.current(TICKER).current_price == 1
    # What was streamed before may be of that time, when it was left out in between.
    bench.streams(TRADE, BOOK)
    bench.streams(TRADE, BOOK, TICKER)
    assert bench.read(ticker(2)) == []
    assert bench.current(TICKER) is None


def test_a_new_subscriber_of_a_live_topic_gets_its_value_first(bench: Bench) -> None:
    bench.streams(TICKER, BOOK, TRADE)
    bench.read(ticker(1), book(1), trade(1))
    subscription = bench.hub.subscribe([TICKER, BOOK, TRADE])
    bench.read(ticker(2), trade(2))
    got = subscription.queue.drain()
    assert [type(item).__name__ for item in got] == ["TickerData", "OrderbookData", "TradeData", "TradeData"]
    assert got[0].current_price == 2


def test_rest_answers_come_through_the_same_door_and_are_known_but_never_live(bench: Bench, upbit: FakeUpbit) -> None:
    bench.streams(TICKER)
    call, transport = tickers(["KRW-BTC"]), RestTransport(upbit.rest_url)
    body = transport.get(call, Deadline.after(10)).body
    transport.close()
    (decoded,) = bench.intake.answer(call, body, SYSTEM_CLOCK.wall())
    assert decoded.source is DataSource.REST
    assert bench.current(TICKER) is None
    assert bench.store.last_known(DataType.TICKER, "KRW-BTC") == decoded
    with pytest.raises(MalformedDataError):
        bench.intake.answer(call, b"{}", SYSTEM_CLOCK.wall())


def test_the_book_at_a_glance_agrees_with_the_decoded_one(bench: Bench) -> None:
    now = bench.intake._clock.wall()
    for raw in (book(5), book(6, level=10000.0), book(7, units=""), book(8, level=0.5)):
        (lazy,) = bench.intake._decoded(raw, _read_of(bench))
        assert isinstance(lazy, LazyBook)
        (full,) = bench.intake._decode(raw, now)
        assert (lazy.symbol, lazy.timestamp, lazy.level) == (full.symbol, full.timestamp, full.level)
        assert lazy.read() == full


def _read_of(bench: Bench) -> Any:
    class ReadBatch:
        health = bench.health
        line = SessionExpectation()
        received_at = bench.intake._clock.wall()

    return ReadBatch()


def test_repr_is_one_line(bench: Bench) -> None:
    bench.streams(TICKER)
    bench.read(ticker(2), ticker(1), b"x")
    assert repr(bench.intake) == "<Intake 1 sessions: 1 malformed, 0 unwanted, 1 outdated, 0 repeated, 0 too_late>"


def _simple(number: int) -> bytes:
    (read,) = StreamDecoder().decode(trade(number), SYSTEM_CLOCK.wall())
    assert isinstance(read, TradeData)
    return encode_frame(read, Spelling.SIMPLE)


@pytest.mark.parametrize(
    ("change", "is_kept"),
    [
        (lambda frame: frame, True),
        (lambda frame: b"[" + frame + b"]", False),  # relays write no lists
        (lambda frame: frame[:-1] + b',"unknown":"' + b"x" * 1024 + b'"}', False),  # longer than any trade of Upbit's
        (lambda frame: frame[:-1] + b',"unknown":"\xff"}', False),  # what nobody has read may not be text at all
        (lambda frame: b" " + frame, False),
    ],
    ids=["as it is", "list", "long", "no text", "other spelling"],
)
def test_trades_carry_their_frame_for_who_hands_it_on_and_nobody_else_s(
    bench: Bench, change: Callable[[bytes], bytes], is_kept: bool
) -> None:
    bench.streams(TRADE)
    subscription = bench.hub.subscribe([TRADE])
    first, second = map(_simple, (1, 2))
    bench.read(change(first))
    bench.intake.keep_frames()
    bench.read(change(second))
    before, found = subscription.queue.drain()
    assert frame_of(before) is None
    assert frame_of(found) == (change(second) if is_kept else None)
