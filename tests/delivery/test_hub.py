"""Subscribing and being delivered to: iterator, queue, callback, the user's own queue; and how each of them ends."""

from __future__ import annotations

import asyncio
import multiprocessing
import queue
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.support.waiting import promised, wait_until
from upbit_backbone._concurrency import Deadline, spawn, wait_event
from upbit_backbone.delivery.event_bus import EventBus
from upbit_backbone.delivery.hub import Hub
from upbit_backbone.delivery.subscription import Subscription, SubscriptionId
from upbit_backbone.errors import ClosedError, InvalidRequestError, SubscriptionError
from upbit_backbone.models.enums import Audience, DataSource, DataType, Overflow
from upbit_backbone.models.events import CallbackErrorEvent, GapEvent, OverflowEvent, SubscriptionEvent, now
from upbit_backbone.models.market import TradeData
from upbit_backbone.models.request import SubscriptionRequest, Topic

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
BTC = Topic(DataType.TRADE, "KRW-BTC")
ETH = Topic(DataType.TRADE, "KRW-ETH")


def trade(number: int, symbol: str = "KRW-BTC") -> TradeData:
    moment = NOON + timedelta(milliseconds=number)
    return TradeData(symbol, Decimal(number), Decimal(1), None, moment, number, DataSource.WEBSOCKET)


