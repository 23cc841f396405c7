"""Trade rows: how trades, of which there are millions, lie in SQLite since schema 3.

Market, time and id, by which they are found, have columns of their own; all else that a trade says is one short list of
JSON, encoded in C, and read by whoever wants it through the view `trades`. One tree keeps them by market and time: ids
are not in order, and a second tree of times would cost a third of writing a trade, as would a column for each cell.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from itertools import chain, product
from typing import Any, Final

import msgspec

from ..models.enums import DataSource, StreamType
from ..models.market import TradeData
from ..models.number import encoded, plain
from .columns import TABLE_NAMED, from_micros, id_of, to_micros

TRADES: Final = TABLE_NAMED["trades"]
KEY: Final = ("symbol", "timestamp", "sequential_id")
DAY_SECONDS: Final = 86_400
ENCODED_AT_ONCE: Final = 200
# What the list `rest` has, in this order: words and exact numbers as texts, times as whole microseconds after the
# trade's own, and at its end a number for the three things of which a trade says one of few combinations.
LISTED: Final = (
    "side", "price", "volume", "prev_closing_price", "change_amount", "best_ask_price", "best_ask_size",
    "best_bid_price", "best_bid_size", "published_at", "received_at",
)  # fmt: skip
AFTER: Final = ("published_at", "received_at")
ORIGIN: Final = "origin"  # the name of that number
# It is (place of source * 4 + place of stream type) * 2 + is_backfilled. A type that is none of these has the fourth
# place, and its word behind the number.
SOURCES: Final = (DataSource.REST, DataSource.WEBSOCKET, DataSource.RELAY, DataSource.DERIVED)
STREAM_TYPES: Final = (None, StreamType.SNAPSHOT, StreamType.REALTIME)
ANOTHER: Final = len(STREAM_TYPES)

_THERE: Final = "SELECT 1 FROM trade_rows WHERE symbol = ? AND timestamp = ? AND sequential_id = ?"
# Ids that do not tell their time, of which Upbit has none so far.
ODD_IDS: Final = (
    "CREATE TABLE IF NOT EXISTS odd_ids (symbol TEXT NOT NULL, sequential_id INTEGER NOT NULL, "
    "timestamp INTEGER NOT NULL, PRIMARY KEY (symbol, sequential_id)) WITHOUT ROWID"
)
INSERT: Final = "INSERT INTO trade_rows VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
ROWS_AT_ONCE: Final = 200  # of what a row costs SQLite, a tenth is to begin a statement and to end it
_INSERT_MANY: Final = INSERT.replace("(?, ?, ?, ?)", ", ".join(["(?, ?, ?, ?)"] * ROWS_AT_ONCE))

# What `trade_of` takes.
SELECTED: Final = "symbol, timestamp, CASE WHEN sequential_id < 0 THEN NULL ELSE sequential_id END, rest"

_ENCODER: Final = msgspec.json.Encoder(enc_hook=encoded)
_SIDE, _STREAM_TYPE = (column.read for column in TRADES.columns if column.name in ("side", "stream_type"))


class Rest(msgspec.Struct, array_like=True, frozen=True):
    """The list `rest`."""

    side: str | None
    price: Decimal
    volume: Decimal
    prev_closing_price: Decimal | None
    change_amount: Decimal | None
    best_ask_price: Decimal | None
    best_ask_size: Decimal | None
    best_bid_price: Decimal | None
    best_bid_size: Decimal | None
    published_at: int | None
    received_at: int | None
    origin: int
    word: str | None = None


_DECODE: Final = msgspec.json.Decoder(Rest).decode


def origin_of(source: DataSource, stream_type: str | None, is_backfilled: bool) -> int:
    """The number for these three."""
    place = STREAM_TYPES.index(stream_type) if stream_type in STREAM_TYPES else ANOTHER
    return (SOURCES.index(source) * 4 + place) * 2 + is_backfilled


def told_by(origin: int, word: str | None = None) -> tuple[DataSource, str | None, bool]:
    """Source, stream type and whether it is backfilled: what such a number, and a word behind it, was made of."""
    place = origin // 2 % 4
    return SOURCES[origin // 8], word if place == ANOTHER else STREAM_TYPES[place], bool(origin % 2)


_ORIGINS: Final[dict[tuple[DataSource, str | None, bool], int]] = {
    each: origin_of(*each) for each in product(SOURCES, STREAM_TYPES, (False, True))
}


def columns_of(trades: Sequence[TradeData]) -> tuple[list[Any], ...]:
    """The columns of these trades; one that came without its id has one made of what it says."""
    ids = [id_of(each) if each.sequential_id is None else each.sequential_id for each in trades]
    return [each.symbol for each in trades], _micros([each.timestamp for each in trades]), ids, lists_of(trades)


def insert(trades: Sequence[TradeData], connection: sqlite3.Connection) -> int:
    """Write these trades, within the caller's transaction: how many were new. None is whose id is there, be it with
    another time."""
    columns = columns_of(trades)
    _, times, ids, _ = columns
    # A tree by time can hold an id twice, and one by id beside it would cost a third of writing a trade. But an id
    # tells its time, so that only those have to be looked up that do not.
    if [number // 10_000 * 1_000 for number in ids] != times or _has_odd_ids(connection):
        rows = (row for row in zip(*columns, strict=True) if _is_once(connection, *row[:3]))
        return connection.executemany(INSERT, rows).rowcount
    order = _by_market(columns[0])
    cells: list[Any] = [None] * (len(columns) * len(trades))
    for place, column in enumerate(columns):  # without a tuple for each row, at which the garbage collector would look
        cells[place :: len(columns)] = map(column.__getitem__, order)
    step = len(columns) * ROWS_AT_ONCE
    whole = len(cells) // step * step
    news = sum(
        connection.execute(_INSERT_MANY, cells[begin : begin + step]).rowcount for begin in range(0, whole, step)
    )
    rest = iter(cells[whole:])
    return news + connection.executemany(INSERT, zip(*[rest] * len(columns), strict=True)).rowcount


def _by_market(symbols: Sequence[str]) -> list[int]:
    """The places of rows, market by market, each market's as they came: where the last one went SQLite has the page at
    hand, which saves a fifth of its time for five markets that come in turns, and half of it for hundreds."""
    places: dict[str, list[int]] = {}
    for place, symbol in enumerate(symbols):
        found = places.get(symbol)
        if found is None:
            found = places[symbol] = []
        found.append(place)
    return list(chain.from_iterable(places.values()))


def _micros(moments: Sequence[datetime]) -> list[int]:
    """As `to_micros`, in two thirds of the time: between moments that are near each other lie small numbers."""
    if not moments:
        return []
    first = moments[0]
    base = to_micros(first)
    return [
        base + (since.days * DAY_SECONDS + since.seconds) * 1_000_000 + since.microseconds
        for since in [moment - first for moment in moments]
    ]


def lists_of(trades: Sequence[TradeData]) -> list[str]:
    """The list `rest` of each."""
    # Spelled out, since Python remembers where attributes lie that it reads in a loop of its own: a third of the time
    # that an attrgetter takes. One call encodes many, a line each, but so few that their tuples are gone before the
    # garbage collector looks at them.
    lines: list[str] = []
    kind: tuple[DataSource, str | None, bool] | None = None  # the last one's: hundreds one after the other are of one
    origin: int | None = None
    for begin in range(0, len(trades), ENCODED_AT_ONCE):
        listed: list[tuple[Any, ...]] = []
        for each in trades[begin : begin + ENCODED_AT_ONCE]:
            # Each once: a model of which a part may not be made yet is slower to ask than others.
            moment, published_at, received_at = each.timestamp, each.published_at, each.received_at
            published: int | None = None
            received: int | None = None
            if published_at is not None:
                since = published_at - moment
                published = (since.days * DAY_SECONDS + since.seconds) * 1_000_000 + since.microseconds
            if received_at is not None:
                since = received_at - moment
                received = (since.days * DAY_SECONDS + since.seconds) * 1_000_000 + since.microseconds
            told = (each.source, each.stream_type, each.is_backfilled)
            if told != kind:
                kind, origin = told, _ORIGINS.get(told)
            row = (
                each.side, each.price, each.volume, each.prev_closing_price, each.change_amount, each.best_ask_price,
                each.best_ask_size, each.best_bid_price, each.best_bid_size, published, received, origin,
            )  # fmt: skip
            listed.append(row if origin is not None else (*row[:-1], origin_of(*told), each.stream_type))
        lines += _ENCODER.encode_lines(listed).decode().split("\n")[:-1]
    return lines


def _has_odd_ids(connection: sqlite3.Connection) -> bool:
    found = connection.execute("SELECT 1 FROM odd_ids LIMIT 1").fetchone()
    return found is not None


def _is_once(connection: sqlite3.Connection, symbol: str, timestamp: int, number: int) -> bool:
    """Whether no trade with this id and another time is there; notes an id that does not tell its time."""
    told = _time_in(number)
    known = connection.execute("SELECT timestamp FROM odd_ids WHERE symbol = ? AND sequential_id = ?", (symbol, number))
    for (other,) in known:
        return bool(other == timestamp)
    if number < 0 or timestamp == told:  # a negative one is made of the time and what else the trade says
        return True
    if connection.execute(_THERE, (symbol, told, number)).fetchone() is not None:
        return False
    connection.execute("INSERT INTO odd_ids VALUES (?, ?, ?)", (symbol, number, timestamp))
    return True


def _time_in(number: int) -> int:
    """The time that an id of Upbit's begins with: milliseconds, before four digits, or three of earlier years."""
    return number // (10_000 if number >= 10**16 else 1_000) * 1_000


