"""What the intake keeps in mind about a session between two reads, and about one read while it goes through."""

from __future__ import annotations

from datetime import datetime

from .models.enums import DataType
from .models.lazy_book import Delivery
from .models.market import CandleData, OrderbookData, TickerData, TradeData
from .models.notice import Notice
from .models.pulse import Pulse
from .models.timeframe import timeframe_of
from .models.topic import Topic
from .sessions.continuity import Line
from .store.plausibility import Horizon

Place = tuple[object, ...]


class Expectation:
    """What is expected on one session. Touched by that session's thread only."""

    def __init__(self) -> None:
        self.epoch = -1
        self.topics: frozenset[Topic] = frozenset()
        self.awaited: set[Topic] = set()
        self.by_place: dict[Place, Topic] = {}
        self.unwanted = 0
        self.outdated = 0
        self.horizon = Horizon()
        self.timed_at = float("-inf")

    def expect(self, epoch: int, topics: frozenset[Topic]) -> None:
        known = self.topics if epoch == self.epoch else frozenset()
        self.awaited = (self.awaited | (topics - known)) & topics if epoch == self.epoch else set(topics)
        self.epoch = epoch
        self.topics = topics
        self.by_place = {_place_of(topic): topic for topic in topics}

    def fall_silent(self) -> None:
        self.awaited = set()
        self.by_place = {}
        self.epoch = -1


class Read:
    """One read off a socket on its way through."""

    __slots__ = ("arrived", "connection", "epoch", "line", "monotonic", "notices", "pulse", "received_at")

    def __init__(self, line: Expectation, pulse: Pulse, epoch: int, monotonic: float, received_at: datetime) -> None:
        self.line = line
        self.pulse = pulse
        self.epoch = epoch
        self.connection = Line(pulse.session, epoch)
        self.monotonic = monotonic
        self.received_at = received_at
        self.notices: list[Notice] = []
        self.arrived: list[Delivery] = []


def _place_of(topic: Topic) -> Place:
    if topic.data_type is DataType.TICKER:
        return TickerData, topic.symbol
    if topic.data_type is DataType.TRADE:
        return TradeData, topic.symbol
    if topic.data_type is DataType.ORDERBOOK:
        return OrderbookData, topic.symbol, topic.level
    return CandleData, topic.symbol, timeframe_of(topic.data_type.value).word
