"""WebSocket transport: connections for one I/O thread each; the only module that knows websocket-client.

websocket-client makes the handshake's request, judges its answer and encodes frames. Everything else is ours:
dialing, deadlines and limits because it has none, reading for the reasons told in `frames`, and closing
because its `close()` waits for the peer. `WebSocketApp` is never used.
"""

from __future__ import annotations

import contextlib
import io
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final
from urllib.parse import urlsplit

import websocket

from .._concurrency import SYSTEM_CLOCK, Clock, Deadline, Waitable
from ..errors import InvalidRequestError, NetworkError, ProtocolError, UpbitBackboneError, one_line
from ..models.enums import DataSource
from .dialing import dial, proxy_for
from .frames import BINARY, CLOSE, NO_STATUS, PING, PONG, TEXT
from .held_read import held_look, held_read, raise_failure
from .http_head import MAX_BODY_BYTES, SWITCHING_PROTOCOLS, Head, body_length, refusal
from .io_deadline import IoDeadline, read_final_head, retry_until_ready, send_all, translated
from .trust import tls_context

CONNECT_SECONDS: Final = 5.0
SEND_SECONDS: Final = 2.0  # a peer that takes nothing for so long is frozen, and half a frame may be out
# A goodbye is a courtesy: websocket-client waits for the peer's answer to it, up to ten seconds and with half a frame
# for ever, and whoever closes must be done within two.
CLOSE_FRAME_SECONDS: Final = 0.2
# One large read a wake-up instead of three small ones a frame: beside a computing thread each system call may wait 5 ms
# for the GIL (p99 at 1,000 messages a second: 9.6 ms instead of 777).
RECV_BYTES: Final = 262_144
USER_AGENT: Final = "upbit-backbone"
_NOT_IN_URLS = re.compile(r"[^\x21-\x7e]")

__all__ = ["BINARY", "PING", "PONG", "TEXT", "WebSocketConnection", "WebSocketTransport"]


