"""Simulators shared by the folder, backbones with impatient settings, and lines that can be spoilt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.chaos.proxy import ChaosProxy
from tests.chaos.watched import Watched
from upbit_backbone import MarketDataBackbone
from upbit_backbone.simulator import FakeUpbit

SYMBOLS = ["KRW-BTC", "KRW-ETH", "KRW-XRP", "KRW-SOL"]
# Every break is a first break, and nobody waits for long.
IMPATIENT = {"healthy_after_seconds": 0.01, "reconnect_cap_seconds": 0.5}


@pytest.fixture(scope="session")
def busy() -> Iterator[FakeUpbit]:
    """Upbit with four markets and 80 trades a second, while a test asks for it."""
    with FakeUpbit(seed=21, markets=SYMBOLS, trades_per_second=80.0, ban_after=0) as server:
        server.pause()
        yield server


@pytest.fixture(scope="session")
def calm() -> Iterator[FakeUpbit]:
    """Upbit with four markets in which nothing moves by itself."""
    with FakeUpbit(seed=22, markets=SYMBOLS, trades_per_second=0, ban_after=0) as server:
        yield server


def heal(server: FakeUpbit) -> None:
    server.clear_faults()
    server.thaw()
    server.unmute()
    server.resume()
    server.inject("load", messages_per_second=0)


@pytest.fixture
def upbit(busy: FakeUpbit) -> Iterator[FakeUpbit]:
    """The busy one, well-behaved again after each test, and paused: it lives as long as the session."""
    busy.resume()
    yield busy
    heal(busy)
    busy.pause()


@pytest.fixture
def quiet(calm: FakeUpbit) -> Iterator[FakeUpbit]:
    """The calm one, well-behaved again after each test."""
    yield calm
    heal(calm)


@pytest.fixture
def own_upbit() -> Iterator[Callable[..., FakeUpbit]]:
    """`own_upbit(**switches)`: a simulator for one test, for what a shared one would not get over."""
    with ExitStack() as stack:

        def make(**switches: Any) -> FakeUpbit:
            settings: dict[str, Any] = {"markets": SYMBOLS, "trades_per_second": 0, "ban_after": 0}
            return stack.enter_context(FakeUpbit(**(settings | switches)))

        yield make


@pytest.fixture
def backbone() -> Iterator[Callable[..., MarketDataBackbone]]:
    """`backbone(server, **settings)`: pointed at it, impatient, closed when the test ends."""
    with ExitStack() as stack:

        def make(server: FakeUpbit, **settings: Any) -> MarketDataBackbone:
            where = {"rest_url": server.rest_url, "websocket_url": server.websocket_url, "ca_file": server.ca_file}
            return stack.enter_context(MarketDataBackbone(**(where | IMPATIENT | settings)))

        yield make


@pytest.fixture
def watch(backbone: Callable[..., MarketDataBackbone]) -> Callable[..., Watched]:
    """`watch(server, symbols, kinds, **settings)`: a backbone of its own, already receiving."""

    def make(server: FakeUpbit, symbols: Any = ("KRW-BTC",), kinds: Any = ("trade",), **settings: Any) -> Watched:
        return Watched(backbone(server, **settings), server, symbols, kinds)

    return make


@pytest.fixture
def proxy() -> Iterator[Callable[..., ChaosProxy]]:
    """`proxy(url)`: a chaos proxy in front of what the URL points at."""
    with ExitStack() as stack:

        def make(url: str, **options: Any) -> ChaosProxy:
            parts = urlsplit(url)
            assert parts.hostname is not None
            assert parts.port is not None
            return stack.enter_context(ChaosProxy((parts.hostname, parts.port), **options))

        yield make
