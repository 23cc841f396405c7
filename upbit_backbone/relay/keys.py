"""Keys: what a relay publishes, under which names, and how a datum becomes bytes. Pure.

All keys of a prefix carry it in braces, so that a Redis Cluster keeps them on one node, where scripts reach them all.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from ..errors import InvalidRequestError
from ..models.enums import DataType
from ..models.lazy_book import Datum
from ..models.market import CandleData, TradeData
from ..models.number import encoded
from ..models.request import Topic

# Written under a prefix by the first relay that uses it. What is otherwise there is not ours to touch.
SCHEMA: Final = "upbit-backbone relay 1"
DEFAULT_PREFIX: Final = "upbit"
_PREFIX: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)


class Keys:
    """The names of everything that lies under one prefix."""

    def __init__(self, prefix: str = DEFAULT_PREFIX) -> None:
        if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
            raise InvalidRequestError(
                f"prefix={prefix!r}: expected 1 to 64 letters, digits or any of . _ : - to begin the keys in Redis with"
            )
        self.prefix = prefix
        self.schema = self._key("schema")
        self.leader = self._key("leader")
        self.fence = self._key("fence")
        self.status = self._key("status")
        self.events = self._key("events")

    def latest(self, topic: Topic) -> str:
        """The hash with the newest datum of a ticker, order book or forming candle."""
        return self._key("latest", topic)

    def stream(self, topic: Topic) -> str:
        """The stream of trades or closed candles."""
        return self._key("stream", topic)

    def published(self, topic: Topic) -> str:
        """The ids that the stream has had, so that it gets each once, whoever leads."""
        return self._key("ids", topic)

    def _key(self, kind: str, topic: Topic | None = None) -> str:
        name = f"{{{self.prefix}}}:{kind}"
        return name if topic is None else f"{name}:{topic.data_type.value}:{topic.symbol}"

    def __repr__(self) -> str:
        return f"<Keys {self.prefix}>"


class Latest(NamedTuple):
    """A datum for the hash of its topic; `time` is Upbit's, in milliseconds."""

    topic: Topic
    data: bytes
    source: str
    time: int
    received_at: int
    epoch: int


class Entry(NamedTuple):
    """A datum for the stream of its topic, which gets each `identity` once; `time` is Upbit's, in milliseconds."""

    topic: Topic
    identity: str
    time: int
    data: bytes


_encode: Final = msgspec.json.Encoder(enc_hook=encoded).encode


def milliseconds(moment: datetime | None) -> int:
    return 0 if moment is None else round(moment.timestamp() * 1000)


def topic_of(item: Datum) -> Topic:
    """What streams such a datum."""
    if isinstance(item, CandleData):
        return Topic(DataType(item.timeframe), item.symbol)
    return Topic(DataType.TRADE if isinstance(item, TradeData) else _STATES[type(item).__name__], item.symbol)


_STATES: Final = {"TickerData": DataType.TICKER, "OrderbookData": DataType.ORDERBOOK}


def latest_of(topic: Topic, item: Datum, epoch: int) -> Latest:
    return Latest(
        topic, _encode(item), item.source.value, milliseconds(item.timestamp), milliseconds(item.received_at), epoch
    )


def entry_of_trade(topic: Topic, trade: TradeData) -> Entry:
    time = milliseconds(trade.timestamp)
    # Upbit has numbered every trade so far. One without a number is told from others by all that it says.
    number = trade.sequential_id or f"{time} {trade.side} {trade.price} {trade.volume}"
    return Entry(topic, str(number), time, _encode(trade))


def entry_of_candle(topic: Topic, candle: CandleData) -> Entry:
    """Of a candle whose period is over."""
    closed = candle if candle.is_closed else replace(candle, is_closed=True)
    time = milliseconds(candle.timestamp)
    return Entry(topic, str(time), time, _encode(closed))
