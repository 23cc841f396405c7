"""Alarms: what a signal handler of the user's raises, at any place of the public methods, reaches him."""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from injection import Injector
from scenes import SEED, WAIT_SECONDS, answer_now_and_then, ask, ask_for_many, check, hold, look, streaming

from tests.support.waiting import wait_until
from upbit_backbone import MarketDataBackbone

PLACES = int(os.environ.get("UPBIT_BACKBONE_FAULT_PLACES", "20"))

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform == "win32", reason="signals are sent the POSIX way"),
    pytest.mark.skipif(sys.version_info >= (3, 14), reason="CPython 3.14 itself may leave a lock held in a `with`"),
    pytest.mark.xdist_group("faults"),
]


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """No thread. A socket may stay whose closing, in a finalizer of urllib3's, was itself interrupted."""
    before = set(threading.enumerate())
    yield
    wait_until(lambda: not [each for each in set(threading.enumerate()) - before if each.name.startswith("upbit-")])


def read_books(market: MarketDataBackbone) -> None:
    with hold(market.subscribe("KRW-ETH", "orderbook")) as books:
        assert books.get(timeout=WAIT_SECONDS).symbol == "KRW-ETH"


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # a socket that was made and never came into any hands
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", [Exception, TimeoutError])
@pytest.mark.parametrize("method", [read_books, ask, ask_for_many, look], ids=lambda method: method.__name__)
def test_what_a_signal_handler_raises_reaches_the_user_wherever_it_comes(
    method: Callable[[MarketDataBackbone], None],
    kind: type[Exception],
    market: MarketDataBackbone,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`signal.alarm` around a call is how many a program bounds it: no data and no line is bad for that."""
    alarm = type("Alarm", (kind,), {})

    def handler(number: int, frame: object) -> None:
        raise alarm("time is up")

    dropped: list[object] = []  # by Python itself: out of a finalizer (urllib3 has one) nothing can be raised
    monkeypatch.setattr(sys, "unraisablehook", lambda told: dropped.append(told.exc_value))
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with streaming(market, method) as kept:
            injector, struck = Injector(number=signal.SIGUSR1), 0
            places = injector.count(lambda: method(market))
            step = max(1, places // PLACES)
            for at in range(random.Random(SEED).randrange(step), places, step):
                error = injector.strike(lambda: method(market), at)
                if injector.place and not dropped:  # there are a few less, now and then: how often one waits is chance
                    assert isinstance(error, alarm), f"{injector.place} (seed {SEED}): {error!r}"
                    struck += 1
                dropped.clear()
                check(market, kept.topics, f"an alarm at {injector.place}")
                answer_now_and_then(market, method, struck)
            assert struck
    finally:
        signal.signal(signal.SIGUSR1, before)
    gc.collect()  # a socket whose maker was interrupted before anybody held it
