"""Writes everything that comes in to a recording, on a thread of its own."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .._arguments import as_real
from .._concurrency import SYSTEM_CLOCK, Clock, Deadline, Flag, ForkGuard, LoopThread, get_logger, wait_event
from .._file_lock import FileLock
from ..errors import InvalidRequestError, one_line
from ..models.events import Event, RecordingEvent
from ..models.report import RecorderStats
from ..models.request import Topic
from .format import FORMAT, Record, RecordKind, encode_records
from .recording import RecordingWriter, in_words, numbered, numbers_of

log = get_logger("upbit_backbone.recorder")

FLUSH_SECONDS = 0.5  # a crash loses at most this, well within the promised second
MAX_WAITING_BYTES = 64 * 1024 * 1024
RECORD_OVERHEAD = 256


def _above_zero(name: str, value: object) -> float | None:
    number = None if value is None else as_real(value)
    if value is not None and (number is None or not number > 0):
        raise InvalidRequestError(f"{name}={value!r}: expected a number > 0, or None for one file without end")
    return number


class Rotation:
    """When a recording goes on in its next file: before one would exceed `max_bytes`, or after `max_seconds`."""

    def __init__(self, max_bytes: int | None = None, max_seconds: float | None = None) -> None:
        self.max_bytes = _above_zero("rotate_bytes", max_bytes)
        self.max_seconds = _above_zero("rotate_seconds", max_seconds)

    @property
    def is_on(self) -> bool:
        return self.max_bytes is not None or self.max_seconds is not None

    def is_due(self, size: int, addition: int, age: float) -> bool:
        is_full = self.max_bytes is not None and size + addition > self.max_bytes
        return is_full or (self.max_seconds is not None and age >= self.max_seconds)


class Recorder:
    """A `Tap` that records. Recording starts at once and ends with `close()`.

    The threads that receive hand records over in about a microsecond and never wait for the disk: what would exceed
    64 MiB is dropped, counted, told (`emit`) and marked as lost in the recording. A disk error ends the recording, not
    the streams; it is told, and everything after it counts as lost. `stats` counts only what is safely on the disk.

    An existing recording is continued; FileInUseError if somebody else writes it. With `rotate_bytes` or
    `rotate_seconds` the files are numbered (day.rec: day.0001.rec, day.0002.rec, …), a new one is begun each time, and
    each can be played alone; `Recording("day.rec")` reads them all as one.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Clock = SYSTEM_CLOCK,
        about: Mapping[str, Any] | None = None,
        on_open: Callable[[Recorder], object] = lambda _: None,
        on_close: Callable[[Recorder], object] = lambda _: None,
        emit: Callable[[Event], object] = lambda _: None,
        rotate_bytes: int | None = None,
        rotate_seconds: float | None = None,
    ) -> None:
        self.path = Path(path)
        self._clock = clock
        self._about = {**(about or {}), "format": FORMAT, "library": _own_version()}
        self._on_close = on_close
        self._emit = emit
        self._files = _Files(self.path, Rotation(rotate_bytes, rotate_seconds), self._about, clock)
        self._guard = ForkGuard("this recorder")
        self._wake = Flag()
        self._lock = threading.Lock()  # guards everything below
        self._waiting: list[Record] = []
        self._waiting_bytes = self._in_hand = 0
        self._lost = self._lost_unsaid = self._records = self._received = 0
        self._error: str | None = None
        self._closed = False
        self._put(RecordKind.BEGIN, details=self._about)
        self._loop = LoopThread(
            self._turn, "upbit-recorder", is_over=self._is_over, failed=self._fail, at_end=self._finish
        )
        try:
            on_open(self)  # from here on somebody can close it, who may be interrupted before he has it
            self._loop.ensure()
        except BaseException:  # no thread to be had, or Ctrl-C
            self._closed = True
            if not self._loop.is_alive:
                self._files.close()
            raise

    # The tap

    def frames(
        self, session: str, epoch: int, frames: Sequence[bytes], monotonic: float, received_at: datetime
    ) -> None:
        self._add(Record(RecordKind.FRAMES, monotonic, received_at, session, epoch, tuple(frames)))

    def subscribed(self, session: str, epoch: int, topics: frozenset[Topic]) -> None:
        self._put(RecordKind.SUBSCRIBED, session, epoch, topics=topics_to_json(topics))

    def interrupted(self, session: str, epoch: int, topics: frozenset[Topic], reason: str) -> None:
        self._put(RecordKind.INTERRUPTED, session, epoch, topics=topics_to_json(topics), reason=reason)

    def rest(self, path: str, status: int, body: bytes, received_at: datetime) -> None:
        details = {"path": path, "status": status}
        self._add(Record(RecordKind.REST, self._clock.monotonic(), received_at, blobs=(body,), details=details))

    def _put(self, kind: RecordKind, session: str = "", epoch: int = 0, **details: Any) -> None:
        details = details.get("details", details)
        self._add(Record(kind, self._clock.monotonic(), self._clock.wall(), session, epoch, details=details))

    def _add(self, record: Record) -> None:
        size = record.size + RECORD_OVERHEAD
        with self._lock:
            if self._closed:
                return
            if self._error is not None:
                self._lost += 1  # nobody writes any more
                return
            if self._waiting_bytes + size > MAX_WAITING_BYTES:
                self._lost += 1
                self._lost_unsaid += 1
                return
            self._waiting.append(record)
            self._waiting_bytes += size

    # The writer

    def _is_over(self) -> bool:
        return self._closed or self._error is not None

    def _turn(self) -> None:
        self._wake.wait(FLUSH_SECONDS)
        self._flush()

    def _finish(self) -> None:
        try:
            if self._error is None:
                self._flush()
        except BaseException as error:  # noqa: BLE001 - what waited is lost, and that must be seen
            self._fail(error)
        finally:
            self._files.close()

    def _flush(self) -> None:
        with self._lock:
            records, self._waiting, self._waiting_bytes = self._waiting, [], 0
            self._in_hand = len(records)  # without the mark of loss, which loses nothing itself
            unsaid, self._lost_unsaid = self._lost_unsaid, 0
            lost = self._lost
        if unsaid:
            now, wall = self._clock.monotonic(), self._clock.wall()
            records.append(Record(RecordKind.LOST, now, wall, details={"records": unsaid}))
            log.warning("the disk is too slow: records were lost", extra={"path": str(self.path), "lost": unsaid})
            self._emit(RecordingEvent(at=wall, path=str(self.path), lost=lost))
        if not records:
            return
        try:
            self._save(records)
        except Exception as error:  # noqa: BLE001 - whatever it is, the recording has ended, and that must be seen
            self._fail(error)

    def _save(self, records: Sequence[Record]) -> None:
        try:
            written = self._files.write(records)
        except OSError:
            if len(records) == 1:
                raise
            # A disk without room for all of them may have room for some; the first that finds none ends it.
            middle = len(records) // 2
            self._save(records[:middle])
            self._save(records[middle:])
            return
        with self._lock:
            self._in_hand -= sum(record.kind is not RecordKind.LOST for record in records)
            self._records += written
            self._received += sum(record.size for record in records)

    def _fail(self, error: BaseException) -> None:
        """What was in hand is lost, and so is all that comes until somebody closes."""
        words = one_line(error)
        with self._lock:
            self._error = words
            self._lost += self._in_hand + len(self._waiting)
            self._waiting, self._waiting_bytes, self._in_hand = [], 0, 0
            lost = self._lost
        log.error("recording ends: %s", words, extra={"path": str(self.path)})
        self._emit(RecordingEvent(at=self._clock.wall(), path=str(self.path), lost=lost, error=words))

    @property
    def stats(self) -> RecorderStats:
        """How it stands; see `RecorderStats`. From any thread, after `close`, too."""
        self._guard.check()
        files = self._files
        self._loop.revive()
        with self._lock:
            return RecorderStats(
                path=str(files.path),
                records=self._records,
                received_bytes=self._received,
                written_bytes=files.written,
                lost=self._lost,
                error=self._error,
                waiting=self._in_hand + len(self._waiting),
                files=files.count,
                damage=files.damage,
            )

    def wait(self, deadline: Deadline) -> bool:
        """Until the recorder is closed, or the deadline; True when it is closed."""
        self._guard.check()
        return wait_event(self._wake, deadline)

    def close(self, timeout: float = 1.5) -> list[str]:
        """Write what waits and end; names of threads that would not. Idempotent."""
        if self._guard.is_foreign:  # the file is the parent's
            return []
        self._on_close(self)
        with self._lock:
            self._closed = True
        self._wake.set()
        return self._loop.join(Deadline.after(timeout))

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._guard.is_foreign:
            return f"<Recorder {one_line(self.path)} of another process>"
        stats = self.stats
        return f"<Recorder {one_line(self.path)} {stats.records} records, {stats.lost} lost>"


