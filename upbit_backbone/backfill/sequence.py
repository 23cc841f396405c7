"""Sequence tracker: what a topic's stream has shown, each trade once, and what is missing when it returns. Pure.

When a topic appears on a new line, its first frames tell whether something may be missing: if the very last item of
the old line comes, nothing is; if an item comes that was never seen, there may be a gap before it. From then on live
items are parked, until what REST gave is merged in and all is delivered in order, or until the owner lets them go: then
the gap is *late*, live items flow, and what REST gives afterwards comes by itself. A tracker is used by one thread at
a time; its owner sees to that.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, NamedTuple, TypeVar

from ..exchange.fields import SHUFFLE
from ..models.enums import StreamType
from ..models.market import CandleData, TradeData

# Puts what REST gave among what the stream gave, in order. Pure.

Item = TypeVar("Item")

Placed = tuple[tuple[datetime, int], Item]


def merge_ordered(missing: Sequence[Placed[Item]], parked: Iterable[Placed[Item]]) -> list[Item]:
    """Each missing item before the first parked one that is later; the parked ones keep the order they came in."""
    merged: list[Item] = []
    position = 0
    for order, item in parked:
        while position < len(missing) and missing[position][0] < order:
            merged.append(missing[position][1])
            position += 1
        merged.append(item)
    merged.extend(item for _, item in missing[position:])
    return merged


# Ids are remembered for so long by exchange time, or so many of them: repeats come within seconds, fills overlap by
# SHUFFLE, and a snapshot repeats the very last trade, which is always among them.
MEMORY = timedelta(seconds=120)
MEMORY_TRADES_AT_LEAST = 64
MEMORY_TRADES_AT_MOST = 100_000  # about 13 MB, and only while one market really trades as fast as that
# An open gap remembers ids of its own range on top, so that live data may go on for an hour while REST is out.
GAP_TRADES_AT_MOST = 100_000
# More gaps of one topic than this, left behind by a line that breaks again and again, become one.
LATE_GAPS_AT_MOST = 32

T = TypeVar("T", TradeData, CandleData)


class ConnectionId(NamedTuple):
    """One connection of one session."""

    session: str
    epoch: int


class Start(NamedTuple):
    """From where on somebody wants what was before the first live item: a moment, or the trade behind `after_id`."""

    moment: datetime
    after_id: int | None = None


@dataclass(eq=False)
class Gap(Generic[T]):
    """What may be missing of one topic, and what came meanwhile.

    `before` is the last item in front of the gap (None where a subscriber gave its `start` instead), `first` the first
    one behind it; everything missing lies from `floor` to `ceiling`. `revision` grows when the line breaks again before
    the gap is filled: what was fetched until then does not reach far enough. `opened_at` is when the line last
    returned, `parked_since` when it did first.

    Of the parked items, the first `given` have been given to whoever does not insist on strict order; once the gap
    `is_released`, every further one is at once. `is_draining` holds while some thread hands parked items out, so that
    nobody else does; `is_filled` from the moment at which what was missing is among them.
    """

    before: T | None
    first: T
    floor: datetime
    ceiling: datetime
    opened_at: float
    parked_since: float
    parked: list[T] = field(default_factory=list)
    given: int = 0
    revision: int = 0
    is_released: bool = False
    is_draining: bool = False
    is_filled: bool = False
    start: Start | None = None
    doubtful_until: datetime | None = None  # up to here, what REST gives cannot be told from what was delivered
    _known: set[int] = field(default_factory=set)

    @property
    def starts_at(self) -> datetime:
        return self.floor if self.before is None else self.before.timestamp

    def take_parked(self) -> tuple[list[T], int]:
        """The parked items, and how many of them were given already."""
        taken = self.parked, self.given
        self.parked, self.given = [], 0
        return taken

    def take_ungiven(self) -> list[T]:
        """Parked items for those who do not insist on order; they stay parked for those who do."""
        given, self.given = self.given, len(self.parked)
        return self.parked[given:]

    def remember(self, identity: int, stamp: datetime) -> None:
        """The tracker forgets this id; if it lies in the gap, REST will show it, and it must not come twice."""
        if not self.floor <= stamp <= self.ceiling:
            return
        if len(self._known) < GAP_TRADES_AT_MOST:
            self._known.add(identity)
        else:
            self.doubt(stamp)

    def doubt(self, stamp: datetime) -> None:
        if stamp >= self.floor and (self.doubtful_until is None or stamp > self.doubtful_until):
            self.doubtful_until = stamp

    def learn(self, other: Gap[T]) -> None:
        """Take over what another gap remembers."""
        self._known |= other._known
        if other.doubtful_until is not None:
            self.doubt(other.doubtful_until)

    def knows(self, identity: int | None) -> bool:
        return identity in self._known

    def is_doubtful(self, stamp: datetime) -> bool:
        return self.doubtful_until is not None and stamp <= self.doubtful_until


class SequenceTracker(ABC, Generic[T]):
    """One topic's stream across connections; with a `start`, what lies before its first item is a gap as well."""

    def __init__(self, start: Start | None = None) -> None:
        self.start = start
        self.gap: Gap[T] | None = None  # the one for which items are parked
        self.late: list[Gap[T]] = []  # those for which nobody waits any more, oldest first
        self.last: T | None = None
        self.duplicates = 0
        self._line: ConnectionId | None = None  # whose items follow each other without a gap
        self._expected: ConnectionId | None = None  # the line on which the topic was last subscribed
        self._is_resubscribed = False  # on the same line, so that a second snapshot is on its way
        self._is_doubted = False  # the latest arrival: perhaps a repeat, perhaps not
        self.is_down = False

    def subscribed(self, line: ConnectionId, now: float) -> None:
        """The topic was (again) subscribed on `line`."""
        self._is_resubscribed = line in (self._line, self._expected)
        self._expected = line
        if self.is_down and self.gap is not None:
            self.gap.opened_at = now
        self.is_down = False

    def interrupted(self, line: ConnectionId) -> None:
        """`line` was lost."""
        self.is_down = self.is_down or line == self._expected

    def arrived(self, item: T, line: ConnectionId, now: float, *, may_open: bool = True) -> Sequence[T]:
        """What to deliver now that `item` has come. With `may_open=False` gaps are passed over: nobody listens."""
        if self._expected is None:
            self._expected = line
        is_new_line = line == self._expected != self._line
        # Upbit replaces the whole subscription with each message and sends snapshots again, also of topics that went on
        # streaming.
        is_second_snapshot = self._is_resubscribed and line == self._line and item.stream_type is StreamType.SNAPSHOT
        if is_second_snapshot:
            self._is_resubscribed = False
        if self._is_repeat(item, is_new_line) or self._is_before_start(item):
            self.duplicates += 1
            # The very last trade of the old line came as this line's snapshot: nothing can be missing between the two.
            if is_new_line and self._is_last(item):
                self._line = line
            return ()
        is_after_break = self.last is not None and (is_new_line or is_second_snapshot)
        is_after_start = self.last is None and self.start is not None
        if is_after_start or (is_after_break and may_open and self._is_gap_before(item)):
            # Before it is remembered as the last: the gap begins at the one before.
            self._open(item, now)
        if is_new_line:
            self._line = line
        self._remember(item)
        gap = self.gap
        if gap is None:
            return (item,)
        # Also where it is given at once: whoever insists on order gets it after what REST brings.
        gap.parked.append(item)
        if not gap.is_released:
            return ()
        gap.given += 1
        return (item,)

    def follows(self, item: T, line: ConnectionId) -> bool:
        """Whether `item` is merely the next one of a line that runs, and delivered now; else `arrived` has to tell."""
        return False

    def take_doubted(self) -> bool:
        """Whether what arrived last was not delivered although nobody can tell that it is a repeat; asked once."""
        doubted, self._is_doubted = self._is_doubted, False
        return doubted

    def fill(self, gap: Gap[T], fetched: Sequence[T]) -> tuple[list[T], list[T], int]:
        """What to deliver, in order, when `fetched` (newest first) is all that REST gave; how many were missing.

        First for those who insisted on strict order, then for the others, who have had some of it. Of a late gap that
        is the missing ones alone. Items stay parked until `resume` finds none any more.
        """
        gap.is_filled = True
        parked, given = gap.take_parked()
        merged, missing = self._merged(fetched, parked, gap)
        had = set(map(id, parked[:given]))  # by identity: equal trades of one id cannot be parked twice
        if gap in self.late:
            self.late.remove(gap)
        return merged, [item for item in merged if id(item) not in had] if had else merged, missing

    def resume(self, gap: Gap[T]) -> list[T]:
        """What was parked while parked items were delivered; when that is nothing, items flow directly again."""
        if self.gap is not gap:
            return []
        parked, _ = gap.take_parked()
        # Only an empty look, under the owner's lock, ends the parking: what came while the rest was handed out would
        # otherwise be overtaken.
        if not parked:
            self.gap = None
        return parked

    def let_go(self, gap: Gap[T]) -> Gap[T]:
        """Nobody waits for `gap` any more: items flow directly again. The late gap that stands for it now."""
        if self.gap is gap:
            self.gap = None
        gap.is_released = True
        # A line that flaps while REST is out for an hour must not make thousands of walks through the same pages.
        if len(self.late) >= LATE_GAPS_AT_MOST:
            return self._absorbed(gap, self.late[-1])
        self.late.append(gap)
        return gap

    def _absorbed(self, gap: Gap[T], by: Gap[T]) -> Gap[T]:
        by.first, by.ceiling = gap.first, max(by.ceiling, gap.ceiling)
        by.opened_at = gap.opened_at
        by.revision += 1
        return by

    @property
    def gaps(self) -> list[Gap[T]]:
        """All that have not been filled, oldest first."""
        gaps = list(self.late)
        if self.gap is not None:
            gaps.append(self.gap)
        return gaps

    def missing(self, fetched: Sequence[T], gap: Gap[T]) -> int:
        """How many of `fetched` would be news."""
        return len(fetched)

    def _open(self, item: T, now: float) -> None:
        gap = self.gap
        last = self.last
        if gap is not None and not gap.is_filled:
            gap.first = item
            gap.ceiling = max(gap.ceiling, self._ceiling(item))
            gap.opened_at = now
            gap.revision += 1
        elif last is not None:
            parked, given = ([], 0) if gap is None else gap.take_parked()
            self.gap = Gap(last, item, self._floor(last), self._ceiling(item), now, now, parked, given)
        elif (start := self.start) is not None:
            self.gap = Gap(None, item, start.moment, self._ceiling(item), now, now, start=start)

    def _is_before_start(self, item: T) -> bool:
        return self.start is not None and item.timestamp < self.start.moment

    @abstractmethod
    def _is_repeat(self, item: T, is_new_line: bool) -> bool:
        """Whether `item` was delivered before, or is too old to tell."""

    @abstractmethod
    def _is_last(self, item: T) -> bool:
        """Whether this repeat shows that nothing came after the last item of the old line."""

    @abstractmethod
    def _is_gap_before(self, item: T) -> bool:
        """Whether something may be missing between the last item of the old line and this first one of the new."""

    @abstractmethod
    def _remember(self, item: T) -> None:
        """`item` is delivered or parked."""

    @abstractmethod
    def _floor(self, last: T) -> datetime:
        """Nothing older can be missing after `last`."""

    @abstractmethod
    def _ceiling(self, item: T) -> datetime:
        """Nothing later can be missing before `item`."""

    @abstractmethod
    def _merged(self, fetched: Sequence[T], parked: Sequence[T], gap: Gap[T]) -> tuple[list[T], int]:
        """What is missing of `fetched` and what is parked, in order; how many were missing."""


