"""Columnar: a store's tables as Arrow tables, without a model for each row, and DuckDB's answers over them.

Trades, of which there are millions, come without a Python object for each cell, too: SQLite writes each column of many
rows as one text, and Arrow reads cells out of it, both in C.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from itertools import chain
from typing import Any, Final, Literal, NamedTuple

import msgspec

from .._concurrency import Deadline, WorkerPool, wait_future
from ..errors import InvalidRequestError, one_line
from ..export.dataframe import Numbers
from ..export.parquet import DIGITS_OF, PRICE, pyarrow_modules
from . import trade_rows
from .columns import TABLE_NAMED, Column, from_micros, to_micros
from .trade_rows import has_trade_rows

BATCH_ROWS: Final = 2_000  # so few that their values are in the processor's cache when columns are made of them
TEXT_ROWS: Final = 20_000  # some 3 MB of text: the fewer, the more often SQLite and Arrow's reader begin anew
SMALL_ROWS: Final = 4_000  # in a piece of a table, on average
EARLIEST: Final = -(2**63)
LATEST: Final = 2**63 - 1
PARSERS: Final = 2  # to read cells out of a text takes longer than to write it
PARSING_SECONDS: Final = 1.0  # for the text that is being read when somebody wants no more
WIDEST: Final = (38, 16)  # for a number with more digits than its kind usually has
# Beside the tables of data, what is known of them: (name, whether it is a time) of each column.
_BESIDE: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "coverage": (("symbol", "text"), ("type", "text"), ("start", "time"), ("end", "time")),
    "gaps": (
        *(("symbol", "text"), ("type", "text"), ("start", "time"), ("end", "time"), ("missing_start", "time")),
        *(("missing_end", "time"), ("recovered", "number"), ("complete", "flag"), ("late", "flag"), ("reason", "text")),
        *(("told_at", "time"), ("filled_at", "time")),
    ),
}
NAMES: Final = (*TABLE_NAMED, *_BESIDE)
REST: Final = "rest"  # the column of lists
_OF_ORIGIN: Final = ("source", "stream_type", "is_backfilled")  # what is one number at the end of a trade's list
_PRICES: Final = frozenset(("price", "prev_closing_price", "change_amount", "best_ask_price", "best_bid_price"))
_LISTED: Final = frozenset((*trade_rows.LISTED, *_OF_ORIGIN))

Columns = list[tuple[str, Any]]  # the name of each, and Arrow's type for it


def frame_of(
    connection: sqlite3.Connection,
    name: str,
    symbol: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    chosen: Sequence[str] | None = None,
    numbers: Numbers = "exact",
) -> Any:
    """See `Store.table`."""
    arrow, _ = pyarrow_modules()
    if name not in NAMES:
        raise InvalidRequestError(f"table {one_line(name)!r}: expected one of {', '.join(NAMES)}")
    if numbers not in ("exact", "float"):
        raise InvalidRequestError(f"numbers={one_line(repr(numbers))}: expected 'exact' or 'float'")
    columns = _chosen(name, _columns_of(arrow, name, numbers), chosen)
    found = list(_pieces(arrow, connection, name, columns, symbol, start, end))
    if not found:
        return _table(arrow, columns, [()] * len(columns))
    table = arrow.concat_tables(found, promote_options="permissive")
    # Of thousands of small pieces every later step would be slower. Those of trades are large: to copy all of them into
    # one would take a tenth of the time, and twice the memory.
    if len(table) < SMALL_ROWS * len(found):
        table = table.combine_chunks()
    return (table if symbol is not None else _in_order(table)).select([name for name, _ in columns])


def pieces_of(
    connection: sqlite3.Connection,
    name: str,
    symbol: str,
    start: datetime,
    end: datetime,
    chosen: Sequence[str],
    timeframe: str | None = None,
) -> Generator[Any]:
    """The same of one market as tables of some thousand rows, one after the other, and exact numbers as the texts they
    are stored as. From the first until the last was taken, or `close()`, the connection is in a transaction."""
    arrow, _ = pyarrow_modules()
    columns = _chosen(name, _columns_of(arrow, name, "text"), chosen)
    return _pieces(arrow, connection, name, columns, symbol, start, end, timeframe)


def _pieces(
    arrow: Any,
    connection: sqlite3.Connection,
    name: str,
    columns: Columns,
    symbol: str | None,
    start: datetime | None,
    end: datetime | None,
    timeframe: str | None = None,
) -> Generator[Any]:
    """Tables with these columns; of all markets one after the other, with those by which they are put in order."""
    names = [name for name, _ in columns]
    time = "timestamp" if name in TABLE_NAMED else "start"
    bounds = {f"{time} >= ?": start and to_micros(start), f"{time} < ?": end and to_micros(end)}
    tests: dict[str, Any] = {"timeframe = ?": timeframe, **bounds}
    asked = {test: value for test, value in tests.items() if value is not None}
    if name == "trades" and has_trade_rows(connection):
        read = _trades(arrow, connection, columns, symbol, asked)
    else:
        read = _rows(arrow, connection, name, columns, asked if symbol is None else {"symbol = ?": symbol, **asked})
    # One look for all markets and pieces: what a recorder writes meanwhile is in all of them or in none.
    connection.execute("BEGIN")
    try:
        for piece in read:
            yield piece if symbol is None else piece.select(names)
    finally:
        connection.execute("COMMIT")


def _rows(
    arrow: Any, connection: sqlite3.Connection, name: str, columns: Columns, asked: Mapping[str, Any]
) -> Iterator[Any]:
    """The rows of a table that pass the tests, in order of their time."""
    orders = {"tickers": "timestamp, rowid", "trades": "timestamp, sequential_id", **dict.fromkeys(_BESIDE, "start")}
    order = orders.get(name, "timestamp")
    where = f"WHERE {' AND '.join(asked)}" if asked else ""
    names = ", ".join(_selected(column) for column, _ in columns)
    # Every word of it is ours; what was asked for goes in as values.
    rows = connection.execute(f"SELECT {names} FROM {name} {where} ORDER BY {order}", tuple(asked.values()))  # noqa: S608
    while found := rows.fetchmany(BATCH_ROWS):
        yield _table(arrow, columns, list(zip(*found, strict=True)))


# Trades


class _Text(NamedTuple):
    """Many trades of one market in order of time: of each column of `trade_rows` that is needed a line for each."""

    symbol: str
    lines: Mapping[str, bytes]


def _trades(
    arrow: Any, connection: sqlite3.Connection, columns: Columns, symbol: str | None, asked: Mapping[str, Any]
) -> Iterator[Any]:
    """All trades that pass the tests, market by market."""
    read = columns  # and the time, by which markets are put in order
    if "timestamp" not in dict(columns):
        read = [*columns, ("timestamp", arrow.timestamp("us", tz="UTC"))]
    symbols = [symbol] if symbol is not None else _symbols(connection)
    texts = (_Text(each, lines) for each in symbols for lines in _lines(connection, read, each, asked))
    yield from _beside(partial(_parsed, arrow, read), texts)


def _beside(work: Callable[[_Text], Any], texts: Iterator[_Text]) -> Iterator[Any]:
    """`work` of each text, in order: on threads of its own while SQLite writes the next, for neither needs the GIL."""
    first, second = next(texts, None), next(texts, None)
    if first is None or second is None:
        yield from map(work, filter(None, [first]))
        return
    pool = WorkerPool(PARSERS, "upbit-columns")
    under_way: deque[Future[Any]] = deque()
    try:
        for text in chain((first, second), texts):
            under_way.append(pool.submit(partial(work, text)))
            if len(under_way) > PARSERS:  # so that one waits where a thread is ready for the next
                yield wait_future(under_way.popleft(), Deadline.after(None), "columns")
        while under_way:
            yield wait_future(under_way.popleft(), Deadline.after(None), "columns")
    finally:
        pool.close(Deadline.after(PARSING_SECONDS))


def _symbols(connection: sqlite3.Connection) -> list[str]:
    return [symbol for (symbol,) in connection.execute("SELECT DISTINCT symbol FROM trade_rows ORDER BY symbol")]


def _lines(
    connection: sqlite3.Connection, columns: Columns, symbol: str, asked: Mapping[str, Any]
) -> Iterator[Mapping[str, bytes]]:
    """The lines of one `_Text` after the other."""
    needed = {REST if name in _LISTED else name: None for name, _ in columns if name != "symbol"}
    # A text of each column: SQLite takes half as long again to join the cells of a row first. And the line's end is no
    # char(10), which it would call for each line.
    texts = ", ".join(f"CAST(group_concat({name}, '\n') AS BLOB)" for name in needed)
    # Where a text ends is asked for first: with a LIMIT of its own, rows would go from one query into another, which
    # costs as much again as the text. Lines come in order of the key, as its tree is all there is to walk. A text ends
    # with all of a moment, because to compare a pair of time and id costs a tenth.
    nth = """SELECT timestamp FROM trade_rows WHERE symbol = ? AND timestamp >= ? AND timestamp < ?
        ORDER BY timestamp LIMIT 1 OFFSET ?"""
    statement = f"SELECT {texts} FROM trade_rows WHERE symbol = ? AND timestamp >= ? AND timestamp < ?"  # noqa: S608
    begin, end = asked.get("timestamp >= ?", EARLIEST), asked.get("timestamp < ?", LATEST)
    while begin < end:
        last = connection.execute(nth, (symbol, begin, end, TEXT_ROWS - 1)).fetchone()
        following = end if last is None else last[0] + 1
        found = connection.execute(statement, (symbol, begin, following)).fetchone()
        if found[0] is not None:
            yield dict(zip(needed, found, strict=True))
        begin = following


def _parsed(arrow: Any, columns: Columns, text: _Text) -> Any:
    """The table that such a text tells of."""
    times = _whole_numbers(arrow, text.lines["timestamp"])
    found = {"timestamp": times.cast(dict(columns)["timestamp"])}
    if "symbol" in dict(columns):
        found["symbol"] = arrow.repeat(arrow.scalar(text.symbol), len(times))
    if "sequential_id" in text.lines:
        found["sequential_id"] = _known(arrow, _whole_numbers(arrow, text.lines["sequential_id"]))
    if REST in text.lines:
        found |= _rest_of(arrow, [each for each in columns if each[0] in _LISTED], text.lines[REST], times)
    return arrow.table([found[name] for name, _ in columns], names=[name for name, _ in columns])


def _whole_numbers(arrow: Any, lines: bytes) -> Any:
    return _read(arrow, lines, ["number"], {"number": arrow.int64()})["number"]


def _known(arrow: Any, ids: Any) -> Any:
    """Those that Upbit gave: a negative one was made by us, for a trade that came without."""
    from pyarrow import compute

    if compute.min(ids).as_py() >= 0:
        return ids
    return compute.if_else(compute.less(ids, 0), arrow.scalar(None, ids.type), ids)


def _rest_of(arrow: Any, columns: Columns, lines: bytes, times: Any) -> dict[str, Any]:
    """These columns out of the trades' lists."""
    if b"\\" not in lines:  # JSON writes a strange sign in another way than CSV
        # For a number that is wider than its kind usually is, and where there is a comma or an item too many.
        with contextlib.suppress(arrow.ArrowInvalid):
            return _scanned(arrow, columns, lines, times)
    return _decoded(arrow, columns, lines, times)


