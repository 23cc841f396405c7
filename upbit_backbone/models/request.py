"""Questions, what can be streamed, and the way chosen to answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from .enums import Channel, ChannelPreference, DataStrategy, DataType, Priority, RequestKind
from .jsonable import Jsonable
from .readable import table

ZERO = Decimal(0)


class Topic(NamedTuple):
    """One thing Upbit can stream: a type, a market and, for order books, the price grouping.

    Depth is no part of it: books are subscribed at the greatest depth anyone requests and trimmed on delivery,
    because Upbit's frames carry the market code without the depth suffix.
    """

    data_type: DataType
    symbol: str
    level: Decimal = ZERO

    def __str__(self) -> str:
        level = f"@{self.level}" if self.level else ""
        return f"{self.data_type.value}:{self.symbol}{level}"


@dataclass(frozen=True, slots=True)
class SubscriptionRequest:
    """A topic somebody wants, with the depth that satisfies everybody who wants it (None: 30, Upbit's default)."""

    topic: Topic
    depth: int | None = None


@dataclass(frozen=True, slots=True)
class DataRequest(Jsonable):
    """One validated question. `symbols` are Upbit codes; what does not apply to `kind` keeps its default."""

    kind: RequestKind
    symbols: tuple[str, ...] = ()
    timeframe: str | None = None
    count: int = 1
    to: datetime | None = None
    start: datetime | None = None
    end: datetime | None = None
    levels: int = 30
    level: Decimal = ZERO
    max_age: float | None = None
    realtime: bool = False
    priority: Priority = Priority.NORMAL
    strategy: DataStrategy = DataStrategy.AUTO
    quote: str | None = None
    is_sweep: bool = False  # one of many symbols asked one after another; the router finds out

    @property
    def symbol(self) -> str:
        """The first of `symbols`."""
        return self.symbols[0]


@dataclass(frozen=True, slots=True, repr=False)
class ChannelDecision(Jsonable):
    """Which channels answer, in order, and why in words. `rule` names the row of the routing table."""

    channels: tuple[Channel, ...]
    reason: str
    rule: str
    degraded: bool = False
    promote: bool = False
    facts: dict[str, object] = field(default_factory=dict)

    @property
    def channel(self) -> Channel | None:
        """The first choice, or None where nothing can answer."""
        return self.channels[0] if self.channels else None

    @property
    def preference(self) -> ChannelPreference:
        """Upbit's stream (its value in memory, or its next frame) or Upbit's REST (its cached answer included).

        A decision without any channel prefers REST: that is what is asked again once something opens.
        """
        prefers_stream = self.channel in (Channel.LIVE, Channel.WEBSOCKET)
        return ChannelPreference.WEBSOCKET_PREFERRED if prefers_stream else ChannelPreference.REST_API_PREFERRED

    def __str__(self) -> str:
        way = " → ".join(channel.name for channel in self.channels) or "nothing"
        return f"{way}: {self.reason}"

    def __repr__(self) -> str:
        return f"<ChannelDecision {self}{', degraded' if self.degraded else ''}>"

    def _repr_html_(self) -> str:
        facts = [(name, str(value)) for name, value in self.facts.items()]
        return table(("decision", str(self)), [("rule", self.rule), ("degraded", str(self.degraded)), *facts])
