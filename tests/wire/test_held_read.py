"""Reading without giving up the GIL: the same bytes and the same errors as the socket's own way."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.waiting import PATIENCE_SECONDS, wait_until
from upbit_backbone.errors import NetworkError
from upbit_backbone.wire import websocket_transport
from upbit_backbone.wire.websocket_transport import RECV_BYTES, WebSocketConnection

Line = tuple[WebSocketConnection, socket.socket]


@pytest.fixture(params=["held", "the socket's own"])
def line(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    if request.param != "held":
        monkeypatch.setattr(websocket_transport, "held_read", lambda sock, room: None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        mine = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    mine.setblocking(False)
    connection = WebSocketConnection(mine, "a test", {})
    with peer:
        yield connection, peer
    connection.close()


def arrived(connection: WebSocketConnection, size: int) -> bytes:
    got = bytearray()

    def is_whole() -> bool:
        got.extend(connection.recv() or b"")
        return len(got) >= size

    wait_until(is_whole)
    return bytes(got)


def test_what_is_there_comes_and_nothing_is_waited_for(line: Line) -> None:
    connection, peer = line
    assert connection.recv() is None
    sent = bytes(range(256)) * (RECV_BYTES // 128)  # two reads and more
    peer.settimeout(PATIENCE_SECONDS)
    got = b""
    for at in range(0, len(sent), 65_536):
        peer.sendall(sent[at : at + 65_536])
        got += arrived(connection, len(sent[at : at + 65_536]))
    assert got == sent
    assert connection.recv() is None


def test_the_end_comes_after_the_last_bytes(line: Line) -> None:
    connection, peer = line
    peer.sendall(b"last")
    peer.close()
    assert arrived(connection, 4) == b"last"
    wait_until(lambda: connection.recv() == b"")


def test_a_line_that_was_reset_is_an_error(line: Line) -> None:
    connection, peer = line
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    with pytest.raises(NetworkError, match="reading from a test"):
        wait_until(lambda: connection.recv() is not None)


def test_a_closed_one_reads_nobody_elses_socket(line: Line) -> None:
    connection, _ = line
    connection.close()
    one, other = socket.socketpair()  # has, as a rule, the number that has just become free
    with one, other:
        other.sendall(b"not yours")
        with pytest.raises(NetworkError):
            connection.recv()
        assert one.recv(100) == b"not yours"


# Beside a thread that waits for the GIL, and takes it at the first chance: a switch is not asked for before a minute.
TWO_THREADS = """
import socket, sys, _thread, threading
from upbit_backbone.wire.held_read import held_read

mine, peer = socket.socketpair()
mine.setblocking(False)
read = held_read(mine, room := bytearray(100))
peer.send(b"hello")
ran, go = [], _thread.allocate_lock()
go.acquire()
sys.setswitchinterval(60)
threading.Thread(target=lambda: (go.acquire(), ran.append(True)), daemon=True).start()
go.release()
counts = {read() for _ in range(20_000)}
was_held = not ran
while not ran:
    try:
        mine.recv_into(room)
    except BlockingIOError:
        pass
print(was_held, sorted(counts), bytes(room[:5]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no recv that never waits")
@pytest.mark.skipif(not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="there is no GIL")
def test_the_gil_is_kept() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWO_THREADS], capture_output=True, text=True, timeout=2 * PATIENCE_SECONDS, check=False
    )
    assert done.stdout.split("\n")[0] == "True [-1, 5] b'hello'", done.stderr
