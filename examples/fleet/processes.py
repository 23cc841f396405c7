"""The processes of the fleet: a Redis server, relays, workers; started, listened to, killed as by `kill -9`."""

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import redis

HERE = Path(__file__).parent
PATIENCE_SECONDS = 60.0


def wait_for(what: str, is_so: Callable[[], object]) -> float:
    """Look until it is so; the monotonic time at which it was."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        if time.monotonic() > end:
            raise SystemExit(f"waited {PATIENCE_SECONDS:.0f} s for {what}")
        time.sleep(0.01)
    return time.monotonic()


class Process:
    """A Python program that speaks lines of JSON on its output and hears lines on its input."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        self.pid = self._process.pid
        self.lines: queue.Queue[str] = queue.Queue()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self.lines.put(line)

    def tell(self, line: str = "") -> None:
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        return json.loads(self.lines.get(timeout=PATIENCE_SECONDS))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """In order, by SIGTERM; killed if it does not."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
        self._reading.join()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                stream and stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def cpu_of(pid: int) -> float:
    """The kernel's CPU clock of another process, as clock_getcpuclockid(3) finds it."""
    return time.clock_gettime((~pid << 3) | 2) if sys.platform == "linux" else float("nan")


class Redis:
    """A server of our own at a socket in `folder`; it keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self.url = f"unix://{folder}/redis.socket"
        program = shutil.which("redis-server")
        if program is None:
            raise SystemExit("there is no redis-server here: apt install redis-server, or brew install redis")
        self._command = [
            program,
            "--port",
            "0",
            "--unixsocket",
            f"{folder}/redis.socket",
            "--save",
            "",
            "--dir",
            str(folder),
        ]
        self.client = redis.Redis.from_url(self.url, decode_responses=True)
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)  # noqa: S603
        self.pid = self._process.pid
        wait_for("Redis", self._answers)

    def _answers(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(self.client.ping())
        return False

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self.client.connection_pool.disconnect()

    def leader(self) -> str | None:
        """Which relay leads, with its number."""
        with contextlib.suppress(redis.RedisError):
            leader: str | None = self.client.get("{upbit}:leader")
            return leader
        return None

    def memory(self) -> tuple[int, int]:
        """Bytes in use, and entries in all streams."""
        keys: Iterator[str] = self.client.scan_iter("{upbit}:stream:*", count=1000)
        return self.client.info("memory")["used_memory"], sum(self.client.xlen(key) for key in keys)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.client.close()
