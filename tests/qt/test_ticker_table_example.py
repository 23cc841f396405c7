"""The example that is all a beginner needs to read, run as it stands until its table is filled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.qt import what_is_wrong
from upbit_backbone.simulator import FakeUpbit

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "13_qt_ticker_table.py"
# What a person does: waits for prices, searches, and closes the window.
PERSON = f"""
import runpy
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QLineEdit, QTableView

begin = QApplication.exec

def exec(*application):
    window = QApplication.topLevelWidgets()[0]
    table = window.findChild(QTableView).model()
    def look():
        rows = [[table.data(table.index(row, column)) for column in range(3)] for row in range(table.rowCount())]
        if len(rows) == 2 and all(row[2] != "–" for row in rows):
            window.findChild(QLineEdit).setText("btc")
        elif len(rows) == 1:
            print(rows)
            window.close()
    timer = QTimer(window, interval=10)
    timer.timeout.connect(look)
    timer.start()
    return begin()

QApplication.exec = exec
runpy.run_path({str(EXAMPLE)!r}, run_name="__main__")
"""


def test_it_fills_its_table_searches_it_and_ends_with_its_window(upbit: FakeUpbit) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PERSON],
        env={**os.environ, **upbit.environment(), "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        capture_output=True, text=True, encoding="utf-8", timeout=60, check=False,
    )  # fmt: skip
    errors = what_is_wrong(done.stderr)
    assert (done.returncode, errors) == (0, [])
    assert done.stdout.startswith("[['KRW-BTC', 'Bitcoin', '")


def test_it_is_read_in_a_minute() -> None:
    assert len(EXAMPLE.read_text("utf-8").splitlines()) <= 25
