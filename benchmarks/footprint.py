"""Import time and memory, beside the peers' imports, and with the whole market live."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time

from benchmarks.children import ROOT, Child
from benchmarks.clients.task import Task
from benchmarks.measuring import resident_mib
from benchmarks.options import Options
from benchmarks.servers import paced
from benchmarks.table import Figure, absent

TITLE = "import time and memory"
MODULES = {"upbit_backbone": "upbit_backbone", "upbit-sdk": "upbit", "pyupbit": "pyupbit", "ccxt": "ccxt",
           "ccxt.pro": "ccxt.pro", "cryptofeed": "cryptofeed", "requests": "requests"}  # fmt: skip
TIMES = 7
SHARE_OF_SDK = 0.45
RESIDENT_MIB = 60.0
START_SECONDS = 40.0
CODE = """
import json, time
began = time.perf_counter()
import {module}
took = time.perf_counter() - began
rss = 0
for line in open("/proc/self/status"):
    if line.startswith("VmRSS"):
        rss = int(line.split()[1]) / 1024
print(json.dumps([took * 1000, rss]))
"""
EMPTY, EMPTY_MODULE = "the interpreter itself", "time"  # a module that is there anyway


def run(options: Options) -> list[Figure]:
    modules = MODULES if options.rivals else {"upbit_backbone": MODULES["upbit_backbone"]}
    found = _imports({EMPTY: EMPTY_MODULE, **modules}, 3 if options.quick else TIMES)
    _, empty = found.pop(EMPTY) or (0.0, 0.0)
    figures = []
    sdk = found.get("upbit-sdk")
    for name, cost in found.items():
        if cost is None:
            figures.append(absent("import", name, "ms"))
            continue
        took, resident = cost
        is_ours_beside_sdk = name == "upbit_backbone" and sdk is not None
        figures.append(
            Figure("import", name, took, "ms", took / sdk[0] if is_ours_beside_sdk and sdk else None,
                   "upbit-sdk" if is_ours_beside_sdk else "", ratio_target=SHARE_OF_SDK if is_ours_beside_sdk else None)
        )  # fmt: skip
        figures.append(Figure("resident after import", name, resident, "MiB", note=f"interpreter alone {empty:.0f}"))
    return figures + _whole_market(options)


def _imports(modules: dict[str, str], times: int) -> dict[str, tuple[float, float] | None]:
    """Least milliseconds and resident MiB of fresh processes, in turns; None for what is not installed."""
    costs: dict[str, tuple[float, float] | None] = dict.fromkeys(modules, (math.inf, math.inf))
    for _ in range(times + 1):  # the first round also fills the disk cache
        for name, module in modules.items():
            best = costs[name]
            cost = _import(module) if best is not None else None
            costs[name] = None if best is None or cost is None else (min(best[0], cost[0]), min(best[1], cost[1]))
    return costs


def _import(module: str) -> tuple[float, float] | None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(module=module)], capture_output=True, text=True, env=environment,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        return None
    took, resident = json.loads(done.stdout.splitlines()[-1])
    return took, resident


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
