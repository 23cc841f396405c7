"""What an HTTP answer of Upbit's means: None for a good one, else the error it stands for. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from ..errors import (
    AuthenticationError,
    BannedError,
    InvalidRequestError,
    MaintenanceError,
    ProtocolError,
    RateLimitError,
    ServerError,
    UnknownSymbolError,
    UpbitBackboneError,
    one_line,
)
from ..exchange.endpoints import RestCall
from ..unify.rest import decode_error
from ..wire.http_head import wait_seconds
from ..wire.rest_transport import RestResponse

CODE_NOT_FOUND: Final = "Code not found"
TEAPOT, TOO_MANY, NOT_FOUND, BAD_REQUEST, UNAVAILABLE = 418, 429, 404, 400, 503


class RefusedRequestError(InvalidRequestError):
    """Upbit refused the question as it was put (400); the message repeats Upbit's words."""


class UnexpectedAnswerError(ProtocolError):
    """An HTTP status that has no place here: a redirect, an unknown path. Asking again cannot help."""

    retryable = False


def judge(response: RestResponse, call: RestCall, now: datetime) -> UpbitBackboneError | None:
    """The error an answer stands for, or None. `now` tells the end of a ban as a time."""
    if response.status == 200:
        return _judge_page(response, call)
    envelope = decode_error(response.body)
    said = envelope[1] if envelope else one_line(response.body[:200].decode("utf-8", "replace").strip())
    message = f"{call.path} answered {response.status}" + (f": {said}" if said else "")
    wait = wait_seconds(response.headers, response.body)
    match response.status:
        case 418:
            until = None if wait is None else now + timedelta(seconds=wait)
            return BannedError(message, until=until, retry_after=wait)
        case 429:
            return RateLimitError(message, retry_after=wait, group=call.group.value)
        case 401 | 403:
            return AuthenticationError(message)
        case 404 if said == CODE_NOT_FOUND:
            return UnknownSymbolError(f"{message} ({call})", symbols=symbols_of(call))
        case 400:
            return RefusedRequestError(f"{message} ({call})")
        case 503:
            return MaintenanceError(message, status=503, retry_after=wait)
        case status if status >= 500:
            return ServerError(message, status=status, retry_after=wait)
        case _:
            return UnexpectedAnswerError(f"{message}; expected 200: check rest_url")


def symbols_of(call: RestCall) -> tuple[str, ...]:
    """The market codes a call asks about."""
    for name, value in call.params:
        if name in ("market", "markets"):
            return tuple(value.split(","))
    return ()


def _judge_page(response: RestResponse, call: RestCall) -> UpbitBackboneError | None:
    looks_like_html = response.body[:64].lstrip().startswith(b"<")
    if looks_like_html:
        return MaintenanceError(f"{call.path} answered with a web page instead of data", status=response.status)
    return None
