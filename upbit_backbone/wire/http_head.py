"""The head of an HTTP answer, and what a refusal means: bytes in, values and errors of ours out.

Shared by the WebSocket handshake and the proxy's CONNECT, which both must read an answer's head under their
own limits and never one byte further than they can account for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Final, NamedTuple

from ..errors import (
    AuthenticationError,
    BannedError,
    MaintenanceError,
    ProtocolError,
    RateLimitError,
    ServerError,
    UpbitBackboneError,
    one_line,
)

MAX_HEAD_BYTES: Final = 65_536
MAX_BODY_BYTES: Final = 4_096
END_OF_HEAD: Final = b"\r\n\r\n"
SWITCHING_PROTOCOLS: Final = 101
# Upbit's own text cannot be trusted to be sane; nobody is banned for longer than this by one answer.
MAX_WAIT_SECONDS: Final = 30 * 86_400.0

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: ([^\r\n]*))?")
_DURATION = re.compile(r"(\d{1,9})\s*(seconds?|secs?|s|minutes?|mins?|m|hours?|h|초|분|시간)(?![a-z])", re.IGNORECASE)
_UNIT_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "초": 1.0, "분": 60.0, "시": 3600.0}


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


def looks_like_http(received: bytes | bytearray) -> bool:
    """False as soon as what came cannot become an HTTP answer any more, so that nobody waits for its end."""
    prefix = b"HTTP/1."
    return prefix.startswith(received[: len(prefix)])


def parse_head(raw: bytes) -> Head:
    """A complete head, without its final empty line; ProtocolError where it is none."""
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
    said = one_line(body.decode("utf-8", "replace").strip())
    message = f"{host} answered {head.status} {head.reason}".rstrip() + " to the WebSocket handshake"
    message += f": {said}" if said else ""
    wait = wait_seconds(head.headers, body)
    if head.status == 418:
        until = None if wait is None else now + timedelta(seconds=wait)
        return BannedError(message, until=until, retry_after=wait)
    if head.status == 429:
        return RateLimitError(message, retry_after=wait)
    if head.status in (401, 403):
        return AuthenticationError(message)
    if head.status == 503:
        return MaintenanceError(message, status=head.status, retry_after=wait)
    if head.status >= 500:
        return ServerError(message, status=head.status, retry_after=wait)
    return HandshakeRefusedError(f"{message}; check websocket_url", status=head.status)


def wait_seconds(headers: Mapping[str, str], body: bytes) -> float | None:
    """How long the server asks us to wait: Retry-After, else a duration in the text (300 seconds, 5분)."""
    stated = _retry_after(headers)
    if stated is None:
        parts = _DURATION.findall(body[:MAX_BODY_BYTES].decode("utf-8", "replace"))
        # The same duration may be said in two languages: each adds up for itself (1분 30초, 1 minute 30 seconds).
        said = [
            sum(int(number) * _UNIT_SECONDS[unit[0].lower()] for number, unit in parts if unit.isascii() is is_english)
            for is_english in (True, False)
        ]
        stated = max(said) if parts else None
    return None if stated is None else min(stated, MAX_WAIT_SECONDS)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,12}", text, re.ASCII):
        return float(text)
    if "date" not in headers:
        return None
    try:
        # Both times are the server's, so a wrong clock here does not matter.
        wait = _moment(text) - _moment(headers["date"])
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, wait.total_seconds())


def _moment(text: str) -> datetime:
    moment = parsedate_to_datetime(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _text(raw: bytes) -> str:
    return one_line(raw.decode("latin-1"))
