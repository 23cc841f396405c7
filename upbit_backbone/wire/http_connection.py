"""HTTP connection to Upbit's REST host: the only module that knows requests, loaded with the first transport.

Of requests we take the adapter without its Session: no cookies, no netrc, no proxies from the environment, no
redirects, because the code that would do them is not there. Underneath the adapter lies a socket that we dialled
ourselves, for REST and WebSocket alike.

On a connection that is kept, requests, urllib3 and http.client would spend 740,000 of 1,080,000 instructions on
what is the same each time: the head they wrote first is sent again with another target, and an ordinary answer (one
Content-Length, no coding of the transfer) is cut by its length here. Any other answer is http.client's to read.
"""

from __future__ import annotations

import http.client
import queue
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import requests
import requests.adapters
import urllib3
import urllib3.connection
import urllib3.connectionpool
from requests.structures import CaseInsensitiveDict
from urllib3._collections import HTTPHeaderDict
from urllib3.util.wait import wait_for_read

from .._concurrency import Deadline, Waitable
from ..errors import NetworkError, ProtocolError, UpbitBackboneError, one_line
from .dialing import Proxy, dial
from .http_head import END_OF_HEAD, MAX_HEAD_BYTES, MAX_INTERIM_ANSWERS, Head, is_interim, looks_like_http, parse_head
from .io_deadline import READ_BUFFER_BYTES, DeadlineSocket, Departure, Watch, translated

# Of a chunked body, how much to ask for at once; the cap is looked at between two such pieces.
UNKNOWN_LENGTH_BYTES: Final = 262_144
MOST_DIGITS: Final = 15  # of a Content-Length
MOST_HEADERS: Final = 100  # as http.client
BODILESS: Final = (204, 304)
KEEP_ALIVE: Final = "keep-alive"
_EMPTY_LINE: Final = re.compile(rb"\n\r?\n")  # http.client takes lines that end with LF alone, too


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a line leads, and how. `base_url` is scheme and host; a context means TLS."""

    base_url: str
    host: str
    port: int
    context: ssl.SSLContext | None
    proxy: Proxy | None
    connect_seconds: float
    user_agent: str


@dataclass(frozen=True, slots=True)
class Caps:
    """How many bytes we are willing to hold of an answer as it comes, and of an error's page."""

    body: int
    error_body: int


