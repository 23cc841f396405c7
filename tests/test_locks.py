"""By the source: no lock of ours is taken in a way that an exception from anywhere could leave it held.

`with lock:` on a `threading.Lock` is entered and left in C: Ctrl-C, or a signal handler that raises, comes before or
after. `Condition` and `Event` are Python code inside, and so is whatever `acquire` and `release` are put around.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import upbit_backbone

PACKAGE = Path(upbit_backbone.__file__).parent
# The simulator is a server in a process of its own: nobody's Ctrl-C but its own ends it.
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "simulator" not in path.relative_to(PACKAGE).parts)

LEAKY = {"Condition", "Event", "Semaphore", "BoundedSemaphore", "Barrier"}
INSTEAD = "a Lock and an EventCount beside it, or a Flag (see _deadline.py)"


def complaints(source: str) -> Iterator[str]:
    """What is wrong with a module: a line and what to write instead."""
    tree = ast.parse(source)
    from_threading = {
        alias.asname or alias.name: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "threading"
        for alias in node.names
    }
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="threading"), attr=name) if name in LEAKY:
                yield f"line {node.lineno}: threading.{name}; write {INSTEAD}"
            case ast.Name(id=name) if from_threading.get(name) in LEAKY:
                yield f"line {node.lineno}: {name}; write {INSTEAD}"
            case ast.Call(func=ast.Name(id="Future")):
                yield f"line {node.lineno}: Future(); write SharedFuture()"
            case ast.Call(func=ast.Attribute(attr="acquire", value=ast.Attribute(attr=name))) if "lock" in name.lower():
                yield f"line {node.lineno}: {name}.acquire(); write `with {name}:`"
            case ast.Call(func=ast.Attribute(attr="start", value=ast.Call(func=ast.Attribute(attr="Thread")))):
                yield f"line {node.lineno}: Thread(…).start(); write spawn(…)"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_lock_can_be_left_held(path: Path) -> None:
    assert list(complaints(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import threading\nlock = threading.Condition()",
        "import threading\ndone: threading.Event",
        "from threading import Event as Bell\nbell = Bell()",
        "from concurrent.futures import Future\nresult = Future()",
        "self._lock.acquire()",
        "import threading\nthreading.Thread(target=print).start()",
    ],
)
def test_what_could_leave_one_held_is_found(source: str) -> None:
    assert list(complaints(source))
