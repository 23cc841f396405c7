"""By the source: no lock of ours is taken in a way that an exception from anywhere could leave it held.

`with lock:` on a `threading.Lock` is entered and left in C: Ctrl-C, or a signal handler that raises, comes before or
after. `Condition` and `Event` are Python code inside, and so is whatever `acquire` and `release` are put around.
"""

from __future__ import annotations

import ast
import dis
import itertools
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence, Set
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

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


# By the bytecode: since 3.12 CPython leaves the backward jump of a loop with a condition out of the table that says
# where an exception goes, though it looks for signals there. One that comes at such a jump passes by the `with` around
# the loop, and the lock stays held. A loop in a function of its own is safe: its caller's call is in the table.

LOOKING = re.compile(r"CALL|CALL_KW|CALL_FUNCTION_EX|(POP_)?JUMP_BACKWARD(?!_NO_INTERRUPT).*")
# What gives a lock, besides the names that a `threading.Lock()` is assigned to: methods, and others' attributes.
GIVING = frozenset({"_held", "_opened", "_condition", "mutex"})

Place = tuple[int, int]  # line and column
Instructions = dict[int, dis.Instruction]  # by offset


def names_of_locks(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Assign(targets=[target], value=ast.Call(func=ast.Attribute(attr="Lock" | "RLock"))):
                yield last_word(target)


def last_word(expression: ast.expr) -> str:
    """Of `self._lock`, `_lock` or `self._held()`."""
    match expression:
        case ast.Call(func=function):
            return last_word(function)
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def ways_past_a_lock(source: str, locks: Set[str]) -> Iterator[str]:
    """Where, on this Python, an exception from anywhere would leave the lock of a `with` held."""
    statements = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.With) and any(last_word(item.context_expr) in locks for item in node.items)
    ]
    codes = [
        (code, {each.offset: each for each in dis.get_instructions(code)}) for code in codes_of(source) if statements
    ]
    for statement in statements:
        found = [(*each, ends) for each in codes if (ends := ends_of(statement, each[1]))]
        if not found:
            yield f"line {statement.lineno}: where this `with` ends was not found in the bytecode"
        for code, instructions, ends in found:
            yield from uncovered(statement.body, ends, instructions, dis.Bytecode(code).exception_entries)


def codes_of(source: str | CodeType) -> Iterator[CodeType]:
    code = compile(source, "module", "exec") if isinstance(source, str) else source
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes_of(constant)


def ends_of(statement: ast.With, instructions: Instructions) -> set[int]:
    """Where an exception goes that leaves the statement: before 3.13 these stand where it does, since then with what
    is entered."""
    places = {(each.lineno, each.col_offset) for each in (statement, *(item.context_expr for item in statement.items))}
    offsets = list(instructions)
    return {
        before  # the exception is put on the stack
        for before, offset in itertools.pairwise(offsets)
        if instructions[offset].opname == "WITH_EXCEPT_START" and place_of(instructions[offset], instructions) in places
    }


def uncovered(
    body: list[ast.stmt], ends: set[int], instructions: Instructions, entries: Sequence[Any]
) -> Iterator[str]:
    """The instructions in the body at which Python looks for signals, and from which no way leads to an end."""
    begin, end = (body[0].lineno, body[0].col_offset), (body[-1].end_lineno or 0, body[-1].end_col_offset or 0)
    looking = [each for each in instructions.values() if LOOKING.fullmatch(each.opname)]
    for each in looking:
        place = place_of(each, instructions)
        if begin <= place < end and ends.isdisjoint(handlers(each.offset, entries)):
            yield f"line {place[0]}: {each.opname} may leave the lock held; give the loop a function of its own"


def handlers(offset: int, entries: Sequence[Any]) -> Iterator[int]:
    """Where an exception at `offset` goes, and from there, and so on."""
    met: set[int] = set()
    while (targets := [each.target for each in entries if each.start <= offset < each.end]) and targets[0] not in met:
        offset = targets[0]
        met.add(offset)
        yield offset


def place_of(instruction: dis.Instruction, instructions: Instructions) -> Place:
    """A jump stands where its loop does: what leaves the `with` for a loop around it has released the lock before."""
    if "JUMP" in instruction.opname:
        instruction = instructions[instruction.argval]
    where = instruction.positions
    return (0, 0) if where is None else (where.lineno or 0, where.col_offset or 0)


@cache
def locks() -> frozenset[str]:
    """Found when a test asks: what stands in a module, each process of the suite works out before its first test."""
    sources = (path.read_text(encoding="utf-8") for path in MODULES)
    return GIVING.union(*(names_of_locks(source) for source in sources if "Lock" in source))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_loop_under_a_lock_can_be_left_with_it_held(path: Path) -> None:
    assert list(ways_past_a_lock(path.read_text(encoding="utf-8"), locks())) == []


LOOPS = [
    "found = [each for each in those if each]",
    "for each in those:\n    if each:\n        ask(each)",
    "while ask():\n    pass",
    "try:\n    found = {each for each in those if each}\nfinally:\n    ask()",
]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("around", ["with lock:", "with ask(), lock:"])
def test_a_loop_that_could_leave_a_lock_held_is_found(loop: str, around: str) -> None:
    function = f"def work(lock, those):\n    {around}\n{textwrap.indent(loop, ' ' * 8)}\n"
    complaints = list(ways_past_a_lock(function, {"lock"}))
    if sys.version_info < (3, 14):  # what becomes of it later, nobody knows
        assert bool(complaints) == (sys.version_info >= (3, 12)), complaints
    # In a function of its own, and where the `with` itself stands in the loop.
    apart = (
        f"def work(lock, those):\n    {around}\n        ask(those)\ndef ask(those):\n{textwrap.indent(loop, ' ' * 4)}"
    )
    assert list(ways_past_a_lock(apart, {"lock"})) == []
    inside = f"def work(lock, those):\n    for each in those:\n        {around}\n            if each: continue\n"
    assert list(ways_past_a_lock(inside, {"lock"})) == []
