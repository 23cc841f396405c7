from __future__ import annotations

import pytest

from tests.sinks.conftest import at, trade
from upbit_backbone.archive import Store
from upbit_backbone.sinks import SqliteSink
from upbit_backbone.sinks.base import Batch


@pytest.fixture
def make_store(tmp_path):
    """make_store(batch, gap, …) -> a store of what is handed in."""

    def make(*parts) -> Store:
        sink = SqliteSink(tmp_path / "day.db")
        sink.open()
        for part in parts:
            if isinstance(part, Batch):
                sink.write(part)
            else:
                sink.gap(part)
        sink.close()
        return Store(sink.path)

    return make


__all__ = ["at", "trade"]
