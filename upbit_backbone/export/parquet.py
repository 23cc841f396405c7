"""Parquet files of candles, trades and tickers, with exact decimal columns. Needs the extra `parquet`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, Final

from .._language import spoken
from .._lazy import unloadable
from ..errors import InvalidRequestError
from .dataframe import FLAGS, IDS, TEXTS, Numbers, Row, columns_of
from .whole_file import alone, discard, kind_of, replacing, resolved

BATCH_ROWS: Final = 10_000
# (digits in all, digits after the point). DuckDB and most databases know 38 digits at most, and price × volume takes
# the sum of both: (18, 8) × (20, 8) is (38, 16), so that sum(price * volume) can be computed exactly.
PRICE: Final = (18, 8)
VOLUME: Final = (20, 8)
VALUE: Final = (38, 8)
RATE: Final = (18, 10)
DIGITS_OF: Final = {
    **dict.fromkeys(("volume", "volume_24h", "volume_today"), VOLUME),
    **dict.fromkeys(("traded_value", "traded_value_24h", "traded_value_today"), VALUE),
    "change_rate": RATE,
}
MOST_DIGITS: Final = 38


def write_parquet(
    items: Iterable[Any],
    path: str | os.PathLike[str],
    kind: type[Any] | None = None,
    *,
    numbers: Numbers = "exact",
    append: bool = False,
) -> int:
    """Write `items` (a list or an iterator of one kind) as Parquet; how many rows. On an error nothing changes.

    `numbers="exact"` makes decimals: prices (18, 8), volumes (20, 8), traded values (38, 8), and wider by itself where
    a number needs it, up to 38 digits; beyond that InvalidRequestError, never a rounded number. "float" makes doubles.
    `append=True` adds to the rows of an existing file of the same columns. FileInUseError while somebody else writes
    the file.
    """
    arrow, _ = pyarrow_modules()
    if numbers not in ("exact", "float"):
        raise InvalidRequestError(f"numbers={numbers!r}: expected 'exact' or 'float'")
    rows, kind = kind_of(items, kind)
    target = resolved(path)
    with alone(target), replacing(target) as temporary:
        with ParquetRows(temporary, schema_of(arrow, kind, numbers)) as file:
            if append and target.exists():
                file.copy(target)
            count = sum(map(file.write, batches(rows)))
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
    return count


def batches(rows: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, BATCH_ROWS)):
        yield batch


def rows_of_parquet(path: Path) -> Iterator[Row]:
    """The rows of a file of ours, one after the other. InvalidRequestError where it is no Parquet file."""
    with opened(path) as file:
        columns = file.schema_arrow.names
        for batch in file.iter_batches():
            table = batch.to_pydict()
            for values in zip(*(table[name] for name in columns), strict=True):
                yield Row(columns, values)


def opened(path: Path) -> Any:
    arrow, parquet = pyarrow_modules()
    try:
        return parquet.ParquetFile(path)
    except arrow.ArrowInvalid as error:
        raise InvalidRequestError(f"{path}: not a Parquet file ({error})") from error


def pyarrow_modules() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        what = "Parquet needs pyarrow; install it with: pip install 'upbit-backbone[parquet]'"
        raise ImportError(spoken(what)) from error
    except OSError as error:
        raise unloadable("pyarrow", error) from error
    return pyarrow, pyarrow.parquet


def schema_of(arrow: Any, kind: type[Any], numbers: Numbers) -> Any:
    def type_of(name: str) -> Any:
        if name == "timestamp":
            return arrow.timestamp("ms", tz="UTC")
        if name in IDS:
            return arrow.int64()
        if name in TEXTS:
            return arrow.string()
        if name in FLAGS:
            return arrow.bool_()
        return arrow.float64() if numbers == "float" else arrow.decimal128(*DIGITS_OF.get(name, PRICE))

    return arrow.schema([(name, type_of(name)) for name in columns_of(kind)])


class ParquetRows:
    """A Parquet file that grows by batches, and whose decimal columns become wider when a number needs it.

    The schema stands at a Parquet file's beginning for all of it, so that what was written already is then written
    again: that is rare, and knowing the widest number before the first row would need all rows in memory.
    """

    def __init__(self, path: Path, schema: Any) -> None:
        self._arrow, self._parquet = pyarrow_modules()
        self._path = path
        self._schema = schema
        self._writer: Any = None

    def write(self, rows: Sequence[Any]) -> int:
        """Append rows; how many."""
        columns = [[getattr(row, name) for row in rows] for name in self._schema.names]
        for place, values in enumerate(columns):
            if self._arrow.types.is_floating(self._schema.field(place).type):
                columns[place] = [None if value is None else float(value) for value in values]
        self._append(self._table(columns))
        return len(rows)

    def write_texts(self, table: Any) -> int:
        """Append the rows of an Arrow table with the same columns, in which exact numbers are texts; how many."""
        arrays = [self._of_texts(place, table[name].combine_chunks()) for place, name in enumerate(self._schema.names)]
        self._append(self._arrow.Table.from_arrays(arrays, schema=self._schema))
        return len(table)

    def _of_texts(self, place: int, values: Any) -> Any:
        kind = self._schema.field(place).type
        try:
            return values.cast(kind)  # in C, without a Decimal in between
        except self._arrow.ArrowInvalid:
            if self._arrow.types.is_timestamp(kind):  # nothing of Upbit's is finer than a millisecond
                return values.cast(kind, safe=False)
            numbers = [None if text is None else Decimal(text) for text in values.to_pylist()]
            self._widen(place, *_digits(numbers))
            return self._arrow.array(numbers, type=self._schema.field(place).type)

    def copy(self, path: Path) -> None:
        """Append the rows of another file of the same columns."""
        with opened(path) as other:
            if other.schema_arrow.names != self._schema.names or self._is_exact != _is_exact(
                self._arrow, other.schema_arrow
            ):
                raise InvalidRequestError(f"{path} has other columns; give another name, or do not append")
            for place, field in enumerate(other.schema_arrow):
                if self._arrow.types.is_decimal(field.type):
                    self._widen(place, field.type.precision - field.type.scale, field.type.scale)
            for batch in other.iter_batches():
                self._append(self._arrow.Table.from_batches([batch]).cast(self._schema))

    @property
    def _is_exact(self) -> bool:
        return _is_exact(self._arrow, self._schema)

    def _table(self, columns: list[list[Any]]) -> Any:
        arrays = []
        for place, values in enumerate(columns):
            try:
                array = self._arrow.array(values, type=self._schema.field(place).type)
            except self._arrow.ArrowInvalid:
                if not self._arrow.types.is_decimal(self._schema.field(place).type):
                    raise
                self._widen(place, *_digits(values))
                array = self._arrow.array(values, type=self._schema.field(place).type)
            arrays.append(array)
        return self._arrow.Table.from_arrays(arrays, schema=self._schema)

    def _append(self, table: Any) -> None:
        if self._writer is None:
            self._writer = self._parquet.ParquetWriter(self._path, self._schema)
        self._writer.write_table(table)

    def _widen(self, place: int, whole: int, places: int) -> None:
        """Make room for so many digits before and after the point."""
        field = self._schema.field(place)
        places = max(places, field.type.scale)
        # A column of 38 digits can only move its point; what is there already fits all the same, or the cast says no.
        kept = min(field.type.precision - field.type.scale, MOST_DIGITS - places)
        whole = max(whole, kept)
        if whole + places > MOST_DIGITS:
            raise InvalidRequestError(
                f"{field.name}: a number with {whole} digits before the point beside one with {places} after it does "
                f"not fit {MOST_DIGITS} digits; write CSV, or numbers='float'"
            )
        wider = self._arrow.decimal128(max(field.type.precision, whole + places), places)
        if wider == field.type:
            return
        self._schema = self._schema.set(place, field.with_type(wider))
        if self._writer is not None:
            self._rewrite()

    def _rewrite(self) -> None:
        self._writer.close()
        self._writer = None
        narrow = self._path.with_name(f"{self._path.name}.narrow")
        self._path.replace(narrow)
        try:
            with self._parquet.ParquetFile(narrow) as file:
                for batch in file.iter_batches():
                    self._append(self._arrow.Table.from_batches([batch]).cast(self._schema))
        except self._arrow.ArrowInvalid as error:
            raise InvalidRequestError(
                f"a number does not fit {MOST_DIGITS} digits beside the others ({error}); write CSV, or numbers='float'"
            ) from error
        finally:
            discard(narrow)

    def __enter__(self) -> ParquetRows:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is None:  # a file without rows still has its columns
            self._writer = self._parquet.ParquetWriter(self._path, self._schema)
        self._writer.close()


def _is_exact(arrow: Any, schema: Any) -> bool:
    return not any(arrow.types.is_floating(field.type) for field in schema)


def _digits(values: Iterable[Decimal | None]) -> tuple[int, int]:
    """The most digits before and after the point that one of `values` has; zeros at the end do not count."""
    whole = places = 0
    for value in values:
        if value is None:
            continue
        _, digits, exponent = value.as_tuple()
        if not isinstance(exponent, int):
            raise InvalidRequestError(f"{value} is not a number")
        significant = len("".join(map(str, digits)).rstrip("0")) if any(digits) else 0
        exponent += len(digits) - significant
        whole = max(whole, significant + exponent if significant else 0)
        places = max(places, -exponent if significant else 0)
    return whole, places
