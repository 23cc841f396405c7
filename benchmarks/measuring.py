"""Small measuring tools: percentiles, CPU of a process and its children, memory."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PROC = Path("/proc")


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of the values do not exceed; NaN of nothing."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def time_calls(call: Callable[[], object], count: int) -> list[int]:
    """Nanoseconds of each of `count` calls, the collector held off meanwhile as timeit does."""
    clock = time.perf_counter_ns
    spent = []
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        for _ in range(count):
            began = clock()
            call()
            spent.append(clock() - began)
    finally:
        if was_on:
            gc.enable()
    return spent


def cpu_seconds(pid: int) -> float:
    """CPU used so far by a process and its living children (pyupbit reads its socket in a child)."""
    return sum(_cpu_of(each) for each in [pid, *children_of(pid)])


def _cpu_of(pid: int) -> float:
    if sys.platform == "linux":
        # The kernel's CPU clock of another process (what clock_getcpuclockid gives): nanoseconds, not 10 ms ticks.
        try:
            return time.clock_gettime((~pid << 3) | 2)
        except OSError:
            return 0.0
    raise NotImplementedError("CPU of another process is only measured on Linux")


def children_of(pid: int) -> list[int]:
    """Living descendants of a process."""
    parents: dict[int, list[int]] = {}
    for entry in PROC.iterdir() if PROC.exists() else ():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        below = parents.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def resident_mib(pid: int | None = None, *, is_alone: bool = False) -> float:
    """Resident memory of a process and, unless `is_alone`, its children."""
    total, own = 0, pid or os.getpid()
    for each in [own] if is_alone else [own, *children_of(own)]:
        for line in (PROC / str(each) / "status").read_text().splitlines():
            if line.startswith("VmRSS"):
                total += int(line.split()[1])
    return total / 1024
