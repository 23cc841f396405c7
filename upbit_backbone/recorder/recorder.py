"""Writes everything that comes in to a recording, on a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .._concurrency import SYSTEM_CLOCK, Clock, Deadline, join_all, spawn, wait_event
from ..errors import one_line
from ..models.jsonable import Jsonable
from ..models.topic import Topic
from .format import Record, RecordKind, encode_record
from .recording import RecordingWriter

log = logging.getLogger("upbit_backbone.recorder")

FLUSH_SECONDS = 0.5  # a crash loses at most this, well within the promised second
MAX_WAITING_BYTES = 64 * 1024 * 1024
RECORD_OVERHEAD = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderStats(Jsonable):
    """`lost` records found the disk too slow; `error` is why recording ended early."""

    path: str
    records: int
    received_bytes: int
    written_bytes: int
    lost: int
    error: str | None


class Recorder:
    """A `Tap` that records. Recording starts at once and ends with `close()`.

    The threads that receive hand records over in about a microsecond and never wait for the disk: what would exceed
    64 MiB is dropped, counted, and marked as lost in the recording. A disk error ends the recording, not the streams.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Clock = SYSTEM_CLOCK,
        about: Mapping[str, Any] | None = None,
        on_close: Callable[[Recorder], object] = lambda _: None,
    ) -> None:
        self._writer = RecordingWriter(Path(path))
        self.path = Path(path)
        self._clock = clock
        self._on_close = on_close
        self._wake = threading.Event()
        self._lock = threading.Lock()  # guards everything below
        self._waiting: list[Record] = []
        self._waiting_bytes = 0
        self._lost = self._lost_unsaid = self._records = self._received = 0
        self._error: str | None = None
        self._closed = False
        self._put(RecordKind.BEGIN, details=dict(about or {}))
        self._thread = spawn(self._run, "upbit-recorder")

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
            if self._closed or self._error is not None:
                return
            if self._waiting_bytes + size > MAX_WAITING_BYTES:
                self._lost += 1
                self._lost_unsaid += 1
                return
            self._waiting.append(record)
            self._waiting_bytes += size
            self._records += 1
            self._received += record.size

    # The writer

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait(FLUSH_SECONDS)
            self._flush()
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        with self._lock:
            records, self._waiting, self._waiting_bytes = self._waiting, [], 0
            lost, self._lost_unsaid = self._lost_unsaid, 0
        if lost:
            now, wall = self._clock.monotonic(), self._clock.wall()
            records.append(Record(RecordKind.LOST, now, wall, details={"records": lost}))
            log.warning("the disk is too slow: records were lost", extra={"path": str(self.path), "lost": lost})
        if records and self._error is None:
            try:
                self._writer.append(b"".join(map(encode_record, records)))
            except (OSError, ValueError) as error:
                log.error("recording ends: %s", one_line(error), extra={"path": str(self.path)})
                with self._lock:
                    self._error = one_line(error)

    @property
    def stats(self) -> RecorderStats:
        with self._lock:
            return RecorderStats(
                path=str(self.path),
                records=self._records,
                received_bytes=self._received,
                written_bytes=self._writer.written,
                lost=self._lost,
                error=self._error,
            )

    def wait(self, deadline: Deadline) -> bool:
        """Until the recorder is closed, or the deadline; True when it is closed."""
        return wait_event(self._wake, deadline)

    def close(self, timeout: float = 1.5) -> list[str]:
        """Write what waits and end; names of threads that would not stop. Idempotent."""
        self._on_close(self)
        with self._lock:
            self._closed = True
        self._wake.set()
        return join_all([self._thread], Deadline.after(timeout))

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        stats = self.stats
        return f"<Recorder {one_line(self.path)} {stats.records} records, {stats.lost} lost>"


def topics_to_json(topics: frozenset[Topic]) -> list[list[str]]:
    return sorted([topic.data_type.value, topic.symbol, str(topic.level)] for topic in topics)
