"""Day files: Parquet, CSV or JSON lines, one file for each market and day, made of a store that is kept beside them.

    FOLDER/store.db                            everything, as `SqliteSink` keeps it: what is read, filled and repaired
    FOLDER/trades/2026-01-31/KRW-BTC.parquet   a day that is over and complete: it does not change any more
    FOLDER/trades/2026-02-01/KRW-BTC.open.parquet   one that is not, as it was some time ago

A file is made whole and put in its place in one step, sorted, each row once. Whatever crashes, nothing unreadable is
left, and what a file does not have yet is in the store. (Files that are appended to have neither: a torn end, rows that
a repair brings late or twice, and no way to tell a complete day from another.)
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
from abc import abstractmethod
from collections.abc import Generator, Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

from .._concurrency import SYSTEM_CLOCK, Clock
from ..errors import InvalidRequestError
from ..exchange.timeframes import timeframe_of
from ..export.dataframe import columns_of
from ..export.parquet import ParquetRows, pyarrow_modules, schema_of
from ..export.whole_file import discard, replacing
from ..models.market import OrderbookData
from ..models.readable import KST
from .base import Batch
from .columnar import pieces_of
from .columns import TABLE_NAMED, Row, Table, from_micros, table_of, to_micros, type_word
from .coverage import Interval, complete
from .sqlite import FOLDER_STORE, SqliteSink, ledger_of, transaction

DAY: Final = timedelta(days=1)
EXPORT_SECONDS: Final = 900.0
# Of the time, for all files that go on: those of a full market, which grow all day, would take most of it by evening.
EXPORT_SHARE: Final = 0.1
OPEN_KEY: Final = "open file "
# What is written when a recording ends, which shall not take long: some tenths of a second.
CLOSING_FILES: Final = 20
CLOSING_ROWS: Final = 20_000
# Of a Parquet file: large enough for readers to be fast, and some 50 MB while it is made.
GROUP_ROWS: Final = 100_000
_TO_JSON: Final = json.JSONEncoder(ensure_ascii=False).encode
_ZONES: Final[dict[str, tzinfo]] = {"UTC": UTC, "KST": KST}


class Partition(NamedTuple):
    """What one file holds: rows of a table, a market, a type ("trade", "candle.1m") and a day."""

    table: str
    symbol: str
    type: str
    day: date


class DayFiles(SqliteSink):
    """Base of the sinks that keep a folder of files by market and day beside their store.

    `day` is where days begin: "UTC" or "KST" (Korean midnight). A day's file is written anew at most every
    `export_seconds` while the day goes on, less often where all of them would take more than a tenth of the time; at
    the end of a recording as far as that is quickly done, and for the last time once the day is over and complete.
    `export()` writes all that is due, whatever that takes.
    """

    suffix: ClassVar[str]

    def __init__(
        self,
        folder: str | Path,
        *,
        day: str = "UTC",
        export_seconds: float = EXPORT_SECONDS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if day not in _ZONES:
            raise InvalidRequestError(f"day={day!r}: expected 'UTC' or 'KST'")
        self.folder = Path(folder)
        self._zone = _ZONES[day]
        self._export_seconds = export_seconds
        self._clock = clock
        self._pauses: dict[
            Partition, float
        ] = {}  # from a change to when it is written, where that is longer than usual
        self._due: dict[Partition, float] = {}  # when each that has changed is written again, by the monotonic clock
        self._known: set[Partition] = set()  # noted in the store as not sealed
        # Written, but not over or not complete: written for the last time when the coverage says so.
        self._unsealed: dict[tuple[str, str], set[Partition]] = {}
        super().__init__(self.folder / FOLDER_STORE)

    @property
    def name(self) -> str:
        return f"{self.suffix}:{self.folder.name}"

    def open(self) -> None:
        """See `SqliteSink`; the folder is made where there is none. What an earlier recording left open is due."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidRequestError(f"{self.folder}: no folder can be made there: {error.strerror}") from error
        super().open()
        for unfinished in self.folder.glob(f"*/*/.*.{self.suffix}.*.tmp"):  # a crash left it, for the lock is ours
            discard(unfinished)
        keys = self._open_connection.execute("SELECT key FROM meta WHERE key LIKE ?", (f"{OPEN_KEY}%",)).fetchall()
        self._due = dict.fromkeys((_partition_named(key) for (key,) in keys), 0.0)
        self._known = set(self._due)

    def write(self, batch: Batch) -> int:
        """As `SqliteSink.write`; the files follow later."""
        now = self._clock.monotonic()
        changed = {self._partition(item) for item in batch.items}
        # Before the rows: a crash in between makes a file too many, and none too few.
        self._remember(changed - self._known)
        news = super().write(batch)
        for partition in changed:
            self._due.setdefault(partition, now + self._pauses.get(partition, self._export_seconds))
        for span in batch.spans:
            for partition in self._unsealed.get((span.symbol, span.type), ()):
                if span.end >= self._bounds(partition.day).end:
                    self._due[partition] = now
        return news

    def _remember(self, partitions: set[Partition]) -> None:
        """Note in the store what has no final file yet."""
        if partitions:
            with transaction(self._open_connection) as connection:
                names = [(_name_of(each), "") for each in partitions]
                connection.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", names)
            self._known |= partitions

    def flush(self) -> None:
        """Write one file, if one is due: what waits for the sink must not wait for all of them."""
        now = self._clock.monotonic()
        due = min(self._due, key=self._due.__getitem__, default=None)
        if due is not None and self._due[due] <= now:
            self._export(due)

    def close(self) -> None:
        """Write what is quickly written; the rest is in the store, and due when somebody records there again."""
        try:
            if self._connection is not None:
                self._export_some()
        finally:
            super().close()

    def _export_some(self) -> None:
        rows = 0
        for partition in sorted(self._due)[:CLOSING_FILES]:
            if rows < CLOSING_ROWS:
                rows += self._export(partition)

    def export(self) -> int:
        """Write every file that is due now, while nobody records; how many."""
        self.open()
        try:
            due = sorted(self._due)
            for partition in due:
                self._export(partition)
            return len(due)
        finally:
            super().close()

    # One file

    def _export(self, partition: Partition) -> int:
        """Write the file anew; how many rows."""
        if TABLE_NAMED[partition.table].model not in self._models():
            self._due.pop(partition, None)
            return 0
        first, end = self._bounds(partition.day)
        is_sealed, began = self._is_complete(partition, first, end), self._clock.monotonic()
        final, still_open = self._path(partition, is_open=False), self._path(partition, is_open=True)
        target = final if is_sealed else still_open
        target.parent.mkdir(parents=True, exist_ok=True)
        # Row by row or in pieces: a day of millions takes no more memory than one of thousands.
        with contextlib.closing(self._rows(partition, first, end)) as rows, replacing(target) as temporary:
            count = self._write_file(temporary, TABLE_NAMED[partition.table], rows)
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
        self._due.pop(partition, None)  # not before it is there: a full disk is tried again
        unsealed = self._unsealed.setdefault((partition.symbol, partition.type), set())
        if not is_sealed:
            unsealed.add(partition)
            took = self._clock.monotonic() - began
            self._pauses[partition] = max(self._export_seconds, took * len(self._known) / EXPORT_SHARE)
            return count
        unsealed.discard(partition)
        self._pauses.pop(partition, None)
        discard(still_open)
        self._known.discard(partition)
        self._open_connection.execute("DELETE FROM meta WHERE key = ?", (_name_of(partition),))
        return count

    def _is_complete(self, partition: Partition, first: datetime, end: datetime) -> bool:
        ledger = ledger_of(self._open_connection)
        spans = ledger.spans(partition.symbol, partition.type)
        gaps = ledger.gaps(partition.symbol, partition.type)
        return any(each.start <= first and end <= each.end for each in complete(spans, gaps)) and first < end

    def _rows(self, partition: Partition, first: datetime, end: datetime) -> Generator[Any]:
        """What the file will hold, in order, in the pieces that `_write_file` takes."""
        table = TABLE_NAMED[partition.table]
        order = {"trades": "timestamp, sequential_id", "tickers": "timestamp, rowid"}.get(table.name, "timestamp")
        query = (
            f"SELECT {', '.join(table.names)} FROM {table.name} WHERE symbol = ? AND timestamp >= ? AND timestamp < ?"  # noqa: S608
        )
        values: list[Any] = [partition.symbol, to_micros(first), to_micros(end)]
        if table.name == "candles":
            query += " AND timeframe = ?"
            values.append(_timeframe(partition.type))
        with contextlib.closing(self._open_connection.execute(f"{query} ORDER BY {order}", values)) as rows:
            yield from rows

    # Where it lies

    def _partition(self, item: Any) -> Partition:
        day = item.timestamp.astimezone(self._zone).date()
        return Partition(table_of(item).name, item.symbol, type_word(item), day)

    def _bounds(self, day: date) -> Interval:
        start = datetime.combine(day, time(), self._zone).astimezone(UTC)
        return Interval(start, start + DAY)

    def _path(self, partition: Partition, *, is_open: bool) -> Path:
        kind = f"{partition.table}-{_timeframe(partition.type)}" if partition.table == "candles" else partition.table
        name = f"{partition.symbol}{'.open' if is_open else ''}.{self.suffix}"
        return self.folder / kind / partition.day.isoformat() / name

    # The format

    def _models(self) -> frozenset[type[Any]]:
        """What the format has files for."""
        return frozenset(table.model for table in TABLE_NAMED.values())

    @abstractmethod
    def _write_file(self, path: Path, table: Table, rows: Iterable[Any]) -> int:
        """Write to a new file what `_rows` gives; how many rows."""


