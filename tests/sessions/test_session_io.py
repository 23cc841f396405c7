"""The session's own socket: woken by anyone, read by one, closed once; and honest when the system has none left."""

from __future__ import annotations

import select
import socket
import threading
import time

import pytest

from tests.support.waiting import promised
from upbit_backbone.errors import NetworkError
from upbit_backbone.sessions.session_io import SelectorPoll, SessionSocket, WakeupSocket
from upbit_backbone.wire.websocket_transport import WebSocketConnection


@pytest.fixture(params=["poll", "selectors"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One that has poll(2), and one that has not."""
    if request.param == "selectors":
        monkeypatch.delattr(select, "poll", raising=False)
    elif not hasattr(select, "poll"):
        pytest.skip("this system has no poll")
    return str(request.param)


def test_bytes_end_the_wait_until_the_connection_is_dropped(system: str) -> None:
    line = SessionSocket()
    assert isinstance(line._poll, SelectorPoll) is (system == "selectors")
    peer, mine = socket.socketpair()
    mine.setblocking(False)
    line.take(WebSocketConnection(mine, "a test", {}))
    peer.sendall(b"something")
    started = time.monotonic()
    assert line.read(30.0) == b"something"
    assert line.read(0.0) is None
    line.drop(None)
    line.wake()
    assert line.read(30.0) is None
    assert time.monotonic() - started < promised(5.0)
    line.release()
    peer.close()


def test_a_wake_up_ends_the_wait_and_counts_once(system: str) -> None:
    line = SessionSocket()
    for _ in range(100_000):
        line.wake()  # more than the buffer holds, and none of them blocks
    started = time.monotonic()
    assert line.read(30.0) is None
    assert time.monotonic() - started < promised(5.0)
    line.release()


def test_a_wake_up_from_another_thread_ends_a_wait_under_way(system: str) -> None:
    line = SessionSocket()
    threading.Timer(0.1, line.wake).start()
    started = time.monotonic()
    assert line.read(30.0) is None
    assert time.monotonic() - started < promised(5.0)
    line.release()


def test_waking_and_cutting_after_the_end_is_harmless() -> None:
    line = SessionSocket()
    line.release()
    line.wake()
    line.abort()


def test_without_a_connection_there_is_nothing_to_read_send_or_drop() -> None:
    line = SessionSocket()
    assert line.read(0.0) is None
    assert line.send(lambda connection: connection.send_ping()) is None
    line.drop(1000)
    line.abort()
    assert not line.has_unread
    line.release()


def test_a_system_without_sockets_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socketpair", none_left)
    with pytest.raises(NetworkError, match="Too many open files"):
        SessionSocket()


def test_the_reprs_are_one_line() -> None:
    waker, line = WakeupSocket(), SessionSocket()
    assert repr(waker) == "<WakeupSocket open>"
    assert repr(line) == "<SessionSocket None>"
    waker.close()
    line.release()
    assert repr(waker) == "<WakeupSocket closed>"
