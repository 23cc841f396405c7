"""Which topics still owe us their first frame: Upbit ignores unknown codes without a word. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from ..models.topic import Topic


class FirstFrames:
    """Topics reported once when late, and remembered until their first frame comes after all."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._awaited: dict[Topic, float] = {}  # deadlines never fall in order of insertion
        self.missing: set[Topic] = set()

    def expect(self, topics: Iterable[Topic], now: float) -> None:
        """A message that adds `topics` went out."""
        for topic in topics:
            self._awaited.pop(topic, None)
            self._awaited[topic] = now + self._seconds

    def arrived(self, topic: Topic) -> bool:
        """Note the frame; True if the topic had been reported as missing."""
        self._awaited.pop(topic, None)
        was_missing = topic in self.missing
        self.missing.discard(topic)
        return was_missing

    def late(self, now: float) -> frozenset[Topic]:
        """Topics whose deadline has passed and which were not reported before."""
        late = set()
        for topic, deadline in self._awaited.items():
            if deadline > now:
                break
            late.add(topic)
        for topic in late:
            del self._awaited[topic]
        news = frozenset(late - self.missing)
        self.missing |= late
        return news

    def line_lost(self) -> None:
        self._awaited.clear()

    def keep(self, topics: frozenset[Topic]) -> None:
        """Only `topics` are still wanted."""
        self._awaited = {topic: at for topic, at in self._awaited.items() if topic in topics}
        self.missing &= topics

    @property
    def due(self) -> float:
        return next(iter(self._awaited.values()), inf)
