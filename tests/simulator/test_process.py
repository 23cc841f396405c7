"""The simulator as a process: it starts, says where it is, and never outlives its parent."""

from __future__ import annotations

import ast
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.support.waiting import wait_until
from upbit_backbone.simulator import FakeUpbit, SimulatorError, process

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
COMMAND = [sys.executable, "-m", "upbit_backbone.simulator"]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{pid}/stat").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def test_the_block_ends_the_process() -> None:
    with FakeUpbit(trades_per_second=0, markets=["KRW-BTC"]) as upbit:
        assert is_alive(upbit.pid)
        assert "running" in repr(upbit)
    assert not is_alive(upbit.pid)
    assert "ended" in repr(upbit)
    upbit.close()
    with pytest.raises(SimulatorError):
        upbit.markets()


def test_a_killed_parent_takes_the_simulator_with_it() -> None:
    script = (
        "from upbit_backbone.simulator import FakeUpbit\n"
        "upbit = FakeUpbit(trades_per_second=0, markets=['KRW-BTC'])\n"
        "print(upbit.pid, flush=True)\n"
        "import time; time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], env=ENVIRONMENT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_alive(child)
        parent.kill()
    wait_until(lambda: not is_alive(child))


def test_nothing_of_its_certificates_is_left_behind() -> None:
    with FakeUpbit(tls=True) as upbit:
        folder = Path(upbit.ca_file or "").parent
        assert folder.is_dir()
    assert not folder.exists()


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_its_addresses_and_ends_cleanly_by_signal(number: signal.Signals) -> None:
    command = [*COMMAND, "--markets", "KRW-BTC,KRW-ETH", "--rate", "10", "--seed", "3"]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [process.stdout.readline().decode() for _ in range(4)]
        url = lines[1].strip().removeprefix("export UPBIT_BACKBONE_REST_URL=")
        rows = requests.get(url + "/v1/market/all", timeout=5).json()
        assert [row["market"] for row in rows] == ["KRW-BTC", "KRW-ETH"]
        process.send_signal(number)
        assert process.wait(5) == 0
        assert process.stderr.read() == b""


@pytest.mark.skipif(os.name == "nt", reason="another signal plays its part")
def test_it_ends_in_order_at_ctrl_break_where_the_loop_takes_no_signals() -> None:
    """Windows: its loop has no signal handlers, and Ctrl-Break is a signal of its own, played by one of ours."""
    program = (
        "import asyncio, signal, sys\n"
        "def none(*args): raise NotImplementedError\n"
        "asyncio.SelectorEventLoop.add_signal_handler = none\n"
        "signal.SIGBREAK = signal.SIGUSR1\n"
        "from upbit_backbone.simulator.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", program, "--tls", "--ready-json", "--markets", "KRW-BTC"]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        folder = Path(json.loads(process.stdout.readline())["ca_file"]).parent
        assert folder.is_dir()
        process.send_signal(signal.SIGUSR1)
        assert process.wait(30) == 0
        assert process.stderr.read() == b""
    assert not folder.exists()


@pytest.mark.parametrize("arguments", [["--set", "nonsense=1"], ["--markets", "0"], ["--markets", "krw-btc"]])
def test_a_wrong_option_is_refused_with_a_sentence(arguments: list[str]) -> None:
    ended = subprocess.run([*COMMAND, *arguments], env=ENVIRONMENT, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 2
    assert ended.stderr.startswith("upbit-backbone-simulator: ")
    assert "Traceback" not in ended.stderr


def test_a_taken_port_is_an_error_of_the_one_who_asked(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SimulatorError, match="did not start"):
        FakeUpbit(rest_port=taken.getsockname()[1])
    assert "in use" in capfd.readouterr().err


def test_the_control_port_explains_itself() -> None:
    with FakeUpbit(trades_per_second=0, markets=["KRW-BTC"]) as upbit:
        verbs = requests.get(upbit.control_url, timeout=5).json()["result"]
    assert {"freeze", "mute", "refuse", "rest_fault", "handshake_fault", "ban", "publish_trade"} <= set(verbs)


def test_importing_it_does_not_import_the_server() -> None:
    script = (
        "import sys, upbit_backbone.simulator as s; s.FakeUpbit;"
        "print(any(m.startswith('upbit_backbone.simulator.serving') or m == 'trustme' for m in sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, timeout=30)
    assert ended.stdout.strip() == "False"


def test_the_plugin_offers_a_fixture(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["upbit_backbone.simulator.pytest_plugin"]\n')
    (tmp_path / "test_it.py").write_text("def test_it(fake_upbit):\n    assert 'KRW-BTC' in fake_upbit.markets()\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert "1 passed" in ended.stdout


def test_it_is_an_independent_witness() -> None:
    """Nothing in the simulator uses the library it judges; its command line speaks the reader's language, as ours."""
    imported = {
        node.module if isinstance(node, ast.ImportFrom) else name.name
        for source in (ROOT / "upbit_backbone" / "simulator").rglob("*.py")
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in node.names
    }
    ours = {module for module in imported if module and module.startswith("upbit_backbone")}
    assert {module for module in ours if not module.startswith("upbit_backbone.simulator")} == {
        "upbit_backbone._language"
    }


FROZEN = """
import sys
sys.frozen = True
sys.executable = sys.argv[1]  # which a frozen program itself is
from upbit_backbone import MarketDataBackbone
from upbit_backbone.simulator import FakeUpbit, SimulatorError

with FakeUpbit(seed=14, markets=["KRW-BTC"], tls=True) as upbit:
    settings = {"rest_url": upbit.rest_url, "websocket_url": upbit.websocket_url, "ca_file": upbit.ca_file}
    with MarketDataBackbone(**settings, timeout_seconds=30) as market:
        assert market.get_ticker("KRW-BTC").current_price > 0
        assert market.subscribe("KRW-BTC", "trade").get(timeout=30).price > 0
    assert upbit.counters()["handshake"] >= 1 and "running" in repr(upbit)
assert "ended" in repr(upbit)
upbit.close()
try:
    FakeUpbit(no_such_switch=1)
except SimulatorError as error:
    print(error)
"""


def test_a_frozen_program_is_not_started_again_but_simulates_on_a_thread(tmp_path: Path) -> None:
    started, program = tmp_path / "started", tmp_path / "viewer"
    program.write_text(f"#!/bin/sh\necho again >> {started}\n")
    program.chmod(0o755)
    ended = subprocess.run(
        [sys.executable, "-c", FROZEN, str(program)], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("the simulator did not start: ")
    assert not started.exists()


@pytest.mark.parametrize(
    ("executable", "frozen", "is_python"),
    [
        ("/usr/bin/python3.11", False, True),
        ("C:\\Python\\pythonw.exe", False, True),
        ("/usr/bin/pypy3", False, True),
        ("/opt/viewer/viewer", True, False),
        ("/opt/viewer/python3", True, False),  # a frozen program may be called anything
        ("/usr/bin/uwsgi", False, False),
        ("", False, False),
        (None, False, False),
    ],
)
def test_only_an_interpreter_is_started(
    monkeypatch: pytest.MonkeyPatch, executable: str | None, frozen: bool, is_python: bool
) -> None:
    monkeypatch.setattr(sys, "executable", executable if executable is None else executable.replace("\\", "/"))
    monkeypatch.setattr(sys, "frozen", frozen, raising=False)
    assert process.can_start_python() is is_python


def test_on_windows_no_console_window_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def popen(*_: object, **options: object) -> object:
        asked.update(options)
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "CREATE_NO_WINDOW", 0x08000000, raising=False)
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0x200, raising=False)
    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(FileNotFoundError):
        FakeUpbit()
    assert asked["creationflags"] == 0x08000200
