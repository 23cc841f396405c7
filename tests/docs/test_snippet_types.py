"""What the READMEs, docs and examples show types as it stands: by mypy --strict and by pyright, as in an editor."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import upbit_backbone

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]


def whole(block: str) -> str:
    """The block with what it may take for granted, as the text around it says: our names, a market, a window."""
    names = [name for name in upbit_backbone.__all__ if re.search(rf"\b{name}\b", block)]
    lines = [f"from upbit_backbone import {', '.join(names)}"] if names else []
    if "MarketDataBackbone(" not in block:
        lines += ["from upbit_backbone import MarketDataBackbone", "market = MarketDataBackbone()"]
    if re.search(r"\bub\.", block) and "as ub" not in block:
        lines.append("import upbit_backbone as ub")
    lines.append("from typing import Any")
    for name in ("window", "K", "decide", "bridge", "application"):
        if re.search(rf"\b{name}\b", block) and not re.search(rf"^(def {name}\b|{name} = )", block, re.MULTILINE):
            lines.append(f"{name}: Any = None")
    return "\n".join([*lines, block])


def said_to_types(code: str) -> str:
    """What a type checker sees of it: the Korean page's block is the English one's but for comments and sentences."""

    class Wordless(ast.NodeTransformer):
        def visit_Constant(self, node: ast.Constant) -> ast.Constant:
            is_sentence = isinstance(node.value, str) and (" " in node.value or not node.value.isascii())
            return ast.Constant("a sentence") if is_sentence else node

    return ast.unparse(Wordless().visit(ast.parse(code)))


@pytest.fixture(scope="module")
def snippets(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Files for a type checker: each block of each page, the same one once, and the examples as they are."""
    folder = tmp_path_factory.mktemp("snippets")
    files = [str(path) for path in sorted(ROOT.glob("examples/*.py"))]
    met: set[str] = set()
    for page in PAGES:
        for number, block in enumerate(FENCE.findall(page.read_text("utf-8")), 1):
            if (said := said_to_types(whole(block))) in met:
                continue
            met.add(said)
            name = "_".join(page.relative_to(ROOT).with_suffix("").parts).replace("-", "_")
            path = folder / f"{name}_{number}.py"
            path.write_text(whole(block), "utf-8")
            files.append(str(path))
    assert len(files) > 15
    return files


def checked(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env=os.environ | {"MYPYPATH": str(ROOT), "PYTHONPATH": str(ROOT)},
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_snippet_passes_mypy_strictly(snippets: list[str], tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    options = ["--strict", "--config-file=", "--follow-imports=silent", "--allow-redefinition", "--cache-dir=cache"]
    options += ["--allow-untyped-defs", "--allow-untyped-calls"]  # a recipe's own functions may be as short as they are
    options += ["--disable-error-code=import-untyped"]  # pyqtgraph's, which carries no types
    untyped = [
        name
        for name in ("qtpy", "pandas", "prometheus_client", "matplotlib", "plotly")
        if importlib.util.find_spec(name) is None
    ]
    checked(["mypy", *options, *(["--ignore-missing-imports"] if untyped else []), *snippets], tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_snippet_passes_pyright(snippets: list[str], tmp_path: Path) -> None:
    pytest.importorskip("pyright")
    ready = subprocess.run([sys.executable, "-m", "pyright", "--version"], capture_output=True, text=True, timeout=200)
    if ready.returncode:
        pytest.skip(f"pyright cannot fetch what it runs on: {(ready.stderr or ready.stdout).strip()[-200:]}")
    api = str(ROOT / "tests" / "packaging" / "typing_api.py")
    checked(["pyright", "--pythonpath", sys.executable, *snippets, api], tmp_path)
