"""Ctrl-C in turn at every place of the public methods: afterwards all counts are right, and everything goes on."""

from __future__ import annotations

import gc
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from injection import Injector

from tests.support.waiting import wait_until
from upbit_backbone import DataType, MarketDataBackbone, Subscription
from upbit_backbone._concurrency import Deadline
from upbit_backbone.delivery.event_bus import Listening
from upbit_backbone.models.topic import Topic

# The bounded run takes so many places of each method, evenly spread from a random start; the long one takes them all.
PLACES = int(os.environ.get("UPBIT_BACKBONE_FAULT_PLACES", "25"))
SEED = int(os.environ.get("UPBIT_BACKBONE_FAULT_SEED", str(random.SystemRandom().randrange(2**32))))
WAIT_SECONDS = 10.0
Opened = TypeVar("Opened", Subscription, Listening)

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.version_info >= (3, 14), reason="CPython 3.14 itself may leave a lock held in a `with`"),
    pytest.mark.skipif(sys.platform == "win32", reason="the interrupt is armed the POSIX way"),
    pytest.mark.xdist_group("faults"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    # Where Ctrl-C comes in a finalizer (urllib3 has one for its connections), Python drops it and tells so.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


# What a method has opened and not yet closed: a `close` that had not begun when it was interrupted changes nothing.
HELD: list[Subscription | Listening] = []


def hold(opened: Opened) -> Opened:
    HELD.append(opened)
    return opened


def subscribe(market: MarketDataBackbone) -> None:
    hold(market.subscribe("KRW-ETH", [DataType.TICKER, DataType.TRADE])).close()


def subscribe_with_callback(market: MarketDataBackbone) -> None:
    sid = market.subscribe_realtime("KRW-XRP", "trade", callback=id, on_event=id)
    hold(market._parts.hub._subscriptions[sid])
    market.unsubscribe(sid)


def read(market: MarketDataBackbone) -> None:
    with hold(market.subscribe("KRW-BTC", "trade")) as trades:
        trades.get(timeout=WAIT_SECONDS)
        trades.queue.drain()
        assert trades.stats.received > 0


def ask(market: MarketDataBackbone) -> None:
    market.get_ticker("KRW-BTC")
    market.get_orderbook("KRW-XRP", max_age=0, timeout=5)


def ask_for_many(market: MarketDataBackbone) -> None:
    market.get_tickers(["KRW-BTC", "KRW-XRP"], max_age=0, timeout=5)


def look(market: MarketDataBackbone) -> None:
    str(market.health())
    market.performance()
    market.explain("ticker", "KRW-BTC")
    repr(market)


def listen(market: MarketDataBackbone) -> None:
    hold(market.on_event(id)).close()


def submit(market: MarketDataBackbone) -> None:
    assert market.submit(len, "abc").result(WAIT_SECONDS) == 3


METHODS: list[Callable[[MarketDataBackbone], None]] = [
    subscribe,
    subscribe_with_callback,
    read,
    ask,
    ask_for_many,
    look,
    listen,
    submit,
]


def check(market: MarketDataBackbone, kept: frozenset[Topic], where: str) -> None:
    """No table of ours says anything that another one, or nobody any more, knows of."""
    parts = market._parts
    while HELD:
        HELD.pop().close()

    def left() -> tuple[object, ...]:
        topics = parts.sessions.topics() - set(parts.promotions._since)
        return topics - kept, parts.hub.topics - kept, len(parts.hub._subscriptions) - 1, parts.events._listening

    wait_until(lambda: not any(left()), f"nothing to be left of an interrupt at {where} (seed {SEED}): {left()}")


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """No thread. A socket may stay whose closing, in a finalizer of urllib3's, was itself interrupted."""
    before = set(threading.enumerate())
    yield
    wait_until(lambda: not [each for each in set(threading.enumerate()) - before if each.name.startswith("upbit-")])


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_ctrl_c_at_every_place(method: Callable[[MarketDataBackbone], None], market: MarketDataBackbone) -> None:
    HELD.clear()
    with market.subscribe("KRW-BTC", "trade") as trades:
        trades.get(timeout=WAIT_SECONDS)
        for _ in range(2):  # what is loaded, learnt and promoted at the first use
            method(market)
        check(market, trades.topics, "no place at all")
        injector, struck = Injector(), 0
        places = injector.count(lambda: method(market))
        step = max(1, places // PLACES)
        for at in range(random.Random(SEED).randrange(step), places, step):
            error = injector.strike(lambda: method(market), at)
            where = f"place {at}: {injector.place}"
            assert error is None or isinstance(error, KeyboardInterrupt), f"{where} (seed {SEED}): {error!r}"
            struck += error is not None
            check(market, trades.topics, where)
        assert struck
        method(market)  # it answers
        trades.queue.drain()
        assert trades.get(timeout=WAIT_SECONDS)  # it streams
        with market.subscribe("KRW-ETH", "trade") as others:
            assert others.get(timeout=WAIT_SECONDS).symbol == "KRW-ETH"
    assert market._parts.close(Deadline.after(2.0)) == []  # and it closes
    # A socket whose maker was interrupted before anybody held it is closed by Python, which grumbles.
    gc.collect()
