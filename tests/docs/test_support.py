"""What several tests need is written once, in tests/support; and tests cite nothing that is not in the repository."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
# A clock that only stands still or moves by hand; a loop that only looks whether something is true by now.
TWICE = re.compile(
    r"^class \w*(?:Manual|Hand|Standing)\w*Clock|^def (?:wait_until|until|eventually|all_at_once)\(", re.M
)
# Rows of lists that lie elsewhere: a capital letter and a number, as in a table.
CITED = re.compile(r"\b[Rr]ows? [A-Z]\d|\b(?:T|H|W|U|R|L|C|K|X)\d{1,2}[a-c]?:|\bdesign \d|§")


def test_clocks_waits_and_threads_of_tests_are_written_once() -> None:
    files = [file for file in TESTS.rglob("*.py") if "support" not in file.parts and file != Path(__file__)]
    again = {str(file.relative_to(TESTS)): TWICE.findall(file.read_text("utf-8")) for file in files}
    assert {name: found for name, found in again.items() if found} == {"backbone/conftest.py": ["def until("]}


def test_docstrings_and_comments_cite_nothing_from_elsewhere() -> None:
    cited = []
    for file in TESTS.rglob("*.py"):
        text = file.read_text("utf-8")
        nodes = (
            node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
        )
        told = [ast.get_docstring(node) or "" for node in nodes] + re.findall(r"#.*", text)
        cited += [f"{file.name}: {each}" for each in told if CITED.search(each)]
    assert cited == []
