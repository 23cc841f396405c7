"""Answers straight from memory: a live value that a running stream proves current, or REST's of a moment ago."""

from __future__ import annotations

import dataclasses

from .._concurrency import Clock, Deadline
from ..errors import StaleDataError
from ..models.enums import DataType, RequestKind
from ..models.market import OrderbookData, TickerData
from ..models.request import DataRequest
from ..models.topic import Topic
from ..store.intelligent_cache import CacheLook, IntelligentCache
from ..store.live_store import LiveStore


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


class CacheChannel:
    """Never waits: an answer at most `max_age` seconds old (default: its kind's own measure), or StaleDataError."""

    def __init__(self, cache: IntelligentCache) -> None:
        self._cache = cache

    def fetch(
        self, request: DataRequest, deadline: Deadline, look: CacheLook | None = None
    ) -> TickerData | OrderbookData:
        look = look or self._cache.look(request)
        item = self._cache.given(look, request.max_age)
        wanted = OrderbookData if request.kind is RequestKind.ORDERBOOK else TickerData
        if not isinstance(item, wanted):
            raise StaleDataError(f"{request.kind.value} {request.symbol}: no cached answer is young enough")
        return trimmed(item, request.levels)

    def __repr__(self) -> str:
        return f"<CacheChannel of {self._cache!r}>"
