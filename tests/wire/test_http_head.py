"""What the answer to a handshake means: heads, refusals and how long to wait, without a socket."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from upbit_backbone.errors import (
    AuthenticationError,
    BannedError,
    MaintenanceError,
    ProtocolError,
    RateLimitError,
    ServerError,
    UpbitBackboneError,
)
from upbit_backbone.exchange.status import MAX_WAIT_SECONDS, wait_seconds
from upbit_backbone.wire.http_head import (
    MAX_BODY_BYTES,
    HandshakeRefusedError,
    body_length,
    looks_like_http,
    parse_head,
    refusal,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def refused(status_line: str, body: bytes = b"", **headers: str) -> UpbitBackboneError:
    lines = [
        f"HTTP/1.1 {status_line}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return refusal(parse_head("\r\n".join(lines).encode("latin-1")), body, "api.upbit.com", NOW)


@pytest.mark.parametrize(
    ("status_line", "kind", "retryable"),
    [
        ("401 Unauthorized", AuthenticationError, False),
        ("403 Forbidden", AuthenticationError, False),
        ("418 I'm a teapot", BannedError, True),
        ("429 Too Many Requests", RateLimitError, True),
        ("500 Internal Server Error", ServerError, True),
        ("502 Bad Gateway", ServerError, True),
        ("503 Service Unavailable", MaintenanceError, True),
        ("504 Gateway Timeout", ServerError, True),
        ("200 OK", HandshakeRefusedError, False),
        ("302 Found", HandshakeRefusedError, False),
        ("404 Not Found", HandshakeRefusedError, False),
        ("404", HandshakeRefusedError, False),
    ],
)
def test_each_status_becomes_the_error_that_says_what_to_do(
    status_line: str, kind: type[UpbitBackboneError], retryable: bool
) -> None:
    error = refused(status_line)
    assert type(error) is kind
    assert error.retryable is retryable
    assert str(error).startswith(f"api.upbit.com answered {status_line} to the WebSocket handshake")


def test_a_ban_tells_until_when() -> None:
    error = refused("418 I'm a teapot", b'{"error":{"message":"blocked for 300 seconds"}}')
    assert isinstance(error, BannedError)
    assert error.until == NOW + timedelta(seconds=300)
    assert error.retry_after == 300


def test_a_ban_without_a_duration_leaves_it_open() -> None:
    error = refused("418 I'm a teapot")
    assert isinstance(error, BannedError)
    assert error.until is None
    assert error.retry_after is None


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({"retry-after": "7"}, b"", 7.0),
        ({"retry-after": "7"}, b"wait 99 seconds", 7.0),
        ({"retry-after": "0"}, b"", 0.0),
        ({"retry-after": "-5"}, b"", None),
        ({"retry-after": "soon"}, b"", None),
        ({"retry-after": "soon", "date": "Fri, 02 Jan 2026 03:04:05 GMT"}, b"", None),
        ({"retry-after": "9" * 40}, b"", None),
        ({"retry-after": "999999999"}, b"", MAX_WAIT_SECONDS),
        (
            {"retry-after": "Fri, 02 Jan 2026 03:05:05 GMT", "date": "Fri, 02 Jan 2026 03:04:05 GMT"},
            b"",
            60.0,
        ),
        ({"retry-after": "Fri, 02 Jan 2026 03:04:00 GMT", "date": "Fri, 02 Jan 2026 03:04:05 GMT"}, b"", 0.0),
        ({"retry-after": "Fri, 02 Jan 2026 03:05:05 GMT"}, b"", None),
        ({}, b"", None),
        ({}, b"<html>nginx</html>", None),
        ({}, b"blocked for 90s", 90.0),
        ({}, b"blocked for 1 hour 30 minutes", 5_400.0),
        ({}, "5분 30초 동안 차단되었습니다".encode(), 330.0),
        ({}, "차단 시간: 2시간".encode(), 7_200.0),
        ({}, b"10 markets, 5 sections", None),
        ({}, b"\xff\xfe 20 seconds", 20.0),
    ],
)
def test_the_time_to_wait_is_taken_from_the_header_or_the_text(
    headers: dict[str, str], body: bytes, expected: float | None
) -> None:
    assert wait_seconds(headers, body) == expected


def test_server_text_is_escaped_and_cut() -> None:
    error = refused("404 Not\x1b[31m Found", b"<h1>\r\n\x1b[2J" + b"x" * 4_000)
    text = str(error)
    assert text.isprintable()
    assert len(text) < 500
    assert "\\u001b[31m" in text


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/2 101",
        b"HTTP/1.1 1O1 Switching",
        b"HTTP/1.1 99 Low",
        b"HTTP/1.1 101 Switching\r\nno colon",
        b"HTTP/1.1 101 Switching\r\n folded: line",
        b"HTTP/1.1 101 Switching\r\nname : value",
        b"HTTP/1.1 101 Switching\r\n: nameless",
        b"HTTP/1.1 101 Switching\r\na: b\nc: d",
        b"HTTP/1.1 101 Switching\r\na: b\rc: d",
    ],
)
def test_a_malformed_head_is_a_protocol_error(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_head(raw)


def test_a_head_keeps_names_in_lower_case_and_joins_repeated_ones() -> None:
    head = parse_head(b"HTTP/1.1 101 Switching Protocols\r\nRemaining-Req: group=a\r\nX: 1\r\nx:2")
    assert (head.status, head.reason) == (101, "Switching Protocols")
    assert head.headers == {"remaining-req": "group=a", "x": "1, 2"}


@pytest.mark.parametrize(
    ("announced", "expected"),
    [("10", 10), ("99999999999", MAX_BODY_BYTES), ("-1", MAX_BODY_BYTES), ("x", MAX_BODY_BYTES)],
)
def test_an_error_body_is_never_worth_more_than_the_cap(announced: str, expected: int) -> None:
    assert body_length(parse_head(f"HTTP/1.1 503 x\r\nContent-Length: {announced}".encode())) == expected


def test_what_is_not_http_is_known_from_its_first_bytes() -> None:
    assert all(looks_like_http(b"HTTP/1.1 101"[:length]) for length in range(13))
    assert not any(looks_like_http(other) for other in (b"S", b"SSH-2.0", b"HTTP/2", b"\x15\x03\x01"))
