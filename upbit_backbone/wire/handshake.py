"""WebSocket handshake: the socket websocket-client sees, a complete, capped 101 answer, or an error of ours.

Left to itself it reads headers and error bodies without end, one byte per call, and its exceptions carry all
of them in their text. So the answer is read and judged here first, and only a good one is handed on.
"""

from __future__ import annotations

import contextlib
import io
import socket
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final

from .._concurrency import Clock
from ..errors import NetworkError, ProtocolError, UpbitBackboneError
from .http_head import MAX_BODY_BYTES, SWITCHING_PROTOCOLS, Head, body_length, refusal
from .io_deadline import IoDeadline, read_final_head, retry_until_ready, send_all

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