@dataclass(frozen=True, slots=True)
class Exchange:
    """What came back, still encoded; names in `headers` are in lower case. `is_cut` says that the body goes on beyond
    the cap."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_cut: bool


class HttpConnection:
    """A connection that is dialled when needed and used by one thread at a time; only `interrupt` is for others."""

    def __init__(self, destination: Destination, stop: Waitable) -> None:
        self.used_at = 0.0  # monotonic; kept by the transport
        self._destination = destination
        self._stop = stop
        self._headers = CaseInsensitiveDict(
            {"User-Agent": destination.user_agent, "Accept": "application/json", "Accept-Encoding": "gzip"}
        )
        self._pool = _ConnectionPool(destination.host, destination.port, maxsize=1, block=False)
        self._pool.ConnectionCls = self._connection  # type: ignore[assignment]  # a factory serves as well
        self._adapter = _Adapter(self._pool, len(destination.base_url))
        self._watch = Watch("", Deadline.after(None))
        self._sock: DeadlineSocket | None = None
        self._first: _Connection | None = None  # urllib3's, once it has been asked
        self._buffer = memoryview(bytearray(READ_BUFFER_BYTES))

    def get(self, target: str, what: str, deadline: Deadline, departure: Departure | None, caps: Caps) -> Exchange:
        """One request and its answer by `deadline`. After an error the line must be hung up."""
        watch = self._watch = Watch(what, deadline, self._stop, departure)
        if self._sock is not None:
            # Before the request: a kept socket would otherwise go by the deadline of the exchange before, which is
            # over.
            self._sock.watch = watch
        try:
            # What is there to be read before anything was asked is an end, or a server's parting word, and no answer:
            # urllib3 dials anew then.
            if (kept := self._kept) is not None and not wait_for_read(kept, timeout=0.0):  # type: ignore[arg-type]
                return self._ask_again(kept, target, what, caps)
            return self._ask(target, what, caps)
        except UpbitBackboneError:
            raise
        except Exception as theirs:
            # What happened on our socket, rather than what urllib3 made of it; its cause goes along, its own wrapping
            # does not.
            if watch.failure is not None:
                raise watch.failure from watch.failure.__cause__
            raise _ours(theirs, what) from theirs

    @property
    def _kept(self) -> DeadlineSocket | None:
        return None if self._first is None or self._first.sock is None else self._sock

    def _ask(self, target: str, what: str, caps: Caps) -> Exchange:
        prepared = requests.PreparedRequest()
        prepared.method, prepared.headers = "GET", self._headers
        prepared.url = self._destination.base_url + target
        # `stream=True` leaves the body to `_read`: requests would read it whole and unpack it (1 MiB of gzip became 1
        # GiB).
        return self._answer(self._adapter.send(prepared, stream=True).raw, what, caps)

    def _ask_again(self, sock: DeadlineSocket, target: str, what: str, caps: Caps) -> Exchange:
        assert self._first is not None  # noqa: S101  # it has the socket
        sock.sendall(b"GET %b%b" % (target.encode("ascii"), self._first.rest_of_head))
        received = _head_from(sock, self._buffer)
        if (ordinary := _ordinary(received)) is not None:
            exchange = _cut_by_length(sock, self._buffer, *ordinary, what, caps)
            if exchange.is_cut:
                self._first.close()  # its rest would be read as the next answer
            return exchange
        sock.put_back(received)
        answer = _FinalResponse(sock, method="GET")  # type: ignore[arg-type]  # what it uses of a socket
        try:
            answer.begin()
            if answer.will_close:
                self._first.close()  # as http.client does; the answer keeps what it needs of it
            return self._answer(_of_urllib3(answer), what, caps)
        except BaseException:
            answer.close()
            raise

    def _answer(self, raw: urllib3.HTTPResponse, what: str, caps: Caps) -> Exchange:
        try:
            if self._sock is not None and self._sock.has_ended:
                # http.client takes the end of the stream for the end of the headers.
                raise NetworkError(f"{what}: the answer was cut off in its headers")
            return _read(raw, caps)
        except BaseException:
            raw.close()  # now: files that are left to the garbage collector are closed in any order, and complain of it
            raise

    @property
    def is_stale(self) -> bool:
        """Whether the last exchange failed on a kept connection before the server said a word to it."""
        return self._sock is not None and self._sock.requests > 1 and not self._sock.answered

    def interrupt(self) -> None:
        """End what the owner is doing at once; from any thread."""
        sock = self._sock
        if sock is not None:
            sock.cut()

    def hang_up(self) -> None:
        """Give the connection back, for good. Not while another thread is using the line."""
        self._pool.close()
        if self._sock is not None:
            self._sock.destroy()

    def _connection(self, **options: Any) -> _Connection:
        connection = _Connection(**options)
        connection.dial = self._dial
        # For the Host header, which leaves out the port that the scheme implies.
        connection.default_port = 80 if self._destination.context is None else 443  # type: ignore[misc]
        self._first = connection
        return connection

    def _dial(self) -> DeadlineSocket:
        to, watch = self._destination, self._watch
        with watch.keeping_failure():
            sock = dial(to.host, to.port, to.context, to.proxy, watch.io_deadline.sooner(to.connect_seconds))
        if self._sock is not None:
            self._sock.destroy()
        self._sock = DeadlineSocket(sock, watch)
        return self._sock


def _head_from(sock: DeadlineSocket, buffer: memoryview) -> bytearray:
    """An answer's head and what came with it, up to where http.client would stop, or the stream has ended."""
    received = bytearray()
    searched = 0
    while _EMPTY_LINE.search(received, searched) is None and len(received) <= MAX_HEAD_BYTES:
        searched = max(0, len(received) - len(END_OF_HEAD) + 1)  # dripped byte by byte it would take quadratic time
        if not looks_like_http(received):
            break
        count = sock.recv_into(buffer)
        if not count:
            break
        received += buffer[:count]
    return received


def _ordinary(received: bytearray) -> tuple[Head, int, bytearray] | None:
    """Head, length of the body and as much of it as has come; None of an answer that is framed in any other way."""
    raw, end, body = received.partition(END_OF_HEAD)
    if not end or len(raw) > MAX_HEAD_BYTES or raw.count(b"\n") > MOST_HEADERS:
        return None
    try:
        head = parse_head(bytes(raw))
    except ProtocolError:
        return None
    said = head.headers.get("content-length", "")
    if not said.isdecimal() or len(said) > MOST_DIGITS or "transfer-encoding" in head.headers:
        return None
    has_body = head.status >= 200 and head.status not in BODILESS
    is_kept = raw.startswith(b"HTTP/1.1") and head.headers.get("connection", KEEP_ALIVE).lower() == KEEP_ALIVE
    length = int(said)
    return (head, length, body) if has_body and is_kept and len(body) <= length else None


def _cut_by_length(
    sock: DeadlineSocket, buffer: memoryview, head: Head, length: int, body: bytearray, what: str, caps: Caps
) -> Exchange:
    cap = caps.body if head.status < 400 else caps.error_body
    wanted = min(length, cap + 1)
    while len(body) < wanted:
        count = sock.recv_into(buffer[: wanted - len(body)])
        if not count:
            raise NetworkError(f"{what}: the answer was cut off in the middle")
        body += buffer[:count]
    return Exchange(head.status, head.headers, bytes(body[:cap]), length > cap)


