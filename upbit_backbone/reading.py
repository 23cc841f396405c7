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

# Where a decoded item belongs, read off the item itself: its type, symbol and what else tells topics apart.
Place = tuple[object, ...]


class Expectation:
    """What is expected on one session. Touched by that session's thread only."""

    def __init__(self) -> None:
        self.epoch = -1  # of the connection whose frames are taken; none are while it is -1
        self.topics: frozenset[Topic] = frozenset()
        self.awaited: set[Topic] = set()  # those whose first frame has not come yet
        self.by_place: dict[Place, Topic] = {}
        self.unwanted = 0  # items of no topic expected
        self.outdated = 0  # items older than what was known
        self.horizon = Horizon()
        self.timed_at = float("-inf")  # when its lag behind the exchange was last taken

    def expect(self, epoch: int, topics: frozenset[Topic]) -> None:
        """From now on the connection `epoch` streams exactly `topics`; the new ones begin with a first frame."""
        known = self.topics if epoch == self.epoch else frozenset()
        self.awaited = (self.awaited | (topics - known)) & topics if epoch == self.epoch else set(topics)
        self.epoch = epoch
        self.topics = topics
        self.by_place = {_place_of(topic): topic for topic in topics}

    def fall_silent(self) -> None:
        """The line was lost: nothing is expected until the next `expect`."""
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