class WebSocketTransport:
    """Opens connections to one WebSocket URL. Immutable, usable from any thread.

    `ca_file` adds certificate authorities; verification cannot be switched off. `proxy` is the proxy's URL, or "env"
    for what the environment says; without it proxies of the environment are ignored.
    """

    def __init__(
        self,
        url: str,
        *,
        ca_file: str | None = None,
        proxy: str | None = None,
        connect_seconds: float = CONNECT_SECONDS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._url = url
        self._host, self._port, is_secure = _parse_url(url)
        self._context = tls_context(ca_file) if is_secure else None
        self._proxy = proxy_for(url, proxy)
        self._connect_seconds = connect_seconds
        self._clock = clock

    def open(self, deadline: Deadline | None = None, *, stop: Waitable | None = None) -> WebSocketConnection:
        """A connection after its handshake, by `deadline` and at the latest after `connect_seconds` in all.

        Raises RequestTimeoutError, NetworkError, TlsError, ProtocolError, or what the server's refusal means:
        BannedError (418), RateLimitError (429), AuthenticationError (401/403), MaintenanceError (503),
        ServerError (other 5xx), HandshakeRefusedError (the rest). Setting `stop` from another thread ends it
        with ClosedError within a quarter of a second. Nothing stays open after an error.
        """
        whole = (deadline or Deadline.after(None)).sooner(self._connect_seconds)
        io_deadline = IoDeadline(f"connecting to {self._host}", whole, stop)
        sock = dial(self._host, self._port, self._context, self._proxy, io_deadline)
        try:
            return self._shake_hands(sock, io_deadline)
        except BaseException:
            sock.close()
            raise

    def _shake_hands(self, sock: socket.socket, io_deadline: IoDeadline) -> WebSocketConnection:
        guarded = HandshakeSocket(sock, self._host, io_deadline, self._clock)
        client = websocket.WebSocket(enable_multithread=False)
        try:
            # Origin would put us under Upbit's limit of one request per 10 s.
            client.connect(  # type: ignore[no-untyped-call]  # the package types its options only
                self._url,
                socket=guarded,
                suppress_origin=True,
                redirect_limit=0,
                header=[f"User-Agent: {USER_AGENT}"],
            )
        except Exception as theirs:
            if guarded.failure is not None:
                raise guarded.failure from guarded.failure.__cause__
            raise ProtocolError(f"{io_deadline.what}: handshake answer not acceptable: {one_line(theirs)}") from theirs
        finally:
            # The client and its buffer hold each other, and with them our socket and its TLS state, for as long as
            # the garbage collector takes.
            del client.frame_buffer
        return WebSocketConnection(sock, self._host, guarded.headers, guarded.early)

    def __repr__(self) -> str:
        through = "" if self._proxy is None else f" through {self._proxy.address}"
        return f"<WebSocketTransport {self._host}:{self._port}{through}>"


class WebSocketConnection:
    """An open connection, owned by one I/O thread; only `abort()` may be called from others.

    After any error the connection is useless and must be closed.
    """

    source: Final = DataSource.WEBSOCKET

    def __init__(self, sock: socket.socket, host: str, response_headers: Mapping[str, str], early: bytes = b"") -> None:
        self.response_headers = response_headers  # of the 101 answer, names in lower case
        self._sock = sock
        self._tls = sock if isinstance(sock, ssl.SSLSocket) else None
        self._host = host
        self._early = early
        # Read into again and again: a fresh buffer of this size for every read would cost ten times the read.
        room = bytearray(RECV_BYTES)
        self._room = memoryview(room)
        # TLS takes its bytes from the system by itself: of these one can only see that there are more.
        self._read_held = held_read(sock, room) if self._tls is None else None
        self._look = None if self._tls is None else held_look(sock)
        self._may_hold = self._tls is not None  # more of a record than was taken
        # Why no further frame may be sent on this connection, though reading from it may still work.
        self._broken: str | None = None
        # Guards _is_closed and the moment of closing, so that abort() cannot hit a file descriptor that was
        # closed and given to someone else meanwhile. Neither call under it can block.
        self._lock = threading.Lock()
        self._is_closed = False

    def fileno(self) -> int:
        """For `selectors`; -1 once closed."""
        return self._sock.fileno()

    def pending(self) -> int:
        """Bytes already taken from the operating system, unknown to any selector: look before you select."""
        # TLS unpacks whole records; what is left of one lies here, where no selector sees it, and would wait for the
        # next packet. Asked only where something may be left: it gives up the GIL for the answer.
        return len(self._early) + (self._tls.pending() if self._tls is not None and self._may_hold else 0)

    def recv(self, max_bytes: int = RECV_BYTES) -> bytes | None:
        """What is there, at most 256 KiB, without waiting: None if nothing is, b"" at the end of the stream."""
        held = self._read_held
        if held is None or self._early or max_bytes < RECV_BYTES:
            return self._recv_released(max_bytes)
        if (count := held()) >= 0:
            return self._room[:count].tobytes()
        try:
            raise_failure()
        except OSError as theirs:
            raise translated(theirs, f"reading from {self._host}") from theirs
        return None

    def _recv_released(self, max_bytes: int) -> bytes | None:
        """As `recv`, giving up the GIL: of TLS, where the system has no held read, and of less than all."""
        if self._early:
            data, self._early = self._early[:max_bytes], self._early[max_bytes:]
            return data
        room = self._room if max_bytes >= RECV_BYTES else self._room[:max_bytes]
        try:
            count = self._sock.recv_into(room)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except OSError as theirs:
            raise translated(theirs, f"reading from {self._host}") from theirs
        if count and self._tls is not None:
            count += _further_records(self._tls, room[count:], self._look)
            self._may_hold = count == len(room)  # whoever asks for more than is left of a record gets what is left
        return room[:count].tobytes()

    def send(self, opcode: int, payload: bytes) -> None:
        """One whole masked frame, handed to the operating system within 2 seconds."""
        self._send(opcode, payload, SEND_SECONDS)

    def send_text(self, text: str) -> None:
        self._send(TEXT, text.encode(), SEND_SECONDS)

    def send_ping(self, payload: bytes = b"") -> None:
        self._send(PING, payload, SEND_SECONDS)

    def send_pong(self, payload: bytes = b"") -> None:
        self._send(PONG, payload, SEND_SECONDS)

    def send_close(self, code: int = 1000) -> bool:
        """Say goodbye within 0.2 seconds or not at all; whether it was said. 1005 sends no code."""
        payload = b"" if code == NO_STATUS else code.to_bytes(2, "big")
        try:
            self._send(CLOSE, payload, CLOSE_FRAME_SECONDS)
        except NetworkError:
            return False
        return True

    def _send(self, opcode: int, payload: bytes, seconds: float) -> None:
        if self._broken is not None:
            raise NetworkError(f"sending to {self._host}: impossible after an earlier failure ({self._broken})")
        # Encoded by the package, sent by us: its own send knows no deadline over the whole frame.
        frame = websocket.ABNF.create_frame(payload, opcode).format()
        try:
            send_all(self._sock, frame, IoDeadline(f"sending to {self._host}", Deadline.after(seconds)))
        except NetworkError as error:
            # Part of the frame may be out; whatever followed would be taken for its rest.
            self._broken = one_line(error)
            raise

    def abort(self) -> None:
        """Cut the connection, from any thread, without waiting: the owner's reads and writes end at once."""
        with self._lock:
            if not self._is_closed:
                self._shut_down()

    def close(self) -> None:
        """Give the socket back, at once and for good. Sends nothing: see `send_close`."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._read_held = self._look = None  # they know the socket by its number
            self._shut_down()
            # Inside the lock: `abort` looks at `_is_closed` there, and a number closed outside it could be someone
            # else's by then.
            self._sock.close()

    def _shut_down(self) -> None:
        # Not SSLSocket.shutdown, which first tears the TLS layer out from under the thread that is using it.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "open" if self._broken is None else f"broken: {self._broken}"
        return f"<WebSocketConnection {self._host} {state}>"


def _further_records(tls: ssl.SSLSocket, room: memoryview, look: Callable[[], int] | None) -> int:
    """Read on while records are there: TLS gives one per read, and a selector call for each would double the cost.

    An end or error met here shows itself again at the next read; what was read before it comes first.
    """
    total = 0
    with contextlib.suppress(OSError):
        # To be told by TLS that nothing more is there would give up the GIL once more, after every lone message.
        while total < len(room) and (look is None or look() > 0) and (count := tls.recv_into(room[total:])):
            total += count
    return total


def _parse_url(url: str) -> tuple[str, int, bool]:
    """Host, port and whether TLS is used; InvalidRequestError for what must not be dialled."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or parts.scheme not in ("ws", "wss") or _NOT_IN_URLS.search(url):
        raise InvalidRequestError("websocket_url: expected wss://host[:port]/path")
    if parts.username is not None or parts.fragment:
        raise InvalidRequestError("websocket_url: neither user:password@ nor #fragment can be part of it")
    is_secure = parts.scheme == "wss"
    if not is_secure and not _is_loopback(host):
        raise InvalidRequestError(f"websocket_url: ws:// is for this machine only; use wss://{host}")
    return host, port or (443 if is_secure else 80), is_secure


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# WebSocket handshake: the socket websocket-client sees, a complete, capped 101 answer, or an error of ours.
#
# Left to itself it reads headers and error bodies without end, one byte per call, and its exceptions carry all of them
# in their text. So the answer is read and judged here first, and only a good one is handed on.

# The words of a refusal are for people; nobody waits for them as long as for an answer.
ERROR_BODY_SECONDS: Final = 0.5


class HandshakeSocket:
    """What websocket-client gets for a socket; `headers`, `early` and `failure` tell what happened."""

    def __init__(self, sock: socket.socket, host: str, io_deadline: IoDeadline, clock: Clock) -> None:
        self._sock = sock
        self._host = host
        self._io_deadline = io_deadline
        self._clock = clock
        self._answer: io.BytesIO | None = None
        self.headers: Mapping[str, str] = {}
        self.early = b""  # frames that came in the same read as the answer
        # websocket-client mistakes our timeout for one of its own, so the real reason is kept here.
        self.failure: UpbitBackboneError | None = None

    def send(self, data: bytes) -> int:
        with self._keeping_failure():
            send_all(self._sock, data, self._io_deadline)
        return len(data)

    def recv(self, size: int) -> bytes:
        if self._answer is None:
            with self._keeping_failure():
                self._answer = io.BytesIO(self._read_answer())
        return self._answer.read(size)

    def gettimeout(self) -> None:
        return None

    def close(self) -> None:
        self._sock.close()

    def _read_answer(self) -> bytes:
        head, self.early = read_final_head(self._sock, self._io_deadline)
        # Before websocket-client sees it: its own exception carries all headers and the whole body in its text, and it
        # would follow a redirect with our headers.
        if head.status != SWITCHING_PROTOCOLS:
            raise refusal(head, self._read_error_body(head), self._host, self._clock.wall())
        for name in ("sec-websocket-extensions", "sec-websocket-protocol"):
            # A server that compresses without being asked sends frames with a reserved bit, and every one of them would
            # end the line: here the reason can still be told.
            if name in head.headers:
                raise ProtocolError(f"{self._io_deadline.what}: the server chose {name}, which was never offered")
        self.headers = head.headers
        # Without its cookies: websocket-client would keep them in a global jar and send them ever after. And repeated
        # headers as one: of two it sees the last only, so "Connection" in two lines may hide the upgrade from it.
        return head.without("set-cookie")

    def _read_error_body(self, head: Head) -> bytes:
        body, wanted = self.early[:MAX_BODY_BYTES], body_length(head)
        io_deadline = self._io_deadline.sooner(ERROR_BODY_SECONDS)
        # The status alone says enough; a body that is late or cut off must not hide it.
        with contextlib.suppress(NetworkError):
            while len(body) < wanted:
                chunk = retry_until_ready(partial(self._sock.recv, wanted - len(body)), self._sock, io_deadline)
                if not chunk:
                    break
                body += chunk
        return body

    @contextlib.contextmanager
    def _keeping_failure(self) -> Iterator[None]:
        try:
            yield
        except UpbitBackboneError as ours:
            self.failure = ours
            raise
