"""What callers give, as Python's own numbers and times: whatever library theirs come from, or refused in words. Pure.

Numbers out of a DataFrame are numpy's: an `np.int64` is no `int`, an `np.float32` no `float`. They are taken by
Python's own protocols (`__index__`, `numbers.Real`), so nothing here knows numpy. Truth is no number, text neither.
"""

from __future__ import annotations

import contextlib
import math
import operator
from datetime import UTC, date, datetime
from decimal import Decimal
from numbers import Real
from typing import Any, Final, TypeAlias

from ._log import raise_if_users
from .errors import InvalidRequestError, one_line

Moment: TypeAlias = datetime | str  # a pandas.Timestamp is a datetime

HOW_TO_SAY_WHEN: Final = (
    "a time with its zone: '2026-01-31 09:30+09:00' (Korean time), '2026-01-31 00:30Z' (UTC), or a datetime with tzinfo"
)
HOW_TO_SAY_WHICH_DAY: Final = f"a UTC day such as '2026-01-31' or a date, or {HOW_TO_SAY_WHEN}"


def as_whole(value: object) -> int | None:
    """`value` as an int; None where it is no whole number (floats never are: 5.0 may have been 4.9)."""
    if type(value) is int:
        return value
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def as_real(value: object) -> float | None:
    """`value` as a float, infinite where it is too large for one; None where it is no number."""
    if type(value) is float:
        return value
    # `numbers.Real` and not `__float__`, which numpy's own truth (`np.bool_`) has as well.
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > Decimal(0) else -math.inf  # type: ignore[operator]  # a Real knows its sign
    except ValueError as refusal:  # a Decimal's signalling NaN
        raise_if_users(refusal)
        return math.nan


def whole_number(value: object, name: str, *, low: int, high: int | None = None, more: str = "") -> int:
    """`value` as an int from `low` to `high`; `more` tells what to do instead."""
    number = as_whole(value)
    if number is None or number < low or (high is not None and number > high):
        bounds = f">= {low}" if high is None else f"from {low} to {high:,}"
        raise InvalidRequestError(f"{name}={one_line(repr(value), 60)}: expected a whole number {bounds}{more}")
    return number


def aware(moment: object, name: str, expected: str = HOW_TO_SAY_WHEN) -> datetime:
    """`moment`, a datetime or ISO 8601 text, in UTC; InvalidRequestError unless it says which clock it was read from.

    Refused without a zone: read as local, Korean or UTC it might be nine hours off without a word.
    """
    given = one_line(repr(moment), 60)
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment.strip())
        except ValueError as refusal:
            raise_if_users(refusal)
            raise InvalidRequestError(f"{name}={given}: expected {expected}") from None
    if not isinstance(moment, datetime):
        what = "a day begins at midnight of some zone; " if isinstance(moment, date) else ""
        raise InvalidRequestError(f"{name}={given}: {what}expected {expected}")
    if moment != moment:
        raise InvalidRequestError(f"{name}={given}: expected {expected}")
    if moment.utcoffset() is None:
        raise InvalidRequestError(
            f"{name}={given}: no time zone, so nobody knows when that was; expected {_both(moment)}"
        )
    return _in_utc(moment)


def utc_day(day: object, name: str) -> datetime:
    """When the UTC day begins that is meant by a date, by its ISO 8601 text, or by a time in it as `aware` takes it."""
    if isinstance(day, str):
        with contextlib.suppress(ValueError):  # then it is no day but a time, or `aware` says what is expected
            day = date.fromisoformat(day.strip())
    if isinstance(day, date) and not isinstance(day, datetime):
        return datetime(day.year, day.month, day.day, tzinfo=UTC)
    return aware(day, name, HOW_TO_SAY_WHICH_DAY).replace(hour=0, minute=0, second=0, microsecond=0)


def _both(moment: datetime) -> str:
    """The two ways to write what was meant by a time without a zone."""
    text = moment.isoformat(sep=" ", timespec="seconds" if moment.second or moment.microsecond else "minutes")
    return (
        f"'{text}+09:00' (Korean time) or '{text}Z' (UTC); a datetime: .replace(tzinfo=upbit_backbone.KST) or "
        ".replace(tzinfo=datetime.UTC)"
    )


def _in_utc(moment: datetime) -> datetime:
    """A plain datetime, since a pandas.Timestamp would make others of all that is reckoned from it."""
    try:
        utc: Any = moment.astimezone(UTC)
    except OverflowError:
        # `datetime.max` with a zone is a way to say "no end"; in UTC it lies beyond what a datetime can hold.
        return (datetime.max if moment.year > 2000 else datetime.min).replace(tzinfo=UTC)
    return datetime(utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second, utc.microsecond, tzinfo=UTC)
