"""Stream history: what a relay has written into its streams, read back.

It holds Upbit's own frames, which come back as such, so that what is checked is checked where all that streams is;
and, page by page, as the past of whoever goes on where he was.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Final

from .._concurrency import Deadline, get_logger
from ..backfill.pages import TradesPage
from ..errors import UpbitBackboneError, one_line
from ..models.enums import DataSource, DataType, Priority, StreamType
from ..models.market import TradeData
from ..models.request import Topic
from ..unify.stream import StreamDecoder
from ..wire.redis_server import RedisServer
from ..wire.relay_keys import Keys

log = get_logger("upbit_backbone.upstream")

PLACES_REMEMBERED: Final = 10_000  # ends of pages that were read; who goes on from another asks Upbit


# Not within a text, where a quotation mark has a stroke before it.
_STREAM_TYPE: Final = re.compile(rb'"st":"[A-Z]{1,12}"')
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


@cache
def _decoder() -> StreamDecoder:
    return StreamDecoder(DataSource.RELAY)


def trade_frame(data: bytes, kind: StreamType = StreamType.REALTIME) -> bytes:
    """As Upbit would send it: the stream holds what it has sent, each in the way in which that came."""
    return _STREAM_TYPE.sub(b'"st":"%b"' % kind.value.encode(), data, count=1)


def trade_of(data: bytes, received_at: datetime) -> TradeData | None:
    """The trade that an entry holds; None where it holds none that can be read."""
    try:
        (found,) = _decoder().decode(data, received_at)
    except (ValueError, UpbitBackboneError):
        return None
    return found if isinstance(found, TradeData) else None


def traded_at(data: bytes) -> float:
    """When, in seconds since 1970; before everything where that cannot be read."""
    trade = trade_of(data, _NEVER)
    return float("-inf") if trade is None else trade.timestamp.timestamp()


class StreamHistory:
    """The past trades of a market, page by page: those that the relay keeps, then Upbit's own by way of `rest`.

    `server` makes a connection to Redis; while `is_direct`, everything is asked of `rest`. Usable from any thread.
    """

    def __init__(
        self, server: Callable[[], RedisServer], keys: Keys, rest: TradesPage, is_direct: Callable[[], bool]
    ) -> None:
        self._server = server
        self._keys = keys
        self._rest = rest
        self._is_direct = is_direct
        self._lock = threading.Lock()  # guards the places; nothing is asked under it
        self._places: dict[tuple[str, int], str] = {}

    def page(
        self,
        symbol: str,
        *,
        count: int,
        cursor: int | None = None,
        days_ago: int | None = None,
        deadline: Deadline,
        priority: Priority,
    ) -> list[TradeData]:
        """At most `count` trades before `cursor`, newest first."""
        with self._lock:
            place = "+" if cursor is None else self._places.get((symbol, cursor))
        if days_ago is None and place is not None and not self._is_direct():
            try:
                trades = self._read(symbol, place, count)
            except UpbitBackboneError as error:
                log.debug("the past of %s is asked of Upbit: %s", symbol, one_line(error))
                trades = []
            if trades:
                return trades
        # The same cursor: a trade's number is Upbit's.
        return self._rest(symbol, count=count, cursor=cursor, days_ago=days_ago, deadline=deadline, priority=priority)

    def _read(self, symbol: str, before: str, count: int) -> list[TradeData]:
        server = self._server()
        try:
            stream = self._keys.stream(Topic(DataType.TRADE, symbol))
            end = before if before == "+" else f"({before}"
            (entries,) = server.ask([("XREVRANGE", stream, end, "-", "COUNT", count)])
        finally:
            server.close()
        now = datetime.now(UTC)
        found = [trade_of(trade_frame(entry[1].get(b"data", b"")), now) for entry in entries]
        trades = [trade for trade in found if trade is not None and trade.symbol == symbol]
        if trades and (number := trades[-1].sequential_id) is not None:
            with self._lock:
                if len(self._places) >= PLACES_REMEMBERED:
                    self._places.clear()
                self._places[symbol, number] = entries[-1][0].decode("ascii", "replace")
        return trades

    def __repr__(self) -> str:
        return f"<StreamHistory {self._keys.prefix}>"
