"""Races and floods, bounded so that they run on every change."""

from __future__ import annotations

import sys
import threading
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from upbit_backbone._concurrency import Deadline, spawn
from upbit_backbone.delivery.event_bus import EventBus
from upbit_backbone.delivery.hub import Hub
from upbit_backbone.delivery.mailbox import Mailbox
from upbit_backbone.errors import ClosedError
from upbit_backbone.models.enums import DataSource, DataType, Overflow
from upbit_backbone.models.market import TradeData
from upbit_backbone.models.request import Topic

BTC = Topic(DataType.TRADE, "KRW-BTC")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TRADE = TradeData("KRW-BTC", Decimal(1), Decimal(1), None, NOON, 1, DataSource.WEBSOCKET)

ROUNDS = 1_000  # each with a thread of its own, beside one that never rests


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads are switched as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_no_callback_begins_after_unsubscribe_has_returned() -> None:
    hub = Hub(EventBus())
    stop = threading.Event()

    def stream() -> None:
        while not stop.is_set():
            hub.publish(BTC, [TRADE])

    writer = spawn(stream, "stream")
    calls_after_end = 0
    calls = 0
    for _ in range(ROUNDS):
        ended = threading.Event()

        def callback(item: TradeData, ended: threading.Event = ended) -> None:
            nonlocal calls, calls_after_end
            calls += 1
            calls_after_end += ended.is_set()

        subscription = hub.subscribe([BTC], callback=callback)
        hub.unsubscribe(subscription.id)
        ended.set()
    stop.set()
    writer.join(10)
    assert calls_after_end == 0
    assert hub.topics == frozenset()


@pytest.mark.usefixtures("restless")
def test_counters_add_up_under_eight_readers_and_four_writers() -> None:
    mailbox = Mailbox(Overflow.DROP_OLDEST, 50)
    per_writer = 2_000
    taken: list[int] = []

    def write() -> None:
        for _ in range(per_writer // 4):
            mailbox.put_many([(BTC, TRADE, 0.0)] * 4)

    def read() -> None:
        count = 0
        try:
            while True:
                mailbox.get()
                count += 1
        except ClosedError:
            taken.append(count)

    readers = [spawn(read, f"reader-{number}") for number in range(8)]
    writers = [spawn(write, f"writer-{number}") for number in range(4)]
    for thread in writers:
        thread.join(30)
    received, delivered, dropped, pending = mailbox.counts()
    assert received == 4 * per_writer
    assert received == delivered + dropped + pending
    mailbox.close()
    for thread in readers:
        thread.join(10)
    received, delivered, dropped, pending = mailbox.counts()
    assert sum(taken) == delivered
    assert (pending, received) == (0, delivered + dropped)


@pytest.mark.parametrize("overflow", [None, *Overflow])
def test_a_stuck_consumer_costs_a_bounded_amount_of_memory(overflow: Overflow | None) -> None:
    hub = Hub(EventBus())
    subscription = hub.subscribe([BTC], overflow=overflow, maxsize=1_000)
    batch = [(BTC, TRADE, 0.0)] * 100
    hub.publish_all(batch * 20)
    tracemalloc.start()
    for _ in range(2_000):
        hub.publish_all(batch)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 1_000_000
    stats = subscription.stats
    assert stats.received == stats.delivered + stats.dropped + stats.pending
    hub.close(Deadline.after(1))


@pytest.mark.usefixtures("restless")
def test_subscribing_from_many_threads_leaves_no_route_behind() -> None:
    topics = [Topic(DataType.TRADE, f"KRW-C{number}") for number in range(20)]
    wanted: dict[str, object] = {}
    hub = Hub(EventBus(), acquire=wanted.__setitem__, release=lambda owner: wanted.pop(owner, None))

    def come_and_go() -> None:
        for number in range(50):
            with hub.subscribe(topics[number % 20 :]):
                hub.publish(topics[-1], [TRADE])

    threads = [spawn(come_and_go, f"user-{number}") for number in range(16)]
    for thread in threads:
        thread.join(30)
    assert hub.topics == frozenset()
    assert wanted == {}
