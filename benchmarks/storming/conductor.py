"""Does to a simulator what the plan says, and keeps what the judge needs."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from benchmarks.storming.judge import Published
from benchmarks.storming.plan import Fault
from upbit_backbone.simulator import FakeUpbit

MARKETS = ("KRW-BTC", "KRW-ETH", "KRW-XRP", "KRW-SOL")
TRADES_PER_SECOND = 20.0
REST_LIMIT, CONNECT_LIMIT, MESSAGE_LIMIT = 10, 5, 5
"""Upbit's limits per second: requests of one group, connects, messages of one connection."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """The busiest second on the wire, per kind of traffic, and what was refused."""

    rest: int
    connects: int
    messages: int
    refused: int


def server(seed: int, tls: bool = False) -> AbstractContextManager[FakeUpbit]:
    """Four markets with twenty trades a second between them, Upbit's limits in force."""
    return FakeUpbit(seed=seed, tls=tls, trades_per_second=TRADES_PER_SECOND, markets=list(MARKETS))


def conduct(
    fake: FakeUpbit, faults: Sequence[Fault], began: float, seconds: float, stop: threading.Event,
    injected: list[float],
) -> None:  # fmt: skip
    """Inject each fault at its time and note when that was done; returns when the storm is over.

    `began` is a monotonic time, what is `injected` counts from there.
    """
    for fault in faults:
        if stop.wait(max(0.0, began + fault.at - time.monotonic())):
            return
        fault.kind.strike(fake)
        injected.append(time.monotonic() - began)
    stop.wait(max(0.0, began + seconds - time.monotonic()))


def published(fake: FakeUpbit) -> list[Published]:
    """Every trade since the simulator started."""
    return [
        Published(row["trade_timestamp"] / 1000, (symbol, row["sequential_id"]))
        for symbol in MARKETS
        for row in fake.trades(symbol)
    ]


def pressure(fake: FakeUpbit) -> Pressure:
    """How close to Upbit's limits the client came, by arrival times."""
    groups: dict[str, list[float]] = {}
    for request in fake.requests():
        groups.setdefault(request["group"], []).append(request["t"])
    messages: dict[int, list[float]] = {}
    for entry in fake.wire_log("message", limit=100_000):
        messages.setdefault(entry["conn"], []).append(entry["t"])
    connects = [entry["t"] for entry in fake.wire_log("handshake", limit=100_000)]
    return Pressure(
        rest=max(map(_worst_second, groups.values()), default=0),
        connects=_worst_second(connects),
        messages=max(map(_worst_second, messages.values()), default=0),
        refused=sum(fake.counters()["rejected"].values()),
    )


def _worst_second(times: list[float]) -> int:
    """The most events in any sliding second."""
    times = sorted(times)
    worst, first = 0, 0
    for last, moment in enumerate(times):
        while times[first] <= moment - 1.0:
            first += 1
        worst = max(worst, last - first + 1)
    return worst
