"""The newest value of every topic: never older over newer, never stale as current, never torn."""

from __future__ import annotations

import dataclasses
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.waiting import wait_until
from upbit_backbone._concurrency import Deadline, join_all, spawn
from upbit_backbone.errors import ClosedError
from upbit_backbone.models.enums import DataSource, DataType, RequestKind
from upbit_backbone.models.lazy_book import LazyBook, StoredItem
from upbit_backbone.models.market import CandleData, MarketInfo, OrderbookData, TickerData, TradeData
from upbit_backbone.models.request import ZERO, Topic
from upbit_backbone.models.session import SessionHealth
from upbit_backbone.store.live_store import Entry, LiveStore

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
BTC = Topic(DataType.TICKER, "KRW-BTC")
BOOK = Topic(DataType.ORDERBOOK, "KRW-BTC")
MINUTE = Topic(DataType.CANDLE_1M, "KRW-BTC")
TRADES = Topic(DataType.TRADE, "KRW-BTC")
STREAM = DataSource.WEBSOCKET


def ticker(second: float, source: DataSource = DataSource.WEBSOCKET, symbol: str = "KRW-BTC") -> TickerData:
    price = Decimal(str(second))
    return TickerData(symbol, price, *[price] * 6, NOON + timedelta(seconds=second), source)


def candle(minute: int, close: int) -> CandleData:
    start = NOON + timedelta(minutes=minute)
    return CandleData("KRW-BTC", "1m", *[Decimal(close)] * 5, start, DataSource.WEBSOCKET)


def health() -> SessionHealth:
    alive = SessionHealth("ws-1")
    alive.epoch, alive.connected, alive.heard_at = 1, True, 100.0
    return alive


@pytest.fixture
def store() -> LiveStore:
    return LiveStore(10.0)


def test_older_never_overwrites_newer(store: LiveStore) -> None:
    alive = health()
    assert store.put(BTC, ticker(5), alive, 1, 100.0)
    assert not store.put(BTC, ticker(4), alive, 1, 100.1)
    assert store.current(BTC, 101.0) == ticker(5)
    assert store.put(BTC, ticker(5), alive, 1, 100.2)


def test_within_one_tick_of_a_coarse_clock_a_line_breaks_and_returns_and_nothing_is_mixed_up(store: LiveStore) -> None:
    """15.6 ms on Windows before Python 3.13: all of this at one and the same time."""
    alive, tick = health(), 100.0
    assert store.put(BTC, ticker(5), alive, 1, tick)
    assert store.current(BTC, tick) == ticker(5)
    alive.connected = False
    assert store.current(BTC, tick) is None
    alive.connected, alive.epoch = True, 2
    assert store.current(BTC, tick) is None
    store.put(BTC, ticker(6), alive, 1, tick)  # read before the break, taken in after it
    assert store.current(BTC, tick) is None
    assert store.put(BTC, ticker(6), alive, 2, tick)
    assert store.current(BTC, tick) == ticker(6)


def test_what_comes_within_the_tick_of_the_call_is_newer_than_the_call(store: LiveStore) -> None:
    alive, tick, got = health(), 100.0, []
    assert store.put(BTC, ticker(5), alive, 1, tick)
    assert store.wait_newer(BTC, tick, Deadline.after(0.0)) is None  # it was there before
    waiter = spawn(lambda: got.append(store.wait_newer(BTC, tick, Deadline.after(20))), "test-waiter")
    wait_until(lambda: store._waited_for, "the wait")
    wait_until(lambda: store._arrival.waiting, "the wait")
    assert store.put(BTC, ticker(6), alive, 1, tick)
    assert join_all([waiter], Deadline.after(20)) == []
    assert got == [ticker(6)]


def test_a_replayed_old_snapshot_after_a_reconnection_is_never_current(store: LiveStore) -> None:
    alive = health()
    store.put(BTC, ticker(50), alive, 1, 100.0)
    alive.epoch = 2
    assert store.current(BTC, 101.0) is None
    assert not store.put(BTC, ticker(10), alive, 2, 101.0)
    assert store.current(BTC, 101.0) is None
    assert store.last_known(RequestKind.TICKER, "KRW-BTC") == ticker(50)
    assert store.put(BTC, ticker(51), alive, 2, 102.0)
    assert store.current(BTC, 102.0) == ticker(51)