class TradeSequenceTracker(SequenceTracker[TradeData]):
    """Trades, told apart by id: unique in a market, but no order. Late ids are delivered as they come.

    Ids are forgotten after a while, and only what may be a repeat is doubted for that: a snapshot, or the beginning of
    a new line, with an unknown id and older than all we remember. It is not delivered, and counted in `too_late`. A
    running line sends everything once, so there an unknown id is news however old it looks.
    """

    def __init__(self, start: Start | None = None) -> None:
        super().__init__(start)
        self.too_late = 0
        self._seen: dict[int, datetime] = {}
        # The ids in order of arrival. A dict has an order, too, but looks for its first key past all that were deleted.
        self._order: deque[int] = deque()
        self._began: TradeData | None = None
        self._forgotten_until: datetime | None = None

    def follows(self, item: TradeData, line: ConnectionId) -> bool:
        is_next = (
            line is self._line
            and not self._is_resubscribed
            and self.gap is None
            and self.start is None
            and item.sequential_id not in self._seen
            and (self._forgotten_until is None or item.timestamp > self._forgotten_until)
        )
        if is_next:
            self._remember(item)
        return is_next

    def _is_repeat(self, item: TradeData, is_new_line: bool) -> bool:
        if item.sequential_id in self._seen or (self.start is not None and item.sequential_id == self.start.after_id):
            return True
        if self._forgotten_until is None or item.timestamp > self._forgotten_until:
            return False
        may_be_repeated = is_new_line or item.stream_type is StreamType.SNAPSHOT
        self.too_late += may_be_repeated
        self._is_doubted = may_be_repeated
        return may_be_repeated

    def _is_last(self, item: TradeData) -> bool:
        # Only a snapshot says "this is the latest": a realtime frame may be one the server sends twice.
        is_the_latest = item.stream_type is not StreamType.REALTIME
        return is_the_latest and self.last is not None and item.sequential_id == self.last.sequential_id

    def _is_gap_before(self, item: TradeData) -> bool:
        return True  # it happened while we were away; others may have, too

    def _remember(self, item: TradeData) -> None:
        self.last = item
        self._began = self._began or item
        identity = item.sequential_id
        if identity is not None:
            self._seen[identity] = item.timestamp
            self._order.append(identity)
        if len(self._order) > MEMORY_TRADES_AT_LEAST:
            self._forget(item.timestamp - MEMORY)

    def _forget(self, limit: datetime) -> None:
        """Let go of ids in order of arrival, as far as `limit` allows; what an open gap needs, the gap keeps."""
        seen, order = self._seen, self._order
        while len(order) > MEMORY_TRADES_AT_LEAST:
            oldest = order[0]
            stamp = seen[oldest]
            if stamp > limit and len(order) <= MEMORY_TRADES_AT_MOST:
                return
            del seen[order.popleft()]
            if self.late or self.gap is not None:
                for gap in self.gaps:
                    gap.remember(oldest, stamp)
            if self._forgotten_until is None or stamp > self._forgotten_until:
                self._forgotten_until = stamp

    def _floor(self, last: TradeData) -> datetime:
        floor = last.timestamp - SHUFFLE
        return floor if self._began is None else max(floor, self._began.timestamp)

    def _ceiling(self, item: TradeData) -> datetime:
        return item.timestamp + SHUFFLE

    def _open(self, item: TradeData, now: float) -> None:
        before = self.gap
        ceiling = None if before is None else before.ceiling
        super()._open(item, now)
        gap, forgotten_until = self.gap, self._forgotten_until
        if gap is None or forgotten_until is None:
            return
        # What a gap has not been there for, or has not reached to until now, it could not remember.
        if gap is not before or ceiling is None or forgotten_until > ceiling:
            gap.doubt(forgotten_until)

    def _absorbed(self, gap: Gap[TradeData], by: Gap[TradeData]) -> Gap[TradeData]:
        # What was delivered between the two lies in the gap now, and some of its ids may be forgotten already.
        if self._forgotten_until is not None and self._forgotten_until > by.ceiling:
            by.doubt(self._forgotten_until)
        by.learn(gap)
        return super()._absorbed(gap, by)

    def missing(self, fetched: Sequence[TradeData], gap: Gap[TradeData]) -> int:
        """How many of `fetched` would be news."""
        return sum(self._is_missing(trade, gap) for trade in fetched)

    def doubtful(self, fetched: Sequence[TradeData], gap: Gap[TradeData]) -> datetime | None:
        """The latest time of what REST gave and nobody can tell from a repeat; None if there is nothing of the kind."""
        in_doubt = (trade.timestamp for trade in fetched if self._is_unknown(trade, gap))
        return max((stamp for stamp in in_doubt if gap.is_doubtful(stamp)), default=None)

    def _merged(
        self, fetched: Sequence[TradeData], parked: Sequence[TradeData], gap: Gap[TradeData]
    ) -> tuple[list[TradeData], int]:
        # Upbit's own order decides between trades of the same millisecond: the further back in the list, the earlier.
        ranks: dict[int | None, int] = {}
        for place, trade in enumerate(fetched):
            # The first place counts: a trade that comes twice in overlapping pages keeps the newer page's order.
            ranks.setdefault(trade.sequential_id, -place)

        def order(trade: TradeData) -> tuple[datetime, int]:
            return trade.timestamp, ranks.get(trade.sequential_id, 1)  # what REST had not yet is later

        missing = {trade.sequential_id: trade for trade in fetched if self._is_missing(trade, gap)}
        if gap.start is None and self._began is not None and self._began.sequential_id in ranks:
            beginning = order(self._began)
            # What was before the first trade of all is nobody's gap: it happened before anybody subscribed.
            missing = {key: trade for key, trade in missing.items() if order(trade) > beginning}
        in_order = sorted(missing.values(), key=order)
        # What was long before the stream comes by nothing but this; a day of it would push the newest ids out.
        oldest = gap.ceiling - MEMORY if gap.start is not None else gap.floor
        for trade in in_order:
            if trade.sequential_id is not None and trade.timestamp >= oldest:
                self._seen[trade.sequential_id] = trade.timestamp
                self._order.append(trade.sequential_id)
        marked = [(order(trade), dataclasses.replace(trade, is_backfilled=True)) for trade in in_order]
        return merge_ordered(marked, [(order(trade), trade) for trade in parked]), len(marked)

    def _is_missing(self, trade: TradeData, gap: Gap[TradeData]) -> bool:
        return self._is_unknown(trade, gap) and not gap.is_doubtful(trade.timestamp)

    def _is_unknown(self, trade: TradeData, gap: Gap[TradeData]) -> bool:
        is_in_range = gap.floor <= trade.timestamp <= gap.ceiling
        return is_in_range and trade.sequential_id not in self._seen and not gap.knows(trade.sequential_id)


