"""Live store: the newest value of every live topic, read in well under a microsecond and without a lock.

Each topic has one writer, the thread of the session that streams it; entries are replaced whole, so a reader sees
the old one or the new one and nothing in between. What REST answered is kept beside it, never as live: it serves as
last known value, and as umpire where the stream is in doubt.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from datetime import datetime
from decimal import Decimal
from math import inf
from typing import Any

from msgspec import Struct

from .._concurrency import SYSTEM_CLOCK, Clock, Deadline, EventCount, wall_seconds
from ..errors import ClosedError
from ..exchange.timeframes import timeframe_of
from ..models.enums import DataSource, DataType, RequestKind
from ..models.lazy_book import Datum, LazyBook, StoredItem, decoded
from ..models.market import Instrument, MarketInfo, OrderbookData, TickerData, TradeData
from ..models.request import ZERO, Topic
from ..models.session import SessionHealth
from .exchange_clock import ExchangeClock
from .freshness import REST_TOLERANCE, Verdict, is_current, judge, why_not_current

MAX_REMEMBERED = 20_000

# State can be doubted; of trades and candles several are true at once, so an older one proves nothing.
STATE_TYPES = frozenset({DataType.TICKER, DataType.ORDERBOOK})

_DATA_TYPE_OF_KIND = {
    RequestKind.TICKER: DataType.TICKER,
    RequestKind.ORDERBOOK: DataType.ORDERBOOK,
    RequestKind.TRADES: DataType.TRADE,
}


class Entry(Struct, eq=False):
    """One live value. Never changed but for `proven`, which only ever says less or more about this very value.

    `moved_at` is when the market last moved, by Upbit's clock, and `news_at` when we last heard of that (monotonic): a
    frame that comes again, or a new stamp on an old trade, is another entry but no news.
    """

    # A Struct, because one is made for each message: a class with an `__init__` costs four times as much.
    topic: Topic
    item: StoredItem
    health: SessionHealth
    epoch: int
    monotonic: float
    stamp: datetime
    moved_at: datetime
    peak: datetime
    news_at: float
    follows: bool = True  # another one of the same connection
    asked_at: float = -inf  # when the subscription was sent that it is of (monotonic)
    proven: bool = True
    is_foreign: bool = False  # of an earlier subscription
    late_by: float = 0.0

    def __repr__(self) -> str:
        return f"<Entry {self.stamp.isoformat()} epoch {self.epoch}{'' if self.proven else ' unproven'}>"


class LiveStore:
    """What the streams last said and what REST last answered.

    `put` and `forget` belong to the session's thread; everything else may be called from anywhere.
    """

    def __init__(
        self,
        liveness_seconds: float,
        *,
        clock: Clock = SYSTEM_CLOCK,
        exchange_clock: ExchangeClock | None = None,
        max_remembered: int = MAX_REMEMBERED,
    ) -> None:
        self._liveness = liveness_seconds
        self._exchange_clock = exchange_clock
        self._wall_seconds = wall_seconds(clock)
        self._entries: dict[Topic, Entry] = {}
        self._max_remembered = max_remembered
        self._lock = threading.Lock()  # guards _remembered
        self._remembered: dict[tuple[object, ...], StoredItem] = {}
        self._arrival = EventCount()
        self._waited_for: list[Topic] = []  # once for each who waits; writers tell only while somebody does
        self._closed = False

    # Writing

    def put(
        self,
        topic: Topic,
        item: StoredItem,
        health: SessionHealth,
        epoch: int,
        monotonic: float,
        late_before: datetime | None = None,
        subscribed_at: float = -inf,
        is_foreign: bool = False,
    ) -> bool:
        """Keep `item` as the topic's newest value; False if it is older than what is held.

        News stamped before `late_before` came too late to be called current. A topic's first frame since the session's
        latest subscription, sent at `subscribed_at`, may be a snapshot and that old: its market was quiet, and whether
        the line is late its session knows. What `is_foreign` is of an earlier subscription, between which and the
        present one the topic was not streamed: news perhaps, but not what the market shows.
        """
        known = self._entries.get(topic)
        stamp: datetime = item.timestamp
        moved_at = (item.trade_timestamp or stamp) if type(item) is TickerData else stamp
        # Nearly every message: no older, on the same line, in time, nothing in doubt. Judged inline, because this runs
        # for each one; a busy market stamps many alike, so those that are no news must not fall into the long way.
        is_later = known is not None and stamp > known.stamp and moved_at > known.moved_at
        if (
            known is not None
            and (is_later or (stamp >= known.stamp and moved_at >= known.moved_at))
            and known.proven
            and known.epoch == epoch
            and known.health is health
            and (late_before is None or stamp >= late_before)
        ):
            follows = known.monotonic >= subscribed_at
            entry = Entry(
                topic, item, health, epoch, monotonic, stamp, moved_at, stamp, monotonic, follows, known.asked_at
            )
            if not is_later and not _is_news(entry, known):
                entry.news_at = known.news_at
        else:
            entry = Entry(topic, item, health, epoch, monotonic, stamp, moved_at, stamp, monotonic)
            if not self._admits(entry, known, late_before, subscribed_at):
                return False
            if is_foreign:
                entry.late_by, entry.proven, entry.is_foreign = monotonic - subscribed_at, False, True
        # Not for what was said again: a server that repeats its last frame for ever looked alive.
        if entry.news_at == monotonic:
            health.news_at = monotonic
        # One assignment: a reader without a lock sees the old entry or the new one, complete.
        self._entries[topic] = entry
        # After the assignment, so that whoever is woken finds it; and only while somebody waits, which is nearly never.
        if self._waited_for and topic in self._waited_for:
            self._arrival.notify_all()
        return True

    def _admits(self, entry: Entry, known: Entry | None, late_before: datetime | None, subscribed_at: float) -> bool:
        """Whether `entry` may replace `known`; it then says what there is to say against it."""
        if known is not None and entry.stamp < known.stamp and decoded(known.item) is None:
            known = None  # a broken book is no evidence that this one is old
        is_same_line = known is not None and known.health is entry.health and known.epoch == entry.epoch
        # A quiet market's ticker is stamped anew by each line that shows it, and by REST: a stamp is not a trade.
        is_agreed = known is not None and not is_same_line and _is_same_trade(entry.item, known.item)
        verdict = self._judge(entry, known, is_agreed)
        if verdict is Verdict.DOUBT and known is not None:
            # In place, on the entry that readers hold: until the stream or REST has spoken nothing is called current.
            known.proven = False
        if verdict is Verdict.DOUBT or verdict is Verdict.REFUSE:
            return False
        entry.proven, entry.asked_at = verdict is Verdict.TAKE, subscribed_at
        if known is not None and known.is_foreign:
            # What is held against it is not held against the first one of the present subscription.
            is_same_line = False
        entry.follows = is_same_line and known is not None and known.monotonic >= subscribed_at
        if entry.follows and known is not None:
            entry.asked_at = known.asked_at
        if known is None:
            return True
        # The other line's stamps are no measure for this one, once both have named the same trade.
        entry.peak = entry.stamp if is_agreed else max(known.peak, entry.stamp)
        if is_same_line and not _is_news(entry, known):
            # The same said again: it is as late as it was the first time, however fresh its stamp.
            entry.news_at, entry.late_by = known.news_at, known.late_by
            entry.proven = entry.proven and not entry.late_by
        elif entry.follows and late_before is not None and entry.stamp < late_before:
            entry.late_by = (late_before - entry.stamp).total_seconds() + entry.health.max_lag
            entry.proven = False
        return True

    def _judge(self, entry: Entry, known: Entry | None, is_agreed: bool) -> Verdict:
        topic, stamp, health, epoch, monotonic = entry.topic, entry.stamp, entry.health, entry.epoch, entry.monotonic
        if topic.data_type not in STATE_TYPES:
            return Verdict.REFUSE if known is not None and stamp < known.stamp else Verdict.TAKE
        # A ticker whose trade's time could not be read does not tell when that was: with its stamp in place of it,
        # every further one of a quiet market was refused.
        is_told = known is not None and not _is_untimed(known.item)
        if known is not None and is_told and entry.moved_at < known.moved_at - REST_TOLERANCE:
            stamp = min(stamp, entry.moved_at)  # a fresh stamp does not make an earlier trade the last one
        if known is not None and is_agreed:
            stamp = max(stamp, known.stamp)
        remembered = self._remembered.get(topic)
        rest_stamp = None if remembered is None or not _is_rest(remembered) else remembered.timestamp
        if rest_stamp is not None and remembered is not None and _is_same_trade(entry.item, remembered):
            rest_stamp = stamp
        if rest_stamp is not None and stamp >= rest_stamp - REST_TOLERANCE and _came_before(remembered, known):
            rest_stamp = None  # REST spoke before the value in question: that confirms nothing
        return judge(stamp, health, epoch, monotonic, known, rest_stamp)

    def forget(self, topic: Topic, health: SessionHealth | None = None) -> None:
        """The topic is not streamed any more (by `health`'s session, where one is named). Still last known."""
        entry = self._entries.get(topic)
        if entry is None or (health is not None and entry.health is not health):
            return
        del self._entries[topic]
        with self._lock:
            self._keep(_key(entry.item), entry.item)  # still undecoded, if it is a book nobody read

    def doubt(self, topics: Iterable[Topic]) -> None:
        """Whoever streams these to us says that he cannot prove them: until the stream or REST has spoken they are not
        current."""
        for topic in topics:
            if (entry := self._entries.get(topic)) is not None:
                entry.proven = False

    def remember(self, items: Iterable[Datum | MarketInfo | Instrument]) -> None:
        """Keep REST answers as last known values; newer stays. Bounded: the longest untouched go first."""
        values = [item for item in items if not isinstance(item, MarketInfo | Instrument)]
        with self._lock:
            for item in values:
                self._keep(_key(item), item)

    def _keep(self, key: tuple[object, ...], item: StoredItem) -> None:
        known = self._remembered.pop(key, None)
        # REST's replicas lag behind one another: a later answer may be the older one.
        newest = known if known is not None and known.timestamp > item.timestamp else item
        self._remembered[key] = newest
        if len(self._remembered) > self._max_remembered:
            # Its place was renewed by the pop above, so the first is the one that was touched least lately.
            del self._remembered[next(iter(self._remembered))]
        if _is_rest(item) and isinstance(key, Topic):
            self._compare(key, item)

    def _compare(self, topic: Topic, told: StoredItem) -> None:
        """REST's word on the live value: it clears a doubt, or raises one until the stream has spoken again."""
        entry = self._entries.get(topic)
        if entry is None:
            return
        if not entry.proven:
            is_close = abs(entry.stamp - told.timestamp) <= REST_TOLERANCE
            entry.proven = is_close or _is_same_trade(entry.item, told)
            entry.late_by = 0.0 if entry.proven else entry.late_by
        elif topic.data_type in STATE_TYPES and _is_moved_past(told, entry.item):
            entry.proven = False

    # Reading

    def current(self, topic: Topic, now: float) -> Datum | None:
        """The live value if it is provably current at monotonic `now`, else None."""
        entry = self._entries.get(topic)
        if entry is None or not is_current(entry, now, self._wall_seconds() - now, self._liveness):
            return None
        item = entry.item
        return item.read() if type(item) is LazyBook else item  # type: ignore[return-value]

    def current_stored(self, topic: Topic, now: float) -> StoredItem | None:
        """As `current`, but a book stays undecoded."""
        entry = self._entries.get(topic)
        if entry is None or not is_current(entry, now, self._wall_seconds() - now, self._liveness):
            return None
        return entry.item

    def why_not(self, topic: Topic, now: float) -> str | None:
        """In words why `current` gives nothing; None if it gives something."""
        return why_not_current(self._entries.get(topic), now, self._wall_seconds() - now, self._liveness)

    def age(self, topic: Topic, now: float) -> float | None:
        """How many seconds ago at most the live value was what Upbit showed; None where there is no live value.

        It was when Upbit stamped it, and still was when all that had been sent by some later time had come without
        another one. Where this topic comes later than its session, that is allowed for.
        """
        entry = self._entries.get(topic)
        if entry is None:
            return None
        health, exchange_clock = entry.health, self._exchange_clock
        # A quiet market's value is as old as the last proof that nothing newer had been sent, not as its last trade.
        vouched_at = health.heard_at if health.proven_at is None else health.proven_at
        is_doubtful = health.suspect or topic in health.mute or not entry.proven or entry.epoch != health.epoch
        age = now - (entry.monotonic if is_doubtful else vouched_at)
        if exchange_clock is None or topic.data_type not in STATE_TYPES:
            return max(0.0, age)
        since_stamp = exchange_clock.seconds_since(entry.stamp, now)
        if since_stamp is None:
            return max(0.0, age)
        if entry.follows:
            age += max(0.0, (exchange_clock.seconds_since(entry.stamp, entry.news_at) or 0.0) - health.lag)
        return since_stamp if is_doubtful else max(0.0, min(age, since_stamp))

    def entry(self, topic: Topic) -> Entry | None:
        """The newest value with its evidence, current or not."""
        return self._entries.get(topic)

    def last_known(
        self, kind: RequestKind | DataType, symbol: str, *, timeframe: str | None = None, level: Decimal = ZERO
    ) -> Datum | None:
        """The newest value ever seen on any channel, however old: ticker, book, latest trade or latest candle.

        For `RequestKind.CANDLES` name the timeframe; of books only those grouped by `level` count. Market lists are
        not kept here.
        """
        live, key = _where(kind, symbol, timeframe, level)
        entry = None if live is None else self._entries.get(live)
        streamed = None if entry is None else decoded(entry.item)
        remembered = None if key is None else self._remembered.get(key)
        told = None if remembered is None else decoded(remembered)
        if streamed is None or told is None:
            return streamed or told
        return told if told.timestamp > streamed.timestamp else streamed

    def overtakes(self, topic: Topic, told: TickerData | OrderbookData) -> Any | None:
        """What we know of the market that moved after what REST has `told`, which then comes from a replica that lags.

        What the stream contradicts itself about is not held against REST; what merely came late is.
        """
        entry, remembered = self._entries.get(topic), self._remembered.get(topic)
        is_trusted = entry is not None and (entry.proven or entry.late_by > 0.0)
        candidates = [entry.item] if entry is not None and is_trusted else []
        candidates += [remembered] if remembered is not None and _is_rest(remembered) else []
        newest = max(candidates, key=_moved_at, default=None)
        if newest is None or newest is told or not _is_moved_past(newest, told):
            return None
        return decoded(newest)

    def wait_newer(
        self,
        topic: Topic,
        since_monotonic: float,
        deadline: Deadline,
        made_after: Callable[[], datetime | None] | None = None,
        asked_after: float = -inf,
    ) -> Datum | None:
        """The first readable value that arrives after `since_monotonic`, or None at the deadline.

        What comes late is passed over, and so is what Upbit stamped before `made_after()`, or what is of a
        subscription sent before `asked_after`.
        ClosedError at once when the store is closed. The session's thread pays for waiters only while there are any.
        """
        item: Datum | None = None
        try:
            # Before the first look, so that what arrives between the two is told.
            self._waited_for.append(topic)
            # Within one tick of a coarse clock what came after the call is told from what was there by being another.
            known = self._entries.get(topic)
            while item is None:
                entry = self._wait_entry(topic, known, since_monotonic, deadline, made_after, asked_after)
                if entry is None:
                    return None
                known = entry
                # A book that cannot be read is no answer; wait on from there.
                since_monotonic = entry.monotonic
                item = decoded(entry.item)
            return item
        finally:
            with contextlib.suppress(ValueError):  # interrupted before it was entered
                self._waited_for.remove(topic)

    def _wait_entry(
        self,
        topic: Topic,
        known: Entry | None,
        since: float,
        deadline: Deadline,
        made_after: Callable[[], datetime | None] | None,
        asked_after: float,
    ) -> Entry | None:
        found: Entry | None = None

        def is_there() -> bool:
            nonlocal found
            entry = self._entries.get(topic)
            has_come = entry is not None and (
                entry.monotonic > since or (entry.monotonic == since and entry is not known)
            )
            is_new = has_come and entry is not None and entry.proven and not entry.health.is_late
            is_new = is_new and entry is not None and entry.asked_at >= asked_after
            bound = None if made_after is None or not is_new else made_after()
            if entry is not None and is_new and (bound is None or entry.stamp >= bound):
                found = entry
            return found is not None or self._closed

        self._arrival.wait_for(is_there, deadline)
        if self._closed:
            raise ClosedError("the backbone was closed while waiting for live data")
        return found

    def close(self) -> None:
        """End every wait at once. Values stay readable as last known."""
        self._closed = True
        self._arrival.notify_all()

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<LiveStore {len(self._entries)} live, {len(self._remembered)} remembered>"


def _is_news(entry: Entry, known: Entry) -> bool:
    """Whether the market moved between two values of one line, rather than that the first was said again."""
    if entry.topic.data_type in STATE_TYPES:
        return entry.stamp > known.stamp and entry.moved_at > known.moved_at
    if entry.stamp > known.stamp:
        return True
    item, other = entry.item, known.item
    if type(item) is TradeData and type(other) is TradeData and item.sequential_id != other.sequential_id:
        return True  # told by its id, as those of one moment are: to compare all fields costs as much as to keep it
    return item != other


def _is_rest(item: StoredItem) -> bool:
    return not isinstance(item, LazyBook) and item.source is DataSource.REST


def _moved_at(item: StoredItem) -> datetime:
    """When the market last moved, which both channels stamp alike."""
    traded_at = item.trade_timestamp if isinstance(item, TickerData) else None
    return traded_at or item.timestamp


def _is_untimed(item: StoredItem) -> bool:
    return isinstance(item, TickerData) and item.trade_timestamp is None


def _is_moved_past(later: StoredItem, earlier: StoredItem) -> bool:
    """Whether the market moved between the two: by their trades where both tell them, otherwise by their stamps."""
    if _is_untimed(later) or _is_untimed(earlier):
        return later.timestamp > earlier.timestamp + REST_TOLERANCE
    return _moved_at(later) > _moved_at(earlier) + REST_TOLERANCE


def _is_same_trade(one: StoredItem, other: StoredItem) -> bool:
    """Whether two tickers name the same last trade, whenever each was stamped. Two of one moment are told apart by what
    they say."""
    if not isinstance(one, TickerData) or not isinstance(other, TickerData) or one.trade_timestamp is None:
        return False
    first, second = ((each.trade_timestamp, each.current_price, each.last_trade_volume) for each in (one, other))
    return first == second


def _came_before(told: StoredItem | None, known: Entry | None) -> bool:
    if told is None or known is None or told.received_at is None or known.item.received_at is None:
        return False
    return told.received_at < known.item.received_at


def _key(item: StoredItem) -> tuple[object, ...]:
    """Under what an answer is remembered: the topic that would stream it, or its unit where none does."""
    if isinstance(item, TickerData):
        return Topic(DataType.TICKER, item.symbol)
    if isinstance(item, OrderbookData | LazyBook):
        return Topic(DataType.ORDERBOOK, item.symbol, item.level)
    if isinstance(item, TradeData):
        return Topic(DataType.TRADE, item.symbol)
    return (item.timeframe, item.symbol)


def _where(
    kind: RequestKind | DataType, symbol: str, timeframe: str | None, level: Decimal
) -> tuple[Topic | None, tuple[object, ...] | None]:
    data_type = kind if isinstance(kind, DataType) else _DATA_TYPE_OF_KIND.get(kind)
    if data_type is not None and not data_type.is_candle:
        topic = Topic(data_type, symbol, level)
        return topic, topic
    word = data_type.value if data_type is not None else timeframe
    if word is None:
        return None, None
    unit = timeframe_of(word)
    return (None if unit.data_type is None else Topic(unit.data_type, symbol)), (unit.word, symbol)