def test_a_quiet_market_is_current_again_with_the_same_snapshot(store: LiveStore) -> None:
    alive = health()
    store.put(BTC, ticker(50), alive, 1, 100.0)
    alive.epoch = 2
    assert store.put(BTC, ticker(50), alive, 2, 200.0)
    alive.heard_at = 200.0
    assert store.current(BTC, 201.0) == ticker(50)


def test_a_first_snapshot_older_than_what_rest_showed_is_not_current(store: LiveStore) -> None:
    alive = health()
    store.remember([ticker(60, DataSource.REST)])
    assert store.put(BTC, ticker(10), alive, 1, 100.0)
    assert store.current(BTC, 101.0) is None
    store.put(BTC, ticker(60), alive, 1, 101.0)
    assert store.current(BTC, 101.0) == ticker(60)


def test_a_doubt_is_settled_by_rest(store: LiveStore) -> None:
    alive = health()
    store.put(BTC, ticker(3600), alive, 1, 100.0)  # an hour ahead: plausible, and wrong
    assert not store.put(BTC, ticker(5), alive, 1, 105.0)
    assert store.current(BTC, 105.0) is None
    store.remember([ticker(6, DataSource.REST)])
    assert store.put(BTC, ticker(6), alive, 1, 106.0)
    assert store.current(BTC, 106.0) == ticker(6)


def test_a_doubt_about_the_right_value_ends_when_rest_confirms_it(store: LiveStore) -> None:
    alive = health()
    store.put(BTC, ticker(50), alive, 1, 100.0)
    store.put(BTC, ticker(49), alive, 1, 105.0)
    assert store.current(BTC, 105.0) is None
    store.remember([ticker(50, DataSource.REST)])
    assert store.current(BTC, 105.0) == ticker(50)


def test_what_rest_shows_of_a_later_trade_puts_the_live_value_in_doubt_until_the_stream_speaks(
    store: LiveStore,
) -> None:
    alive = health()
    store.put(BTC, ticker(50), alive, 1, 100.0)
    store.remember([ticker(50.9, DataSource.REST)])
    assert store.current(BTC, 100.0) == ticker(50), "what is on its way on the stream is no contradiction"
    store.remember([ticker(55, DataSource.REST)])
    assert store.current(BTC, 100.0) is None
    assert "REST" in (store.why_not(BTC, 100.0) or "")
    store.put(BTC, ticker(51), alive, 1, 100.1)
    assert store.current(BTC, 100.1) is None, "still older than what REST has shown"
    store.put(BTC, ticker(55), alive, 1, 100.2)
    assert store.current(BTC, 100.2) == ticker(55)


def test_the_same_trade_told_again_by_rest_is_no_reason_for_doubt(store: LiveStore) -> None:
    alive = health()
    traded_at = NOON + timedelta(seconds=50)
    store.put(BTC, dataclasses.replace(ticker(50), trade_timestamp=traded_at), alive, 1, 100.0)
    store.remember([dataclasses.replace(ticker(90, DataSource.REST), trade_timestamp=traded_at)])
    assert store.current(BTC, 100.0) is not None


def of_trade(second: float, traded: float, source: DataSource = DataSource.WEBSOCKET) -> TickerData:
    """A ticker stamped at `second` whose last trade was at `traded`."""
    return replace(ticker(traded, source), timestamp=NOON + timedelta(seconds=second), trade_timestamp=NOON
                   + timedelta(seconds=traded), last_trade_volume=Decimal(1))  # fmt: skip


def test_two_lines_that_name_the_same_last_trade_agree_whenever_each_was_stamped(store: LiveStore) -> None:
    store.put(BTC, of_trade(60, traded=10), health(), 1, 100.0)
    other = health()
    assert store.put(BTC, of_trade(40, traded=10), other, 1, 101.0)
    assert store.current(BTC, 101.0) == of_trade(40, traded=10)
    other.mute = frozenset({BTC})
    assert store.current(BTC, 101.0) is None, "it is this line that has to prove it now"


