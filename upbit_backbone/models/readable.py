"""How models show themselves: one line for people and consoles, a table in a notebook. Pure.

The line of a dataclass is made of all its fields: a ticker took 1,288 characters, 200 candles 156,919.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any

from ..errors import one_line
from .jsonable import Jsonable

# Fixed: Korea has had no summer time since 1988, and zoneinfo needs data that Windows lacks.
KST = timezone(timedelta(hours=9), "KST")
SHOWN_ROWS = 20  # of a long list: half from its beginning, half from its end
LONGEST_VALUE = 80


class Readable(Jsonable):
    """Mixin for models. `str()` is for people, `repr()` the same line with the type, `_repr_html_` for notebooks."""

    __slots__ = ()

    def _line(self) -> str:
        raise NotImplementedError

    def __str__(self) -> str:
        return one_line(self._line())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def _repr_html_(self) -> str:
        known: Any = self
        pairs = [(each.name, getattr(self, each.name)) for each in fields(known)]
        return table(("", str(self)), [(name, value) for name, value in pairs if value is not None])


def number(value: Decimal | None) -> str:
    """With thousands separators, exact; a dash where there is none."""
    return "–" if value is None else f"{value:,f}"


def moment(value: datetime | None) -> str:
    """Korean wall-clock time, to the second."""
    return "–" if value is None else f"{value.astimezone(KST):%Y-%m-%d %H:%M:%S} KST"


def escape(text: str) -> str:
    """What HTML would take for its own; `html.escape`, whose module loads two thousand names, does no more."""
    for character, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(character, name)
    return text


def preformatted(text: str) -> str:
    """A report for a notebook, as it stands."""
    return f"<pre>{escape(text)}</pre>"


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """An HTML table; nothing in it is taken for HTML."""
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    is_number = isinstance(value, Decimal | int) and not isinstance(value, bool)
    style = ' style="text-align: right"' if is_number else ""
    return f"<td{style}>{escape(one_line(_text(value), LONGEST_VALUE))}</td>"


def _text(value: Any) -> str:
    if isinstance(value, Decimal):
        return number(value)
    if isinstance(value, datetime):
        return moment(value)
    return str(value.value) if isinstance(value, Enum) else str(value)


def table_of(rows: Sequence[Any], names: Sequence[str]) -> str:
    """Models of one kind, a line each; of a long list its beginning and its end."""
    half = SHOWN_ROWS // 2
    shown = rows if len(rows) <= SHOWN_ROWS else [*rows[:half], None, *rows[-half:]]
    cells = [["…"] * len(names) if row is None else [getattr(row, name) for name in names] for row in shown]
    return f"{table(names, cells)}<p>{len(rows):,} rows</p>"
