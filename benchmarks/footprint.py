"""Import time and memory, beside the peers' imports, and with the whole market live."""

from __future__ import annotations

import json
import os
import statistics
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
BARE_CODE = "time"  # a module that is there anyway: the interpreter itself


def run(options: Options) -> list[Figure]:
    times = 3 if options.quick else TIMES
    _, empty = _import(BARE_CODE, times) or (0.0, 0.0)
    found = {}
    for name, module in MODULES.items():
        if name == "upbit_backbone" or options.rivals:
            found[name] = _import(module, times)
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


def _import(module: str, times: int) -> tuple[float, float] | None:
    """Median milliseconds and resident MiB of a fresh process; None where it is not installed."""
    costs = []
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for _ in range(times + 1):  # the first one fills the disk cache and does not count
        done = subprocess.run(
            [sys.executable, "-c", CODE.format(module=module)], capture_output=True, text=True, env=environment,
            check=False,
        )  # fmt: skip
        if done.returncode != 0:
            return None
        costs.append(json.loads(done.stdout.splitlines()[-1]))
    return statistics.median(took for took, _ in costs[1:]), statistics.median(resident for _, resident in costs[1:])


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
