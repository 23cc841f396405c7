"""The command line, started warm: a process has imported it and forks for each command.

Importing costs 0.6 s of CPU and most commands a few hundredths: a suite that runs a hundred of them spent a minute on
the same imports. A fork of a process that has done nothing else is as fresh as a new one, with arguments, environment,
folder, pipes, exit code and the end of an interpreter of its own. What runs in a terminal or is killed under way
(`terminal` and `started`) is a process from the beginning.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from io import FileIO

LARGEST_REQUEST = 1 << 17


def read_once(environment: Mapping[str, str]) -> dict[str, str]:
    """What is read once, when Python starts or the command line is loaded."""
    once = ("PYTHON", "LC_", "LANG", "UPBIT_BACKBONE_LANGUAGE")
    return {name: value for name, value in environment.items() if name.startswith(once)}


class WarmCommandLine:
    """Forks one command at a time."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._settings = read_once(environment)
        self._control, others = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with others:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "tests.cli.warm", str(others.fileno())],
                pass_fds=[others.fileno()], env=dict(environment), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,  # as those are that a command will get in their place
            )  # fmt: skip
        self._in_use = threading.Lock()

    def fits(self, environment: Mapping[str, str]) -> bool:
        return read_once(environment) == self._settings

    def run(
        self, arguments: list[str], environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """As `subprocess.run` with `capture_output` and `text`, and without `check`. Waits for its turn."""
        wanted = {"arguments": arguments, "environment": dict(environment), "folder": os.getcwd()}
        request = json.dumps(wanted).encode()
        assert len(request) < LARGEST_REQUEST
        with self._in_use, contextlib.ExitStack() as pipes:
            readers, writers = [], []
            for _ in ("stdout", "stderr"):
                reader, writer = os.pipe()
                readers.append(pipes.enter_context(open(reader, "rb", buffering=0)))
                writers.append(pipes.enter_context(open(writer, "wb", buffering=0)))
            socket.send_fds(self._control, [request], [writer.fileno() for writer in writers])
            process = self._told()
            for writer in writers:
                writer.close()
            try:
                output, errors = read_all(readers, time.monotonic() + timeout)
            except TimeoutError:
                os.kill(process, signal.SIGKILL)
                raise subprocess.TimeoutExpired(arguments, timeout) from None
            finally:
                code = self._told()
        return subprocess.CompletedProcess(arguments, code, output, errors)

    def _told(self) -> int:
        if answer := self._control.recv(100):
            return int(answer)
        raise AssertionError(f"it has ended: {self._server.communicate()[1]!r}")

    def close(self) -> None:
        self._control.close()
        self._server.communicate(timeout=30.0)


def read_all(pipes: list[FileIO], end: float) -> list[str]:
    """All that comes until everybody has closed them; TimeoutError at `end` by the monotonic clock."""
    got = {pipe.fileno(): bytearray() for pipe in pipes}
    with selectors.DefaultSelector() as ready:
        for pipe in pipes:
            ready.register(pipe, selectors.EVENT_READ)
        while ready.get_map():
            found = ready.select(max(0.0, end - time.monotonic()))
            if not found:
                raise TimeoutError
            for key, _ in found:
                if chunk := os.read(key.fd, 1 << 16):
                    got[key.fd] += chunk
                else:
                    ready.unregister(key.fileobj)
    return [io.TextIOWrapper(io.BytesIO(data), "utf-8").read() for data in got.values()]


def serve(control: socket.socket) -> int:
    """In the process that stands ready: the exit code of a command in a fork of it, 0 when nobody wants another."""
    import upbit_backbone.wire.http_connection  # noqa: F401 - what most commands load, and only when they run
    from upbit_backbone.cli import main

    with contextlib.redirect_stdout(io.StringIO()):
        main(["ticker", "--help"])  # loads the rest, and what typer needs to read a command line
    assert threading.active_count() == 1, "a fork has one thread only"
    gc.freeze()  # and its garbage collector leaves alone what it shares
    while True:
        request, pipes, _, _ = socket.recv_fds(control, LARGEST_REQUEST, 2)
        if not request:
            return 0
        process = os.fork()
        if not process:
            control.close()
            for place, pipe in enumerate(pipes, 1):
                os.dup2(pipe, place)
                os.close(pipe)
            wanted = json.loads(request)
            os.chdir(wanted["folder"])
            os.environ.clear()
            os.environ.update(wanted["environment"])
            sys.argv[1:] = wanted["arguments"]
            return main()
        for pipe in pipes:
            os.close(pipe)
        control.send(str(process).encode())
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        control.send(str(status).encode())


if __name__ == "__main__":
    sys.exit(serve(socket.socket(fileno=int(sys.argv[1]))))
