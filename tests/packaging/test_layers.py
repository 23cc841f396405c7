"""What one module may know of another, beyond what the import contracts in pyproject.toml say."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "upbit_backbone"
# Of Python itself, documented although it begins with an underscore.
DOCUMENTED = {("os", "_exit"), ("sys", "_current_frames"), ("sys", "_getframe")}
NAMED_TUPLES = {"_replace", "_asdict", "_fields", "_make"}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), ast.parse(file.read_text("utf-8"))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def own_names(tree: ast.Module) -> set[str]:
    """Private names that this module's own classes define: by assignment, by method, as a slot or a field."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                names.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)  # of __slots__
    return names


def read_of_others(tree: ast.Module) -> Iterator[str]:
    """Each private attribute that is no class's of this module, read or written by way of another object."""
    own = own_names(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not is_private(node.attr) or node.attr in own | NAMED_TUPLES:
            continue
        owner = ast.unparse(node.value)
        if owner not in ("self", "cls", "super()") and (owner, node.attr) not in DOCUMENTED:
            yield f"line {node.lineno}: {owner}.{node.attr}"


def imported_of_others(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("upbit_backbone")):
            for alias in node.names:
                if is_private(alias.name) and not (PACKAGE / f"{alias.name}.py").exists():
                    yield f"line {node.lineno}: {node.module}.{alias.name}"


def test_no_module_reads_another_ones_private_attributes() -> None:
    offences = [
        f"{name}, {offence}"
        for name, tree in modules()
        for offence in (*read_of_others(tree), *imported_of_others(tree))
    ]
    assert offences == []


def test_reading_a_strangers_private_attribute_is_found() -> None:
    """The check itself: others' internals are found, one's own and a sibling's of the same class are not."""
    tree = ast.parse(
        "from .other import _inner, Open\n"
        "class Own:\n"
        "    def __init__(self, other):\n"
        "        self._mine = other._theirs\n"
        "    def __eq__(self, other):\n"
        "        return self._mine == other._mine\n"
    )
    assert list(read_of_others(tree)) == ["line 4: other._theirs"]
    assert list(imported_of_others(tree)) == ["line 1: other._inner"]


def contract(name_begins: str) -> set[str]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (found,) = [each for each in settings["tool"]["importlinter"]["contracts"] if each["name"].startswith(name_begins)]
    return set(found["source_modules"])


def calls_itself_pure(tree: ast.Module) -> bool:
    """Whether the docstring says `Pure.` or begins a sentence so: a word that promises something."""
    text = " ".join((ast.get_docstring(tree) or "").split())
    return any(sentence.startswith(("Pure.", "Pure:", "Pure,", "Pure ")) for sentence in sentences(text))


def sentences(text: str) -> list[str]:
    return [text[at:] for at in (0, *(place + 2 for place in range(len(text)) if text.startswith(". ", place)))]


def test_whoever_calls_itself_pure_is_held_to_it_by_the_import_contract() -> None:
    checked = contract("Pure modules decide")
    claims = {name for name, tree in modules() if calls_itself_pure(tree)}
    assert claims, "the docstrings of modules that only decide say so"
    unchecked = {name for name in claims if not any(name == each or name.startswith(f"{each}.") for each in checked)}
    assert sorted(unchecked) == []
