"""A real Redis server for each test that asks for one: the machine's, or the one that a package of the tests brings."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.redis_server import RedisServer
from upbit_backbone import MarketDataBackbone
from upbit_backbone.simulator import FakeUpbit

MARKETS = ["KRW-BTC", "KRW-ETH"]


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
