"""Spool: batches on their way to a sink, in order; few in memory, and on disk what a sink that is away leaves."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import IO, Final, NamedTuple

from .._concurrency import Deadline, EventCount, get_logger
from ..errors import InvalidRequestError, MalformedDataError, one_line
from .base import Batch

log = get_logger("upbit_backbone.sinks")

# Of the 64 MiB that an outage may cost: a ticker or a deep book takes some 2 to 12 KB as an object.
MEMORY_ROWS: Final = 5_000
COPY_BYTES: Final = 1 << 20


class SpoolSize(NamedTuple):
    """What waits: batches and rows in all, the rows on disk, and the bytes of these."""

    batches: int
    rows: int
    spilled_rows: int
    spilled_bytes: int


class Spool:
    """A queue of batches between one thread that puts and one that takes. `put` never waits for a sink.

    More than MEMORY_ROWS rows go to the spill file, one line of JSON a batch, and from then on all do until that is
    empty again, so that the order is kept. With a `path` the file outlives us: what a crash or an unfinished `close`
    leaves there comes first the next time. Of such a file some batches may come twice.
    """

    def __init__(self, path: Path | None, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._lock = threading.Lock()  # guards all that follows; held for a write to the file, never for one to a sink
        self._news = EventCount()
        self._memory: deque[Batch] = deque()
        self._memory_rows = 0
        self._file: IO[bytes] | None = None
        self._read_at = self._end = 0
        self._spilled: deque[tuple[int, int]] = deque()  # bytes and rows of each batch in the file, from _read_at on
        self._taken: tuple[Batch, bool] | None = None  # the batch that is being written, and whether it is in the file
        self._doubtful_until = 0  # up to there in the file, what is said to be complete is not
        self.lost = 0  # rows that could not be read again
        self._is_closed = False
        if path is not None:
            self._take_over(path)

    def _take_over(self, path: Path) -> None:
        if not path.exists():
            return
        try:
            with path.open("rb") as lines:
                for line in lines:
                    if not line.endswith(b"\n"):  # a crash tore it: nobody had been told that it was kept
                        break
                    self._spilled.append((len(line), _rows_in(line)))
                    self._end += len(line)
            self._opened().truncate(self._end)
        except OSError as error:
            raise InvalidRequestError(f"{one_line(path)}: what waits there cannot be read: {error.strerror}") from error

    def put(self, batch: Batch) -> bool:
        """Add a batch; False if there is room for it nowhere, and it is lost."""
        with self._lock:
            if self._is_closed:
                return False
            has_room = self._memory_rows + len(batch) <= MEMORY_ROWS
            if not self._spilled and (has_room or not self._memory):
                self._memory.append(batch)
                self._memory_rows += len(batch)
                is_kept = True
            else:
                is_kept = self._spill(batch)
        self._news.notify_all()
        return is_kept

    def _spill(self, batch: Batch) -> bool:
        line = batch.encode() + b"\n"
        if self._end - self._read_at + len(line) > self._max_bytes:
            return False
        try:
            file = self._opened()
            _write_at(file, self._end, line)
        except OSError as error:
            log.warning("batches cannot wait on disk: %s", one_line(error))
            self._cut()
            return False
        self._spilled.append((len(line), len(batch)))
        self._end += len(line)
        return True

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            if self._path is None:
                self._file = tempfile.TemporaryFile(prefix="upbit-spill-", buffering=0)  # noqa: SIM115 - closed by `close`
            else:
                # Without a buffer: one that a full disk kept would be written once more, to another place.
                flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
                self._file = os.fdopen(os.open(self._path, flags, 0o600), "r+b", buffering=0)
        return self._file

    def _cut(self) -> None:
        """Take off what a write that failed has left behind the last whole line."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)

    def take(self, deadline: Deadline) -> Batch | None:
        """The oldest batch, which stays until `done`; None if there is none by the deadline."""
        self._news.wait_for(lambda: self._memory or self._spilled or self._taken, deadline)
        with self._lock:
            self._pick_next()
            return None if self._taken is None else self._taken[0]

    def _pick_next(self) -> None:
        while not self._is_closed and self._taken is None and (self._memory or self._spilled):
            self._pick()

    def _pick(self) -> None:
        # What is in memory came before the file was begun, or there is no file.
        if self._memory:
            self._taken = self._memory[0], False
            return
        size, rows = self._spilled[0]
        try:
            file = self._opened()
            file.seek(self._read_at)
            batch = Batch.decode(file.read(size))
        except (OSError, MalformedDataError) as error:
            log.error("a batch that waited on disk cannot be read, and is lost: %s", one_line(error))
            # Whatever stands behind it believes that it was written.
            self._doubtful_until = self._end
            self.lost += max(rows, 1)
            self._forget_first()
            return
        if self._read_at < self._doubtful_until:
            batch = replace(batch, spans=())
        self._taken = batch, True

    def done(self) -> None:
        """The batch that was taken is written."""
        with self._lock:
            if self._taken is None or self._is_closed:
                return
            batch, is_spilled = self._taken
            self._taken = None
            if is_spilled:
                self._forget_first()
            else:
                self._memory.popleft()
                self._memory_rows -= len(batch)
        self._news.notify_all()

    def _forget_first(self) -> None:
        size, _ = self._spilled.popleft()
        self._read_at += size
        if not self._spilled:
            # Only now: a file that were cut at its beginning each time would be written anew each time.
            self._read_at = self._end = self._doubtful_until = 0
            self._cut()

    def wait_room(self, deadline: Deadline) -> bool:
        """Until at most half of the memory is taken and nothing is on disk; False at the deadline."""
        return self._news.wait_for(lambda: not self._spilled and self._memory_rows <= MEMORY_ROWS // 2, deadline)

    @property
    def size(self) -> SpoolSize:
        with self._lock:
            spilled = self._rows_spilled()
            count = len(self._memory) + len(self._spilled)
            return SpoolSize(count, self._memory_rows + spilled, spilled, self._end - self._read_at)

    def _rows_spilled(self) -> int:
        return sum(rows for _, rows in self._spilled)

    def close(self) -> int:
        """Put what still waits in memory behind what waits on disk, where that is kept; how many rows are lost."""
        with self._lock:
            if self._is_closed:
                return 0
            self._is_closed = True
            lost = self._leave() if self._path is not None else self._memory_rows + self._rows_spilled()
            if self._file is not None:
                self._file.close()
            if self._path is not None and not self._spilled:
                with contextlib.suppress(OSError):
                    self._path.unlink(missing_ok=True)
            self._memory.clear()
            self._spilled.clear()
            self._memory_rows = 0
        return lost

    def _leave(self) -> int:
        """What was in memory is older than what is in the file, so the file is written anew. Called with the lock."""
        if not self._memory:
            return 0
        waiting = [batch.encode() + b"\n" for batch in self._memory]
        try:
            self._rewrite(b"".join(waiting))
        except OSError as error:
            log.error("what waits for the sink cannot be kept: %s", one_line(error))
            return self._memory_rows
        self._spilled.extend((len(line), 0) for line in waiting)
        return 0

    def _rewrite(self, first: bytes) -> None:
        """The file anew, in one step: `first`, and then what still waits in it."""
        if self._path is None:
            return
        beside = self._path.with_name(f"{self._path.name}.new")
        with beside.open("wb") as new:
            new.write(first)
            old = self._opened()
            old.seek(self._read_at)
            while piece := old.read(COPY_BYTES):
                new.write(piece)
        old.close()  # Windows replaces no open file
        self._file = None
        beside.replace(self._path)

    def __repr__(self) -> str:
        return f"<Spool {self.size}>"


def _write_at(file: IO[bytes], place: int, data: bytes) -> None:
    """All of it: without a buffer, a disk that is nearly full takes a part first and says why with the next."""
    file.seek(place)
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) or 0 :]


def _rows_in(line: bytes) -> int:
    try:
        return len(Batch.decode(line))
    except MalformedDataError:
        return 0
