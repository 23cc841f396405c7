"""What goes wrong with files and pipes is one line and an exit code, and a file is what it was before."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from upbit_backbone.cli import doctor
from upbit_backbone.cli.running import FILE_TROUBLE, _in_words, is_lost_pipe
from upbit_backbone.export.files import write_csv
from upbit_backbone.models.market import CandleData

Piped = Callable[..., "subprocess.CompletedProcess[str]"]
ASKED = ("candles", "KRW-BTC", "1m", "--count", "3", "--csv")


def test_a_place_that_cannot_be_written_is_one_line_and_an_exit_code(piped: Piped, tmp_path: Path) -> None:
    named = {
        tmp_path / "missing" / "x.csv": f"{tmp_path / 'missing'}: there is no such folder",
        tmp_path: tmp_path.name,
    }
    if Path("/dev/full").exists():
        named[Path("/dev/full")] = "/dev/full: No space left on device"
    for place, words in named.items():
        done = piped(*ASKED, str(place))
        assert done.returncode in (2, FILE_TROUBLE), (place, done)
        assert "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert words in done.stderr
    assert tmp_path.is_dir()
    assert list(tmp_path.iterdir()) == []
    assert not Path("/dev/full").is_file()


def test_a_file_that_is_there_is_written_over_only_if_that_was_said(piped: Piped, tmp_path: Path) -> None:
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    real.write_text("mine", "utf-8")
    real.chmod(0o640)
    link.symlink_to(real)
    done = piped(*ASKED, str(link))
    assert done.returncode == 2
    assert "--force" in done.stderr
    assert real.read_text("utf-8") == "mine"
    assert piped(*ASKED, str(link), "--force").returncode == 0
    assert link.is_symlink()
    assert len(real.read_text("utf-8").splitlines()) == 4
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_a_pipe_is_written_into_and_stays_a_pipe(tmp_path: Path) -> None:
    fifo, got = tmp_path / "fifo", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: got.append(fifo.read_text("utf-8")))
    reader.start()
    assert write_csv([], fifo, CandleData) == 0
    reader.join(30)
    assert got[0].startswith("symbol,") or "timestamp" in got[0]
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["fifo"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("asked", ["markets", "--help"])
def test_an_output_that_takes_nothing_is_named(environment: dict[str, str], asked: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "upbit_backbone", asked],
            env=environment, stdout=full, stderr=subprocess.PIPE, text=True, encoding="utf-8", timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        FILE_TROUBLE,
        "upbit-backbone: error: the output: No space left on device\n",
    )


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="Windows has no such name for it")
def test_rows_written_to_our_own_output_are_all_that_is_there(piped: Piped) -> None:
    """The pipe behind /dev/stdout has a name that cannot be opened, and what we say ourselves is no row."""
    done = piped(*ASKED, "/dev/stdout")
    assert (done.returncode, done.stderr) == (0, "3 candles in /dev/stdout\n")
    header, *rows = done.stdout.splitlines()
    assert header.startswith("timestamp,symbol")
    assert [row.split(",")[1:3] for row in rows] == [["KRW-BTC", "1m"]] * 3


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
def test_a_recording_that_finds_no_room_is_a_files_trouble(environment: dict[str, str], tmp_path: Path) -> None:
    place = tmp_path / "x.rec"
    record = [sys.executable, "-m", "upbit_backbone", "record", str(place), "KRW-BTC", "--seconds", "60"]
    done = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -f 1; exec "$@"', "sh", *record],
        env=environment, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        FILE_TROUBLE,
        f"upbit-backbone: error: {place}: [Errno 27] File too large\n",
    )
    assert "lost" in done.stdout


def test_a_lost_pipe_is_told_from_trouble_with_a_file() -> None:
    assert is_lost_pipe(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert is_lost_pipe(OSError(errno.EINVAL, "Invalid argument"))  # as Windows says it
    assert not is_lost_pipe(OSError(errno.EINVAL, "Invalid argument", "x.csv"))
    denied = PermissionError(errno.EACCES, "Permission denied", "x\x1b.csv")
    assert _in_words(denied).startswith("x\\u001b.csv: Permission denied")
    assert _in_words(OSError("odd")) == "odd"


@pytest.mark.parametrize("arguments", [("markets",), ("--help",), ("candles", "--help"), ("markets", "--json")])
def test_a_reader_that_goes_is_no_error_in_the_words_of_windows_either(
    arguments: tuple[str, ...], environment: dict[str, str], tmp_path: Path
) -> None:
    program = """
