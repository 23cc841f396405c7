"""In pyupbit's place: `import pyupbit` finds this package, and the pyupbit that may be installed is still at hand.

A folder with a module of that name goes to the front of `sys.path` (and of PYTHONPATH, for child processes): no hook
is left in the import system, and whoever looks for what happens finds a file.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

PLACE = str(Path(__file__).with_name("in_place"))
_PARTS = ("errors", "exchange_api", "quotation_api", "websocket_api")
_lock = threading.Lock()  # guards _pyupbit, and swapping what sys.modules calls pyupbit
_pyupbit: ModuleType | None = None


def switch_on() -> None:
    """From now on `import pyupbit`, here and in child processes, is this package."""
    if PLACE not in sys.path:
        sys.path.insert(0, PLACE)
    inherited = os.environ.get("PYTHONPATH")
    if PLACE not in (inherited or "").split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join([PLACE, *([inherited] if inherited else [])])


def take_place() -> None:
    """Be what `sys.modules` calls pyupbit. Called by the module in the folder, when somebody imports it."""
    package = __name__.rpartition(".")[0]
    for part in _PARTS:
        sys.modules[f"pyupbit.{part}"] = importlib.import_module(f"{package}.{part}")
    sys.modules["pyupbit"] = sys.modules[package]


def is_installed() -> bool:
    """Whether a pyupbit of its own is installed, looked for and not loaded."""
    return PathFinder.find_spec("pyupbit", _paths()) is not None


def installed() -> ModuleType | None:
    """The pyupbit that is installed beside this one, loaded when first asked for; None where there is none.

    An installed one that cannot be loaded (a package of its own is missing) raises the ImportError it meets.
    """
    global _pyupbit
    with _lock:
        if _pyupbit is None and is_installed():
            _pyupbit = _loaded()
        return _pyupbit


def _loaded() -> ModuleType:
    # Its modules import each other by that name, so for a moment it has to be theirs.
    ours = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_pyupbit(name)}
    path, sys.path = sys.path, _paths()
    try:
        return importlib.import_module("pyupbit")
    finally:
        sys.path = path
        if ours:
            for name in filter(_is_pyupbit, list(sys.modules)):
                del sys.modules[name]
            sys.modules.update(ours)


def _is_pyupbit(name: str) -> bool:
    return name == "pyupbit" or name.startswith("pyupbit.")


def _paths() -> list[str]:
    return [each for each in sys.path if each != PLACE]
