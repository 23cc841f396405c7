"""The transport against real sockets: scripted servers on loopback that misbehave in every way we know of."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import os
import re
import selectors
import socket
import ssl
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from tests.support.waiting import promised
from upbit_backbone._concurrency import Deadline
from upbit_backbone.errors import (
    AuthenticationError,
    BannedError,
    ClosedError,
    InvalidRequestError,
    MaintenanceError,
    MessageTooBigError,
    NetworkError,
    ProtocolError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    TlsError,
    UpbitBackboneError,
)
from upbit_backbone.wire.frames import FrameReader, Ping
from upbit_backbone.wire.http_head import HandshakeRefusedError
from upbit_backbone.wire.websocket_transport import BINARY, SEND_SECONDS, WebSocketConnection, WebSocketTransport

WAIT_SECONDS = 30.0  # for what must happen; never waited out in a passing test
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


# --- the other side ---


class Peer:
    """One accepted connection, as seen by a script."""

    def __init__(self, sock: socket.socket, server: Server) -> None:
        self.sock = sock
        self.over = server.over
        self._requests = server.requests

    def read_request(self) -> bytes:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            byte = self.sock.recv(1)
            if not byte:
                break
            request += byte
        self._requests.append(request)
        return request

    def accept(self, *headers: str, early: bytes = b"", key: bytes | None = None) -> None:
        """Read the request and answer 101, with these further headers and with `early` in the same segment."""
        request = self.read_request()
        found = re.search(rb"Sec-WebSocket-Key: (\S+)", request)
        assert found is not None
        proof = base64.b64encode(hashlib.sha1((key or found[1]) + GUID).digest()).decode()  # noqa: S324
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {proof}",
            *headers,
        ]
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode() + early)

    def answer(self, status: str, body: bytes = b"", *headers: str) -> None:
        self.read_request()
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
        self.sock.sendall("\r\n".join(lines).encode() + body)

    def read_frame(self) -> tuple[int, bytes]:
        """One of our frames, unmasked; they must be masked."""
        first, second = self._exactly(2)
        assert second & 0x80, "a client's frame must be masked"
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", self._exactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._exactly(8))
        key, payload = self._exactly(4), self._exactly(length)
        return first & 0x0F, bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))

    def drip(self, data: bytes, every: float = 0.02) -> None:
        for at in range(len(data)):
            if self.over.wait(every):
                return
            self.sock.sendall(data[at : at + 1])

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def stay(self) -> None:
        self.over.wait(WAIT_SECONDS)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            chunk = self.sock.recv(count - len(data))
            if not chunk:
                raise ConnectionError("the client hung up")
            data += chunk
        return data


Script = Callable[[Peer], None]


class Server:
    """Listens on loopback and plays `script` to each connection, in threads that end with the `with` block."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None, receive_buffer: int | None = None) -> None:
        self.requests: list[bytes] = []
        self.over = threading.Event()
        self.connections = 0
        self._script = script
        self._tls = tls
        self._failures: list[AssertionError] = []
        self._threads: list[threading.Thread] = []
        self._socks: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        if receive_buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'ws' if tls is None else 'wss'}://127.0.0.1:{self.port}/websocket/v1"

    def __enter__(self) -> Server:
        self._listener.settimeout(0.02)
        self._begin(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._threads[0].join(WAIT_SECONDS)
        for sock in self._socks:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(WAIT_SECONDS)
        self._listener.close()
        if self._failures:
            raise self._failures[0]

    def _begin(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name="scripted-server", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.over.is_set():
            with contextlib.suppress(TimeoutError):
                sock, _ = self._listener.accept()
                self.connections += 1
                self._socks.append(sock)
                self._begin(lambda sock=sock: self._play(sock))  # type: ignore[misc]

    def _play(self, sock: socket.socket) -> None:
        sock.settimeout(WAIT_SECONDS)
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
                self._socks.append(sock)
            self._script(Peer(sock, self))
        except OSError:
            pass  # the client hung up, which is what most scripts are about
        except AssertionError as failure:
            self._failures.append(failure)
        finally:
            sock.close()


def accept_and_stay(peer: Peer) -> None:
    peer.accept()
    peer.stay()


def accept_and_reset(peer: Peer) -> None:
    """Reset once a frame proves that the answer was read: a reset takes unread bytes with it."""
    peer.accept()
    peer.read_frame()
    peer.reset()


def say_nothing(peer: Peer) -> None:
    peer.stay()


# --- our side ---


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Every test here also proves that no thread and no socket of ours survives it."""
    threads, files = set(threading.enumerate()), descriptors()
    yield
    for thread in set(threading.enumerate()) - threads:
        thread.join(WAIT_SECONDS)  # a resolver may be on its last line
    assert set(threading.enumerate()) <= threads
    assert descriptors() <= files


@contextlib.contextmanager
def ends_within(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < promised(seconds)


@contextlib.contextmanager
def decoded(server: Server, **options: str | None) -> Iterator[WebSocketConnection]:
    connection = WebSocketTransport(server.url, **options).open()  # type: ignore[arg-type]
    try:
        yield connection
    finally:
        connection.close()


def failure(server: Server, seconds: float = WAIT_SECONDS, **options: str | None) -> UpbitBackboneError:
    """The error that opening a connection ends in."""
    with pytest.raises(UpbitBackboneError) as caught:
        WebSocketTransport(server.url, **options).open(Deadline.after(seconds))  # type: ignore[arg-type]
    return caught.value


def encrypted_url(server: Server) -> str:
    return server.url.replace("ws://", "wss://")


def read(connection: WebSocketConnection, count: int | None = None) -> bytes:
    """`count` bytes, or all until the end of the stream, as an I/O thread would read them."""
    data = b""
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        while count is None or len(data) < count:
            if not connection.pending():
                assert selector.select(WAIT_SECONDS), "nothing came"
            chunk = connection.recv()
            if chunk == b"":
                break
            data += chunk or b""
    return data


# --- a good connection ---


def test_the_request_carries_no_origin_and_offers_no_extension() -> None:
    with Server(accept_and_stay) as server, decoded(server):
        pass
    [request] = server.requests
    lines = request.decode().split("\r\n")
    names = {line.partition(":")[0].lower() for line in lines[1:] if line}
    assert lines[0] == "GET /websocket/v1 HTTP/1.1"
    assert f"Host: 127.0.0.1:{server.port}" in lines
    assert names == {
        "upgrade",
        "host",
        "sec-websocket-key",
        "sec-websocket-version",
        "connection",
        "user-agent",
    }


def test_frames_travel_both_ways() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        seen.extend(peer.read_frame() for _ in range(4))
        peer.sock.sendall(b"\x82\x05hello\x89\x01?")
        peer.stay()

    seen: list[tuple[int, bytes]] = []
    with Server(script) as server, decoded(server) as connection:
        connection.send_text("코인")
        connection.send(BINARY, b"x" * 70_000)
        connection.send_ping(b"p")
        connection.send_pong()
        assert FrameReader().feed(read(connection, 10)) == [b"hello", Ping(b"?")]
    assert seen == [(1, "코인".encode()), (2, b"x" * 70_000), (9, b"p"), (10, b"")]


def test_reading_never_waits() -> None:
    with Server(accept_and_stay) as server, decoded(server) as connection, ends_within(0):
        assert connection.recv() is None


def test_frames_that_came_with_the_answer_are_pending_and_not_lost() -> None:
    def script(peer: Peer) -> None:
        peer.accept(early=b"\x82\x02hi")
        peer.stay()

    with Server(script) as server, decoded(server) as connection:
        assert connection.pending() == 4
        assert connection.recv(3) == b"\x82\x02h"
        assert connection.recv() == b"i"
        assert connection.pending() == 0
        assert connection.recv() is None


def test_the_headers_of_the_answer_can_be_read() -> None:
    def script(peer: Peer) -> None:
        peer.accept("Remaining-Req: group=websocket-connect; min=1; sec=4")
        peer.stay()

    with Server(script) as server, decoded(server) as connection:
        assert connection.response_headers["remaining-req"] == "group=websocket-connect; min=1; sec=4"


def test_cookies_are_neither_kept_nor_sent() -> None:
    def script(peer: Peer) -> None:
        peer.accept("Set-Cookie: track=1; Domain=127.0.0.1")
        peer.stay()

    with Server(script) as server:
        for _ in range(2):
            with decoded(server):
                pass
    assert b"ookie" not in b"".join(server.requests)


def test_an_answer_dripped_in_time_is_an_answer() -> None:
    def script(peer: Peer) -> None:
        request, fast = peer.read_request(), socket.socket.sendall
        key = re.search(rb"Sec-WebSocket-Key: (\S+)", request)
        assert key is not None
        proof = base64.b64encode(hashlib.sha1(key[1] + GUID).digest())  # noqa: S324
        head = b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        for at in range(len(head)):
            fast(peer.sock, head[at : at + 1])
        fast(peer.sock, proof + b"\r\n\r\n")
        peer.stay()

    with Server(script) as server, decoded(server) as connection:
        assert connection.recv() is None


FRAME = b"\x82\x02hi"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_interim_answers_before_the_upgrade_are_read_past(step: int) -> None:
    def script(peer: Peer) -> None:
        for at in range(0, len(INTERIM), step):
            peer.sock.sendall(INTERIM[at : at + step])
        peer.accept(early=FRAME)
        peer.stay()

    with Server(script) as server, decoded(server) as connection:
        assert read(connection, len(FRAME)) == FRAME


def test_a_refusal_after_an_interim_answer_is_the_refusal() -> None:
    def script(peer: Peer) -> None:
        peer.sock.sendall(INTERIM)
        peer.answer("429 Too Many Requests", b"", "Retry-After: 3")

    with Server(script) as server:
        error = failure(server)
    assert isinstance(error, RateLimitError)
    assert error.retry_after == 3


@pytest.mark.parametrize("others", [("Connection: keep-alive",), ("connection: keep-alive, x", "Upgrade: websocket")])
def test_headers_that_come_in_several_lines_count_as_one_list(others: tuple[str, ...]) -> None:
    def script(peer: Peer) -> None:
        peer.accept(*others, "Remaining-Req: group=websocket", early=FRAME)
        peer.stay()

    with Server(script) as server, decoded(server) as connection:
        assert read(connection, len(FRAME)) == FRAME
        assert connection.response_headers["connection"].startswith("Upgrade, keep-alive")


def test_a_proof_that_comes_twice_proves_nothing() -> None:
    def script(peer: Peer) -> None:
        peer.accept("Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=")

    with Server(script) as server:
        assert isinstance(failure(server), ProtocolError)


# --- handshakes that never end ---


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(say_nothing, id="silence"),
        pytest.param(lambda peer: peer.drip(b"HTTP/1.1 101 Switching Protocols\r\n" + b"X: y\r\n" * 99), id="drip"),
        pytest.param(lambda peer: (peer.sock.sendall(b"HTTP/1.1 101 S\r\nX: "), peer.stay()), id="half a head"),
    ],
)
def test_an_unfinished_handshake_ends_by_the_deadline(script: Script) -> None:
    with Server(script) as server, ends_within(0.4):
        error = failure(server, 0.4)
    assert isinstance(error, RequestTimeoutError)
    assert str(error) == "connecting to 127.0.0.1: not finished by its deadline"


def test_without_a_deadline_the_transport_has_its_own() -> None:
    with Server(say_nothing) as server, ends_within(0.2), pytest.raises(RequestTimeoutError):
        WebSocketTransport(server.url, connect_seconds=0.2).open()


def test_tls_that_is_never_answered_ends_by_the_deadline(ca_file: str) -> None:
    with Server(say_nothing) as server, ends_within(0.4), pytest.raises(RequestTimeoutError):
        WebSocketTransport(encrypted_url(server), ca_file=ca_file).open(Deadline.after(0.4))


def test_tls_dripped_byte_by_byte_ends_by_the_deadline(ca_file: str) -> None:
    hello = b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03" + bytes(16_000)
    with Server(lambda peer: peer.drip(hello)) as server, ends_within(0.4), pytest.raises(RequestTimeoutError):
        WebSocketTransport(encrypted_url(server), ca_file=ca_file).open(Deadline.after(0.4))


def test_closing_the_owner_ends_a_handshake_at_once() -> None:
    stop = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_request()
        stop.set()
        peer.stay()

    with Server(script) as server, ends_within(0.3), pytest.raises(ClosedError):
        WebSocketTransport(server.url).open(stop=stop)


def test_a_listener_that_never_accepts_ends_by_the_deadline() -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):  # fill its queue, after which the system drops every further SYN
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        transport = WebSocketTransport(f"ws://127.0.0.1:{listener.getsockname()[1]}")
        with ends_within(0.4), pytest.raises(RequestTimeoutError, match=r"127\.0\.0\.1: no answer"):
            transport.open(Deadline.after(0.4))


# --- handshakes that end badly ---


def test_a_flood_of_headers_is_cut_off() -> None:
    def script(peer: Peer) -> None:
        peer.sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\n")
        while True:
            peer.sock.sendall(b"X-Flood: " + b"y" * 8_000 + b"\r\n")

    with Server(script) as server, ends_within(0.5):
        assert isinstance(failure(server), MessageTooBigError)


def test_an_endless_error_body_is_cut_off() -> None:
    sent = 0

    def script(peer: Peer) -> None:
        nonlocal sent
        peer.read_request()
        peer.sock.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 10000000000\r\n\r\n")
        while True:
            sent += peer.sock.send(b"<html>" * 10_000)

    with Server(script) as server, ends_within(0.5):
        error = failure(server)
    assert isinstance(error, MaintenanceError)
    assert len(str(error)) < 400
    assert sent < 16_000_000  # what the system's buffers took; 10 GB were announced


def test_a_status_is_not_hidden_by_a_body_that_never_comes() -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.sock.sendall(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 100\r\nRetry-After: 3\r\n\r\nslow")
        peer.stay()

    with Server(script) as server, ends_within(0.5):
        error = failure(server)
    assert isinstance(error, RateLimitError)
    assert error.retry_after == 3


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        ("401 Unauthorized", b"", AuthenticationError),
        ("403 Forbidden", b"", AuthenticationError),
        ("404 Not Found", b"", HandshakeRefusedError),
        ("418 I'm a teapot", b"blocked for 60 seconds", BannedError),
        ("429 Too Many Requests", b"", RateLimitError),
        ("502 Bad Gateway", b"<html>", ServerError),
        ("503 Service Unavailable", b"<html>down</html>", MaintenanceError),
        ("200 OK", b"", HandshakeRefusedError),
    ],
)
def test_a_refusal_becomes_the_error_that_names_it(status: str, body: bytes, kind: type[Exception]) -> None:
    with Server(lambda peer: peer.answer(status, body)) as server:
        error = failure(server)
    assert type(error) is kind
    assert status in str(error)


def test_a_ban_carries_its_end() -> None:
    with Server(lambda peer: peer.answer("418 I'm a teapot", b"", "Retry-After: 60")) as server:
        error = failure(server)
    assert isinstance(error, BannedError)
    assert error.until is not None
    left = error.until - dt.datetime.now(dt.UTC)
    assert dt.timedelta(seconds=50) < left <= dt.timedelta(seconds=60)


def test_a_redirect_is_refused_and_not_followed() -> None:
    with Server(accept_and_stay) as elsewhere:
        location = f"Location: {elsewhere.url}"
        with Server(lambda peer: peer.answer("302 Found", b"", location)) as server:
            assert isinstance(failure(server), HandshakeRefusedError)
        assert server.connections == 1
    assert elsewhere.connections == 0


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(lambda peer: peer.accept(key=b"another"), id="wrong accept"),
        pytest.param(lambda peer: peer.accept("Sec-WebSocket-Extensions: permessage-deflate"), id="deflate"),
        pytest.param(lambda peer: peer.accept("Sec-WebSocket-Protocol: chat"), id="subprotocol"),
        pytest.param(lambda peer: peer.answer("101 Switching Protocols"), id="no upgrade"),
        pytest.param(lambda peer: peer.sock.sendall(b"SSH-2.0-OpenSSH_9.6\r\n"), id="not http"),
        pytest.param(lambda peer: peer.sock.sendall(b"HTTP/1.1 abc\r\n\r\n"), id="no status"),
        pytest.param(lambda peer: peer.sock.sendall(b"HTTP/1.1 101 x\r\ngarbage\r\n\r\n"), id="no header"),
        pytest.param(lambda peer: peer.sock.sendall(b"HTTP/1.1 101 x\r\nX: \xff\xfe\r\n\r\n"), id="not UTF-8"),
    ],
)
def test_an_answer_that_breaks_the_protocol_is_refused(script: Script) -> None:
    def play(peer: Peer) -> None:
        script(peer)
        peer.stay()

    with Server(play) as server, ends_within(0.5):
        assert isinstance(failure(server), ProtocolError)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(lambda peer: peer.sock.close(), id="closed at once"),
        pytest.param(lambda peer: peer.reset(), id="reset at once"),
        pytest.param(lambda peer: (peer.read_request(), peer.reset()), id="reset after the request"),
        pytest.param(lambda peer: (peer.read_request(), peer.sock.sendall(b"HTTP/1.1 101")), id="half an answer"),
    ],
)
def test_a_connection_that_breaks_during_the_handshake_is_a_network_error(script: Script) -> None:
    with Server(script) as server, ends_within(0.5):
        assert type(failure(server)) is NetworkError


def test_server_text_in_an_error_is_one_harmless_line() -> None:
    with Server(lambda peer: peer.answer("404 \x1b[31mgone", b"a\r\nb\x00\x1b[2J" + b"z" * 4_000)) as server:
        text = str(failure(server))
    assert text.isprintable()
    assert len(text) < 500


# --- names and addresses ---


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def getaddrinfo(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_a_refused_connection_says_what_was_tried() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with ends_within(0.2), pytest.raises(NetworkError, match=rf"127\.0\.0\.1:{port} \(127\.0\.0\.1: .*refused"):
        WebSocketTransport(f"ws://127.0.0.1:{port}").open()


def test_the_next_address_is_tried_when_one_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "127.0.0.2", "127.0.0.1")
    with Server(accept_and_stay) as server, decoded(server) as connection:
        assert connection.recv() is None


def test_the_next_address_is_tried_when_one_swallows_every_packet(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "127.0.0.2", "127.0.0.1")
    with Server(accept_and_stay) as server, contextlib.ExitStack() as stack:
        deaf = stack.enter_context(socket.socket())
        deaf.bind(("127.0.0.2", server.port))
        deaf.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        with ends_within(0.8):
            WebSocketTransport(server.url).open(Deadline.after(0.8)).close()


def test_a_name_without_addresses_is_a_network_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(NetworkError, match=r"cannot resolve api\.example: .*not known"):
        WebSocketTransport("wss://api.example/").open()


def test_a_hanging_resolver_costs_one_thread_and_nobody_more_than_their_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = threading.Event()

    def getaddrinfo(*_: object, **__: object) -> list[object]:
        answered.wait(WAIT_SECONDS)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    transport = WebSocketTransport("wss://hanging.example/")
    try:
        for _ in range(3):
            with ends_within(0.1), pytest.raises(RequestTimeoutError):
                transport.open(Deadline.after(0.1))
        stuck = [thread.name for thread in threading.enumerate() if "resolve" in thread.name]
        assert stuck == ["upbit-resolve-hanging.example"]
    finally:
        answered.set()


# --- TLS ---


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def test_over_tls_everything_arrives_and_what_is_pending_is_told(authority: trustme.CA, ca_file: str) -> None:
    blob = os.urandom(500_000)

    def script(peer: Peer) -> None:
        peer.accept(early=b"!")
        peer.sock.sendall(blob)
        echoed.append(peer.read_frame())
        peer.stay()

    echoed: list[tuple[int, bytes]] = []
    context = server_context(authority.issue_cert("127.0.0.1"))
    with Server(script, context) as server, decoded(server, ca_file=ca_file) as connection:
        assert read(connection, len(blob) + 1) == b"!" + blob
        assert connection.recv() is None
        connection.send_text("done")
        assert connection.send_close()
    assert echoed == [(1, b"done")]


def test_a_few_reads_take_many_tls_records_and_the_end_comes_after_them(authority: trustme.CA, ca_file: str) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.read_frame()
        for number in range(100):
            peer.sock.sendall(bytes([number]) * 10)
        sent.set()

    sent = threading.Event()
    context = server_context(authority.issue_cert("127.0.0.1"))
    with Server(script, context) as server, decoded(server, ca_file=ca_file) as connection:
        connection.send_ping()
        assert sent.wait(WAIT_SECONDS)
        chunks = []
        while not chunks or chunks[-1] != b"":
            select_readable(connection)
            chunk = connection.recv()
            chunks += [] if chunk is None else [chunk]
    assert b"".join(chunks) == b"".join(bytes([number]) * 10 for number in range(100))
    assert len(chunks) < 10


@pytest.mark.skipif(sys.platform == "win32", reason="nobody can look there without asking TLS")
def test_of_a_lone_record_tls_is_asked_once(
    authority: trustme.CA, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.read_frame()
        peer.sock.sendall(b"lone")
        peer.stay()

    context = server_context(authority.issue_cert("127.0.0.1"))
    with Server(script, context) as server, decoded(server, ca_file=ca_file) as connection:
        asked: list[str] = []
        sock = connection._tls
        assert sock is not None
        take, pending = sock.recv_into, sock.pending
        monkeypatch.setattr(sock, "recv_into", lambda room: asked.append("more") or take(room))
        monkeypatch.setattr(sock, "pending", lambda: asked.append("left") or pending())
        connection.send_ping()
        data, reads = None, 0
        while not data:
            select_readable(connection)
            data, reads = connection.recv(), reads + 1
        assert (data, connection.pending()) == (b"lone", 0)
        assert asked == ["more"] * reads  # each time gives up the GIL


def test_session_tickets_are_no_data(authority: trustme.CA, ca_file: str) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.read_frame()
        peer.sock.sendall(b"data")
        peer.stay()

    context = server_context(authority.issue_cert("127.0.0.1"))
    context.num_tickets = 30
    with Server(script, context) as server, decoded(server, ca_file=ca_file) as connection:
        assert connection.recv() is None
        connection.send_ping()
        assert read(connection, 4) == b"data"


def test_what_the_tls_layer_holds_back_counts_as_pending(authority: trustme.CA, ca_file: str) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.sock.sendall(b"x" * 1_000)
        peer.stay()

    context = server_context(authority.issue_cert("127.0.0.1"))
    with Server(script, context) as server, decoded(server, ca_file=ca_file) as connection:
        first = b""
        while not first:
            select_readable(connection)
            first = connection.recv(10) or b""
        assert connection.pending() == 990


def select_readable(connection: WebSocketConnection) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        assert selector.select(WAIT_SECONDS)


def test_a_certificate_of_an_unknown_authority_is_refused(authority: trustme.CA) -> None:
    with Server(accept_and_stay, server_context(authority.issue_cert("127.0.0.1"))) as server:
        error = failure(server)
    assert isinstance(error, TlsError)
    assert re.search(r"127\.0\.0\.1: certificate not accepted: .*issuer", str(error))
    assert server.requests == []


def test_a_certificate_of_another_host_is_refused(authority: trustme.CA, ca_file: str) -> None:
    with Server(accept_and_stay, server_context(authority.issue_cert("other.example"))) as server:
        error = failure(server, ca_file=ca_file)
    assert isinstance(error, TlsError)
    assert "certificate is not valid for '127.0.0.1'" in str(error)
    assert server.requests == []


def test_an_expired_certificate_is_refused(authority: trustme.CA, ca_file: str) -> None:
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    expired = authority.issue_cert("127.0.0.1", not_before=yesterday - dt.timedelta(days=9), not_after=yesterday)
    with Server(accept_and_stay, server_context(expired)) as server:
        error = failure(server, ca_file=ca_file)
    assert isinstance(error, TlsError)
    assert "expired" in str(error)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_older_than_1_2_is_refused(authority: trustme.CA, ca_file: str) -> None:
    context = server_context(authority.issue_cert("127.0.0.1"))
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with Server(accept_and_stay, context) as server:
        assert isinstance(failure(server, ca_file=ca_file), TlsError)
    assert server.requests == []


def test_a_server_that_speaks_no_tls_is_a_tls_error(ca_file: str) -> None:
    def script(peer: Peer) -> None:
        peer.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        peer.stay()

    with Server(script) as server, pytest.raises(TlsError):
        WebSocketTransport(encrypted_url(server), ca_file=ca_file).open()


def test_a_server_that_hangs_up_during_tls_is_a_network_error_and_may_be_asked_again(ca_file: str) -> None:
    with Server(lambda peer: peer.sock.close()) as server, pytest.raises(NetworkError) as caught:
        WebSocketTransport(encrypted_url(server), ca_file=ca_file).open()
    assert type(caught.value) is NetworkError
    assert caught.value.retryable


def test_a_ca_file_that_is_none_is_refused_before_anything_is_dialled(tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("no certificate")
    for name in ("missing.pem", "text.pem"):
        with pytest.raises(InvalidRequestError, match=name):
            WebSocketTransport("wss://api.upbit.com/websocket/v1", ca_file=str(tmp_path / name))


def test_nothing_in_the_package_can_switch_verification_off() -> None:
    package = Path(__file__).parents[2] / "upbit_backbone"
    forbidden = re.compile(r"CERT_NONE|verify\s*=\s*False|check_hostname\s*=\s*False|_create_unverified")
    found = [str(path) for path in package.rglob("*.py") if forbidden.search(path.read_text(encoding="utf-8"))]
    assert found == []


# --- proxies ---

SECRET = "p%40ss-canary"  # noqa: S105  # must never show up in any text


def tunnel(peer: Peer) -> None:
    """A CONNECT proxy that leads to whatever was asked for; here always to loopback."""
    request = peer.read_request()
    found = re.match(rb"CONNECT 127\.0\.0\.1:(\d+) HTTP/1\.1\r\n", request)
    assert found is not None
    with socket.create_connection(("127.0.0.1", int(found[1]))) as target:
        peer.sock.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 Connection established\r\n\r\n")
        other = threading.Thread(target=pump, args=(target, peer.sock), name="proxy-pump", daemon=True)
        other.start()
        pump(peer.sock, target)
        other.join(WAIT_SECONDS)


def pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def proxy_url(proxy: Server) -> str:
    return f"http://user:{SECRET}@127.0.0.1:{proxy.port}"


def test_an_explicit_proxy_is_asked_to_connect_with_its_credentials(authority: trustme.CA, ca_file: str) -> None:
    context = server_context(authority.issue_cert("127.0.0.1"))
    with (
        Server(tunnel) as proxy,
        Server(accept_and_stay, context) as server,
        decoded(server, ca_file=ca_file, proxy=proxy_url(proxy)) as connection,
    ):
        assert connection.recv() is None
    expected = base64.b64encode(b"user:p@ss-canary")
    assert f"Host: 127.0.0.1:{server.port}\r\n".encode() in proxy.requests[0]
    assert b"Proxy-Authorization: Basic " + expected in proxy.requests[0]
    assert b"Proxy-Authorization" not in server.requests[0]


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        pytest.param(lambda peer: peer.answer("407 Proxy Authentication Required"), AuthenticationError, id="407"),
        pytest.param(lambda peer: peer.answer("502 Bad Gateway"), NetworkError, id="502"),
        pytest.param(lambda peer: peer.answer("200 OK", b"surprise"), ProtocolError, id="early data"),
        pytest.param(lambda peer: peer.sock.close(), NetworkError, id="closed"),
        pytest.param(say_nothing, RequestTimeoutError, id="silence"),
    ],
)
def test_a_proxy_that_refuses_or_hangs_is_an_error_without_its_password(script: Script, kind: type[Exception]) -> None:
    with Server(script) as proxy, ends_within(0.5):
        transport = WebSocketTransport("wss://api.upbit.com/websocket/v1", proxy=proxy_url(proxy))
        with pytest.raises(UpbitBackboneError) as caught:
            transport.open(Deadline.after(0.5))
    assert type(caught.value) is kind
    told = "".join(traceback.format_exception(caught.value)) + repr(transport)
    assert not {word for word in (SECRET, "p@ss-canary", "dXNlcjpw") if word in told}


@pytest.mark.parametrize(
    "url",
    [
        "https://user:s3cret@proxy:1",
        "socks4://user:s3cret@proxy:1",
        "http://user:s3cret@proxy",
        "http://user:s3cret/x@proxy:80",
        "http://user:s3cret@proxy:port",
        "http://user:s3cret@proxy:1/path",
        "",
    ],
)
def test_a_proxy_url_we_cannot_use_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        WebSocketTransport("wss://api.upbit.com/", proxy=url)
    told = "".join(traceback.format_exception(caught.value.with_traceback(None)))
    assert "s3cret" not in told


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Server(accept_and_stay) as server, decoded(server) as connection:
        assert connection.recv() is None


# --- when the connection breaks ---


def test_the_end_of_the_stream_is_told_as_no_bytes() -> None:
    def script(peer: Peer) -> None:
        peer.accept(early=b"last")

    with Server(script) as server, decoded(server) as connection:
        assert read(connection) == b"last"
        assert connection.recv() == b""


def test_a_reset_is_a_network_error() -> None:
    with Server(accept_and_reset) as server, decoded(server) as connection:
        connection.send_ping()
        select_readable(connection)
        with pytest.raises(NetworkError, match=r"reading from 127\.0\.0\.1: Connection reset"):
            connection.recv()


def fill(connection: WebSocketConnection) -> NetworkError:
    """Send until the peer, who does not read, makes it fail."""
    try:
        while True:
            connection.send(BINARY, b"x" * 4_000_000)
    except NetworkError as error:
        return error


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_peer_that_stops_reading_costs_two_seconds_and_the_connection(
    encrypted: bool, authority: trustme.CA, ca_file: str
) -> None:
    context = server_context(authority.issue_cert("127.0.0.1")) if encrypted else None
    with (
        Server(accept_and_stay, context, receive_buffer=4_096) as server,
        decoded(server, ca_file=ca_file if encrypted else None) as connection,
    ):
        with ends_within(SEND_SECONDS + 0.5):
            assert isinstance(fill(connection), RequestTimeoutError)
        with ends_within(0), pytest.raises(NetworkError, match="impossible after an earlier failure"):
            connection.send_text("the rest of which frame?")
        with ends_within(0):
            assert not connection.send_close()
            connection.close()


def test_saying_goodbye_to_a_peer_that_stopped_reading_is_given_up_at_once() -> None:
    with Server(accept_and_stay, receive_buffer=4_096) as server, decoded(server) as connection:
        same = socket.socket(fileno=os.dup(connection.fileno()))
        with same, contextlib.suppress(BlockingIOError):
            while True:
                same.send(b"x" * 65_536)
        with ends_within(0.2):
            assert not connection.send_close()


def test_a_close_frame_carries_its_code() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        seen.append(peer.read_frame())

    seen: list[tuple[int, bytes]] = []
    for code in (1000, 1002, 1005):
        with Server(script) as server, decoded(server) as connection:
            assert connection.send_close(code)
            assert read(connection) == b""
    assert seen == [(8, b"\x03\xe8"), (8, b"\x03\xea"), (8, b"")]


def test_abort_wakes_the_reader_from_another_thread() -> None:
    with Server(accept_and_stay) as server, decoded(server) as connection:
        other = threading.Thread(target=connection.abort)
        with ends_within(0.2):
            other.start()
            assert read(connection) == b""
        other.join(WAIT_SECONDS)


@pytest.mark.parametrize("encrypted", [False, True])
def test_abort_ends_a_send_that_is_stuck(encrypted: bool, authority: trustme.CA, ca_file: str) -> None:
    context = server_context(authority.issue_cert("127.0.0.1")) if encrypted else None
    with (
        Server(accept_and_stay, context, receive_buffer=4_096) as server,
        decoded(server, ca_file=ca_file if encrypted else None) as connection,
    ):
        timer = threading.Timer(0.2, connection.abort)
        timer.start()
        with ends_within(0.3):
            assert not isinstance(fill(connection), RequestTimeoutError)
        timer.join()


def be_reset(connection: WebSocketConnection) -> None:
    connection.send_ping()
    select_readable(connection)
    with contextlib.suppress(NetworkError):
        connection.recv()


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize(
    ("script", "before"),
    [
        pytest.param(accept_and_stay, lambda connection: None, id="open"),
        pytest.param(accept_and_stay, WebSocketConnection.send_close, id="goodbye said"),
        pytest.param(accept_and_stay, WebSocketConnection.abort, id="aborted"),
        pytest.param(accept_and_stay, WebSocketConnection.close, id="closed already"),
        pytest.param(lambda peer: peer.accept(), read, id="closed by the server"),
        pytest.param(accept_and_reset, be_reset, id="reset by the server"),
        pytest.param(lambda peer: (peer.accept(early=b"\x82\x7e\x10"), peer.stay()), read, id="half a frame"),
    ],
)
def test_closing_is_immediate_final_and_repeatable_in_every_state(
    encrypted: bool,
    script: Script,
    before: Callable[[WebSocketConnection], object],
    authority: trustme.CA,
    ca_file: str,
) -> None:
    context = server_context(authority.issue_cert("127.0.0.1")) if encrypted else None
    with Server(script, context) as server, decoded(server, ca_file=ca_file if encrypted else None) as connection:
        if connection.pending():
            connection.recv()
        else:
            before(connection)
        with ends_within(0):
            connection.close()
            connection.close()
            connection.abort()
            assert not connection.send_close()
        assert connection.fileno() == -1
        assert connection.pending() == 0
        assert repr(connection) == "<WebSocketConnection 127.0.0.1 closed>"
        with pytest.raises(NetworkError):
            connection.recv()
        with pytest.raises(NetworkError):
            connection.send_text("late")


# --- what may be asked for ---


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.upbit.com",
        "https://api.upbit.com/",
        "wss://",
        "wss:///websocket",
        "wss://api.upbit.com:port/",
        "wss://api.upbit.com/a b",
        "wss://api.upbit.com/\r\nX: y",
        "wss://업비트.example/",
        "wss://user:s3cret@api.upbit.com/",
        "wss://api.upbit.com/#fragment",
        "ws://api.upbit.com/websocket/v1",
        "ws://127.0.0.1.example/",
    ],
)
def test_a_url_that_must_not_be_dialled_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequestError, match="websocket_url") as caught:
        WebSocketTransport(url)
    assert "s3cret" not in str(caught.value)


def test_plain_connections_stay_on_this_machine() -> None:
    for url in ("ws://localhost:1/", "ws://127.0.0.1:1/", "ws://[::1]:1/"):
        WebSocketTransport(url)


def test_each_object_says_what_it_is_in_one_line() -> None:
    transport = WebSocketTransport("wss://api.upbit.com/websocket/v1", proxy="http://user:s3cret@proxy:3128")
    assert repr(transport) == "<WebSocketTransport api.upbit.com:443 through proxy:3128>"
    with Server(accept_and_stay) as server, decoded(server) as connection:
        assert repr(connection) == "<WebSocketConnection 127.0.0.1 open>"
        connection.abort()
        with pytest.raises(NetworkError):
            connection.send_text("x")
        assert repr(connection).startswith("<WebSocketConnection 127.0.0.1 broken: sending to 127.0.0.1: ")
