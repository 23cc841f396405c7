"""A simulator in its own process, or in a thread where no process can be started, and the way to its control port."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from upbit_backbone.simulator.serving.server import Server

START_SECONDS = 30.0
STOP_SECONDS = 3.0


class SimulatorError(RuntimeError):
    """The simulator did not start, has ended, or refused what it was asked to do."""


def can_start_python() -> bool:
    """Whether `sys.executable` is a Python interpreter that can be started again.

    In a frozen program it is that program, which would start itself, and that one itself again, without end; under
    uWSGI and in programs that embed Python it is theirs.
    """
    is_frozen = getattr(sys, "frozen", False) or "__compiled__" in globals()  # Nuitka says it in each module
    return not is_frozen and Path(sys.executable or "").name.lower().startswith(("python", "pypy"))


class SimulatorProcess:
    """The child process. It ends on `stop`, and by itself when this process ends in whatever way."""

    def __init__(self, settings: dict[str, Any]) -> None:
        arguments = [sys.executable, "-m", "upbit_backbone.simulator", "--ready-json", "--parent", str(os.getpid())]
        for name, value in settings.items():
            arguments += ["--set", f"{name}={json.dumps(value)}"]
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1"}
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            # A group of its own: Ctrl-C in a terminal is for whoever made the simulator, which then ends it in order.
            start_new_session=True,
            # On Windows that is said in flags, and a program with windows of its own must not get a black one beside.
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
            | getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        self.pid = self._process.pid
        try:
            self.urls = self._read_ready_line()
        except BaseException:
            self.stop()
            raise

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """Ends the child and waits for it; killed if it does not go. Safe to call again."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read_ready_line(self) -> dict[str, Any]:
        output = self._process.stdout
        if output is None:
            raise SimulatorError("the simulator has no output")
        watchdog = threading.Timer(START_SECONDS, self._process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            line = output.readline()
        finally:
            watchdog.cancel()
            watchdog.join()
        if not line:
            raise SimulatorError("the simulator did not start; its own message is above")
        urls: dict[str, Any] = json.loads(line)
        return urls


class SimulatorThread:
    """The same on a thread of this process, for programs that cannot start another Python. It ends on `stop`."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.pid = os.getpid()
        self._started: Future[tuple[asyncio.AbstractEventLoop, Server]] = Future()
        self._thread = threading.Thread(target=self._run, args=(settings,), name="upbit-simulator", daemon=True)
        self._thread.start()
        self._loop, self._server = self._started.result(START_SECONDS)
        self.urls = self._server.urls()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Ends the thread and waits for it. Safe to call again."""
        if self._thread.is_alive() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._server.stop)
        self._thread.join(STOP_SECONDS)

    def _run(self, settings: dict[str, Any]) -> None:
        try:
            asyncio.run(self._serve(settings))
        except Exception as problem:
            if self._started.done():
                raise
            ours = SimulatorError(f"the simulator did not start: {problem}")
            ours.__cause__ = problem
            self._started.set_exception(ours)

    async def _serve(self, settings: dict[str, Any]) -> None:
        # Literal imports, which the makers of frozen programs find; late, as the usual way has no need of them.
        from upbit_backbone.simulator.control.port import Control
        from upbit_backbone.simulator.serving.options import Options
        from upbit_backbone.simulator.serving.server import Server

        server = Server(Options(**settings), control=lambda server: Control(server).serve)
        await server.start()
        self._started.set_result((asyncio.get_running_loop(), server))
        await server.run_until_stopped()


class ControlClient:
    """Calls verbs. One connection, usable from any thread, one call at a time."""

    def __init__(self, url: str, timeout: float = 30.0) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.netloc, timeout=timeout)
        self._connection.connect()
        self._lock = threading.Lock()  # guards the connection: one request at a time

    def call(self, verb: str, **arguments: Any) -> Any:
        """The verb's result; `SimulatorError` with its reason when the simulator refuses or is gone."""
        body = json.dumps(arguments)
        try:
            with self._lock:
                self._connection.request("POST", "/" + verb, body, {"Content-Type": "application/json"})
                answer = json.loads(self._connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError) as problem:
            self._connection.close()
            raise SimulatorError(f"no answer to {verb}: {problem!r}") from problem
        if "error" in answer:
            raise SimulatorError(answer["error"])
        return answer["result"]

    def close(self) -> None:
        self._connection.close()
