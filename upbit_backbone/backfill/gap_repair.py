"""Gap repair: fills the gaps that breaks leave in trades and candles, and gives a receipt for each: a `GapEvent`.

While a gap is being filled, the live items of its topic are parked, but only for a moment (`hold_seconds`): if REST
needs longer, live data goes on, and what REST gives later is published by itself, followed by a receipt that says so.
Subscribers who insist on strict order are waited for longer (`strict_seconds`). Fetching runs on background workers, a
page at a time, so one REST budget serves all gaps; sessions' threads never wait for it. A gap is worked on for an
hour; no gap is passed over in silence.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from .._concurrency import SYSTEM_CLOCK, WAIT_SLICE_SECONDS, Clock, EventCount, get_logger
from ..errors import ClosedError, InvalidRequestError, UnknownSymbolError, UpbitBackboneError, one_line
from ..models.enums import Audience, DataType
from ..models.events import Event, GapEvent
from ..models.market import CandleData, TradeData
from ..models.request import Topic
from .pages import CandlesPage, Fetch, Pages, TradesPage
from .sequence import CandleSequenceTracker, ConnectionId, Gap, SequenceTracker, Start, TradeSequenceTracker

if TYPE_CHECKING:
    from ..models.report import GapStats, GapTotals

log = get_logger("upbit_backbone.gap_repair")

WORKERS: Final = 2  # of 10 pages per second one thread gets through most; two hide each other's latency
HOLD_SECONDS: Final = 2.0  # for which live data waits for REST
STRICT_SECONDS: Final = 60.0  # for which whoever insists on strict order does
# However long the times are: a default mailbox of 40,000 must have room for what was parked.
PARKED_ITEMS: Final = 20_000
PATIENCE_SECONDS: Final = 3600.0  # for a REST that fails, measured from the end of the outage
BEHIND_SECONDS: Final = 120.0  # for a REST that answers, but contradicts what the stream has shown
FIRST_PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 2.0  # REST that is back shall be noticed soon, however long it was away
AGAIN_SECONDS: Final = 0.02  # until another thread has handed out what was parked
RESTART_SECONDS: Final = 0.25  # between two attempts to find a thread
# What no later answer can change. Everything else may pass: even a 403 or a bad certificate is somebody's accident, and
# "no such market" about one whose trades were streamed a moment ago is a contradiction before it is a delisting.
HOPELESS: Final = (InvalidRequestError, ClosedError)


class Early(list[Any]):
    """Items for those who do not insist on strict order; the others get them when the gap is filled."""


class _Task:
    """One gap on its way to be filled. Belongs to the worker that has taken it."""

    def __init__(self, topic: Topic, tracker: SequenceTracker[Any], gap: Gap[Any], now: float) -> None:
        self.topic = topic
        self.tracker = tracker
        self.gap = gap
        self.due = now
        self.pause = FIRST_PAUSE_SECONDS
        self.revision = -1
        self.fetch: Fetch[Any] | None = None
        self.problem: str | None = None  # what the latest attempt met
        self.handed_out = 0  # before the rest was merged with what is parked


def _most_urgent(tasks: Sequence[_Task], now: float) -> _Task | None:
    """First what somebody waits for; then the oldest, so that what comes late comes in its order."""
    due = [task for task in tasks if task.due <= now]
    return min(due, key=lambda each: (each.gap.is_released, each.gap.parked_since), default=None)


class GapRepair:
    """Passes trades and candles through, each once, and sees to their gaps.

    `publish(topic, items)` delivers what was parked; with `to=` to a part of the subscribers only, with `is_late=` when
    newer items were delivered before. `refuse(topic, count)` counts what is not delivered. `wanted(topic)` tells
    whether anybody listens, `strict(topic)` whether somebody insists on strict order; `run_job` runs a callable on a
    background worker; `owner(topic)` is whose subscription the topic belongs to, where it is one subscription's own.
    """

    def __init__(
        self,
        *,
        trades_page: TradesPage,
        candles_page: CandlesPage,
        publish: Callable[..., object],
        emit: Callable[[Event], None],
        run_job: Callable[[Callable[[], None]], object],
        wanted: Callable[[Topic], bool] = lambda topic: True,
        strict: Callable[[Topic], bool] = lambda topic: False,
        refuse: Callable[[Topic, int], object] = lambda topic, count: None,
        owner: Callable[[Topic], str] = lambda topic: "",
        hold_seconds: float = HOLD_SECONDS,
        strict_seconds: float = STRICT_SECONDS,
        workers: int = WORKERS,
        max_trades: int = 10_000,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._pages = Pages(trades_page, candles_page, most=max_trades, clock=clock)
        self._publish = publish
        self._emit = emit
        self._run_job = run_job
        self._wanted = wanted
        self._strict = strict
        self._refuse = refuse
        self._owner = owner
        self._hold_seconds = hold_seconds
        self._strict_seconds = max(hold_seconds, strict_seconds)
        self._most_workers = workers
        self._clock = clock
        # Guards all that follows, the trackers included. Held for moments: nothing is fetched or published under it.
        self._lock = threading.Lock()
        self._wake = EventCount()
        self._trackers: dict[Topic, SequenceTracker[Any]] = {}
        self._open: dict[Gap[Any], _Task] = {}  # every gap without a receipt, oldest first
        self._tasks: list[_Task] = []  # those that wait for a worker
        self._busy: set[Topic] = set()  # those in a worker's hands: the gaps of one topic are filled in order
        self._workers = 0  # asked for
        self._working = 0  # and begun
        self._is_watched = False
        self._has_news = False  # gaps nobody has been told of
        self._restart_at = float("-inf")
        self._start_problem: str | None = None
        self._closed = False
        self._totals: dict[DataType, GapTotals] = {}
        self._duplicates = 0  # of trackers that are gone
        self._too_late = 0

    # What the intake calls, on sessions' threads

    def arrived(self, topic: Topic, item: Any, line: ConnectionId, now: float) -> Sequence[Any]:
        """What to deliver now that `item` has come: it, or nothing if it is a repeat or has to wait."""
        # Under the lock although it is on every trade's way: workers fill gaps of the same tracker, and an item that
        # slips past `fill` would overtake what was parked.
        with self._lock:
            tracker = self._trackers.get(topic) or self._tracker(topic)
            if tracker.follows(item, line):  # nearly always
                return (item,)
            before = tracker.gap
            due = tracker.arrived(item, line, now, may_open=self._wanted(topic))
            gap = tracker.gap
            if due and gap is None:
                return due
            is_doubted = tracker.take_doubted()
            if gap is not None:
                due = self._beside(gap, gap is before, topic, tracker, due, now)
        if is_doubted:
            # After the lock, like all telling: listeners may ask us for figures.
            self._tell_doubted(topic, item)
        return due

    def _beside(
        self, gap: Gap[Any], is_known: bool, topic: Topic, tracker: SequenceTracker[Any], due: Sequence[Any], now: float
    ) -> Sequence[Any]:
        """What to deliver at once although there is a gap. Called with the lock held."""
        if not is_known:
            task = self._open[gap] = _Task(topic, tracker, gap, now)
            self._tasks.append(task)
            self._has_news = True
        elif gap.is_released:
            return Early(due) if due else due
        if gap.is_draining or not self._is_overdue(gap, now):
            return due
        # Here rather than on the watcher's thread, because here nothing can come in between, and no thread is needed.
        items = gap.take_ungiven()
        if self._strict(topic):
            gap.is_released = True
            return Early(items)
        gap.take_parked()
        self._let_go(self._open[gap])
        return items

    def work_if_needed(self) -> None:
        """See to it that somebody works on the gaps found. Never raises: a stream does not end for want of threads."""
        # Looked at without the lock, after each read: in a healthy stream nothing is open.
        if not self._open:
            return
        jobs: list[Callable[[], None]] = []
        with self._lock:
            if self._closed or self._clock.monotonic() < self._restart_at:
                return
            missing = max(0, min(self._most_workers, len(self._tasks)) - self._workers)
            # Counted before they exist, so that the next read does not ask for them again; taken back where that fails.
            self._workers += missing
            jobs += [self._work] * missing
            if self._has_news:
                # Not when the gap was found: what that read brought before it is published by now, and not earlier.
                self._has_news = False
                self._wake.notify_all()
                if not self._is_watched:
                    self._is_watched = True
                    jobs.append(self._watch)
        for job in jobs:  # outside the lock: a pool may start a thread for it, which takes a while
            self._start(job)

    def _start(self, job: Callable[[], None]) -> None:
        try:
            self._run_job(job)
        except Exception as error:  # noqa: BLE001 - no thread, no memory, or closing: whatever it is, the stream goes on
            with self._lock:
                # What was counted before it existed does not exist: the next read tries again.
                if job == self._watch:
                    self._is_watched, self._has_news = False, True
                else:
                    self._workers -= 1
                self._restart_at = self._clock.monotonic() + RESTART_SECONDS
                self._start_problem = one_line(error)

    def begin(self, topic: Topic, start: Start) -> None:
        """What lies between `start` and the first item of `topic`, of which none has come yet, is a gap as well."""
        with self._lock:
            self._trackers[topic] = _new_tracker(topic, start)

    def subscribed(self, line: ConnectionId, topics: Iterable[Topic]) -> None:
        """`topics` are what `line` streams from now on."""
        now = self._clock.monotonic()
        repairable = [each for each in topics if each.data_type is DataType.TRADE or each.data_type.is_candle]
        with self._lock:
            for topic in repairable:
                self._tracker(topic).subscribed(line, now)
        self.work_if_needed()

    def interrupted(self, line: ConnectionId, topics: Iterable[Topic]) -> None:
        """`line` was lost; until it is back nobody waits for what is parked, so repairs may take their time."""
        with self._lock:
            for tracker in self._known(topics):
                tracker.interrupted(line)
        self.work_if_needed()

    def forget(self, topic: Topic) -> None:
        """Nobody wants the topic any more; what is parked for it is not delivered, and its gaps get their receipts."""
        with self._lock:
            # Out of the table: an item that arrives now begins a new tracker instead of being parked for nobody.
            tracker = self._trackers.pop(topic, None)
            if tracker is None:
                return
            self._duplicates += tracker.duplicates
            self._too_late += getattr(tracker, "too_late", 0)
            tasks = self._tasks_of(tracker)
            for task in tasks:
                self._drop(task)
        for task in tasks:
            if not task.gap.is_filled:
                self._give_receipt(task, 0, "nobody subscribes to it any more", self._latest(task))

    # What others ask

    def is_repairing(self, topic: Topic) -> bool:
        """Whether the topic's live items are parked, and nobody gets them."""
        with self._lock:
            tracker = self._trackers.get(topic)
            return tracker is not None and tracker.gap is not None and not tracker.gap.is_released

    def has_gaps(self, topic: Topic) -> bool:
        """Whether something of the topic is still to come, in order or late."""
        with self._lock:
            tracker = self._trackers.get(topic)
            return tracker is not None and bool(tracker.gaps)

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

    def stats(self) -> GapStats:
        """The gaps that have no receipt yet, and whether anybody works on them."""
        from ..models.report import GapStats

        with self._lock:
            now = self._clock.monotonic()
            tasks = list(self._open.values())
            waiting = max((now - task.due for task in self._tasks if task.due <= now), default=0.0)
            problem = next((task.problem for task in tasks if task.problem is not None), None)
            if self._start_problem is not None and not self._working:
                problem = self._start_problem
            return GapStats(
                open=len(tasks),
                late=sum(task.gap.is_released for task in tasks),
                parked=sum(len(task.gap.parked) for task in tasks),
                oldest=max((now - task.gap.parked_since for task in tasks), default=0.0),
                unattended=waiting if not self._working else 0.0,
                problem=problem,
                totals=tuple(self._totals[key] for key in sorted(self._totals)),
            )

    def close(self) -> int:
        """Stop repairing. What is parked is delivered, and every open gap gets its receipt; waits for no page.

        How many receipts that were.
        """
        with self._lock:
            self._closed = True
            # A filled gap is in the hands of a worker that is about to give its receipt.
            tasks = self._unfilled()
            latest = [self._latest(task) for task in tasks]
            parked = [task.gap.take_parked() for task in tasks]
            self._tasks.clear()
            self._open.clear()
            self._wake.notify_all()
        for task, end, (items, given) in zip(tasks, latest, parked, strict=True):
            # Outside the lock, and before the receipt, which says that nothing more comes.
            self._hand_out(task, items, items[given:], given > 0)
            self._give_receipt(task, 0, "the backbone was closed before REST had given them", end)
        return len(tasks)

    # What they look up, with the lock held: loops of their own, see ARCHITECTURE.md

    def _known(self, topics: Iterable[Topic]) -> list[SequenceTracker[Any]]:
        return [self._trackers[topic] for topic in topics if topic in self._trackers]

    def _tasks_of(self, tracker: SequenceTracker[Any]) -> list[_Task]:
        return [task for task in self._open.values() if task.tracker is tracker]

    def _unfilled(self) -> list[_Task]:
        return [task for task in self._open.values() if not task.gap.is_filled]

    # The watcher: sees to it that nobody waits longer than was said, whatever REST does

    def _watch(self) -> None:
        try:
            while (task := self._next_overdue()) is not None:
                self._release(task)
        except BaseException:
            with self._lock:
                self._is_watched, self._has_news = False, True  # the next read finds another watcher
            raise

    def _next_overdue(self) -> _Task | None:
        """The next gap that has been waited for long enough; None when nobody waits for any."""
        while True:
            with self._lock:
                now = self._clock.monotonic()
                waiting = self._waited_for()
                if self._closed or not waiting:
                    self._is_watched = False
                    return None
                if (task := self._first_overdue(waiting, now)) is not None:
                    # Set under the lock that found it, so that neither a worker nor the stream's thread hands the same
                    # items out as well.
                    task.gap.is_draining = True
                    return task
                # Entered under the lock: a gap that is opened after it is released wakes this wait.
                waiter, pause = self._wake.enter(), self._until_overdue(waiting, now)
            self._wake.sleep(waiter, pause)

    def _waited_for(self) -> list[_Task]:
        return [task for task in self._open.values() if task.tracker.gap is task.gap]

    def _first_overdue(self, waiting: Sequence[_Task], now: float) -> _Task | None:
        overdue = (task for task in waiting if not task.gap.is_draining and self._is_overdue(task.gap, now))
        return next(overdue, None)

    def _until_overdue(self, waiting: Sequence[_Task], now: float) -> float:
        times = [self._waited_until(task.gap) - now for task in waiting if not task.gap.is_draining]
        return max(0.0, min([WAIT_SLICE_SECONDS, *times]))

    def _waited_until(self, gap: Gap[Any]) -> float:
        """Until when somebody waits: from the line's first return on, so that a line that flaps cannot prolong it."""
        return gap.parked_since + (self._strict_seconds if gap.is_released else self._hold_seconds)

    def _is_overdue(self, gap: Gap[Any], now: float) -> bool:
        waiting = len(gap.parked) if gap.is_released else len(gap.parked) - gap.given
        return now >= self._waited_until(gap) or waiting > PARKED_ITEMS

    def _release(self, task: _Task) -> None:
        """Hand out what is parked to those who have waited long enough. Called by whoever set `is_draining`."""
        try:
            self._hand_out_parked(task, is_for_strict=task.gap.is_released)
        finally:
            with self._lock:
                task.gap.is_draining = False
                self._wake.notify_all()

    def _hand_out_parked(self, task: _Task, *, is_for_strict: bool) -> None:
        while True:  # what arrives while we publish queues behind it, so that nothing overtakes
            with self._lock:
                keeps_order = not is_for_strict and self._strict(task.topic)
                if keeps_order:
                    items = task.gap.take_ungiven()
                else:
                    parked, given = task.gap.take_parked()
                    items = parked if is_for_strict else parked[given:]
                if not items:  # and only now, under the same lock, does the next one go its own way
                    if keeps_order:
                        task.gap.is_released = True
                    else:
                        self._let_go(task)
                    return
            audience = Audience.STRICT if is_for_strict else Audience.OTHERS if keeps_order else Audience.EVERYONE
            self._deliver(task.topic, items, audience)

    def _release_until(self, task: _Task, instant: float) -> None:
        """REST is known to be closed until then: whoever would wait in vain gets what is parked now."""
        gap = task.gap
        while True:
            with self._lock:
                is_waited_for = task.tracker.gap is gap and not gap.is_draining
                if not is_waited_for or instant <= self._waited_until(gap):
                    return
                gap.is_draining = True
            self._release(task)

    def _let_go(self, task: _Task) -> None:
        """Nobody waits for the gap any more. Called with the lock held."""
        if task.tracker.let_go(task.gap) is not task.gap:
            self._drop(task)  # another one stands for it

    def _drop(self, task: _Task) -> None:
        self._open.pop(task.gap, None)
        if task in self._tasks:
            self._tasks.remove(task)

    # Background workers

    def _work(self) -> None:
        try:
            with self._lock:
                self._working += 1
                self._start_problem = None
            while (task := self._next_task()) is not None:
                self._attend(task)
        except BaseException:
            with self._lock:
                self._leave()
            raise

    def _leave(self) -> None:
        self._workers -= 1
        self._working -= 1

    def _attend(self, task: _Task) -> None:
        try:
            self._advance(task)
        except Exception as error:  # the gap must get its receipt whatever breaks
            self._finish(task, f"{type(error).__name__}: {one_line(error)}")
            log.exception("filling a gap of %s failed", task.topic)
        # Interrupted, or out of memory: the gap goes back, because without a receipt nobody would know that it was
        # left.
        except BaseException:
            self._again(task, LONGEST_PAUSE_SECONDS)  # for the next worker
            raise
        finally:
            with self._lock:
                self._busy.discard(task.topic)
                self._wake.notify_all()

    def _next_task(self) -> _Task | None:
        """The next gap to work on, once its pause is over; None when there are none left."""
        while True:
            with self._lock:
                if self._closed or not self._tasks:
                    # Under the lock that saw no task: one that is added later finds a worker too few and starts
                    # another.
                    self._leave()
                    return None
                now = self._clock.monotonic()
                free = self._free()
                if (task := _most_urgent(free, now)) is not None:
                    self._tasks.remove(task)
                    self._busy.add(task.topic)
                    return task
                waiter, pause = self._wake.enter(), min([WAIT_SLICE_SECONDS, *(task.due - now for task in free)])
            self._wake.sleep(waiter, pause)

    def _free(self) -> list[_Task]:
        return [task for task in self._tasks if task.topic not in self._busy]

    def _advance(self, task: _Task) -> None:
        """Fetch one page; finish when that was the last."""
        # The line broke again meanwhile: what was fetched ends before the new end, and pages are counted from there.
        if task.fetch is None or task.revision != task.gap.revision:
            task.revision = task.gap.revision
            task.fetch = self._pages.begin(task.topic, task.gap)
        try:
            self._pages.step(task.topic, task.gap, task.fetch, lambda fresh: self._missing(task, fresh))
        except UpbitBackboneError as error:
            self._failed(task, error)
            return
        if not task.fetch.is_done:
            self._again(task, 0.0)
        elif task.fetch.is_doubtful:
            self._doubt(task)
        else:
            self._hand_out_settled(task, task.fetch)
            self._finish(task, task.fetch.shortfall)

    def _hand_out_settled(self, task: _Task, fetch: Fetch[Any]) -> None:
        """A day of trades is not merged under the lock that the stream's thread takes: only its end has to be."""
        with self._lock:
            is_waited_for = task.gap in self._open and not task.gap.is_released
        if is_waited_for and (settled := fetch.take_settled()):
            task.handed_out += len(settled)
            self._deliver(task.topic, settled, Audience.EVERYONE)

    def _missing(self, task: _Task, fresh: Sequence[Any]) -> int:
        with self._lock:
            return task.tracker.missing(fresh, task.gap)

    def _doubt(self, task: _Task) -> None:
        """REST answered, but did not show what the stream has shown: that is no proof of anything."""
        if self._clock.monotonic() - task.gap.opened_at >= BEHIND_SECONDS:
            self._finish(task, "REST does not show what the stream has shown")
            return
        # From the beginning: pages that lacked the newest trades may lack others in their middle.
        task.fetch = None
        self._pause(task, 0.0, "REST does not show what the stream has shown yet")

    def _failed(self, task: _Task, error: UpbitBackboneError) -> None:
        now = self._clock.monotonic()
        pause = max(task.pause, error.retry_after or 0.0)
        is_contradiction = isinstance(error, UnknownSymbolError)
        patience = BEHIND_SECONDS if is_contradiction else PATIENCE_SECONDS
        is_out_of_time = not task.tracker.is_down and now + pause - task.gap.opened_at > patience
        if is_out_of_time or (isinstance(error, HOPELESS) and not is_contradiction):
            self._finish(task, f"REST could not give them: {one_line(error)}")
            return
        if error.retry_after:  # Retry-After, a ban, an open breaker: waiting longer than that is known to be in vain
            self._release_until(task, now + error.retry_after)
        self._pause(task, error.retry_after or 0.0, one_line(error))

    def _pause(self, task: _Task, at_least: float, problem: str) -> None:
        task.problem = problem
        pause, task.pause = max(task.pause, at_least), min(LONGEST_PAUSE_SECONDS, task.pause * 2)
        self._again(task, pause)

    def _again(self, task: _Task, pause: float) -> None:
        with self._lock:
            if not self._closed and task.gap in self._open:
                task.due = self._clock.monotonic() + pause
                self._tasks.append(task)

    def _finish(self, task: _Task, shortfall: str | None) -> None:
        """Publish what was found and parked, give the receipt, and let the stream flow again."""
        gap, tracker = task.gap, task.tracker
        with self._lock:
            # Its receipt was given while the last page was under way; and each gap gets one.
            if self._closed or gap not in self._open:
                return
            is_cut_again = gap.revision != task.revision  # while we fetched: its new end was not asked for
            if is_cut_again or gap.is_draining:
                task.due = self._clock.monotonic() + (0.0 if is_cut_again else AGAIN_SECONDS)
                self._tasks.append(task)
                return
            is_waited_for, is_late = tracker.gap is gap, gap.is_released
            fetched = [] if task.fetch is None else task.fetch.items
            shortfall = self._doubted_part(task, fetched) or shortfall
            gap.is_draining = is_waited_for
            # Merged under the lock, published outside it; `is_draining` keeps the others away in between.
            ordered, early, recovered = tracker.fill(gap, fetched)
            self._drop(task)
            recovered += task.handed_out
        is_split = is_waited_for and (is_late or len(ordered) != len(early))
        try:
            self._hand_out(task, ordered, early, is_split, is_late=is_late)
            if recovered or is_late or shortfall is not None:
                self._give_receipt(task, recovered, shortfall, is_late=is_late)
        finally:  # whatever a listener does to us, nothing stays parked for ever
            if is_waited_for:
                self._drain(task)

    def _drain(self, task: _Task) -> None:
        audience = Audience.STRICT if task.gap.is_released else Audience.EVERYONE
        while True:
            with self._lock:
                items = task.tracker.resume(task.gap)
            if not items:
                return
            self._deliver(task.topic, items, audience)

    @staticmethod
    def _doubted_part(task: _Task, fetched: Sequence[Any]) -> str | None:
        if not isinstance(task.tracker, TradeSequenceTracker):
            return None
        until = task.tracker.doubtful(fetched, task.gap)
        return None if until is None else f"too many trades to tell those until {until:%H:%M:%S.%f}Z from repeats"

    # Telling

    def _hand_out(
        self, task: _Task, ordered: list[Any], early: list[Any], is_split: bool, *, is_late: bool = False
    ) -> None:
        """All to everyone; or, where some have had a part already, to each what is new."""
        if not is_split:
            self._deliver(task.topic, ordered, Audience.EVERYONE, is_late=is_late)
            return
        self._deliver(task.topic, early, Audience.OTHERS, is_late=is_late)
        self._deliver(task.topic, ordered, Audience.STRICT)  # to whom nothing newer was given: this is not late

    def _deliver(self, topic: Topic, items: list[Any], to: Audience, *, is_late: bool = False) -> None:
        if not items:
            return
        if to is Audience.EVERYONE and not is_late:
            self._publish(topic, items)
        else:
            self._publish(topic, items, to=to, is_late=is_late)

    def _latest(self, task: _Task) -> datetime:
        """Up to here something of this gap is still to be delivered."""
        latest: datetime = max([task.gap.first.timestamp, *(item.timestamp for item in task.gap.parked)])
        return latest

    def _give_receipt(
        self, task: _Task, recovered: int, shortfall: str | None, end: datetime | None = None, *, is_late: bool = False
    ) -> None:
        gap = task.gap
        is_fetched = end is None and task.fetch is not None  # what was fetched, but not delivered, is missing too
        start, end = sorted((gap.starts_at, end or gap.first.timestamp))
        if gap.doubtful_until is not None:
            start = min(start, gap.floor)
        missing = (None, None) if shortfall is None else (start, end)
        if shortfall is not None and is_fetched and task.fetch is not None:
            missing = task.fetch.missing(start, end)
        reason = shortfall or "filled from REST"
        if is_late:
            reason += f", late: live data did not wait for longer than {self._hold_seconds:g} s"
        log.debug("gap in %s from %s to %s: %d recovered: %s", task.topic, start, end, recovered, reason)
        self._tell(
            GapEvent(
                at=self._clock.wall(),
                symbol=task.topic.symbol,
                type=task.topic.data_type,
                start=start,
                end=end,
                recovered=recovered,
                complete=shortfall is None,
                late=is_late,
                missing_start=missing[0],
                missing_end=missing[1],
                reason=reason,
                subscription=self._owner(task.topic),
            )
        )

    def _tell_doubted(self, topic: Topic, item: Any) -> None:
        self._refuse(topic, 1)
        self._tell(
            GapEvent(
                at=self._clock.wall(),
                symbol=topic.symbol,
                type=topic.data_type,
                start=item.timestamp,
                end=item.timestamp,
                recovered=0,
                complete=False,
                missing_start=item.timestamp,
                missing_end=item.timestamp,
                reason="older than all that is remembered, it cannot be told from a repeat, and was not delivered",
            )
        )

    def _tell(self, receipt: GapEvent) -> None:
        from ..models.report import GapTotals

        seconds = 0.0
        if receipt.missing_start is not None and receipt.missing_end is not None:
            seconds = (receipt.missing_end - receipt.missing_start).total_seconds()
        with self._lock:
            before = self._totals.get(receipt.type) or GapTotals(type=receipt.type.value)
            self._totals[receipt.type] = GapTotals(
                type=before.type,
                filled=before.filled + receipt.complete,
                incomplete=before.incomplete + (not receipt.complete),
                recovered=before.recovered + receipt.recovered,
                missing_seconds=before.missing_seconds + seconds,
            )
        self._emit(receipt)

    def _tracker(self, topic: Topic) -> SequenceTracker[Any]:
        tracker = self._trackers.get(topic)
        if tracker is None:
            tracker = self._trackers[topic] = _new_tracker(topic)
        return tracker

    def __repr__(self) -> str:
        with self._lock:
            return f"<GapRepair {len(self._trackers)} topics, {len(self._open)} gaps, {self._workers} workers>"


def _new_tracker(topic: Topic, start: Start | None = None) -> SequenceTracker[Any]:
    return TradeSequenceTracker(start) if topic.data_type is DataType.TRADE else CandleSequenceTracker(start)
