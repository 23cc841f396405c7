"""Ctrl-C in turn at every place of the public methods: afterwards all counts are right, and everything goes on."""

from __future__ import annotations

import gc
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from injection import Injector
from scenes import METHODS, SEED, answer_now_and_then, check, streaming

from tests.support.waiting import wait_until
from upbit_backbone import MarketDataBackbone

# The bounded run takes so many places of each method, evenly spread from a random start; the long one takes them all.
PLACES = int(os.environ.get("UPBIT_BACKBONE_FAULT_PLACES", "25"))

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.version_info >= (3, 14), reason="CPython 3.14 itself may leave a lock held in a `with`"),
    pytest.mark.skipif(sys.platform == "win32", reason="the interrupt is armed the POSIX way"),
    pytest.mark.xdist_group("faults"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    # Where Ctrl-C comes in a finalizer (urllib3 has one for its connections), Python drops it and tells so.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """No thread. A socket may stay whose closing, in a finalizer of urllib3's, was itself interrupted."""
    before = set(threading.enumerate())
    yield
    wait_until(lambda: not [each for each in set(threading.enumerate()) - before if each.name.startswith("upbit-")])


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_ctrl_c_at_every_place(method: Callable[[MarketDataBackbone], None], market: MarketDataBackbone) -> None:
    with streaming(market, method) as trades:
        injector, struck = Injector(), 0
        places = injector.count(lambda: method(market))
        step = max(1, places // PLACES)
        for at in range(random.Random(SEED).randrange(step), places, step):
            error = injector.strike(lambda: method(market), at)
            where = f"place {at}: {injector.place}"
            assert error is None or isinstance(error, KeyboardInterrupt), f"{where} (seed {SEED}): {error!r}"
            struck += error is not None
            check(market, trades.topics, where)
            answer_now_and_then(market, method, struck)
        assert struck
    # A socket whose maker was interrupted before anybody held it is closed by Python, which grumbles.
    gc.collect()
