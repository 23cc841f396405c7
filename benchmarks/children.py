"""Running things in processes of their own, so that one measurement never disturbs the next."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
STOP_SECONDS = 5.0


class ChildError(RuntimeError):
    """The child ended before it answered."""


class MissingError(ChildError):
    """The child lacks a library that is not installed here."""


class Child:
    """`python -m MODULE …` that answers one JSON line to each line it is sent. Killed at the end of the `with`.

    `quiet` keeps its complaints off the terminal, `python` is another interpreter than ours.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        environment: dict[str, str] | None = None,
        quiet: bool = False,
        python: str = sys.executable,
    ) -> None:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1", **(environment or {})}
        self._process = subprocess.Popen(
            [python, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else None, env=surroundings, text=True, bufsize=1, cwd=ROOT,
        )  # fmt: skip
        self.pid = self._process.pid
        try:
            self.hello = self._answer()
        except BaseException:
            self.stop()
            raise

    def ask(self, word: str) -> dict[str, Any]:
        """Send one line, return the answer."""
        if self._process.stdin is None:
            raise ChildError("no way to ask")
        try:
            self._process.stdin.write(word + "\n")
            self._process.stdin.flush()
        except OSError as gone:
            raise ChildError("the child has ended") from gone
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        if self._process.stdout is None:
            raise ChildError("no way to hear")
        for line in self._process.stdout:
            if line.startswith("{"):  # libraries print as they please
                answer: dict[str, Any] = json.loads(line)
                if "missing" in answer:
                    raise MissingError(answer["missing"])
                return answer
        raise ChildError("the child ended without an answer; what it said is above")

    def stop(self) -> None:
        """End it; safe to call again."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def say(**answer: Any) -> None:
    """What a child answers with."""
    print(json.dumps(answer), flush=True)


def told() -> Iterator[str]:
    """The lines this child is sent. Read straight from the descriptor: a thread that waits inside `sys.stdin` holds its
    lock, and a forked grandchild (pyupbit's) would wait for it for ever."""
    buffer = b""
    while more := os.read(0, 4096):
        *lines, buffer = (buffer + more).split(b"\n")
        yield from (line.decode().strip() for line in lines)
