"""Upbit as the lifecycle meets it: lines with subscriptions, latencies and limits, trades at random."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from decimal import Decimal

from upbit_backbone.models.enums import DataType
from upbit_backbone.models.request import Topic
from upbit_backbone.wire.frames import BINARY, CLOSE, PING, PONG

IDLE_CLOSE_SECONDS = 60.0  # measured at Upbit
SYMBOLS = [f"KRW-C{number:02}" for number in range(14)]
KINDS = [DataType.TICKER, DataType.TRADE, DataType.ORDERBOOK]
TOPICS = [Topic(kind, symbol) for symbol in SYMBOLS for kind in KINDS]
UNKNOWN = [Topic(DataType.TICKER, "KRW-NOSUCH1"), Topic(DataType.TRADE, "KRW-NOSUCH2")]
OFFENSIVE = [Topic(DataType.TRADE, "KRW-BAD1"), Topic(DataType.TICKER, "KRW-BAD2")]
NAMES = {str(topic): topic for topic in TOPICS + UNKNOWN + OFFENSIVE}


def frame(payload: bytes, opcode: int = BINARY) -> bytes:
    if len(payload) < 126:
        return bytes((0x80 | opcode, len(payload))) + payload
    return bytes((0x80 | opcode, 126)) + len(payload).to_bytes(2, "big") + payload


def frames_of(data: bytes) -> list[bytes]:
    """Whole frames apart; what is none stays in one piece."""
    frames = []
    while len(data) > 4 and data[0] & 0x80 and data[1] < 127:
        size = 2 + data[1] if data[1] < 126 else 4 + int.from_bytes(data[2:4])
        frames.append(data[:size])
        data = data[size:]
    return [*frames, data] if data else frames


def close_frame(code: int) -> bytes:
    return frame(code.to_bytes(2, "big"), CLOSE)


@dataclass(eq=False)
class OpenConnection:
    """One connection as the server sees it."""

    number: int
    opened_at: float
    is_open: bool = True
    is_frozen: bool = False
    is_mute: bool = False
    topic_stalls: set[Topic] = field(default_factory=set)
    subscribed: frozenset[Topic] = frozenset()
    messages: deque[float] = field(default_factory=lambda: deque(maxlen=101))
    subscriptions: int = 0
    active_at: float = 0.0
    arrives_at: float = 0.0  # nothing overtakes what was sent before, in either direction
    reaches_at: float = 0.0
    sent_at: float = -1.0  # when the client last sent something
    excuses: set[str] = field(default_factory=set)  # why the client may give this line up
    unpictured: set[Topic] = field(default_factory=set)  # subscribed, but the snapshot was kept back
    missed: dict[Topic, float] = field(default_factory=dict)  # first trade that was not told, per topic


def subscription_of(text: str) -> frozenset[Topic] | None:
    """The topics of a subscription message; None for a question about subscriptions."""
    parts = json.loads(text)
    assert parts[0].keys() == {"ticket"}
    assert parts[-1] == {"format": "SIMPLE"}
    if parts[1] == {"method": "LIST_SUBSCRIPTIONS"}:
        return None
    topics = set()
    for entry in parts[1:-1]:
        level = Decimal(entry.get("level", "0"))
        topics.update(Topic(DataType(entry["type"]), code.split(".")[0], level) for code in entry["codes"])
    return frozenset(topics)


def pong_frame(payload: bytes) -> bytes:
    return frame(payload, PONG)


def ping_frame(payload: bytes) -> bytes:
    return frame(payload, PING)
