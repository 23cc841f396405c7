"""What the tests of limits between processes have in common."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clock import ManualClock
from upbit_backbone.limits.count_file import SharedCountFile


@pytest.fixture
def host() -> str:
    return f"test-{uuid.uuid4()}"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def two(clock: ManualClock, host: str) -> Iterator[tuple[SharedCountFile, SharedCountFile]]:
    """The counts of two processes."""
    counts = SharedCountFile(host, clock), SharedCountFile(host, clock)
    yield counts
    for count in counts:
        count.close()
