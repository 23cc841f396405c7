"""Relay keys: under which names a relay publishes to Redis, and how whoever reads there finds its way. Pure.

All keys of a prefix carry it in braces, so that a Redis Cluster keeps them on one node, where scripts reach them all.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Final

from ..errors import InvalidRequestError
from ..exchange.markets import CODE
from ..models.enums import DataType
from ..models.request import ZERO, Topic

# Written under a prefix by the first relay that uses it. What is otherwise there is not ours to touch.
SCHEMA: Final = "upbit-backbone relay 2"
DEFAULT_PREFIX: Final = "upbit"
_PREFIX: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)
_UNNAMED: Final = re.compile(r"[^A-Za-z0-9.-]")
_TOPIC: Final = re.compile(r"([a-z0-9.]{1,16}):([^@\s]{1,40})(?:@([0-9.]{1,24}))?", re.ASCII)


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
        self.demand = self._key("demand")
        self.pulse = self._key("live")
        # What relays have seen, each by its own line: the one that leads, and the latest of those that stand by.
        self.seen = self._key("seen")
        self.seen_by_others = self._key("seen-by-others")

    def limits(self, egress: str, host: str, kind: str, group: str = "") -> str:
        """What machines that reach Upbit's `host` by one address, called `egress`, keep together of its limits."""
        parts = (egress, _UNNAMED.sub("_", host), kind, *filter(None, (group,)))
        return f"{self._key('limits')}:{':'.join(parts)}"

    def latest(self, topic: Topic) -> str:
        """The hash with the newest datum of a ticker, order book or forming candle."""
        return self._key("latest", topic)

    def stream(self, topic: Topic) -> str:
        """The stream of trades or closed candles."""
        return self._key("stream", topic)

    def published(self, topic: Topic) -> str:
        """The ids that the stream has had, so that it gets each once, whoever leads."""
        return self._key("ids", topic)

    def live(self, topic: Topic) -> str:
        """The channel on which each datum is told as it comes; `pulse` is the one of the leader's heartbeats."""
        return self._key("live", topic)

    def shared(self, host: str, kind: str, question: str) -> str:
        """An answer of Upbit's `host` to one `question`, or the note of who asks it at the moment."""
        return f"{self._key('answers')}:{_UNNAMED.sub('_', host)}:{kind}:{question}"

    def _key(self, kind: str, topic: Topic | None = None) -> str:
        name = f"{{{self.prefix}}}:{kind}"
        return name if topic is None else f"{name}:{topic}"

    def __repr__(self) -> str:
        return f"<Keys {self.prefix}>"


def topic_named(text: str) -> Topic | None:
    """The topic that `str(topic)` gave `text`; None for anything else."""
    found = _TOPIC.fullmatch(text)
    if found is None or not CODE.fullmatch(found[2]):
        return None
    try:
        data_type, level = DataType(found[1]), Decimal(found[3] or ZERO)
    except (ValueError, InvalidOperation):
        return None
    topic = Topic(data_type, found[2], level)
    # One name for each: "@0" and "@1.0" would be streamed beside what they equal.
    return topic if str(topic) == text and (not level or data_type is DataType.ORDERBOOK) else None
