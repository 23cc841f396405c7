"""Frames of the usual shape, read by compiled code: an option, chosen when the package is built.

    UPBIT_BACKBONE_COMPILE=1 pip install …

Where it was not chosen, or a frame is not of the usual shape, the readers in Python do all of it, with the same
results. UPBIT_BACKBONE_COMPILE=0 in the environment leaves what was built unused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container
from decimal import Decimal
from enum import StrEnum
from importlib import import_module
from types import ModuleType
from typing import Any, Final, Protocol, TypeVar

from .._log import get_logger
from ..errors import one_line
from ..exchange.fields import FIELD_TABLE, UNITS_KEY, Field, Spelling, Use
from ..exchange.values import (
    AMOUNT,
    CHANGE,
    DAY,
    FLAG,
    MOMENT,
    SIDE,
    SIGNED,
    STREAM_TYPE,
    SYMBOL,
    TEXT,
    WHOLE,
    Conversion,
)
from ..models.number import plain

log = get_logger("upbit_backbone.unify")

VARIABLE: Final = "UPBIT_BACKBONE_COMPILE"
Level = TypeVar("Level")
Before = tuple[bytes, tuple[Any, ...]]


class Scanner(Protocol):
    """Reads frames of one kind and spelling (`_scanner.c`). Cannot be changed; safe from any thread."""

    def scan(self, raw: bytes, /) -> tuple[Any, ...] | None:
        """The wanted fields in the table's order, None for one that is left out; None where the frame is not of the
        usual shape in all its parts, wanted or not."""

    def number(self, raw: bytes, key: bytes, /) -> Decimal | None:
        """The number under `key`, of a frame that `scan` has taken; None where it has none."""

    def first(self, raw: bytes, /) -> tuple[Decimal, Decimal, Decimal, Decimal] | None:
        """The first level of a book that `scan` has taken: prices of ask and bid, then the sizes."""

    def sides(
        self, raw: bytes, before: Before | None, make: Callable[[Decimal, Decimal], Level | None], /
    ) -> tuple[tuple[Level, ...], tuple[Level, ...], Before] | None:
        """Asks and bids of a book that `scan` has taken, and what to hand in as `before` with the market's next one: a
        level that stands there, price and size written alike, is taken from there; for any other `make` is called with
        the two numbers. What it gives is hidden from the garbage collector, so it may hold nothing but numbers; where
        it is None the level is left out."""


def _loaded() -> ModuleType | None:
    if os.environ.get(VARIABLE) == "0":
        return None
    try:
        return import_module("._scanner", __package__)
    except ModuleNotFoundError:
        return None
    except ImportError as error:  # it was asked for, and is there
        log.warning("compiled decoding cannot be loaded, and Python decodes: %s", one_line(error))
        return None


_compiled = _loaded()

# How Upbit writes a level, in this order.
UNIT_FIELDS = ("ask_price", "bid_price", "ask_size", "bid_size")
_WORDS: Final[dict[Conversion, type[StrEnum]]] = {each: each.typed for each in (CHANGE, SIDE, STREAM_TYPE)}


# As the compiled Scanner is told of a field: what it begins with, how it is read, whether it is needed, whether it is
# made, and which words it may be.
_Row = tuple[bytes, int, bool, bool, tuple[tuple[bytes, object], ...]]


def is_compiled() -> bool:
    """Whether frames are read by compiled code here."""
    return _compiled is not None


def scanner_of(kind: str, spelling: Spelling, wanted: Container[str]) -> Scanner | None:
    """Reads frames of one kind and spelling; `wanted` are the fields that are made, in the table's order. None where
    nothing is compiled."""
    if _compiled is None:
        return None
    tag = key_of("ty" if spelling is Spelling.SIMPLE else "type"), _compiled.WORD, True, False, ((kind.encode(), kind),)
    fields: list[_Row] = [tag]
    fields += [
        _field(_compiled, row, key, row.name in wanted)
        for row in FIELD_TABLE[kind]
        if (key := row.spelled(spelling)) is not None
    ]
    unit_keys: tuple[bytes, ...] = ()
    if kind == "orderbook":
        spelled = {row.name: row.spelled(spelling) or "" for row in FIELD_TABLE["orderbook_unit"]}
        unit_keys = tuple(key_of(spelled[name]) for name in UNIT_FIELDS)
        fields.append((key_of(UNITS_KEY[spelling]), _compiled.UNITS, True, False, ()))
    return _compiled.Scanner(tuple(fields), unit_keys, Decimal, _odd_number)  # type: ignore[no-any-return]


def _field(compiled: ModuleType, row: Field, key: str, is_wanted: bool) -> _Row:
    kinds = {
        SYMBOL: compiled.SYMBOL, TEXT: compiled.TEXT, AMOUNT: compiled.AMOUNT, SIGNED: compiled.SIGNED,
        WHOLE: compiled.WHOLE, MOMENT: compiled.MOMENT, DAY: compiled.DAY, FLAG: compiled.FLAG,
    }  # fmt: skip
    if row.use is Use.FALLBACK:  # whatever stands there: the readers in Python do not look at it either
        return key_of(key), compiled.ANY, False, False, ()
    is_needed = row.use in (Use.REQUIRED, Use.DERIVABLE)
    words = tuple((word.value.encode(), word) for word in _WORDS.get(row.how, ()))
    return key_of(key), compiled.WORD if words else kinds[row.how], is_needed, is_wanted, words


def key_of(name: str) -> bytes:
    """What a field begins with."""
    return f'"{name}":'.encode()


def _odd_number(text: str) -> Decimal:
    return plain(Decimal(text))
