from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.clock import BEGIN, START, ManualClock
from upbit_backbone._concurrency import Deadline, wait_event
from upbit_backbone.models.enums import DataType
from upbit_backbone.models.request import Topic
from upbit_backbone.recorder.recorder import Recorder

TOPICS = frozenset({Topic(DataType.TRADE, "KRW-BTC"), Topic(DataType.TICKER, "KRW-ETH")})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "day.rec"


def fill(recorder: Recorder, batches: int, first: int = 0) -> None:
    """One session that is subscribed and gives `batches` batches of two frames, 10 ms apart."""
    recorder.subscribed("upbit-session-1", 1, TOPICS)
    for number in range(first, first + batches):
        frames = [b'{"number":%d}' % number, bytes([number % 256, 0, 10, 255])]
        recorder.frames("upbit-session-1", 1, frames, BEGIN + number / 100, START + timedelta(seconds=number / 100))


@pytest.fixture
def make_recording(path):
    """make_recording(batches) -> the path of a finished recording"""

    def make(batches: int = 20) -> Path:
        with Recorder(path, clock=ManualClock()) as recorder:
            fill(recorder, batches)
            recorder.rest("/v1/ticker?markets=KRW-BTC", 200, b'[{"first":1}]', START)
            recorder.rest("/v1/ticker?markets=KRW-BTC", 429, b"slow down", START)
            recorder.interrupted("upbit-session-1", 1, TOPICS, "close 1001")
        return path

    return make


@pytest.fixture
def fill_recorder():
    return fill


@pytest.fixture
def until_written():
    """until_written(recorder): what was handed over is on the disk, by the recorder's own thread."""

    def wait(recorder: Recorder) -> None:
        deadline = Deadline.after(20.0)
        while recorder.stats.waiting:
            assert not deadline.expired
            wait_event(threading.Event(), Deadline.after(0.005))

    return wait
