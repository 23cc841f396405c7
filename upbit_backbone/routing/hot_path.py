"""Hot path: live answers without a question being made; one look into a dict, no lock, about a microsecond."""

from __future__ import annotations

from .._concurrency import ForkGuard
from ..channels.stream import topic_of, trimmed
from ..models.enums import DataType
from ..models.market import OrderbookData, TickerData
from ..models.request import DataRequest
from ..models.topic import Topic
from ..monitoring.metrics import Metrics
from ..store.live_store import LiveStore
from .promotion import RequestFrequency


class HotPath:
    """Knows the symbols that were asked before (so they exist) and gives their live values while they are current."""

    def __init__(self, store: LiveStore, frequency: RequestFrequency, metrics: Metrics, guard: ForkGuard) -> None:
        self._store = store
        self._last_asked = frequency.last_asked
        self._metrics = metrics
        self._mark = guard.mark
        self._tickers: dict[str, Topic] = {}
        self._books: dict[str, Topic] = {}

    def ticker(self, symbol: str, now: float) -> TickerData | None:
        """The current ticker, or None: then the router decides."""
        topic = self._tickers.get(symbol)
        # In a forked child no session writes any more: what is in memory would be called current until the liveness
        # bound is over. The mark itself, because a call more would cost a twentieth of all this.
        if topic is None or not self._mark[0]:
            return None
        ticker = self._store.current(topic, now)
        if ticker is not None:
            # One dict operation instead of the locked count: it keeps the topic from being demoted, and this path costs
            # a microsecond in all.
            self._last_asked[topic] = now
            self._metrics.live.hit()
        return ticker  # type: ignore[return-value]  # a ticker topic holds tickers

    def book(self, symbol: str, levels: int, now: float) -> OrderbookData | None:
        """The current order book without price grouping, or None."""
        topic = self._books.get(symbol)
        if topic is None or not self._mark[0]:
            return None
        book = self._store.current(topic, now)
        if book is None:
            return None
        self._last_asked[topic] = now
        self._metrics.live.hit()
        return trimmed(book, levels)  # type: ignore[arg-type, return-value]  # a book topic holds books

    def learn(self, answered: DataRequest) -> None:
        """From now on its symbol is known here."""
        # After an answer only: a symbol that was never answered may not exist, and then the router has to say so.
        topic = topic_of(answered)
        if topic.data_type is DataType.TICKER:
            self._tickers[topic.symbol] = topic
        elif not topic.level:
            self._books[topic.symbol] = topic

    def __repr__(self) -> str:
        return f"<HotPath {len(self._tickers)} tickers, {len(self._books)} books>"
