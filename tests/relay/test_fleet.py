"""The fleet of the examples: ten workers live through the deaths of a relay and of Redis, and the table says so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.redis_server import redis_program

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.endurance
@pytest.mark.skipif(sys.platform == "win32", reason="a Redis server, and kill -9")
def test_no_trade_is_lost_or_doubled_when_a_relay_and_redis_are_killed() -> None:
    pytest.importorskip("typer")
    paths = [str(Path(redis_program()).parent), os.environ["PATH"]]
    with tempfile.TemporaryDirectory(prefix="fleet") as own:
        surroundings = {
            "PYTHONPATH": str(ROOT),
            "PYTHONUTF8": "1",
            "PATH": os.pathsep.join(paths),
            # Workers and relays keep Upbit's limits together, as everywhere but in these tests, and with nobody else.
            "UPBIT_BACKBONE_SHARE_LIMITS_BETWEEN_PROCESSES": "1",
            "TMPDIR": own,
        }
        done = subprocess.run(
            [sys.executable, "examples/fleet", "--workers", "3", "--seconds", "2", "--rate", "500", "--turns", "1"],
            cwd=ROOT, env=os.environ | surroundings, capture_output=True, text=True, encoding="utf-8", check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r"^(.+?)  +(\S.*?)(?:  .*)?$", done.stdout, re.M))
    assert re.fullmatch(r"0 of [1-9][0-9,]*", found["trades lost"]), done.stdout
    assert found["trades doubled"] == "0"
    assert found["answers 429"] == "0"
    assert found["lines to Upbit"] == "2 of 2 relays"
