"""A mailbox is a real queue.Queue that loses nothing without saying so and never makes the stream wait."""

from __future__ import annotations

import queue
import threading
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.waiting import PATIENCE_SECONDS
from upbit_backbone._concurrency import Deadline, EventCount, spawn
from upbit_backbone.delivery.buffers import PARKED_ITEMS, SLOW_CALLBACK_SECONDS
from upbit_backbone.delivery.mailbox import Mailbox
from upbit_backbone.errors import ClosedError, RequestTimeoutError, SubscriptionError, UpbitBackboneError
from upbit_backbone.models.enums import DataSource, DataType, Overflow
from upbit_backbone.models.lazy_book import LazyBook
from upbit_backbone.models.market import OrderbookData, OrderbookUnit, TradeData
from upbit_backbone.models.request import Topic

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TRADES = Topic(DataType.TRADE, "KRW-BTC")
TICKERS = Topic(DataType.TICKER, "KRW-BTC")
OTHERS = Topic(DataType.TICKER, "KRW-ETH")
PARKED = 2
BOOKS = Topic(DataType.ORDERBOOK, "KRW-BTC")


def trade(number: int) -> TradeData:
    moment = NOON + timedelta(milliseconds=number)
    return TradeData("KRW-BTC", Decimal(number), Decimal(1), None, moment, number, DataSource.WEBSOCKET)


def book(levels: int = 30) -> OrderbookData:
    side = tuple(OrderbookUnit(Decimal(level + 1), Decimal(1)) for level in range(levels))
    return OrderbookData("KRW-BTC", side, side, Decimal(9), Decimal(9), NOON, DataSource.WEBSOCKET)


def lazy(content: OrderbookData | None, opened: list[LazyBook]) -> LazyBook:
    def open_book(each: LazyBook) -> None:
        opened.append(each)
        each.settle(content)

    return LazyBook(b"{}", "KRW-BTC", Decimal(0), NOON, NOON, "ws-1", open_book)


def put(mailbox: Mailbox, *items: Any, topic: Topic = TRADES, at: float = 0.0) -> None:
    mailbox.put_many([(topic, item, at) for item in items])


def test_who_finds_nothing_and_whose_turn_is_over_take_no_lock() -> None:
    """Each message that comes alone would pay for both."""
    mailbox = Mailbox(None, 10)
    put(mailbox, trade(1))
    assert mailbox.begin_turn() == trade(1)
    seen: list[object] = []

    def look() -> None:
        mailbox.end_turn()
        try:
            mailbox.get(block=False)
        except queue.Empty as empty:
            seen.append(empty)

    with mailbox._mutex:
        thread = spawn(look, "a reader")
        thread.join(PATIENCE_SECONDS)
    assert len(seen) == 1
    assert mailbox.wait_idle(Deadline.after(0.0))


def test_nothing_of_the_insides_of_a_queue_is_used() -> None:
    """Those of gevent's, which takes its place, are others."""
    mailbox = Mailbox(None, 10)
    for inside in ("mutex", "not_empty", "not_full", "all_tasks_done", "queue", "unfinished_tasks"):
        delattr(mailbox, inside)
    put(mailbox, trade(1), trade(2), trade(3))
    assert [mailbox.get(), mailbox.get_nowait()] == [trade(1), trade(2)]
    mailbox.take_back(1)
    mailbox.refuse(1)
    assert mailbox.drain() == [trade(3)]
    for _ in range(3):
        mailbox.task_done()
    mailbox.join()
    assert_conserved(mailbox)
    mailbox.close()
    with pytest.raises(ClosedError):
        mailbox.get()


def assert_conserved(mailbox: Mailbox) -> None:
    received, delivered, dropped, pending = mailbox.counts()
    assert received == delivered + dropped + pending


