"""What can be told of an order book frame without decoding it: enough to know where it belongs and whether it is newer.

Only the shape Upbit sends today is recognised (type, market code and timestamp first, level or stream type last);
anything else is for the decoder, which knows them all.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from ..models.topic import ZERO

_HEAD = re.compile(
    rb'\{"(?:ty":"orderbook","cd|type":"orderbook","code)":"([A-Z0-9]{2,10}-[A-Z0-9]{1,20})","(?:tms|timestamp)":(\d{13}),'
)
_TAIL = re.compile(rb'\],"(?:st|stream_type)":"[A-Z]{1,12}"(?:,"(?:lv|level)":([0-9]{1,12}(?:\.[0-9]{1,8})?))?\}\Z')
_TAIL_BYTES = 80
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Glance(NamedTuple):
    """What a book frame says about itself at its two ends."""

    symbol: str
    timestamp: datetime
    level: Decimal


@lru_cache(maxsize=256)
def _level(text: bytes) -> Decimal:
    return Decimal(text.decode("ascii"))


def glance_at_book(raw: bytes) -> Glance | None:
    """Market, exchange time and level of a single book frame; None where the frame is not of the usual shape."""
    head = _HEAD.match(raw)
    if head is None:
        return None
    tail = _TAIL.search(raw, max(0, len(raw) - _TAIL_BYTES))
    if tail is None:
        return None
    level = tail[1]
    # timedelta takes whole milliseconds exactly; fromtimestamp would go through float.
    timestamp = _EPOCH + timedelta(milliseconds=int(head[2]))
    return Glance(head[1].decode("ascii"), timestamp, ZERO if level is None else _level(level))
