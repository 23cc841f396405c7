"""What a file's columns are, and how a cell is written and read again. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from ..errors import InvalidRequestError
from .dataframe import COLUMNS, FLAGS, IDS, TEXTS

_FLAG_WORDS: Final = {"True": True, "False": False}


def columns_of(kind: type[Any]) -> tuple[str, ...]:
    """The file's columns: the time first, then as in a DataFrame."""
    if kind not in COLUMNS:
        names = ", ".join(each.__name__ for each in COLUMNS)
        raise InvalidRequestError(f"files can hold {names}; {kind.__name__} is none of them")
    return ("timestamp", *COLUMNS[kind])


def as_text(value: object) -> str:
    """A cell: numbers as Upbit means them, without exponent; times in ISO 8601 with zone; nothing for None."""
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return str(value)


class Row:
    """A row read from a file: what was written, as attributes. Good for writing again, not for more."""

    def __init__(self, columns: Sequence[str], values: Sequence[Any]) -> None:
        self.__dict__.update(zip(columns, values, strict=True))

    def __getattr__(self, name: str) -> Any:  # for type checkers; what is there is found before
        raise AttributeError(name)


def parsed(columns: Sequence[str], line: bytes) -> Row:
    """The row of one CSV line without its end; ValueError, which says why, where it is none."""
    cells = line.decode("utf-8").split(",")
    if len(cells) != len(columns):
        raise ValueError(f"{len(cells)} cells instead of {len(columns)}")
    return Row(columns, [_value(name, cell) for name, cell in zip(columns, cells, strict=True)])


def _value(name: str, cell: str) -> Any:
    if name == "timestamp":
        moment = datetime.fromisoformat(cell)
        if moment.tzinfo is None:
            raise ValueError(f"{name} without a zone")
        return moment
    if name in FLAGS:
        if cell not in _FLAG_WORDS:
            raise ValueError(f"{name} is neither True nor False")
        return _FLAG_WORDS[cell]
    if name in TEXTS:
        if not cell.isprintable():
            raise ValueError(f"{name} is not a text")
        return cell or None
    if not cell:
        return None
    return int(cell) if name in IDS else _number(name, cell)


def _number(name: str, cell: str) -> Decimal:
    try:
        value = Decimal(cell)
    except InvalidOperation as error:
        raise ValueError(f"{name} is not a number") from error
    if not value.is_finite():
        raise ValueError(f"{name} is not a number")
    return value


def lines_of(file: Iterator[bytes]) -> Iterator[bytes]:
    """Whole lines without their ends; a torn last one is left out."""
    for line in file:
        if not line.endswith(b"\n"):
            return
        yield line.rstrip(b"\r\n")