def test_it_is_a_queue_and_gives_items_in_order() -> None:
    mailbox = Mailbox(None, 10)
    put(mailbox, *map(trade, range(3)))
    assert isinstance(mailbox, queue.Queue)
    assert mailbox.qsize() == 3
    assert not mailbox.empty()
    assert [mailbox.get().sequential_id, mailbox.get_nowait().sequential_id, mailbox.get(timeout=1).sequential_id] == [
        0,
        1,
        2,
    ]
    assert mailbox.empty()


@pytest.mark.parametrize("error", [queue.Empty, RequestTimeoutError, TimeoutError, UpbitBackboneError])
def test_nothing_in_time_is_queue_empty_and_our_timeout_in_one(error: type[Exception]) -> None:
    mailbox = Mailbox(None, 10)
    with pytest.raises(error):
        mailbox.get_nowait()
    with pytest.raises(error):
        mailbox.get(timeout=0.01)


def test_a_negative_timeout_is_refused_as_queue_does() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        Mailbox(None, 10).get(timeout=-1)


def test_only_the_stream_puts() -> None:
    with pytest.raises(TypeError, match="queue="):
        Mailbox(None, 10).put(1)


def test_conflation_keeps_the_latest_in_the_place_of_the_first() -> None:
    mailbox = Mailbox(Overflow.CONFLATE, 10)
    put(mailbox, "btc 1", topic=TICKERS)
    put(mailbox, "eth 1", topic=OTHERS)
    put(mailbox, "btc 2", "btc 3", topic=TICKERS)
    assert mailbox.drain() == ["btc 3", "eth 1"]
    assert mailbox.counts() == (4, 2, 2, 0)


def test_by_default_state_is_conflated_and_trades_are_not() -> None:
    mailbox = Mailbox(None, 10)
    put(mailbox, "ticker 1", "ticker 2", topic=TICKERS)
    put(mailbox, trade(1), trade(2))
    assert mailbox.drain() == ["ticker 2", trade(1), trade(2)]


def test_drop_oldest_drops_the_oldest_and_counts() -> None:
    mailbox = Mailbox(Overflow.DROP_OLDEST, 3)
    put(mailbox, *map(trade, range(5)))
    assert [item.sequential_id for item in mailbox.drain()] == [2, 3, 4]
    assert mailbox.counts() == (5, 3, 2, 0)


def test_block_parks_then_refuses_the_newest_and_says_both() -> None:
    reports: list[tuple[str, int]] = []
    mailbox = Mailbox(Overflow.BLOCK, 2, parking=2, report=lambda reason, dropped: reports.append((reason, dropped)))
    put(mailbox, *map(trade, range(2)))
    assert reports == []
    put(mailbox, trade(2))
    assert "parking" in reports[0][0]
    put(mailbox, *map(trade, range(3, 10)))
    assert reports[1][1] == 10 - (2 + 2)
    assert [item.sequential_id for item in mailbox.drain()] == list(range(2 + 2))
    assert_conserved(mailbox)


def test_block_holds_to_its_name_for_a_consumer_that_pauses_however_small_its_bound() -> None:
    mailbox = Mailbox(Overflow.BLOCK, 1)
    put(mailbox, *map(trade, range(PARKED_ITEMS)))
    assert mailbox.counts() == (PARKED_ITEMS, 0, 0, PARKED_ITEMS)
    assert [item.sequential_id for item in mailbox.drain()] == list(range(PARKED_ITEMS))
    assert str(f"{PARKED_ITEMS:,}") in (Overflow.__doc__ or "")  # the bound that people are told


def test_each_policy_is_explained_to_who_asks_for_help() -> None:
    for policy in Overflow:
        assert f"{policy.name}: " in (Overflow.__doc__ or "")


def test_error_gives_what_came_before_the_loss_and_then_the_error() -> None:
    reports: list[tuple[str, int]] = []
    mailbox = Mailbox(Overflow.ERROR, 2, report=lambda reason, dropped: reports.append((reason, dropped)))
    put(mailbox, *map(trade, range(3)))
    put(mailbox, trade(3))
    assert len(reports) == 1
    assert not mailbox.closed
    assert [mailbox.get().sequential_id, mailbox.get().sequential_id] == [0, 1]
    for _ in range(2):
        with pytest.raises(SubscriptionError, match="overflow="):
            mailbox.get()
    assert mailbox.closed
    assert_conserved(mailbox)


