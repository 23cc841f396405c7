"""Opening, closing and reconnecting, many times: threads, descriptors and memory come back to where they were."""

from __future__ import annotations

from textwrap import dedent

import pytest
from lives import Run

from upbit_backbone.simulator import FakeUpbit

CYCLES = 200
RECONNECTS = 15  # five a second are allowed; a thousand of them pass in simulated time elsewhere
GROWTH_KIB = 2 * 1024

MEASURE = """
import gc
from pathlib import Path

def measure():
    gc.collect()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return threading.active_count(), len(os.listdir("/proc/self/fd")), int(status["VmRSS"].split()[0])

def settled(threads, descriptors):
    end = time.monotonic() + 5
    while time.monotonic() < end:
        now = measure()
        if now[0] <= threads and now[1] <= descriptors:
            break
        time.sleep(0.02)
    return now
"""


def ask(child_says: str, run: Run, script: str) -> list[int]:
    child = run(MEASURE + dedent(script))
    child.expect(child_says)
    end = child.finish()
    assert (end.code, end.errors) == (0, ""), end
    return [int(word) for word in child.seen[-1].split()[1:-1]]


@pytest.mark.slow
def test_two_hundred_lives_leave_nothing_behind(run: Run, upbit: FakeUpbit) -> None:
    """One ticker each, one in twenty with a stream."""
    upbit.set_options(rest_limit=100_000)
    script = f"""
    market.close()
    def live(number):
        with MarketDataBackbone(rest_requests_per_second=1000) as market:
            market.get_ticker("KRW-BTC", strategy=DataStrategy.REST_ONLY)
            if number % 20 == 0:
                market.subscribe("KRW-BTC", "trade").get(timeout=10)
    for number in range(40):
        live(number)
    threads, descriptors, before = measure()
    for number in range({CYCLES}):
        live(number)
    after = settled(threads, descriptors)
    say("MEASURED", after[0] - threads, after[1] - descriptors, after[2] - before)
    """
    threads, descriptors, kib = ask("MEASURED", run, script)
    upbit.set_options(rest_limit=10)
    assert threads <= 0, "an idle worker may have gone home"
    assert descriptors <= 0
    assert kib <= GROWTH_KIB


@pytest.mark.slow
def test_many_reconnects_leave_nothing_behind(run: Run) -> None:
    script = f"""
    import logging
    logging.getLogger("upbit_backbone").setLevel(logging.ERROR)  # it would tell of each break
    market = MarketDataBackbone(reconnect_cap_seconds=0.01)
    trades = market.subscribe("KRW-BTC", "ticker")
    parts = market._parts
    def epoch():
        return max(session.epoch for session in market.health().sessions)
    def reconnect():
        before = epoch()
        parts.sessions.reconnect()
        while epoch() == before:
            time.sleep(0.002)
        trades.get(timeout=10)
    trades.get(timeout=10)
    for _ in range(5):
        reconnect()
    threads, descriptors, before = measure()
    for _ in range({RECONNECTS}):
        reconnect()
    after = settled(threads, descriptors)
    say("MEASURED", after[0] - threads, after[1] - descriptors, after[2] - before)
    """
    threads, descriptors, kib = ask("MEASURED", run, script)
    assert threads <= 0, "an idle worker may have gone home"
    assert descriptors <= 0
    assert kib <= GROWTH_KIB
