"""HTTP head of an answer, and what a refusal means: bytes in, values and errors of ours out.

Shared by the WebSocket handshake and the proxy's CONNECT, which both must read an answer's head under their
own limits and never one byte further than they can account for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final, NamedTuple

from ..errors import ProtocolError, UpbitBackboneError, one_line
from ..exchange.status import RefusedRequestError, UnexpectedAnswerError, error_for_status, wait_seconds

MAX_HEAD_BYTES: Final = 65_536  # headers without end were read to the end by websocket-client
MAX_BODY_BYTES: Final = 4_096  # of a refusal, whose words are for people
MAX_INTERIM_ANSWERS: Final = 16  # nobody needs more hints than that
END_OF_HEAD: Final = b"\r\n\r\n"
SWITCHING_PROTOCOLS: Final = 101

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: ([^\r\n]*))?")


class HandshakeRefusedError(ProtocolError):
    """The WebSocket handshake was answered with a status that trying again cannot change (404, 302, ...)."""

    retryable = False
    whose_fault = "the caller's"

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class Head(NamedTuple):
    """Status and headers (names in lower case, repeated ones joined by commas)."""

    status: int
    reason: str
    headers: Mapping[str, str]

    @property
    def is_interim(self) -> bool:
        """Whether the real answer is still to come (100 Continue, 103 Early Hints)."""
        return is_interim(self.status)

    def without(self, name: str) -> bytes:
        """The head as bytes, each header on one line, less one of them."""
        lines = [f"{key}: {value}" for key, value in self.headers.items() if key != name]
        return "\r\n".join([f"HTTP/1.1 {self.status} {self.reason}", *lines, "", ""]).encode("latin-1")


def is_interim(status: int) -> bool:
    """101 is not: it ends HTTP on the connection."""
    return 100 <= status < 200 and status != SWITCHING_PROTOCOLS


def looks_like_http(received: bytes | bytearray) -> bool:
    """False as soon as what came cannot become an HTTP answer any more, so that nobody waits for its end."""
    prefix = b"HTTP/1."
    return prefix.startswith(received[: len(prefix)])


def parse_head(raw: bytes) -> Head:
    """A complete head, without its final empty line; ProtocolError where it is none."""
    # Split at CRLF only, and a lone CR or LF refused below: two readers that end lines differently see different
    # headers.
    status_line, *lines = raw.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(status_line)
    if match is None:
        raise ProtocolError(f"not an HTTP answer: {_text(status_line)}")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        # By a folded or nameless line, or a lone CR or LF, one reader is made to see what another does not.
        if not colon or not name.strip() or name != name.strip() or b"\n" in line or b"\r" in line:
            raise ProtocolError(f"malformed HTTP header line: {_text(line)}")
        key, text = name.decode("latin-1").lower(), value.strip().decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return Head(int(match[1]), _text(match[2] or b""), MappingProxyType(headers))


def body_length(head: Head) -> int:
    """How much of an error's body is worth reading: what it announces, at most the cap."""
    announced = head.headers.get("content-length", "")
    return min(int(announced), MAX_BODY_BYTES) if announced.isdecimal() else MAX_BODY_BYTES


def refusal(head: Head, body: bytes, host: str, now: datetime) -> UpbitBackboneError:
    """What an answer other than 101 means; `now` is only used where a ban's end has to be told as a time."""
    message = f"{host} answered {head.status} {head.reason}".rstrip() + " to the WebSocket handshake"
    said = one_line(body.decode("utf-8", "replace").strip())
    error = error_for_status(head.status, message, said=said, wait=wait_seconds(head.headers, body), now=now)
    if isinstance(error, (RefusedRequestError, UnexpectedAnswerError)):
        return HandshakeRefusedError(f"{error}; check websocket_url", status=head.status)
    return error


def _text(raw: bytes) -> str:
    return one_line(raw.decode("latin-1"))
