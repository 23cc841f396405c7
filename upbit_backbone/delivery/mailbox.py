"""Mailbox: a subscription's own bounded queue, a real `queue.Queue` that only its slow consumer ever feels."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .._concurrency import Deadline, EventCount, ForkGuard
from ..errors import ClosedError, RequestTimeoutError, SubscriptionError, UpbitBackboneError
from ..models.enums import DataType, Overflow
from ..models.lazy_book import Datum, Envelope, LazyBook, StoredItem
from ..models.market import CandleData, OrderbookData, TickerData, TradeData
from ..models.request import Topic
from .buffers import PARKED_ITEMS, UNREAD_SECONDS, BackpressureReporter, Buffer
from .position import Mark

if sys.version_info >= (3, 13):
    _SHUT_DOWN: tuple[type[Exception], ...] = (ClosedError, queue.ShutDown)
else:
    _SHUT_DOWN = (ClosedError,)


class NothingArrivedError(RequestTimeoutError, queue.Empty):
    """Nothing came by the deadline: our timeout and `queue.Empty` in one."""


# Also queue.ShutDown where Python has it (3.13 on), so that code written for either catches it.
MailboxClosedError: type[ClosedError] = type(
    "MailboxClosedError", _SHUT_DOWN, {"__doc__": "The subscription was closed.", "__module__": __name__}
)

# What every consumer is given as it came; a book may have to be read first, or be cut.
_AS_THEY_ARE = frozenset((TickerData, TradeData, CandleData))

Report = Callable[[str, int], None]
NEVER = Deadline(None)


class Mailbox(queue.Queue[Any]):
    """A `queue.Queue` that the stream fills and that never makes the stream wait.

    `get` behaves as `queue.Queue.get` does: it raises `queue.Empty` when nothing came in time. Once the subscription
    is closed, every waiting and every later `get` raises ClosedError at once (which is `queue.ShutDown` too, from
    Python 3.13 on, never `queue.Empty`: a polling loop must notice the end); what still waited is dropped and counted.
    A subscription that ends by `Overflow.ERROR` first gives what came before the loss, then raises SubscriptionError;
    one to a market that turns out not to exist raises UnknownSymbolError.

    At any moment `received == delivered + dropped + qsize()`. Dropped are: items replaced by newer ones, lost to the
    bound or to closing, and order books that turned out unreadable.
    """

    def __init__(
        self,
        overflow: Overflow | None,
        maxsize: int,
        *,
        levels: int | None = None,
        is_strict: bool = False,
        name: str = "",
        parking: int = PARKED_ITEMS,
        report: Report | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # A queue.Queue by its methods; nothing of its insides is used. An exception in the middle of one of its
        # conditions (Ctrl-C) would leave its lock held, and the stream waiting for it; and gevent's has other insides.
        super().__init__(maxsize)
        self.name = name  # of the subscription
        self._mutex = threading.Lock()  # guards all that follows
        self._guard = ForkGuard("this subscription")
        self.overflow = overflow
        self.received = 0
        self.delivered = 0
        self.dropped = 0
        self.is_strict = is_strict  # about order: waits for what a break has cost, rather than get it late
        self._levels = levels
        self._report = report
        self._clock = clock
        self._buffer = Buffer(overflow, maxsize, parking)
        self._queued = self._buffer.queued
        self._seeds: dict[Topic, StoredItem] = {}
        self._last: dict[object, TradeData | CandleData] = {}  # that was given to the subscriber, of each with a past
        self._closed = False
        self._ended = False
        self._failure: UpbitBackboneError | None = None  # what ended it, other than `close` and the end of its source
        self._unfinished = 0  # items that `task_done` has not been called for
        self._reporter = BackpressureReporter()
        self._arrivals = EventCount()
        self._idle = EventCount()
        self._tasks_done = EventCount()
        self.owner: object = None  # what lives as long as somebody holds this queue

    # The stream's side: never waits

    def put_many(self, deliveries: Sequence[Envelope], *, is_late: bool = False) -> None:
        """Enter all items of one read under one lock and one notify. Nothing happens once it is closed.

        With `is_late`, newer items of these topics were entered before.
        """
        with self._mutex:
            # Asked under the lock, so that nothing gets in after `close` has counted what was left.
            if self._closed or self._ended or self._failure is not None:
                self._clear_if_closed()
                return
            count = len(deliveries)
            self.received += count
            if self._seeds:
                deliveries = self._news(deliveries)
            buffer = self._buffer
            before = buffer.queued()
            lost = buffer.put_late(deliveries) if is_late else buffer.put(deliveries)
            waiting = buffer.queued()
            gain = waiting - before
            if gain != count:
                self.dropped += count - gain
            self._unfinished += gain
            news = None
            now, reporter = deliveries[-1][2] if deliveries else self._clock(), self._reporter
            unread_since = reporter.unread_since
            if unread_since is None:
                reporter.unread_since = unread_since = now
            if lost or now - unread_since > UNREAD_SECONDS or reporter.busy_since is not None or waiting > buffer.bound:
                news = self._trouble(lost, now)
        if gain > 0 and self._arrivals.waiting:
            # After the lock: whoever is woken takes it first thing.
            self._arrivals.notify(gain)
        if news is not None and self._report is not None:
            # After the lock, too: a report ends in listeners' mailboxes, and two locks are never held at a time.
            self._report(*news)

    def put_ahead(self, deliveries: Sequence[Envelope]) -> None:
        """Enter history, to be read before all that waits; none of it gives way to newer items."""
        with self._mutex:
            if self._closed or self._ended or self._failure is not None:
                return
            self.received += len(deliveries)
            self._unfinished += len(deliveries)
            self._buffer.put_ahead(deliveries)
        self._arrivals.notify_all()

    def refuse(self, count: int) -> None:
        """So many items came that cannot be delivered: they count as received and lost."""
        with self._mutex:
            if self._closed or self._ended or self._failure is not None:
                return
            self.received += count
            self.dropped += count
            self._reporter.lost += count

    def _trouble(self, lost: int, now: float) -> tuple[str, int] | None:
        """What to report about a consumer that does not keep up, if it is time to."""
        buffer, reporter = self._buffer, self._reporter
        if lost and self.overflow is Overflow.ERROR:
            reporter.lost += lost
            # What waits stays readable: items from before the loss are in order and whole.
            why = f"more than {self._buffer.bound} items waited (overflow=ERROR)"
            self._failure = SubscriptionError(f"the subscription ended: {why}; read faster or choose another overflow=")
            self._arrivals.notify_all()
            return why, reporter.lost
        reason = reporter.about(lost, len(buffer), buffer.bound, buffer.capacity, now)
        return None if reason is None else (reason, reporter.lost)

    def seed(self, deliveries: Iterable[Envelope]) -> None:
        """The current values for a subscription that has just been entered in the hub, before what came since.

        A value still on its way through the hub would arrive a second time: it comes with the next batch of its topic
        or never, so that batch is looked through once.
        """
        with self._mutex:
            if self._closed:
                return
            # What came between entering and now is newer than the current value that was read in between.
            arrived = self._buffer.topics()
            fresh = _not_of(arrived, deliveries)
            self._buffer.put_first(fresh)
            self._seeds = {topic: stored for topic, stored, _ in fresh}
            self.received += len(fresh)
            self._unfinished += len(fresh)
        self._arrivals.notify_all()

    def _news(self, deliveries: Sequence[Envelope]) -> list[Envelope]:
        """`deliveries` without what the seeds already gave, or have overtaken."""
        stale: set[int] = set()
        met = {delivery[0] for delivery in deliveries} & self._seeds.keys()
        for topic in met:
            seed = self._seeds.pop(topic)
            places = [place for place, delivery in enumerate(deliveries) if delivery[0] == topic]
            for index, place in enumerate(places):
                # By identity: an equal trade may be another one, but the very object can only be the seed on its second
                # way.
                if deliveries[place][1] is seed:
                    stale.update(places[: index + 1])
        return [delivery for place, delivery in enumerate(deliveries) if place not in stale]

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """A mailbox is filled by the stream alone."""
        raise TypeError("a subscription's queue is filled by its stream; hand in a queue of your own with queue=")

    # The consumer's side

    def get(self, block: bool = True, timeout: float | None = None) -> Datum:
        """The next item. `queue.Empty` when nothing came in time, ClosedError once closed; Ctrl-C gets through."""
        if timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        if not self._guard.mark[0]:
            self._guard.check()
        deadline: Deadline | None = None
        while True:
            delivery = None
            # Looked at before the lock is taken: who waits for each message of a quiet stream finds nothing every time.
            if self._queued() or self._has_news():
                with self._mutex:
                    if not self._closed:
                        delivery = self._take()
                    if delivery is None:
                        self._check_open()
            if delivery is not None:
                if type(item := delivery[1]) in _AS_THEY_ARE:
                    return item  # type: ignore[return-value]  # no book that is still to be read
                if (presented := self._present(item)) is not None:
                    return presented
                continue
            if deadline is None:
                deadline = NEVER if block and timeout is None else Deadline.after(timeout if block else 0.0)
            if deadline.expired:
                raise NothingArrivedError("nothing arrived on the subscription by the deadline")
            # Nothing is held while waiting. Of several readers who are woken one finds it empty again, hence the loop.
            self._arrivals.wait_once(self._has_news, deadline)

    def put_nowait(self, item: Any) -> None:
        """As `put`."""
        self.put(item)

    def get_nowait(self) -> Datum:
        return self.get(block=False)

    def drain(self, limit: int | None = None) -> list[Datum]:
        """Everything that waits now, at most `limit` items, in one go and without waiting. ClosedError once closed."""
        self._guard.check()
        with self._mutex:
            # Taken under the lock, decoded outside it: a book costs some 40 µs, and the stream must not wait for a
            # hundred of them.
            is_closed = self._closed
            deliveries = [] if is_closed else self._take_many(limit)
            if is_closed or (not deliveries and not self._buffer):
                self._check_open()
        return [
            item  # type: ignore[misc]  # no book that is still to be read: see `_present`
            for _, stored, _ in deliveries
            if (item := stored if type(stored) in _AS_THEY_ARE else self._present(stored)) is not None
        ]

    def _take(self) -> Envelope | None:
        """The next item, which counts as delivered; None where nothing waits. With the lock held."""
        delivery = self._buffer.pop()
        if delivery is None:
            return None
        self.delivered += 1
        reporter = self._reporter
        reporter.unread_since = None
        if reporter.is_parking:
            reporter.parked(len(self._buffer) + 1, self._buffer.bound)
        item = delivery[1]
        if type(item) is TradeData:  # on every trade's way: by market and not by topic, whose hash costs more than that
            if item.is_backfilled:
                self._note(item.symbol, item)
            else:
                self._last[item.symbol] = item
        elif type(item) is CandleData:
            self._note((item.symbol, item.timeframe), item)
        return delivery

    def _take_many(self, limit: int | None) -> list[Envelope]:
        """As so many times `_take`, or until nothing waits, in a third of the time. With the lock held."""
        deliveries, last = self._buffer.pop_many(limit), self._last
        if not deliveries:
            return deliveries
        self.delivered += len(deliveries)
        reporter = self._reporter
        reporter.unread_since = None
        if reporter.is_parking:
            reporter.parked(len(self._buffer) + 1, self._buffer.bound)
        for _, item, _ in deliveries:
            if type(item) is TradeData:
                if item.is_backfilled:
                    self._note(item.symbol, item)
                else:
                    last[item.symbol] = item
            elif type(item) is CandleData:
                self._note((item.symbol, item.timeframe), item)
        return deliveries

    def _note(self, key: object, item: TradeData | CandleData) -> None:
        """It is the last of its topic that the subscriber was given, unless it comes late."""
        if item.is_backfilled and (known := self._last.get(key)) is not None and known.timestamp > item.timestamp:
            return
        self._last[key] = item

    def marks(self) -> dict[Topic, Mark]:
        """How far the subscriber has come in each topic that has a past."""
        with self._mutex:
            last = list(self._last.values())
        return {_topic_of(item): Mark.of(item) for item in last}

    def wait_news(self, deadline: Deadline) -> bool:
        """Wait until something can be read, or it is over; False at the deadline."""
        self._guard.check()
        return self._arrivals.wait_for(self._has_news, deadline)

    def take_back(self, count: int) -> None:
        """So many items that were delivered were thrown away again before anybody saw them."""
        with self._mutex:
            self.delivered -= count
            self.dropped += count

    def _has_news(self) -> object:
        """Whether something waits, or it is over. Looked at without the lock: each is one read."""
        # As a rule, once somebody was woken, the first says it.
        return self._queued() or self._buffer.ahead or self._closed or self._ended or self._failure

    def _check_open(self) -> None:
        if self._closed:
            self._clear_if_closed()
            raise MailboxClosedError("the subscription is closed")
        if self._ended:
            raise MailboxClosedError("the stream is over and everything was read")
        if self._failure is not None:
            raise copy.copy(self._failure)  # one for each reader: a traceback is that of who raised it last

    def _present(self, stored: StoredItem) -> Datum | None:
        """The item as its consumer asked for it; None, counted as dropped, where it is a book nobody can read."""
        item = stored.read() if isinstance(stored, LazyBook) else stored
        if item is None:
            with self._mutex:
                self.delivered -= 1
                self.dropped += 1
                self._done(1)
        elif self._levels is not None and isinstance(item, OrderbookData):
            return _trimmed(item, self._levels)
        return item

    # Turns: how a consumer's thread makes closing wait for the callback under way

    def begin_turn(self) -> Datum | None:
        """The next item for a callback; None once closed. SubscriptionError where Overflow.ERROR ended it.

        From here to `end_turn` the mailbox counts as busy; no turn begins after `close`.
        """
        while True:
            if not self._queued() and not self._has_news():  # looked at without the lock, as `get` does
                self._arrivals.wait_once(self._has_news, NEVER)
                continue
            with self._mutex:
                if self._closed or (self._ended and not self._buffer):
                    return None
                delivery = self._take()
                if delivery is not None:
                    # Under the lock that took it out, so that `close` finds it waiting or busy, and at no moment in
                    # between.
                    self._reporter.begin_turn(self._clock())
                else:
                    self._check_open()
            if delivery is None:
                continue
            if type(item := delivery[1]) in _AS_THEY_ARE:
                return item  # type: ignore[return-value]  # no book that is still to be read
            if (presented := self._present(item)) is not None:
                return presented
            self.end_turn()

    def end_turn(self) -> None:
        """The callback has come back."""
        # Without the lock: that nothing is under way any more is one assignment, and who waits for it looks again.
        self._reporter.end_turn()
        if self._idle.waiting:
            self._idle.notify_all()

    def wait_idle(self, deadline: Deadline) -> bool:
        """Wait until no turn is under way; False at the deadline."""
        return self._idle.wait_for(lambda: self._reporter.busy_since is None, deadline)

    def wait_empty(self, deadline: Deadline) -> bool:
        """Wait until everything was handed to the callback and it is done; False at the deadline."""

        def is_empty() -> bool:
            with self._mutex:  # an item is in the buffer or at the callback, at no moment in between
                return not self._buffer and self._reporter.busy_since is None

        return self._idle.wait_for(is_empty, deadline)

    # Closing

    def end(self) -> None:
        """Nothing more comes, because the source is over: what waits can still be read, then it counts as closed."""
        with self._mutex:
            self._ended = True
        self._arrivals.notify_all()

    def fail(self, error: UpbitBackboneError) -> None:
        """Nothing more comes: what waits can still be read, then every read raises `error`."""
        with self._mutex:
            if self._failure is None:
                self._failure = error
        self._arrivals.notify_all()

    def close(self) -> None:
        """Wake every getter; what still waits is dropped. Idempotent, from any thread."""
        if self._guard.is_foreign:
            return
        self.begin_close()
        with self._mutex:
            self._clear_if_closed()

    def begin_close(self) -> None:
        """What takes no lock of `close`: from now on it counts as closed, and every getter is woken.

        What still waits is dropped by whoever has the lock next. For finalizers and signal handlers.
        """
        # One assignment without the lock: a finalizer may run on the very thread that holds it.
        self._closed = True
        self._arrivals.notify_all()
        self._tasks_done.notify_all()

    def _clear_if_closed(self) -> None:
        if self._closed and (self._buffer or self._seeds):
            dropped = self._buffer.clear()
            self.dropped += dropped
            self._seeds.clear()
            self._done(dropped)

    def shutdown(self, immediate: bool = False) -> None:
        """As `close`, under the name Python 3.13 gave it; what waits is dropped either way."""
        self.close()

    @property
    def lost(self) -> int:
        """Items dropped because there was no room, as opposed to replaced by newer ones."""
        return self._reporter.lost

    @property
    def is_foreign(self) -> bool:
        """In a forked child: nothing comes, and nobody will ever release the locks."""
        return self._guard.is_foreign

    @property
    def closed(self) -> bool:
        """Whether nothing more can come."""
        is_over = self._ended or self._failure is not None
        return self._closed or self.is_foreign or (is_over and not self._buffer)

    @property
    def closed_by_user(self) -> bool:
        """Whether `close` was called: nothing may be delivered any more, not even what was already taken out."""
        return self._closed

    @property
    def failed(self) -> bool:
        """Whether an error ended it: Overflow.ERROR, or a market that does not exist."""
        return self._failure is not None

    def join(self) -> None:
        """Until every item was marked by `task_done`, or the subscription is closed."""
        self._guard.check()
        self._tasks_done.wait_for(lambda: self._closed or not self._unfinished, Deadline(None))

    def task_done(self) -> None:
        """As `queue.Queue.task_done`."""
        with self._mutex:
            if self._unfinished <= 0:
                raise ValueError("task_done() called too many times")
            self._done(1)

    def _done(self, count: int) -> None:
        self._unfinished -= count
        if self._unfinished <= 0:
            self._tasks_done.notify_all()

    # Figures

    def qsize(self) -> int:
        """How many items wait."""
        return len(self._buffer)  # one look, which needs no lock

    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._buffer

    def full(self) -> bool:
        """Whether as many items wait as were asked for with `maxsize=`."""
        return len(self._buffer) >= self._buffer.bound

    def counts(self) -> tuple[int, int, int, int]:
        """received, delivered, dropped, pending: taken at one moment, so that the sum is right."""
        with contextlib.nullcontext() if self.is_foreign else self._mutex:
            self._clear_if_closed()
            # All four under one lock, because their sum is a promise.
            return self.received, self.delivered, self.dropped, len(self._buffer)

    @property
    def lag(self) -> float:
        """Seconds the next item has been waiting; 0.0 when nothing waits."""
        with contextlib.nullcontext() if self.is_foreign else self._mutex:
            arrival = self._buffer.oldest_arrival()
        return 0.0 if arrival is None else max(0.0, self._clock() - arrival)

    def now(self) -> float:
        """Monotonic time by the mailbox's clock."""
        return self._clock()

    def __repr__(self) -> str:
        received, delivered, dropped, pending = self.counts()
        state = "closed" if self.closed else "open"
        return f"<Mailbox {state} {received} received, {delivered} delivered, {dropped} dropped, {pending} pending>"


def _not_of(topics: set[Topic], deliveries: Iterable[Envelope]) -> list[Envelope]:
    return [delivery for delivery in deliveries if delivery[0] not in topics]


def _trimmed(book: OrderbookData, levels: int) -> OrderbookData:
    if len(book.asks) <= levels and len(book.bids) <= levels:
        return book
    return dataclasses.replace(book, asks=book.asks[:levels], bids=book.bids[:levels])


def _topic_of(item: TradeData | CandleData) -> Topic:
    kind = DataType.TRADE if isinstance(item, TradeData) else DataType(item.timeframe)
    return Topic(kind, item.symbol)
