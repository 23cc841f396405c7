"""Trade rows: how trades, of which there are millions, lie in SQLite since schema 2.

Time, price, volume and side, which are what is asked for, have columns of their own; the rest of a trade is one list of
JSON, encoded in C, and read by whoever wants it through the view `trades`. One tree keeps them by market and time:
ids are not in order, and a second tree of times would cost a third of writing a trade, as do ten columns more.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from ..models.enums import DataSource
from ..models.market import TradeData
from ..models.number import encoded, plain
from .columns import TABLE_NAMED, Column, Row, from_micros, id_of, to_micros

TRADES: Final = TABLE_NAMED["trades"]
KEY: Final = ("symbol", "timestamp", "sequential_id")
ASKED: Final = ("price", "volume", "side")
DAY_SECONDS: Final = 86_400
ENCODED_AT_ONCE: Final = 200
REST: Final = tuple(column for column in TRADES.columns if column.name not in (*KEY, *ASKED))

_THERE: Final = "SELECT 1 FROM trade_rows WHERE symbol = ? AND timestamp = ? AND sequential_id = ?"
# Ids that do not tell their time, of which Upbit has none so far.
ODD_IDS: Final = (
    "CREATE TABLE IF NOT EXISTS odd_ids (symbol TEXT NOT NULL, sequential_id INTEGER NOT NULL, "
    "timestamp INTEGER NOT NULL, PRIMARY KEY (symbol, sequential_id)) WITHOUT ROWID"
)
INSERT: Final = "INSERT INTO trade_rows VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"

# What `trade_of` takes.
SELECTED: Final = (
    "symbol, timestamp, CASE WHEN sequential_id < 0 THEN NULL ELSE sequential_id END, price, volume, side, rest"
)

_ENCODER: Final = msgspec.json.Encoder(enc_hook=encoded)
_Price = Decimal | None
_DECODE: Final = msgspec.json.Decoder(
    tuple[
        DataSource, _Price, _Price, _Price, _Price, _Price, _Price, datetime | None, str | None, bool, datetime | None
    ]
).decode
_SIDE, _STREAM_TYPE = (column.read for column in TRADES.columns if column.name in ("side", "stream_type"))


def rows_of(trades: Sequence[TradeData], connection: sqlite3.Connection) -> Iterable[Row]:
    """The rows of these trades, to be inserted one after the other, without those whose id is there with another time;
    one that came without its id has one made of what it says."""
    ids: list[int | None] = [each.sequential_id for each in trades]
    if None in ids:
        ids = [id_of(trade) if known is None else known for trade, known in zip(trades, ids, strict=True)]
    # Column by column, with one kind of value in each loop: faster than row by row.
    sides = [each.side for each in trades]
    words = {each: None if each is None else str(each) for each in set(sides)}
    times = _micros([each.timestamp for each in trades])
    rows = zip(
        [each.symbol for each in trades],
        times,
        ids,
        [str(each.price) for each in trades],
        [str(each.volume) for each in trades],
        [words[each] for each in sides],
        _rests(trades),
        strict=True,
    )
    # A tree by time can hold an id twice, and one by id beside it would cost a third of writing a trade. But an id
    # tells its time, so that only those have to be looked up that do not.
    if [number // 10_000 * 1_000 for number in ids] == times and not _has_odd_ids(connection):  # type: ignore[operator]
        return rows
    return (row for row in rows if _is_once(connection, *row[:3]))


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


def _rests(trades: Sequence[TradeData]) -> list[str]:
    """What `REST` has of each, as a list of JSON."""
    # Spelled out, since Python remembers where attributes lie that it reads in a loop of its own: a third of the time
    # that an attrgetter takes. One call encodes many, a line each, but so few that their tuples are gone before the
    # garbage collector looks at them.
    lines: list[str] = []
    for begin in range(0, len(trades), ENCODED_AT_ONCE):
        listed = [
            (
                each.source, each.prev_closing_price, each.change_amount, each.best_ask_price, each.best_ask_size,
                each.best_bid_price, each.best_bid_size, each.published_at, each.stream_type, each.is_backfilled,
                each.received_at,
            )
            for each in trades[begin : begin + ENCODED_AT_ONCE]
        ]  # fmt: skip
        lines += _ENCODER.encode_lines(listed).decode().split("\n")[:-1]
    return lines


def _has_odd_ids(connection: sqlite3.Connection) -> bool:
    found = connection.execute("SELECT 1 FROM odd_ids LIMIT 1").fetchone()
    return found is not None


def _is_once(connection: sqlite3.Connection, symbol: str, timestamp: int, number: int) -> bool:
    """Whether no trade with this id and another time is there; notes an id that does not tell its time."""
    told = _told_by(number)
    known = connection.execute("SELECT timestamp FROM odd_ids WHERE symbol = ? AND sequential_id = ?", (symbol, number))
    for (other,) in known:
        return bool(other == timestamp)
    if number < 0 or timestamp == told:  # a negative one is made of the time and what else the trade says
        return True
    if connection.execute(_THERE, (symbol, told, number)).fetchone() is not None:
        return False
    connection.execute("INSERT INTO odd_ids VALUES (?, ?, ?)", (symbol, number, timestamp))
    return True


def _told_by(number: int) -> int:
    """The time that an id of Upbit's begins with: milliseconds, before four digits, or three of earlier years."""
    return number // (10_000 if number >= 10**16 else 1_000) * 1_000


