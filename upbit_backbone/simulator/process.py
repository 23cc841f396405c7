"""A simulator in its own process, and the way to talk to its control port."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

START_SECONDS = 30.0
STOP_SECONDS = 3.0


class SimulatorError(RuntimeError):
    """The simulator did not start, has ended, or refused what it was asked to do."""


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
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
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
