from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from tests.support.waiting import wait_until
from upbit_backbone.recorder import Recording

ENTER_SCREEN, LEAVE_SCREEN = "\x1b[?1049h", "\x1b[?1049l"
SHOW_CURSOR = "\x1b[?25h"


@pytest.mark.parametrize("kind", ["ticker", "trade", "orderbook", "candle.1s"])
@pytest.mark.parametrize("symbols", [("KRW-BTC",), ("KRW-BTC", "KRW-ETH", "BTC-ETH")])
def test_watch_takes_the_whole_terminal_and_gives_it_back(terminal, kind, symbols):
    screen = terminal("watch", *symbols, "--type", kind, "--count", "12")
    assert screen.finish() == 0, screen.seen
    assert ENTER_SCREEN in screen.seen
    _, after = screen.seen.rsplit(LEAVE_SCREEN, 1)
    assert SHOW_CURSOR in screen.seen
    assert "KRW-BTC" in after
    assert "12 messages" in after


@pytest.mark.parametrize(("columns", "rows"), [(40, 10), (80, 24), (250, 70)])
def test_watch_fits_any_terminal(terminal, columns, rows):
    screen = terminal("watch", "KRW-BTC", "KRW-ETH", "--count", "20", columns=columns, rows=rows)
    assert screen.finish() == 0, screen.seen


def test_ctrl_c_ends_a_watch_cleanly(terminal):
    screen = terminal("watch", "KRW-BTC")
    screen.wait_for("messages")
    screen.press("\x03")
    assert screen.finish() == 130
    assert LEAVE_SCREEN in screen.seen
    assert "Traceback" not in screen.seen


def test_an_outage_is_seen_and_survived(terminal, upbit):
    screen = terminal("watch", "KRW-BTC")
    screen.wait_for("websocket")  # a price has come, so there is a line to cut
    upbit.close_sessions(1001)
    screen.wait_for("interrupted")
    screen.wait_for("recovered")
    screen.press("\x03")
    assert screen.finish() == 130


def test_watch_writes_lines_into_a_pipe(piped):
    done = piped("watch", "KRW-BTC", "--count", "5")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 5), done.stderr
    rows = [
        json.loads(line)
        for line in piped("watch", "KRW-BTC", "--type", "trade", "--count", "5", "--json").stdout.splitlines()
    ]
    assert {row["symbol"] for row in rows} == {"KRW-BTC"}


@pytest.mark.parametrize("word", ["1h", "candle.1h", "candle.60m", "60m"])
def test_watch_understands_every_spelling_of_a_timeframe(piped, word):
    done = piped("watch", "KRW-BTC", "--type", word, "--count", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["timeframe"] == "1h"


@pytest.mark.parametrize("word", ["1w", "candle.2m", "tickers"])
def test_watch_says_what_it_can_show_where_it_is_asked_for_something_else(piped, word):
    done = piped("watch", "KRW-BTC", "--type", word, "--count", "1")
    assert done.returncode == 2
    assert word in done.stderr
    assert "candle" in done.stderr


def test_nothing_that_came_is_an_exit_code_of_its_own(piped):
    assert piped("watch", "KRW-BTC", "--seconds", "0").returncode == 1


def test_sigterm_gives_the_terminal_back(terminal):
    screen = terminal("watch", "KRW-BTC")
    screen.wait_for("messages")
    screen._process.send_signal(signal.SIGTERM)
    assert screen.finish() == 128 + signal.SIGTERM
    assert LEAVE_SCREEN in screen.seen


@pytest.mark.skipif(sys.platform == "win32", reason="another signal plays its part")
def test_ctrl_break_ends_in_order_as_well(environment, tmp_path):
    """Windows' SIGBREAK, played by one that this system has."""
    program = (
        "import signal, sys\n"
        "signal.SIGBREAK = signal.SIGUSR1\n"
        "from upbit_backbone.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    path = tmp_path / "broken.rec"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "record", str(path), "KRW-BTC"], env=environment, stderr=subprocess.PIPE
    )
    try:
        wait_until(lambda: path.exists() and path.stat().st_size > 1000, "the recording begins")
        process.send_signal(signal.SIGUSR1)
        process.wait(30)
    finally:
        process.kill()
        said = process.communicate()[1]
    assert process.returncode == 128 + signal.SIGUSR1
    assert said == b""
    recording = Recording(path)
    assert list(recording)
    assert recording.damage is None


def test_the_demo_moves_on_a_terminal(terminal):
    screen = terminal("demo", "--seconds", "3")
    assert screen.finish(60.0) == 0, screen.seen
    for words in ("KRW-BTC", "USDT-BTC", "websocket", "spread", "bid", "simulated"):
        assert words in screen.seen


def test_ctrl_c_ends_the_demo_cleanly(terminal):
    screen = terminal("demo")
    screen.wait_for("simulated", 40.0)
    screen.press("\x03")
    assert screen.finish() == 130
    assert "Traceback" not in screen.seen


def test_ctrl_c_ends_by_our_exit_code_also_while_a_class_is_made(tmp_path, environment):
    (tmp_path / "interrupted.py").write_text(
        """
import sys, typer
from upbit_backbone.cli.running import command

@command
def interrupted():
    exec("raise KeyboardInterrupt")  # as dataclasses do

try:
    interrupted()
except typer.Exit as end:
    sys.exit(end.exit_code)
""",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, "-m", "interrupted"], env=environment, cwd=tmp_path, timeout=60)
    assert done.returncode == 130


def test_the_demo_prints_plain_lines_elsewhere(piped):
    done = piped("demo", "--seconds", "4", timeout=90.0)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "order book of KRW-BTC" in done.stdout
    prices = {line.split()[2] for line in done.stdout.splitlines() if "KRW-BTC " in line and "old" in line}
    assert len(prices) > 1
    assert "websocket" in done.stdout


def test_the_demo_speaks_json_too(piped):
    lines = piped("demo", "--seconds", "2", "--json", timeout=90.0).stdout.splitlines()
    assert len(lines) > 10
    assert all("symbol" in json.loads(line) for line in lines)


def test_the_metrics_page_is_served_until_ctrl_c(terminal):
    pytest.importorskip("prometheus_client")
    import re
    import urllib.request

    screen = terminal("serve-metrics", "KRW-BTC", "--port", "0")
    screen.wait_for("Ctrl-C ends")
    url = re.search(r"http://\S+", screen.seen).group()
    with urllib.request.urlopen(url, timeout=10.0) as answer:  # noqa: S310 - our own page
        assert b"upbit_backbone_health " in answer.read()
    screen.press("\x03")
    assert screen.finish() == 130


def test_the_simulator_has_its_own_options(piped):
    done = piped("simulator", "--help")
    assert done.returncode == 0
    assert "--rate" in done.stdout


def test_a_simulator_runs_until_ctrl_c(terminal):
    screen = terminal("simulator", "--markets", "2")
    screen.wait_for("UPBIT_BACKBONE_REST_URL", 40.0)
    screen.press("\x03")
    assert screen.finish() in (0, 130)


def test_without_the_extras_it_says_in_both_languages_what_to_install(environment):
    program = (
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'typer' else real(name, *more)\n"
        "from upbit_backbone.cli import main; raise SystemExit(main(['ticker', 'KRW-BTC']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 3
    assert 'pip install "upbit-backbone[cli]"' in done.stderr
    assert "설치" in done.stderr
