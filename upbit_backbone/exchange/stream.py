"""What we say to Upbit on a WebSocket: requests go in, text comes out. Pure.

Upbit replaces the whole subscription with each message (docs: websocket-best-practice), so a message always
holds every type and code. Texts are built by a JSON encoder from parts that were checked here, never by
putting strings together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from .._arguments import whole_number
from ..errors import InvalidRequestError, one_line
from ..models.enums import DataType
from ..models.request import ZERO, SubscriptionRequest, Topic
from ..models.session import SubscriptionList
from .endpoints import BOOK_DEPTHS, WEBSOCKET_FORMATS
from .markets import CODE

_DATA_TYPES: Final = {data_type.value: data_type for data_type in DataType}
_TICKET: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_DEPTH_SUFFIX: Final = re.compile(r"\.\d+\Z", re.ASCII)

# (type, level as text)
Group = tuple[DataType, str]


def subscription_message(ticket: str, requests: Iterable[SubscriptionRequest], format: str) -> str:  # noqa: A002  # Upbit's word
    """The message that makes Upbit stream exactly `requests`, in `format`.

    InvalidRequestError for an empty set (what Upbit does with one is unknown) and for anything Upbit would
    silently ignore or refuse: a malformed code, level or ticket.
    """
    codes: dict[Group, list[str]] = {}
    for request in requests:
        codes.setdefault(_group(request.topic), []).append(_code(request))
    if not codes:
        raise InvalidRequestError("an empty subscription cannot be expressed; close the connection instead")
    entries = [_entry(group, codes[group]) for group in sorted(codes)]
    return _encode([{"ticket": _checked_ticket(ticket)}, *entries, {"format": _checked_format(format)}])


def list_message(ticket: str, format: str) -> str:  # noqa: A002
    """Asks which subscriptions are running. It must carry the streams' own format, or it would change it."""
    return _encode(
        [
            {"ticket": _checked_ticket(ticket)},
            {"method": "LIST_SUBSCRIPTIONS"},
            {"format": _checked_format(format)},
        ]
    )


def listed_topics(listed: SubscriptionList) -> frozenset[Topic]:
    """The topics Upbit says it streams; depth suffixes and types we do not know are left out."""
    topics: set[Topic] = set()
    for kind, codes, level in listed.entries:
        data_type = _DATA_TYPES.get(kind)
        if data_type is not None:
            grouping = Decimal(level) if level and data_type is DataType.ORDERBOOK else ZERO
            topics.update(Topic(data_type, _DEPTH_SUFFIX.sub("", code), grouping) for code in codes)
    return frozenset(topics)


def rounded_depth(depth: int | None) -> int:
    """The smallest depth Upbit offers that holds `depth` levels; 30 where none was named or more is requested."""
    if depth is None:
        return BOOK_DEPTHS[-1]
    depth = whole_number(depth, "depth", low=1)
    return next((offered for offered in BOOK_DEPTHS if offered >= depth), BOOK_DEPTHS[-1])


def _group(topic: Topic) -> Group:
    if not isinstance(topic.data_type, DataType):
        raise InvalidRequestError(f"{one_line(topic.data_type)!r} is no data type of Upbit's streams")
    if topic.data_type is not DataType.ORDERBOOK:
        return topic.data_type, ""
    return topic.data_type, _level(topic.level)


def _level(level: Decimal) -> str:
    """Plain digits, as in Upbit's guide: "10000", "0.1"; empty for no grouping, which is Upbit's default."""
    if not isinstance(level, Decimal) or not level.is_finite() or level < 0:
        raise InvalidRequestError(f"level={level!r}: expected a finite Decimal >= 0")
    return f"{level.normalize():f}" if level else ""


def _code(request: SubscriptionRequest) -> str:
    symbol = request.topic.symbol
    if not isinstance(symbol, str) or not CODE.fullmatch(symbol):
        raise InvalidRequestError(f"{one_line(symbol)!r} is no market code; expected one like KRW-BTC")
    depth = rounded_depth(request.depth)
    if request.topic.data_type is not DataType.ORDERBOOK or request.depth is None:
        return symbol
    return f"{symbol}.{depth}"


def _entry(group: Group, codes: list[str]) -> dict[str, object]:
    data_type, level = group
    entry: dict[str, object] = {"type": data_type.value, "codes": sorted(codes)}
    if level:
        entry["level"] = level
    return entry


def _checked_ticket(ticket: str) -> str:
    if not _TICKET.fullmatch(ticket):
        raise InvalidRequestError(f"ticket={one_line(ticket)!r}: expected 1 to 64 letters, digits, '.', '_', '-'")
    return ticket


def _checked_format(name: str) -> str:
    if name not in WEBSOCKET_FORMATS:
        raise InvalidRequestError(f"format={one_line(name)!r}: expected one of {', '.join(WEBSOCKET_FORMATS)}")
    return name


def _encode(parts: list[dict[str, object]]) -> str:
    return json.dumps(parts, separators=(",", ":"))
