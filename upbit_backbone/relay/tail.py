"""Tail: the last trades and closed candles that were published, for a Redis that has lost its memory. Pure.

Who returns from a break goes on where he was, and finds that place only if what came before it is there as well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from ..models.market import CandleData, TradeData
from ..models.request import Topic
from .entries import topic_of

# Longer than trades may overtake each other, before the last one that somebody has.
TAIL_SECONDS: Final = 5.0
OLDER_ITEMS: Final = 8  # of each topic, of those that are older: a quiet market's last ones


class Tail:
    """What was published in the last seconds, and the last few before that of each topic. For one thread."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, TradeData | CandleData]] = deque()
        self._older: dict[Topic, deque[TradeData | CandleData]] = {}

    def add(self, at: float, item: TradeData | CandleData) -> None:
        """The next one, which came at `at` (monotonic)."""
        self._recent.append((at, item))

    def extend(self, items: Iterable[tuple[float, TradeData | CandleData]]) -> None:
        """The next ones, each with when it came."""
        self._recent.extend(items)

    def shorten(self, now: float) -> None:
        """Let go of what is too old by now."""
        while self._recent and self._recent[0][0] < now - TAIL_SECONDS:
            _, item = self._recent.popleft()
            topic = topic_of(item)
            older = self._older.get(topic)
            if older is None:
                older = self._older[topic] = deque(maxlen=OLDER_ITEMS)
            older.append(item)

    @property
    def topics(self) -> set[Topic]:
        """Those of which there is anything."""
        return self._older.keys() | {topic_of(item) for _, item in self._recent}

    def of(self, topics: Collection[Topic]) -> Iterator[TradeData | CandleData]:
        """What there is of `topics`, of each in the order in which it came."""
        for topic in topics:
            yield from self._older.get(topic, ())
        yield from (item for _, item in self._recent if topic_of(item) in topics)

    def __len__(self) -> int:
        return len(self._recent) + sum(map(len, self._older.values()))

    def __repr__(self) -> str:
        return f"<Tail {len(self)} of {len(self.topics)} topics>"
