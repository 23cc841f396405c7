"""Columns: how trades, candles, tickers and order books lie in rows of texts and whole numbers, exactly. Pure.

Made from the models, so that a table has every field under its own name. Numbers are texts as they print (a REAL would
round them), times whole microseconds since 1970 in UTC, dates ISO 8601, flags 0 or 1, the levels of a book
`[["price","size"],…]`. None stays None.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import cache
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgspec

from ..errors import InvalidRequestError
from ..models.enums import Change, DataSource, DataType, Side, StreamType
from ..models.market import CandleData, OrderbookData, OrderbookUnit, TickerData, TradeData
from ..models.number import plain

Row = tuple[Any, ...]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
# What says how an answer was come by rather than what was on the market.
LEFT_OUT: Final = frozenset({"degraded"})


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970 in UTC, exactly: a float of seconds has no room for them after 2106."""
    return (moment - EPOCH) // MICROSECOND


def from_micros(micros: int) -> datetime:
    return EPOCH + micros * MICROSECOND


def _to_levels(units: Iterable[OrderbookUnit]) -> str:
    # Twice as fast as `json`: a book has sixty levels, and they are most of what a full market costs here.
    return msgspec.json.encode([(str(unit.price), str(unit.size)) for unit in units]).decode()


def _from_levels(text: str) -> tuple[OrderbookUnit, ...]:
    return tuple(
        OrderbookUnit(plain(Decimal(price)), plain(Decimal(size))) for price, size in msgspec.json.decode(text)
    )


def _word_of(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:  # a word Upbit invented after us stays the text it is
            return text

    return read


class Column(NamedTuple):
    """One field: its name, its type in SQLite and in PostgreSQL, how it is written and how it is read."""

    name: str
    sql: str
    postgres: str
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]

    @property
    def is_number(self) -> bool:
        """Whether it is an exact number, written as a text."""
        return self.read is _to_number


def _to_number(text: str) -> Decimal:
    return plain(Decimal(text))


def _as_it_is(value: Any) -> Any:
    return value


# By what a field's annotation mentions; the first that fits counts, so `datetime` stands before `date`.
_HOW: Final[tuple[tuple[str, str, str, Callable[[Any], Any], Callable[[Any], Any]], ...]] = (
    ("OrderbookUnit", "TEXT", "jsonb", _to_levels, _from_levels),
    ("Decimal", "TEXT", "numeric", str, _to_number),
    ("datetime", "INTEGER", "timestamptz", to_micros, from_micros),
    ("date", "TEXT", "date", date.isoformat, date.fromisoformat),
    ("bool", "INTEGER", "boolean", int, bool),
    ("int", "INTEGER", "bigint", _as_it_is, _as_it_is),
    ("DataSource", "TEXT", "text", str, DataSource),
    ("Side", "TEXT", "text", str, _word_of(Side)),
    ("Change", "TEXT", "text", str, _word_of(Change)),
    ("StreamType", "TEXT", "text", str, _word_of(StreamType)),
    ("str", "TEXT", "text", str, _as_it_is),
)


def _column(name: str, annotation: str) -> Column:
    for word, sql, postgres, write, read in _HOW:
        if word in annotation:
            return Column(name, sql, postgres, write, read)
    raise TypeError(f"{name}: {annotation} has no column yet")


@dataclass(frozen=True)
class Table:
    """One kind of datum: the name of its table, its model, its columns and those that tell two rows apart."""

    name: str
    model: type[Any]
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def rows(self, items: Sequence[Any]) -> list[Row]:
        """The rows of these items."""
        if not items:
            return []
        # Column by column, with one kind of value in each loop: twice as fast as row by row.
        columns = [_written(column.write, list(map(attrgetter(column.name), items))) for column in self.columns]
        return list(zip(*columns, strict=True))

    def only(self, *names: str) -> Table:
        """The same with these columns alone."""
        return replace(self, columns=tuple(column for column in self.columns if column.name in names))

    def item(self, row: Sequence[Any]) -> Any:
        """The item that a row was made of. ValueError or TypeError where it is none."""
        values = [
            None if value is None else column.read(value) for column, value in zip(self.columns, row, strict=True)
        ]
        return self.model(**dict(zip(self.names, values, strict=True)))


