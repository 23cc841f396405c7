"""Fills the gaps that breaks leave in trades and candles, and gives a receipt for each: a `GapEvent`.

While a gap is being filled, the live items of its topic are parked; then everything is published in order. Fetching
runs on background workers, a page at a time, so one REST budget serves all gaps; sessions' threads never wait for it.
When REST does not answer in time, or too much is parked, the live items go out without the missing ones, and the
receipt says so. No gap is passed over in silence.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .._concurrency import SYSTEM_CLOCK, WAIT_SLICE_SECONDS, Clock
from ..errors import UpbitBackboneError, one_line
from ..models.enums import DataType
from ..models.events import Event, GapEvent
from ..models.market import CandleData, TradeData
from ..models.topic import Topic
from .pages import CandlesPage, Fetch, Pages, TradeFetch, TradesPage
from .sequence import CandleSequenceTracker, ConnectionId, Gap, SequenceTracker, TradeSequenceTracker

log = logging.getLogger("upbit_backbone.gap_repair")

WORKERS = 2  # of 10 pages per second one thread gets through most; two hide each other's latency
PATIENCE_SECONDS = 60.0  # for a REST that fails, measured from the end of the outage
BEHIND_SECONDS = 5.0  # for a REST that does not yet show the newest trades
PARKED_SECONDS = 120.0  # for a REST that answers but has many gaps to fill
PARKED_ITEMS = 50_000
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 2.0


class _Task:
    """One gap on its way to be filled. Belongs to the worker that has taken it."""

    def __init__(self, topic: Topic, tracker: SequenceTracker[Any], gap: Gap[Any]) -> None:
        self.topic = topic
        self.tracker = tracker
        self.gap = gap
        self.due = float("-inf")
        self.pause = FIRST_PAUSE_SECONDS
        self.revision = -1
        self.fetch: Fetch[Any] | None = None


class GapRepair:
    """Passes trades and candles through, each once, and sees to their gaps.

    `publish(topic, items)` delivers what was parked; `wanted(topic)` tells whether anybody listens; `run_job` runs a
    callable on a background worker.
    """

    def __init__(
        self,
        *,
        trades_page: TradesPage,
        candles_page: CandlesPage,
        publish: Callable[[Topic, list[Any]], object],
        emit: Callable[[Event], None],
        run_job: Callable[[Callable[[], None]], object],
        wanted: Callable[[Topic], bool] = lambda topic: True,
        max_trades: int = 10_000,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._pages = Pages(trades_page, candles_page, most=max_trades, clock=clock)
        self._publish = publish
        self._emit = emit
        self._run_job = run_job
        self._wanted = wanted
        self._clock = clock
        # Guards all that follows, the trackers included. Held for moments: nothing is fetched or published under it.
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._trackers: dict[Topic, SequenceTracker[Any]] = {}
        self._tasks: list[_Task] = []
        self._workers = 0
        self._closed = False
        self._duplicates = 0  # of trackers that are gone
        self._too_late = 0

    # What the intake calls, on sessions' threads

    def arrived(self, topic: Topic, item: Any, line: ConnectionId, now: float) -> Sequence[Any]:
        """What to deliver now that `item` has come: it, or nothing if it is a repeat or has to wait."""
        with self._lock:
            tracker = self._tracker(topic)
            gap = tracker.gap
            due = tracker.arrived(item, line, now, may_open=self._wanted(topic))
            if tracker.gap is not None and tracker.gap is not gap:
                self._tasks.append(_Task(topic, tracker, tracker.gap))
            return due

    def work_if_needed(self) -> None:
        """See to it that somebody works on the gaps found."""
        if not self._tasks:
            return
        with self._lock:
            missing = min(WORKERS, len(self._tasks)) - self._workers
            if missing <= 0 or self._closed:
                return
            self._workers += missing
        for _ in range(missing):
            self._run_job(self._work)

    def subscribed(self, line: ConnectionId, topics: Iterable[Topic]) -> None:
        """`topics` are what `line` streams from now on."""
        now = self._clock.monotonic()
        with self._lock:
            for topic in topics:
                if topic.data_type is DataType.TRADE or topic.data_type.is_candle:
                    self._tracker(topic).subscribed(line, now)

    def interrupted(self, line: ConnectionId, topics: Iterable[Topic]) -> None:
        """`line` was lost; until it is back nobody waits for what is parked, so repairs may take their time."""
        with self._lock:
            for topic in topics:
                if topic in self._trackers:
                    self._trackers[topic].interrupted(line)

    def forget(self, topic: Topic) -> None:
        """Nobody wants the topic any more; what is parked for it is not delivered."""
        with self._lock:
            tracker = self._trackers.pop(topic, None)
            if tracker is not None:
                self._duplicates += tracker.duplicates
                self._too_late += getattr(tracker, "too_late", 0)

    # What others ask

    def is_repairing(self, topic: Topic) -> bool:
        """Whether the topic's live items are parked."""
        with self._lock:
            tracker = self._trackers.get(topic)
            return tracker is not None and tracker.gap is not None

    def last(self, topic: Topic) -> TradeData | CandleData | None:
        """The last item the stream gave, delivered or parked."""
        with self._lock:
            tracker = self._trackers.get(topic)
            return None if tracker is None else tracker.last

    def counts(self) -> dict[str, int]:
        """Items not delivered, by reason."""
        with self._lock:
            trackers = list(self._trackers.values())
            return {
                "repeated": self._duplicates + sum(tracker.duplicates for tracker in trackers),
                "too_late": self._too_late + sum(getattr(tracker, "too_late", 0) for tracker in trackers),
            }

    def close(self) -> None:
        """Stop repairing; what is parked is not delivered. Does not wait for a page under way."""
        with self._lock:
            self._closed = True
            self._tasks.clear()
            self._wake.notify_all()

    # Background workers

    def _work(self) -> None:
        while (task := self._next_task()) is not None:
            try:
                self._advance(task)
            except Exception as error:  # the gap must get its receipt whatever breaks
                log.exception("filling a gap of %s failed", task.topic)
                self._finish(task, f"{type(error).__name__}: {one_line(error)}")

    def _next_task(self) -> _Task | None:
        """The next gap to work on, once its pause is over; None when there are none left."""
        with self._lock:
            while self._tasks and not self._closed:
                now = self._clock.monotonic()
                task = min(self._tasks, key=lambda each: each.due)
                if task.due <= now or self._is_overdue(task, now):
                    self._tasks.remove(task)
                    return task
                self._wake.wait(min(task.due - now, WAIT_SLICE_SECONDS))
            self._workers -= 1
            return None

    def _advance(self, task: _Task) -> None:
        """Fetch one page; finish when that was the last, or when there is no time left."""
        if task.fetch is None or task.revision != task.gap.revision:
            task.revision = task.gap.revision
            task.fetch = self._pages.begin(task.topic, task.gap)
        try:
            self._pages.step(task.topic, task.gap, task.fetch)
        except UpbitBackboneError as error:
            self._failed(task, error)
            return
        task.pause = FIRST_PAUSE_SECONDS
        age = self._clock.monotonic() - task.gap.opened_at
        if not task.fetch.is_done:
            if self._is_overdue(task, self._clock.monotonic()):
                self._finish(task, "too much was waiting")
            else:
                self._again(task, 0.0)
        elif isinstance(task.fetch, TradeFetch) and task.fetch.is_behind:
            if age < BEHIND_SECONDS:
                task.fetch = None
                self._again(task, FIRST_PAUSE_SECONDS)
            else:
                self._finish(task, "REST does not show the newest trades")
        else:
            self._finish(task, task.fetch.shortfall)

    def _failed(self, task: _Task, error: UpbitBackboneError) -> None:
        now = self._clock.monotonic()
        pause = max(task.pause, error.retry_after or 0.0)
        is_out_of_time = not task.tracker.is_down and now + pause - task.gap.opened_at > PATIENCE_SECONDS
        is_hopeless = not error.retryable or is_out_of_time
        if is_hopeless or self._is_overdue(task, now):
            self._finish(task, f"REST could not give them: {one_line(error)}")
            return
        task.pause = min(LONGEST_PAUSE_SECONDS, task.pause * 2)
        self._again(task, pause)

    def _is_overdue(self, task: _Task, now: float) -> bool:
        is_late = not task.tracker.is_down and now - task.gap.parked_since > PARKED_SECONDS
        return is_late or len(task.gap.parked) > PARKED_ITEMS

    def _again(self, task: _Task, pause: float) -> None:
        with self._lock:
            if not self._closed:
                task.due = self._clock.monotonic() + pause
                self._tasks.append(task)

    def _finish(self, task: _Task, shortfall: str | None) -> None:
        """Publish what was found and parked, give the receipt, and let the stream tracker again."""
        gap = task.gap
        with self._lock:
            if self._closed or self._trackers.get(task.topic) is not task.tracker:
                return
            is_cut_again = gap.revision != task.revision and not self._is_overdue(task, self._clock.monotonic())
            if is_cut_again:
                self._tasks.append(task)
                return
            items, recovered = task.tracker.fill([] if task.fetch is None else task.fetch.items)
        self._publish(task.topic, items)
        if recovered or shortfall is not None:
            self._give_receipt(task, recovered, shortfall)
        while items:
            with self._lock:
                items = task.tracker.resume(gap)
            self._publish(task.topic, items)

    def _give_receipt(self, task: _Task, recovered: int, shortfall: str | None) -> None:
        start, end = sorted((task.gap.before.timestamp, task.gap.first.timestamp))
        missing = (None, None) if shortfall is None else (start, end)
        if shortfall is not None and task.fetch is not None:
            missing = task.fetch.missing(start, end)
        log.debug(  # the event is what people are told
            "gap in %s between %s and %s: %d recovered%s",
            task.topic,
            start.isoformat(),
            end.isoformat(),
            recovered,
            "" if shortfall is None else f", the rest is missing: {shortfall}",
        )
        self._emit(
            GapEvent(
                at=self._clock.wall(),
                symbol=task.topic.symbol,
                type=task.topic.data_type,
                start=start,
                end=end,
                recovered=recovered,
                complete=shortfall is None,
                missing_start=missing[0],
                missing_end=missing[1],
                reason=shortfall or "filled from REST",
            )
        )

    def _tracker(self, topic: Topic) -> SequenceTracker[Any]:
        tracker = self._trackers.get(topic)
        if tracker is None:
            tracker = self._trackers[topic] = (
                TradeSequenceTracker() if topic.data_type is DataType.TRADE else CandleSequenceTracker()
            )
        return tracker

    def __repr__(self) -> str:
        with self._lock:
            return f"<GapRepair {len(self._trackers)} topics, {len(self._tasks)} gaps waiting, {self._workers} workers>"
