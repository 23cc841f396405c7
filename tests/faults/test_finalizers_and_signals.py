"""Closing from code that interrupts this library at any place: it never waits for a lock of what it interrupts."""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable

import pytest
from injection import Injector

from tests.support.waiting import wait_until
from upbit_backbone import DataType, LiveOrderbook, MarketDataBackbone, Subscription
from upbit_backbone._concurrency import Deadline, calls_users, is_interrupting, join_all, spawn
from upbit_backbone.simulator import FakeUpbit

PLACES = int(os.environ.get("UPBIT_BACKBONE_FAULT_PLACES", "40"))
SEED = int(os.environ.get("UPBIT_BACKBONE_FAULT_SEED", str(random.SystemRandom().randrange(2**32))))
WAIT_SECONDS = 30.0
AT_ONCE_SECONDS = 1.0  # nothing is waited for; what is measured is a busy machine's own slowness

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="signals are sent the POSIX way"),
    pytest.mark.xdist_group("faults"),
]


def spread(places: int, most: int) -> range:
    step = max(1, places // most)
    return range(random.Random(SEED).randrange(step), places, step)


def change_and_read(market: MarketDataBackbone) -> None:
    with market.subscribe("KRW-BTC", [DataType.TRADE, DataType.TICKER], on_event=id) as items:
        items.get(timeout=WAIT_SECONDS)
        items.queue.drain()
        assert items.stats.received


def test_a_finalizer_may_close_a_subscription_wherever_it_runs(market: MarketDataBackbone) -> None:
    """In turn at places all over subscribing, reading and closing, under whatever lock is held there."""
    with market.subscribe("KRW-BTC", ["trade", "ticker"]) as kept:
        kept.get(timeout=WAIT_SECONDS)
        change_and_read(market)
        others: list[Subscription] = []
        seconds: list[float] = []

        def finalize() -> None:
            began = time.monotonic()
            others[-1].close()
            seconds.append(time.monotonic() - began)

        injector = Injector(action=finalize)
        others.append(market.subscribe("KRW-ETH", "trade"))
        for at in spread(injector.count(lambda: change_and_read(market)), PLACES):
            others.append(market.subscribe("KRW-ETH", "trade", on_event=id))
            assert injector.strike(lambda: change_and_read(market), at) is None, f"{injector.place} (seed {SEED})"
            if not injector.place:  # there are a few less, now and then: how often one waits is chance
                others[-1].close()
                continue
            assert others[-1].closed
            assert seconds[-1] < AT_ONCE_SECONDS, f"{injector.place} (seed {SEED})"
        assert seconds
        others[0].close()
        parts = market._parts
        wait_until(lambda: parts.sessions.topics() == parts.hub.topics == kept.topics, "what was closed to be gone")
        wait_until(lambda: not parts.events._listening, "its listeners, too")


def test_a_forgotten_order_book_closes_itself_under_whatever_lock_it_is_collected(market: MarketDataBackbone) -> None:
    """Its finalizer is ours and was called by nobody: what holds the lock is the very code that it interrupts."""
    trades, hub = market.subscribe("KRW-BTC", "trade"), market._parts.hub

    def entry_that_holds(book: LiveOrderbook) -> Callable[[], Subscription]:
        return lambda: (trades, book)[0]

    # The hub drops a subscription's entry under its lock, and with this one the last reference to the book.
    hub._subscriptions[trades.id] = entry_that_holds(market.live_orderbook("KRW-ETH"))
    closing = spawn(trades.close, "test-closes")
    assert join_all([closing], Deadline.after(WAIT_SECONDS)) == []
    wait_until(lambda: market._parts.sessions.topics() == hub.topics == frozenset(), "nothing to be wanted any more")


def test_close_in_a_signal_handler_returns_at_once_and_all_of_it_is_closed(upbit: FakeUpbit) -> None:
    """At places all over a `for` loop and a change: each time a whole backbone, and afterwards not a thread of it."""
    seconds: list[float] = []
    markets: list[MarketDataBackbone] = []

    def handler(number: int, frame: object) -> None:
        began = time.monotonic()
        markets[-1].close()
        seconds.append(time.monotonic() - began)

    def fresh() -> MarketDataBackbone:
        markets.append(MarketDataBackbone(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url))
        markets[-1].get_markets()
        return markets[-1]

    def life(market: MarketDataBackbone) -> None:
        with market.subscribe("KRW-BTC", "trade") as trades:
            for _, _ in zip(range(3), trades, strict=False):
                pass

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        injector = Injector(number=signal.SIGUSR1)
        with fresh() as counted:
            life(counted)
            places = injector.count(lambda: life(counted))
        for at in spread(places, PLACES // 2):
            market = fresh()
            error = injector.strike(lambda: life(market), at)  # noqa: B023
            if not injector.place:  # there are a few less, now and then: how often one waits is chance
                market.close()
            assert seconds, "no place was reached"
            assert seconds[-1] < AT_ONCE_SECONDS, f"{injector.place} (seed {SEED}) {error!r}"
            assert market.closed
            market.close()
            wait_until(lambda: not _threads(), f"the end of its threads after {injector.place} (seed {SEED})")
    finally:
        signal.signal(signal.SIGUSR1, before)
        for market in markets:
            market.close()


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("upbit-")]


def test_garbage_collection_may_close_what_its_thread_is_working_on(market: MarketDataBackbone) -> None:
    """The default settings and real collections: objects in cycles whose `__del__` or weakref callback closes."""

    class Owner:
        def __init__(self, subscription: Subscription) -> None:
            self.subscription = subscription
            self.me = self

        def __del__(self) -> None:
            self.subscription.close()

    closed: list[Subscription] = []
    threshold = gc.get_threshold()
    gc.set_threshold(20, 5, 5)
    try:
        for number in range(150):
            subscription = market.subscribe("KRW-ETH", "trade")
            if number % 2:
                Owner(subscription)
            else:
                weakref.finalize(_Cycle(), subscription.close)
            closed.append(subscription)
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    wait_until(lambda: all(each.closed for each in closed), "the end of all")
    parts = market._parts
    wait_until(lambda: parts.sessions.topics() == parts.hub.topics == frozenset(), "nothing to be wanted any more")


class _Cycle:
    def __init__(self) -> None:
        self.me = self


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="CPython 3.14 itself may leave a lock held in a `with`")
def test_a_thread_whose_start_is_interrupted_anywhere_is_started_or_not_but_never_half() -> None:
    """At each place in turn. One half started would stand among all threads for ever, without a first step."""
    injector, struck = Injector(), 0
    ran: list[int] = []

    def start(number: int) -> None:
        spawn(lambda: ran.append(number), "test-started")

    def left() -> list[str]:
        return [each.name for each in threading.enumerate() if each.name == "test-started"]

    for at in range(injector.count(lambda: start(-1))):
        struck += isinstance(injector.strike(lambda: start(at), at), KeyboardInterrupt)  # noqa: B023
        wait_until(lambda: not left(), f"the end of what was started, interrupted at {injector.place}")
    start(-2)
    wait_until(lambda: -2 in ran and not left(), "a thread to be had, and the end of all")
    assert struck
    once = [number for number in ran if number >= 0]  # what was counted may run twice
    assert len(once) == len(set(once))


def test_who_interrupts_is_told_from_who_is_called(market: MarketDataBackbone) -> None:
    found: list[bool] = []

    def ask() -> None:
        found.append(is_interrupting())

    ask()
    called = threading.Event()
    sid = market.subscribe_realtime("KRW-BTC", "trade", callback=lambda item: (ask(), called.set()))
    assert called.wait(WAIT_SECONDS)
    assert market.unsubscribe(sid)
    injector = Injector(action=ask)
    assert injector.count(market.health) > 5
    injector.strike(market.health, 5)
    assert (found[0], found[1], found[-1]) == (False, False, True)
    assert calls_users(ask) is ask
