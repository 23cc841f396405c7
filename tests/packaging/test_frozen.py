"""A program frozen by PyInstaller, in a folder and in one file: it starts nothing but itself, and all of it works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
import upbit_backbone as ub
from upbit_backbone.simulator import FakeUpbit

with FakeUpbit(seed=17, markets=["KRW-BTC"]) as upbit:
    urls = {"rest_url": upbit.rest_url, "websocket_url": upbit.websocket_url}
    with ub.MarketDataBackbone(**urls, timeout_seconds=60) as market:
        assert market.get_ticker("KRW-BTC").to_json()
        assert len(market.get_candles("KRW-BTC", "1m", count=300)) == 300
        assert len(market.get_trades("KRW-BTC", count=10)) == 10
        assert market.subscribe("KRW-BTC", "ticker").get(timeout=60).symbol == "KRW-BTC"
        assert market.candle_series("KRW-BTC", "1m", size=5).wait_update(timeout=60)
        assert market.health().status and market.explain("ticker", "KRW-BTC")
for name in ub.__all__:  # they load late, so nobody who freezes sees them
    getattr(ub, name)
big = {"pandas", "pyarrow", "numpy", "rich", "PySide6", "pytest"}
print("FROZEN", sys.frozen, sorted(big & {name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.endurance
@pytest.mark.parametrize("kind", ["--onedir", "--onefile"])
def test_a_program_frozen_by_pyinstaller_works(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("PyInstaller")
    (tmp_path / "viewer.py").write_text(PROGRAM)
    hooks = ROOT / "upbit_backbone" / "_pyinstaller"  # which an installed package tells of by its entry point
    command = ["-m", "PyInstaller", "--noconfirm", "--log-level=WARN", kind, f"--additional-hooks-dir={hooks}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYINSTALLER_CONFIG_DIR": str(tmp_path / "cache")}
    subprocess.run([sys.executable, *command, "viewer.py"], cwd=tmp_path, env=environment, check=True)
    made = tmp_path / "dist" / "viewer"
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "UPBIT_"))}
    program = made if kind == "--onefile" else made / "viewer"
    ended = subprocess.run([program], env=bare, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ended.stdout == "FROZEN True []\n", ended.stderr
    assert ended.returncode == 0
