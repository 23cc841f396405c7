"""Who wants what: reference counts per topic, and the depth that satisfies everybody. No lock, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from ..errors import InvalidRequestError
from ..exchange.endpoints import MAX_LEVELS
from ..models.topic import SubscriptionRequest, Topic


class Change(NamedTuple):
    """What a call changed in the union of all requests."""

    added: frozenset[Topic]
    removed: frozenset[Topic]
    deepened: frozenset[Topic]  # or made shallower: the depth to ask for is another


class Registry:
    """A multiset of requests; the union is what has to be streamed."""

    def __init__(self) -> None:
        self._depths: dict[Topic, Counter[int]] = {}

    def acquire(self, requests: Iterable[SubscriptionRequest]) -> Change:
        """Count each request once more."""
        return self._counted(list(requests), +1)

    def release(self, requests: Iterable[SubscriptionRequest]) -> Change:
        """Take back requests made before; InvalidRequestError, and no change, if one of them was not made."""
        given_back = list(requests)
        for request, times in Counter((request.topic, _depth(request)) for request in given_back).items():
            topic, depth = request
            if self._depths.get(topic, Counter())[depth] < times:
                raise InvalidRequestError(f"{topic} (depth {depth}) was not wanted {times} times")
        return self._counted(given_back, -1)

    def _counted(self, requests: list[SubscriptionRequest], step: int) -> Change:
        topics = {request.topic for request in requests}
        before = {topic: self._deepest(topic) for topic in topics}
        for request in requests:
            self._depths.setdefault(request.topic, Counter())[_depth(request)] += step
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

    def request(self, topic: Topic) -> SubscriptionRequest:
        """The one request that satisfies everybody who wants `topic`, which must be wanted."""
        deepest = max(self._depths[topic])
        return SubscriptionRequest(topic, None if deepest >= MAX_LEVELS else deepest)

    def count(self, topic: Topic) -> int:
        return self._depths.get(topic, Counter()).total()

    def topics(self) -> frozenset[Topic]:
        return frozenset(self._depths)

    def __contains__(self, topic: Topic) -> bool:
        return topic in self._depths

    def __len__(self) -> int:
        return len(self._depths)

    def __repr__(self) -> str:
        requests = sum(depths.total() for depths in self._depths.values())
        return f"<Registry {len(self)} topics for {requests} requests>"


def _depth(request: SubscriptionRequest) -> int:
    return MAX_LEVELS if request.depth is None else min(request.depth, MAX_LEVELS)
