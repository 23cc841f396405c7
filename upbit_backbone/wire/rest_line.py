"""One HTTP connection to Upbit's REST host; the only module that knows requests, imported on first use.

Of requests we take the adapter without its Session: no cookies, no netrc, no proxies from the environment, no
redirects, because the code that would do them is not there. Underneath the adapter lies a socket that we dialled
ourselves and that looks at one deadline for the whole exchange at every read, which no timeout of requests does.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol

import requests
import requests.adapters
import urllib3
import urllib3.connection
import urllib3.connectionpool
from requests.structures import CaseInsensitiveDict

from .._concurrency import WAIT_SLICE_SECONDS, Deadline
from ..errors import NetworkError, ProtocolError, UpbitBackboneError, one_line
from .dialing import Proxy, dial
from .patience import Patience, send_all, translated

READ_BUFFER_BYTES: Final = 65_536
UNKNOWN_LENGTH_BYTES: Final = 262_144
SHORTEST_WAIT_SECONDS: Final = 0.001


class Line:
    """A connection that is dialled when needed and used by one thread at a time. `hang_up` is for any thread."""

    def __init__(
        self,
        base_url: str,
        host: str,
        port: int,
        *,
        context: ssl.SSLContext | None,
        proxy: Proxy | None,
        user_agent: str,
        connect_seconds: float,
        stop: threading.Event,
    ) -> None:
        self.used_at = 0.0  # monotonic; kept by the transport
        self._base_url = base_url
        self._host, self._port = host, port
        self._context, self._proxy = context, proxy
        self._connect_seconds = connect_seconds
        self._stop = stop
        self._headers = CaseInsensitiveDict(
            {"User-Agent": user_agent, "Accept": "application/json", "Accept-Encoding": "gzip"}
        )
        self._pool = urllib3.connectionpool.HTTPConnectionPool(host, port, maxsize=1, block=False)
        self._pool.ConnectionCls = self._connection  # type: ignore[assignment]  # a factory serves as well
        self._adapter = _Adapter(self._pool, len(base_url))
        self._lock = threading.Lock()  # guards _sock, so that hang_up never hits someone else's descriptor
        self._sock: DeadlineSocket | None = None
        self._deadline = Deadline.after(None)
        self._patience = Patience("", self._deadline)
        self._failure: UpbitBackboneError | None = None
        self._departure: Departure | None = None

    def get(self, target: str, what: str, deadline: Deadline, departure: Departure | None, caps: Caps) -> Exchange:
        """One request and its answer by `deadline`. After an error the line must be hung up."""
        self._deadline, self._patience = deadline, Patience(what, deadline, self._stop)
        self._failure, self._departure = None, departure
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url, prepared.headers = "GET", self._base_url + target, self._headers
        try:
            raw = self._adapter.send(prepared, stream=True).raw
            if self._sock is not None and self._sock.has_ended:
                # http.client takes the end of the stream for the end of the headers.
                raise NetworkError(f"{what}: the answer was cut off in its headers")
            return _read(raw, caps)
        except UpbitBackboneError:
            raise
        except Exception as theirs:
            if self._failure is not None:
                raise self._failure from self._failure.__cause__
            raise _ours(theirs, what) from theirs

    @property
    def is_stale(self) -> bool:
        """Whether the last exchange failed on a kept connection before the server said a word to it."""
        sock = self._sock
        return sock is not None and sock.requests > 1 and not sock.answered

    def hang_up(self) -> None:
        """Cut and give back the connection; a read in another thread ends at once."""
        with self._lock:
            if self._sock is not None:
                self._sock.cut()
        self._pool.close()

    def _connection(self, **options: Any) -> _Connection:
        connection = _Connection(**options)
        connection.dial = self._dial
        # For the Host header, which leaves out the port that the scheme implies.
        connection.default_port = 80 if self._context is None else 443  # type: ignore[misc]
        return connection

    def _dial(self) -> DeadlineSocket:
        with self._keeping_failure():
            sock = dial(
                self._host, self._port, self._context, self._proxy, self._patience.sooner(self._connect_seconds)
            )
        with self._lock:
            self._sock = DeadlineSocket(sock, self)
            return self._sock

    # For the socket. Errors are kept in _failure, because urllib3 would take our timeout for one of its own.

    def send(self, sock: socket.socket, data: bytes) -> None:
        with self._keeping_failure():
            if self._departure is not None:
                self._departure.leaving()
            send_all(sock, data, self._patience)
            if self._departure is not None:
                self._departure.sent()

    def wait_seconds(self) -> float:
        """How long the next read may wait before it must ask again."""
        with self._keeping_failure():
            self._patience.check()
        return max(SHORTEST_WAIT_SECONDS, self._deadline.remaining_or(WAIT_SLICE_SECONDS))

    def broken(self, theirs: OSError) -> UpbitBackboneError:
        self._failure = translated(theirs, self._patience.what)
        return self._failure

    def closing(self) -> threading.Lock:
        return self._lock

    @contextlib.contextmanager
    def _keeping_failure(self) -> Iterator[None]:
        try:
            yield
        except UpbitBackboneError as ours:
            self._failure = ours
            raise


class Departure(Protocol):
    """Who wants to know when a request leaves: right before (and may raise), and right after."""

    def leaving(self) -> object: ...

    def sent(self) -> object: ...


class Caps:
    """How many bytes we are willing to hold: of an answer, encoded and decoded, and of an error's page."""

    __slots__ = ("body", "error_body")

    def __init__(self, body: int, error_body: int) -> None:
        self.body = body
        self.error_body = error_body