def test_losses_are_reported_first_at_once_and_then_rarely() -> None:
    now = [0.0]
    reports: list[tuple[str, int]] = []
    mailbox = Mailbox(
        Overflow.DROP_OLDEST, 1, report=lambda reason, dropped: reports.append((reason, dropped)), clock=lambda: now[0]
    )
    for number in range(1001):
        put(mailbox, trade(number), at=number / 1e6)
    assert [dropped for _, dropped in reports] == [1, 10, 100, 1000]
    put(mailbox, trade(0), at=60.0)
    assert len(reports) == 5


def test_closing_wakes_every_getter_at_once_and_drops_what_waits() -> None:
    mailbox = Mailbox(None, 10)
    ended: list[float] = []
    ready = threading.Barrier(9)

    def wait() -> None:
        ready.wait()
        with pytest.raises(ClosedError):
            mailbox.get(timeout=30)
        ended.append(time.monotonic())

    threads = [spawn(wait, f"getter-{number}") for number in range(8)]
    ready.wait()
    closed_at = time.monotonic()
    mailbox.close()
    for thread in threads:
        thread.join(5)
    assert len(ended) == 8
    assert max(ended) - closed_at < 2
    put(mailbox, trade(1))
    assert mailbox.counts() == (0, 0, 0, 0)


def test_after_closing_get_raises_closed_and_never_empty() -> None:
    mailbox = Mailbox(None, 10)
    put(mailbox, trade(1))
    mailbox.close()
    mailbox.close()
    for call in (mailbox.get, mailbox.get_nowait, mailbox.drain, lambda: mailbox.get(timeout=0.1)):
        with pytest.raises(ClosedError) as raised:
            call()
        assert not isinstance(raised.value, queue.Empty)
        if hasattr(queue, "ShutDown"):
            assert isinstance(raised.value, queue.ShutDown)
    assert mailbox.counts() == (1, 0, 1, 0)


@pytest.mark.parametrize("limit", [None, 0, 1])
def test_what_waits_in_one_that_is_about_to_be_closed_is_not_drained_any_more(limit: int | None) -> None:
    mailbox = Mailbox(None, 10)
    put(mailbox, trade(1), trade(2))
    mailbox.begin_close()
    with pytest.raises(ClosedError):
        mailbox.drain(limit)
    assert mailbox.counts() == (2, 0, 2, 0)


def test_history_conflated_values_and_trades_are_drained_in_their_order() -> None:
    mailbox = Mailbox(None, 10)
    put(mailbox, "old", "new", topic=TICKERS)
    put(mailbox, trade(2))
    mailbox.put_ahead([(TRADES, trade(1), 0.0)])
    assert mailbox.drain(0) == []
    assert mailbox.drain() == [trade(1), "new", trade(2)]
    put(mailbox, "newer", topic=TICKERS)
    assert mailbox.drain(5) == ["newer"]
    assert_conserved(mailbox)


def test_join_waits_for_task_done_and_ends_on_close() -> None:
    mailbox = Mailbox(None, 10)
    put(mailbox, trade(1), trade(2))
    for _ in range(2):
        mailbox.get()
        mailbox.task_done()
    mailbox.join()
    put(mailbox, trade(3))
    mailbox.get()
    joiner = spawn(mailbox.join, "joiner")
    mailbox.close()
    joiner.join(5)
    assert not joiner.is_alive()


def test_a_book_overtaken_unread_is_never_decoded() -> None:
    opened: list[LazyBook] = []
    mailbox = Mailbox(None, 10)
    first, second = lazy(book(), opened), lazy(book(), opened)
    put(mailbox, first, second, topic=BOOKS)
    assert mailbox.get() == book()
    assert opened == [second]


