"""One table from HTTP status and Upbit's error word to our error, for REST, handshake, stream and recorder. Pure.

A stream's error object carries a word instead of a status; the word stands for the status that REST would have given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Final

from .. import errors
from .endpoints import RestCall

OK, BAD_REQUEST, NOT_FOUND, TEAPOT, TOO_MANY, UNAVAILABLE = 200, 400, 404, 418, 429, 503
# Where Upbit does not say how long: it blocks for longer the more often it must (docs: rate-limits), and counts the
# rest per second.
DEFAULT_BAN_SECONDS: Final = 60.0
DEFAULT_LIMITED_SECONDS: Final = 1.0
CODE_NOT_FOUND: Final = "Code not found"

# docs: websocket-guide, errors. The spellings vary ("Too Many Requests", "TOO_MANY_REQUESTS"): see `status_of`.
# NO_TICKET is missing on purpose: it finds fault with our message, and no topic in it would be guilty.
STATUS_OF_WORD: Final[Mapping[str, int]] = MappingProxyType(
    {
        "too_many_requests": TOO_MANY,
        "im_a_teapot": TEAPOT,
        "invalid_auth": 401,
        "invalid_param": BAD_REQUEST,
        "no_codes": BAD_REQUEST,
        "no_type": BAD_REQUEST,
        "wrong_format": BAD_REQUEST,
    }
)
# Upbit's own text cannot be trusted to be sane; nobody is banned for longer than this by one answer.
MAX_WAIT_SECONDS: Final = 30 * 86_400.0
_SEARCHED_BYTES: Final = 4_096
_DURATION = re.compile(r"(\d{1,9})\s*(seconds?|secs?|s|minutes?|mins?|m|hours?|h|초|분|시간)(?![a-z])", re.IGNORECASE)
_UNIT_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "초": 1.0, "분": 60.0, "시": 3600.0}


class RefusedRequestError(errors.InvalidRequestError):
    """Upbit refused the question as it was put (400); the message repeats Upbit's words."""


class UnexpectedAnswerError(errors.ProtocolError):
    """An HTTP status that has no place here: a redirect, an unknown path. Asking again cannot help."""

    retryable = False


def error_for_status(
    status: int,
    message: str,
    *,
    said: str = "",
    wait: float | None = None,
    now: datetime | None = None,
    call: RestCall | None = None,
) -> errors.UpbitBackboneError:
    """The error that an answer in `status` stands for, told as `message` and what Upbit `said`.

    `wait` are the seconds Upbit asks for (see `wait_seconds`), `now` tells the end of a ban as a time, `call` is the
    question where it was one of REST's.
    """
    message += f": {said}" if said else ""
    asked = f" ({call})" if call is not None else ""
    match status:
        case 418:
            until = None if wait is None or now is None else now + timedelta(seconds=wait)
            return errors.BannedError(message, until=until, retry_after=wait)
        case 429:
            return errors.RateLimitError(message, retry_after=wait, group=None if call is None else call.group.value)
        case 401 | 403:
            return errors.AuthenticationError(message)
        case 404 if call is not None and said == CODE_NOT_FOUND:
            return errors.UnknownSymbolError(message + asked, symbols=symbols_of(call))
        case 400:
            return RefusedRequestError(message + asked)
        case 503:
            return errors.MaintenanceError(message, status=status, retry_after=wait)
        case _ if status >= 500:
            return errors.ServerError(message, status=status, retry_after=wait)
        case _:
            return UnexpectedAnswerError(message if call is None else f"{message}; expected 200: check rest_url")


def error_for_word(name: str, message: str) -> errors.UpbitBackboneError:
    """The error that an error object of the stream stands for."""
    return error_for_status(status_of(name), f"{name}: {message}")


def status_of(word: str) -> int:
    """The status REST would give for a stream's error word; 0 for one we do not know."""
    return STATUS_OF_WORD.get(word.lower().replace(" ", "_").replace("'", ""), 0)


def symbols_of(call: RestCall) -> tuple[str, ...]:
    """The market codes a call asks about."""
    for name, value in call.params:
        if name in ("market", "markets"):
            return tuple(value.split(","))
    return ()


def wait_seconds(headers: Mapping[str, str], body: bytes) -> float | None:
    """How long the server asks us to wait: Retry-After, else a duration in the text (300 seconds, 5분)."""
    stated = _retry_after(headers)
    if stated is None:
        parts = _DURATION.findall(body[:_SEARCHED_BYTES].decode("utf-8", "replace"))
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
