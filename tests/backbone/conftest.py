"""A simulator in its own process, backbones that point at it, and eyes on its wire log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from upbit_backbone import MarketDataBackbone
from upbit_backbone._concurrency import Deadline, join_all, spawn
from upbit_backbone.simulator import FakeUpbit

PATIENCE_SECONDS = 20.0
PAUSE = threading.Event()  # never set: a wait on it is a pause between two looks


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
            urls = {"rest_url": at.rest_url, "websocket_url": at.websocket_url}
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


def within(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """What `condition` says as soon as that is true; fails after so many seconds."""
    deadline = Deadline.after(seconds)
    while not (answer := condition()):
        assert not deadline.expired, f"not within {seconds} s: {what}"
        PAUSE.wait(0.01)
    return answer


@pytest.fixture
def until() -> Callable[..., Any]:
    return within


@pytest.fixture
def is_live() -> Callable[..., bool]:
    """`is_live(market, "ticker", "KRW-BTC")`: whether the next question would be answered from the stream."""
    return lambda market, kind, symbol, **options: market.explain(kind, symbol, **options).rule == "live"


@pytest.fixture
def streaming(backbone: Callable[..., MarketDataBackbone]) -> Callable[..., MarketDataBackbone]:
    """`streaming("KRW-BTC", …)`: a backbone that has subscribed to these tickers and has them live."""

    def make(*symbols: str, kinds: tuple[str, ...] = ("ticker",), **settings: Any) -> MarketDataBackbone:
        market = backbone(**settings)
        market.subscribe(symbols, kinds)
        for kind in kinds:
            for symbol in symbols:
                within(
                    lambda kind=kind, symbol=symbol: market.explain(kind, symbol).rule in ("live", "history-joined"),
                    f"{kind} {symbol} live",
                )
        return market

    return make


@pytest.fixture
def all_at_once() -> Callable[[int, Callable[[int], Any]], list[Any]]:
    """`all_at_once(100, ask)`: `ask(n)` from 100 threads at the same time; what each returned or raised."""

    def run(count: int, ask: Callable[[int], Any]) -> list[Any]:
        barrier = threading.Barrier(count)
        outcomes: list[Any] = [None] * count

        def one(number: int) -> None:
            barrier.wait(PATIENCE_SECONDS)
            try:
                outcomes[number] = ask(number)
            except Exception as error:
                outcomes[number] = error

        threads = [spawn(lambda number=number: one(number), f"test-ask-{number}") for number in range(count)]
        assert join_all(threads, Deadline.after(60)) == []
        return outcomes

    return run


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
