"""Reconnects by the thousand, with trades flowing: nothing is lost, and nothing of them stays behind."""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
import os
import sys
import sysconfig
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.chaos.tables import tables
from tests.chaos.watched import say
from tests.support.waiting import PATIENCE_SECONDS, wait_until
from upbit_backbone import MarketDataBackbone
from upbit_backbone.models.events import ConnectionEvent, ConnectionState, Event, GapEvent
from upbit_backbone.models.market import TickerData, TradeData
from upbit_backbone.simulator import FakeUpbit

SYMBOL = "KRW-BTC"
WARMED_UP, RECONNECTS = 200, 1000
# Five connects a second are allowed, by Upbit and by us: a thousand would take minutes. Both sides are told otherwise.
HURRIED = {"connects_per_second": 1000, "rest_requests_per_second": 1000, "reconnect_cap_seconds": 0.01}
UNLIMITED = {"connect_limit": 100_000, "rest_limit": 100_000}
TRADED_EVERY = 5
GROWTH_KIB = 4 * 1024  # a page of trades more or less; the count of blocks is the sharper measure
BLOCKS_EACH = 10  # of Python's allocator: what one connection is made of takes several times as many
# What lies in a window of time, and so grows until that window is full: ids of trades (two minutes), samples of the
# statistics (a thousand), looks at trends (ten minutes), limiter slots (a second).
OF_A_WINDOW = ("._seen", "._order", "._samples", "._looks", "._looks[]", "._slots")
POOLS = ("upbit-job", "upbit-call", "upbit-rest")


class Measured(NamedTuple):
    """What the process holds at a quiet moment."""

    threads: frozenset[str]  # but for workers, who come and go within the size of their pool
    descriptors: int  # likewise but for the connections that REST keeps alive
    resident_kib: int
    blocks: int
    tables: Counter[str]


class Collector:
    """Keeps no more of what comes than can be compared with the server's own list."""

    def __init__(self, market: MarketDataBackbone) -> None:
        self.ids: list[int] = []
        self.ticker_came = threading.Event()
        self.connected = threading.Semaphore(0)
        self.recovered = 0
        self.is_complete = True
        market.on_event(self.hear)
        market.subscribe_realtime(SYMBOL, ["trade", "ticker"], self.take)

    def take(self, item: Any) -> None:
        if isinstance(item, TradeData):
            self.ids.append(item.sequential_id or 0)
        elif isinstance(item, TickerData):
            self.ticker_came.set()

    def hear(self, event: Event) -> None:
        if isinstance(event, GapEvent):
            self.recovered += event.recovered
            self.is_complete = self.is_complete and event.complete
        elif isinstance(event, ConnectionEvent) and event.state is ConnectionState.LIVE:
            self.connected.release()

    def is_live(self) -> bool:
        """Wait for one more connection, and for its first ticker."""
        is_connected = self.connected.acquire(timeout=PATIENCE_SECONDS)
        return is_connected and self.ticker_came.wait(PATIENCE_SECONDS)


