"""Connection pool: which connection carries which topic; few, evenly loaded, one symbol's topics together.

No lock, no clock: the manager calls it under its own lock. A topic stays where it is for as long as it is
wanted, because moving it would cost a gap.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Final, Generic, TypeVar

from ..errors import SubscriptionError
from ..exchange.markets import FIATS
from ..models.enums import DataType
from ..models.request import Topic

# Frames per second to expect of a lively KRW market (measured: books every 100 ms at most, candles each second).
TYPE_WEIGHTS: Final = {DataType.ORDERBOOK: 4.0, DataType.TICKER: 1.5, DataType.TRADE: 1.5}
CANDLE_WEIGHT: Final = 0.5  # at most one a second of each unit, and none in a second without a trade
QUIET_QUOTE_FACTOR: Final = 0.3  # BTC and USDT markets trade far less
COMFORTABLE_WEIGHT: Final = 1500.0  # expected frames per second above which a further connection is opened

Carrier = TypeVar("Carrier", bound=Hashable)


def weight(topic: Topic) -> float:
    """Frames per second to expect of `topic`."""
    quote = topic.symbol.partition("-")[0]
    factor = 1.0 if quote in FIATS else QUIET_QUOTE_FACTOR
    return TYPE_WEIGHTS.get(topic.data_type, CANDLE_WEIGHT) * factor


class _Load:
    """What one carrier carries."""

    __slots__ = ("symbols", "topics", "weight")

    def __init__(self) -> None:
        self.topics: set[Topic] = set()
        self.symbols: dict[str, int] = {}
        self.weight = 0.0

    def add(self, topic: Topic) -> None:
        self.topics.add(topic)
        self.symbols[topic.symbol] = self.symbols.get(topic.symbol, 0) + 1
        self.weight += weight(topic)

    def remove(self, topic: Topic) -> None:
        self.topics.discard(topic)
        self.symbols[topic.symbol] -= 1
        if not self.symbols[topic.symbol]:
            del self.symbols[topic.symbol]
        self.weight = self.weight - weight(topic) if self.topics else 0.0


class ConnectionPool(Generic[Carrier]):
    """Assigns topics to carriers (sessions), within caps on both."""

    def __init__(self, *, max_connections: int, max_topics_per_connection: int) -> None:
        self._max_connections = max_connections
        self._max_topics = max_topics_per_connection
        self._carriers: dict[Carrier, None] = {}  # in the order in which they came
        self._homes: dict[Topic, Carrier] = {}
        # Derived from the two above, and kept only while it is whole: an exception in the middle of a change (Ctrl-C on
        # the thread that subscribes) leaves None, and it is summed up anew.
        self._sums: dict[Carrier, _Load] | None = {}

    def check_room(self, added: int) -> None:
        """SubscriptionError if so many more topics would not fit on all connections together."""
        room = self._max_connections * self._max_topics
        if len(self._homes) + added > room:
            raise SubscriptionError(
                f"{len(self._homes) + added} topics are more than {self._max_connections} connections of "
                f"{self._max_topics} can carry; raise max_connections or max_topics_per_connection, or want less"
            )

    def add(self, carrier: Carrier) -> None:
        loads, self._sums = self._loads, None
        self._carriers[carrier] = None
        loads[carrier] = _Load()
        self._sums = loads

    @property
    def _loads(self) -> dict[Carrier, _Load]:
        """What each carries."""
        if self._sums is None:
            loads = {carrier: _Load() for carrier in self._carriers}
            for topic, carrier in self._homes.items():
                loads[carrier].add(topic)
            self._sums = loads
        return self._sums

    def remove(self, carrier: Carrier) -> None:
        """Forget a carrier that carries nothing."""
        loads = self._loads
        if loads[carrier].topics:
            raise ValueError(f"{carrier!r} still carries topics")
        self._sums = None
        del self._carriers[carrier]
        del loads[carrier]
        self._sums = loads

    def place(self, topic: Topic) -> Carrier | None:
        """Where `topic` goes: with its symbol, or to the least loaded; None asks for a further carrier first."""
        carrier = self._home_for(topic)
        if carrier is not None:
            # None while the two disagree: an exception between here and the last line has it summed up anew.
            loads, self._sums = self._loads, None
            self._homes[topic] = carrier
            loads[carrier].add(topic)
            self._sums = loads
        return carrier

    def _home_for(self, topic: Topic) -> Carrier | None:
        roomy = [carrier for carrier, load in self._loads.items() if len(load.topics) < self._max_topics]
        comfortable = [carrier for carrier in roomy if self._is_comfortable(carrier, topic)]
        if not comfortable and self.may_grow:
            return None
        together = [carrier for carrier in roomy if topic.symbol in self._loads[carrier].symbols]
        return min(together or comfortable or roomy, key=lambda each: self._loads[each].weight, default=None)

    def _is_comfortable(self, carrier: Carrier, topic: Topic) -> bool:
        return self._loads[carrier].weight + weight(topic) <= COMFORTABLE_WEIGHT

    def get_connection(self, symbol: str) -> Carrier | None:
        """The connection that carries `symbol`, or the one that would carry its ticker if somebody wanted it.

        None where that would be a further one, or where all are full. Changes nothing.
        """
        carrying = [carrier for carrier, load in self._loads.items() if symbol in load.symbols]
        if carrying:
            return min(carrying, key=lambda each: self._loads[each].weight)
        return self._home_for(Topic(DataType.TICKER, symbol))

    def release_connection(self, connection: Carrier) -> frozenset[Topic]:
        """Give `connection` up; the topics it carried have no home until they are placed again.

        Nothing, and no topics, for a connection that is not (any more) one of ours.
        """
        topics = self.carried(connection)
        if connection in self._loads:
            self.release(topics)
            self.remove(connection)
        return topics

    def cleanup_idle_connections(self) -> int:
        """Forget the connections that carry nothing; how many that were."""
        idle = self.idle()
        for carrier in idle:
            self.remove(carrier)
        return len(idle)

    def idle(self) -> list[Carrier]:
        """The connections that carry nothing."""
        return [carrier for carrier, load in self._loads.items() if not load.topics]

    def release(self, topics: Iterable[Topic]) -> set[Carrier]:
        """These topics are wanted no more; the carriers that carried them."""
        touched = set()
        for topic in topics:
            loads, self._sums = self._loads, None
            carrier = self._homes.pop(topic)
            loads[carrier].remove(topic)
            self._sums = loads
            touched.add(carrier)
        return touched

    def half(self, carrier: Carrier) -> list[Topic]:
        """Half of what `carrier` carries by weight, the topics of a symbol together; nothing, if it is one symbol."""
        load = self._loads[carrier]
        chosen: list[Topic] = []
        taken = 0.0
        for symbol in sorted(load.symbols)[1:]:
            topics = sorted(topic for topic in load.topics if topic.symbol == symbol)
            if taken + sum(map(weight, topics)) > load.weight / 2:
                break
            chosen += topics
            taken += sum(map(weight, topics))
        return chosen

    def move(self, topics: Iterable[Topic], carrier: Carrier) -> None:
        """From now on `carrier` carries these."""
        for topic in topics:
            loads, self._sums = self._loads, None
            before, self._homes[topic] = self._homes[topic], carrier
            loads[before].remove(topic)
            loads[carrier].add(topic)
            self._sums = loads

    def lightest(self, but: Carrier, added: int) -> Carrier | None:
        """A carrier with at most half the load of `but` and room for so many more topics, if there is one."""
        others = [
            each for each, load in self._loads.items() if each != but and len(load.topics) + added <= self._max_topics
        ]
        lightest = min(others, key=lambda each: self._loads[each].weight, default=None)
        is_light = lightest is not None and self._loads[lightest].weight <= self._loads[but].weight / 2
        return lightest if is_light else None

    @property
    def may_grow(self) -> bool:
        return len(self._loads) < self._max_connections

    def home(self, topic: Topic) -> Carrier:
        return self._homes[topic]

    def homes(self) -> dict[Topic, Carrier]:
        """Where each topic is."""
        return dict(self._homes)

    def carried(self, carrier: Carrier) -> frozenset[Topic]:
        load = self._loads.get(carrier)
        return frozenset() if load is None else frozenset(load.topics)

    def carriers(self) -> list[Carrier]:
        return list(self._carriers)

    def __contains__(self, carrier: Carrier) -> bool:
        return carrier in self._carriers

    def __repr__(self) -> str:
        loads = ", ".join(f"{len(load.topics)} topics ~{load.weight:.0f}/s" for load in self._loads.values())
        return f"<ConnectionPool {len(self._loads)}/{self._max_connections}: {loads or 'empty'}>"