import io, sys
class Gone(io.RawIOBase):  # a pipe that Windows has lost
    def writable(self): return True
    def fileno(self): return 1
    def write(self, data): raise OSError(22, "Invalid argument")
sys.stdout = io.TextIOWrapper(Gone(), "utf-8", write_through=True)
from upbit_backbone.cli import main
code = main(sys.argv[1:])
sys.stdout = sys.__stdout__
sys.exit(code)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


def test_help_keeps_its_square_brackets(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "upbit_backbone", "candles", "--help"],
        env=environment, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "[parquet]" in done.stdout


@pytest.mark.parametrize("command", ["watch", "record"])
def test_a_stream_that_brings_nothing_says_why_and_does_not_count_as_done(
    command: str, piped: Piped, upbit: Any, tmp_path: Path
) -> None:
    place = [str(tmp_path / "x.rec")] if command == "record" else []
    dead = ["--rest-url", upbit.rest_url, "--websocket-url", "ws://127.0.0.1:9/none"]
    done = piped(*dead, command, *place, "KRW-BTC", "--seconds", "1")
    assert done.returncode == 1
    assert "nothing came: " in done.stderr
    assert "session-1" in done.stderr


# ── doctor ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_doctor_names_ignored_proxies_without_their_passwords_and_whom_it_trusts(
    piped: Piped, environment: dict[str, str]
) -> None:
    environment |= {"HTTPS_PROXY": "http://user:canary@proxy.example:3128", "NO_PROXY": "127.0.0.1"}
    done = piped("doctor")
    assert "ignored: HTTPS_PROXY=http://…@proxy.example:3128, NO_PROXY=127.0.0.1" in done.stdout
    assert "canary" not in done.stdout
    assert "certificates are vouched for by" in done.stdout
    environment["UPBIT_BACKBONE_PROXY"] = "env"
    assert "the environment's is used" in piped("doctor").stdout


def test_doctor_goes_the_way_that_the_environment_names_and_asks_nothing_directly(
    piped: Piped, environment: dict[str, str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    proxied = {"UPBIT_BACKBONE_PROXY": "env", "HTTP_PROXY": f"http://user:canary@127.0.0.1:{port}", "NO_PROXY": ""}
    environment |= {"UPBIT_BACKBONE_URL": "http://127.0.0.1:9", **proxied}
    for name in ("UPBIT_BACKBONE_REST_URL", "UPBIT_BACKBONE_WEBSOCKET_URL", "http_proxy", "no_proxy"):
        environment.pop(name, None)
    done = piped("doctor")
    assert done.returncode == 1
    assert "✘ proxy" in done.stdout
    assert f"checking the proxy 127.0.0.1:{port}: cannot connect" in done.stdout
    assert "is that the proxy of this network?" in done.stdout
    assert "DNS" not in done.stdout
    assert "canary" not in done.stdout + done.stderr
    environment["NO_PROXY"] = "127.0.0.1"
    assert "DNS" in piped("doctor").stdout


def test_doctor_tells_of_each_address_that_does_not_answer_while_another_does() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = list(doctor._addresses(["127.0.0.1", "127.0.0.2", "::1"], port))
        assert list(doctor._addresses(["127.0.0.2"], port)) == []  # alone it is told as the host's own trouble
    assert [each.check for each in found] == ["IPv4", "IPv6"]
    assert {each.verdict for each in found} == {doctor.Verdict.NOTE}
    assert "127.0.0.2 does not answer" in found[0].detail