def test_an_unreadable_book_is_skipped_and_counted_as_dropped() -> None:
    mailbox = Mailbox(Overflow.DROP_OLDEST, 10)
    put(mailbox, lazy(None, []), topic=BOOKS)
    put(mailbox, trade(1))
    assert mailbox.get(timeout=1) == trade(1)
    assert mailbox.counts() == (2, 1, 1, 0)
    put(mailbox, lazy(None, []), topic=BOOKS)
    with pytest.raises(queue.Empty):
        mailbox.get(timeout=0.01)
    assert mailbox.drain() == []
    assert_conserved(mailbox)


def test_books_are_cut_to_the_levels_asked_for() -> None:
    mailbox = Mailbox(None, 10, levels=5)
    put(mailbox, book(30), topic=BOOKS)
    cut = mailbox.get()
    assert (len(cut.asks), len(cut.bids), cut.total_ask_size) == (5, 5, Decimal(9))
    put(mailbox, book(3), topic=BOOKS)
    assert mailbox.get() == book(3)


def test_lag_is_the_age_of_what_comes_next() -> None:
    now = [100.0]
    mailbox = Mailbox(None, 10, clock=lambda: now[0])
    assert mailbox.lag == 0.0
    put(mailbox, trade(1), at=97.0)
    put(mailbox, trade(2), at=99.0)
    assert mailbox.lag == 3.0
    mailbox.get()
    assert mailbox.lag == 1.0


def test_a_seed_comes_first_and_not_twice() -> None:
    mailbox = Mailbox(None, 10)
    current = trade(5)
    mailbox.seed([(TRADES, current, 0.0)])
    # The seed was on its way through the hub, together with one before and one after it.
    put(mailbox, trade(4), current, trade(6))
    put(mailbox, trade(7))
    assert [item.sequential_id for item in mailbox.drain()] == [5, 6, 7]
    assert_conserved(mailbox)


def test_a_seed_published_before_costs_nothing_that_follows() -> None:
    mailbox = Mailbox(None, 10)
    mailbox.seed([(TRADES, trade(5), 0.0)])
    put(mailbox, trade(6))
    put(mailbox, trade(7))
    assert [item.sequential_id for item in mailbox.drain()] == [5, 6, 7]


def test_no_seed_where_newer_has_come_already() -> None:
    mailbox = Mailbox(None, 10)
    put(mailbox, trade(6))
    mailbox.seed([(TRADES, trade(5), 0.0), (TICKERS, "ticker", 0.0)])
    assert mailbox.drain() == ["ticker", trade(6)]


def test_a_callback_that_hangs_is_reported_once_per_hang() -> None:
    now = [0.0]
    reports: list[str] = []
    mailbox = Mailbox(None, 10, report=lambda reason, dropped: reports.append(reason), clock=lambda: now[0])
    put(mailbox, "one", topic=TICKERS)
    mailbox.begin_turn()
    for late in (1.0, SLOW_CALLBACK_SECONDS + 1, SLOW_CALLBACK_SECONDS + 2):
        put(mailbox, "more", topic=TICKERS, at=late)
    assert len(reports) == 1
    assert "busy for 6.0 s" in reports[0]
    mailbox.end_turn()
    mailbox.begin_turn()
    put(mailbox, "more", topic=TICKERS, at=60.0)
    assert len(reports) == 2


def test_ctrl_c_ends_a_waiting_get(monkeypatch: pytest.MonkeyPatch) -> None:
    mailbox = Mailbox(None, 10)

    class Waiter:
        def acquire(self, timeout: float) -> bool:
            assert timeout <= 0.25  # no wait is longer: on Windows none can be interrupted before it ends
            raise KeyboardInterrupt

    monkeypatch.setattr(EventCount, "enter", lambda count: Waiter())
    with pytest.raises(KeyboardInterrupt):
        mailbox.get()
    monkeypatch.undo()
    put(mailbox, trade(1))
    assert mailbox.get() == trade(1)  # no lock was left held


