"""How one value is read: strictly about meaning, tolerantly about spelling.

A number may be written as Upbit likes (`8450000.00000000`, `1.16539E8`, `0E-8`) or be quoted; its value is exactly
that of the text, its spelling the plain one. A float has lost that text already and is refused.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from ..models.enums import Change, Side, StreamType
from ..models.number import plain

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

PAST_INT64 = 2**63

_FIRST_MICROSECOND_STAMP = 10**14  # as milliseconds this would be the year 5138
LAST_DIRECT_MILLISECOND = 2**33 * 1000  # up to here (the year 2242) a double holds every microsecond
_DAY = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)", re.ASCII)
_TIME = re.compile(r"(\d\d)(?::?(\d\d))?(?::?(\d\d))?", re.ASCII)
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)?", re.ASCII)


def number(value: object) -> Decimal:
    """A signed number, from a Decimal, an int or a quoted number (even one with a comma stuck to its end)."""
    if isinstance(value, float):
        raise ValueError("is a float, which has lost the text of the number (decode with parse_float=Decimal)")
    if isinstance(value, bool) or not isinstance(value, Decimal | int | str):
        raise ValueError("is not a number")
    try:
        result = Decimal(value.removesuffix(",") if isinstance(value, str) else value)
    except InvalidOperation:
        raise ValueError("is not a number") from None
    try:
        return plain(result)
    except (ArithmeticError, ValueError):
        raise ValueError("is not a finite number of sensible size") from None


def amount(value: object) -> Decimal:
    """A price, size or turnover: a number that cannot be negative."""
    result = number(value)
    if result < 0:
        raise ValueError("is negative")
    return result


def amounts(value: object) -> tuple[Decimal, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("is not a list")
    return tuple(amount(element) for element in value)


def whole(value: object) -> int:
    """A non-negative 64-bit integer in any spelling whose value is integral."""
    result = amount(value)
    if result >= PAST_INT64:
        raise ValueError("is not a 64-bit number")
    if result != int(result):
        raise ValueError("is not a whole number")
    return int(result)


@lru_cache(maxsize=64)
def _whole_second(seconds: int) -> datetime:
    """Kept for the many stamps of one second: to find the date costs as much as all else of a moment."""
    return datetime.fromtimestamp(seconds, UTC)


_MILLISECONDS = tuple(timedelta(milliseconds=each) for each in range(1000))


def to_moment(stamp: int) -> datetime:
    """Upbit's milliseconds since 1970 as aware UTC, exact. Stamps too large for that are microseconds, which Upbit
    has been seen to send on USDT books; ValueError or OverflowError outside the calendar."""
    if 0 <= stamp < LAST_DIRECT_MILLISECOND:
        return _whole_second(stamp // 1000) + _MILLISECONDS[stamp % 1000]
    if stamp < 0:
        raise ValueError("is before 1970")
    if stamp < _FIRST_MICROSECOND_STAMP:
        return EPOCH + timedelta(milliseconds=stamp)
    return EPOCH + timedelta(microseconds=stamp)


def moment(value: object) -> datetime:
    return to_moment(whole(value))


def day(value: object) -> date:
    """`2026-11-20`, `20261120`, or the object with year, month and day that the SDK describes."""
    if isinstance(value, dict):
        return date(*(whole(value.get(part)) for part in ("year", "month", "day")))
    match = _DAY.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("is not a date")
    return date(*map(int, match.groups()))


def to_utc(start: datetime) -> datetime:
    """Upbit writes UTC without saying so."""
    return start.replace(tzinfo=UTC) if start.tzinfo is None else start.astimezone(UTC)


def utc_text(value: object) -> datetime:
    """`2026-11-20T05:10:00`, which is UTC though it does not say so."""
    if not isinstance(value, str) or _DATE_TIME.fullmatch(value) is None:
        raise ValueError("is not a date and time")
    return to_utc(datetime.fromisoformat(value))


def day_and_time(day_text: object, time_text: object) -> datetime:
    """Upbit's separate date and time (UTC). A trade's time drops zero seconds: `18:17`."""
    match = _TIME.fullmatch(time_text) if isinstance(time_text, str) else None
    if match is None:
        raise ValueError("is not a time of day")
    hour, minute, second = (int(part or 0) for part in match.groups())
    on = day(day_text)
    return datetime(on.year, on.month, on.day, hour, minute, second, tzinfo=UTC)


@lru_cache(maxsize=8192)
def to_symbol(code: str) -> str:
    """A market code fit to be printed and sent. One string per market is kept, shared by all its data."""
    if not (0 < len(code) <= 40 and code.isascii() and code.isprintable() and " " not in code):
        raise ValueError("is not a market code")
    return sys.intern(code)


def symbol(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("is not a market code")
    return to_symbol(value)


def text(value: object) -> str:
    """Any text that can be encoded again (JSON can smuggle in halves of characters)."""
    if not isinstance(value, str):
        raise ValueError("is not a text")
    value.encode()
    return value


def flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("is neither true nor false")
    return value


def raised_flags(value: object) -> tuple[str, ...]:
    """The names of those that are true."""
    if not isinstance(value, dict):
        raise ValueError("is not an object of flags")
    return tuple(text(name) for name, is_up in value.items() if flag(is_up))


Word = TypeVar("Word", bound=StrEnum)


def word_of(words: type[Word]) -> Callable[[object], Word | str]:
    """A list of words that Upbit may add to: one we do not know yet stays the text it is."""
    known = {member.value: member for member in words}

    def word(value: object) -> Word | str:
        said = text(value)
        return known.get(said, said)

    return word


def to_signed(difference: Decimal | None, direction: Change | str | None) -> Decimal | None:
    """The signed difference from its absolute value and the direction; None while either is unknown."""
    if difference is None or not isinstance(direction, Change):
        return None
    return plain(difference.copy_negate()) if direction is Change.FALL else difference


class Conversion(NamedTuple):
    """How a field is read: `tolerant` takes any JSON value; `typed` is what the fast decoders ask msgspec for."""

    name: str
    tolerant: Callable[[object], Any]
    typed: Any


SYMBOL = Conversion("symbol", symbol, str)
AMOUNT = Conversion("amount", amount, Decimal)
SIGNED = Conversion("signed", number, Decimal)
AMOUNTS = Conversion("amounts", amounts, list[Decimal])
WHOLE = Conversion("whole", whole, int)
MOMENT = Conversion("moment", moment, int)
DAY = Conversion("day", day, date)
UTC_TEXT = Conversion("utc text", utc_text, datetime)
TEXT = Conversion("text", text, str)
FLAG = Conversion("flag", flag, bool)
RAISED_FLAGS = Conversion("raised flags", raised_flags, dict[str, bool])
CHANGE = Conversion("change", word_of(Change), Change)
SIDE = Conversion("side", word_of(Side), Side)
STREAM_TYPE = Conversion("stream type", word_of(StreamType), StreamType)
