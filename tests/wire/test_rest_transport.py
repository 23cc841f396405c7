"""The REST transport against servers that stall, drip, flood, lie, hang up and forget."""

from __future__ import annotations

import contextlib
import gzip
import os
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from tests.support.waiting import promised
from upbit_backbone._concurrency import Deadline, join_all, spawn
from upbit_backbone.errors import (
    AuthenticationError,
    BannedError,
    ClosedError,
    MessageTooBigError,
    NetworkError,
    ProtocolError,
    RequestTimeoutError,
    TlsError,
    UpbitBackboneError,
)
from upbit_backbone.exchange import endpoints
from upbit_backbone.wire import dialing
from upbit_backbone.wire.rest_transport import MAX_BODY_BYTES, MAX_ERROR_BODY_BYTES, RestTransport

WAIT_SECONDS = 30.0
CALL = endpoints.tickers(["KRW-BTC"])
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRemaining-Req: group=ticker; min=600; sec=9\r\n\r\n[]"

Script = Callable[["Peer"], object]


class Peer:
    """One accepted connection, as a script sees it."""

    def __init__(self, sock: socket.socket, server: Server) -> None:
        self.sock = sock
        self.server = server

    def read_request(self) -> bytes:
        """The next request head; b"" when the client is gone."""
        received = b""
        while not received.endswith(b"\r\n\r\n"):
            chunk = self.sock.recv(65_536)
            if not chunk:
                return b""
            received += chunk
        self.server.requests.append(received)
        return received

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def drip(self, data: bytes, seconds: float) -> None:
        for byte in data:
            self.sock.sendall(bytes((byte,)))
            if self.server.stop.wait(seconds):
                return

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()

    def hang(self) -> None:
        self.server.stop.wait(WAIT_SECONDS)


class Server:
    """Plays `scripts`, one for each connection; the last one again for all further ones."""

    def __init__(self, *scripts: Script, context: ssl.SSLContext | None = None) -> None:
        self.scripts = list(scripts)
        self.context = context
        self.requests: list[bytes] = []
        self.connections = 0
        self.stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self.port = self._listener.getsockname()[1]
        self._threads = [spawn(self._accept, "test-server")]

    @property
    def url(self) -> str:
        return f"{'http' if self.context is None else 'https'}://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while not self.stop.is_set():
            try:
                sock, _ = self._listener.accept()
            except TimeoutError:
                continue
            script = self.scripts[min(self.connections, len(self.scripts) - 1)]
            self.connections += 1
            sock.settimeout(WAIT_SECONDS)
            self._threads.append(spawn(lambda sock=sock, script=script: self._play(sock, script), "test-peer"))
        self._listener.close()

    def _play(self, sock: socket.socket, script: Script) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(sock.close)
            if self.context is not None:
                sock = self.context.wrap_socket(sock, server_side=True)
                stack.callback(sock.close)
            script(Peer(sock, self))

    def close(self) -> None:
        self.stop.set()
        assert join_all(self._threads, Deadline.after(WAIT_SECONDS)) == []


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    with contextlib.ExitStack() as stack:

        def start(*scripts: Script, context: ssl.SSLContext | None = None) -> Server:
            server = Server(*scripts, context=context)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture
def dial() -> Iterator[Callable[..., RestTransport]]:
    with contextlib.ExitStack() as stack:

        def make(server: Server | str, **options: object) -> RestTransport:
            url = server if isinstance(server, str) else server.url
            transport = RestTransport(url, **options)  # type: ignore[arg-type]
            stack.callback(transport.close)
            return transport

        yield make


Serve, Dial = Callable[..., Server], Callable[..., RestTransport]


def within(seconds: float) -> Deadline:
    return Deadline.after(seconds)


def answering(*answers: bytes) -> Script:
    """Answer each request on this connection, the last answer again and again."""

    def script(peer: Peer) -> None:
        count = 0
        while peer.read_request():
            peer.send(answers[min(count, len(answers) - 1)])
            count += 1

    return script


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"
PATIENCE = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"