@pytest.mark.endurance
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors by way of /proc")
def test_a_thousand_reconnects_lose_nothing_and_leave_nothing_behind(
    own_upbit: Callable[..., FakeUpbit],
    backbone: Callable[..., MarketDataBackbone],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("upbit_backbone"), "disabled", True)  # pytest would keep each line
    upbit = own_upbit(seed=31, markets=[SYMBOL], trades_per_second=20.0, **UNLIMITED)
    market = backbone(upbit, **HURRIED)
    seen = Collector(market)
    assert seen.is_live()
    for number, cut in zip(range(1, RECONNECTS + 1), itertools.cycle(ways_to_cut(upbit)), strict=False):
        seen.ticker_came.clear()
        cut()
        if number % TRADED_EVERY == 0:
            upbit.publish_trade(SYMBOL)  # most of these fall into the moment without a line
        assert seen.is_live(), f"not after {number} reconnects"
        if number == WARMED_UP:
            before = measured(upbit, market, seen)
    after = measured(upbit, market, seen)

    growth = after.resident_kib - before.resident_kib, after.blocks - before.blocks
    say(f"from {WARMED_UP} to {RECONNECTS} reconnects: {growth[0]} KiB, {growth[1]} blocks, {seen.recovered} filled")

    assert upbit.counters()["handshake"] == RECONNECTS + 1
    assert len(upbit.sessions()) == 1
    assert after.threads == before.threads
    assert after.descriptors == before.descriptors
    assert growth[0] <= GROWTH_KIB
    assert growth[1] <= BLOCKS_EACH * (RECONNECTS - WARMED_UP)
    assert grown(before.tables, after.tables) == {}
    assert seen.recovered >= 20, "trades were made while the line was down"
    assert seen.is_complete


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="free-threaded: an object let go by another thread waits for its owner, not for the collector",
)
def test_neither_a_connection_nor_an_answer_waits_for_the_garbage_collector(
    watch: Callable[..., Any], upbit: FakeUpbit
) -> None:
    """Whoever is done with goes at once; the collector may come minutes later, and TLS buffers and pages are large."""
    gc.collect()
    # What tests before this one made, and let go only now, is no concern of it.
    before = set(map(id, gc.get_objects()))
    seen = watch(upbit, connects_per_second=50)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for cut in ways_to_cut(upbit)[:2]:
            seen.recovers(cut)
        seen.market.get_tickers(["KRW-ETH", "KRW-SOL"], max_age=0)
        seen.market.get_trades("KRW-BTC", 200)
        gc.collect()
        left = {type(each) for each in gc.garbage if id(each) not in before}
    finally:
        gc.set_debug(0)
        gc.enable()
        gc.garbage.clear()
    assert {
        kind for kind in left if kind.__module__.startswith(("upbit_backbone", "websocket", "socket", "ssl"))
    } == set()


def ways_to_cut(upbit: FakeUpbit) -> list[Callable[[], object]]:
    return [
        lambda: upbit.drop_sessions("rst"),
        lambda: upbit.close_sessions(1001),
        lambda: upbit.drop_sessions("fin"),
        lambda: upbit.close_sessions(1011),
        lambda: upbit.close_sessions(1000),
        lambda: upbit.close_sessions(4000),
    ]


def measured(upbit: FakeUpbit, market: MarketDataBackbone, seen: Collector) -> Measured:
    """Once the market rests and every trade it made has come, once and in order, so that nothing is under way."""
    upbit.pause()
    wait_until(lambda: is_whole(upbit, seen), "every trade, once and in order")
    held = tables(market)  # first, because it takes memory of its own
    gc.collect()
    names = [thread.name for thread in threading.enumerate() if thread.is_alive()]
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    now = Measured(
        frozenset(name for name in names if not name.startswith(POOLS)),
        descriptors_but_for(urlsplit(upbit.rest_url).port or 0),
        int(status["VmRSS"].split()[0]),
        sys.getallocatedblocks(),
        held,
    )
    upbit.resume()
    return now


def grown(before: Counter[str], after: Counter[str]) -> dict[str, tuple[int, int]]:
    """Tables with more than one element more for each ten reconnects."""
    most = (RECONNECTS - WARMED_UP) // 10
    return {
        way: (before[way], size)
        for way, size in after.items()
        if size - before[way] > most and not way.endswith(OF_A_WINDOW)
    }


def descriptors_but_for(port: int) -> int:
    """All that are open, but for connections to this port of this machine."""
    lines = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    left_out = {f"socket:[{row[9]}]" for row in rows if int(row[2].rpartition(":")[2], 16) == port}
    targets = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            targets.append(os.readlink(f"/proc/self/fd/{name}"))
    return sum(target not in left_out for target in targets)


def is_whole(upbit: FakeUpbit, seen: Collector) -> bool:
    """Every trade since our first, once and in order; the first may be older than the server's own list."""
    made = [row["sequential_id"] for row in upbit.trades(SYMBOL)]
    first = seen.ids[0]
    return seen.ids == (made[made.index(first) :] if first in made else [first, *made])
