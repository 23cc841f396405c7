"""Where frames come faster than threads can wake for each, several are read together."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from tests.sessions.test_session import TOPICS, Sink, Stage, whole
from upbit_backbone import MarketDataBackbone
from upbit_backbone._concurrency import SYSTEM_CLOCK
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.models.request import SubscriptionRequest
from upbit_backbone.sessions.gathering import GATHER_ABOVE, GATHER_UNTIL, Gathering
from upbit_backbone.sessions.messages import ConnectionLost
from upbit_backbone.sessions.ports import Collaborators
from upbit_backbone.sessions.session import Session
from upbit_backbone.sessions.session_io import SessionSocket
from upbit_backbone.wire.websocket_transport import WebSocketConnection

PAUSE = 0.002
PATIENCE_SECONDS = 60.0


def paused(gathering: Gathering, *, reads: float, messages: int, seconds: float, start: float) -> list[float]:
    """What is waited after each of so many reads a second, each of which brings so many messages."""
    pauses = []
    for number in range(1, int(reads * seconds) + 1):
        gathering.has_read(messages, start + number / reads)
        pauses.append(gathering.pause)
    return pauses


def test_nobody_waits_below_so_many_reads_a_second() -> None:
    assert set(paused(Gathering(PAUSE), reads=GATHER_ABOVE * 0.9, messages=1, seconds=3.0, start=5.0)) == {0.0}


def test_above_each_waits_and_does_so_for_as_long_as_as_many_frames_come() -> None:
    gathering = Gathering(PAUSE)
    assert paused(gathering, reads=GATHER_ABOVE * 1.5, messages=1, seconds=0.5, start=5.0)[-1] == PAUSE
    assert set(paused(gathering, reads=GATHER_ABOVE / 4, messages=6, seconds=3.0, start=5.5)) == {PAUSE}
    assert paused(gathering, reads=GATHER_ABOVE / 4, messages=3, seconds=0.5, start=8.5)[-1] == 0.0


def test_a_stream_at_the_bound_does_not_switch_to_and_fro() -> None:
    assert GATHER_UNTIL < 0.9 * GATHER_ABOVE, "counts of a tenth of a second differ by a tenth"
    below = GATHER_ABOVE * 0.93
    gathering = Gathering(PAUSE)
    assert set(paused(gathering, reads=below, messages=1, seconds=3.0, start=5.0)) == {0.0}
    paused(gathering, reads=GATHER_ABOVE * 1.1, messages=1, seconds=0.5, start=8.0)
    assert set(paused(gathering, reads=below / 4, messages=4, seconds=3.0, start=8.5)) == {PAUSE}


def test_a_thousand_messages_a_second_come_at_once_again_after_a_burst() -> None:
    gathering = Gathering(PAUSE)
    assert paused(gathering, reads=GATHER_ABOVE * 2, messages=1, seconds=0.5, start=5.0)[-1] == PAUSE
    assert set(paused(gathering, reads=1000.0 / 3, messages=3, seconds=3.0, start=5.5)[100:]) == {0.0}


def test_who_is_kept_from_reading_does_not_wait_besides() -> None:
    """As by a thread that computes: the GIL comes back a hundred times a second, and each pause gives it up."""
    gathering = Gathering(PAUSE)
    assert paused(gathering, reads=GATHER_ABOVE * 2, messages=1, seconds=0.5, start=5.0)[-1] == PAUSE
    assert set(paused(gathering, reads=100.0, messages=100, seconds=3.0, start=5.5)[20:]) == {0.0}


def test_frames_that_come_together_already_are_not_waited_for() -> None:
    assert set(paused(Gathering(PAUSE), reads=GATHER_ABOVE / 4, messages=40, seconds=3.0, start=5.0)) == {0.0}


def test_a_burst_after_a_silence_is_judged_by_itself() -> None:
    gathering = Gathering(PAUSE)
    paused(gathering, reads=GATHER_ABOVE * 2, messages=1, seconds=1.0, start=5.0)
    gathering.has_read(1, 1_000.0)
    assert gathering.pause == 0.0
    assert paused(gathering, reads=GATHER_ABOVE * 2, messages=1, seconds=0.5, start=1_000.0)[-1] == PAUSE


def test_with_zero_each_frame_is_read_when_it_comes() -> None:
    assert set(paused(Gathering(0.0), reads=GATHER_ABOVE * 3, messages=1, seconds=1.0, start=5.0)) == {0.0}


@pytest.mark.parametrize("seconds", [0.11, 60, -0.001, float("nan")])
def test_a_pause_that_would_keep_pings_waiting_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidRequestError, match="gather_seconds"):
        MarketDataBackbone(gather_seconds=seconds)


def test_the_longest_pause_is_told_in_korean_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPBIT_BACKBONE_LANGUAGE", "ko")
    with pytest.raises(InvalidRequestError) as caught:
        MarketDataBackbone(gather_seconds=3)
    assert str(caught.value) == "gather_seconds=3: 필요한 값: 0.1초 이하"


@pytest.fixture
def bench() -> Iterator[tuple[Session, socket.socket, Sink, Gathering]]:
    """A session with a line of its own, its peer, who takes the frames, and whether it lets them gather."""

    def nothing(*_: Any, **__: Any) -> Any:
        return None

    mine, peer = socket.socketpair()
    mine.setblocking(False)
    sink, gathering = Sink(), Gathering(PAUSE)
    others = Collaborators(
        clock=SYSTEM_CLOCK, dial=nothing, sink=sink, emit=nothing, turn_to_connect=lambda *_: nullcontext(),
        refused=nothing, probe=nothing, run_job=nothing, silent_topics=None, malformed=lambda _: 0, connect_seconds=1.0,
        gathering=gathering,
    )  # fmt: skip
    wanted = frozenset(map(SubscriptionRequest, TOPICS))
    session = Session(Stage(on_fast_path=True).lifecycle, others, requests=lambda _: wanted, retire=nothing)
    session._socket.take(WebSocketConnection(mine, "a test", {}))
    yield session, peer, sink, gathering
    session._socket.release()
    peer.close()


def test_what_comes_in_the_pause_is_read_with_what_lay_there(
    bench: tuple[Session, socket.socket, Sink, Gathering], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, peer, sink, gathering = bench
    peer.sendall(whole(2, b"first"))
    session._turn()
    peer.sendall(whole(2, b"up"))
    waits: list[float] = []

    class Pause:
        """Instead of a pause: what comes in it."""

        def poll(self, milliseconds: float) -> list[tuple[int, int]]:
            waits.append(milliseconds)
            peer.sendall(whole(2, b"data"))
            return []

    class NoPoll:
        def poll(self, milliseconds: float) -> list[tuple[int, int]]:
            pytest.fail("it gave up the GIL twice for one read")

    monkeypatch.setattr(session._socket, "_pause", Pause())
    monkeypatch.setattr(session._socket, "_poll", NoPoll())
    gathering.pause = PAUSE
    session._turn()
    assert waits == [PAUSE * 1000.0]
    assert [frames for _, frames, _ in sink.seen] == [[b"first"], [b"up", b"data"]]


def test_who_has_read_nothing_waits_for_nothing(
    bench: tuple[Session, socket.socket, Sink, Gathering], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, peer, sink, gathering = bench
    gathering.pause = PAUSE
    monkeypatch.setattr(session._socket, "gather", lambda seconds: pytest.fail("it waited before its first read"))
    peer.sendall(whole(2, b"first"))
    session._turn()
    assert [frames for _, frames, _ in sink.seen] == [[b"first"]]


def test_where_nothing_came_in_the_pause_the_next_is_waited_for(
    bench: tuple[Session, socket.socket, Sink, Gathering],
) -> None:
    session, peer, sink, gathering = bench
    peer.sendall(whole(2, b"first"))
    session._turn()
    gathering.pause = PAUSE
    assert session._socket.gather(PAUSE) is None
    peer.sendall(whole(2, b"data"))
    session._turn()
    assert [frames for _, frames, _ in sink.seen] == [[b"first"], [b"data"]]


def test_a_line_that_ends_in_the_pause_is_lost(bench: tuple[Session, socket.socket, Sink, Gathering]) -> None:
    session, peer, *_ = bench
    peer.close()
    assert isinstance(session._socket.gather(PAUSE), ConnectionLost)


def test_a_wake_up_ends_the_pause_and_is_not_forgotten_by_it() -> None:
    session_socket = SessionSocket()
    session_socket.wake()
    began = time.monotonic()
    assert session_socket.gather(PATIENCE_SECONDS) is None
    assert session_socket.read(PATIENCE_SECONDS) is None
    assert time.monotonic() - began < PATIENCE_SECONDS / 2
    session_socket.release()