# --- answers as HTTP allows them ---


@pytest.mark.parametrize("interim", [HINT, PATIENCE, PATIENCE + HINT * 5], ids=["hint", "patience", "many"])
def test_interim_answers_are_read_past_on_every_request_of_a_connection(
    serve: Serve, dial: Dial, interim: bytes
) -> None:
    server = serve(answering(interim + answer(b"[1]"), interim + answer(b"[2]")))
    transport = dial(server)
    bodies = [transport.get(CALL, within(WAIT_SECONDS)).body for _ in range(2)]
    assert bodies == [b"[1]", b"[2]"]
    assert server.connections == 1


def test_an_error_after_an_interim_answer_is_the_error(serve: Serve, dial: Dial) -> None:
    server = serve(answering(HINT + answer(b"wait", "Retry-After: 7", status="429 Too Many Requests")))
    response = dial(server).get(CALL, within(WAIT_SECONDS))
    assert (response.status, response.body, response.headers["retry-after"]) == (429, b"wait", "7")


def test_interim_answers_without_end_are_no_answer(serve: Serve, dial: Dial) -> None:
    server = serve(answering(HINT * 1000 + OK))
    with pytest.raises(ProtocolError, match="interim"):
        dial(server).get(CALL, within(WAIT_SECONDS))


@pytest.mark.parametrize(
    "headers", [("Content-Encoding: x-gzip",), ("Content-Encoding: identity", "Content-Encoding: gzip")]
)
def test_gzip_is_understood_however_it_is_announced(serve: Serve, dial: Dial, headers: tuple[str, ...]) -> None:
    server = serve(answering(answer(gzip.compress(b"[]", mtime=0), *headers)))
    assert dial(server).get(CALL, within(WAIT_SECONDS)).body == b"[]"


# --- what is sent ---


def test_the_request_is_honest_plain_and_has_no_origin(serve: Serve, dial: Dial) -> None:
    server = serve(answering(OK))
    response = dial(server).get(CALL, within(WAIT_SECONDS))
    head = server.requests[0].decode()
    lines = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in head.split("\r\n")[1:]}
    assert head.startswith("GET /v1/ticker?markets=KRW-BTC HTTP/1.1\r\n")
    assert lines["user-agent"].startswith("upbit-backbone/")
    assert lines["accept-encoding"] == "gzip"
    assert lines["host"] == f"127.0.0.1:{server.port}"
    assert not {"origin", "cookie", "authorization", "proxy-authorization", "referer"} & set(lines)
    assert (response.status, response.body) == (200, b"[]")
    assert response.headers.get("remaining-req") == response.headers.get("Remaining-Req")


