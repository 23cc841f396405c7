"""JSON for people, by dataclasses-json: the only module that knows that package, loaded on first use.

Never on the stream: it is 20 to 60 times slower than direct construction. Every field gets our own codec by its
annotation, because the package would take a Decimal through float and a datetime through the local time zone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, field, fields, is_dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from functools import cache
from types import MappingProxyType, NoneType, UnionType
from typing import Any, NamedTuple, Self, Union, get_args, get_origin, get_type_hints

from .._lazy import loading
from ..errors import MalformedDataError, one_line
from .number import plain


def about_us(default: Any = None) -> Any:
    """A field that tells about our handling, not about the market: left out of equality."""
    return field(default=default, compare=False)


class Jsonable:
    """Mixin for dataclasses: `to_dict()`, `to_json()`, `from_dict()`, `from_json()`, exact in a round trip.

    Both give plain JSON data: a Decimal as its exact text (`"0.00001234"`), a datetime as ISO 8601 with its offset, a
    date as ISO 8601, an enum as its value, nested data as objects and lists, an exception as its text. Reading takes
    the same forms back, ignores unknown keys, fills missing ones from their defaults, and raises MalformedDataError
    naming the field otherwise. Decimals may also be given as JSON numbers, which `from_json` takes from their text.
    """

    __slots__ = ()

    def to_dict(self, encode_json: bool = False) -> dict[str, Any]:
        """Plain data, ready for `json.dumps`. (`encode_json` is there for dataclasses-json and changes nothing.)"""
        kind: Any = type(self)
        _prepare(kind)
        return _mixin().to_dict(self, encode_json)  # type: ignore[no-any-return]

    def to_json(self, **options: Any) -> str:
        """One JSON object. `options` are those of `json.dumps`."""
        return _mixin().to_json(self, **options)  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, infer_missing: bool = False) -> Self:
        """The object that `to_dict` described. `infer_missing=True` reads a missing optional field as None."""
        kind: Any = cls
        required = _prepare(kind)
        if not isinstance(data, Mapping):
            raise MalformedDataError(f"{cls.__name__}: {one_line(repr(data), 60)} is not an object")
        for name in required:
            # Before the package sees it, which warns of a None and goes on.
            if data.get(name) is None:
                raise MalformedDataError(f"{cls.__name__}: {name} is missing", field=name)
        # Called past inheritance: as a base class the package would be imported with the models.
        return _mixin().from_dict.__func__(cls, data, infer_missing=infer_missing)  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, text: str | bytes, **options: Any) -> Self:
        """The object that `to_json` described. `options` are those of `json.loads`, and `infer_missing`."""
        try:
            # Numbers from their text: through float 0.1 becomes 0.1000000000000000055.
            options = {"parse_float": Decimal} | options
            return _mixin().from_json.__func__(cls, text, **options)  # type: ignore[no-any-return]
        except (ValueError, RecursionError) as problem:
            raise MalformedDataError(f"{cls.__name__}: not JSON: {one_line(problem, 100)}") from problem


class _Codec(NamedTuple):
    """How values of one annotation become plain data and come back."""

    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


@cache
def _mixin() -> Any:
    with loading():
        from dataclasses_json import DataClassJsonMixin

    return DataClassJsonMixin


@cache
def _prepare(kind: type[Any]) -> tuple[str, ...]:
    """Hands the codecs of a class to dataclasses-json, once; returns the fields that must be given and not None."""
    hints = get_type_hints(kind)
    for column in fields(kind):
        codec = _named(kind, column.name, _codec(hints[column.name]))
        settings = {"encoder": codec.encode, "decoder": codec.decode}
        # Set on the fields of the finished class, because dataclasses-json is loaded late: named in each field's
        # definition it would cost its import to everybody.
        column.metadata = MappingProxyType({**column.metadata, "dataclasses_json": settings})
    return tuple(
        column.name
        for column in fields(kind)
        if column.init
        and column.default is MISSING
        and column.default_factory is MISSING
        and not _is_optional(hints[column.name])
    )


def _named(kind: type[Any], name: str, codec: _Codec) -> _Codec:
    """The codec with its complaints translated: which field of which class could not be read."""

    def decode(value: Any) -> Any:
        try:
            return codec.decode(value)
        except (ValueError, TypeError, ArithmeticError, LookupError) as problem:
            raise MalformedDataError(
                f"{kind.__name__}: {name} is not valid: {one_line(repr(value), 60)}", field=name
            ) from problem

    return codec._replace(decode=decode)


def _is_optional(hint: Any) -> bool:
    return hint is Any or hint is object or NoneType in get_args(hint)


def _codec(hint: Any) -> _Codec:
    """Chosen by the annotation: optional, tuple, nested dataclass, or one of the plain kinds."""
    if get_origin(hint) in (Union, UnionType):
        members = [member for member in get_args(hint) if member is not NoneType]
        # `Change | str`: a list of words that Upbit may add to.
        if len(members) == 2 and members[1] is str and isinstance(members[0], type) and issubclass(members[0], Enum):
            return _optional(_open_words(members[0]))
        return _optional(_codec(members[0])) if len(members) == 1 else _Codec(_plain, _same)
    if get_origin(hint) is tuple and get_args(hint)[1:] == (Ellipsis,):
        return _many(_codec(get_args(hint)[0]))
    if not isinstance(hint, type):
        return _Codec(_plain, _same)
    if is_dataclass(hint) and issubclass(hint, Jsonable):
        return _Codec(lambda value: value.to_dict(), hint.from_dict)
    if issubclass(hint, Enum):
        return _Codec(_plain, hint)
    return _CODECS.get(hint, _Codec(_plain, _same))


def _optional(codec: _Codec) -> _Codec:
    return _Codec(
        lambda value: None if value is None else codec.encode(value),
        lambda value: None if value is None else codec.decode(value),
    )


def _open_words(words: type[Enum]) -> _Codec:
    """Words of a list that may grow: one that is not in it is the text it is."""
    known = {member.value: member for member in words}
    read = _CODECS[str].decode
    return _Codec(_plain, lambda value: known.get(value) or read(value))


def _many(codec: _Codec) -> _Codec:
    return _Codec(
        lambda values: [codec.encode(value) for value in values],
        lambda values: tuple(codec.decode(value) for value in _as_list(values)),
    )


def _as_list(values: Any) -> list[Any] | tuple[Any, ...]:
    if not isinstance(values, list | tuple):
        raise TypeError("not a list")
    return values


def _plain(value: Any) -> Any:
    """Any value as plain data, by what it is: for fields whose annotation says too little."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Jsonable):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in value]
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _same(value: Any) -> Any:
    return value


def _decimal(value: Any) -> Decimal:
    # A bool is an int to Python, and a float has lost the text of its number.
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise TypeError("not an exact number")
    number = Decimal(value)
    return plain(number)


def _decimal_text(value: Decimal) -> str:
    return str(plain(value)) if value.is_finite() else str(value)


def _aware(value: Any) -> datetime:
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    # The package itself would take it for local time, which is another moment on every machine.
    if moment.tzinfo is None:
        raise ValueError("without an offset nobody knows when that was")
    return moment.astimezone(UTC)


def _date(value: Any) -> date:
    return value if isinstance(value, date) else date.fromisoformat(value)


def _exactly(kind: type[Any]) -> _Codec:
    def check(value: Any) -> Any:
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"not of type {kind.__name__}")
        return value

    return _Codec(_same, check)


def _float(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError("not a number")
    return float(value)


_CODECS: Mapping[type[Any], _Codec] = {
    Decimal: _Codec(_decimal_text, _decimal),
    datetime: _Codec(datetime.isoformat, _aware),
    date: _Codec(date.isoformat, _date),
    float: _Codec(_same, _float),
    int: _exactly(int),
    str: _exactly(str),
    bool: _exactly(bool),
}