def trade_of(row: Sequence[Any]) -> TradeData:
    """The trade that a row of `SELECTED` was made of."""
    symbol, timestamp, number, listed = row
    rest = _DECODE(listed)
    source, stream_type, is_backfilled = told_by(rest.origin, rest.word)
    return TradeData(
        symbol, plain(rest.price), plain(rest.volume), None if rest.side is None else _SIDE(rest.side),
        from_micros(timestamp), number, source, _plain(rest.prev_closing_price), _plain(rest.change_amount),
        _plain(rest.best_ask_price), _plain(rest.best_ask_size), _plain(rest.best_bid_price),
        _plain(rest.best_bid_size), _moment(timestamp, rest.published_at),
        None if stream_type is None else _STREAM_TYPE(stream_type), is_backfilled, _moment(timestamp, rest.received_at),
    )  # fmt: skip


def _plain(number: Decimal | None) -> Decimal | None:
    return None if number is None else plain(number)


def _moment(timestamp: int, after: int | None) -> datetime | None:
    return None if after is None else from_micros(timestamp + after)


_TABLE: Final = (
    "CREATE TABLE trade_rows (symbol TEXT NOT NULL, timestamp INTEGER NOT NULL, sequential_id INTEGER NOT NULL, "
    f"rest TEXT NOT NULL, PRIMARY KEY ({', '.join(KEY)})) WITHOUT ROWID"
)


