"""How reading ends: a mark in a queue of one's own, a loop's own timeout, a word where nothing comes, an error."""

from __future__ import annotations

import queue
import threading
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

import upbit_backbone
from tests.support.waiting import wait_until
from upbit_backbone import ClosedError, InvalidRequestError, MailboxClosedError, MarketDataBackbone, RequestTimeoutError
from upbit_backbone._concurrency import Deadline
from upbit_backbone.delivery import subscription as subscriptions
from upbit_backbone.delivery.event_bus import EventBus
from upbit_backbone.delivery.hub import Hub
from upbit_backbone.models.enums import DataSource, DataType, Overflow
from upbit_backbone.models.market import TradeData
from upbit_backbone.models.request import Topic

BTC = Topic(DataType.TRADE, "KRW-BTC")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def trade(number: int) -> TradeData:
    return TradeData("KRW-BTC", Decimal(number), Decimal(1), None, NOON, number, DataSource.WEBSOCKET)


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub(EventBus(), close_seconds=0.5, why_silent=lambda: "session-1 is waiting (refused)")
    yield hub
    assert hub.close(Deadline.after(2)) == []


def publish(hub: Hub, *numbers: int) -> None:
    hub.publish(BTC, [trade(number) for number in numbers])


@pytest.mark.parametrize("target", [queue.Queue(), queue.Queue(3), queue.SimpleQueue()])
def test_workers_on_a_queue_of_ones_own_end_with_close(hub: Hub, target: Any) -> None:
    got: list[int] = []

    def work() -> None:
        while (item := target.get()) is not None:
            got.append(item.sequential_id)
        target.put(None)  # for the other worker

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    subscription = hub.subscribe([BTC], queue=target, end=None)
    publish(hub, 1, 2)
    wait_until(lambda: len(got) == 2, "both items were worked on")
    subscription.close()
    for worker in workers:
        worker.join(30)
        assert not worker.is_alive()
    assert sorted(got) == [1, 2]
    assert subscription.stats.ahead_of_end == 0


def test_what_stood_in_front_of_the_mark_is_counted(hub: Hub) -> None:
    target: queue.Queue[Any] = queue.Queue()
    subscription = hub.subscribe([BTC], queue=target, end="over")
    assert subscription.stats.ahead_of_end is None
    publish(hub, 1, 2, 3)
    wait_until(lambda: target.qsize() == 3, "all were moved on")
    subscription.close()
    assert subscription.stats.ahead_of_end == 3
    assert [target.get_nowait() for _ in range(4)][-1] == "over"


def test_a_full_queue_gets_its_mark_for_the_oldest_item_which_is_counted(hub: Hub) -> None:
    target: queue.Queue[Any] = queue.Queue(2)
    subscription = hub.subscribe([BTC], queue=target, end=None)
    publish(hub, 1, 2)
    wait_until(target.full, "the queue is full")
    subscription.close()
    wait_until(lambda: subscription.stats.ahead_of_end is not None, "the mark is in")
    assert [item and item.sequential_id for item in (target.get_nowait(), target.get_nowait())] == [2, None]
    stats = subscription.stats
    assert (stats.received, stats.delivered, stats.dropped, stats.ahead_of_end) == (2, 1, 1, 1)


def test_without_asking_no_mark_is_put_in_and_a_source_that_is_over_puts_one(hub: Hub) -> None:
    plain: queue.Queue[Any] = queue.Queue()
    hub.subscribe([BTC], queue=plain).close()
    assert plain.empty()
    marked: queue.Queue[Any] = queue.Queue()
    hub.subscribe([BTC], queue=marked, end=None)
    publish(hub, 1)
    hub.finish()
    assert [marked.get(timeout=30) is None for _ in range(2)] == [False, True]


def test_an_end_mark_without_a_queue_is_refused(hub: Hub) -> None:
    with pytest.raises(InvalidRequestError, match="give queue= as well"):
        hub.subscribe([BTC], end=None)


def test_an_overflow_that_ends_it_puts_the_mark_too(hub: Hub) -> None:
    target: queue.Queue[Any] = queue.Queue(1)
    hub.subscribe([BTC], queue=target, end=None, maxsize=1, overflow=Overflow.ERROR)
    publish(hub, *range(10))
    while target.get(timeout=30) is not None:
        pass


def test_a_loop_ends_by_its_own_timeout_and_so_does_get(hub: Hub) -> None:
    reader = hub.subscribe([BTC], timeout=0.05)
    publish(hub, 1)
    got = []
    with pytest.raises(RequestTimeoutError) as caught:
        got.extend(item.sequential_id for item in reader)
    assert isinstance(caught.value, queue.Empty)
    with pytest.raises(queue.Empty):
        reader.get()
    with pytest.raises(InvalidRequestError, match="timeout=-1"):
        hub.subscribe([BTC], timeout=-1)


def test_a_loops_timeout_counts_from_its_beginning_and_says_what_did_not_come(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting for the first item was followed by the whole timeout once more."""
    reader = hub.subscribe([BTC], timeout=0.05)
    left: list[float | None] = []
    get = reader.mailbox.get

    def noted(*, timeout: float | None) -> object:
        left.append(timeout)
        return get(timeout=timeout)

    monkeypatch.setattr(reader.mailbox, "get", noted)
    words = r"sub-1: nothing arrived .*\(trade:KRW-BTC\); session-1 is waiting \(refused\)"
    with pytest.raises(RequestTimeoutError, match=words):
        next(reader)
    assert left == [0.0]


def test_get_says_why_nothing_came_but_not_to_one_who_polls(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = hub.subscribe([BTC])
    with pytest.raises(RequestTimeoutError) as polled:
        reader.get(timeout=0)
    assert "session-1" not in str(polled.value)
    monkeypatch.setattr(subscriptions, "POLLED_SECONDS", 0.0)
    with pytest.raises(queue.Empty, match="session-1 is waiting"):
        reader.get(timeout=0)


def test_a_loop_that_gets_nothing_says_so_once_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def reason() -> str:
        publish(hub, 1)  # what it waited for comes just after
        return "session-1 is waiting (refused)"

    monkeypatch.setattr(subscriptions, "SILENCE_SECONDS", 0.0)
    hub = Hub(EventBus(), why_silent=reason)
    with hub.subscribe([BTC]) as reader:
        words = r"nothing has come.*trade.*KRW-BTC.*session-1 is waiting"
        with pytest.warns(UserWarning, match=words) as told:
            assert next(reader).sequential_id == 1
        assert [warning.filename for warning in told] == [__file__]  # where the loop stands
        publish(hub, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert next(reader).sequential_id == 2


def test_a_loop_whose_first_item_comes_says_nothing(hub: Hub) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reader = hub.subscribe([BTC], timeout=30)
        publish(hub, 1)
        assert next(reader).sequential_id == 1


def test_the_error_of_a_closed_mailbox_can_be_caught_by_name(hub: Hub) -> None:
    reader = hub.subscribe([BTC])
    reader.close()
    with pytest.raises(MailboxClosedError):
        reader.get()
    with pytest.raises(ClosedError):
        reader.queue.get_nowait()
    assert "MailboxClosedError" in upbit_backbone.__all__


def test_the_market_takes_both(hub: Hub) -> None:
    with MarketDataBackbone(url="http://127.0.0.1:9") as market:
        with pytest.raises(InvalidRequestError, match="give queue= as well"):
            market.subscribe("KRW-BTC", end=None)
        with pytest.raises(InvalidRequestError, match="timeout=nan"):
            market.subscribe("KRW-BTC", timeout=float("nan"))