class Exchange:
    """What came back, still encoded. `is_cut` says that the body goes on beyond the cap."""

    __slots__ = ("body", "headers", "is_cut", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes, is_cut: bool) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.is_cut = is_cut


def _read(raw: urllib3.HTTPResponse, caps: Caps) -> Exchange:
    cap = caps.body if raw.status < 400 else caps.error_body
    pieces: list[bytes] = []
    size = 0
    while size <= cap:
        piece = raw.read(min(cap + 1 - size, raw.length_remaining or UNKNOWN_LENGTH_BYTES), decode_content=False)
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
        if raw.length_remaining == 0:
            break
    is_cut = size > cap
    if is_cut:
        raw.close()
    raw.release_conn()
    return Exchange(raw.status, raw.headers, b"".join(pieces)[:cap], is_cut)


class _Adapter(requests.adapters.HTTPAdapter):
    """The adapter of one connection pool, without what public data never needs."""

    def __init__(self, pool: urllib3.connectionpool.HTTPConnectionPool, prefix: int) -> None:
        super().__init__()
        self._only_pool = pool
        self._prefix = prefix

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


class _Connection(urllib3.connection.HTTPConnection):
    """Plain to urllib3: encryption and proxies are the dialled socket's business."""

    dial: Callable[[], DeadlineSocket]

    def connect(self) -> None:
        self.sock = self.dial()  # what http.client uses of a socket


class DeadlineSocket:
    """What http.client gets for a socket: every read and write looks at the line's deadline."""

    def __init__(self, sock: socket.socket, line: Line) -> None:
        sock.settimeout(WAIT_SLICE_SECONDS)
        self._sock = sock
        self._line = line
        self._files = 0
        self._is_closed = False
        self.requests = 0
        self.answered = False
        self.has_ended = False

    def sendall(self, data: bytes) -> None:
        self.requests += 1
        self.answered = False
        self._line.send(self._sock, data)

    def makefile(self, mode: str, *_: Any, **__: Any) -> io.BufferedReader:
        self._files += 1
        return io.BufferedReader(_Reader(self), READ_BUFFER_BYTES)

    def recv_into(self, buffer: Any) -> int:
        while True:
            self._sock.settimeout(self._line.wait_seconds())
            try:
                count = self._sock.recv_into(buffer)
            except (TimeoutError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                continue
            except OSError as theirs:
                raise self._line.broken(theirs) from theirs
            self.answered = self.answered or count > 0
            self.has_ended = count == 0
            return count

    def fileno(self) -> int:
        return self._sock.fileno()

    def settimeout(self, _: Any) -> None:
        """Not theirs to decide."""

    def shutdown(self, how: int) -> None:
        self._sock.shutdown(how)

    def cut(self) -> None:
        if self._sock.fileno() >= 0:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        self._is_closed = True
        self._close_if_unused()

    def file_closed(self) -> None:
        self._files -= 1
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        # http.client closes the socket before it has read the last answer, and expects that to work.
        if self._is_closed and not self._files:
            with self._line.closing():
                self._sock.close()


class _Reader(io.RawIOBase):
    def __init__(self, sock: DeadlineSocket) -> None:
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._sock.recv_into(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._sock.file_closed()


def _ours(theirs: BaseException, what: str) -> UpbitBackboneError:
    """Our error for one that requests, urllib3 or http.client made of the bytes they were given."""
    for cause in _causes(theirs):
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
