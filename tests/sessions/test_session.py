"""The fast path from the socket to the sink leads exactly where the table does."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone._concurrency import Deadline, Waitable
from upbit_backbone.config import BackboneConfig
from upbit_backbone.models.enums import DataType
from upbit_backbone.models.request import SubscriptionRequest, Topic
from upbit_backbone.models.session import FirstFrame, Notice, SessionHealth, StreamError, UpStatus
from upbit_backbone.sessions import messages as do
from upbit_backbone.sessions import messages as on
from upbit_backbone.sessions.gathering import Gathering
from upbit_backbone.sessions.lifecycle import Lifecycle
from upbit_backbone.sessions.ports import Collaborators
from upbit_backbone.sessions.session import Session
from upbit_backbone.wire.websocket_transport import WebSocketConnection

TOPIC = Topic(DataType.TICKER, "KRW-BTC")
TOPICS = frozenset({TOPIC, Topic(DataType.TRADE, "KRW-ETH")})
MEANINGS: dict[bytes, list[Notice]] = {
    b"first": [FirstFrame(TOPIC)],
    b"error": [StreamError("WRONG_FORMAT", "no")],
    b"up": [UpStatus()],
    b"data": [],
}


class Sink:
    """Knows what the messages of these tests mean and remembers them."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, list[bytes], float]] = []
        self.unanswered: list[float] = []

    def frames(self, health: SessionHealth, epoch: int, frames: Sequence[bytes], monotonic: float) -> list[Notice]:
        health.news_at = monotonic
        self.unanswered.append(health.unanswered_since)
        self.seen.append((epoch, list(frames), monotonic))
        return [notice for frame in frames for notice in MEANINGS[frame]]

    def subscribed(self, *_: Any) -> None: ...

    def interrupted(self, *_: Any) -> None: ...


class Stage:
    """A live session without a thread, that reads by one of the two ways."""

    def __init__(self, *, on_fast_path: bool) -> None:
        self._on_fast_path = on_fast_path
        self.sink = Sink()
        self.effects: list[do.Effect] = []
        self.lifecycle = Lifecycle(
            "session-1",
            BackboneConfig(stall_probe_seconds=5.0),
            random=lambda: 0.5,
            wall=lambda: datetime(2026, 11, 22, tzinfo=UTC),
            next_epoch=itertools.count(1).__next__,
        )
        self.handle(on.SubscriptionsChanged(frozenset(map(SubscriptionRequest, TOPICS))), 100.0)
        self.handle(on.Opened(), 100.0)

    def handle(self, happened: on.Input, now: float) -> None:
        self._perform(self.lifecycle.handle(happened, now), now)

    def read(self, data: bytes, now: float) -> None:
        if self._on_fast_path:
            self._perform(self.lifecycle.take(data, self.sink.frames, now), now)
        else:
            self.handle(on.Received(data), now)

    def _perform(self, effects: Sequence[do.Effect], now: float) -> None:
        for effect in effects:
            if isinstance(effect, do.Deliver):
                notices = self.sink.frames(self.lifecycle.health, effect.epoch, effect.frames, now)
                self.handle(on.Noticed(effect.epoch, len(effect.frames), notices), now)
            elif isinstance(effect, do.HearPong):
                self.handle(on.Ponged(effect.epoch, effect.payload), now)
            else:
                self.effects.append(effect)

    def __repr__(self) -> str:
        record, health = self.lifecycle.status, self.lifecycle.health
        numbers = record.messages, record.bytes, record.last_data_at, record.last_error, record.messages_sent
        signs = health.epoch, health.connected, health.heard_at, health.suspect, health.mute
        return f"{record.state} {numbers} {signs} {self.sink.seen} {self.effects}"


def whole(opcode: int, payload: bytes) -> bytes:
    return bytes((0x80 | opcode, len(payload))) + payload


messages = st.sampled_from(sorted(MEANINGS)).map(lambda payload: whole(2, payload))
fragmented = st.sampled_from(sorted(MEANINGS)).map(
    lambda payload: bytes((0x02, 2)) + payload[:2] + whole(0, payload[2:])
)
controls = st.sampled_from([whole(9, b"ping"), whole(0xA, b"1"), whole(8, (1000).to_bytes(2, "big")), b"\xff\xff"])
wires = st.lists(st.one_of(messages, messages, messages, fragmented, controls), max_size=12).map(b"".join)
steps = st.tuples(st.floats(0.0, 20.0), st.booleans())


def cut_up(wire: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(wire) + 1) for place in places), len(wire)]
    return [wire[start:end] for start, end in itertools.pairwise(edges) if end > start]


