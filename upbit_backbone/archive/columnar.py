"""Columnar: a store's tables as Arrow tables, without a model for each row, and DuckDB's answers over them."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from ..errors import InvalidRequestError, one_line
from ..export.parquet import DIGITS_OF, PRICE, pyarrow_modules
from ..sinks.columns import TABLE_NAMED, Column, from_micros, to_micros

BATCH_ROWS: Final = 2_000  # so few that their values are in the processor's cache when columns are made of them
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


def frame_of(
    connection: sqlite3.Connection,
    name: str,
    symbol: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    chosen: Sequence[str] | None = None,
) -> Any:
    """See `Store.table`."""
    arrow, _ = pyarrow_modules()
    if name not in NAMES:
        raise InvalidRequestError(f"table {one_line(name)!r}: expected one of {', '.join(NAMES)}")
    columns = _chosen(name, _columns_of(arrow, name), chosen)
    time = "timestamp" if name in TABLE_NAMED else "start"
    tests = {"symbol = ?": symbol, f"{time} >= ?": start and to_micros(start), f"{time} < ?": end and to_micros(end)}
    asked = {test: value for test, value in tests.items() if value is not None}
    where = f"WHERE {' AND '.join(asked)}" if asked else ""
    names = ", ".join(_selected(column) for column, _ in columns)
    # Every word of it is ours; what was asked for goes in as values.
    rows = connection.execute(f"SELECT {names} FROM {name} {where} ORDER BY {time}", tuple(asked.values()))  # noqa: S608
    batches = []
    while found := rows.fetchmany(BATCH_ROWS):
        batches.append(_table(arrow, columns, list(zip(*found, strict=True))))
    if not batches:
        batches = [_table(arrow, columns, [()] * len(columns))]
    # In one piece: of thousands of small ones every later step would be slower.
    return arrow.concat_tables(batches, promote_options="permissive").combine_chunks()


def _chosen(name: str, columns: list[tuple[str, Any]], chosen: Sequence[str] | None) -> list[tuple[str, Any]]:
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


def _columns_of(arrow: Any, name: str) -> list[tuple[str, Any]]:
    """The names, and what each becomes."""
    moment = arrow.timestamp("us", tz="UTC")
    if name in _BESIDE:
        kinds = {"text": arrow.string(), "time": moment, "number": arrow.int64(), "flag": arrow.bool_()}
        return [(column, kinds[kind]) for column, kind in _BESIDE[name]]
    return [(column.name, _type_of(arrow, column, moment)) for column in TABLE_NAMED[name].columns]


def _type_of(arrow: Any, column: Column, moment: Any) -> Any:
    if column.read is from_micros:
        return moment
    if column.read is bool:
        return arrow.bool_()
    if column.sql == "INTEGER":
        return arrow.int64()
    return arrow.decimal128(*DIGITS_OF.get(column.name, PRICE)) if column.is_number else arrow.string()


def _table(arrow: Any, columns: list[tuple[str, Any]], values: list[Any]) -> Any:
    arrays = [_array(arrow, kind, cells) for (_, kind), cells in zip(columns, values, strict=True)]
    return arrow.table(arrays, names=[name for name, _ in columns])


def _array(arrow: Any, kind: Any, cells: Any) -> Any:
    if arrow.types.is_decimal(kind):
        texts = arrow.array(cells, type=arrow.string())
        try:
            return texts.cast(kind)  # in C, from the text, without a Decimal in between
        except arrow.ArrowInvalid:
            return _cast_wide(arrow, texts)
    if arrow.types.is_timestamp(kind):
        return arrow.array(cells, type=arrow.int64()).cast(kind)
    if arrow.types.is_boolean(kind):
        return arrow.array(cells, type=arrow.int8()).cast(kind)
    return arrow.array(cells, type=kind)


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
