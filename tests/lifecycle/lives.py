"""Backbones to close, calls that block, and child processes whose life can be watched from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable

from upbit_backbone import MarketDataBackbone
from upbit_backbone.simulator import FakeUpbit

LIFETIME_SECONDS = 90.0  # of a child that ought to have ended by itself long before
MARKETS = ["KRW-BTC", "KRW-ETH", "KRW-XRP", "BTC-ETH", "USDT-BTC"]

# What every script begins with. `soon_blocked` says READY once the main thread waits in one of ours.
PRELUDE = """
import os, queue, signal, sys, threading, time
import upbit_backbone as ub
from upbit_backbone import *

market = MarketDataBackbone()

def say(*words):  # in one piece, whoever else is printing
    os.write(1, ("\\n" + " ".join(map(str, (*words, time.monotonic()))) + "\\n").encode())

def soon_blocked(within=""):
    main = threading.get_ident()
    waits = {"wait", "sleep", "get", "_settle_one", "_wait_for_tstate_lock", "join", "select", "recv_into"}
    def is_waiting():
        frame = sys._current_frames()[main]
        names = [frame.f_code.co_name]
        while frame := frame.f_back:
            names.append(frame.f_code.co_name)
        return names[0] in waits and "soon_blocked" not in names and (not within or within in names)
    def watch():
        while not is_waiting():
            time.sleep(0.005)
        say("READY")
    threading.Thread(target=watch, daemon=True).start()
"""


def backbone_of(upbit: FakeUpbit, **settings: object) -> MarketDataBackbone:
    return MarketDataBackbone(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url, **settings)


class Child:
    """A Python program in its own process. `expect` reads its output; `finish` tells how and when it ended."""

    def __init__(self, script: str, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(script)],
            env=os.environ | environment | {"PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "default"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self.seen: list[str] = []
        self._watchdog = threading.Timer(LIFETIME_SECONDS, self._process.kill)
        self._watchdog.daemon = True
        self._watchdog.start()

    def expect(self, word: str) -> float:
        """The time (monotonic) at which the program said `word`."""
        while line := self._process.stdout.readline():  # type: ignore[union-attr]
            self.seen.append(line)
            if line.startswith(word):
                return float(line.split()[-1])
        raise AssertionError(f"it ended without {word}: {self.seen} {self.finish()}")

    def end_input(self) -> None:
        """Let a program go on that waits in `sys.stdin.read()`."""
        self._process.stdin.close()  # type: ignore[union-attr]

    def interrupt(self, number: int = signal.SIGINT) -> float:
        """Send a signal; when."""
        self._process.send_signal(number)
        return time.monotonic()

    def finish(self) -> Ending:
        code = self._process.wait()
        at = time.monotonic()
        self._watchdog.cancel()
        self._watchdog.join()
        output, errors = self._process.stdout.read(), self._process.stderr.read()  # type: ignore[union-attr]
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            pipe.close()  # type: ignore[union-attr]
        return Ending(code, at, output, errors)

    def kill(self) -> None:
        """End it now, if it has not ended; nothing is left of it."""
        if self._process.returncode is None:
            self._process.kill()
            self.finish()


class Ending:
    """The end of a program: its exit code, when, and what it had still to say."""

    def __init__(self, code: int, at: float, output: str, errors: str) -> None:
        self.code, self.at, self.output, self.errors = code, at, output, errors

    def __repr__(self) -> str:
        return f"<Ending code {self.code}, output {self.output!r}, errors {self.errors!r}>"


Run = Callable[[str], Child]
