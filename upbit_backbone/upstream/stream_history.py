"""Stream history: what a relay has written into its streams, read back.

Trades come back as Upbit's frames, so that what is checked is checked where all that streams is; and, page by page, as
the past of whoever goes on where he was.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from .._concurrency import Deadline, get_logger
from ..backfill.pages import TradesPage
from ..errors import UpbitBackboneError, one_line
from ..exchange.fields import Spelling
from ..models.enums import DataSource, DataType, Priority, StreamType
from ..models.market import CandleData, TradeData
from ..models.request import Topic
from ..unify.stream import StreamDecoder
from ..unify.writer import encode_frame
from ..wire.redis_server import RedisServer
from ..wire.relay_keys import Keys

log = get_logger("upbit_backbone.upstream")

PLACES_REMEMBERED: Final = 10_000  # ends of pages that were read; who goes on from another asks Upbit


class _Trade(msgspec.Struct):
    """A trade as `TradeData.to_json` writes it. Read so it takes a hundredth of the time of `from_json`, and a relay's
    client that comes back reads thousands before anything live."""

    symbol: str
    price: Decimal
    volume: Decimal
    side: str | None
    timestamp: datetime
    sequential_id: int | None
    prev_closing_price: Decimal | None = None
    change_amount: Decimal | None = None
    best_ask_price: Decimal | None = None
    best_ask_size: Decimal | None = None
    best_bid_price: Decimal | None = None
    best_bid_size: Decimal | None = None
    published_at: datetime | None = None


_read_trade: Final = msgspec.json.Decoder(_Trade).decode


def trade_frame(data: bytes, kind: StreamType = StreamType.REALTIME) -> bytes:
    """As Upbit would send it. What cannot be read is handed on as it is: whoever decodes it counts and reports it."""
    try:
        trade = TradeData(**msgspec.structs.asdict(_read_trade(data)), source=DataSource.RELAY, stream_type=kind)
        return encode_frame(trade, Spelling.SIMPLE)
    except (ValueError, TypeError, ArithmeticError):
        return data


def traded_at(data: bytes) -> float:
    """When, in seconds since 1970; before everything where that cannot be read."""
    try:
        return _read_trade(data).timestamp.timestamp()
    except (ValueError, ArithmeticError):
        return float("-inf")


def candle_frame(data: bytes) -> bytes:
    """As `trade_frame`."""
    try:
        return encode_frame(CandleData.from_json(data), Spelling.SIMPLE)
    except (ValueError, TypeError, KeyError, ArithmeticError):
        return data


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
        self._decode = StreamDecoder(DataSource.RELAY).decode
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
        trades = [trade for entry in entries for trade in self._trades(entry[1].get(b"data", b""), symbol, now)]
        if trades and (number := trades[-1].sequential_id) is not None:
            with self._lock:
                if len(self._places) >= PLACES_REMEMBERED:
                    self._places.clear()
                self._places[symbol, number] = entries[-1][0].decode("ascii", "replace")
        return trades

    def _trades(self, data: bytes, symbol: str, now: datetime) -> list[TradeData]:
        found: list[Any] = self._decode(trade_frame(data), now)
        return [
            replace(trade, received_at=now)
            for trade in found
            if isinstance(trade, TradeData) and trade.symbol == symbol
        ]

    def __repr__(self) -> str:
        return f"<StreamHistory {self._keys.prefix}>"
