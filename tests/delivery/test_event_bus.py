"""Events reach every listener on a thread of its own, and emitting never waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.waiting import promised, wait_until
from upbit_backbone._concurrency import Deadline, wait_event
from upbit_backbone.delivery.event_bus import RECENT_EVENTS, WAITING_EVENTS, EventBus
from upbit_backbone.errors import ClosedError
from upbit_backbone.models.events import Event, SubscriptionEvent, now


@pytest.fixture
def bus() -> Iterator[EventBus]:
    bus = EventBus()
    yield bus
    assert bus.close(Deadline.after(2)) == []


def event(number: int = 0) -> SubscriptionEvent:
    return SubscriptionEvent(at=now(), topics=(str(number),), reason="test")


def test_every_listener_hears_everything_in_order(bus: EventBus) -> None:
    first: list[Event] = []
    second: list[Event] = []
    bus.listen(first.append)
    bus.listen(second.append)
    events = [event(number) for number in range(100)]
    for each in events:
        bus.emit(each)
    wait_until(lambda: len(first) == len(second) == 100)
    assert first == second == events


def test_a_bad_listener_and_a_slow_one_hurt_nobody(bus: EventBus) -> None:
    release = threading.Event()
    heard: list[Event] = []
    bus.listen(lambda each: 1 / 0)
    bus.listen(lambda each: wait_event(release, Deadline.after(10)))
    bus.listen(heard.append)
    started = time.monotonic()
    for number in range(WAITING_EVENTS):
        bus.emit(event(number))
    assert time.monotonic() - started < promised(5)
    wait_until(lambda: len(heard) == WAITING_EVENTS)
    release.set()


def test_a_listener_hears_only_what_it_wants(bus: EventBus) -> None:
    heard: list[Event] = []
    bus.listen(heard.append, wants=lambda each: isinstance(each, SubscriptionEvent) and each.topics == ("7",))
    for number in range(10):
        bus.emit(event(number))
    wait_until(lambda: len(heard) == 1)


def test_after_closing_a_listener_is_not_called(bus: EventBus) -> None:
    heard: list[Event] = []
    listening = bus.listen(heard.append)
    listening.close()
    listening.close()
    bus.emit(event())
    assert heard == []
    assert repr(bus) == "<EventBus 0 listeners, 1 recent events>"


def test_a_listener_may_close_itself_and_the_bus(bus: EventBus) -> None:
    done = threading.Event()

    def listener(each: Event) -> None:
        listening.close()
        bus.close(Deadline.after(1))
        done.set()

    listening = bus.listen(listener)
    bus.emit(event())
    assert wait_event(done, Deadline.after(5))


def test_last_words_are_heard_before_the_bus_closes() -> None:
    bus = EventBus()
    heard: list[Event] = []
    bus.listen(heard.append)
    bus.emit(event(1))
    bus.close(Deadline.after(2))
    assert len(heard) == 1
    with pytest.raises(ClosedError):
        bus.listen(heard.append)


def test_the_recent_events_are_kept(bus: EventBus) -> None:
    for number in range(RECENT_EVENTS + 5):
        bus.emit(event(number))
    assert len(bus.recent()) == RECENT_EVENTS
    assert [each.topics for each in bus.recent(2)] == [(str(RECENT_EVENTS + 3),), (str(RECENT_EVENTS + 4),)]