class Bench:
    """A hub with its bus, and the requests it made of the sessions."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, tuple[SubscriptionRequest, ...]]] = []
        self.wanting: set[str] = set()
        self.refusal: Exception | None = None
        self.values: dict[Topic, Any] = {}
        self.events = EventBus()
        self.hub = Hub(
            self.events,
            current=lambda topic: (topic, self.values[topic], 0.0) if topic in self.values else None,
            acquire=self.acquire,
            release=self.release,
            queue_size=1000,
            close_seconds=1.0,
        )

    def acquire(self, owner: str, requests: Any) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.requests.append(("want", tuple(requests)))
        self.wanting.add(owner)

    def release(self, owner: str) -> None:
        if owner in self.wanting:  # who wants nothing may say so, and nothing happens
            self.wanting.remove(owner)
            self.requests.append(("release", ()))

    def publish(self, *numbers: int, topic: Topic = BTC) -> None:
        self.hub.publish(topic, [trade(number, topic.symbol) for number in numbers])

    def seen(self, kind: type) -> list[Any]:
        return [event for event in self.events.recent() if isinstance(event, kind)]


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    assert bench.hub.close(Deadline.after(2)) == []
    assert bench.events.close(Deadline.after(2)) == []


def test_a_for_loop_gets_the_items_in_order_and_ends_with_close(bench: Bench) -> None:
    subscription = bench.hub.subscribe([BTC])
    bench.publish(1, 2, 3)
    got = []
    for item in subscription:
        got.append(item.sequential_id)
        if len(got) == 3:
            subscription.close()
    assert got == [1, 2, 3]
    assert list(subscription) == []


def test_leaving_the_block_ends_it_and_takes_the_requests_back_once(bench: Bench) -> None:
    with bench.hub.subscribe([BTC, SubscriptionRequest(ETH)]) as subscription:
        assert bench.requests == [("want", (SubscriptionRequest(BTC), SubscriptionRequest(ETH)))]
        bench.publish(1, topic=ETH)
        assert subscription.get(timeout=1).symbol == "KRW-ETH"
    subscription.close()
    assert bench.hub.unsubscribe(subscription.id) is False
    assert [word for word, _ in bench.requests] == ["want", "release"]
    assert bench.hub.publish(BTC, [trade(1)]) == 1  # nobody there


def test_while_a_break_is_repaired_strict_subscribers_and_the_others_get_different_things(bench: Bench) -> None:
    strict, live = bench.hub.subscribe([BTC], gap_order="strict"), bench.hub.subscribe([BTC])
    assert bench.hub.is_strict(BTC)
    assert not bench.hub.is_strict(ETH)
    bench.hub.publish(BTC, [trade(3)], to=Audience.OTHERS)
    bench.hub.publish(BTC, [trade(1), trade(2)], to=Audience.OTHERS, is_late=True)
    bench.hub.publish(BTC, [trade(1), trade(2), trade(3)], to=Audience.STRICT)
    bench.publish(4)
    assert [item.sequential_id for item in live.queue.drain()] == [3, 1, 2, 4]
    assert [item.sequential_id for item in strict.queue.drain()] == [1, 2, 3, 4]


def test_an_unknown_gap_order_is_refused_in_words(bench: Bench) -> None:
    with pytest.raises(InvalidRequestError, match="gap_order='ordered': expected 'live' or 'strict'"):
        bench.hub.subscribe([BTC], gap_order="ordered")
    assert bench.requests == []


def test_what_comes_late_never_replaces_what_is_newer(bench: Bench) -> None:
    subscription = bench.hub.subscribe([BTC, ETH], overflow=Overflow.CONFLATE)
    bench.publish(5)
    bench.hub.publish(BTC, [trade(1), trade(2)], is_late=True)
    bench.hub.publish(ETH, [trade(1, "KRW-ETH"), trade(2, "KRW-ETH")], is_late=True)  # nothing newer waits
    stats = subscription.stats
    assert [item.sequential_id for item in subscription.queue.drain()] == [5, 2]
    assert (stats.received, stats.dropped, stats.pending, stats.lost) == (5, 3, 2, 0)


def test_what_cannot_be_delivered_is_in_the_figures_of_everybody_it_was_for(bench: Bench) -> None:
    subscription, other = bench.hub.subscribe([BTC]), bench.hub.subscribe([ETH])
    bench.publish(1)
    bench.hub.refuse(BTC, 2)
    stats = subscription.stats
    assert (stats.received, stats.pending, stats.dropped, stats.lost) == (3, 1, 2, 2)
    assert other.stats.received == 0


def test_without_a_thread_to_be_had_an_overflow_still_releases_its_subscription() -> None:
    def no_thread(job: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    events = EventBus()
    released: list[Any] = []
    hub = Hub(events, release=released.append, run_job=no_thread)
    subscription = hub.subscribe([BTC], overflow=Overflow.ERROR, maxsize=1)
    hub.publish(BTC, [trade(1), trade(2)])  # on the stream's thread, which must not hear of it
    assert subscription.queue.failed
    assert len(released) == 1
    hub.close(Deadline.after(2))
    events.close(Deadline.after(2))


def test_get_says_when_nothing_came_and_when_it_is_over(bench: Bench) -> None:
    subscription = bench.hub.subscribe([BTC])
    with pytest.raises(queue.Empty):
        subscription.get(timeout=0.01)
    with pytest.raises(TimeoutError):
        subscription.get(timeout=0.01)
    subscription.close()
    with pytest.raises(ClosedError):
        subscription.get()


def test_each_subscriber_gets_its_own_topics_only(bench: Bench) -> None:
    btc, both = bench.hub.subscribe([BTC]), bench.hub.subscribe([BTC, ETH])
    bench.hub.publish_all([(BTC, trade(1), 0.0), (ETH, trade(2, "KRW-ETH"), 0.0), (BTC, trade(3), 0.0)])
    assert [item.sequential_id for item in btc.queue.drain()] == [1, 3]
    assert [item.sequential_id for item in both.queue.drain()] == [1, 2, 3]


def test_a_live_topic_gives_its_current_value_first(bench: Bench) -> None:
    bench.values[BTC] = trade(7)
    subscription = bench.hub.subscribe([BTC, ETH])
    bench.publish(8)
    assert [item.sequential_id for item in subscription.queue.drain()] == [7, 8]


def test_ids_are_strings_of_their_own(bench: Bench) -> None:
    first, second = bench.hub.subscribe([BTC]), bench.hub.subscribe([BTC])
    assert isinstance(first.id, SubscriptionId)
    assert isinstance(first.id, str)
    assert first.id != second.id
    assert repr(first) == "<Subscription sub-1 open, 1 topics: 0 received, 0 delivered, 0 dropped, 0 pending>"
    assert repr(bench.hub) == "<Hub 2 subscriptions to 1 topics>"


def test_stats_add_up(bench: Bench) -> None:
    subscription = bench.hub.subscribe([BTC], overflow="drop_oldest", maxsize=2)
    bench.publish(1, 2, 3)
    subscription.get()
    stats = subscription.stats
    assert (stats.received, stats.delivered, stats.dropped, stats.pending) == (3, 1, 1, 1)
    assert (stats.policy, stats.topics, stats.errors, stats.closed) == ("drop_oldest", 1, 0, False)
    assert stats.lag >= 0
    assert bench.hub.stats()[0].subscription == subscription.id


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"callback": 5}, "callback"),
        ({"on_error": "x", "callback": print}, "on_error"),
        ({"on_event": 1.5}, "on_event"),
        ({"maxsize": -1}, "maxsize"),
        ({"maxsize": 0}, "maxsize"),
        ({"maxsize": 1.5}, "maxsize"),
        ({"maxsize": True}, "maxsize"),
        ({"overflow": "explode"}, "Overflow.CONFLATE"),
        ({"queue": []}, "queue"),
        ({"queue": queue.PriorityQueue()}, "queue"),
        ({"queue": queue.Queue(), "callback": print}, "exclude"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_wanted(
    bench: Bench, arguments: dict[str, Any], word: str
) -> None:
    with pytest.raises(InvalidRequestError, match=word):
        bench.hub.subscribe([BTC], **arguments)
    assert bench.requests == []
    assert repr(bench.hub) == "<Hub 0 subscriptions to 0 topics>"


def test_queues_of_other_worlds_are_refused(bench: Bench) -> None:
    foreign = multiprocessing.get_context("spawn").Queue()
    for target in (asyncio.Queue(), foreign):
        with pytest.raises(InvalidRequestError, match=r"queue\.Queue"):
            bench.hub.subscribe([BTC], queue=target)  # type: ignore[arg-type]
    foreign.close()


def test_nothing_to_subscribe_to_is_an_error(bench: Bench) -> None:
    with pytest.raises(InvalidRequestError, match="nothing to subscribe"):
        bench.hub.subscribe([])


def test_when_the_sessions_refuse_nothing_is_left_behind(bench: Bench) -> None:
    bench.refusal = SubscriptionError("no")
    with pytest.raises(SubscriptionError):
        bench.hub.subscribe([BTC], callback=print, on_event=print)
    assert bench.requests == []
    assert repr(bench.hub) == "<Hub 0 subscriptions to 0 topics>"
    assert bench.hub.topics == frozenset()


def test_a_closed_hub_takes_no_subscription(bench: Bench) -> None:
    waiting = bench.hub.subscribe([BTC])
    bench.hub.close(Deadline.after(1))
    with pytest.raises(ClosedError):
        bench.hub.subscribe([BTC])
    assert waiting.closed
    assert list(waiting) == []


# Callbacks


def test_a_callback_gets_everything_in_order_on_its_own_thread(bench: Bench) -> None:
    got: list[int] = []
    threads: set[str] = set()

    def callback(item: TradeData) -> None:
        threads.add(threading.current_thread().name)
        got.append(item.sequential_id or 0)

    bench.hub.subscribe([BTC], callback=callback)
    for number in range(200):
        bench.publish(number)
    wait_until(lambda: len(got) == 200)
    assert got == list(range(200))
    assert threads == {"upbit-sub-1"}


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, BaseException, GeneratorExit])
def test_whatever_a_callback_raises_the_next_item_comes(bench: Bench, error: type[BaseException]) -> None:
    got: list[int] = []
    told: list[BaseException] = []

    def callback(item: TradeData) -> None:
        got.append(item.sequential_id or 0)
        raise error("on purpose")

    subscription = bench.hub.subscribe([BTC], callback=callback, on_error=told.append)
    bench.publish(1, 2, 3)
    wait_until(lambda: len(got) == 3)
    wait_until(lambda: subscription.stats.errors == 3)
    assert [type(each) for each in told] == [error] * 3
    wait_until(lambda: len(bench.seen(CallbackErrorEvent)) >= 1)
    event = bench.seen(CallbackErrorEvent)[0]
    assert (event.subscription, event.in_a_row, type(event.error)) == (subscription.id, 1, error)


def test_errors_in_a_row_become_another_event_and_not_a_flood(bench: Bench) -> None:
    subscription = bench.hub.subscribe([BTC], callback=lambda item: 1 / 0)
    bench.publish(*range(100))
    wait_until(lambda: subscription.stats.errors == 100)
    wait_until(lambda: {10, 100} <= {event.in_a_row for event in bench.seen(CallbackErrorEvent)})
    assert len(bench.seen(CallbackErrorEvent)) < 50


def test_an_on_error_that_fails_itself_ends_nothing(bench: Bench) -> None:
    def on_error(error: BaseException) -> None:
        raise SystemExit

    subscription = bench.hub.subscribe([BTC], callback=lambda item: 1 / 0, on_error=on_error)
    bench.publish(1, 2, 3)
    wait_until(lambda: subscription.stats.errors == 3)


def test_an_on_error_that_fails_is_told_once_until_it_works_again(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    works = threading.Event()
    told: list[BaseException] = []

    def on_error(error: BaseException) -> None:
        if not works.is_set():
            raise OSError("no mail")
        told.append(error)

    subscription = bench.hub.subscribe([BTC], callback=lambda item: 1 / 0, on_error=on_error)
    bench.hub.publish(BTC, [trade(number) for number in range(5)])
    wait_until(lambda: subscription.stats.errors == 5, "five failures")
    works.set()
    bench.hub.publish(BTC, [trade(number) for number in range(5, 8)])
    wait_until(lambda: len(told) == 3, "the others to be told")
    lines = [record.getMessage() for record in caplog.records if "on_error" in record.getMessage()]
    assert [line.partition(": ")[2] for line in lines] == [
        "on_error itself failed",
        "on_error works again; it failed 5 times in a row",
    ]


def test_unsubscribing_inside_the_callback_is_the_last_call(bench: Bench) -> None:
    got: list[int] = []

    def callback(item: TradeData) -> None:
        got.append(item.sequential_id or 0)
        bench.hub.unsubscribe("sub-1")

    bench.hub.subscribe([BTC], callback=callback)
    bench.publish(1, 2, 3)
    wait_until(lambda: repr(bench.hub) == "<Hub 0 subscriptions to 0 topics>")
    bench.publish(4)
    wait_until(lambda: not any(thread.name == "upbit-sub-1" for thread in threading.enumerate()))
    assert got == [1]


def test_callbacks_may_subscribe_and_close_each_other(bench: Bench) -> None:
    started = threading.Event()
    second: list[Subscription] = []

    def callback(item: TradeData) -> None:
        second.append(bench.hub.subscribe([BTC], callback=lambda each: bench.hub.unsubscribe("sub-1")))
        started.set()

    first = bench.hub.subscribe([BTC], callback=callback)
    bench.publish(1)
    assert wait_event(started, Deadline.after(5))
    bench.publish(2)
    wait_until(lambda: first.closed)


def test_closing_the_hub_inside_a_callback_returns(bench: Bench) -> None:
    done = threading.Event()

    def callback(item: TradeData) -> None:
        bench.hub.close(Deadline.after(1))
        done.set()

    bench.hub.subscribe([BTC], callback=callback)
    bench.publish(1)
    assert wait_event(done, Deadline.after(5))


def test_close_waits_for_the_call_under_way_but_not_for_ever(bench: Bench) -> None:
    inside, release = threading.Event(), threading.Event()

    def callback(item: TradeData) -> None:
        inside.set()
        wait_event(release, Deadline.after(10))

    subscription = bench.hub.subscribe([BTC], callback=callback)
    bench.publish(1)
    assert wait_event(inside, Deadline.after(5))
    started = time.monotonic()
    subscription.close(timeout=0.2)
    assert 0.15 < time.monotonic() - started < promised(2)
    closer = spawn(lambda: subscription.close(timeout=5), "closer")
    release.set()
    closer.join(5)
    assert not closer.is_alive()


def test_a_callback_that_hangs_hurts_nobody_else(bench: Bench) -> None:
    release = threading.Event()
    bench.hub.subscribe([BTC], callback=lambda item: wait_event(release, Deadline.after(10)))
    fine: list[int] = []
    bench.hub.subscribe([BTC], callback=lambda item: fine.append(item.sequential_id or 0))
    started = time.monotonic()
    for number in range(5000):
        bench.publish(number)
    assert time.monotonic() - started < promised(5)
    wait_until(lambda: len(fine) >= 1000)
    release.set()


def test_reading_a_callback_subscription_is_refused(bench: Bench) -> None:
    subscription = bench.hub.subscribe([BTC], callback=print)
    with pytest.raises(InvalidRequestError):
        subscription.get(timeout=1)
    with pytest.raises(InvalidRequestError):
        iter(subscription)


# The user's own queue


@pytest.mark.parametrize("make", [queue.Queue, queue.SimpleQueue, queue.LifoQueue])
def test_items_come_by_themselves_into_the_users_queue(bench: Bench, make: Callable[[], Any]) -> None:
    target = make()
    bench.hub.subscribe([BTC], queue=target)
    bench.publish(1)
    assert target.get(timeout=5).sequential_id == 1


def test_a_full_queue_of_the_user_stops_neither_the_stream_nor_close(bench: Bench) -> None:
    target: queue.Queue[Any] = queue.Queue(2)
    subscription = bench.hub.subscribe([BTC], queue=target, maxsize=5)
    started = time.monotonic()
    bench.publish(*range(100))
    wait_until(lambda: target.full())
    subscription.close()
    assert time.monotonic() - started < promised(3)
    received, delivered, dropped, pending = subscription.queue.counts()
    assert (received, pending) == (100, 0)
    assert received == delivered + dropped
    target.get_nowait()
    assert target.qsize() == 1  # nothing follows after close


# Overflow


def test_a_slow_reader_is_told_of_its_losses(bench: Bench) -> None:
    own: list[Any] = []
    subscription = bench.hub.subscribe([BTC], maxsize=3, on_event=own.append)
    bench.publish(*range(10))
    wait_until(lambda: len(own) == 1)
    event = own[0]
    assert isinstance(event, OverflowEvent)
    assert (event.subscription, event.dropped) == (subscription.id, 7)


def test_overflow_error_ends_the_subscription_and_frees_its_topics(bench: Bench) -> None:
    subscription = bench.hub.subscribe([BTC], overflow=Overflow.ERROR, maxsize=2)
    bench.publish(1, 2, 3)
    assert [word for word, _ in bench.requests] == ["want", "release"]
    got: list[Any] = []
    with pytest.raises(SubscriptionError):
        got.extend(item for item in subscription)
    assert got == [trade(1), trade(2)]
    subscription.close()
    assert [word for word, _ in bench.requests] == ["want", "release"]


def test_overflow_error_reaches_on_error_of_a_callback(bench: Bench) -> None:
    release = threading.Event()
    told: list[BaseException] = []

    def callback(item: TradeData) -> None:
        wait_event(release, Deadline.after(10))

    bench.hub.subscribe([BTC], callback=callback, on_error=told.append, overflow=Overflow.ERROR, maxsize=2)
    bench.publish(*range(10))
    release.set()
    wait_until(lambda: len(told) == 1)
    assert isinstance(told[0], SubscriptionError)


def test_overflow_before_the_request_was_made_still_takes_it_back(bench: Bench) -> None:
    class Busy(Bench):
        def acquire(self, owner: str, requests: Any) -> None:
            self.publish(*range(5))  # the topic is live and its market busy
            super().acquire(owner, requests)

    busy = Busy()
    busy.hub.subscribe([BTC], overflow=Overflow.ERROR, maxsize=1)
    assert [word for word, _ in busy.requests] == ["want", "release"]
    busy.hub.close(Deadline.after(1))


# Events


def test_on_event_hears_what_concerns_the_subscription(bench: Bench) -> None:
    heard: list[Any] = []
    subscription = bench.hub.subscribe([BTC], on_event=heard.append)

    def gap(symbol: str) -> GapEvent:
        return GapEvent(at=now(), symbol=symbol, type=DataType.TRADE, start=NOON, end=NOON, recovered=1, complete=True)

    about_others = (gap("KRW-ETH"), SubscriptionEvent(at=now(), topics=(str(ETH),), reason="no first frame"))
    mine = (gap("KRW-BTC"), SubscriptionEvent(at=now(), topics=(str(BTC),), reason="no first frame"))
    for event in (*about_others, *mine):
        bench.events.emit(event)
    wait_until(lambda: len(heard) == 2)
    assert heard == list(mine)
    subscription.close()
    bench.events.emit(mine[0])
    assert heard == list(mine)
