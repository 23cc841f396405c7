"""One simulator and one backbone that is streaming, for the folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for injection.py

from upbit_backbone import MarketDataBackbone
from upbit_backbone.simulator import FakeUpbit


@pytest.fixture(scope="module")
def upbit() -> Iterator[FakeUpbit]:
    with FakeUpbit(seed=1, trades_per_second=200, markets=["KRW-BTC", "KRW-ETH", "KRW-XRP"]) as upbit:
        yield upbit


@pytest.fixture
def market(upbit: FakeUpbit) -> Iterator[MarketDataBackbone]:
    """Streaming one market, and with everything loaded that a first use loads."""
    with MarketDataBackbone(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url) as market:
        yield market
