"""Buffer: what waits for one consumer, and what gives way when too much does. Pure; its mailbox holds the lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .._log import LogThrottle
from ..models.enums import DataType, Overflow
from ..models.lazy_book import Envelope
from ..models.request import Topic

# Under BLOCK so many items are parked on top of the bound before any is refused: 45 MB of trades. BLOCK must not block
# the stream, but a consumer that pauses for a few seconds shall not lose anything either, however small its bound.
PARKED_ITEMS = 40_000

EVERY_TYPE = frozenset(DataType)
STATE_TYPES = EVERY_TYPE - {DataType.TRADE}


def conflated_types(overflow: Overflow | None) -> frozenset[DataType]:
    """Of which types only the latest waits; None stands for each type's own default: all but trades."""
    if overflow is None:
        return STATE_TYPES
    return EVERY_TYPE if overflow is Overflow.CONFLATE else frozenset()


class Buffer:
    """Deliveries in order of arrival, at most `capacity` of them.

    Of conflated types the latest per topic waits, at the place of the first, so that no busy market pushes a quiet one
    back. `put` returns how many items were lost to the bound; `conflated` counts those that newer ones replaced. What
    is put `ahead` is read first, whole, and outside the bound.
    """

    __slots__ = (
        "_conflates",
        "_drops_oldest",
        "_latest",
        "_order",
        "ahead",
        "bound",
        "capacity",
        "conflated",
        "queued",
    )

    def __init__(self, overflow: Overflow | None, bound: int, parking: int = PARKED_ITEMS) -> None:
        self.bound = bound
        self.capacity = bound + parking if overflow is Overflow.BLOCK else bound
        self._drops_oldest = overflow not in (Overflow.BLOCK, Overflow.ERROR)
        self._conflates = conflated_types(overflow)
        self._order: deque[Envelope | Topic] = deque()  # a topic stands for its entry in _latest
        self.queued: Callable[[], int] = self._order.__len__  # how many the bound is about
        self._latest: dict[Topic, Envelope] = {}
        self.ahead: deque[Envelope] = deque()
        self.conflated = 0

    def put(self, deliveries: Sequence[Envelope]) -> int:
        order = self._order
        if not self._conflates:
            order.extend(deliveries)
        else:
            latest = self._latest
            conflates = self._conflates
            for delivery in deliveries:
                topic = delivery[0]
                if topic.data_type not in conflates:
                    order.append(delivery)
                elif topic in latest:
                    latest[topic] = delivery
                    self.conflated += 1
                else:
                    latest[topic] = delivery
                    order.append(topic)
        return self._shrink() if len(order) > self.capacity else 0

    def put_late(self, deliveries: Sequence[Envelope]) -> int:
        """As `put`, for what is older than items delivered before: of conflated types it never replaces these."""
        # What waits already is newer: replaced by it, a chart would show an older state after a newer one.
        fresh = [delivery for delivery in deliveries if delivery[0] not in self._latest]
        self.conflated += len(deliveries) - len(fresh)
        return self.put(fresh)

    def put_ahead(self, deliveries: Iterable[Envelope]) -> None:
        """History, before all that the stream brought: nothing of it gives way to newer items."""
        self.ahead.extend(deliveries)

    def put_first(self, deliveries: Iterable[Envelope]) -> None:
        """Before everything that waits, in the given order; for topics of which nothing waits."""
        for delivery in reversed(list(deliveries)):
            topic = delivery[0]
            if topic.data_type in self._conflates:
                self._latest[topic] = delivery
                self._order.appendleft(topic)
            else:
                self._order.appendleft(delivery)

    def _shrink(self) -> int:
        excess = len(self._order) - self.capacity
        for _ in range(excess):
            if self._drops_oldest:
                head = self._order.popleft()
                if isinstance(head, Topic):
                    del self._latest[head]
            else:
                self._order.pop()  # BLOCK and ERROR conflate nothing, so the newest is no topic
        return excess

    def pop(self) -> Envelope | None:
        """The next; None where nothing waits."""
        if self.ahead:
            return self.ahead.popleft()
        if not self._order:
            return None
        head = self._order.popleft()
        return self._latest.pop(head) if type(head) is Topic else head  # type: ignore[return-value]

    def pop_many(self, limit: int | None) -> list[Envelope]:
        """The next ones, at most so many, or all."""
        if limit is not None and limit < len(self):
            return [delivery for _ in range(limit) if (delivery := self.pop()) is not None]
        waiting: list[Any] = [*self._order]
        if self.ahead or self._latest:
            latest = self._latest
            waiting = [*self.ahead, *(latest[entry] if type(entry) is Topic else entry for entry in waiting)]
            self.ahead.clear()
            self._order.clear()
            latest.clear()
        else:
            self._order.clear()
        return waiting

    def oldest_arrival(self) -> float | None:
        """Monotonic time at which the next item came; None where nothing waits."""
        if self.ahead:
            return self.ahead[0][2]
        if not self._order:
            return None
        # By its latest item, which is what will be read: a conflated topic that waited long holds nothing that old.
        head = self._order[0]
        return (self._latest[head] if isinstance(head, Topic) else head)[2]

    def topics(self) -> set[Topic]:
        """Topics of which something waits."""
        return {entry if isinstance(entry, Topic) else entry[0] for entry in self._order}

    def clear(self) -> int:
        """Throw everything away; how many items that were."""
        count = len(self)
        self._order.clear()
        self._latest.clear()
        self.ahead.clear()
        return count

    def __len__(self) -> int:
        return len(self._order) + len(self.ahead)


