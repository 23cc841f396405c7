"""Entries: what a relay publishes, and how a datum becomes bytes. Pure."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache, partial
from typing import Final, NamedTuple

import msgspec

from ..exchange.fields import Spelling
from ..models.enums import DataType
from ..models.lazy_book import Datum
from ..models.market import CandleData, OrderbookData, TradeData, frame_of
from ..models.number import encoded
from ..models.request import ZERO, Topic
from ..unify.writer import encode_frame


class Latest(NamedTuple):
    """A datum for the hash of its topic; `time` is Upbit's, in milliseconds."""

    topic: Topic
    data: bytes
    source: str
    time: int
    received_at: int
    epoch: int
    frame: bytes


class Entry(msgspec.Struct, frozen=True, gc=False):  # made in C: thousands a second are
    """A datum for the stream of its topic, which gets each `identity` once; `time` is Upbit's, in milliseconds."""

    topic: Topic
    identity: str
    time: int
    frame: bytes
    is_told: bool = True  # also to who listens; else he has had it


_encode: Final = msgspec.json.Encoder(enc_hook=encoded).encode


def milliseconds(moment: datetime | None) -> int:
    return 0 if moment is None else round(moment.timestamp() * 1000)


# By market alone: a topic made for each trade took a tenth of what an entry does, and hashing a kind half of that.
_trades_of: Final = lru_cache(4096)(partial(Topic, DataType.TRADE))
_ticker_of: Final = lru_cache(4096)(partial(Topic, DataType.TICKER))


def topic_of(item: Datum) -> Topic:
    """What streams such a datum."""
    if isinstance(item, TradeData):
        return _trades_of(item.symbol)
    if isinstance(item, CandleData):
        return Topic(DataType(item.timeframe), item.symbol)
    if isinstance(item, OrderbookData):
        return Topic(DataType.ORDERBOOK, item.symbol, item.level or ZERO)
    return _ticker_of(item.symbol)


def latest_of(topic: Topic, item: Datum, epoch: int) -> Latest:
    times = milliseconds(item.timestamp), milliseconds(item.received_at)
    return Latest(topic, _encode(item), item.source.value, *times, epoch, encode_frame(item, Spelling.SIMPLE))


def entry_of(item: TradeData | CandleData) -> Entry:
    """Of a trade, or of a candle whose period is over: who listens has had each state of that."""
    time = round(item.timestamp.timestamp() * 1000)
    if isinstance(item, CandleData):
        return Entry(topic_of(item), str(time), time, encode_frame(item, Spelling.SIMPLE), is_told=False)
    # Upbit has numbered every trade so far. One without a number is told from others by all that it says.
    number = item.sequential_id or f"{time} {item.side} {item.price} {item.volume}"
    # Nothing else of it is looked at, so that the half of it which nobody has made yet stays unmade.
    frame = frame_of(item) or encode_frame(item, Spelling.SIMPLE)
    return Entry(_trades_of(item.symbol), str(number), time, frame)
