"""A recording, replayed into the same pipeline, delivers the same bytes."""

from __future__ import annotations

import json
import time

import pytest

from upbit_backbone._concurrency import Deadline
from upbit_backbone.delivery.event_bus import EventBus
from upbit_backbone.delivery.hub import Hub
from upbit_backbone.intake import Intake
from upbit_backbone.models.enums import DataType, Overflow
from upbit_backbone.models.request import Topic
from upbit_backbone.models.session import SessionHealth
from upbit_backbone.recorder import Recorder, Recording, ReplayClock, ReplaySource, ReplayTransport
from upbit_backbone.recorder.format import RecordKind
from upbit_backbone.store.live_store import LiveStore

TOPICS = frozenset({Topic(DataType.TRADE, "KRW-BTC"), Topic(DataType.TICKER, "KRW-BTC")})
START_MS = 1_795_000_000_000


def trade(number: int) -> bytes:
    return json.dumps({
        "type": "trade", "code": "KRW-BTC", "timestamp": START_MS + number * 10, "trade_date": "2026-11-18",
        "trade_time": "08:26:40", "trade_timestamp": START_MS + number * 10, "trade_price": 1.5E8 + number,
        "trade_volume": 0.001, "ask_bid": "BID", "prev_closing_price": 1.4E8, "change": "RISE", "change_price": 1.0,
        "sequential_id": 17_950_000_000_000_000 + number, "best_ask_price": 1.5E8, "best_ask_size": 1.0,
        "best_bid_price": 1.5E8, "best_bid_size": 1.0, "stream_type": "REALTIME",
    }).encode()  # fmt: skip


@pytest.fixture
def pipelines():
    """pipeline(clock) -> (intake, subscription); all closed at the end"""
    hubs = []

    def make(clock=None, **options):
        events = EventBus()
        hub = Hub(events)
        hubs.append((hub, events))
        given = {} if clock is None else {"clock": clock}
        intake = Intake(LiveStore(10.0), hub, **given, **options)
        return intake, hub.subscribe(TOPICS, overflow=Overflow.DROP_OLDEST)

    yield make
    for hub, events in hubs:
        assert hub.close(Deadline.after(2.0)) == []
        assert events.close(Deadline.after(2.0)) == []


def drain(subscription) -> list[str]:
    return [item.to_json() for item in subscription.queue.drain()]


def test_a_replay_delivers_the_same_bytes(path, pipelines):
    intake, subscription = pipelines()
    health = SessionHealth("upbit-session-1")
    health.epoch, health.connected = 1, True
    with Recorder(path) as recorder:
        intake.attach(recorder)
        intake.subscribed(health, 1, TOPICS)
        for number in range(0, 300, 3):
            frames = [trade(number), b"garbage", trade(number + 1), trade(number + 2)]
            intake.frames(health, 1, frames, time.monotonic())
        intake.interrupted(health, 1, TOPICS, "close 1001")
    delivered = drain(subscription)
    assert len(delivered) == 300
    for _ in range(2):
        clock = ReplayClock()
        again, replayed = pipelines(clock)
        recording = Recording(path)
        rest = ReplayTransport(recording)
        source = ReplaySource(recording, again, clock=clock, rest=rest, speed=None, backlog=replayed.queue.qsize)
        source.start()
        assert source.wait(Deadline.after(10.0))
        assert source.close(Deadline.after(2.0)) == []
        assert drain(replayed) == delivered


def test_a_recorder_attached_in_the_middle_knows_what_streams(path, pipelines):
    intake, _ = pipelines()
    health = SessionHealth("upbit-session-1")
    intake.subscribed(health, 3, TOPICS)
    with Recorder(path) as recorder:
        intake.attach(recorder)
        intake.frames(health, 3, [trade(1)], 1.0)
        intake.tap = None
        intake.frames(health, 3, [trade(2)], 2.0)
    kinds = [record.kind for record in Recording(path)]
    assert kinds == [RecordKind.BEGIN, RecordKind.SUBSCRIBED, RecordKind.FRAMES]
