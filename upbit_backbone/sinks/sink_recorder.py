"""Sink recorder: collects what a subscription brings, batch by batch, and says what is complete with each.

Three threads: one collects, and never waits for the sink; one writes (`SinkWriter`); and while something is missing of
what was recorded before, one fetches it (`HoleFiller`).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple

from .._concurrency import (
    SYSTEM_CLOCK,
    Clock,
    Deadline,
    Flag,
    ForkGuard,
    LoopThread,
    get_logger,
    wait_event,
)
from ..delivery.mailbox import Mailbox
from ..delivery.subscription import Subscription
from ..errors import ClosedError, InvalidRequestError, UpbitBackboneError, one_line
from ..exchange.fields import SHUFFLE
from ..models.enums import DataType
from ..models.events import ConnectionEvent, Event, GapEvent
from ..models.report import SinkStats
from ..models.request import Topic
from .base import Batch, Hole, Sink, Span
from .filling import BEHIND, HoleFiller, is_fillable
from .sink_writer import SinkWriter
from .spool import Spool
from .watermarks import Watermarks

log = get_logger("upbit_backbone.sinks")

BATCH_ROWS: Final = 4_000
FLUSH_SECONDS: Final = 1.0
SPILL_BYTES: Final = 1 << 30
COLLECT_SECONDS: Final = 0.25
SHORTEST_SECONDS: Final = (
    0.01  # between two looks into the mailbox, whatever was asked for: each costs a core otherwise
)
# Looking at all topics of a full market takes some 30 ms: so seldom that it costs a hundredth of a core, but not more
# seldom than that, since what a crash or an end comes before must be fetched again.
COVERAGE_SECONDS: Final = 5.0
LAST_COVERAGE_SECONDS: Final = 1.0  # between two looks at least
# … and between those at the end, whose recording lacks so much less: what makes two of them necessary, a gap that is
# found with the first that comes over a new line, takes thousandths of a second.
ENDING_SECONDS: Final = 0.5
# Below that whoever closes wants an end, not the last second's coverage.
UNHURRIED_SECONDS: Final = 1.0
LOOKS_SHARE: Final = 0.01
FILL_AGAIN_SECONDS: Final = 30.0
# When it is asked for what was just before a stream's first trade, and again where that proved nothing. A proof is a
# trade that is later than the first by the time in which trades overtake each other; in a quiet market, that no answer
# can be behind any more.
START_SECONDS: Final = SHUFFLE.total_seconds() + 0.5
START_AGAIN_SECONDS: Final = BEHIND.total_seconds() + 5.0
OVER_SECONDS: Final = 60.0  # to write what waits, for nobody waits for that
# What waits in the mailbox while the collector is kept from running; beyond it Overflow.BLOCK parks as much again.
MAILBOX_ITEMS: Final = 20_000

Subscribe = Callable[[Callable[[Any], object]], Subscription[Any]]


class _Filling(NamedTuple):
    """A hole that the filler works on, and when it does so again."""

    hole: Hole
    is_before_stream: bool  # it ends where the stream begins
    due: float
    is_start: bool = False  # nothing but the moment between a stream's beginning and what it surely has


def _holes_of(fillings: Iterable[_Filling]) -> list[Hole]:
    return [each.hole for each in fillings]


class SinkRecorder:
    """Records into a sink until `close()`, or the end of what is replayed. Made by `market.record_to(…)`.

    Usable from any thread. Items are written in batches, at the latest a second or so after they came. The sink may
    fail or hang for as long as it likes: the stream goes on, batches wait in memory and then on disk, and `stats`
    counts them.
    """

    def __init__(
        self,
        sink: Sink,
        name: str,
        *,
        is_settled: Callable[[Topic], bool],
        make_filler: Callable[[Flag], HoleFiller],
        emit: Callable[[Event], object],
        liveness_seconds: float,
        on_close: Callable[[SinkRecorder], object] = lambda _: None,
        has_past: bool = True,
        batch_rows: int = BATCH_ROWS,
        flush_seconds: float = FLUSH_SECONDS,
        spill_bytes: int = SPILL_BYTES,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.sink = sink
        self.name = name
        self._is_settled = is_settled
        self._emit = emit
        self._on_close = on_close
        # A sink that says nothing of what it lacks may keep whatever comes, so that nothing must come twice.
        self._fills_starts = has_past and type(sink).holes is not Sink.holes
        self._batch_rows = batch_rows
        self._flush_seconds = flush_seconds
        self._spill_bytes = spill_bytes
        self._clock = clock
        self._guard = ForkGuard("this recorder")
        self._watermarks = Watermarks(liveness_seconds)
        self._events: deque[Event] = deque()  # appended by the listener's thread, taken by the collector's
        self._subscription: Subscription[Any] | None = None
        self._writer: SinkWriter | None = None
        self._items: list[Any] = []  # of the batch that is being collected, on the collector's thread, as all of this:
        self._gaps: list[GapEvent] = []
        self._spans: list[Span] = []
        self._began_at = 0.0
        self._covered_at = self._cover_again = float("-inf")
        self._lost_before = 0
        self._fill_lock = threading.Lock()  # guards the two that follow
        self._waiting_holes: list[Hole] = []  # for the first live item behind them
        self._holes: deque[_Filling] = deque()  # which the filler works on, oldest first
        self._joints: deque[tuple[str, str, datetime, datetime]] = deque()  # from the filler, for the watermarks
        self._closing = Flag()
        self._is_hurried = Flag()  # whoever closes has no time for a last look
        self._filler = make_filler(self._closing)
        self._closed = Flag()
        self._is_ending = self._is_over = self._has_source_ended = False
        self._collector = LoopThread(
            self._turn, f"upbit-{name}-collect", is_over=lambda: self._is_over, at_end=self._collect_last
        )
        self._filling = LoopThread(self._fill_turn, f"upbit-{name}-fill", is_over=self._closing.is_set)

    def begin(self, subscribe: Subscribe) -> None:
        """Subscribe, open the sink and start; where anything fails, nothing is left behind."""
        try:
            # The stream first: what comes while the sink opens waits in the mailbox, and a wrong symbol makes no file.
            self._subscription = subscribe(self._events.append)
            self.sink.open()
            spool = Spool(self.sink.spill_path, self._spill_bytes)
            self._writer = SinkWriter(self.sink, self.name, spool, emit=self._emit, clock=self._clock)
            self._find_holes()
            self._writer.start()
            self._collector.ensure()
            if self._waiting_holes:
                self._filling.ensure()
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        self._is_over = True
        self._closing.set()
        if self._subscription is not None:
            self._subscription.close()
        if self._writer is None or self._writer.close(Deadline.after(1.0)) == []:
            self.sink.close()

    def _find_holes(self) -> None:
        topics = set() if self._subscription is None else self._subscription.topics
        wanted = {(topic.symbol, topic.data_type.value) for topic in topics}
        holes = [hole for hole in self.sink.holes() if is_fillable(hole.type) and (hole.symbol, hole.type) in wanted]
        self._waiting_holes = holes

    # Collecting

    def _turn(self) -> None:
        self._closing.wait(max(SHORTEST_SECONDS, min(COLLECT_SECONDS, self._flush_seconds)))
        if self._closing.is_set() and not self._is_over:
            self._look_twice()
        self._is_over = self._is_over or self._closing.is_set()
        self._collect()

    def _look_twice(self) -> None:
        """The last look proves what the one before found: have one now, so that it finds what has come until now."""
        self._is_ending = True
        self._collect()
        pause = self._covered_at + ENDING_SECONDS - self._clock.monotonic()
        is_worth_it = pause > 0 and self._watermarks.has_candidates
        if is_worth_it and not self._is_hurried.wait(min(pause, ENDING_SECONDS)):
            self._cover_again = float("-inf")  # it is time, whatever a microsecond's difference between two clocks says

    def _collect(self) -> None:
        """Take what is there, and hand it on once it is a batch."""
        now = self._clock.monotonic()
        # In this order. What an event speaks of came before it, so it is in the mailbox by now; and what is found
        # complete before the mailbox is emptied is complete with what is taken out of it.
        self._hear()
        while self._joints:
            self._watermarks.join(*self._joints.popleft())
        if now >= self._cover_again or (self._is_ending and now - self._covered_at >= ENDING_SECONDS):
            self._spans += self._watermarks.advance(self._is_settled)
            took = self._clock.monotonic() - now
            self._covered_at = now
            self._cover_again = now + min(COVERAGE_SECONDS, max(LAST_COVERAGE_SECONDS, took / LOOKS_SHARE))
        items = self._drained()
        if items and not self._items:
            self._began_at = now
        self._items += items
        self._watermarks.arrived(items)
        self._see_losses()
        self._see_starts()
        is_due = now - self._began_at >= self._flush_seconds or len(self._items) >= self._batch_rows
        if is_due or self._is_ending or self._is_over:
            self._hand_over()

    def _hear(self) -> None:
        while self._events:
            event = self._events.popleft()
            if isinstance(event, GapEvent):
                self._gaps.append(event)
            elif isinstance(event, ConnectionEvent) and event.is_interruption:
                self._watermarks.interrupted()

    @property
    def _mailbox(self) -> Mailbox:
        if self._subscription is None:
            raise ClosedError("the recorder has not begun")
        return self._subscription.mailbox

    def _drained(self) -> list[Any]:
        try:
            return self._mailbox.drain()
        except UpbitBackboneError:  # closed by somebody else, or the source is over
            self._is_over = self._has_source_ended = True
            return []

    def _see_losses(self) -> None:
        """What the mailbox had to refuse is lost before it came here."""
        lost = self._mailbox.lost
        if lost > self._lost_before and self._writer is not None:
            self._writer.lose(lost - self._lost_before)
            self._watermarks.lost()
        self._lost_before = lost

    def _see_starts(self) -> None:
        """A hole that reaches to the present ends where the stream begins, once that is known."""
        begun = self._watermarks.take_begun()
        self._spans += begun
        if not self._waiting_holes and not begun:
            return
        waiting, found = [], self._before(begun) if self._fills_starts else []
        for hole in self._waiting_holes:
            start = self._watermarks.start_of(hole.symbol, hole.type)
            if hole.end is None and start is None:
                waiting.append(hole)
            elif hole.end is not None or (start is not None and hole.start < start):
                found.append(_Filling(hole._replace(end=hole.end or start), hole.end is None, 0.0))
        with self._fill_lock:
            self._waiting_holes = waiting
            self._holes.extend(found)
        if found and not self._closing.is_set():
            self._filling.ensure()

    def _before(self, begun: Iterable[Span]) -> list[_Filling]:
        """What was traded from the first trade on, the last before the subscription, until the stream surely had all:
        of each topic that begins here and is not the end of a hole."""
        due = self._clock.monotonic() + START_SECONDS
        awaited = {(hole.symbol, hole.type) for hole in self._waiting_holes if hole.end is None}
        return [
            _Filling(Hole(symbol, kind, start - SHUFFLE, start), True, due, is_start=True)
            for symbol, kind, start, *_ in begun
            if kind == DataType.TRADE.value and (symbol, kind) not in awaited
        ]

    def _hand_over(self) -> None:
        items, self._items = self._items, []
        gaps, self._gaps = self._gaps, []
        spans, self._spans = self._spans, []
        self._began_at = self._clock.monotonic()
        if not (items or gaps or spans) or self._writer is None:
            return
        # In pieces: whoever was kept from running for a while must not make a batch that no memory is meant for.
        first = range(0, max(len(items), 1), self._batch_rows)
        pieces = [items[place : place + self._batch_rows] for place in first]
        batches = [Batch(piece) for piece in pieces[:-1]]
        batches.append(Batch(pieces[-1] if pieces else (), tuple(gaps), tuple(spans)))
        kept = [self._writer.put(batch) for batch in batches]  # each of them is tried
        if not all(kept):
            self._watermarks.lost()

    def _collect_last(self) -> None:
        """Its last act on its own thread: what came until now, and then nothing more comes."""
        try:
            self._is_over = True
            self._collect()
        finally:
            if self._subscription is not None:
                self._subscription.close()
        if self._has_source_ended:  # a replay has come to its end, or somebody unsubscribed: nobody else may know
            self.close(OVER_SECONDS)

    # Filling

    def _fill_turn(self) -> None:
        now = self._clock.monotonic()
        task = next((each for each in self._open_fills() if each.due <= now), None)
        if task is None:
            self._closing.wait(COLLECT_SECONDS)
            return
        pause = START_AGAIN_SECONDS if task.is_start else FILL_AGAIN_SECONDS
        try:
            rest = self._fill(task)
        except InvalidRequestError as error:
            hole = task.hole
            log.warning("%s: %s of %s cannot be had again: %s", self.name, hole.type, hole.symbol, one_line(error))
            rest = None
        except UpbitBackboneError as error:
            if self._closing.is_set():
                return
            log.info("%s: filling goes on later: %s", self.name, one_line(error))
            rest, pause = task.hole, FILL_AGAIN_SECONDS
        with self._fill_lock:
            self._holes.remove(task)
            if rest is not None:
                self._holes.append(task._replace(hole=rest, due=self._clock.monotonic() + pause))

    def _fill(self, task: _Filling) -> Hole | None:
        """Have what Upbit still has of a hole written; what is left of it to ask for later."""
        hole, rest = task.hole, None
        for batch in self._filler.fill(hole):
            # The past can wait; what comes live goes first.
            while self._writer is not None and not self._writer.wait_room(Deadline.after(COLLECT_SECONDS)):
                if self._closing.is_set():
                    return hole
            if self._closing.is_set() or self._writer is None or not self._writer.put(batch):
                return hole
            rest = self._left(task, batch.spans)
        return rest

    def _left(self, task: _Filling, filled: tuple[Span, ...]) -> Hole | None:
        hole = task.hole
        if not filled:
            return hole
        (span,) = filled
        if task.is_before_stream and hole.end is not None:
            # From here on the stream itself has everything, since its first item is among what was fetched.
            self._joints.append((hole.symbol, hole.type, hole.end, span.end))
            return None
        return None if hole.end is None or span.end >= hole.end else hole._replace(start=span.end)

    def _open_fills(self) -> list[_Filling]:
        with self._fill_lock:
            return list(self._holes)

    def _count_filling(self) -> int:
        with self._fill_lock:
            holes = [*self._waiting_holes, *_holes_of(self._holes)]
        return len({(hole.symbol, hole.type) for hole in holes})

    # Others

    @property
    def has_begun(self) -> bool:
        """Whether the sink is open, so that there are `stats`."""
        return self._writer is not None

    @property
    def stats(self) -> SinkStats:
        """How it stands; see `SinkStats`. From any thread, after `close`, too."""
        self._guard.check()
        self._collector.revive()
        if self._writer is None:
            raise ClosedError("the recorder has not begun")
        return self._writer.stats(self._count_filling())

    def wait(self, timeout: float | None = None) -> bool:
        """Until the recorder is closed, or `timeout` seconds are over; True when it is closed. Ctrl-C gets through."""
        self._guard.check()
        return wait_event(self._closed, Deadline.after(timeout))

    def close(self, timeout: float = 1.5) -> list[str]:
        """Write what has come, and end; names of threads that would not within `timeout` seconds. Idempotent.

        Where a second or more is given, half of one goes by for a last proof of what is complete; a second `close`
        meanwhile ends that.

        What the sink does not take in that time waits in its spill file for the next recording into it; without one
        it is lost, and counted.
        """
        if self._guard.is_foreign:  # the file, the thread and the sink are the parent's
            return []
        deadline = Deadline.after(timeout)
        if timeout < UNHURRIED_SECONDS or self._closing.is_set():
            self._is_hurried.set()
        self._closing.set()
        stubborn = self._collector.join(deadline)
        stubborn += self._filling.join(deadline)
        if self._writer is not None:
            stubborn += self._writer.close(deadline)
        self._on_close(self)
        self._closed.set()
        return stubborn

    def __enter__(self) -> SinkRecorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._guard.is_foreign or self._writer is None:
            return f"<SinkRecorder {one_line(self.name)}>"
        stats = self.stats
        return f"<SinkRecorder {one_line(self.name)} {stats.written} written, {stats.waiting} waiting>"
