"""What the documents for contributors name is there: files, tests, environments and commands."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md"]
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
TOOLS = {"pip", "venv", "tox", "pre_commit"}  # of whoever works here, not of the tests' own environment
SUFFIXES = (".py", ".md", ".toml", ".ini", ".json", ".yaml", ".yml", ".cfg", ".typed")


def text_of(path: Path) -> str:
    return path.read_text("utf-8")


def files_named(text: str) -> set[str]:
    """What looks like a file or a folder of ours, in code quotes or as the target of a link."""
    words = {word for code in CODE.findall(FENCE.sub("", text)) for word in re.split(r"[\s,]+", code)}
    words = {word.partition("::")[0].rstrip(":") for word in words}
    paths = {word for word in words if re.fullmatch(r"\.?[\w.-]+(/[\w.-]+)*/?", word) and "..." not in word}
    named = {word for word in paths if word.endswith("/") or word.endswith(SUFFIXES)}
    return named | {target for target in LINK.findall(text) if "://" not in target}


def is_there(name: str) -> bool:
    """By its path from the root, or from the package or the tests, as the documents shorten it."""
    return any((base / name).exists() for base in (ROOT, ROOT / "upbit_backbone", ROOT / "tests"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_the_files_and_folders_it_names_exist(path: Path) -> None:
    named = files_named(text_of(path))
    assert named
    assert sorted(name for name in named if not is_there(name)) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_the_tests_it_names_exist(path: Path) -> None:
    for file, name in re.findall(r"(tests/[\w/]+\.py)::(\w+)", text_of(path)):
        tree = ast.parse((ROOT / file).read_text("utf-8"))
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, f"{file}::{name}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_the_environments_and_programs_it_names_exist(path: Path) -> None:
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini")
    for environment in re.findall(r"tox (?:run )?-e ([\w-]+)", text_of(path)):
        assert f"testenv:{environment}" in tox or re.fullmatch(r"py3\d+t?", environment), environment
    for module in re.findall(r"python3? -m ([\w.]+)", text_of(path)):
        assert module in TOOLS or importlib.util.find_spec(module), module


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_the_places_its_commands_name_exist(path: Path) -> None:
    commands = [line for block in FENCE.findall(text_of(path)) for line in block.splitlines()]
    named = {word.partition("::")[0] for line in commands for word in re.findall(r"(?<![\w/])tests/[\w/.:]+", line)}
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def required() -> tuple[set[str], set[str]]:
    """The packages that setup.py asks for: always, and for extras."""
    tree = ast.parse(text_of(ROOT / "setup.py"))
    (always,) = [
        node.value for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "install_requires"
    ]
    (extras,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == "EXTRAS"
        and isinstance(node.value, ast.Dict)
    ]
    of_extras = [each for packages in ast.literal_eval(extras).values() for each in packages]
    return names_of(ast.literal_eval(always)), names_of(of_extras)


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~\[; ]", each, maxsplit=1)[0] for each in requirements}


def test_each_package_that_is_asked_for_earns_its_row_and_no_other_has_one() -> None:
    """What it does here and what we do beside it: for who wonders why it is needed."""
    section = text_of(ROOT / "ARCHITECTURE.md").partition("\n## Packages, honestly\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:3] == "| `"]
    told = {name for row in rows for name in CODE.findall(row[0])}
    always, of_extras = required()
    assert always
    assert sorted((always | of_extras) ^ told) == []
    assert [row[0] for row in rows if not all(row[1:3])] == []
