"""The list of faults is the truth: each test it names exists, and no chaos test is missing from it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FAULTS = ROOT / "tests" / "FAULTS.md"


def named() -> set[str]:
    return set(re.findall(r"`(tests/[^`]*\.py::test_\w+)`", FAULTS.read_text("utf-8")))


def functions_of(file: Path) -> set[str]:
    tree = ast.parse(file.read_text("utf-8"))
    names = (node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"))
    return {f"{file.relative_to(ROOT).as_posix()}::{name}" for name in names}


def test_every_test_that_the_list_of_faults_names_exists() -> None:
    files = {ROOT / name.partition("::")[0] for name in named()}
    assert len(files) > 10
    there = set().union(*(functions_of(file) for file in files if file.exists()))
    assert sorted(named() - there) == []


def test_every_chaos_test_is_in_the_list_of_faults() -> None:
    chaos = set().union(*(functions_of(file) for file in (ROOT / "tests" / "chaos").glob("test_*.py")))
    assert chaos
    assert sorted(chaos - named()) == []


def test_each_row_of_the_list_says_a_fault_and_a_test() -> None:
    rows = [line for line in FAULTS.read_text("utf-8").splitlines() if line.startswith("| ")]
    told = [row for row in rows if row != "| What goes wrong | The test |"]
    assert [row for row in told if not re.fullmatch(r"\| [^|`]{10,} \| `tests/[^`|]+::test_\w+` \|", row)] == []
