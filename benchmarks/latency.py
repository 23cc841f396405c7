"""From the server's send to user code: percentiles at 1,000 and 10,000 trades a second, idle and beside a busy thread.

The pacer spaces frames evenly and stamps the microsecond of sending into each trade's id; the receiver subtracts it
from its own clock. "busy" adds one CPU-bound thread to the receiving process, as a program that calculates has.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from benchmarks.children import Child, ChildError, MissingError
from benchmarks.clients.task import Task
from benchmarks.machine import free_threaded
from benchmarks.options import Options
from benchmarks.servers import Stream, paced, some_markets
from benchmarks.table import HANDED, LIMIT, Figure, absent

TITLE = "latency, server send → user code (ms)"
SETTLE_SECONDS = 1.0
START_SECONDS = 15.0
OURS = (("ours", "callback", "upbit_backbone, callback"), ("ours", "queue", "upbit_backbone, queue"))
HAND = (("by_hand", "", LIMIT), ("by_hand", "handed", HANDED))
RIVALS = (
    ("bare", "", "WebSocketApp + json"),
    ("pyupbit_", "", "pyupbit"),
    ("cryptofeed_", "", "cryptofeed"),
    ("upbit_sdk", "", "upbit-sdk"),
)
TARGETS = {(1000, False, "p50"): 0.25, (1000, False, "p99"): 1.0, (1000, True, "p99"): 15.0}
REFERENCE = "WebSocketApp + json"


def run(options: Options) -> list[Figure]:
    figures = []
    rates = (1000,) if options.quick else (1000, 10_000)
    with paced() as stream:
        for rate in rates:
            for busy in (False, True):
                figures += _one_load(stream, rate, busy, options)
        return figures + _free_threaded(stream, rates[-1], options)


def _free_threaded(stream: Stream, rate: int, options: Options) -> list[Figure]:
    python, there = free_threaded()
    case = f"{rate:,}/s beside a busy thread, free-threaded Python"
    if python is None:
        return [absent(f"{case}, {share}", OURS[1][2], "ms", there) for share in ("p50", "p99")]
    answer = measure(stream, "ours", rate, options.seconds, busy=True, python=python)
    return [_figure(f"{case}, {share}", share, OURS[1][2], answer, None, (0, True)) for share in ("p50", "p99")]


def _one_load(stream: Stream, rate: int, busy: bool, options: Options) -> list[Figure]:
    rivals = RIVALS if options.rivals else ()
    if options.quick:
        rivals = rivals[:1]
    case = f"{rate:,}/s {'beside a busy thread' if busy else 'idle'}"
    answers: dict[str, dict[str, Any] | str] = {}
    for module, mode, name in (*HAND, *rivals, *OURS):
        try:
            answers[name] = measure(stream, module, rate, options.seconds, mode=mode or "queue", busy=busy)
        except MissingError:
            answers[name] = "not installed"
        except ChildError as problem:
            answers[name] = str(problem)
    reference = answers.get(REFERENCE)
    return [
        _figure(f"{case}, {share}", share, name, answer, reference, (rate, busy))
        for share in ("p50", "p99")
        for name, answer in reversed(answers.items())
    ]


def _figure(
    case: str, share: str, name: str, answer: dict[str, Any] | str, reference: dict[str, Any] | str | None,
    load: tuple[int, bool],
) -> Figure:  # fmt: skip
    if isinstance(answer, str):
        return absent(case, name, "ms", answer)
    value = answer.get(share)
    if value is None:
        return absent(case, name, "ms", "nothing arrived")
    base = reference.get(share) if isinstance(reference, dict) and name != REFERENCE else None
    target = TARGETS.get((*load, share)) if name.startswith("upbit_backbone") else None
    arrived = answer["count"] / answer["sent"] if answer["sent"] else 0.0
    note = "" if arrived > 0.97 else f"only {arrived:.0%} arrived in time"
    return Figure(case, name, value, "ms", base and value / base, REFERENCE if base else "", target, note=note)


def measure(
    stream: Stream, module: str, rate: float, seconds: float, *, mode: str = "queue", busy: bool = False,
    kinds: tuple[str, ...] = ("trade",), symbols: tuple[str, ...] = (), python: str = sys.executable,
) -> dict[str, Any]:  # fmt: skip
    """What the client reports, and how many messages were `sent` to it meanwhile."""
    task = Task(stream.rest_url, stream.websocket_url, kinds, symbols or some_markets(stream.fake), mode)
    with Child("benchmarks.clients", module, *task.arguments(), *["--busy"] * busy, python=python) as client:
        wanted = len(task.symbols) * len(kinds)
        deadline = time.monotonic() + START_SECONDS
        while stream.counters()["pieces"] < wanted:
            if time.monotonic() > deadline:
                raise ChildError("it never subscribed")
            time.sleep(0.1)
        stream.rate(rate)
        try:
            time.sleep(SETTLE_SECONDS)
            client.ask("start")
            sent = stream.counters()["sent"]
            time.sleep(seconds)
            sent = stream.counters()["sent"] - sent
            return client.ask("stop") | {"sent": sent}
        finally:
            stream.rate(0)
