"""Answers by subscribing and waiting for the next frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .._concurrency import Clock, Deadline
from ..errors import RequestTimeoutError
from ..models.market import OrderbookData, TickerData
from ..models.request import DataRequest
from ..models.topic import Wish
from ..store.live_store import LiveStore
from .live import topic_of, trimmed

ChangeWishes = Callable[[Iterable[Wish]], object]


class StreamWaitChannel:
    """The first value that arrives after the call. A topic that nobody streams is wished for as long as it waits."""

    def __init__(self, store: LiveStore, want: ChangeWishes, unwant: ChangeWishes, clock: Clock) -> None:
        self._store = store
        self._want = want
        self._unwant = unwant
        self._clock = clock

    def fetch(self, request: DataRequest, deadline: Deadline) -> TickerData | OrderbookData:
        """RequestTimeoutError if nothing has arrived by the deadline."""
        topic, asked_at = topic_of(request), self._clock.monotonic()
        wishes = [Wish(topic)]
        self._want(wishes)
        try:
            item = self._store.wait_newer(topic, asked_at, deadline)
        finally:
            self._unwant(wishes)
        if item is None:
            raise RequestTimeoutError(f"{topic}: no frame arrived in time; the market may be quiet or the stream down")
        return trimmed(item, request.levels)  # type: ignore[arg-type]  # the topic says which type it is

    def __repr__(self) -> str:
        return f"<StreamWaitChannel {self._store!r}>"