def test_netrc_and_the_environments_proxies_are_ignored(
    serve: Serve, dial: Dial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login canary password canary\ndefault login canary password canary\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://canary:canary@127.0.0.1:9")
    server = serve(answering(OK))
    dial(server).get(CALL, within(WAIT_SECONDS))
    assert b"uthorization" not in server.requests[0]
    assert b"canary" not in server.requests[0]


def test_cookies_are_never_kept(serve: Serve, dial: Dial) -> None:
    server = serve(answering(answer(b"[]", "Set-Cookie: canary=1; Path=/")))
    transport = dial(server)
    for _ in range(3):
        transport.get(CALL, within(WAIT_SECONDS))
    assert all(b"ookie" not in request for request in server.requests)


def test_one_connection_serves_many_calls_one_after_the_other(serve: Serve, dial: Dial) -> None:
    server = serve(answering(OK))
    transport = dial(server)
    for _ in range(20):
        transport.get(CALL, within(WAIT_SECONDS))
    assert (server.connections, len(server.requests)) == (1, 20)
    assert repr(transport) == f"<RestTransport 127.0.0.1:{server.port} 1 idle, 0 busy>"


def test_threads_get_connections_of_their_own(serve: Serve, dial: Dial) -> None:
    server = serve(answering(OK))
    transport = dial(server)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            for _ in range(30):
                assert transport.get(CALL, within(WAIT_SECONDS)).body == b"[]"
        except BaseException as error:
            failures.append(error)

    assert join_all([spawn(run, f"test-{n}") for n in range(8)], within(60)) == []
    assert failures == []
    assert server.connections <= 8


def test_the_one_who_counts_hears_of_the_departure_and_may_forbid_it(serve: Serve, dial: Dial) -> None:
    server = serve(answering(OK))
    transport = dial(server)
    told: list[str] = []

    class Watcher:
        def leaving(self) -> None:
            told.append("leaving")
            if len(told) > 2:
                raise BannedError("no")

        def sent(self) -> None:
            told.append("sent")

        def answered(self) -> None:
            told.append("answered")

    transport.get(CALL, within(WAIT_SECONDS), Watcher())
    assert told == ["leaving", "sent", "answered"]
    with pytest.raises(BannedError):
        transport.get(CALL, within(WAIT_SECONDS), Watcher())
    assert len(server.requests) == 1


# --- answers of every kind ---


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect"])
def test_redirects_are_answers_like_any_other_and_followed_by_nobody(serve: Serve, dial: Dial, status: str) -> None:
    elsewhere = serve(answering(OK))
    server = serve(answering(answer(b"", f"Location: {elsewhere.url}/v1/ticker", status=status)))
    response = dial(server).get(CALL, within(WAIT_SECONDS))
    assert response.status == int(status[:3])
    assert elsewhere.requests == []


@pytest.mark.parametrize(
    "data",
    [
        answer(gzip.compress(b'["x"]', mtime=0), "Content-Encoding: gzip"),
        answer(gzip.compress(b'["', mtime=0) + gzip.compress(b'x"]', mtime=0), "Content-Encoding: GZIP"),
        answer(b'["x"]', "Content-Encoding: identity"),
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n["\r\n3\r\nx"]\r\n0\r\n\r\n',
        b'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n["x"]',
        b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n["x"]',
    ],
)
def test_every_way_to_wrap_an_answer_is_understood(serve: Serve, dial: Dial, data: bytes) -> None:
    server = serve(answering(data))
    transport = dial(server)
    for _ in range(2):
        assert transport.get(CALL, within(WAIT_SECONDS)).body == b'["x"]'


GOOD = answer(b'["x"]', "Remaining-Req: group=ticker; min=600; sec=9", "Date: Mon, 30 Nov 2026 00:00:00 GMT")
ODD = [
    GOOD,
    GOOD.replace(b"\r\n", b"\n"),
    GOOD.replace(b"HTTP/1.1", b"HTTP/1.0"),
    GOOD.replace(b"HTTP/1.1 200 OK", b"HTTP/1.1 200"),
    GOOD.replace(b"HTTP/1.1 200 OK", b"HTTP/1.1 204 No Content"),
    GOOD.replace(b"HTTP/1.1 200 OK", b"HTTP/2 200 OK"),
    GOOD.replace(b"200 OK", b"999 OK"),
    GOOD.replace(b"Length: 5", b"Length: 5, 5"),
    GOOD.replace(b"Length: 5", b"Length: -5"),
    GOOD.replace(b"Length: 5", b"Length: +5"),
    GOOD.replace(b"Length: 5", b"Length: " + b"9" * 5000),
    GOOD.replace(b"Length: 5", b"Length: 4"),
    GOOD.replace(b"Length: 5", b"Length: 6"),
    GOOD.replace(b"Length: 5", b"Length: 0"),
    GOOD.replace(b"Content-Length: 5\r\n", b""),
    GOOD.replace(b"Content-Length: 5", b"Content-Length: 5\r\nContent-Length: 7"),
    GOOD.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked\r\nContent-Length: 5"),
    GOOD.replace(b"Date:", b"Connection: Keep-Alive\r\nDate:"),
    GOOD.replace(b"Date:", b"Connection: close, x\r\nDate:"),
    GOOD.replace(b"Date:", b"X-Folded: a\r\n b\r\nDate:"),
    GOOD.replace(b"Date:", b"nameless\r\nDate:"),
    GOOD.replace(b"Date:", b"A: b\r\n" * 120 + b"Date:"),
    GOOD.replace(b"Date:", b"A: " + b"b" * 70_000 + b"\r\nDate:"),
    GOOD.replace(b"Date:", b"Date: yesterday\r\nDate:"),
    GOOD[:20], GOOD[:60], GOOD[:-2], b"\r\n" + GOOD, b"SSH-2.0-OpenSSH_9.6\r\n", GOOD + GOOD,
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_a_kept_connection_says_of_every_answer_what_a_fresh_one_says(serve: Serve, dial: Dial, odd: bytes) -> None:
    def first(peer: Peer) -> None:
        peer.read_request()
        peer.send(odd)

    def second(peer: Peer) -> None:
        peer.read_request()
        peer.send(OK)
        first(peer)

    fresh, kept = dial(serve(first)), dial(serve(second))
    assert kept.get(CALL, within(WAIT_SECONDS)).body == b"[]"
    assert said(kept) == said(fresh)


def said(transport: RestTransport) -> object:
    try:
        response = transport.get(CALL, within(WAIT_SECONDS))
    except UpbitBackboneError as error:
        return type(error), str(error).partition("(")[0]  # requests wraps some errors of urllib3 once more
    # Of a folded line some urllib3 keep the fold.
    headers = {name.lower(): response.headers[name.lower()].split() for name in response.headers}
    return response.status, response.body, headers


def test_later_requests_on_a_connection_are_the_first_ones_but_for_their_target(serve: Serve, dial: Dial) -> None:
    server = serve(answering(OK))
    transport = dial(server)
    for symbol in ("KRW-BTC", "KRW-ETH"):
        transport.get(endpoints.tickers([symbol]), within(WAIT_SECONDS))
    first, second = server.requests
    assert server.connections == 1
    assert second == first.replace(b"KRW-BTC", b"KRW-ETH")


def test_an_answer_that_ends_with_the_connection_is_whole(serve: Serve, dial: Dial) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(b'HTTP/1.1 200 OK\r\n\r\n["x"]')

    assert dial(serve(script)).get(CALL, within(WAIT_SECONDS)).body == b'["x"]'


def test_a_compressed_error_page_is_read_and_cut(serve: Serve, dial: Dial) -> None:
    page = gzip.compress(b"<html>" + b"x" * 1_000_000)
    response = dial(serve(answering(answer(page, "Content-Encoding: gzip", status="503 Busy")))).get(
        CALL, within(WAIT_SECONDS)
    )
    assert response.status == 503
    assert response.body.startswith(b"<html>")
    assert len(response.body) == MAX_ERROR_BODY_BYTES


def test_an_endless_error_page_is_cut_without_being_read(serve: Serve, dial: Dial) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 500 Oops\r\n\r\n")
        while not peer.server.stop.is_set():
            peer.send(b"y" * 65_536)

    response = dial(serve(script)).get(CALL, within(WAIT_SECONDS))
    assert (response.status, response.body) == (500, b"y" * MAX_ERROR_BODY_BYTES)


# --- too much ---


def bomb(size: int) -> bytes:
    """So many bytes of zeros but for the end, which nobody should get to see."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    begin, again = (packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return begin + again * ((size >> 20) - 1)


@pytest.mark.parametrize("size", [8 << 20, 64 << 20, 512 << 20])
def test_a_gzip_bomb_goes_off_small_and_quick(serve: Serve, dial: Dial, size: int) -> None:
    server = serve(answering(answer(bomb(size), "Content-Encoding: gzip")))
    started = time.monotonic()
    with pytest.raises(MessageTooBigError):
        dial(server).get(CALL, within(WAIT_SECONDS))
    assert time.monotonic() - started < promised(2.0)


@pytest.mark.parametrize("encoding", ["gzip, gzip", "br", "deflate", "zstd", "x" * 200])
def test_encodings_nobody_asked_for_are_refused(serve: Serve, dial: Dial, encoding: str) -> None:
    server = serve(answering(answer(gzip.compress(gzip.compress(b"[]", mtime=0)), f"Content-Encoding: {encoding}")))
    with pytest.raises(ProtocolError, match="never asked for"):
        dial(server).get(CALL, within(WAIT_SECONDS))


def test_an_answer_beyond_the_cap_is_dropped_with_its_connection(serve: Serve, dial: Dial) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(f"HTTP/1.1 200 OK\r\nContent-Length: {2**40}\r\n\r\n".encode())
        while not peer.server.stop.is_set():
            peer.send(b" " * 1_048_576)

    server = serve(script, answering(OK))
    transport = dial(server)
    with pytest.raises(MessageTooBigError, match=str(MAX_BODY_BYTES)):
        transport.get(CALL, within(WAIT_SECONDS))
    assert transport.get(CALL, within(WAIT_SECONDS)).body == b"[]"


def test_endless_headers_are_not_read(serve: Serve, dial: Dial) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\n")
        while not peer.server.stop.is_set():
            peer.send(b"X-Filler: " + b"y" * 1000 + b"\r\n")

    with pytest.raises(ProtocolError):
        dial(serve(script)).get(CALL, within(WAIT_SECONDS))


# --- too slow ---


@pytest.mark.parametrize(
    "script",
    [
        lambda peer: (peer.read_request(), peer.hang()),
        lambda peer: (peer.read_request(), peer.drip(OK, 0.1)),
        lambda peer: (peer.read_request(), peer.send(OK[:-1]), peer.hang()),
        lambda peer: (
            peer.read_request(),
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
            peer.drip(b" " * 99, 0.1),
        ),
        lambda peer: (
            peer.read_request(),
            peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            peer.drip(b"1\r\n \r\n" * 99, 0.05),
        ),
    ],
    ids=["silence", "dripped head", "no last byte", "dripped body", "dripped chunks"],
)
@pytest.mark.parametrize("seconds", [0.0, 0.15, 0.7])
def test_a_slow_server_cannot_hold_anyone_beyond_the_deadline(
    serve: Serve, dial: Dial, script: Script, seconds: float
) -> None:
    transport = dial(serve(script))
    started = time.monotonic()
    with pytest.raises(RequestTimeoutError, match="/v1/ticker"):
        transport.get(CALL, within(seconds))
    assert seconds - 0.01 <= time.monotonic() - started < promised(seconds)


def test_a_connection_nobody_accepts_ends_by_its_own_limit(dial: Dial) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        with contextlib.ExitStack() as stack:
            for _ in range(3):  # fill the backlog, so that further ones are not even acknowledged
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            started = time.monotonic()
            with pytest.raises(NetworkError):
                dial(url, connect_seconds=0.3).get(CALL, within(WAIT_SECONDS))
            assert time.monotonic() - started < promised(0.3)


# --- broken ---


def test_a_refused_connection_is_a_network_error(dial: Dial) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(NetworkError, match="cannot connect"):
            dial(f"http://127.0.0.1:{nobody.getsockname()[1]}").get(CALL, within(WAIT_SECONDS))


def test_a_refusal_in_numbers_of_windows_is_told_in_words(dial: Dial, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(socket.socket):
        def connect_ex(self, address: object) -> int:
            return 10061  # what Windows' sockets say, and of which os.strerror knows nothing there, as here

    monkeypatch.setattr(dialing.socket, "socket", Refused)
    monkeypatch.setattr(dialing.socket, "errorTab", {10061: "Connection refused."}, raising=False)  # Windows' own
    with pytest.raises(NetworkError, match=r"cannot connect to .*Connection refused\.") as raised:
        dial("http://127.0.0.1:9").get(CALL, within(WAIT_SECONDS))
    assert "Unknown error" not in str(raised.value)


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (lambda peer: peer.read_request(), NetworkError),
        (lambda peer: (peer.read_request(), peer.reset()), NetworkError),
        (lambda peer: (peer.read_request(), peer.send(OK[:30])), NetworkError),
        (lambda peer: (peer.read_request(), peer.send(OK[:-1])), NetworkError),
        (lambda peer: (peer.read_request(), peer.send(OK[:-1]), peer.reset()), NetworkError),
        (
            lambda peer: (
                peer.read_request(),
                peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"),
            ),
            NetworkError,
        ),
        (
            lambda peer: (
                peer.read_request(),
                peer.send(answer(gzip.compress(b"x" * 999)[:20], "Content-Encoding: gzip")),
            ),
            NetworkError,
        ),
        (lambda peer: (peer.read_request(), peer.send(answer(b"no gzip", "Content-Encoding: gzip"))), ProtocolError),
        (lambda peer: (peer.read_request(), peer.send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")), ProtocolError),
        (lambda peer: (peer.read_request(), peer.send(b"HTTP/1.1 abc Oops\r\n\r\n")), ProtocolError),
        (
            lambda peer: (
                peer.read_request(),
                peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
            ),
            (ProtocolError, NetworkError),
        ),
    ],
    ids=[
        "fin", "rst", "half a head", "body short of one byte", "reset in the body", "half a chunk", "half a gzip",
        "no gzip", "another protocol", "no status", "no chunk size",
    ],
)  # fmt: skip
def test_whatever_breaks_is_one_of_our_errors_and_the_next_call_works(
    serve: Serve, dial: Dial, script: Script, kind: type[UpbitBackboneError]
) -> None:
    transport = dial(serve(script, answering(OK)))
    with pytest.raises(kind) as caught:
        transport.get(CALL, within(WAIT_SECONDS))
    assert "\n" not in str(caught.value)
    assert transport.get(CALL, within(WAIT_SECONDS)).body == b"[]"


@pytest.mark.parametrize("end", ["fin", "rst"])
def test_a_kept_connection_that_died_meanwhile_is_replaced_unseen(serve: Serve, dial: Dial, end: str) -> None:
    def once(peer: Peer) -> None:
        peer.read_request()
        peer.send(OK)
        if end == "rst":
            peer.reset()

    server = serve(once)
    transport = dial(server)
    for _ in range(5):
        assert transport.get(CALL, within(WAIT_SECONDS)).body == b"[]"
    assert server.connections == 5


def test_a_connection_that_dies_under_the_second_request_is_replaced_once(serve: Serve, dial: Dial) -> None:
    def twice(peer: Peer) -> None:
        peer.read_request()
        peer.send(OK)
        peer.read_request()

    server = serve(twice, answering(OK))
    transport = dial(server)
    transport.get(CALL, within(WAIT_SECONDS))
    assert transport.get(CALL, within(WAIT_SECONDS)).body == b"[]"
    assert len(server.requests) == 3


def test_a_fresh_connection_that_fails_is_not_tried_again(serve: Serve, dial: Dial) -> None:
    server = serve(lambda peer: peer.read_request())
    with pytest.raises(NetworkError):
        dial(server).get(CALL, within(WAIT_SECONDS))
    assert len(server.requests) == 1


# --- TLS and proxies ---


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def tls_server(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def test_an_extra_authority_makes_a_private_certificate_good(
    serve: Serve, dial: Dial, authority: trustme.CA, tmp_path: Path
) -> None:
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    server = serve(answering(OK), context=tls_server(authority))
    transport = dial(server, ca_file=str(ca_file))
    for _ in range(3):
        assert transport.get(CALL, within(WAIT_SECONDS)).body == b"[]"
    assert server.connections == 1


@pytest.mark.parametrize("name", ["127.0.0.1", "elsewhere.example"])
def test_an_unknown_authority_or_a_wrong_name_is_a_tls_error(
    serve: Serve, dial: Dial, authority: trustme.CA, tmp_path: Path, name: str
) -> None:
    ca_file = tmp_path / "ca.pem"
    (trustme.CA() if name == "127.0.0.1" else authority).cert_pem.write_to_path(str(ca_file))
    server = serve(answering(OK), context=tls_server(authority, name))
    with pytest.raises(TlsError, match="certificate not accepted"):
        dial(server, ca_file=str(ca_file)).get(CALL, within(WAIT_SECONDS))
    assert server.requests == []


def test_a_proxy_is_asked_for_a_tunnel_and_its_password_stays_secret(serve: Serve, dial: Dial) -> None:
    def refuse(peer: Peer) -> None:
        peer.read_request()
        peer.send(answer(b"", status="407 Proxy Authentication Required"))

    proxy, origin = serve(refuse), serve(answering(OK))
    transport = dial(origin, proxy=f"http://user:c4nary@127.0.0.1:{proxy.port}")
    with pytest.raises(AuthenticationError) as caught:
        transport.get(CALL, within(WAIT_SECONDS))
    assert proxy.requests[0].startswith(f"CONNECT 127.0.0.1:{origin.port} HTTP/1.1\r\n".encode())
    assert origin.requests == []
    assert "c4nary" not in f"{caught.value!r} {transport!r}"


# --- life and death ---


def test_closing_ends_calls_under_way_at_once(serve: Serve, dial: Dial) -> None:
    reached = threading.Event()
    transport = dial(serve(lambda peer: (peer.read_request(), reached.set(), peer.hang())))
    outcome: list[BaseException] = []

    def run() -> None:
        try:
            transport.get(CALL, within(WAIT_SECONDS))
        except UpbitBackboneError as error:
            outcome.append(error)

    thread = spawn(run, "test-closing")
    assert reached.wait(WAIT_SECONDS)
    started = time.monotonic()
    transport.close()
    assert join_all([thread], within(WAIT_SECONDS)) == []
    assert time.monotonic() - started < promised(0.25)
    assert isinstance(outcome[0], (ClosedError, NetworkError))
    with pytest.raises(ClosedError):
        transport.get(CALL, within(WAIT_SECONDS))
    transport.close()
    assert repr(transport).endswith(" closed>")


def test_two_hundred_openings_leave_no_socket_behind(serve: Serve) -> None:
    server = serve(answering(OK))
    folder = Path("/proc/self/fd")
    before = len(os.listdir(folder)) if folder.exists() else 0
    for _ in range(200):
        transport = RestTransport(server.url)
        transport.get(CALL, within(WAIT_SECONDS))
        transport.close()
    if folder.exists():
        deadline = within(WAIT_SECONDS)
        while len(os.listdir(folder)) > before + 2 and not deadline.expired:
            server.stop.wait(0.01)
        assert len(os.listdir(folder)) <= before + 2


def test_it_costs_clearly_less_than_a_session(serve: Serve, dial: Dial) -> None:
    import requests

    server = serve(answering(OK))
    transport = dial(server)

    def cpu(run: Callable[[], object]) -> float:
        run()
        started = time.thread_time()
        for _ in range(200):
            run()
        return time.thread_time() - started

    with requests.Session() as session:
        url = f"{server.url}/v1/ticker"
        theirs, ours = [], []
        for _ in range(4):  # in turns, so that a busy machine burdens both
            theirs.append(cpu(lambda: session.get(url, params={"markets": "KRW-BTC"}, timeout=5).content))
            ours.append(cpu(lambda: transport.get(CALL, within(5.0))))
    assert min(ours) <= 0.8 * min(theirs)  # 0.56 on a quiet machine, see benchmarks/rest_call.py