class _Files:
    """The file that is written now, or the row of them. Used by the recorder's thread; the figures by any."""

    def __init__(self, path: Path, rotation: Rotation, about: Mapping[str, Any], clock: Clock) -> None:
        self._base = path
        self._rotation = rotation
        self._about = about
        self._clock = clock
        self._open_sessions: dict[str, Record] = {}  # who streams what at the end of what is written
        # Held besides that of each file, so that nobody begins a next file between two of ours.
        self._lock = FileLock(path, "recording") if rotation.is_on else None
        self.path = path
        self.count = 1
        self._number = 0
        self._written_before = 0
        try:
            if rotation.is_on:
                self.path = self._next_path()
            self._writer = RecordingWriter(self.path)
        except BaseException:
            self._release()
            raise
        self._began = clock.monotonic()

    def _next_path(self) -> Path:
        self._number = max(self._number, *numbers_of(self._base), 0) + 1
        return numbered(self._base, self._number)

    @property
    def written(self) -> int:
        return self._written_before + self._writer.written

    @property
    def damage(self) -> str | None:
        return in_words(self._writer.damages) if self._writer.damages else None

    def write(self, records: Sequence[Record]) -> int:
        """See `records` to the disk; how many were written, with those that begin a next file. OSError if it fails."""
        encoded, preface = encode_records(records), 0
        age = self._clock.monotonic() - self._began
        if self._writer.size and self._rotation.is_due(self._writer.size, len(encoded), age):
            preface = self._begin_next(records[0])
        self._writer.append(encoded)
        for record in records if self._rotation.is_on else ():
            self._follow(record)
        return len(records) + preface

    def _begin_next(self, first: Record) -> int:
        """Go on in the next file, which says what streams already; how many records say it."""
        path = self._next_path()
        writer = RecordingWriter(path)
        self._writer.close()
        self._written_before += self._writer.written
        previous, self.path = self.path, path
        self._writer = writer
        self.count += 1
        self._began = self._clock.monotonic()
        about = {**self._about, "continues": previous.name}
        preface = [
            dataclasses.replace(each, monotonic=first.monotonic, wall=first.wall)
            for each in (Record(RecordKind.BEGIN, 0.0, first.wall, details=about), *self._open_sessions.values())
        ]
        self._writer.append(encode_records(preface))
        return len(preface)

    def _follow(self, record: Record) -> None:
        if record.kind is RecordKind.SUBSCRIBED:
            details = {**(record.details or {}), "restated": True}
            self._open_sessions[record.session] = dataclasses.replace(record, details=details)
        elif record.kind is RecordKind.INTERRUPTED:
            self._open_sessions.pop(record.session, None)

    def close(self) -> None:
        self._writer.close()
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def __repr__(self) -> str:
        return f"<_Files {one_line(self.path)} {self.count}>"


def topics_to_json(topics: frozenset[Topic]) -> list[list[str]]:
    return sorted([topic.data_type.value, topic.symbol, str(topic.level)] for topic in topics)


def _own_version() -> str:
    try:
        return version("upbit-backbone")
    except (PackageNotFoundError, OSError):
        return "of a source tree"