def test_suspects_that_were_left_out_get_their_turn_as_soon_as_the_others_have_passed() -> None:
    stage = Stage(on_fast_path=True)
    stage.read(whole(2, b"error") + whole(8, (1000).to_bytes(2, "big")), 100.1)
    stage.handle(on.Tick(), stage.lifecycle.next_wake())
    stage.handle(on.Opened(), 101.0)
    assert stage.lifecycle.held_back

    asked_at = stage.lifecycle.next_wake()
    assert asked_at == pytest.approx(103.0)
    stage.handle(on.Tick(), asked_at)
    stage.read(whole(2, b"data"), 104.0)
    assert stage.lifecycle.next_wake() > 105.0, "what comes may have been sent before the message was read"
    stage.read(whole(0xA, b"1"), 104.5)

    assert stage.lifecycle.next_wake() < 105.0
    stage.handle(on.Tick(), stage.lifecycle.next_wake())
    assert not stage.lifecycle.held_back


def test_a_pong_counts_in_its_place_among_the_messages_of_one_read() -> None:
    stage = Stage(on_fast_path=True)
    stage.handle(on.Tick(), 102.0)
    asked = [effect.payload for effect in stage.effects if isinstance(effect, do.SendPing)]
    assert asked == [b"1"]
    assert stage.lifecycle.health.unanswered_since == 102.0

    stage.read(whole(2, b"data") + whole(0xA, b"1") + whole(2, b"up"), 102.5)

    assert stage.sink.unanswered == [102.0, inf]


@given(wires, st.lists(st.integers(0, 200), max_size=6), st.data())
def test_whatever_is_read_and_however_it_is_cut_both_ways_lead_to_the_same(
    wire: bytes, places: list[int], data: Any
) -> None:
    fast, table = Stage(on_fast_path=True), Stage(on_fast_path=False)
    now = 100.0
    for piece in cut_up(wire, places):
        seconds, is_proven_silent = data.draw(steps)
        now += seconds
        for stage in (fast, table):
            if is_proven_silent:
                epoch, behind = stage.lifecycle.health.epoch, frozenset({TOPIC})
                stage.handle(on.ProbeAnswered(epoch, behind, True, behind), now)
            if stage.lifecycle.is_due(now):
                stage.handle(on.Tick(), now)
            stage.read(piece, now)
        assert repr(fast) == repr(table)
        # What data puts off is looked up only when it would have been due: that wakes early, and never late.
        assert fast.lifecycle.next_wake() <= table.lifecycle.next_wake()


def test_a_read_of_nothing_but_data_asks_nothing_of_the_session() -> None:
    stage = Stage(on_fast_path=True)
    stage.read(whole(2, b"first"), 100.5)
    before = len(stage.effects)

    stage.read(whole(2, b"data") * 3, 101.0)

    assert stage.sink.seen[-1] == (1, [b"data"] * 3, 101.0)
    assert len(stage.effects) == before
    assert stage.lifecycle.status.last_data_at == 101.0


def test_data_that_brings_the_proof_of_health_nearer_moves_the_next_wake_up() -> None:
    stage = Stage(on_fast_path=True)
    before = stage.lifecycle.next_wake()

    stage.read(whole(2, b"data"), 100.5)
    stage.handle(on.Tick(), before)

    assert stage.lifecycle.next_wake() <= 100.5 + 10.0


class ClockThatSlept:
    """Its wall clock runs while the machine sleeps, its monotonic one does not."""

    slept = 0.0

    def monotonic(self) -> float:
        return 100.0

    def wall(self) -> datetime:
        return datetime(2026, 11, 22, tzinfo=UTC) + timedelta(seconds=self.slept)


def test_what_lay_unread_when_the_machine_slept_is_not_taken_for_the_new_lines() -> None:
    sink, clock, dialled = Sink(), ClockThatSlept(), []
    mine, peer = _connection()
    new, new_peer = _connection()

    def dial(deadline: Deadline, *, stop: Waitable) -> WebSocketConnection:
        dialled.append(deadline)
        return new

    def nothing(*_: Any, **__: Any) -> Any:
        return None

    lifecycle = Stage(on_fast_path=True).lifecycle
    others = Collaborators(
        clock=clock, dial=dial, sink=sink, emit=nothing, turn_to_connect=lambda *_: nullcontext(), refused=nothing,
        probe=nothing, run_job=nothing, silent_topics=None, malformed=lambda _: 0, connect_seconds=1.0,
        gathering=Gathering(0.0),
    )  # fmt: skip
    wanted = frozenset(map(SubscriptionRequest, TOPICS))
    session = Session(lifecycle, others, requests=lambda _: wanted, retire=nothing)
    session._socket.take(mine)
    peer.sendall(whole(2, b"data"))
    session._turn()
    assert [frames for _, frames, _ in sink.seen] == [[b"data"]]
    peer.sendall(whole(2, b"data"))
    clock.slept = 3600.0
    session._turn()
    assert len(dialled) == 1, "the line of before the sleep was kept"
    assert len(sink.seen) == 1, "what was read of the old line was taken for the new one's"
    new_peer.sendall(whole(2, b"data"))
    session._turn()
    assert [epoch for epoch, _, _ in sink.seen] == [1, 2]
    session._socket.release()
    peer.close()
    new_peer.close()


def _connection() -> tuple[WebSocketConnection, socket.socket]:
    """One that is open, and its peer."""
    mine, peer = socket.socketpair()
    mine.setblocking(False)
    return WebSocketConnection(mine, "a test", {}), peer
