"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from upbit_backbone.unify.scanner import is_compiled

PACKAGES = (
    "upbit-backbone", "msgspec", "requests", "websocket-client", "pyupbit", "ccxt", "cryptofeed", "upbit-sdk",
    "PySide6-Essentials",
)  # fmt: skip


def describe() -> dict[str, Any]:
    """Machine, Python, versions and how busy the machine is right now."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load_average": _load(),
        "decoding": "compiled" if is_compiled() else "in Python",
        "at": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "versions": {name: version for name in PACKAGES if (version := version_of(name))},
    }


def in_words(machine: dict[str, Any]) -> str:
    """Two lines for the head of a table."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_average']}, {machine['system']}; "
        f"frames decoded {machine['decoding']}\n"
        f"{machine['python']}; {versions}; {machine['at']}"
    )


FREE_THREADED = ("python3.14t", "python3.13t")
NEEDED_THERE = "import msgspec, requests, websocket"


def free_threaded() -> tuple[str | None, str]:
    """A free-threaded Python that has what we need, or None; and what there is."""
    for name in FREE_THREADED:
        if (path := shutil.which(name)) is None:
            continue
        has_all = subprocess.run([path, "-c", NEEDED_THERE], capture_output=True, timeout=60, check=False)
        return (path, name) if has_all.returncode == 0 else (None, f"{name} lacks our packages")
    return None, f"none of {', '.join(FREE_THREADED)} is on the path"


def version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _load() -> str:
    if not hasattr(os, "getloadavg"):
        return "unknown"
    return " / ".join(f"{value:.2f}" for value in os.getloadavg())


LOOK_SECONDS = 0.5
BUSY_CORES = 0.25  # so much used by others, and CPU a message is half of it cold caches, and each p99 the scheduler's


def others_cores(seconds: float = LOOK_SECONDS) -> float:
    """How many cores are in use, while nothing of ours runs; 0 where that cannot be seen."""
    before = _busy_ticks()
    time.sleep(seconds)
    after = _busy_ticks()
    if before is None or after is None:
        return 0.0
    return max(0.0, (after - before) / os.sysconf("SC_CLK_TCK") / seconds)


def _busy_ticks() -> int | None:
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _idle, _waiting, *more = map(int, first[:8])
    return user + nice + system + sum(more)


def judgement(cores: float) -> str:
    """What the others' share of the machine means for the figures."""
    if cores <= BUSY_CORES:
        return f"Others used {cores:.2f} cores at most when it was looked."
    return (
        f"TOO BUSY TO JUDGE: others used up to {cores:.1f} of {os.cpu_count()} cores between the benchmarks. "
        "Counted instructions hold; of the rest only ratios of one run mean something, and tails of latencies nothing."
    )
