"""A fixture for users' tests: write `pytest_plugins = ["upbit_backbone.simulator.pytest_plugin"]` in a conftest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from upbit_backbone.simulator import FakeUpbit


@pytest.fixture(scope="session")
def fake_upbit() -> Iterator[FakeUpbit]:
    """One simulated Upbit for the whole test session, with all pairs and 50 trades a second."""
    with FakeUpbit() as upbit:
        yield upbit
