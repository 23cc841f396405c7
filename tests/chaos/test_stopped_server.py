"""A server that stands still, process and all, and wakes up: what had been given up on was still on its way to it."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable

import pytest

from tests.chaos.watched import say
from tests.support.waiting import wait_until
from upbit_backbone import MarketDataBackbone, UpbitBackboneError
from upbit_backbone._concurrency import Deadline, join_all, spawn
from upbit_backbone.simulator import FakeUpbit

THREADS = 12
STOPPED_SECONDS = 4.0

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be stopped there")


def test_a_woken_server_never_finds_an_eleventh_request(
    backbone: Callable[..., MarketDataBackbone], own_upbit: Callable[..., FakeUpbit]
) -> None:
    upbit = own_upbit(markets=["KRW-BTC", "KRW-ETH"])
    market = backbone(upbit, breaker_failures=1000)  # so that nothing but the limiter holds them back
    market.get_candles("KRW-BTC", "1m", 1)
    stop = threading.Event()
    given_up: list[UpbitBackboneError] = []

    def ask(seed: int) -> None:
        rng = random.Random(seed)
        while not stop.is_set():
            try:
                market.get_trades("KRW-BTC", rng.randrange(1, 400), timeout=rng.choice((0.05, 0.1, 0.3)))
            except UpbitBackboneError as error:
                given_up.append(error)

    threads = [spawn(lambda seed=seed: ask(seed), f"test-{seed}") for seed in range(THREADS)]
    os.kill(upbit.pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        wait_until(lambda: time.monotonic() - began > STOPPED_SECONDS, "the end of the stop")
    finally:
        os.kill(upbit.pid, signal.SIGCONT)
    wait_until(lambda: upbit.requests(group="trade"), "what was on its way arrives")
    stop.set()
    assert join_all(threads, Deadline.after(10.0)) == []
    busiest = upbit.busiest(group="trade")
    say(f"{len(given_up)} given up, {busiest} in the busiest second")
    assert given_up
    assert busiest <= 10
