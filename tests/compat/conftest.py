"""A simulated Upbit, and the stand-in pointed at it the way programs are: by the environment."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from upbit_backbone import default_backbone
from upbit_backbone.compat.pyupbit import asking, quotation_api, stand_in
from upbit_backbone.simulator import FakeUpbit

pytest.importorskip("pandas")
MARKETS = ["KRW-BTC", "KRW-ETH", "KRW-XRP", "BTC-ETH", "USDT-BTC"]


@pytest.fixture(scope="session")
def calm() -> Iterator[FakeUpbit]:
    """Upbit with a few markets, in which nothing moves by itself."""
    with FakeUpbit(trades_per_second=0, ban_after=0, markets=MARKETS) as upbit:
        yield upbit


@pytest.fixture
def upbit(calm: FakeUpbit) -> Iterator[FakeUpbit]:
    """The folder's simulator, well-behaved again after each test."""
    yield calm
    calm.clear_faults()


@pytest.fixture
def pyupbit(upbit: FakeUpbit, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The stand-in, with a backbone of its own for each test."""
    for name, value in upbit.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("UPBIT_BACKBONE_TIMEOUT_SECONDS", "20")  # nobody waits so long for what works
    monkeypatch.setattr(asking, "_is_strict", None)
    asking._told.clear()
    quotation_api._boards.clear()
    import upbit_backbone.compat.pyupbit as module

    yield module
    default_backbone.shared_backbone().close()


@pytest.fixture
def in_place(pyupbit: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """For programs in this process: `import pyupbit` is the stand-in until the test ends."""
    monkeypatch.setattr(sys, "path", [stand_in.PLACE, *sys.path])
    for name in ("pyupbit", *(f"pyupbit.{part}" for part in stand_in._PARTS)):
        monkeypatch.setitem(sys.modules, name, pyupbit)  # so that what was there, or nothing, is there again afterwards
    stand_in.take_place()
    return pyupbit
