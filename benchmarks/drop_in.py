"""The stand-in for pyupbit beside pyupbit: a breakout loop over the whole market, 10,000 candles, the import.

The loop is the one people write: the list of KRW markets once, then each round the price of one after the other, to be
held against a target. The targets themselves are a candle request a market once a day, for both, and not part of it.
pyupbit stands before a server that refuses it nothing: held to Upbit's ten requests a second it raises. We are held to
them. Each round counts, the first as well, which comes before anything streams: it cannot be quicker than the one list
that it needs, and how long that takes by a bare `requests.get` is shown beside it. The simulator makes up a market when
it is first asked for; that is done before anybody is timed.
"""

from __future__ import annotations

import compileall
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import requests

from benchmarks.backfill import PAGE, PER_SECOND, SYMBOL, TIMES_BOUND, warm_past
from benchmarks.footprint import Import, copied, in_turns
from benchmarks.measuring import percentile
from benchmarks.options import Options
from benchmarks.servers import upbit
from benchmarks.table import Figure, absent
from upbit_backbone.simulator import FakeUpbit

TITLE = "the stand-in for pyupbit"
OURS, THEIRS = "upbit_backbone.compat.pyupbit", "pyupbit"
NO_LIMIT = 1_000_000
TRADES_PER_SECOND = 20.0
ROUND_SECONDS, MINUTE = 1.0, 15  # a minute in the usual four seconds of one measurement
REQUESTS, ROUND_MILLISECONDS = 5, 20.0
FIRST_ROUNDS = 3
SECOND = 1.1


class Loop(NamedTuple):
    rounds: list[float]  # milliseconds
    the_list: float  # milliseconds of all prices by a bare request
    requests: int
    failed: int
    markets: int


def run(options: Options) -> list[Figure]:
    return _breakout(options) + _candles(options) + _imports(options)


def _breakout(options: Options) -> list[Figure]:
    seconds = options.seconds * MINUTE
    figures: list[Figure] = []
    theirs: Loop | None = None
    if options.rivals:
        try:
            theirs = _loop(THEIRS, seconds)
            figures += _rounds(THEIRS, theirs, seconds, None)
        except ImportError:
            figures.append(absent("breakout loop", THEIRS, "ms"))
    return _rounds(OURS, _loop(OURS, seconds), seconds, theirs) + figures


def _loop(name: str, seconds: float) -> Loop:
    is_ours = name == OURS
    with ExitStack() as stack:
        fake = stack.enter_context(
            upbit(rest_limit=PER_SECOND if is_ours else NO_LIMIT, trades_per_second=TRADES_PER_SECOND)
        )
        the_list = _all_prices(fake)
        module = stack.enter_context(_Pointed(name, fake))
        markets = module.get_tickers(fiat="KRW")
        rounds, failed = _play(module.get_current_price, markets, seconds)
        return Loop(rounds, the_list, len(fake.requests()), failed, len(markets))


def _all_prices(fake: FakeUpbit) -> float:
    """Milliseconds that a bare request for the prices of all markets takes, once the simulator knows them."""
    with requests.Session() as session:
        for _ in range(3):
            began = time.monotonic()
            session.get(f"{fake.rest_url}/v1/ticker/all?quote_currencies=KRW", timeout=60).json()
            took = time.monotonic() - began
    time.sleep(SECOND)  # until the server's sliding second has forgotten these
    fake.inject("clear_wire_log")
    return took * 1000


def _play(price_of: Callable[[str], float], markets: list[str], seconds: float) -> tuple[list[float], int]:
    """Milliseconds of each round, and how many prices failed. Late rounds are not made up for."""
    targets = dict.fromkeys(markets, 0.0)  # 0: to be computed by the program, once a day
    rounds: list[float] = []
    failed = broken_out = 0
    end = time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        for market in markets:
            try:
                broken_out += price_of(market) > targets[market]
            except Exception:
                failed += 1
        rounds.append((time.monotonic() - began) * 1000)
        time.sleep(max(0.0, began + ROUND_SECONDS - time.monotonic()))
    if not broken_out:
        raise RuntimeError("no market had a price")
    return rounds, failed


class _Pointed:
    """The module, led to `fake`; what it opened is closed at the end of the `with`."""

    def __init__(self, name: str, fake: FakeUpbit) -> None:
        self._name = name
        self._fake = fake
        self._environment = mock.patch.dict(os.environ, fake.environment())

    def __enter__(self) -> Any:
        if self._name == THEIRS:
            from benchmarks.pyupbit_here import pyupbit_at

            return pyupbit_at(self._fake.rest_url)
        import upbit_backbone.compat.pyupbit as stand_in

        self._environment.start()
        return stand_in

    def __exit__(self, *_: object) -> None:
        if self._name == OURS:
            from upbit_backbone.compat.pyupbit import backbone

            backbone().close()
            self._environment.stop()


