"""A simulator in its own process, backbones that point at it, and eyes on its wire log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.waiting import wait_until
from upbit_backbone import MarketDataBackbone
from upbit_backbone.simulator import FakeUpbit


@pytest.fixture(scope="session")
def calm() -> Iterator[FakeUpbit]:
    """Upbit with all its markets, in which nothing moves by itself."""
    with FakeUpbit(trades_per_second=0, ban_after=0) as upbit:
        yield upbit


@pytest.fixture
def upbit(calm: FakeUpbit) -> Iterator[FakeUpbit]:
    """The folder's simulator, well-behaved again after each test."""
    yield calm
    calm.clear_faults()
    calm.set_options(latency=0.0)


@pytest.fixture
def own_upbit() -> Iterator[Callable[..., FakeUpbit]]:
    """`own_upbit(**switches)`: a simulator for one test, for what the shared one would not get over."""
    with ExitStack() as stack:
        yield lambda **switches: stack.enter_context(FakeUpbit(**({"trades_per_second": 0, "ban_after": 0} | switches)))


@pytest.fixture
def backbone(upbit: FakeUpbit) -> Iterator[Callable[..., MarketDataBackbone]]:
    """`backbone(**settings)`: pointed at `upbit` (or `at=` another), closed when the test ends."""
    with ExitStack() as stack:

        def make(at: FakeUpbit = upbit, **settings: Any) -> MarketDataBackbone:
            # Nobody waits so long for what works; a question that a busy machine answers late is no fault.
            urls = {"rest_url": at.rest_url, "websocket_url": at.websocket_url, "timeout_seconds": 20.0}
            return stack.enter_context(MarketDataBackbone(**(urls | settings)))

        yield make


@pytest.fixture
def market(backbone: Callable[..., MarketDataBackbone]) -> MarketDataBackbone:
    return backbone()


class Wire:
    """What arrived at the simulator since the test began, or since `start_over`."""

    def __init__(self, upbit: FakeUpbit) -> None:
        self._upbit = upbit
        self._since = 0
        self.start_over()

    def start_over(self) -> None:
        log = self._upbit.wire_log(since=self._since or None, limit=1_000_000)
        self._since = log[-1]["n"] if log else self._since

    @property
    def requests(self) -> list[dict[str, Any]]:
        return self._upbit.requests(since=self._since or None)

    @property
    def paths(self) -> list[str]:
        return [request["path"] for request in self.requests]

    def everything(self) -> str:
        """All that arrived, as one text to look for traces in."""
        return str(self._upbit.wire_log(since=self._since or None, limit=1_000_000))

    @property
    def arrivals(self) -> list[dict[str, Any]]:
        """REST requests and WebSocket handshakes."""
        log = self._upbit.wire_log(since=self._since or None, limit=1_000_000)
        return [entry for entry in log if entry["kind"] in ("request", "handshake")]


@pytest.fixture
def wire(upbit: FakeUpbit) -> Wire:
    return Wire(upbit)


@pytest.fixture
def until() -> Callable[..., Any]:
    return wait_until


@pytest.fixture
def is_live() -> Callable[..., bool]:
    """`is_live(market, "ticker", "KRW-BTC")`: whether the next question would be answered from the stream."""
    return lambda market, kind, symbol, **options: market.explain(kind, symbol, **options).rule == "live"


@pytest.fixture
def streaming(backbone: Callable[..., MarketDataBackbone]) -> Callable[..., MarketDataBackbone]:
    """`streaming("KRW-BTC", …)`: a backbone that has subscribed to these tickers and has them live."""

    held: list[Any] = []

    def make(*symbols: str, kinds: tuple[str, ...] = ("ticker",), **settings: Any) -> MarketDataBackbone:
        market = backbone(**settings)
        held.append(market.subscribe(symbols, kinds))
        for kind in kinds:
            for symbol in symbols:
                wait_until(
                    lambda kind=kind, symbol=symbol: market.explain(kind, symbol).rule in ("live", "history-joined"),
                    f"{kind} {symbol} live",
                )
        return market

    return make


@pytest.fixture
def stopwatch() -> Callable[[Callable[[], Any]], tuple[float, Any]]:
    """`stopwatch(ask)`: how long `ask()` took, and what it returned or raised."""

    def run(ask: Callable[[], Any]) -> tuple[float, Any]:
        began = time.monotonic()
        try:
            outcome = ask()
        except Exception as error:
            outcome = error
        return time.monotonic() - began, outcome

    return run