class JsonlSink(DayFiles):
    """Files of JSON lines: one object a row with the columns of the store, numbers as texts, times as ISO 8601."""

    suffix = "jsonl"

    def _write_file(self, path: Path, table: Table, rows: Iterable[Row]) -> int:
        count = 0
        with path.open("w", encoding="utf-8") as file:
            for count, row in enumerate(rows, 1):  # noqa: B007 - the last one is asked for
                file.write(_TO_JSON(dict(zip(table.names, _readable(table, row), strict=True))))
                file.write("\n")
        return count


class CsvSink(DayFiles):
    """Files of comma-separated values with a head line: the columns of the store, exact numbers, times as ISO 8601."""

    suffix = "csv"

    def _write_file(self, path: Path, table: Table, rows: Iterable[Row]) -> int:
        count = 0
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(table.names)
            for count, row in enumerate(rows, 1):  # noqa: B007 - the last one is asked for
                writer.writerow(_readable(table, row))
        return count


class ParquetSink(DayFiles):
    """Parquet files (extra `[parquet]`) with decimal columns that can be summed, as those of `write_parquet`: of
    trades, candles and tickers. Order books are in the store alone. ImportError where pyarrow is not installed."""

    suffix = "parquet"

    def __init__(self, folder: str | Path, **options: Any) -> None:
        pyarrow_modules()  # not at the end of a day only
        super().__init__(folder, **options)

    def _models(self) -> frozenset[type[Any]]:
        return super()._models() - {OrderbookData}

    def _rows(self, partition: Partition, first: datetime, end: datetime) -> Generator[Any]:
        names = columns_of(TABLE_NAMED[partition.table].model)
        timeframe = _timeframe(partition.type) if partition.table == "candles" else None
        return pieces_of(
            self._open_connection, partition.table, partition.symbol, first, end, names, timeframe=timeframe
        )

    def _write_file(self, path: Path, table: Table, rows: Iterable[Any]) -> int:
        arrow, _ = pyarrow_modules()
        with ParquetRows(path, schema_of(arrow, table.model, "exact")) as file:
            return sum(map(file.write_texts, _grouped(arrow, rows)))


