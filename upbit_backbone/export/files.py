"""CSV and Parquet files that are either whole or not there at all, and downloads that go on where they were broken off.

Everything is written to a file beside the wanted one, flushed to the disk and put in its place in one step, so that
a reader (or a crash) never meets half a file, and by one writer at a time. Parquet needs the extra `parquet`.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from math import inf
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from ..errors import InvalidRequestError, one_line
from ..exchange.timeframes import Timeframe, timeframe_of
from ..models.market import CandleData
from .dataframe import Row, as_text, columns_of, lines_of, parsed
from .parquet import ParquetRows, batches, pyarrow_modules, rows_of_parquet, schema_of, write_parquet
from .whole_file import alone, discard, kind_of, put_in_place, replacing, resolved, sole_writer

__all__ = ["CsvFile", "Download", "ParquetFile", "write_csv", "write_parquet"]

NOTE_FORMAT: Final = 1


def write_csv(
    items: Iterable[Any], path: str | os.PathLike[str], kind: type[Any] | None = None, *, append: bool = False
) -> int:
    """Write `items` (a list or an iterator of one kind) as CSV; how many rows. On an error nothing changes.

    `append=True` adds to the rows of an existing file of the same columns. FileInUseError while somebody else writes
    the file.
    """
    rows, kind = kind_of(items, kind)
    columns, target = columns_of(kind), resolved(path)
    count = 0
    with alone(target), replacing(target) as temporary:
        goes_on = append and target.is_file()
        if goes_on:
            _check_header(target, columns)
            shutil.copyfile(target, temporary)
        with temporary.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if not goes_on:
                writer.writerow(columns)
            for row in rows:
                writer.writerow([as_text(getattr(row, name)) for name in columns])
                count += 1
            file.flush()
            os.fsync(file.fileno())
    return count


def _check_header(path: Path, columns: tuple[str, ...]) -> None:
    with path.open("rb") as file:
        header = file.readline()
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        ends_well = file.read(1) == b"\n"
    if header.rstrip(b"\r\n") != ",".join(columns).encode() or not ends_well:
        raise InvalidRequestError(
            f"{path} has other columns or ends within a line; give another name, or do not append"
        )


# -- downloads ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Download:
    """What the candles in a growing file are: only the same download may go on in it.

    The end is no part of it: the same file may be continued to a later one.
    """

    symbol: str
    timeframe: str
    start: datetime
    fill: str = "none"

    @property
    def unit(self) -> Timeframe:
        return timeframe_of(self.timeframe)

    def __str__(self) -> str:
        filled = ", filled" if self.fill == "forward" else ""
        return f"{self.symbol} {self.timeframe} from {self.start.isoformat()}{filled}"

    def misfit(self, row: Row, before: datetime | None) -> str | None:
        """Why `row`, which follows one of the time `before`, cannot be of this download."""
        if (row.symbol, row.timeframe) != (self.symbol, self.timeframe):
            return f"it is of {row.symbol} {row.timeframe}"
        if row.timestamp < self.start:
            return f"it is from {row.timestamp.isoformat()}"
        if self.unit.floor(row.timestamp) != row.timestamp:
            return "no period starts then"
        if self.fill == "none" and row.is_filled:
            return "it is made up, and this download fills nothing"
        if self.fill == "forward" and before is not None and self.unit.next_start(before) != row.timestamp:
            return "a period is missing before it, and this download fills them"
        return None


class _Checked:
    """A binary file that remembers how much was written to it, and a checksum of that."""

    def __init__(self, file: IO[bytes], size: int, checksum: int) -> None:
        self.file = file
        self.size = size
        self.checksum = checksum

    def write(self, text: str) -> int:
        data = text.encode("utf-8")
        self.file.write(data)
        self.size += len(data)
        self.checksum = zlib.crc32(data, self.checksum)
        return len(text)


class CsvFile:
    """A CSV file that grows beside its final name and takes it on a clean exit of the `with` block.

    On an error the rows so far stay in `NAME.part`; with `resume=True` they (or, where there are none, those of a
    finished file) are gone on from: `first` and `last` are the times of the first and the last whole row, None at the
    beginning. A torn last line, an unfinished last candle and, after a crash, what was written since the last `flush`
    are cut off; any other line that is not as it was written raises InvalidRequestError with its number.
    `resume=False` starts afresh, None goes on with what was broken off and else starts afresh.

    `download` says what the rows are. It is noted beside them (`NAME.part.json`, with the columns, the library's
    version, and a checksum of what is safely written), and rows of something else are refused. Only one may write at a
    time: FileInUseError, also for another process. Not thread-safe.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        kind: type[Any] = CandleData,
        *,
        resume: bool | None = False,
        download: Download | None = None,
    ) -> None:
        self.path = resolved(path)
        self.part = self.path.with_name(self.path.name + ".part")
        self._note = self.path.with_name(self.path.name + ".part.json")
        self._columns = columns_of(kind)
        self._kind = kind
        self._download = download
        self.first: datetime | None = None
        self.last: datetime | None = None
        self.rows = 0
        self._marks: list[tuple[int, int]] = []  # what was on the disk at each flush: bytes, checksum
        self.is_noted = False  # whether it is known for certain that the rows begin where the download does
        self._lock = sole_writer(self.path)
        try:
            # Looked at under the lock: who held it a moment ago may have been killed and left its rows there.
            self._open(resume=self.part.exists() if resume is None else resume)
        except BaseException:
            self._lock.release()
            raise

    def _open(self, *, resume: bool) -> None:
        # Until rows are added, a `.part` that is made here holds nothing that is not elsewhere.
        self._is_spare = not (resume and self.part.exists())
        try:
            size = self._take_up() if resume else 0
        except BaseException:
            if self._is_spare:
                discard(self.part)
            raise
        self._held = self.rows
        if not size:
            self._note.unlink(missing_ok=True)
        with self.part.open("ab") as file:
            file.truncate(size)
        self._out = _Checked(self.part.open("ab"), size, _checksum(self.part, size))
        self._writer = csv.writer(self._out)
        try:
            if not size:
                self._writer.writerow(self._columns)
                self.is_noted = True
            if size and not self._marks:
                self.flush()  # the copy of a finished file: vouched for, else a crash would cost all of it
            else:
                self._remember()
        except BaseException:
            self._out.file.close()
            raise

    # -- what is there already ---------------------------------------------------------------------------------------

    def _take_up(self) -> int:
        """Make `.part` the rows to go on from; how many of its bytes are good, 0 where there are none."""
        note: dict[str, Any] = {}
        if self.part.exists():
            note = self._noted()
        elif self.path.exists():
            self._note.unlink(missing_ok=True)  # of a commit that was killed at its very end
            unfinished = self.part.with_name(self.part.name + ".copy")
            try:
                self._unpack(unfinished)
                unfinished.replace(self.part)
            finally:
                discard(unfinished)
        else:
            return 0
        size = self._read(note)
        if self._download is not None and self.rows:
            self.is_noted = note.get("start") == self._download.start.isoformat() or self.first == self._download.start
        return size

    def _unpack(self, target: Path) -> None:
        """The rows of the finished file, as they grow."""
        shutil.copyfile(self.path, target)

    def _noted(self) -> dict[str, Any]:
        try:
            note = json.loads(self._note.read_bytes())
        except (OSError, ValueError):
            return {}  # an older library, or a file renamed by hand: then the rows must tell
        if not isinstance(note, dict) or note.get("format") != NOTE_FORMAT:
            return {}
        if not all(isinstance(mark, list) and list(map(type, mark)) == [int, int] for mark in note.get("flushed", ())):
            return {}
        if self._download is not None and "symbol" in note:
            try:
                theirs = Download(
                    note["symbol"], note["timeframe"], datetime.fromisoformat(note["start"]), str(note["fill"])
                )
            except (KeyError, TypeError, ValueError):
                return {}
            if theirs != self._download:
                raise self._other(f"is of {theirs}")
        return note

    def _other(self, what: str) -> InvalidRequestError:
        return InvalidRequestError(
            f"{one_line(self.part)} {what}, and this download is {self._download}: give another name, or start over "
            "(--force), which drops those rows"
        )

    def _read(self, note: dict[str, Any]) -> int:
        """Check every row; how many bytes are good."""
        sound = self._sound(note)
        with self.part.open("rb") as file:
            header = file.readline()
            if not header.endswith(b"\n"):
                return 0
            if header.rstrip(b"\r\n") != ",".join(self._columns).encode():
                raise InvalidRequestError(
                    f"{one_line(self.part)} has other columns than this download; remove it, or do not resume"
                )
            size = good = len(header)
            for number, line in enumerate(file, 2):
                if not line.endswith(b"\n") or 0 <= sound < size + len(line):
                    break  # torn by a crash
                size += len(line)
                row = self._row(line, number)
                if getattr(row, "is_closed", True):
                    self.rows, self.first, self.last = self.rows + 1, self.first or row.timestamp, row.timestamp
                    good = size
        if sound < 0:  # and no line looks it
            raise InvalidRequestError(
                f"{one_line(self.part)} is damaged: it is not what was written; give another name, or start over "
                "(--force)"
            )
        self._marks = [mark for mark in self._marks if mark[0] <= good]
        return good

    def _row(self, line: bytes, number: int) -> Row:
        try:
            row = parsed(self._columns, line.rstrip(b"\r\n"))
            is_in_order = self.last is None or row.timestamp - self.last >= self._least_step
            if not is_in_order:
                raise ValueError("its time is not after that of the line before")
        except ValueError as error:
            raise InvalidRequestError(
                f"{one_line(self.part)}, line {number} is damaged ({one_line(error)}); repair it, give another name, "
                "or start over (--force)"
            ) from error
        misfit = self._download.misfit(row, self.last) if self._download is not None else None
        if misfit is not None:
            raise self._other(f"does not belong here, line {number}: {misfit}")
        return row

    @property
    def _least_step(self) -> timedelta:
        return timedelta(microseconds=1) if self._kind is CandleData else timedelta(0)

    def _sound(self, note: dict[str, Any]) -> float:
        """Up to which byte the rows may be read; -1 where the checksum tells of damage that may still look like rows.

        Only what an earlier flush vouches for counts: what was written after the last one was on its way to the disk
        when the end came, and a power cut may have left anything there, a row of another file for instance. A second's
        download at most, it is fetched again.
        """
        if "flushed" not in note:
            return inf
        size = self.part.stat().st_size
        self._marks = [(mark, checksum) for mark, checksum in note["flushed"] if mark <= size]
        if not self._marks:
            return 0
        return self._marks[-1][0] if _checksum(self.part, self._marks[-1][0]) == self._marks[-1][1] else -1

    # -- what comes ----------------------------------------------------------------------------------------------------

    def write(self, items: Iterable[Any]) -> int:
        """Append rows; how many. What is written is safe from a crash only after `flush` or the end."""
        before = self.rows
        for item in items:
            self._writer.writerow([as_text(getattr(item, name)) for name in self._columns])
            self.rows += 1
            self.first = self.first or item.timestamp
            self.last = item.timestamp
        return self.rows - before

    def flush(self) -> None:
        """Bring everything to the disk, and note what is there."""
        self._out.file.flush()
        os.fsync(self._out.file.fileno())
        self._marks.append((self._out.size, self._out.checksum))
        self._remember()

    def _remember(self) -> None:
        what = {} if self._download is None else {
            "symbol": self._download.symbol,
            "timeframe": self._download.timeframe,
            "start": self._download.start.isoformat(),
            "fill": self._download.fill,
        }  # fmt: skip
        note = {
            "format": NOTE_FORMAT,
            "library": _own_version(),
            **what,
            "columns": list(self._columns),
            "flushed": self._marks,
        }
        fresh = self._note.with_name(self._note.name + ".new")
        with fresh.open("w", encoding="utf-8") as file:
            json.dump(note, file)
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave its name and not its contents
        fresh.replace(self._note)

    def commit(self) -> None:
        """Give the file its final name. Nothing can be written afterwards.

        OSError where that name cannot be had (another program holds the file): then all of it is in `NAME.part`, and
        `resume=True` goes on from there."""
        self.flush()
        self._out.file.close()
        try:
            self._finish()
            self._note.unlink(missing_ok=True)
        finally:
            self._lock.release()

    def _finish(self) -> None:
        put_in_place(self.part, self.path)

    def close(self) -> None:
        """End without giving the file its name: what was written stays in `NAME.part`; nothing if no row was.
        Idempotent."""
        if not self._out.file.closed:
            with contextlib.suppress(OSError):  # a full disk has been told by the write already
                self.flush()
            self._out.file.close()
            if self._is_spare and self.rows == self._held:
                self.part.unlink(missing_ok=True)
                self._note.unlink(missing_ok=True)
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._out.file.closed:
            return
        try:
            if error is None:
                self.commit()
        finally:
            self.close()

    def __repr__(self) -> str:
        state = "written" if self._out.file.closed else "open"
        return f"<{type(self).__name__} {self.path} {self.rows} rows, {state}>"


