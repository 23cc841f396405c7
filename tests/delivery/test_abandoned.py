"""What nobody can read any more ends by itself, wherever the last reference goes; what can be read goes on."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.support.waiting import wait_until
from upbit_backbone import LiveOrderbook, MarketDataBackbone
from upbit_backbone._concurrency import Deadline
from upbit_backbone.delivery.buffers import UNREAD_SECONDS
from upbit_backbone.delivery.event_bus import EventBus
from upbit_backbone.delivery.hub import Hub
from upbit_backbone.delivery.subscription import Subscription
from upbit_backbone.models.enums import DataSource, DataType, Overflow
from upbit_backbone.models.events import OverflowEvent
from upbit_backbone.models.market import TradeData
from upbit_backbone.models.request import Topic
from upbit_backbone.simulator import FakeUpbit

BTC = Topic(DataType.TRADE, "KRW-BTC")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def trade(number: int) -> TradeData:
    return TradeData("KRW-BTC", Decimal(number), Decimal(1), None, NOON, number, DataSource.WEBSOCKET)


class Scene:
    """A hub, the names of those who want something of the sessions, and a clock that is turned by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.wanting: set[str] = set()
        self.events = EventBus()
        self.hub = Hub(
            self.events,
            acquire=lambda owner, requests: self.wanting.add(owner),
            release=self.wanting.discard,
            clock=lambda: self.now,
        )

    def publish(self, *numbers: int) -> int:
        return self.hub.publish(BTC, [trade(number) for number in numbers])

    @property
    def is_over(self) -> bool:
        """Whether nothing of any subscription is left: no request, no route, no name."""
        return not self.wanting and not self.hub.topics and not self.hub.stats() and self.publish(0) == 1

    @property
    def complaints(self) -> list[str]:
        return [event.reason for event in self.events.recent() if isinstance(event, OverflowEvent)]


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    assert scene.hub.close(Deadline.after(2)) == []
    assert scene.events.close(Deadline.after(2)) == []


def seeded(scene: Scene) -> Subscription:
    subscription = scene.hub.subscribe([BTC])
    scene.publish(1, 2)
    return subscription


def test_a_loop_left_by_break_ends_the_subscription_at_once(scene: Scene) -> None:
    for item in seeded(scene):
        assert item.sequential_id == 1
        break
    assert scene.is_over


def test_a_loop_left_by_an_exception_ends_it_though_the_traceback_lives_on(scene: Scene) -> None:
    def fail() -> None:
        for _ in seeded(scene):
            raise LookupError("of the user's")

    with pytest.raises(LookupError) as caught:
        fail()
    assert scene.is_over
    assert caught.traceback


def test_a_cell_that_is_run_again_leaves_only_its_newest_subscription(scene: Scene) -> None:
    for _ in range(30):
        cell = seeded(scene)
        assert cell.get(timeout=1) is not None
    assert len(scene.hub.stats()) == 1
    assert scene.wanting == {cell.id}


def test_who_holds_the_queue_or_an_iterator_holds_the_subscription(scene: Scene) -> None:
    for handle in (lambda each: each.queue, iter):
        held = handle(seeded(scene))
        gc.collect()
        scene.publish(3)
        assert scene.hub.stats()[0].received == 3
        assert scene.hub.unsubscribe(scene.hub.stats()[0].subscription)
        del held
        gc.collect()
        assert scene.is_over
    waiting = seeded(scene).queue
    del waiting
    gc.collect()
    assert scene.is_over


def test_a_reader_who_waits_in_another_thread_is_not_abandoned(scene: Scene) -> None:
    got: list[int] = []
    is_there = threading.Event()

    def read() -> None:
        for item in scene.hub.subscribe([BTC]):
            got.append(item.sequential_id)
            if item.sequential_id == 9:
                return
            is_there.set()

    reader = threading.Thread(target=read)
    reader.start()
    wait_until(lambda: scene.publish(1) == 0, "the reader has subscribed")
    assert is_there.wait(30)
    gc.collect()
    scene.publish(9)
    reader.join(30)
    assert got[-1] == 9
    assert scene.is_over


def test_a_callback_or_a_queue_of_ones_own_needs_nobody_who_holds_it(scene: Scene) -> None:
    got: list[Any] = []
    scene.hub.subscribe([BTC], callback=got.append)
    gc.collect()
    scene.publish(1)
    wait_until(lambda: len(got) == 1, "the callback was called")
    assert len(scene.wanting) == 1


def test_garbage_collected_under_our_own_lock_ends_it_without_waiting_for_that_lock(scene: Scene) -> None:
    class Cycle:
        pass

    cycle = Cycle()
    cycle.subscription, cycle.itself = seeded(scene), cycle  # type: ignore[attr-defined]
    del cycle
    wanting = scene.hub._release_topics

    def collect_first(owner: str) -> object:  # runs inside the hub, as a collection might
        gc.collect()
        return wanting(owner)

    scene.hub._release_topics = collect_first
    scene.hub.subscribe([BTC]).close()
    wait_until(lambda: scene.is_over, "a thread of its own took it out")


def test_who_hears_of_its_events_does_not_hold_it(scene: Scene) -> None:
    heard: list[Any] = []
    subscription = scene.hub.subscribe([BTC], on_event=heard.append)
    del subscription
    gc.collect()
    assert scene.is_over


# ── nobody reads ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("overflow", [None, Overflow.CONFLATE, Overflow.DROP_OLDEST])
def test_what_nobody_has_read_for_long_is_told_once(scene: Scene, overflow: Overflow | None) -> None:
    subscription = scene.hub.subscribe([BTC], overflow=overflow)
    scene.publish(1)
    scene.now = UNREAD_SECONDS
    scene.publish(2)
    assert scene.complaints == []
    for later in range(1, 4):
        scene.now = UNREAD_SECONDS + later
        scene.publish(later)
    (reason,) = scene.complaints
    assert reason.startswith("nobody has read it for 61 s")
    assert "close()" in reason
    assert subscription.get(timeout=1) is not None


def test_who_reads_now_and_then_hears_nothing(scene: Scene) -> None:
    subscription = scene.hub.subscribe([BTC])
    for minute in range(10):
        scene.now = minute * UNREAD_SECONDS
        scene.publish(minute)
        assert subscription.get(timeout=1).sequential_id == minute
    assert scene.complaints == []


# ── the whole library ────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_streams_after_loops_and_books_were_left() -> None:
    with FakeUpbit(trades_per_second=0, ban_after=0, markets=["KRW-BTC"]) as upbit:
        urls = {"rest_url": upbit.rest_url, "websocket_url": upbit.websocket_url, "timeout_seconds": 20.0}
        with MarketDataBackbone(**urls) as market:
            for _ in range(5):
                for _ticker in market.subscribe("KRW-BTC", "ticker"):
                    break
                book: LiveOrderbook | None = market.live_orderbook("KRW-BTC")
                assert book is not None
            book = None
            gc.collect()
            wait_until(lambda: not market.session_manager.topics(), "nothing is subscribed any more")
            assert "subscription" not in str(market.health())


def test_a_backbone_forgotten_before_its_subscription_goes_when_that_goes() -> None:
    with FakeUpbit(trades_per_second=0, ban_after=0, markets=["KRW-BTC"]) as upbit:
        market = MarketDataBackbone(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url)
        parts = market._parts
        tickers = market.subscribe("KRW-BTC", "ticker")
        assert tickers.get(timeout=20).symbol == "KRW-BTC"
        del market
        gc.collect()
        assert not parts.is_closed
        del tickers
        gc.collect()
        wait_until(lambda: parts.is_closed, "the backbone closed itself")
