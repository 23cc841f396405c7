"""What answers mean and what their dates tell: decided without a network."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

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
from upbit_backbone.rest.clock_offset import ClockOffset
from upbit_backbone.rest.status import RefusedRequestError, UnexpectedAnswerError, judge, symbols_of
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
    error = judge(response(status, body), CALL, NOW)
    assert type(error) is kind
    assert "/v1/ticker" in str(error)


def test_a_good_answer_is_no_error() -> None:
    assert judge(response(200, b"[]"), CALL, NOW) is None


def test_an_unknown_code_names_the_markets_that_were_asked() -> None:
    error = judge(response(404, envelope(404, "Code not found")), CALL, NOW)
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
    error = judge(response(418, body, **headers), CALL, NOW)
    assert isinstance(error, BannedError)
    assert error.retry_after == seconds
    assert error.until == (None if seconds is None else NOW + timedelta(seconds=seconds))


@given(status=st.integers(100, 999), body=st.binary(max_size=300), wait=st.text(max_size=30))
def test_no_answer_is_beyond_judgement(status: int, body: bytes, wait: str) -> None:
    error = judge(response(status, body, **{"retry-after": wait}), CALL, NOW)
    assert (error is None) == (status == 200 and not body[:64].lstrip().startswith(b"<"))
    assert error is None or "\n" not in str(error)


def learned(*samples: tuple[float, float]) -> ClockOffset:
    """Answers at (seconds after NOW, true offset of the server's clock)."""
    offset = ClockOffset()
    for at, true_offset in samples:
        received = NOW + timedelta(seconds=at)
        server = (received + timedelta(seconds=true_offset)).replace(microsecond=0)
        offset.learn(format_datetime(server, usegmt=True), received, elapsed=0.0)
    return offset


def test_nothing_is_known_before_the_first_answer() -> None:
    assert ClockOffset().estimate() is None


@given(
    true_offset=st.floats(-3600, 3600),
    moments=st.lists(st.floats(0, 100), min_size=1, max_size=30),
)
def test_the_estimate_is_never_off_by_more_than_half_a_second(true_offset: float, moments: list[float]) -> None:
    estimate = learned(*((at, true_offset) for at in sorted(moments))).estimate()
    assert estimate is not None
    assert abs(estimate - true_offset) <= 0.5 + 1e-3


def test_many_answers_tell_more_than_the_resolution_of_one() -> None:
    estimate = learned(*((at * 0.137, 2.25) for at in range(32))).estimate()
    assert estimate == pytest.approx(2.25, abs=0.05)


def test_a_clock_that_was_set_is_believed_by_the_majority_and_then_wholly() -> None:
    offset = learned(*((at * 0.1, 0.0) for at in range(10)), *((at * 0.1, 60.0) for at in range(10, 32)))
    estimate = offset.estimate()
    assert estimate is not None
    assert estimate > 50


@pytest.mark.parametrize("text", [None, "", "soon", "Fri, 99 Foo 2100", "Fri, 20 Nov 2026 12:00:00", "\x00"])
def test_dates_that_are_none_teach_nothing(text: str | None) -> None:
    offset = ClockOffset()
    offset.learn(text, NOW, 0.1)
    assert offset.estimate() is None