def _own_version() -> str:
    try:
        return version("upbit-backbone")
    except (PackageNotFoundError, OSError):  # run from its sources, or no file can be opened
        return "unknown"


def _checksum(path: Path, size: int) -> int:
    checksum = 0
    with path.open("rb") as file:
        while size > 0 and (block := file.read(min(size, 1 << 20))):
            checksum = zlib.crc32(block, checksum)
            size -= len(block)
    return checksum


class ParquetFile(CsvFile):
    """The same for Parquet, which cannot be appended to: the rows grow as CSV in `NAME.part` and become Parquet at the
    end. Numbers are exact; see `write_parquet`."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        kind: type[Any] = CandleData,
        *,
        resume: bool | None = False,
        download: Download | None = None,
    ) -> None:
        pyarrow_modules()  # not at the end of a long download only
        super().__init__(path, kind, resume=resume, download=download)

    def _unpack(self, target: Path) -> None:
        with target.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(self._columns)
            for row in rows_of_parquet(self.path):
                writer.writerow([as_text(getattr(row, name)) for name in self._columns])

    def _finish(self) -> None:
        arrow, _ = pyarrow_modules()
        with replacing(self.path) as temporary:
            with ParquetRows(temporary, schema_of(arrow, self._kind, "exact")) as file:
                for batch in batches(self._written()):
                    file.write(batch)
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
        self.part.unlink()

    def _written(self) -> Iterator[Row]:
        with self.part.open("rb") as file:
            lines = lines_of(file)
            next(lines)
            for line in lines:
                yield parsed(self._columns, line)