@pytest.mark.parametrize("other", [
    of_trade(40, traded=9), of_trade(40, traded=9.9),
    replace(of_trade(40, traded=10), current_price=Decimal(3)), replace(of_trade(40, traded=10), trade_timestamp=None),
])  # fmt: skip
def test_another_line_that_names_another_last_trade_overwrites_nothing_newer(
    store: LiveStore, other: TickerData
) -> None:
    store.put(BTC, of_trade(60, traded=10), health(), 1, 100.0)
    assert not store.put(BTC, other, health(), 1, 101.0)
    assert store.last_known(RequestKind.TICKER, "KRW-BTC") == of_trade(60, traded=10)


def test_a_line_that_has_agreed_proves_itself_after_a_doubt_by_its_own_stamps(store: LiveStore) -> None:
    store.put(BTC, of_trade(60, traded=10), health(), 1, 100.0)
    relay = health()
    store.put(BTC, of_trade(40, traded=10), relay, 1, 101.0)
    store.doubt([BTC])
    assert store.current(BTC, 101.0) is None
    store.put(BTC, of_trade(40, traded=10), relay, 1, 102.0)
    assert store.current(BTC, 102.0) == of_trade(40, traded=10)


def test_what_rest_stamped_later_contradicts_no_line_that_names_the_same_trade(store: LiveStore) -> None:
    store.remember([of_trade(60, traded=10, source=DataSource.REST)])
    assert store.put(BTC, of_trade(40, traded=10), health(), 1, 100.0)
    assert store.current(BTC, 100.0) == of_trade(40, traded=10)
    assert store.put(BTC, of_trade(41, traded=9), health(), 2, 101.0)
    assert store.current(BTC, 101.0) is None, "REST has shown a later trade"


def test_a_doubt_ends_when_rest_names_the_same_trade_whenever_it_was_stamped(store: LiveStore) -> None:
    store.put(BTC, of_trade(40, traded=10), health(), 1, 100.0)
    store.doubt([BTC])
    store.remember([of_trade(60, traded=11, source=DataSource.REST)])
    assert store.current(BTC, 100.0) is None
    store.remember([of_trade(61, traded=10, source=DataSource.REST)])
    assert store.current(BTC, 100.0) == of_trade(40, traded=10)


def test_a_ticker_that_does_not_tell_when_its_trade_was_costs_no_other_one(store: LiveStore) -> None:
    """In a quiet market the trade is long ago; the odd one's stamp stood for it, and all that followed looked old."""
    alive, traded_at = health(), NOON - timedelta(minutes=1)
    told = [replace(ticker(second), trade_timestamp=None if second == 5 else traded_at) for second in range(3, 9)]
    for each, monotonic in zip(told, range(100, 106), strict=True):
        assert store.put(BTC, each, alive, 1, float(monotonic))
    assert store.current(BTC, 106.0) == told[-1]


def test_a_rest_answer_that_does_not_tell_when_its_trade_was_is_compared_by_its_stamp(store: LiveStore) -> None:
    alive, traded_at = health(), NOON - timedelta(minutes=1)
    live = replace(ticker(5), trade_timestamp=traded_at)
    store.put(BTC, live, alive, 1, 100.0)
    store.remember([ticker(5, DataSource.REST)])
    assert store.current(BTC, 101.0) == live
    assert store.overtakes(BTC, ticker(5, DataSource.REST)) is None
    store.remember([ticker(9, DataSource.REST)])  # stamped later: something may have happened
    assert store.current(BTC, 101.0) is None


def test_a_doubt_raised_by_an_absurd_answer_ends_with_the_next_answer(store: LiveStore) -> None:
    alive = health()
    store.put(BTC, ticker(50), alive, 1, 100.0)
    store.remember([ticker(5000, DataSource.REST)])
    assert store.current(BTC, 100.0) is None
    store.put(BTC, ticker(51), alive, 1, 101.0)
    store.remember([ticker(51, DataSource.REST)])
    assert store.current(BTC, 101.0) == ticker(51)
    store.put(BTC, ticker(52), alive, 1, 102.0)
    assert store.current(BTC, 102.0) == ticker(52)


def test_the_forming_candle_is_replaced_and_an_earlier_one_does_not_come_back(store: LiveStore) -> None:
    alive = health()
    store.put(MINUTE, candle(1, 10), alive, 1, 100.0)
    store.put(MINUTE, candle(1, 11), alive, 1, 101.0)
    assert not store.put(MINUTE, candle(0, 99), alive, 1, 109.0)
    assert store.current(MINUTE, 109.0) == candle(1, 11)


