"""What answers mean and what their dates tell: decided without a network."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.errors import (
    AuthenticationError,
    BannedError,
    MaintenanceError,
    RateLimitError,
    ServerError,
    UnknownSymbolError,
    UpbitBackboneError,
)
from upbit_backbone.exchange import endpoints
from upbit_backbone.exchange.status import RefusedRequestError, UnexpectedAnswerError, symbols_of
from upbit_backbone.rest.group_queue import error_for_response
from upbit_backbone.wire.rest_transport import RestResponse

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
CALL = endpoints.tickers(["KRW-BTC", "KRW-ETH"])


def response(status: int, body: bytes = b"", **headers: str) -> RestResponse:
    return RestResponse(status, headers, body, 0.01, len(body))


def envelope(name: int | str, message: str) -> bytes:
    return json.dumps({"error": {"name": name, "message": message}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, envelope(400, "Invalid parameter. Check the given value!"), RefusedRequestError),
        (404, envelope(404, "Code not found"), UnknownSymbolError),
        (404, envelope("not_found", "no Route matched with those values"), UnexpectedAnswerError),
        (401, b"", AuthenticationError),
        (403, b"<html>", AuthenticationError),
        (418, b"", BannedError),
        (429, b"Too many API requests.", RateLimitError),
        (429, envelope("too_many_requests", "..."), RateLimitError),
        (500, b"", ServerError),
        (503, b"<html>\xec\xa0\x90\xea\xb2\x80</html>", MaintenanceError),
        (200, b"  <!DOCTYPE html>", MaintenanceError),
        (301, b"", UnexpectedAnswerError),
        (206, b"[]", UnexpectedAnswerError),
        (999, b"", ServerError),
    ],
)
def test_every_status_has_one_meaning(status: int, body: bytes, kind: type[UpbitBackboneError]) -> None:
    error = error_for_response(response(status, body), CALL, NOW)
    assert type(error) is kind
    assert "/v1/ticker" in str(error)


def test_a_good_answer_is_no_error() -> None:
    assert error_for_response(response(200, b"[]"), CALL, NOW) is None


def test_an_unknown_code_names_the_markets_that_were_asked() -> None:
    error = error_for_response(response(404, envelope(404, "Code not found")), CALL, NOW)
    assert isinstance(error, UnknownSymbolError)
    assert error.symbols == ("KRW-BTC", "KRW-ETH")
    assert symbols_of(endpoints.markets()) == ()


@pytest.mark.parametrize(
    ("body", "headers", "seconds"),
    [
        (b"", {"retry-after": "60"}, 60.0),
        (b'{"error":{"name":418,"message":"blocked for 300 seconds"}}', {}, 300.0),
        ("5분 동안 차단되었습니다".encode(), {}, 300.0),
        (b"", {}, None),
    ],
)
def test_a_ban_lasts_as_long_as_upbit_says(body: bytes, headers: dict[str, str], seconds: float | None) -> None:
    error = error_for_response(response(418, body, **headers), CALL, NOW)
    assert isinstance(error, BannedError)
    assert error.retry_after == seconds
    assert error.until == (None if seconds is None else NOW + timedelta(seconds=seconds))


@given(status=st.integers(100, 999), body=st.binary(max_size=300), wait=st.text(max_size=30))
def test_no_answer_is_beyond_judgement(status: int, body: bytes, wait: str) -> None:
    error = error_for_response(response(status, body, **{"retry-after": wait}), CALL, NOW)
    assert (error is None) == (status == 200 and not body[:64].lstrip().startswith(b"<"))
    assert error is None or "\n" not in str(error)