def _of_urllib3(answer: http.client.HTTPResponse) -> urllib3.HTTPResponse:
    """What urllib3 itself makes of an answer of http.client's."""
    return urllib3.HTTPResponse(
        body=answer,  # as its own connection does
        headers=HTTPHeaderDict(answer.msg.items()),
        status=answer.status,
        version=answer.version,
        reason=answer.reason,
        preload_content=False,
        decode_content=False,
        original_response=answer,
        enforce_content_length=True,
        request_method="GET",
    )


def _read(raw: urllib3.HTTPResponse, caps: Caps) -> Exchange:
    cap = caps.body if raw.status < 400 else caps.error_body
    pieces: list[bytes] = []
    size = 0
    while size <= cap:
        # One byte beyond the cap is enough to know that there is more. `decode_content=False`: unpacking has a bound of
        # its own.
        piece = raw.read(min(cap + 1 - size, raw.length_remaining or UNKNOWN_LENGTH_BYTES), decode_content=False)
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
        if raw.length_remaining == 0:
            break
    # The rest stays unread, so this connection cannot carry another exchange.
    is_cut = size > cap
    # Closed before it is released: otherwise it would return to the pool with the remains of this answer in front of
    # the next one.
    if is_cut:
        raw.close()
    raw.release_conn()
    return Exchange(raw.status, raw.headers, b"".join(pieces)[:cap], is_cut)


class _ConnectionStack(queue.LifoQueue[Any]):
    """Keeps a pool's connections without taking a lock: a pool of ours is used by one thread at a time.

    The queue that urllib3 uses waits on Conditions. Ctrl-C in one leaves its lock held, and urllib3 puts the connection
    back on its way out of the interruption: on the very thread that holds the lock, for ever.
    """

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if len(self.queue) >= self.maxsize:
            raise queue.Full
        self.queue.append(item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        try:
            return self.queue.pop()
        except IndexError:
            raise queue.Empty from None


class _ConnectionPool(urllib3.connectionpool.HTTPConnectionPool):
    QueueCls = _ConnectionStack


class _Adapter(requests.adapters.HTTPAdapter):
    """The adapter of one connection pool, without what public data never needs."""

    def __init__(self, pool: urllib3.connectionpool.HTTPConnectionPool, prefix: int) -> None:
        super().__init__()
        self._only_pool = pool
        self._prefix = prefix

    # requests' own hook: left as it is, it would open connections that know no deadline.
    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        return self._only_pool

    def cert_verify(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the socket was verified when it was dialled, by the one TLS context there is."""

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        return str(request.url)[self._prefix :]

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        response = requests.Response()
        response.raw = resp
        return response


class _FinalResponse(http.client.HTTPResponse):
    """Reads past every interim answer; of those http.client itself knows only 100 and takes 103 for the answer."""

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(MAX_INTERIM_ANSWERS + 1):
            version, status, reason = super()._read_status()  # type: ignore[misc]  # a private method of theirs
            if not is_interim(status):
                return version, status, reason
            http.client.parse_headers(self.fp)
        raise http.client.HTTPException(f"more than {MAX_INTERIM_ANSWERS} interim answers")


class _Connection(urllib3.connection.HTTPConnection):
    """Plain to urllib3: encryption and proxies are the dialled socket's business."""

    dial: Callable[[], DeadlineSocket]
    response_class = _FinalResponse
    rest_of_head = b""  # of the last request, from behind its target

    def connect(self) -> None:
        self.sock = self.dial()  # what http.client uses of a socket

    def send(self, data: Any) -> None:
        self.rest_of_head = b"".join(data.partition(b" HTTP/1.1\r\n")[1:])
        super().send(data)


def _ours(theirs: BaseException, what: str) -> UpbitBackboneError:
    """Our error for one that requests, urllib3 or http.client made of the bytes they were given."""
    for cause in _causes(theirs):
        # Before the plain OSErrors, which it is one of: a kept connection that the server had closed is told as that.
        if isinstance(cause, http.client.RemoteDisconnected):
            return NetworkError(f"{what}: the server closed the connection without an answer")
        if isinstance(cause, (http.client.IncompleteRead, urllib3.exceptions.IncompleteRead)):
            return NetworkError(f"{what}: the answer was cut off in the middle")
        if isinstance(cause, http.client.HTTPException):
            return ProtocolError(f"{what}: not an acceptable HTTP answer: {one_line(repr(cause))}")
        if type(cause).__module__ in ("builtins", "ssl", "socket") and isinstance(cause, OSError):
            return translated(cause, what)
    return ProtocolError(f"{what}: {one_line(repr(theirs))}")


def _causes(error: BaseException) -> list[BaseException]:
    """The error, what it carries and what it came from, each once."""
    found: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting:
        each = waiting.pop(0)
        if isinstance(each, BaseException) and each not in found:
            found.append(each)
            waiting += [*each.args, each.__cause__, each.__context__]
    return found
