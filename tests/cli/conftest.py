from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.warm import WarmCommandLine
from tests.support.waiting import crowding
from upbit_backbone.simulator import FakeUpbit

MOST_CROWDED = 6.0  # an average of minutes ago must not hold up a machine that is idle again
MARKETS = ["KRW-BTC", "KRW-ETH", "KRW-XRP", "BTC-ETH"]
COMMAND = [sys.executable, "-m", "upbit_backbone.cli"]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def upbit() -> Iterator[FakeUpbit]:
    """One lively simulated Upbit for all commands. Its limits are wide: the commands are many, the address is one."""
    with FakeUpbit(seed=3, markets=MARKETS, trades_per_second=60.0, rest_limit=1000, connect_limit=1000) as upbit:
        upbit.pause()
        yield upbit


@pytest.fixture(scope="session")
def settings(upbit: FakeUpbit) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UPBIT_BACKBONE_")}
    plain = {
        "PYTHONUTF8": "1",
        "TERM": "xterm-256color",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "",
        "LINES": "",
        "UPBIT_BACKBONE_LANGUAGE": "en",
        "UPBIT_BACKBONE_SHARE_LIMITS_BETWEEN_PROCESSES": "0",  # the command before had its share in another test
    }
    return kept | plain | upbit.environment()


@pytest.fixture
def environment(settings: dict[str, str], upbit: FakeUpbit) -> Iterator[dict[str, str]]:
    """Of a command that asks the simulator, in which there is trade only meanwhile: it lives as long as the session."""
    upbit.resume()
    yield dict(settings)
    upbit.pause()


class Terminal:
    """A real pseudo-terminal with a command in it."""

    def __init__(self, arguments: list[str], environment: dict[str, str], columns: int = 120, rows: int = 40) -> None:
        import fcntl
        import pty
        import struct
        import termios

        def own_the_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        environment = {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")}
        self._process = subprocess.Popen(
            [*COMMAND, *arguments], stdin=slave, stdout=slave, stderr=slave, env=environment,
            start_new_session=True, preexec_fn=own_the_terminal,
        )  # fmt: skip
        os.close(slave)
        self.seen = ""

    def _read(self, seconds: float) -> bool:
        import select

        if not select.select([self._master], [], [], max(0.0, seconds))[0]:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other side is gone; that is how Linux says it
            return False
        self.seen += data.decode("utf-8", "replace")
        return bool(data)

    def wait_for(self, text: str, seconds: float = 20.0) -> None:
        """Until the terminal has shown what matches the pattern `text`."""
        end = time.monotonic() + seconds
        while not re.search(text, self.seen):
            if not self._read(end - time.monotonic()) or time.monotonic() > end:
                raise AssertionError(f"{text!r} never came; the terminal shows: {self.seen[-3000:]}")

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def finish(self, seconds: float = 30.0) -> int:
        """The exit code, after everything was read."""
        end = time.monotonic() + seconds
        while self._read(end - time.monotonic()):
            if time.monotonic() > end:
                raise AssertionError(f"the command did not end; the terminal shows: {self.seen[-3000:]}")
        return self._process.wait(5.0)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._master)


@pytest.fixture
def terminal(environment):
    """terminal(*arguments) -> a Terminal that runs the command against the simulator"""
    open_ones = []

    def start(*arguments: str, **options: int) -> Terminal:
        open_ones.append(Terminal(list(arguments), environment, **options))
        return open_ones[-1]

    yield start
    for each in open_ones:
        each.close()


@pytest.fixture
def started(environment):
    """started(*arguments) -> the running command"""
    running = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        running.append(
            subprocess.Popen(
                [*COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
            )
        )
        return running[-1]

    yield start
    for each in running:
        each.kill()
        each.wait(10.0)


@pytest.fixture(scope="session")
def warm(settings: dict[str, str]) -> Iterator[WarmCommandLine | None]:
    if sys.platform != "linux":
        yield None
        return
    command_line = WarmCommandLine(settings)
    yield command_line
    command_line.close()


@pytest.fixture
def piped(environment, warm):
    """piped(*arguments) -> the finished command, as in a script.

    What comes in so many `--seconds` on a machine that has nothing else to do needs more of them on one that has.
    """

    def run(*arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        words = list(arguments)
        if "--seconds" in words:
            place = words.index("--seconds") + 1
            words[place] = str(float(words[place]) * min(crowding(), MOST_CROWDED))
        if warm is not None and warm.fits(environment):
            return warm.run(words, environment, timeout)
        return subprocess.run(
            [*COMMAND, *words], capture_output=True, text=True, env=environment, timeout=timeout, check=False
        )

    return run
