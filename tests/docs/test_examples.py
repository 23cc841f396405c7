"""Every example is short, has one idea, and runs unchanged against the simulator."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from upbit_backbone.simulator import FakeUpbit

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
END_BY_THEMSELVES = [path for path in EXAMPLES if path.stem != "13_qt_ticker_table"]  # whose window tests/qt close
MAX_LINES = 60
HERE = {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "QT_QPA_PLATFORM": "offscreen"}


@pytest.fixture(scope="module")
def upbit() -> Iterator[FakeUpbit]:
    with FakeUpbit(seed=7, trades_per_second=200, markets=["KRW-BTC", "KRW-ETH", "KRW-XRP"], rest_limit=100) as upbit:
        yield upbit


def test_the_first_five_are_there() -> None:
    names = {path.name for path in EXAMPLES}
    assert {"01_one_price.py", "02_candles.py", "03_for_loop.py", "04_callback.py", "05_queue.py"} <= names


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_is_short_and_says_what_it_shows(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < MAX_LINES
    assert ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("path", END_BY_THEMSELVES, ids=lambda path: path.stem)
def test_it_runs(path: Path, upbit: FakeUpbit, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(path)],
        env=os.environ | upbit.environment() | HERE,
        cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False,
    )  # fmt: skip
    if "ModuleNotFoundError" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()
    assert "for ten seconds" not in done.stdout, "nothing moved"