def _rounds(name: str, loop: Loop, seconds: float, theirs: Loop | None) -> list[Figure]:
    is_ours = name == OURS
    case = f"{loop.markets} prices a round, {seconds:.0f} s"
    note = f"{len(loop.rounds)} rounds, {loop.failed} failed prices"
    rows = [
        ("a round, p99", percentile(loop.rounds, 0.99), ROUND_MILLISECONDS, note),
        (f"p99 after {FIRST_ROUNDS} rounds", percentile(loop.rounds[FIRST_ROUNDS:], 0.99), ROUND_MILLISECONDS, ""),
        ("a round, p50", percentile(loop.rounds, 0.5), None, ""),
    ]
    first = ", ".join(f"{spent:.1f}" for spent in loop.rounds[:FIRST_ROUNDS])
    began = f"the first rounds: {first} ms; a bare request for all prices: {loop.the_list:.1f} ms"
    figures = [
        Figure(f"{case}: requests", name, loop.requests, "", loop.requests / theirs.requests if theirs else None,
               THEIRS if theirs else "", target=REQUESTS if is_ours else None, note=began)
    ]  # fmt: skip
    for (what, value, target, more), reference in zip(rows, _references(theirs), strict=True):
        ratio = value / reference if reference else None
        figures.append(
            Figure(f"{case}: {what}", name, value, "ms", ratio, THEIRS if ratio is not None else "",
                   target=target if is_ours else None, note=more)
        )  # fmt: skip
    return figures


def _references(theirs: Loop | None) -> list[float | None]:
    if theirs is None:
        return [None, None, None]
    after = theirs.rounds[FIRST_ROUNDS:] or theirs.rounds
    return [percentile(theirs.rounds, 0.99), percentile(after, 0.99), percentile(theirs.rounds, 0.5)]


def _candles(options: Options) -> list[Figure]:
    """What is timed is the call alone, the first of the program: for ours, the market list and pandas with it."""
    count = 4000 if options.quick else 10_000
    bound = (-(-count // PAGE) - PER_SECOND) / PER_SECOND
    case = f"get_ohlcv(count={count:_})"
    figures = [Figure(case, "bound", bound, "s", note=f"{count // PAGE} pages, {PER_SECOND} a second")]
    for name in (OURS, THEIRS):
        if name == THEIRS and not options.rivals:
            continue
        try:
            figures.append(_frame(name, case, count, bound))
        except ImportError:
            figures.append(absent(case, name, "s"))
    return figures


def _frame(name: str, case: str, count: int, bound: float) -> Figure:
    with ExitStack() as stack:
        fake = stack.enter_context(upbit(trades_per_second=5.0))
        warm_past(fake, count)
        module = stack.enter_context(_Pointed(name, fake))
        began = time.monotonic()
        frame = module.get_ohlcv(SYMBOL, interval="minute1", count=count)
        took = time.monotonic() - began
        asked = fake.requests(group="candle")
    refused = sum(1 for request in asked if request["status"] == 429)
    note = f"{len(asked)} pages, {refused} × 429"
    if frame is None:
        return absent(case, name, "s", f"None; {note}")
    if len(frame) != count or not frame.index.is_unique:
        note += f", {frame.index.nunique():,} different candles"
    return Figure(case, name, took, "s", took / bound, "bound",
                  ratio_target=TIMES_BOUND if name == OURS else None, note=note)  # fmt: skip


def _imports(options: Options) -> list[Figure]:
    """Fresh processes, with bytecode as pip leaves it; and once more with what is loaded later, at first use."""
    with tempfile.TemporaryDirectory() as folder:
        place = copied(Path(folder, "installed"))
        compileall.compile_dir(place, quiet=1)
        used = "pyupbit.get_ohlcv; pyupbit.WebSocketManager; pyupbit.pd"
        wanted = [
            Import("import", OURS, f"import {OURS} as pyupbit", place),
            Import("import, all in use", OURS, f"import {OURS} as pyupbit; {used}; pyupbit.backbone()", place),
        ]
        if options.rivals:
            wanted += [
                Import("import", THEIRS, "import pyupbit", place),
                Import("import, all in use", THEIRS, f"import pyupbit; {used}", place),
            ]
        costs = in_turns(wanted, 3 if options.quick else 7)
    theirs = {each.case: cost for each, cost in costs.items() if each.who == THEIRS}
    figures = []
    for each, cost in costs.items():
        if cost is None:
            figures.append(absent(each.case, each.who, "ms"))
            continue
        reference = theirs.get(each.case) if each.who == OURS else None
        figures.append(
            Figure(each.case, each.who, cost.milliseconds, "ms", cost.milliseconds / reference.milliseconds if reference
                   else None, THEIRS if reference else "", ratio_target=1.0 if reference and each.case == "import"
                   else None, note=f"{cost.resident_mib:.0f} MiB resident")
        )  # fmt: skip
    return figures
