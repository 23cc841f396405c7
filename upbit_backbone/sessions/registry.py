"""Subscription registry: reference counts per topic, and the depth that satisfies everybody. No lock, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import NamedTuple

from ..exchange.endpoints import MAX_LEVELS
from ..models.request import SubscriptionRequest, Topic


class Change(NamedTuple):
    """What a call changed in the union of all requests."""

    added: frozenset[Topic]
    removed: frozenset[Topic]
    deepened: frozenset[Topic]  # or made shallower: the depth to ask for is another


class Registry:
    """Requests by their owner. Which topics are wanted, how often and how deep, is derived from them.

    What is derived is kept only while it is whole: an exception in the middle of a change (Ctrl-C on the thread that
    subscribes) leaves none, and it is counted anew.
    """

    def __init__(self) -> None:
        self._requests: dict[Hashable, tuple[SubscriptionRequest, ...]] = {}
        self._depths: dict[Topic, Counter[int]] | None = {}

    def acquire(self, owner: Hashable, requests: Iterable[SubscriptionRequest]) -> Change:
        """From now on `owner` wants these, each as often as it is named, and nothing else."""
        return self._change(owner, tuple(requests))

    def release(self, owner: Hashable) -> Change:
        """`owner` wants nothing any more."""
        return self._change(owner, ())

    def of(self, owner: Hashable) -> tuple[SubscriptionRequest, ...]:
        """What `owner` wants."""
        return self._requests.get(owner, ())

    def _change(self, owner: Hashable, requests: tuple[SubscriptionRequest, ...]) -> Change:
        depths, before = self._counted(), self._requests.get(owner, ())
        topics = {request.topic for request in (*before, *requests)}
        deepest = {topic: _deepest(depths, topic) for topic in topics}
        # While the change runs nothing derived is believed: see the class.
        self._depths = None
        if requests:
            self._requests[owner] = requests
        else:
            self._requests.pop(owner, None)
        for request in before:
            depths[request.topic][_depth(request)] -= 1
        for request in requests:
            depths.setdefault(request.topic, Counter())[_depth(request)] += 1
        for topic in topics:
            depths[topic] = +depths[topic]  # drops what counts zero
            if not depths[topic]:
                del depths[topic]
        self._depths = depths
        return _change(deepest, {topic: _deepest(depths, topic) for topic in topics})

    def _counted(self) -> dict[Topic, Counter[int]]:
        if self._depths is None:
            depths: dict[Topic, Counter[int]] = {}
            for requests in self._requests.values():
                for request in requests:
                    depths.setdefault(request.topic, Counter())[_depth(request)] += 1
            self._depths = depths
        return self._depths

    def request(self, topic: Topic) -> SubscriptionRequest:
        """The one request that satisfies everybody who wants `topic`, which must be wanted."""
        deepest = max(self._counted()[topic])
        return SubscriptionRequest(topic, None if deepest >= MAX_LEVELS else deepest)

    def added_by(self, requests: Iterable[SubscriptionRequest]) -> int:
        """How many topics nobody wants yet."""
        return len({each.topic for each in requests if each.topic not in self})

    def count(self, topic: Topic) -> int:
        return self._counted().get(topic, Counter()).total()

    def topics(self) -> frozenset[Topic]:
        return frozenset(self._counted())

    def __contains__(self, topic: Topic) -> bool:
        return topic in self._counted()

    def __len__(self) -> int:
        return len(self._counted())

    def __repr__(self) -> str:
        requests = sum(map(len, self._requests.values()))
        return f"<Registry {len(self)} topics for {requests} requests>"


def _deepest(depths: dict[Topic, Counter[int]], topic: Topic) -> int | None:
    return max(depths[topic]) if topic in depths else None


def _change(before: dict[Topic, int | None], after: dict[Topic, int | None]) -> Change:
    return Change(
        added=frozenset(topic for topic in before if before[topic] is None and after[topic] is not None),
        removed=frozenset(topic for topic in before if after[topic] is None and before[topic] is not None),
        deepened=frozenset(
            topic for topic in before if before[topic] is not None and after[topic] not in (None, before[topic])
        ),
    )


def _depth(request: SubscriptionRequest) -> int:
    return MAX_LEVELS if request.depth is None else min(request.depth, MAX_LEVELS)
