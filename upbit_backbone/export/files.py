"""CSV and Parquet files of candles, trades and tickers that are either whole or not there at all.

Everything is written to a file beside the wanted one, flushed to the disk and put in its place in one step, so that
a reader (or a crash) never meets half a file. A CSV download that is interrupted leaves `NAME.part`, from which
`CsvFile(path, resume=True)` goes on. Parquet needs the extra `parquet`.
"""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

from ..errors import InvalidRequestError
from ..models.market import CandleData
from .dataframe import COLUMNS, FLAGS, IDS, TEXTS, Numbers

BATCH_ROWS: Final = 10_000
# Upbit's prices and sizes have at most 8 decimals, their product 16; 22 digits remain before the point.
DECIMAL_DIGITS, DECIMAL_PLACES = 38, 16


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


# -- CSV -------------------------------------------------------------------------------------------------------------


class CsvFile:
    """A CSV file that grows beside its final name and takes it on a clean exit of the `with` block.

    On an error the rows so far stay in `NAME.part`; with `resume=True` they (or, where there are none, those of a
    finished file) are gone on from: `last` is the time of the last whole row, None at the beginning. A torn last line
    is cut off. Without `resume` it starts afresh.
    """

    def __init__(self, path: str | os.PathLike[str], kind: type[Any] = CandleData, *, resume: bool = False) -> None:
        self.path = Path(path)
        self.part = self.path.with_name(self.path.name + ".part")
        self._columns = columns_of(kind)
        self.last: datetime | None = None
        self.rows = 0
        has_rows = resume and self._take_up()
        self._file: IO[str] = self.part.open("a" if has_rows else "w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        if not has_rows:
            self._writer.writerow(self._columns)

    def _take_up(self) -> bool:
        """Make `.part` the rows to go on from; False where there are none."""
        if not self.part.exists():
            if not self.path.exists():
                return False
            unfinished = self.part.with_name(self.part.name + ".copy")
            shutil.copyfile(self.path, unfinished)
            unfinished.replace(self.part)
        with self.part.open("rb+") as file:
            whole = _end_of_last_line(file)
            file.truncate(whole)
        with self.part.open(newline="", encoding="utf-8") as text:
            header, *_ = [*islice(csv.reader(text), 1), []]
            if header and tuple(header) != self._columns:
                raise InvalidRequestError(
                    f"{self.part} has other columns than this download; remove it, or do not resume"
                )
            for row in csv.reader(text):
                self.rows, self.last = self.rows + 1, datetime.fromisoformat(row[0])
        return bool(header)

    def write(self, items: Iterable[Any]) -> int:
        """Append rows; how many. What is written is safe from a crash only after `flush` or the end."""
        before = self.rows
        for item in items:
            self._writer.writerow([as_text(getattr(item, name)) for name in self._columns])
            self.rows += 1
            self.last = item.timestamp
        return self.rows - before

    def flush(self) -> None:
        """Bring everything to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def commit(self) -> None:
        """Give the file its final name. Nothing can be written afterwards."""
        self.flush()
        self._file.close()
        _put_in_place(self.part, self.path)

    def __enter__(self) -> CsvFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file.closed:
            return
        if error is None:
            self.commit()
        else:
            self._file.close()

    def __repr__(self) -> str:
        return f"<CsvFile {self.path} {self.rows} rows, {'written' if self._file.closed else 'open'}>"


def _end_of_last_line(file: IO[bytes]) -> int:
    """Where the last complete line ends."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 4096)
        file.seek(start)
        place = file.read(end - start).rfind(b"\n")
        if place >= 0:
            return start + place + 1
        end = start
    return 0


def write_csv(items: Iterable[Any], path: str | os.PathLike[str], kind: type[Any] | None = None) -> int:
    """Write `items` (a list or an iterator of one kind) as CSV; how many rows. On an error no file appears."""
    rows, kind = _with_kind(items, kind)
    columns = columns_of(kind)
    count = 0
    with _replacing(Path(path)) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            writer.writerow([as_text(getattr(row, name)) for name in columns])
            count += 1
        file.flush()
        os.fsync(file.fileno())
    return count


# -- Parquet ---------------------------------------------------------------------------------------------------------


def write_parquet(
    items: Iterable[Any],
    path: str | os.PathLike[str],
    kind: type[Any] | None = None,
    *,
    numbers: Numbers = "exact",
) -> int:
    """Write `items` (a list or an iterator of one kind) as Parquet; how many rows. On an error no file appears.

    `numbers="exact"` makes decimal(38, 16) columns; a number that does not fit raises InvalidRequestError and is
    never rounded. "float" makes doubles.
    """
    arrow, parquet = _pyarrow()
    if numbers not in ("exact", "float"):
        raise InvalidRequestError(f"numbers={numbers!r}: expected 'exact' or 'float'")
    rows, kind = _with_kind(items, kind)
    schema = _schema(arrow, kind, numbers)
    iterator, count = iter(rows), 0
    with _replacing(Path(path)) as temporary:
        with parquet.ParquetWriter(temporary, schema) as writer:
            while batch := list(islice(iterator, BATCH_ROWS)):
                writer.write_table(_table(arrow, schema, batch, numbers))
                count += len(batch)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
    return count


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("Parquet needs pyarrow; install it with: pip install 'upbit-backbone[parquet]'") from error
    return pyarrow, pyarrow.parquet


def _schema(arrow: Any, kind: type[Any], numbers: Numbers) -> Any:
    number = arrow.float64() if numbers == "float" else arrow.decimal128(DECIMAL_DIGITS, DECIMAL_PLACES)

    def type_of(name: str) -> Any:
        if name == "timestamp":
            return arrow.timestamp("ms", tz="UTC")
        if name in IDS:
            return arrow.int64()
        return arrow.string() if name in TEXTS else arrow.bool_() if name in FLAGS else number

    return arrow.schema([(name, type_of(name)) for name in columns_of(kind)])


def _table(arrow: Any, schema: Any, rows: list[Any], numbers: Numbers) -> Any:
    columns = [[getattr(row, name) for row in rows] for name in schema.names]
    if numbers == "float":
        columns = [[float(cell) if isinstance(cell, Decimal) else cell for cell in column] for column in columns]
    try:
        return arrow.Table.from_arrays(
            [arrow.array(column, type=field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
        )
    except arrow.ArrowInvalid as error:
        raise InvalidRequestError(
            f"a number does not fit decimal({DECIMAL_DIGITS}, {DECIMAL_PLACES}) exactly ({error}); "
            "write CSV, or numbers='float'"
        ) from error


# -- both ------------------------------------------------------------------------------------------------------------


def _with_kind(items: Iterable[Any], kind: type[Any] | None) -> tuple[Iterable[Any], type[Any]]:
    """The items and what they are, told by the first; an empty file is one of candles."""
    if kind is not None:
        return items, kind
    iterator = iter(items)
    head = list(islice(iterator, 1))
    return (item for part in (head, iterator) for item in part), type(head[0]) if head else CandleData


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place at the end, or vanishes on an error."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        _put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _put_in_place(temporary: Path, path: Path) -> None:
    temporary.replace(path)
    if hasattr(os, "O_DIRECTORY"):  # elsewhere (Windows) a directory cannot be flushed
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
