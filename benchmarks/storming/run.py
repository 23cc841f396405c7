"""One storm from beginning to end, for all clients at once."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.children import ChildError
from benchmarks.storming.conductor import Pressure, conduct, pressure, published, server
from benchmarks.storming.judge import Line, Published, Verdict, judge, judge_answers
from benchmarks.storming.ours import TIMEOUT_SECONDS, Ours
from benchmarks.storming.peers import PEERS, Peer
from benchmarks.storming.plan import Fault
from upbit_backbone.simulator import FakeUpbit

US = "upbit_backbone"
WARM_UP_SECONDS = 2.0
CALM_SECONDS = 6.0
"""After the storm: gaps may still be filled, nothing counts for availability."""
LAST_TRADES_SECONDS = 1.0
PATIENCE_SECONDS = 3.0
STALE_SECONDS = 3.0
"""No unmarked answer may miss a trade older than that, but for the faults that nobody can know of so soon."""


@dataclass(slots=True)
class Outcome:
    """What one storm showed. `left` names threads and sockets that remained after closing."""

    faults: list[Fault]
    seconds: float
    ours: Verdict
    pressure: Pressure
    close_seconds: float
    left: list[str]
    event_count: int
    reader_ended: str
    detected: dict[int, float] = field(default_factory=dict)
    peers: dict[str, Verdict | str] = field(default_factory=dict)


def run(
    faults: Sequence[Fault], seconds: float, *, seed: int = 7, tls: bool = False, with_peers: bool = False,
    stale_seconds: float = STALE_SECONDS, **overrides: Any,
) -> Outcome:  # fmt: skip
    """The storm over real sockets; `overrides` are settings of our backbone."""
    threads_before = set(threading.enumerate())
    peers: dict[str, Verdict | str] = {}
    stop = threading.Event()
    with ExitStack() as stack:
        fake = stack.enter_context(server(seed, tls))
        watched = _start_peers(stack, seed, tls, peers) if with_peers else {}
        sockets_before = sockets()  # those of the control ports count as there before
        ours = Ours(fake, **overrides)
        time.sleep(WARM_UP_SECONDS)
        began_wall, began = time.time(), time.monotonic()
        injected: dict[str, list[float]] = {name: [] for name in (US, *watched)}
        fakes = {US: fake, **{name: peer_fake for name, (_, peer_fake) in watched.items()}}
        conductors = [
            threading.Thread(target=conduct, args=(each, faults, began, seconds, stop, injected[name]))
            for name, each in fakes.items()
        ]
        try:
            for thread in conductors:
                thread.start()
            for thread in conductors:
                thread.join()
            time.sleep(CALM_SECONDS)
            ours.repaired(max((fault.at + fault.kind.rest_away for fault in faults), default=0.0) + PATIENCE_SECONDS)
        finally:
            stop.set()
            trades = _settled(fake)
            close_seconds = ours.close()
        left = _left(threads_before, sockets_before)
        verdict = judge(
            faults, began_wall, seconds, trades, ours.seen.arrivals, ours.seen.admitted(), injected[US],
            ours.seen.lines(),
        )  # fmt: skip
        unknowable = [
            (Line(began_wall + fault.at, began_wall + fault.over + fault.kind.rest_away + fault.kind.unmarked),
             fault.kind.unmarked)
            for fault in faults if fault.kind.unmarked
        ]  # fmt: skip
        judge_answers(verdict, ours.seen.answers, trades, TIMEOUT_SECONDS, stale_seconds, unknowable)
        for name, (peer, peer_fake) in watched.items():
            peer_trades = _settled(peer_fake)
            peers[name] = judge(
                faults, began_wall, seconds, peer_trades, peer.arrivals(peer_trades), (), injected[name]
            )
        return Outcome(
            list(faults), seconds, verdict, pressure(fake), close_seconds, left, len(ours.seen.events),
            ours.seen.ended, _detected(faults, began_wall, ours), peers,
        )  # fmt: skip


def _start_peers(
    stack: ExitStack, seed: int, tls: bool, peers: dict[str, Verdict | str]
) -> dict[str, tuple[Peer, FakeUpbit]]:
    watched = {}
    for module, name in PEERS.items():
        fake = stack.enter_context(server(seed, tls))
        try:
            peer = Peer(module, fake)
        except ChildError as problem:
            peers[name] = f"not installed ({problem})"
            continue
        stack.callback(peer.close)
        watched[name] = (peer, fake)
    return watched


def _settled(fake: FakeUpbit) -> list[Published]:
    """All trades, once the last one has had time to arrive."""
    fake.pause()
    time.sleep(LAST_TRADES_SECONDS)
    return published(fake)


def _detected(faults: Sequence[Fault], began: float, ours: Ours) -> dict[int, float]:
    """Seconds from each fault to the first event after it, where there was one before the next fault."""
    times = [at - began for at, _ in ours.seen.events]
    found = {}
    ends = [fault.at for fault in faults[1:]] + [float("inf")]
    for number, (fault, end) in enumerate(zip(faults, ends, strict=True)):
        first = next((at for at in times if fault.at - 0.01 <= at < end), None)
        if first is not None:
            found[number] = max(0.0, first - fault.at)
    return found


def sockets() -> set[str]:
    """This process's sockets, where the platform tells (Linux)."""
    folder = Path("/proc/self/fd")
    names = set()
    for entry in os.listdir(folder) if folder.exists() else ():
        try:
            target = os.readlink(folder / entry)
        except FileNotFoundError:
            continue
        if target.startswith("socket:"):
            names.add(target)
    return names


def _left(threads_before: set[threading.Thread], sockets_before: set[str]) -> list[str]:
    """Names of threads and sockets that are there now and were not before; a moment is granted."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        gc.collect()
        threads = [thread.name for thread in threading.enumerate() if thread not in threads_before]
        left = [f"thread {name}" for name in threads] + sorted(sockets() - sockets_before)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)