def test_what_was_forgotten_is_last_known_but_not_current(store: LiveStore) -> None:
    alive, other = health(), health()
    store.put(BTC, ticker(5), alive, 1, 100.0)
    store.forget(BTC, other)  # another session does not stream it either
    assert store.current(BTC, 101.0) == ticker(5)
    store.forget(BTC, alive)
    assert store.current(BTC, 101.0) is None
    assert store.last_known(RequestKind.TICKER, "KRW-BTC") == ticker(5)
    assert len(store) == 0


def test_last_known_is_the_newest_of_any_channel(store: LiveStore) -> None:
    alive = health()
    assert store.last_known(RequestKind.TICKER, "KRW-BTC") is None
    store.remember([ticker(5, DataSource.REST), MarketInfo("KRW-BTC", None, None, DataSource.REST)])
    store.remember([ticker(4, DataSource.REST)])
    assert store.last_known(RequestKind.TICKER, "KRW-BTC") == ticker(5, DataSource.REST)
    store.put(BTC, ticker(6), alive, 1, 100.0)
    assert store.last_known(DataType.TICKER, "KRW-BTC") == ticker(6)
    store.remember([candle(1, 5)])
    assert store.last_known(RequestKind.CANDLES, "KRW-BTC", timeframe="1m") == candle(1, 5)
    assert store.last_known(DataType.CANDLE_1M, "KRW-BTC") == candle(1, 5)
    assert store.last_known(RequestKind.CANDLES, "KRW-BTC") is None
    assert store.last_known(RequestKind.MARKETS, "KRW-BTC") is None


def test_a_grouped_book_and_the_whole_one_are_not_each_others_last_known(store: LiveStore) -> None:
    whole = OrderbookData("KRW-BTC", (), (), ZERO, ZERO, NOON, DataSource.WEBSOCKET)
    grouped = replace(whole, level=Decimal(1000))
    store.put(BOOK, whole, health(), 1, 100.0)
    assert store.last_known(DataType.ORDERBOOK, "KRW-BTC", level=Decimal(1000)) is None
    store.remember([grouped])
    assert store.last_known(DataType.ORDERBOOK, "KRW-BTC", level=Decimal(1000)) == grouped
    assert store.last_known(RequestKind.ORDERBOOK, "KRW-BTC") == whole


def test_what_is_remembered_is_bounded() -> None:
    store = LiveStore(10.0, max_remembered=10)
    store.remember(ticker(1, DataSource.REST, f"KRW-C{number}") for number in range(50))
    assert repr(store) == "<LiveStore 0 live, 10 remembered>"
    assert store.last_known(RequestKind.TICKER, "KRW-C49") is not None
    assert store.last_known(RequestKind.TICKER, "KRW-C0") is None


def test_books_are_decoded_by_their_reader_and_once(store: LiveStore) -> None:
    opened: list[LazyBook] = []
    content = OrderbookData("KRW-BTC", (), (), Decimal(0), Decimal(0), NOON, DataSource.WEBSOCKET)

    def open_book(book: LazyBook) -> None:
        opened.append(book)
        book.settle(content)

    lazy = LazyBook(b"{}", "KRW-BTC", Decimal(0), NOON, NOON, "ws-1", open_book)
    store.put(BOOK, lazy, health(), 1, 100.0)
    assert store.current_stored(BOOK, 101.0) is lazy
    assert opened == []
    assert store.current(BOOK, 101.0) is store.current(BOOK, 101.0) is content
    assert opened == [lazy]


def test_a_waiter_gets_what_comes_next(store: LiveStore) -> None:
    alive = health()
    store.put(BTC, ticker(1), alive, 1, 100.0)
    got: list[object] = []
    waiter = spawn(lambda: got.append(store.wait_newer(BTC, 100.0, Deadline.after(10))), "waiter")
    while not store._waited_for:
        threading.Event().wait(0.001)
    store.put(Topic(DataType.TICKER, "KRW-ETH"), ticker(9), alive, 1, 101.0)
    store.put(BTC, ticker(2), alive, 1, 101.0)
    waiter.join(5)
    assert got == [ticker(2)]
    assert not store._waited_for


