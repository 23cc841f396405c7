"""Import time and memory, beside the peers' imports, and with the whole market live.

We are measured as `pip install` leaves us, with bytecode beside the source, because so are the peers; and once more
from source, as a checkout is imported where Python may not write bytecode (PYTHONDONTWRITEBYTECODE).
"""

from __future__ import annotations

import compileall
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.children import ROOT, Child
from benchmarks.clients.task import Task
from benchmarks.measuring import resident_mib
from benchmarks.options import Options
from benchmarks.servers import paced
from benchmarks.table import Figure, absent

TITLE = "import time and memory"
FACADE = "from upbit_backbone import MarketDataBackbone"
OURS = {
    "import of the facade": FACADE,
    "import of the bare package": "import upbit_backbone",
    "import, and one made": f"{FACADE}; market = MarketDataBackbone()",
}
PEERS = {"upbit-sdk": "upbit", "pyupbit": "pyupbit", "ccxt": "ccxt", "ccxt.pro": "ccxt.pro",
         "cryptofeed": "cryptofeed", "requests": "requests"}  # fmt: skip
TIMES = 7
SHARE_OF_SDK = 0.45
RESIDENT_MIB = 60.0
START_SECONDS = 40.0
CODE = """
import json, os, sys, time
began = time.perf_counter()
{statement}
took = time.perf_counter() - began
rss = 0
for line in open("/proc/self/status"):
    if line.startswith("VmRSS"):
        rss = int(line.split()[1]) / 1024
cached = [getattr(module, "__cached__", None) for module in sys.modules.values()]
print(json.dumps([took * 1000, rss, sum(path is not None and not os.path.exists(path) for path in cached)]))
"""
EMPTY = "pass"


class Cost(NamedTuple):
    """The least of several fresh processes."""

    milliseconds: float
    resident_mib: float
    compiled_anew: int  # modules that had no bytecode


class Import(NamedTuple):
    case: str
    who: str
    statement: str
    place: Path  # where our package is found


def run(options: Options) -> list[Figure]:
    times = 3 if options.quick else TIMES
    with tempfile.TemporaryDirectory() as folder:
        installed, source = copied(Path(folder, "installed")), copied(Path(folder, "source"))
        compileall.compile_dir(installed, quiet=1)
        imports = [Import("nothing", "the interpreter itself", EMPTY, installed)]
        imports += [Import(case, "upbit_backbone", statement, installed) for case, statement in OURS.items()]
        imports.append(Import("the facade, from source", "upbit_backbone", FACADE, source))
        if options.rivals:
            imports += [Import("import", name, f"import {module}", installed) for name, module in PEERS.items()]
        costs = in_turns(imports, times)
    return _figures(costs) + _whole_market(options)


def copied(place: Path) -> Path:
    """`place`, with our package in it and no bytecode."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "upbit_backbone", place / "upbit_backbone", ignore=ignored)
    return place


def _figures(costs: dict[Import, Cost | None]) -> list[Figure]:
    empty = next(cost.resident_mib for each, cost in costs.items() if each.statement == EMPTY and cost)
    sdk = next((cost for each, cost in costs.items() if each.who == "upbit-sdk"), None)
    figures = []
    for each, cost in costs.items():
        if each.statement == EMPTY:
            continue
        if cost is None:
            figures.append(absent(each.case, each.who, "ms"))
            continue
        note = f"{cost.compiled_anew} modules compiled anew" if cost.compiled_anew else "from bytecode"
        is_compared = each.who == "upbit_backbone" and sdk is not None
        ratio = cost.milliseconds / sdk.milliseconds if is_compared and sdk else None
        target = SHARE_OF_SDK if is_compared and each.statement == FACADE else None
        figures.append(
            Figure(each.case, each.who, cost.milliseconds, "ms", ratio, "upbit-sdk" if is_compared else "",
                   ratio_target=target, note=note)
        )  # fmt: skip
        memory = f"resident after {each.case}"
        figures.append(Figure(memory, each.who, cost.resident_mib, "MiB", note=f"interpreter alone {empty:.0f}"))
    return figures


def in_turns(imports: list[Import], times: int) -> dict[Import, Cost | None]:
    """What each costs, in fresh processes that take turns; None for what is not installed."""
    costs: dict[Import, Cost | None] = dict.fromkeys(imports, Cost(math.inf, math.inf, 0))
    for _ in range(times + 1):  # the first round also fills the disk cache
        for each in imports:
            best = costs[each]
            cost = _cost(each) if best is not None else None
            costs[each] = None if best is None or cost is None else _least(best, cost)
    return costs


def _least(best: Cost, cost: Cost) -> Cost:
    return Cost(
        min(best.milliseconds, cost.milliseconds), min(best.resident_mib, cost.resident_mib), cost.compiled_anew
    )


def _cost(each: Import) -> Cost | None:
    # Nothing may write bytecode: what is to have some has it, and what is measured from source must not get any.
    environment = {**os.environ, "PYTHONPATH": str(each.place), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(statement=each.statement)], capture_output=True, text=True,
        env=environment, check=False, cwd=each.place,
    )  # fmt: skip
    if done.returncode != 0:
        return None
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


def _whole_market(options: Options) -> list[Figure]:
    """Resident memory with the tickers and 30-level books of all markets live, and kept moving."""
    with paced() as stream:
        symbols = tuple(stream.fake.markets())
        task = Task(stream.rest_url, stream.websocket_url, ("ticker", "orderbook"), symbols, "unread")
        with Child("benchmarks.clients", "ours", *task.arguments()) as client:
            deadline = time.monotonic() + START_SECONDS
            while stream.counters()["pieces"] < len(symbols) * 2 and time.monotonic() < deadline:
                time.sleep(0.2)
            stream.rate(2000)
            time.sleep(max(options.seconds * 2, 4.0))
            resident = resident_mib(client.pid)
            stream.rate(0)
    return [
        Figure(f"{len(symbols)} markets' tickers and 30-level books live", "upbit_backbone", resident, "MiB",
               target=RESIDENT_MIB)
    ]  # fmt: skip