def test_repr_tells_its_state_in_a_line() -> None:
    mailbox = Mailbox(Overflow.DROP_OLDEST, 2)
    put(mailbox, *map(trade, range(3)))
    mailbox.get()
    assert repr(mailbox) == "<Mailbox open 3 received, 1 delivered, 1 dropped, 1 pending>"


TOPICS = (TRADES, TICKERS, OTHERS, BOOKS)


class MailboxMachine(RuleBasedStateMachine):
    """Against a list that does the same in the plainest way."""

    policy: Overflow | None = None
    bound = 4

    def __init__(self) -> None:
        super().__init__()
        self.mailbox = Mailbox(self.policy, self.bound, parking=PARKED)
        self.waiting: list[tuple[Topic, int]] = []
        self.received = self.delivered = self.dropped = self.number = 0
        self.failed = self.closed = False

    def conflates(self, topic: Topic) -> bool:
        if self.policy is None:
            return topic.data_type is not DataType.TRADE
        return self.policy is Overflow.CONFLATE

    @rule(topics=st.lists(st.sampled_from(TOPICS), min_size=1, max_size=7))
    def one_read_comes(self, topics: list[Topic]) -> None:
        items = []
        for topic in topics:
            self.number += 1
            items.append((topic, self.number))
        self.mailbox.put_many([(topic, number, 0.0) for topic, number in items])  # type: ignore[misc]
        if self.closed or self.failed:
            return
        self.received += len(items)
        for topic, number in items:
            places = [place for place, (each, _) in enumerate(self.waiting) if each == topic]
            if self.conflates(topic) and places:
                self.waiting[places[0]] = (topic, number)
                self.dropped += 1
            else:
                self.waiting.append((topic, number))
        capacity = self.bound + (PARKED if self.policy is Overflow.BLOCK else 0)
        excess = max(0, len(self.waiting) - capacity)
        self.dropped += excess
        if excess and self.policy in (Overflow.BLOCK, Overflow.ERROR):
            del self.waiting[-excess:]
            self.failed = self.policy is Overflow.ERROR
        elif excess:
            del self.waiting[:excess]

    @precondition(lambda self: self.waiting)
    @rule()
    def one_is_taken(self) -> None:
        assert self.mailbox.get(timeout=0) == self.waiting.pop(0)[1]
        self.delivered += 1

    @precondition(lambda self: not self.waiting)
    @rule()
    def none_can_be_taken(self) -> None:
        expected = ClosedError if self.closed else SubscriptionError if self.failed else queue.Empty
        with pytest.raises(expected):
            self.mailbox.get_nowait()

    @precondition(lambda self: self.waiting)
    @rule(limit=st.none() | st.integers(0, 5))
    def some_are_taken(self, limit: int | None) -> None:
        count = len(self.waiting) if limit is None else min(limit, len(self.waiting))
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        assert self.mailbox.drain(limit) == [number for _, number in taken]
        self.delivered += count

    @precondition(lambda self: self.number > 20)
    @rule()
    def it_is_closed(self) -> None:
        self.mailbox.close()
        self.closed = True
        self.dropped += len(self.waiting)
        self.waiting = []

    @invariant()
    def every_item_is_accounted_for(self) -> None:
        assert self.mailbox.counts() == (self.received, self.delivered, self.dropped, len(self.waiting))
        assert self.received == self.delivered + self.dropped + len(self.waiting)
        assert self.mailbox.qsize() == len(self.waiting)


def machine(policy: Overflow | None) -> Any:
    word = "Default" if policy is None else policy.name.title()
    case = type(f"{word}Machine", (MailboxMachine,), {"policy": policy}).TestCase  # type: ignore[attr-defined]
    case.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
    return case


TestDefault = machine(None)
TestConflate = machine(Overflow.CONFLATE)
TestDropOldest = machine(Overflow.DROP_OLDEST)
TestBlock = machine(Overflow.BLOCK)
TestError = machine(Overflow.ERROR)