def schema() -> str:
    """The table, and the view that shows it as it always looked: a column for each field of a trade."""
    return f"{_TABLE};\n{ODD_IDS};\n{_view()}"


def _view() -> str:
    shown = ",\n    ".join(f"{_shown(name)} AS {name}" for name in TRADES.names)
    return f"CREATE VIEW trades AS SELECT\n    {shown}\nFROM trade_rows"


def _shown(name: str) -> str:
    """A cell as `columns` says it lies in a table."""
    if name in KEY:
        return name
    if name in LISTED:
        cell = f"json_extract(rest, '$[{LISTED.index(name)}]')"
        return f"timestamp + {cell}" if name in AFTER else cell
    origin = f"json_extract(rest, '$[{len(LISTED)}]')"
    word = f"json_extract(rest, '$[{len(LISTED) + 1}]')"
    return {
        "source": f"CASE {origin} / 8{_whens(SOURCES)} END",
        "stream_type": f"CASE {origin} / 2 % 4{_whens(STREAM_TYPES)} ELSE {word} END",
        "is_backfilled": f"{origin} % 2",
    }[name]


def _whens(words: Sequence[str | None]) -> str:
    return "".join(f" WHEN {place} THEN {_literal(word)}" for place, word in enumerate(words))


def _place(name: str, words: Sequence[str | None]) -> str:
    places = "".join(f" WHEN {name} IS {_literal(word)} THEN {place}" for place, word in enumerate(words))
    return f"CASE{places} ELSE {len(words)} END"


def _literal(word: str | None) -> str:
    return "NULL" if word is None else f"'{word}'"


def convert(connection: sqlite3.Connection) -> None:
    """Make trades of schema 2 some of this one, within the caller's transaction. There a trade's price, volume and side
    had columns of their own, and its list whole words and moments; the view showed it as this one does."""
    cells = ", ".join(f"{name} - timestamp" if name in AFTER else name for name in LISTED)
    stream_type = _place("stream_type", STREAM_TYPES)
    origin = f"({_place('source', SOURCES)} * 4 + {stream_type}) * 2 + is_backfilled"
    rest = (
        f"CASE WHEN {stream_type} < {ANOTHER} THEN json_array({cells}, {origin}) "
        f"ELSE json_array({cells}, {origin}, stream_type) END"
    )
    for statement in (
        "ALTER TABLE trade_rows RENAME TO second_trade_rows",  # which the view follows
        _TABLE,
        ODD_IDS,  # which the first stores of schema 2 were made without
        f"INSERT INTO trade_rows SELECT symbol, timestamp, sequential_id, {rest} FROM trades",  # noqa: S608
        "DROP VIEW trades",
        "DROP TABLE second_trade_rows",
        _view(),
    ):
        connection.execute(statement)


def has_trade_rows(connection: sqlite3.Connection) -> bool:
    """Whether a store keeps its trades in this form; one of an earlier schema shows them as `trades`, too."""
    version_found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version_found > 2
