"""Reads one decoded message by the table, field by field, and complains by name.

What is needed to know what, when and how much is insisted on; any other field that cannot be read is None in the model
and told to whoever wants to count it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, NoReturn

from .._log import raise_if_users
from ..errors import MalformedDataError, UpbitBackboneError, one_line
from ..exchange.fields import FIELD_TABLE, Field, Spelling, Use
from ..models.enums import DataSource

# JSON read by the standard library: slower, and exact for any shape of message.


def read_json(raw: bytes) -> Any:
    """The decoded payload, its numbers Decimal or int; of equal keys the last one counts. Anything that is not JSON
    in UTF-8, nests too deep or holds impossible numbers is a MalformedDataError."""
    try:
        # `str` first: json would guess the encoding of bytes and take UTF-16 as well.
        return json.loads(str(raw, "utf-8"), parse_float=Decimal, parse_constant=_refuse)
    except (ValueError, ArithmeticError, RecursionError) as problem:
        raise_if_users(problem)
        sample = one_line(bytes(raw[:60]).decode("utf-8", "replace"), 80)
        raise MalformedDataError(f"not JSON ({one_line(problem, 100)}): {sample}") from problem


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number in JSON")


_MODEL_USES = (Use.REQUIRED, Use.DERIVABLE, Use.OPTIONAL)
_ROWS: Mapping[str, Mapping[str, Field]] = {kind: {row.name: row for row in rows} for kind, rows in FIELD_TABLE.items()}


class UnreadField(NamedTuple):
    """A field that came and could not be read; its message was taken without it. `key` is its name on the wire, with
    its place in the payload."""

    kind: str
    name: str
    key: str
    reason: str


class UnreadRow(NamedTuple):
    """An element of a list that could not be read, while the others were: what it is about, as far as that could be
    told, and why not. `at` is when a candle starts, or a trade happened."""

    kind: str | None
    symbol: str | None
    place: int
    error: UpbitBackboneError
    row: Any
    at: datetime | None = None


Unread = UnreadField | UnreadRow
Tell = Callable[[Unread], object]


def tell_nobody(unread: Unread) -> None:
    """For who reads single messages and does not count."""


def spelling_of(raw: object, source: DataSource) -> Spelling:
    if source is DataSource.REST or not isinstance(raw, Mapping):
        return Spelling.REST
    # Without a type it is a frame of 2018, or a REST row handed in as one: both have full names.
    is_simple = "type" not in raw and not raw.keys().isdisjoint(("ty", "cd", "mk"))
    return Spelling.SIMPLE if is_simple else Spelling.DEFAULT


class Reader:
    """Reads the fields of one message by the table. Every complaint names the field, as spelled on the wire.

    `place` is where the message stands in the payload, for the complaint: `[3].` or `orderbook_units[0].`.
    """

    def __init__(self, kind: str, raw: object, spelling: Spelling, place: str = "", tell: Tell = tell_nobody) -> None:
        if not isinstance(raw, Mapping):
            where = place.rstrip(".") or None
            raise MalformedDataError(f"{kind}: {where or 'the message'} is not an object", field=where)
        self._kind = kind
        self._raw = raw
        self._spelling = spelling
        self._place = place
        self._tell = tell

    def model_fields(self) -> dict[str, Any]:
        """Every field that this channel sends, converted; None for those that are missing or could not be read."""
        return {
            row.name: self.value(row.name)
            for row in FIELD_TABLE[self._kind]
            if row.use in _MODEL_USES and row.spelled(self._spelling)
        }

    def value(self, name: str) -> Any:
        row = _ROWS[self._kind][name]
        # The name of today first: where both come, the old one may be a leftover that is not kept up.
        for key in (row.spelled(self._spelling), *row.old):
            found = None if key is None else _look_up(self._raw, key)
            if found is not None:
                try:
                    return row.how.tolerant(found)
                except (ValueError, TypeError, ArithmeticError) as problem:
                    raise_if_users(problem)
                    self._unreadable(row, f"{_short(problem)}: {shown(found)}")
                    return None
        if row.use is Use.REQUIRED:
            raise self.complaint(name, "is missing")
        return None

    def derive(self, derivation: Callable[..., Any], *helpers: str) -> Any:
        """What `derivation` makes of the helper fields, or None while one of them is missing or makes no sense."""
        values = [self.value(helper) for helper in helpers]
        if None in values:
            return None
        try:
            return derivation(*values)
        except ValueError as problem:
            raise_if_users(problem)
            self._unreadable(_ROWS[self._kind][helpers[-1]], _short(problem))
            return None

    def _unreadable(self, row: Field, problem: str) -> None:
        if row.use is Use.REQUIRED:
            raise self.complaint(row.name, problem) from None
        self._tell(UnreadField(self._kind, row.name, self._place + self.key(row.name), problem))

    def key(self, name: str) -> str:
        """What the field is called on this channel."""
        return _ROWS[self._kind][name].spelled(self._spelling) or name

    def complaint(self, name: str, problem: str) -> MalformedDataError:
        key = self._place + self.key(name)
        return MalformedDataError(f"{self._kind}: {key} ({name}) {problem}", field=key)


def shown(value: object) -> str:
    """A foreign value for a message: scalars as they are, anything bigger by its kind only (printing it may fail)."""
    # repr of a huge int or a deep structure raises or takes seconds; a complaint must not.
    is_printable = isinstance(value, str | Decimal | bool) or (isinstance(value, int) and value.bit_length() < 256)
    return one_line(repr(value), 60) if value is None or is_printable else f"a {type(value).__name__}"


def _look_up(raw: Mapping[str, Any], key: str) -> Any:
    outer, dot, inner = key.partition(".")
    if not dot:
        return raw.get(key)
    nested = raw.get(outer)
    if nested is None or isinstance(nested, Mapping):
        # Missing is not unreadable: an absent object says that Upbit does not send it, and is told to nobody.
        return None if nested is None else nested.get(inner)
    return nested  # no object: for the conversion to refuse


def _short(problem: Exception) -> str:
    """The words of `values`, or a word for what the standard library said at length."""
    words = str(problem)
    return words if words.startswith("is ") else "is not valid"
