"""Who wants what: reference counts per topic, and the depth that satisfies everybody. No lock, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final, NamedTuple

from ..errors import InvalidRequestError
from ..models.topic import Topic, Wish

FULL_DEPTH: Final = 30  # what a wish without a depth means


class Change(NamedTuple):
    """What a call changed in the union of all wishes."""

    added: frozenset[Topic]
    removed: frozenset[Topic]
    deepened: frozenset[Topic]  # or made shallower: the depth to ask for is another


class Registry:
    """A multiset of wishes; the union is what has to be streamed."""

    def __init__(self) -> None:
        self._depths: dict[Topic, Counter[int]] = {}

    def want(self, wishes: Iterable[Wish]) -> Change:
        """Count each wish once more."""
        return self._counted(list(wishes), +1)

    def unwant(self, wishes: Iterable[Wish]) -> Change:
        """Take back wishes made before; InvalidRequestError, and no change, if one of them was not made."""
        given_back = list(wishes)
        for wish, times in Counter((wish.topic, _depth(wish)) for wish in given_back).items():
            topic, depth = wish
            if self._depths.get(topic, Counter())[depth] < times:
                raise InvalidRequestError(f"{topic} (depth {depth}) was not wanted {times} times")
        return self._counted(given_back, -1)

    def _counted(self, wishes: list[Wish], step: int) -> Change:
        topics = {wish.topic for wish in wishes}
        before = {topic: self._deepest(topic) for topic in topics}
        for wish in wishes:
            self._depths.setdefault(wish.topic, Counter())[_depth(wish)] += step
        for topic in topics:
            self._depths[topic] = +self._depths[topic]  # drops what counts zero
            if not self._depths[topic]:
                del self._depths[topic]
        after = {topic: self._deepest(topic) for topic in topics}
        return Change(
            added=frozenset(topic for topic in topics if before[topic] is None and after[topic] is not None),
            removed=frozenset(topic for topic in topics if after[topic] is None and before[topic] is not None),
            deepened=frozenset(
                topic for topic in topics if before[topic] is not None and after[topic] not in (None, before[topic])
            ),
        )

    def _deepest(self, topic: Topic) -> int | None:
        depths = self._depths.get(topic)
        return max(depths) if depths else None

    def wish(self, topic: Topic) -> Wish:
        """The one wish that satisfies everybody who wants `topic`, which must be wanted."""
        deepest = max(self._depths[topic])
        return Wish(topic, None if deepest >= FULL_DEPTH else deepest)

    def count(self, topic: Topic) -> int:
        return self._depths.get(topic, Counter()).total()

    def topics(self) -> frozenset[Topic]:
        return frozenset(self._depths)

    def __contains__(self, topic: Topic) -> bool:
        return topic in self._depths

    def __len__(self) -> int:
        return len(self._depths)

    def __repr__(self) -> str:
        wishes = sum(depths.total() for depths in self._depths.values())
        return f"<Registry {len(self)} topics for {wishes} wishes>"


def _depth(wish: Wish) -> int:
    return FULL_DEPTH if wish.depth is None else min(wish.depth, FULL_DEPTH)