def _scanned(arrow: Any, columns: Columns, lines: bytes, times: Any) -> dict[str, Any]:
    """By Arrow's reader of CSV, in which brackets are part of what stands beside them: of the side in front, and of the
    number at the end. Both are one of few, each of which is looked at once."""
    from pyarrow import compute

    kinds, few = dict(columns), arrow.dictionary(arrow.int32(), arrow.string())
    read = {name: kind for name, kind in columns if name not in _OF_ORIGIN}
    # Prices repeat: to find the same text again takes half as long as to make a decimal of it.
    repeated = [name for name in read if name in _PRICES and arrow.types.is_decimal(read[name])]
    read |= {name: few for name in ("side", *repeated) if name in read}
    read |= {name: arrow.int64() for name in trade_rows.AFTER if name in read}
    if not kinds.keys().isdisjoint(_OF_ORIGIN):
        read[trade_rows.ORIGIN] = few
    found = _read(arrow, lines, [*trade_rows.LISTED, trade_rows.ORIGIN], read)
    for name in trade_rows.AFTER:
        if name in found:
            found[name] = compute.add(times, found[name])
    for name in repeated:
        found[name] = found[name].dictionary.cast(kinds[name]).take(found[name].indices)
    for name in found:
        if arrow.types.is_decimal(read[name]):
            found[name].validate(full=True)  # the reader tells nobody of digits beyond the type's
    if "side" in found:
        words = [msgspec.json.decode(word[1:]) for word in found["side"].dictionary.to_pylist()]
        found["side"] = arrow.array(words).take(found["side"].indices)
    origins = found.pop(trade_rows.ORIGIN, None)
    for place, name in enumerate(_OF_ORIGIN):
        if name in kinds:
            told = [trade_rows.told_by(int(word[:-1]))[place] for word in origins.dictionary.to_pylist()]
            found[name] = arrow.array(told).take(origins.indices)
    return {name: found[name].cast(kind) for name, kind in columns}


