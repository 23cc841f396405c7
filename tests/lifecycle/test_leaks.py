"""Opening and closing, many times: threads, descriptors and memory come back to where they were."""

from __future__ import annotations

from textwrap import dedent

import pytest

from tests.lifecycle.lives import Run
from upbit_backbone.simulator import FakeUpbit

# Memory stands still after some two hundred lives, at three MiB more than the first forty need (seen over 800 of them).
WARMING_UP = 200
CYCLES = 200
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


@pytest.mark.endurance
def test_two_hundred_lives_leave_nothing_behind(run: Run, upbit: FakeUpbit) -> None:
    """A question, and a stream that is connected and has spoken, in each of them."""
    upbit.set_options(rest_limit=100_000, connect_limit=100_000)
    before = upbit.counters().get("handshake", 0)
    script = f"""
    market.close()
    def live():
        with MarketDataBackbone(rest_requests_per_second=1000, connects_per_second=1000) as market:
            market.get_ticker("KRW-BTC", strategy=DataStrategy.REST_ONLY)
            held = market.subscribe("KRW-BTC", "ticker")
            held.get(timeout=10)
    for _ in range({WARMING_UP}):
        live()
    threads, descriptors, before = measure()
    for _ in range({CYCLES}):
        live()
    after = settled(threads, descriptors)
    say("MEASURED", after[0] - threads, after[1] - descriptors, after[2] - before)
    """
    threads, descriptors, kib = ask("MEASURED", run, script)
    assert upbit.counters().get("handshake", 0) - before == WARMING_UP + CYCLES
    upbit.set_options(rest_limit=10, connect_limit=5)
    assert threads <= 0, "an idle worker may have gone home"
    assert descriptors <= 0
    assert kib <= GROWTH_KIB


def test_a_program_that_has_run_out_of_descriptors_is_told_so_and_recovers(run: Run, upbit: FakeUpbit) -> None:
    script = """
    import logging, resource
    logging.basicConfig()
    stream = market.subscribe("KRW-BTC", "trade")
    stream.get(timeout=10)
    told = threading.Event()
    market.on_event(lambda event: "Too many open files" in str(getattr(event, "reason", "")) and told.set())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # those that are open stay, no new one can be had
    say("POOR")
    sys.stdin.readline()
    refused = ""
    try:
        market.get_orderbook("KRW-ETH", strategy=DataStrategy.REST_ONLY, timeout=2.0)
    except UpbitBackboneError as error:
        refused = type(error).__name__
    seen = told.wait(10)  # the stream, too, has tried to come back and could not
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    while not stream.queue.empty():
        stream.queue.get()
    stream.get(timeout=10)
    book = market.get_orderbook("KRW-ETH", strategy=DataStrategy.REST_ONLY)
    say("RICH", refused or "answered", book.symbol, seen)
    """
    child = run(dedent(script))
    child.expect("POOR")
    upbit.drop_sessions("rst")
    upbit.drop_connections("rst", "rest")
    child.end_input()
    child.expect("RICH")
    end = child.finish()
    assert end.code == 0, end
    assert "Traceback" not in end.errors
    assert child.seen[-1].split()[1:4] == ["NetworkError", "KRW-ETH", "True"]
