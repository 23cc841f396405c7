"""One application without a screen, one simulator, and a backbone for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("qtpy", reason="the extra [qt] is not installed")

from qtpy.QtWidgets import QApplication

from upbit_backbone import MarketDataBackbone
from upbit_backbone.simulator import FakeUpbit


@pytest.fixture(scope="session", autouse=True)
def app() -> QApplication:
    return QApplication.instance() or QApplication([])


@pytest.fixture(scope="module")
def upbit() -> Iterator[FakeUpbit]:
    with FakeUpbit(seed=5, markets=["KRW-BTC", "KRW-ETH"], trades_per_second=50) as simulator:
        yield simulator


@pytest.fixture
def market(upbit: FakeUpbit) -> Iterator[MarketDataBackbone]:
    with MarketDataBackbone(url=upbit.url) as backbone:
        yield backbone
    upbit.clear_faults()
