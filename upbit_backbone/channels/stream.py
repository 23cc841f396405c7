"""Answers from the stream: the live value that a running stream proves current, or its next frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable
from datetime import datetime

from .._concurrency import Clock, Deadline
from ..errors import ChannelUnavailableError, RequestTimeoutError, StaleDataError
from ..models.enums import DataType, RequestKind
from ..models.market import OrderbookData, TickerData
from ..models.request import DataRequest
from ..models.topic import SubscriptionRequest, Topic
from ..store.exchange_clock import ExchangeClock
from ..store.intelligent_cache import CacheLook
from ..store.live_store import LiveStore
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