def _read(arrow: Any, lines: bytes, places: list[str], kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Some columns of such lines."""
    from pyarrow import csv

    table = csv.read_csv(
        arrow.py_buffer(lines),
        read_options=csv.ReadOptions(column_names=places, block_size=len(lines) + 1, use_threads=False),
        convert_options=csv.ConvertOptions(
            column_types=kinds, include_columns=list(kinds), null_values=["null"], strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )  # fmt: skip
    return {name: table[name].combine_chunks() for name in kinds}


def _decoded(arrow: Any, columns: Columns, lines: bytes, times: Any) -> dict[str, Any]:
    """The same by way of Python's objects, which takes any sign."""
    rows = []
    for line, time in zip(lines.decode().split("\n"), times.to_pylist(), strict=True):
        rest = msgspec.json.decode(line)
        row = dict(zip(trade_rows.LISTED, rest, strict=False))
        row |= zip(_OF_ORIGIN, trade_rows.told_by(*rest[len(row) :]), strict=True)
        row |= {name: time + row[name] for name in trade_rows.AFTER if row[name] is not None}
        rows.append(row)
    return {name: _array(arrow, kind, [row[name] for row in rows]) for name, kind in columns}


def _in_order(table: Any) -> Any:
    from pyarrow import compute

    if "timestamp" not in table.column_names:
        return table
    times = table["timestamp"]
    if len(times) < 2 or compute.all(compute.less_equal(times.slice(0, len(times) - 1), times.slice(1))).as_py():
        return table
    return table.sort_by("timestamp")  # which keeps the order of those with the same time


# Columns


def _chosen(name: str, columns: Columns, chosen: Sequence[str] | None) -> Columns:
    if chosen is None:
        return columns
    kinds = dict(columns)
    unknown = [each for each in chosen if each not in kinds]
    if unknown or not chosen or isinstance(chosen, str):
        raise InvalidRequestError(f"columns={one_line(repr(chosen))}: {name} has {', '.join(kinds)}")
    return [(each, kinds[each]) for each in chosen]


def _selected(column: str) -> str:
    if column == "sequential_id":
        return "CASE WHEN sequential_id < 0 THEN NULL ELSE sequential_id END"
    return "nullif(volume_today, '')" if column == "volume_today" else f'"{column}"'


def _columns_of(arrow: Any, name: str, numbers: Numbers | Literal["text"]) -> Columns:
    """The names, and what each becomes."""
    moment = arrow.timestamp("us", tz="UTC")
    if name in _BESIDE:
        kinds = {"text": arrow.string(), "time": moment, "number": arrow.int64(), "flag": arrow.bool_()}
        return [(column, kinds[kind]) for column, kind in _BESIDE[name]]
    return [(column.name, _type_of(arrow, column, moment, numbers)) for column in TABLE_NAMED[name].columns]


def _type_of(arrow: Any, column: Column, moment: Any, numbers: Numbers | Literal["text"]) -> Any:
    if column.read is from_micros:
        return moment
    if column.read is bool:
        return arrow.bool_()
    if column.sql == "INTEGER":
        return arrow.int64()
    if not column.is_number or numbers == "text":
        return arrow.string()
    return arrow.float64() if numbers == "float" else arrow.decimal128(*DIGITS_OF.get(column.name, PRICE))


def _table(arrow: Any, columns: Columns, values: list[Any]) -> Any:
    arrays = [_array(arrow, kind, cells) for (_, kind), cells in zip(columns, values, strict=True)]
    return arrow.table(arrays, names=[name for name, _ in columns])


def _array(arrow: Any, kind: Any, cells: Any) -> Any:
    if arrow.types.is_decimal(kind) or arrow.types.is_floating(kind):
        return _cast(arrow, arrow.array(cells, type=arrow.string()), kind)
    if arrow.types.is_timestamp(kind):  # whole microseconds
        return _cast(arrow, arrow.array(cells), kind)
    if arrow.types.is_boolean(kind):
        return arrow.array([None if each is None else bool(each) for each in cells], type=kind)
    return arrow.array(cells, type=kind)


def _cast(arrow: Any, array: Any, kind: Any) -> Any:
    try:
        return array.cast(kind)  # in C, and a number from its text, without a Decimal in between
    except arrow.ArrowInvalid:
        if not arrow.types.is_decimal(kind):
            raise
        return _cast_wide(arrow, array)


def _cast_wide(arrow: Any, texts: Any) -> Any:
    try:
        return texts.cast(arrow.decimal128(*WIDEST))
    except arrow.ArrowInvalid as error:
        raise InvalidRequestError(f"a number does not fit {WIDEST[0]} digits: {one_line(error)}") from error


def query(connection: sqlite3.Connection, statement: str, parameters: Mapping[str, Any]) -> Any:
    """See `Store.sql`."""
    duckdb = _duckdb()
    words = set(re.findall(r"\w+", statement.lower()))
    with duckdb.connect() as database:
        for name in NAMES:
            if name in words:
                database.register(name, frame_of(connection, name))
        try:
            found = database.sql(statement, params=dict(parameters) or None)
            if found is None:
                raise InvalidRequestError("sql() answers questions, and a store is only read: begin with select")
            return found.to_arrow_table()
        except duckdb.Error as error:
            raise InvalidRequestError(f"DuckDB does not take that: {one_line(error)}") from error


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError as error:
        raise ImportError("sql() needs DuckDB; install it with: pip install 'upbit-backbone[duckdb]'") from error
    return duckdb
