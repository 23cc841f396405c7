"""Sink writer: gives batches to a sink, one after the other, and again for as long as it will not take them."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Final

from .._concurrency import Clock, Deadline, EventCount, LoopThread, calls_users, get_logger
from ..errors import one_line
from ..models.events import Event, SinkEvent
from ..models.report import SinkStats
from .base import Batch, Sink
from .spool import Spool

log = get_logger("upbit_backbone.sinks")

FIRST_PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.25


class SinkWriter:
    """One thread that owns an open sink. `put` is for any other, and waits for nothing but the spill file.

    A call that fails is made again after a pause, which grows from a quarter of a second to half a minute. Meanwhile
    batches wait in the spool; what finds no room there is lost, counted and told.
    """

    def __init__(
        self,
        sink: Sink,
        name: str,
        spool: Spool,
        *,
        emit: Callable[[Event], object],
        clock: Clock,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._sink = sink
        self._name = name
        self._spool = spool
        self._emit = emit
        self._clock = clock
        self._rng = rng
        self._wake = EventCount()
        self._deadline: Deadline | None = None  # by which it shall be over
        self._loop = LoopThread(
            self._turn, f"upbit-{name}-write", is_over=self._is_over, failed=self._broke_off, at_end=self._finish
        )
        self._lock = threading.Lock()  # guards the figures
        self._written = self._duplicates = self._dropped = self._batches = self._retries = 0
        self._error: str | None = None
        self._failing_since = self._retry_at = 0.0
        self._pause = FIRST_PAUSE_SECONDS
        self._is_unflushed = False

    def start(self) -> None:
        """ResourceError if the system has no thread to give."""
        self._loop.ensure()

    def put(self, batch: Batch) -> bool:
        """Have a batch written; False if there is room for it nowhere, and it is lost."""
        if self._spool.put(batch):
            return True
        self.lose(len(batch))
        return False

    def lose(self, count: int) -> None:
        """So many items will never be written."""
        if not count:
            return
        with self._lock:
            is_news = self._dropped == 0 or self._dropped // 10_000 != (self._dropped + count) // 10_000
            self._dropped += count
        if is_news:
            self._tell(self._error or "there is no room for what waits: items are lost")

    def wait_room(self, deadline: Deadline) -> bool:
        """Until little waits, for those who can wait with theirs; False at the deadline."""
        return self._spool.wait_room(deadline)

    # Its own thread

    def _turn(self) -> None:
        pause = self._retry_at - self._clock.monotonic()
        if pause > 0 and self._deadline is None:
            self._wake.wait_for(lambda: self._deadline is not None, Deadline.after(min(pause, LOOK_SECONDS)))
            return
        batch = self._spool.take(Deadline.after(0.0 if self._deadline else LOOK_SECONDS))
        if self._spool.lost:
            lost, self._spool.lost = self._spool.lost, 0
            self.lose(lost)
        if batch is not None:
            self._write(batch)
        elif self._is_unflushed:
            self._flush()

    @calls_users
    def _write(self, batch: Batch) -> None:
        try:
            for event in batch.gaps:
                self._sink.gap(event)
            new = self._sink.write(batch)
        except Exception as error:  # noqa: BLE001 - a sink may be anybody's, and none of its errors loses a batch
            self._failed(error)
            return
        self._spool.done()
        self._is_unflushed = True
        with self._lock:
            news = len(batch) if new is None else new
            self._written += news
            self._duplicates += max(0, len(batch) - news)
            self._batches += 1
            was_failing, self._error = self._error is not None, None
            self._pause = FIRST_PAUSE_SECONDS
            self._retry_at = 0.0
        if was_failing:
            self._tell(None)

    @calls_users
    def _flush(self) -> None:
        try:
            self._sink.flush()
        except Exception as error:  # noqa: BLE001 - as above
            self._failed(error)
        else:
            self._is_unflushed = False

    def _failed(self, error: BaseException) -> None:
        words = f"{type(error).__name__}: {one_line(error)}"
        now = self._clock.monotonic()
        with self._lock:
            is_first = self._error is None
            self._error = words
            self._failing_since = now if is_first else self._failing_since
            self._retries += 1
            # Between half and the whole pause, so that many recorders do not fall upon a database at once.
            self._retry_at = now + self._pause * (0.5 + self._rng() / 2)
            self._pause = min(LONGEST_PAUSE_SECONDS, self._pause * 2)
        if is_first:
            self._tell(words)

    def _broke_off(self, error: BaseException) -> None:
        log.error("writing to %s broke off and goes on", self._name, exc_info=error)
        self._failed(error)

    def _tell(self, error: str | None) -> None:
        with self._lock:
            dropped = self._dropped
        waiting = self._spool.size.rows
        self._emit(SinkEvent(at=self._clock.wall(), sink=self._name, error=error, waiting=waiting, dropped=dropped))

    def _is_over(self) -> bool:
        if self._deadline is None:
            return False
        # What a failing sink would not take was tried once more when closing began: the rest waits where it can.
        return self._deadline.expired or self._retry_at > 0 or not self._spool.size.batches

    @calls_users
    def _finish(self) -> None:
        for last in (self._sink.flush, self._sink.close):
            try:
                last()
            except Exception as error:  # noqa: BLE001 - nothing more will be called, so it is told and that is that
                log.error("%s did not end well: %s", self._name, one_line(error))

    # Others

    def stats(self, filling: int = 0) -> SinkStats:
        """How it stands; see `SinkStats`."""
        size = self._spool.size
        with self._lock:
            is_failing = self._error is not None
            return SinkStats(
                sink=self._name,
                written=self._written,
                duplicates=self._duplicates,
                waiting=size.rows,
                spilled=size.spilled_rows,
                spilled_bytes=size.spilled_bytes,
                dropped=self._dropped,
                batches=self._batches,
                retries=self._retries,
                filling=filling,
                error=self._error,
                failing_seconds=self._clock.monotonic() - self._failing_since if is_failing else 0.0,
            )

    def close(self, deadline: Deadline) -> list[str]:
        """Write what waits, keep on disk what cannot be written by the deadline, and let go of the sink.

        The thread's name if it hangs in a call of the sink's."""
        if self._loop.thread is None:
            return []
        self._retry_at = 0.0
        self._deadline = deadline
        self._wake.notify_all()
        stubborn = self._loop.join(deadline)
        # Also where it hangs: what waits in memory would be gone with the process.
        lost = self._spool.close()
        if lost:
            self.lose(lost)
        return stubborn

    def __repr__(self) -> str:
        return f"<SinkWriter {self._name} {self._spool!r}>"