def test_a_waiter_returns_at_its_deadline_and_at_close(store: LiveStore) -> None:
    assert store.wait_newer(BTC, 0.0, Deadline.after(0.01)) is None
    errors: list[Exception] = []

    def wait() -> None:
        try:
            store.wait_newer(BTC, 0.0, Deadline.after(30))
        except ClosedError as error:
            errors.append(error)

    waiter = spawn(wait, "waiter")
    store.close()
    waiter.join(5)
    assert len(errors) == 1


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans(), st.integers(0, 3)), max_size=40))
@settings(max_examples=200, deadline=None)
def test_whatever_comes_a_current_value_is_never_older_than_one_shown_before(
    steps: list[tuple[int, bool, int]],
) -> None:
    store, alive, now, newest_shown = LiveStore(10.0), health(), 100.0, NOON
    for second, reconnects, wait in steps:
        now += wait
        alive.heard_at = now
        alive.epoch += reconnects
        store.put(BTC, ticker(second), alive, alive.epoch, now)
        shown = store.current(BTC, now)
        if shown is not None:
            assert shown.timestamp >= newest_shown
            newest_shown = shown.timestamp


def test_thirty_two_readers_never_see_a_torn_or_older_value() -> None:
    store, alive, stop = LiveStore(10.0), health(), threading.Event()
    store.put(BTC, ticker(0), alive, 1, 100.0)
    faults: list[object] = []

    def read() -> None:
        newest = NOON
        while not stop.is_set():
            seen = store.current(BTC, 100.0)
            if seen is None or seen.timestamp < newest or seen.current_price != seen.volume_24h:
                faults.append(seen)
                return
            newest = seen.timestamp

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        readers = [spawn(read, f"reader-{number}") for number in range(32)]
        for number in range(300):
            store.put(BTC, ticker(number), alive, 1, 100.0)
            store.remember([ticker(number, DataSource.REST)])
        stop.set()
        for reader in readers:
            reader.join(10)
    finally:
        sys.setswitchinterval(before)
    assert faults == []


class WithoutShortWay(LiveStore):
    """Judges each value the long way."""

    def put(
        self,
        topic: Topic,
        item: StoredItem,
        health: SessionHealth,
        epoch: int,
        monotonic: float,
        late_before: datetime | None = None,
        subscribed_at: float = -inf,
    ) -> bool:
        moved_at = (item.trade_timestamp or item.timestamp) if type(item) is TickerData else item.timestamp
        assert moved_at is not None
        entry = Entry(topic, item, health, epoch, monotonic, item.timestamp, moved_at, item.timestamp, monotonic)
        if not self._admits(entry, self._entries.get(topic), late_before, subscribed_at):
            return False
        self._entries[topic] = entry
        return True


@given(
    st.sampled_from([BTC, TRADES]),
    st.lists(
        st.tuples(
            st.integers(0, 6),  # the stamp
            st.integers(0, 3),  # the last trade is so much older; or which trade of one moment it is
            st.sampled_from([1, 1, 1, 2]),  # the epoch
            st.sampled_from([None, 0, 3]),  # what is stamped before it is late
            st.booleans(),  # subscribed anew just before
        ),
        max_size=12,
    ),
)
def test_the_short_way_of_nearly_every_message_says_what_the_long_one_says(
    topic: Topic, puts: list[tuple[int, int, int, int | None, bool]]
) -> None:
    short, long, alive, subscribed_at = LiveStore(10.0), WithoutShortWay(10.0), health(), -inf
    for turn, (stamp, other, epoch, late, anew) in enumerate(puts):
        now = 100.0 + turn
        subscribed_at = now - 0.5 if anew else subscribed_at
        late_before = None if late is None else NOON + timedelta(seconds=late)
        item: TickerData | TradeData
        if topic is BTC:
            item = replace(ticker(stamp), trade_timestamp=NOON + timedelta(seconds=stamp - other))
        else:
            item = TradeData("KRW-BTC", Decimal(1), Decimal(1), None, NOON + timedelta(seconds=stamp), other, STREAM)
        taken = [store.put(topic, item, alive, epoch, now, late_before, subscribed_at) for store in (short, long)]
        assert taken[0] is taken[1]
        one, other_one = short.entry(topic), long.entry(topic)
        assert one is not None
        assert other_one is not None
        for name in ("item", "stamp", "moved_at", "news_at", "proven", "follows", "late_by", "epoch", "monotonic"):
            assert getattr(one, name) == getattr(other_one, name), name
