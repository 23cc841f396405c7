"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

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
        "at": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "versions": {name: version for name in PACKAGES if (version := version_of(name))},
    }


def in_words(machine: dict[str, Any]) -> str:
    """Two lines for the head of a table."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_average']}, {machine['system']}\n"
        f"{machine['python']}; {versions}; {machine['at']}"
    )


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
