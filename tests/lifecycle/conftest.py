"""One simulator for the folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lifecycle.lives import MARKETS, Child, Run, backbone_of
from upbit_backbone import MarketDataBackbone
from upbit_backbone.simulator import FakeUpbit


@pytest.fixture(scope="module")
def busy_upbit() -> Iterator[FakeUpbit]:
    with FakeUpbit(seed=1, trades_per_second=200, markets=MARKETS) as upbit:
        yield upbit


@pytest.fixture
def upbit(busy_upbit: FakeUpbit) -> Iterator[FakeUpbit]:
    """The folder's simulator, well-behaved again after each test; `fresh_upbit` is for faults it would not forget."""
    yield busy_upbit
    busy_upbit.clear_faults()


@pytest.fixture
def fresh_upbit() -> Iterator[FakeUpbit]:
    with FakeUpbit(seed=1, trades_per_second=200, markets=MARKETS) as upbit:
        yield upbit


@pytest.fixture
def market(upbit: FakeUpbit) -> Iterator[MarketDataBackbone]:
    with backbone_of(upbit) as market:
        yield market


@pytest.fixture
def run(upbit: FakeUpbit) -> Iterator[Run]:
    """Start a script with `market` pointed at the simulator; whatever is still running afterwards is killed."""
    children: list[Child] = []

    def start(script: str) -> Child:
        children.append(Child(script, upbit.environment()))
        return children[-1]

    yield start
    for child in children:
        child.kill()