def _written(write: Callable[[Any], Any], values: list[Any]) -> list[Any]:
    if write is _as_it_is or (values[0] is None and values.count(None) == len(values)):
        return values
    if isinstance(values[0], Enum):  # words, of which there are few
        words = {each: None if each is None else write(each) for each in set(values)}
        return [words[each] for each in values]
    if write is to_micros:  # without a call for each of them
        return [None if each is None else (each - EPOCH) // MICROSECOND for each in values]
    return [None if each is None else write(each) for each in values]


def _table(name: str, model: type[Any], *key: str) -> Table:
    columns = tuple(_column(each.name, str(each.type)) for each in fields(model) if each.name not in LEFT_OUT)
    return Table(name, model, columns, key)


# A ticker of the same moment may follow a second trade of that moment: then the volume of the day has grown.
TABLES: Final = (
    _table("trades", TradeData, "symbol", "sequential_id"),
    _table("candles", CandleData, "symbol", "timeframe", "timestamp"),
    _table("tickers", TickerData, "symbol", "timestamp", "volume_today"),
    _table("orderbooks", OrderbookData, "symbol", "level", "timestamp"),
)
TABLE_OF: Final = {table.model: table for table in TABLES}
TABLE_NAMED: Final = {table.name: table for table in TABLES}


def table_of(item: object) -> Table:
    """The table of an item's kind. InvalidRequestError for what is no market data."""
    # By class and, for the lazily spelled, by what they are: `type` alone would miss a subclass.
    found = TABLE_OF.get(type(item)) or next((each for each in TABLES if isinstance(item, each.model)), None)
    if found is None:
        raise InvalidRequestError(
            f"{type(item).__name__} cannot be kept: expected a trade, candle, ticker or order book"
        )
    return found


@cache
def candle_type(timeframe: str) -> str:
    """What coverage calls candles of a timeframe: Upbit's word where it streams them ("candle.60m"), else ours."""
    try:
        return DataType(timeframe).value
    except ValueError:
        return f"candle.{timeframe}"


def type_word(item: Any) -> str:
    """What an item is, in the words of `coverage`: "trade", "ticker", "orderbook", "candle.1m"."""
    if type(item) is CandleData:
        return candle_type(item.timeframe)
    return _TYPE_WORDS[table_of(item).name]


_TYPE_WORDS: Final = {"trades": "trade", "tickers": "ticker", "orderbooks": "orderbook"}


def keyed(table: Table, rows: Sequence[Row]) -> tuple[Iterable[Row], int]:
    """The rows to write, each with a key of its own, and how many were left out for a later one of the same key."""
    if table.name == "trades":
        return [row if row[_ID] is not None else _with_id(row) for row in rows], 0
    if table.name == "tickers":
        return [row if row[_VOLUME] is not None else _replaced(row, _VOLUME, "") for row in rows], 0
    places, rank = _NEWEST[table.name]
    # A busy minute is told of some hundred times a second.
    newest: dict[Any, Row] = {}
    for row in rows:
        known = newest.get(key := tuple(row[place] for place in places))
        if known is None or (row[rank] or 0) >= (known[rank] or 0):
            newest[key] = row
    return newest.values(), len(rows) - len(newest)


def _place(table: str, column: str) -> int:
    return TABLE_NAMED[table].names.index(column)


_ID: Final = _place("trades", "sequential_id")
_VOLUME: Final = _place("tickers", "volume_today")
_TRADED: Final = tuple(_place("trades", name) for name in ("symbol", "timestamp", "price", "volume", "side"))
# Of several rows with one key the one counts that has the most of this: no candle that forms replaces a final one.
_NEWEST: Final = {
    name: (tuple(_place(name, each) for each in TABLE_NAMED[name].key), _place(name, rank))
    for name, rank in (("candles", "is_closed"), ("orderbooks", "received_at"))
}


def _replaced(row: Row, place: int, value: object) -> Row:
    return (*row[:place], value, *row[place + 1 :])


def _with_id(row: Row) -> Row:
    """A trade that came without its id: a negative one made of what it says, so that it, too, is there once."""
    told = repr([row[place] for place in _TRADED]).encode()
    number = int.from_bytes(hashlib.blake2b(told, digest_size=7).digest(), "big")
    return _replaced(row, _ID, -1 - number)


def id_of(trade: TradeData) -> int:
    """What tells a trade from the others of its market."""
    (row,) = TABLE_NAMED["trades"].rows([trade])
    number: int = row[_ID] if row[_ID] is not None else _with_id(row)[_ID]
    return number
