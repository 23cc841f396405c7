"""The stream: the live value that it proves current, its next frame, and whether its silence means anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Mapping
from datetime import datetime

from .._concurrency import Clock, Deadline
from ..errors import ChannelUnavailableError, RequestTimeoutError, StaleDataError, UpbitBackboneError, one_line
from ..models.enums import DataType, Priority, RequestKind
from ..models.market import CandleData, OrderbookData, TickerData, TradeData
from ..models.request import DataRequest, SubscriptionRequest, Topic
from ..rest.client import RestClient
from ..store.exchange_clock import ExchangeClock
from ..store.intelligent_cache import CacheLook
from ..store.live_store import Entry, LiveStore
from .markets import MarketDirectory


def topic_of(request: DataRequest) -> Topic:
    """The stream that could answer a ticker or order book question."""
    data_type = DataType.ORDERBOOK if request.kind is RequestKind.ORDERBOOK else DataType.TICKER
    return Topic(data_type, request.symbol, request.level)


def trimmed(item: TickerData | OrderbookData, levels: int) -> TickerData | OrderbookData:
    """A book with at most `levels` levels a side; anything else as it is."""
    if not isinstance(item, OrderbookData) or max(len(item.asks), len(item.bids)) <= levels:
        return item
    return dataclasses.replace(item, asks=item.asks[:levels], bids=item.bids[:levels])


class LiveChannel:
    """Never waits: the current value, or StaleDataError that says why there is none."""

    def __init__(self, store: LiveStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def fetch(
        self, request: DataRequest, deadline: Deadline, look: CacheLook | None = None
    ) -> TickerData | OrderbookData:
        topic, now = topic_of(request), self._clock.monotonic()
        item = self._store.current(topic, now)
        if item is None:
            raise StaleDataError(f"{topic}: {self._store.why_not(topic, now) or 'the frame is unreadable'}")
        return trimmed(item, request.levels)  # type: ignore[arg-type]  # the topic says which type it is

    def __repr__(self) -> str:
        return f"<LiveChannel {self._store!r}>"


Acquire = Callable[[Hashable, Iterable[SubscriptionRequest]], object]
Release = Callable[[Hashable], object]


NEXT_FRAME_SECONDS = 0.5


class StreamWaitChannel:
    """The first value that arrives after the call. A topic that nobody streams is requested for as long as it waits.

    With `realtime` it is one that Upbit stamped after the call (or, of a quiet market that nobody streams, the first
    frame of the subscription made for the call). Without, a value that is proven current after the call
    is as good as a new one.
    """

    def __init__(
        self,
        store: LiveStore,
        directory: MarketDirectory,
        acquire: Acquire,
        release: Release,
        clock: Clock,
        *,
        exchange_clock: ExchangeClock | None = None,
    ) -> None:
        self._store = store
        self._directory = directory
        self._acquire = acquire
        self._release = release
        self._clock = clock
        self._exchange_clock = exchange_clock

    def fetch(
        self, request: DataRequest, deadline: Deadline, look: CacheLook | None = None
    ) -> TickerData | OrderbookData:
        """By the deadline, or UnknownSymbolError, or RequestTimeoutError when the stream is well and said nothing (a
        quiet market), or ChannelUnavailableError when it is not well."""
        topic, asked_at = topic_of(request), self._clock.monotonic()
        item = None if request.realtime else self._proven(topic, request.max_age)
        if item is None:
            self._directory.require((topic.symbol,), deadline)
            item = self._next(topic, request, asked_at, deadline)
            self._directory.learn((topic.symbol,))
        return trimmed(item, request.levels)

    def _proven(self, topic: Topic, max_age: float | None) -> TickerData | OrderbookData | None:
        """The live value, if it is current, and that as lately as `max_age` wants it."""
        now = self._clock.monotonic()
        item, age = self._store.current(topic, now), self._store.age(topic, now)
        is_young = max_age is None or (age is not None and age <= max_age)
        return item if is_young else None  # type: ignore[return-value]  # the topic says which type it is

    def _next(
        self, topic: Topic, request: DataRequest, asked_at: float, deadline: Deadline
    ) -> TickerData | OrderbookData:
        is_new = self._store.entry(topic) is None
        # The first frame of a subscription made after the call was true after it, but in a quiet market it is older
        # than the call: the next one is better, if it comes soon.
        first_wait = deadline.sooner(NEXT_FRAME_SECONDS) if request.realtime and is_new else deadline
        requests = [SubscriptionRequest(topic)]
        me = object()
        try:
            self._acquire(me, requests)
            item = self._store.wait_newer(topic, asked_at, first_wait, self._made_after(request, asked_at))
            if item is None and request.realtime and is_new:
                # Not the first frame of one that was on its way when the call came: that may show what was before it.
                item = self._store.wait_newer(topic, asked_at, deadline, asked_after=asked_at)
            elif item is None and not request.realtime:
                item = self._proven(topic, self._clock.monotonic() - asked_at)
            if item is None:
                raise self._failure(topic)  # while it is still requested for: afterwards the reason is forgotten
        finally:
            try:
                self._release(me)
            except BaseException:  # Ctrl-C on the way in: nobody would know of it any more
                self._release(me)
                raise
        return item  # type: ignore[return-value]  # the topic says which type it is

    def _made_after(self, request: DataRequest, asked_at: float) -> Callable[[], datetime | None] | None:
        """By Upbit's clock: a frame that was under way when the caller asked is not newer than his call. Asked for
        again at each frame, because the first frames of a session tell more about that clock."""
        exchange_clock = self._exchange_clock
        if exchange_clock is None or not request.realtime:
            return None
        return lambda: exchange_clock.latest_time(asked_at)

    def _failure(self, topic: Topic) -> RequestTimeoutError | ChannelUnavailableError:
        why_not = self._store.why_not(topic, self._clock.monotonic())
        if why_not is None:
            return RequestTimeoutError(f"{topic}: the stream is well, but no frame arrived in time (a quiet market?)")
        return ChannelUnavailableError(f"{topic}: no frame arrived in time: {why_not}")

    def __repr__(self) -> str:
        return f"<StreamWaitChannel {self._store!r}>"


# Is the stream silent because nobody trades, or because it is broken? REST knows.

PROBE_SECONDS = 4.0  # two questions in a row end long before the detector stops waiting (PROBE_PATIENCE_SECONDS)
MAX_SYMBOLS = 100  # a stalled stream stalls for all of them; a hundred are witness enough


# When some of the topics last moved, as somebody else has seen it; None where he knows of nothing.
Witness = Callable[[frozenset[Topic]], Mapping[Topic, datetime | None]]


def moved_at(entry: Entry) -> datetime:
    """When the market last moved, as the stream has shown it."""
    item = entry.item
    if isinstance(item, TickerData):
        return item.trade_timestamp or item.timestamp
    if isinstance(item, CandleData):
        return item.last_trade_at or item.timestamp
    return item.timestamp if isinstance(item, TradeData | OrderbookData) else entry.stamp


class StallProbe:
    """Compares what the stream gave with what a `witness` has seen; REST, of topics that he does not know, is asked
    when each market last traded (and books last changed).

    What happened just now may still be under way on the stream; the sessions, who ask, allow for that by waiting a
    moment before they act on a True. A busy market always has traded just now.
    """

    def __init__(self, rest: RestClient, store: LiveStore, clock: Clock, witness: Witness = lambda topics: {}) -> None:
        self._rest = rest
        self._store = store
        self._clock = clock
        self.witness = witness  # replaced by a relay: it has others to ask

    def __call__(self, topics: frozenset[Topic]) -> frozenset[Topic] | None:
        """Those of which the witness, or REST, shows something that the stream should have given; None where REST would
        have to say and does not.

        Blocks for at most a few seconds; for a worker's thread.
        """
        seen = self._witnessed(topics)
        behind = self._behind([topic for topic in topics if topic in seen], seen)
        chosen = sorted(topics - seen.keys())[:MAX_SYMBOLS]
        if seen and not chosen:
            return frozenset(behind)
        try:
            answers = [self._missed_trades(chosen), self._missed_books(chosen)]
        except UpbitBackboneError:
            return None
        told = [missed for missed in answers if missed is not None]
        return frozenset(behind).union(*told) if told else None

    def _witnessed(self, topics: frozenset[Topic]) -> Mapping[Topic, datetime | None]:
        try:
            return self.witness(topics)
        except UpbitBackboneError:
            return {}  # then Upbit is asked

    def _missed_trades(self, topics: list[Topic]) -> set[Topic] | None:
        wanted = [topic for topic in topics if topic.data_type is not DataType.ORDERBOOK]
        if not wanted:
            return None
        deadline = Deadline.after(PROBE_SECONDS, self._clock.monotonic)
        symbols = {topic.symbol for topic in wanted}
        tickers = self._rest.tickers(symbols, deadline=deadline, priority=Priority.HIGH, max_age=0.0)
        traded = {symbol: ticker.trade_timestamp for symbol, ticker in tickers.items()}
        return self._behind(wanted, {topic: traded.get(topic.symbol) for topic in wanted})

    def _missed_books(self, topics: list[Topic]) -> set[Topic] | None:
        wanted = [topic for topic in topics if topic.data_type is DataType.ORDERBOOK and not topic.level]
        if not wanted:
            return None
        deadline = Deadline.after(PROBE_SECONDS, self._clock.monotonic)
        symbols = {topic.symbol for topic in wanted}
        books = self._rest.orderbooks(symbols, levels=1, deadline=deadline, priority=Priority.HIGH, max_age=0.0)
        changed = {symbol: book.timestamp for symbol, book in books.items()}
        return self._behind(wanted, {topic: changed.get(topic.symbol) for topic in wanted})

    def _behind(self, topics: list[Topic], moments: Mapping[Topic, datetime | None]) -> set[Topic]:
        known = ((topic, moments.get(topic)) for topic in topics)
        return {topic for topic, moment in known if moment is not None and self._is_behind(topic, moment)}

    def _is_behind(self, topic: Topic, moment: datetime) -> bool:
        entry = self._store.entry(topic)
        return entry is None or moved_at(entry) < moment

    def __repr__(self) -> str:
        return f"<StallProbe by {one_line(repr(self._rest))}>"
