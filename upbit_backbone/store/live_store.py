"""The newest value of every live topic, read in well under a microsecond and without a lock.

Each topic has one writer, the thread of the session that streams it; entries are replaced whole, so a reader sees
the old one or the new one and nothing in between. What REST answered is kept beside it, never as live: it serves as
last known value, and as umpire where the stream is in doubt.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from .._concurrency import SYSTEM_CLOCK, WAIT_SLICE_SECONDS, Clock, Deadline, wall_seconds
from ..errors import ClosedError
from ..exchange.timeframes import timeframe_of
from ..models.enums import DataSource, DataType, RequestKind
from ..models.lazy_book import Datum, LazyBook, StoredItem, decoded
from ..models.market import MarketInfo, OrderbookData, TickerData, TradeData
from ..models.session import SessionHealth
from ..models.topic import ZERO, Topic
from .freshness import REST_TOLERANCE, Verdict, is_current, judge, why_not_current

MAX_REMEMBERED = 20_000

# State can be doubted; of trades and candles several are true at once, so an older one proves nothing.
STATE_TYPES = frozenset({DataType.TICKER, DataType.ORDERBOOK})

_DATA_TYPE_OF_KIND = {
    RequestKind.TICKER: DataType.TICKER,
    RequestKind.ORDERBOOK: DataType.ORDERBOOK,
    RequestKind.TRADES: DataType.TRADE,
}


class Entry:
    """One live value. Never changed but for `proven`, which only ever says less or more about this very value."""

    __slots__ = ("epoch", "health", "item", "monotonic", "peak", "proven", "stamp", "topic")

    def __init__(
        self,
        topic: Topic,
        item: StoredItem,
        health: SessionHealth,
        epoch: int,
        monotonic: float,
        *,
        proven: bool = True,
        peak: datetime | None = None,
    ) -> None:
        self.topic = topic
        self.item = item
        self.stamp: datetime = item.timestamp
        self.health = health
        self.epoch = epoch
        self.monotonic = monotonic
        self.proven = proven
        self.peak = self.stamp if peak is None else max(peak, self.stamp)

    def __repr__(self) -> str:
        return f"<Entry {self.stamp.isoformat()} epoch {self.epoch}{'' if self.proven else ' unproven'}>"


class LiveStore:
    """What the streams last said and what REST last answered.

    `put` and `forget` belong to the session's thread; everything else may be called from anywhere.
    """

    def __init__(
        self, liveness_seconds: float, *, clock: Clock = SYSTEM_CLOCK, max_remembered: int = MAX_REMEMBERED
    ) -> None:
        self._liveness = liveness_seconds
        self._wall_seconds = wall_seconds(clock)
        self._entries: dict[Topic, Entry] = {}
        self._max_remembered = max_remembered
        self._lock = threading.Lock()  # guards _remembered
        self._remembered: dict[tuple[object, ...], StoredItem] = {}
        # Guards _waited_for and _closed. Writers take it only while somebody waits for their topic.
        self._arrival = threading.Condition()
        self._waited_for: Counter[Topic] = Counter()
        self._closed = False

    # Writing

    def put(self, topic: Topic, item: StoredItem, health: SessionHealth, epoch: int, monotonic: float) -> bool:
        """Keep `item` as the topic's newest value; False if it is older than what is held."""
        known = self._entries.get(topic)
        stamp: datetime = item.timestamp
        if (
            known is not None
            and stamp >= known.stamp
            and known.proven
            and known.epoch == epoch
            and known.health is health
        ):
            entry = Entry(topic, item, health, epoch, monotonic)
        else:
            if known is not None and stamp < known.stamp and decoded(known.item) is None:
                known = None  # a broken book is no evidence that this one is old
            verdict = self._judge(topic, stamp, health, epoch, monotonic, known)
            if verdict is Verdict.DOUBT and known is not None:
                known.proven = False
            if verdict is Verdict.DOUBT or verdict is Verdict.REFUSE:
                return False
            is_proven = verdict is Verdict.TAKE
            peak = None if known is None else known.peak
            entry = Entry(topic, item, health, epoch, monotonic, proven=is_proven, peak=peak)
        self._entries[topic] = entry
        if self._waited_for and topic in self._waited_for:
            with self._arrival:
                self._arrival.notify_all()
        return True

    def _judge(
        self, topic: Topic, stamp: datetime, health: SessionHealth, epoch: int, monotonic: float, known: Entry | None
    ) -> Verdict:
        if topic.data_type not in STATE_TYPES:
            return Verdict.REFUSE if known is not None and stamp < known.stamp else Verdict.TAKE
        remembered = self._remembered.get(topic)
        rest_stamp = None if remembered is None or not _is_rest(remembered) else remembered.timestamp
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

    def remember(self, items: Iterable[Datum | MarketInfo]) -> None:
        """Keep REST answers as last known values; newer stays. Bounded: the longest untouched go first."""
        with self._lock:
            for item in items:
                if not isinstance(item, MarketInfo):
                    self._keep(_key(item), item)

    def _keep(self, key: tuple[object, ...], item: StoredItem) -> None:
        known = self._remembered.pop(key, None)
        newest = known if known is not None and known.timestamp > item.timestamp else item
        self._remembered[key] = newest
        if len(self._remembered) > self._max_remembered:
            del self._remembered[next(iter(self._remembered))]
        if _is_rest(item) and isinstance(key, Topic):
            self._compare(key, item)

    def _compare(self, topic: Topic, told: StoredItem) -> None:
        """REST's word on the live value: it clears a doubt, or raises one until the stream has spoken again."""
        entry = self._entries.get(topic)
        if entry is None:
            return
        if not entry.proven:
            entry.proven = abs(entry.stamp - told.timestamp) <= REST_TOLERANCE
        elif topic.data_type in STATE_TYPES and _moved_at(told) > _moved_at(entry.item) + REST_TOLERANCE:
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

    def wait_newer(self, topic: Topic, since_monotonic: float, deadline: Deadline) -> Datum | None:
        """The first readable value that arrives after `since_monotonic`, or None at the deadline.

        ClosedError at once when the store is closed. The session's thread pays for waiters only while there are any.
        """
        item: Datum | None = None
        with self._arrival:
            self._waited_for[topic] += 1
        try:
            while item is None:
                entry = self._wait_entry(topic, since_monotonic, deadline)
                if entry is None:
                    return None
                since_monotonic = entry.monotonic
                item = decoded(entry.item)
            return item
        finally:
            with self._arrival:
                self._waited_for[topic] -= 1
                if not self._waited_for[topic]:
                    del self._waited_for[topic]

    def _wait_entry(self, topic: Topic, since: float, deadline: Deadline) -> Entry | None:
        with self._arrival:
            while True:
                if self._closed:
                    raise ClosedError("the backbone was closed while waiting for live data")
                entry = self._entries.get(topic)
                if entry is not None and entry.monotonic > since and entry.proven:
                    return entry
                if deadline.expired:
                    return None
                self._arrival.wait(deadline.remaining_or(WAIT_SLICE_SECONDS))

    def close(self) -> None:
        """End every wait at once. Values stay readable as last known."""
        with self._arrival:
            self._closed = True
            self._arrival.notify_all()

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<LiveStore {len(self._entries)} live, {len(self._remembered)} remembered>"


def _is_rest(item: StoredItem) -> bool:
    return not isinstance(item, LazyBook) and item.source is DataSource.REST


def _moved_at(item: StoredItem) -> datetime:
    """When the market last moved, which both channels stamp alike."""
    traded_at = item.trade_timestamp if isinstance(item, TickerData) else None
    return traded_at or item.timestamp


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