def trade_of(row: Sequence[Any]) -> TradeData:
    """The trade that a row of `SELECTED` was made of."""
    symbol, timestamp, number, price, volume, side, rest = row
    source, *prices, published_at, stream_type, is_backfilled, received_at = _DECODE(rest)
    previous, change, ask, ask_size, bid, bid_size = (None if each is None else plain(each) for each in prices)
    return TradeData(
        symbol, plain(Decimal(price)), plain(Decimal(volume)), None if side is None else _SIDE(side),
        from_micros(timestamp), number, source, previous, change, ask, ask_size, bid, bid_size, published_at,
        None if stream_type is None else _STREAM_TYPE(stream_type), is_backfilled, received_at,
    )  # fmt: skip


def schema() -> str:
    """The table, and the view that shows it as it always looked: a column for each field of a trade."""
    places = {column.name: place for place, column in enumerate(REST)}
    shown = ",\n    ".join(
        f"{_shown(column, places[column.name])} AS {column.name}" if column.name in places else column.name
        for column in TRADES.columns
    )
    return (
        "CREATE TABLE trade_rows (symbol TEXT NOT NULL, timestamp INTEGER NOT NULL, sequential_id INTEGER NOT NULL, "
        "price TEXT NOT NULL, volume TEXT NOT NULL, side TEXT, rest TEXT NOT NULL, "
        f"PRIMARY KEY ({', '.join(KEY)})) WITHOUT ROWID;\n{ODD_IDS};\n"
        f"CREATE VIEW trades AS SELECT\n    {shown}\nFROM trade_rows"
    )


def _shown(column: Column, place: int) -> str:
    """A cell of the list as `columns` says it lies in a table: of a time, which is ISO 8601 there, its microseconds."""
    cell = f"json_extract(rest, '$[{place}]')"
    if column.read is not from_micros:
        return cell
    micros = f"CASE substr({cell}, 20, 1) WHEN '.' THEN CAST(substr({cell}, 21, 6) AS INTEGER) ELSE 0 END"
    return f"CAST(strftime('%s', {cell}) AS INTEGER) * 1000000 + {micros}"


def has_trade_rows(connection: sqlite3.Connection) -> bool:
    """Whether a store keeps its trades as `trade_rows`; one of schema 1 has a table `trades`."""
    version_found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version_found > 1