class CandleSequenceTracker(SequenceTracker[CandleData]):
    """Candles, told apart by the start of their period: a later frame of the same period corrects the earlier one."""

    def _is_repeat(self, item: CandleData, is_new_line: bool) -> bool:
        # On a running line an older period is a correction; at the start of a new one it is old state replayed.
        return is_new_line and self.last is not None and item.timestamp < self.last.timestamp

    def _is_last(self, item: CandleData) -> bool:
        return False

    def _is_gap_before(self, item: CandleData) -> bool:
        return self.last is not None and item.timestamp > self.last.timestamp

    def _remember(self, item: CandleData) -> None:
        if self.last is None or item.timestamp >= self.last.timestamp:
            self.last = item

    def _floor(self, last: CandleData) -> datetime:
        return last.timestamp  # its last corrections may be missing, too

    def _ceiling(self, item: CandleData) -> datetime:
        return item.timestamp

    def _merged(
        self, fetched: Sequence[CandleData], parked: Sequence[CandleData], gap: Gap[CandleData]
    ) -> tuple[list[CandleData], int]:
        missing = {candle.timestamp: candle for candle in fetched if gap.floor <= candle.timestamp < gap.ceiling}
        corrected = None if gap.before is None else missing.get(gap.before.timestamp)
        # The last candle before the break is asked for again, for its last corrections; without any it is no news.
        if corrected is not None and gap.before is not None and _figures(corrected) == _figures(gap.before):
            del missing[corrected.timestamp]
        # REST's word comes after what the stream said of the same period.
        marked = {start: dataclasses.replace(candle, is_backfilled=True) for start, candle in missing.items()}
        in_order = [((start, 1), marked[start]) for start in sorted(marked)]
        return merge_ordered(in_order, [((candle.timestamp, 0), candle) for candle in parked]), len(in_order)


def _figures(candle: CandleData) -> tuple[Any, ...]:
    return candle.open_price, candle.high_price, candle.low_price, candle.close_price, candle.volume