def _grouped(arrow: Any, pieces: Iterable[Any]) -> Iterator[Any]:
    """The same tables, as many at a time as make a row group."""
    waiting: list[Any] = []
    for piece in pieces:
        waiting.append(piece)
        if sum(map(len, waiting)) >= GROUP_ROWS:
            yield arrow.concat_tables(waiting)
            waiting.clear()
    if waiting:
        yield arrow.concat_tables(waiting)


def _name_of(partition: Partition) -> str:
    return OPEN_KEY + json.dumps([partition.table, partition.symbol, partition.type, partition.day.isoformat()])


def _partition_named(key: str) -> Partition:
    table, symbol, kind, day = json.loads(key.removeprefix(OPEN_KEY))
    return Partition(table, symbol, kind, date.fromisoformat(day))


def _readable(table: Table, row: Row) -> list[Any]:
    """A row's cells as people and programs read them in a text."""
    cells = [_key_as_given(table, row, place) for place in range(len(row))]
    return [
        from_micros(cell).isoformat() if cell is not None and column.name in _TIMES[table.name] else cell
        for column, cell in zip(table.columns, cells, strict=True)
    ]


_TIMES: Final = {
    table.name: {column.name for column in table.columns if column.read is from_micros}
    for table in TABLE_NAMED.values()
}


def _key_as_given(table: Table, row: Row, place: int) -> Any:
    """What Upbit left out of a key was stored as something else; see `sqlite`."""
    name, cell = table.columns[place].name, row[place]
    if name == "sequential_id" and cell < 0:
        return None
    return None if name == "volume_today" and cell == "" else cell


def _timeframe(kind: str) -> str:
    return timeframe_of(kind).word
