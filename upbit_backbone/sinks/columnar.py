"""Columnar: a store's tables as Arrow tables, without a model for each row, and DuckDB's answers over them.

Trades, of which there are millions, come without a Python object for each cell, too: SQLite writes many rows as one
text, and Arrow reads columns out of it, both in C.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
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
TEXT_ROWS: Final = 20_000  # some 4 MB of text: the fewer, the more often SQLite is asked
EARLIEST: Final = -(2**63)
LATEST: Final = 2**63 - 1
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
_LISTED: Final = frozenset(column.name for column in trade_rows.REST)
_JSON: Final = json.JSONDecoder()

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
    # In one piece: of thousands of small ones every later step would be slower.
    table = arrow.concat_tables(found, promote_options="permissive").combine_chunks()
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
    """Many trades of one market in order of time, a line each: a JSON list of what has columns of its own, between
    zeros that keep its brackets away, and where that is asked for the trade's list right behind it."""

    symbol: str
    lines: bytes


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
    """`work` of each text, in order: on a thread of its own while SQLite writes the next, for neither needs the GIL."""
    first, second = next(texts, None), next(texts, None)
    if first is None or second is None:
        yield from map(work, filter(None, [first]))
        return
    pool = WorkerPool(1, "upbit-columns")
    try:
        under_way = pool.submit(partial(work, first))
        for text in chain((second,), texts):
            done = wait_future(under_way, Deadline.after(None), "columns")
            under_way = pool.submit(partial(work, text))
            yield done
        yield wait_future(under_way, Deadline.after(None), "columns")
    finally:
        pool.close(Deadline.after(PARSING_SECONDS))


def _symbols(connection: sqlite3.Connection) -> list[str]:
    return [symbol for (symbol,) in connection.execute("SELECT DISTINCT symbol FROM trade_rows ORDER BY symbol")]


def _own_of(columns: Columns) -> list[str]:
    """Which of these have a column of their own in `trade_rows`, but for the market, which a text has in common."""
    return [name for name, _ in columns if name not in _LISTED and name != "symbol"]


def _lines(connection: sqlite3.Connection, columns: Columns, symbol: str, asked: Mapping[str, Any]) -> Iterator[bytes]:
    """The lines of one `_Text` after the other."""
    own = ", ".join(map(_selected, _own_of(columns)))
    line = f"json_array(0, {own}, 0)" + (" || rest" if any(name in _LISTED for name, _ in columns) else "")
    # Where the next text begins is asked for first: with a LIMIT of its own, rows would go from one query into another,
    # which costs as much again as the text. Lines come in order of the key, as its tree is all there is to walk. And
    # the line's end is no char(10), which SQLite would call for each line.
    beginning = """SELECT timestamp, sequential_id FROM trade_rows
        WHERE symbol = ? AND (timestamp, sequential_id) >= (?, ?) AND timestamp < ?
        ORDER BY timestamp, sequential_id LIMIT 1 OFFSET ?"""
    statement = f"""SELECT CAST(group_concat({line}, '\n') AS BLOB) FROM trade_rows
        WHERE symbol = ? AND (timestamp, sequential_id) >= (?, ?) AND (timestamp, sequential_id) < (?, ?)"""  # noqa: S608
    end = asked.get("timestamp < ?", LATEST)
    begin: tuple[int, int] | None = (asked.get("timestamp >= ?", EARLIEST), EARLIEST)
    while begin is not None:
        following = connection.execute(beginning, (symbol, *begin, end, TEXT_ROWS)).fetchone()
        (text,) = connection.execute(statement, (symbol, *begin, *(following or (end, EARLIEST)))).fetchone()
        if text is not None:
            yield text
        begin = following


def _parsed(arrow: Any, columns: Columns, text: _Text) -> Any:
    """The table that such a text tells of."""
    if b"\\" not in text.lines:  # JSON writes a strange sign in another way than CSV
        with contextlib.suppress(arrow.ArrowInvalid):  # a number that is wider than its kind usually is
            return _read(arrow, columns, text)
    return _decoded(arrow, columns, text)


def _read(arrow: Any, columns: Columns, text: _Text) -> Any:
    """The same by Arrow's reader of CSV, in which brackets are part of what stands beside them."""
    from pyarrow import compute, csv

    listed = any(name in _LISTED for name, _ in columns)
    places = ["[", *_own_of(columns), *([column.name for column in trade_rows.REST] if listed else ["]"])]
    kinds = dict(columns)
    read = {name: _in_text(arrow, kind) for name, kind in columns if name != "symbol"} | {"timestamp": arrow.int64()}
    if "source" in read:
        read["source"] = arrow.dictionary(arrow.int32(), arrow.string())
    if "received_at" in read:
        read["received_at"] = arrow.string()
    table = csv.read_csv(
        arrow.py_buffer(text.lines),
        read_options=csv.ReadOptions(column_names=places, block_size=len(text.lines) + 1, use_threads=False),
        convert_options=csv.ConvertOptions(
            column_types=read, include_columns=list(read), null_values=["null", "null]"], true_values=["true"],
            false_values=["false"], strings_can_be_null=True, quoted_strings_can_be_null=False,
        ),
    )  # fmt: skip
    found = {name: table[name].combine_chunks() for name in read}
    if "symbol" in kinds:
        found["symbol"] = arrow.repeat(arrow.scalar(text.symbol), len(table))
    if "source" in read:
        words = [msgspec.json.decode(word.removeprefix("0][")) for word in found["source"].dictionary.to_pylist()]
        found["source"] = arrow.DictionaryArray.from_arrays(found["source"].indices, arrow.array(words, "string"))
    if "received_at" in read:
        found["received_at"] = compute.ascii_rtrim(found["received_at"], "]")
    return arrow.table([found[name].cast(kind) for name, kind in columns], names=list(kinds))


def _in_text(arrow: Any, kind: Any) -> Any:
    """As what a column is read. The reader tells nobody of digits beyond the type's, the cast from a wider one does."""
    return arrow.decimal128(WIDEST[0], kind.scale) if arrow.types.is_decimal(kind) else kind


def _decoded(arrow: Any, columns: Columns, text: _Text) -> Any:
    """The same by way of Python's objects, which takes any sign."""
    names = ["[", *_own_of(columns), "]", *(column.name for column in trade_rows.REST)]
    rows = []
    for line in text.lines.decode().split("\n"):
        own, end = _JSON.raw_decode(line)
        rows.append([*own, *(msgspec.json.decode(line[end:]) if line[end:] else ())])
    cells = dict(zip(names, zip(*rows, strict=True), strict=False)) | {"symbol": [text.symbol] * len(rows)}
    return _table(arrow, columns, [cells[name] for name, _ in columns])


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
    if arrow.types.is_timestamp(kind):  # whole microseconds, or in the list of a trade a text
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
