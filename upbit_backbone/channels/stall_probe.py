"""Is the stream silent because nobody trades, or because it is broken? REST knows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from .._concurrency import Clock, Deadline
from ..errors import UpbitBackboneError, one_line
from ..models.enums import DataType, Priority
from ..models.market import CandleData, OrderbookData, TickerData, TradeData
from ..models.topic import Topic
from ..rest.client import RestClient
from ..store.live_store import LiveStore

PROBE_SECONDS = 4.0
MAX_SYMBOLS = 100  # a stalled stream stalls for all of them; a hundred are witness enough


class StallProbe:
    """Asks REST when each market last traded (and books last changed) and compares with what the stream gave.

    What happened just now may still be under way on the stream; the sessions, who ask, allow for that by waiting a
    moment before they act on a True. A busy market always has traded just now.
    """

    def __init__(self, rest: RestClient, store: LiveStore, clock: Clock) -> None:
        self._rest = rest
        self._store = store
        self._clock = clock

    def __call__(self, topics: frozenset[Topic]) -> frozenset[Topic] | None:
        """Those of which REST shows something that the stream should have given; None where REST does not say.

        Blocks for at most a few seconds; for a worker's thread.
        """
        chosen = sorted(topics)[:MAX_SYMBOLS]
        try:
            answers = [self._missed_trades(chosen), self._missed_books(chosen)]
        except UpbitBackboneError:
            return None
        told = [behind for behind in answers if behind is not None]
        return frozenset().union(*told) if told else None

    def _missed_trades(self, topics: list[Topic]) -> set[Topic] | None:
        wanted = [topic for topic in topics if topic.data_type is not DataType.ORDERBOOK]
        if not wanted:
            return None
        deadline = Deadline.after(PROBE_SECONDS, self._clock.monotonic)
        symbols = {topic.symbol for topic in wanted}
        tickers = self._rest.tickers(symbols, deadline=deadline, priority=Priority.HIGH, max_age=0.0)
        traded = {symbol: ticker.trade_timestamp for symbol, ticker in tickers.items()}
        return self._behind(wanted, traded)

    def _missed_books(self, topics: list[Topic]) -> set[Topic] | None:
        wanted = [topic for topic in topics if topic.data_type is DataType.ORDERBOOK and not topic.level]
        if not wanted:
            return None
        deadline = Deadline.after(PROBE_SECONDS, self._clock.monotonic)
        symbols = {topic.symbol for topic in wanted}
        books = self._rest.orderbooks(symbols, levels=1, deadline=deadline, priority=Priority.HIGH, max_age=0.0)
        return self._behind(wanted, {symbol: book.timestamp for symbol, book in books.items()})

    def _behind(self, topics: list[Topic], moments: Mapping[str, datetime | None]) -> set[Topic]:
        known = ((topic, moments.get(topic.symbol)) for topic in topics)
        return {topic for topic, moment in known if moment is not None and self._is_behind(topic, moment)}

    def _is_behind(self, topic: Topic, moment: datetime) -> bool:
        entry = self._store.entry(topic)
        if entry is None:
            return True
        item = entry.item
        if isinstance(item, TickerData):
            seen = item.trade_timestamp or item.timestamp
        elif isinstance(item, CandleData):
            seen = item.last_trade_at or item.timestamp
        elif isinstance(item, TradeData | OrderbookData):
            seen = item.timestamp
        else:
            seen = entry.stamp
        return seen < moment

    def __repr__(self) -> str:
        return f"<StallProbe by {one_line(repr(self._rest))}>"
