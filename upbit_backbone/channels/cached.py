"""Answers that REST gave a moment ago, while they are young enough for the question."""

from __future__ import annotations

from .._concurrency import Deadline
from ..errors import StaleDataError
from ..models.enums import DataType, RequestKind
from ..models.market import OrderbookData, TickerData
from ..models.request import DataRequest
from ..store.intelligent_cache import IntelligentCache, Key
from .live import trimmed
from .rest_books import DEPTHS


def cache_key(request: DataRequest) -> Key:
    """Under which key the REST channel keeps its answer to a ticker or order book question."""
    if request.kind is RequestKind.ORDERBOOK:
        depth = next(each for each in DEPTHS if each >= request.levels)
        return (DataType.ORDERBOOK.value, request.symbol, depth, request.level)
    return (DataType.TICKER.value, request.symbol)


class CacheReader:
    """Never waits: an answer at most `max_age` seconds old (default: its kind's own measure), or StaleDataError."""

    def __init__(self, cache: IntelligentCache) -> None:
        self._cache = cache

    def fetch(self, request: DataRequest, deadline: Deadline) -> TickerData | OrderbookData:
        item = self._cache.get_cached_data(cache_key(request), request.max_age)
        wanted = OrderbookData if request.kind is RequestKind.ORDERBOOK else TickerData
        if not isinstance(item, wanted):
            raise StaleDataError(f"{request.kind.value} {request.symbol}: no cached answer is young enough")
        return trimmed(item, request.levels)

    def __repr__(self) -> str:
        return f"<CacheReader of {self._cache!r}>"