# Backpressure reports: what there is to say about a consumer that does not keep up, often enough to be noticed, seldom
# enough to be read.

SLOW_CALLBACK_SECONDS = 5.0
UNREAD_SECONDS = 60.0  # nobody who means to read lets it wait so long; a forgotten loop or notebook cell does


class BackpressureReporter:
    """Losses, parking and slow callbacks of one subscription; each is told sparingly."""

    def __init__(self) -> None:
        self.lost = 0
        self.busy_since: float | None = None  # monotonic time at which the callback under way was called
        self._losses = LogThrottle()
        self._has_told_of_slowness = False
        self.is_parking = False
        self.unread_since: float | None = None  # when the first item came after the last that was read
        self._has_told_unread = False

    def begin_turn(self, now: float) -> None:
        self.busy_since = now
        self._has_told_of_slowness = False

    def end_turn(self) -> None:
        """One assignment, so that no lock is needed for it."""
        self.busy_since = None

    def parked(self, waiting: int, bound: int) -> None:
        """So many wait now; parking is over once half the bound has been read."""
        # Half and not the bound itself, or a consumer at the edge would be told of again with every item.
        self.is_parking = waiting > bound // 2

    def about(self, lost: int, waiting: int, bound: int, capacity: int, now: float) -> str | None:
        """What to report now that `lost` more found no room and `waiting` wait; None if it is not time to."""
        self.lost += lost
        if lost and self._losses.is_due(self.lost, now):
            return f"more than {capacity} items waited"
        if waiting > bound and not self.is_parking:
            self.is_parking = True
            return f"more than {bound} items wait; parking up to {capacity}"
        if self.busy_since is None and self.unread_since is not None and not self._has_told_unread:
            unread = now - self.unread_since
            if unread > UNREAD_SECONDS:
                self._has_told_unread = True
                return f"nobody has read it for {unread:.0f} s and {waiting} items wait; close() what is not needed"
        # Looked at once: a turn may end meanwhile.
        if (busy_since := self.busy_since) is not None and not self._has_told_of_slowness:
            busy = now - busy_since
            if busy > SLOW_CALLBACK_SECONDS:
                self._has_told_of_slowness = True
                return f"the callback has been busy for {busy:.1f} s and {waiting} items wait"
        return None
