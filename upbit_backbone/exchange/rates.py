"""Upbit's rate groups, how much each allows, and what `Remaining-Req` says of it. Pure.

Docs: rate-limits (2026-09-08). REST groups count per IP, subscription messages per connection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from ..models.enums import RateGroup

REQUESTS_PER_SECOND: Final = 10.0  # of each REST group
CONNECTS_PER_SECOND: Final = 5.0  # WebSocket handshakes
MESSAGES_PER_SECOND: Final = 5  # subscription messages of one connection
MESSAGES_PER_MINUTE: Final = 100

# What Upbit calls the groups in `Remaining-Req`, which is not always what the docs call them.
GROUPS_ON_THE_WIRE: Final[Mapping[str, RateGroup]] = MappingProxyType(
    {
        "market": RateGroup.MARKET,
        "candle": RateGroup.CANDLE,
        "candles": RateGroup.CANDLE,
        "trade": RateGroup.TRADE,
        "crix-trades": RateGroup.TRADE,
        "ticker": RateGroup.TICKER,
        "orderbook": RateGroup.ORDERBOOK,
        "websocket": RateGroup.WEBSOCKET_CONNECT,
        "websocket-connect": RateGroup.WEBSOCKET_CONNECT,
    }
)
REST_GROUPS: Final = (
    RateGroup.MARKET,
    RateGroup.CANDLE,
    RateGroup.TRADE,
    RateGroup.TICKER,
    RateGroup.ORDERBOOK,
)


class Remaining(NamedTuple):
    """What `Remaining-Req` says: calls left in the present second, for a group (None: one we do not know)."""

    group: RateGroup | None
    name: str
    per_second: int


_REMAINING = re.compile(r"\s*([a-z_]{1,10})\s*=\s*([a-z0-9_-]{1,40})\s*", re.ASCII | re.IGNORECASE)


def parse_remaining(header: str | None) -> Remaining | None:
    """`group=candles; min=600; sec=9`, in any order; None for anything else. Never raises."""
    return _parsed(header) if header and len(header) <= 200 else None


@lru_cache(maxsize=256)  # with every answer comes one of a few dozen
def _parsed(header: str) -> Remaining | None:
    parts = {match[1].lower(): match[2].lower() for each in header.split(";") if (match := _REMAINING.fullmatch(each))}
    name, seconds = parts.get("group"), parts.get("sec", "")
    if name is None or not re.fullmatch(r"\d{1,6}", seconds, re.ASCII):
        return None
    return Remaining(GROUPS_ON_THE_WIRE.get(name), name, int(seconds))
