"""The registry against a plain multiset: whatever is wanted and unwanted, the union is right."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from upbit_backbone.models.enums import DataType
from upbit_backbone.models.request import SubscriptionRequest, Topic
from upbit_backbone.sessions.subscription_plan import Registry

BTC = Topic(DataType.ORDERBOOK, "KRW-BTC")
ETH = Topic(DataType.ORDERBOOK, "KRW-ETH")
TOPICS = [Topic(kind, symbol) for kind in (DataType.TICKER, DataType.ORDERBOOK) for symbol in ("KRW-BTC", "KRW-ETH")]
DEPTHS = [None, 1, 5, 15, 30]


class Interruption:
    """A depth that is interrupted when it is first looked at: in the middle of a change."""

    has_struck = False

    def __lt__(self, other: object) -> bool:
        if self.has_struck:
            return False
        self.has_struck = True
        raise KeyboardInterrupt

    __gt__ = __lt__


class RegistryMachine(RuleBasedStateMachine):
    """The model is what each owner wants. Now and then a change breaks off where the figures are half made."""

    def __init__(self) -> None:
        super().__init__()
        self.registry = Registry()
        self.wanted: dict[int, list[SubscriptionRequest]] = {}

    @rule(
        owner=st.integers(0, 4),
        requests=st.lists(st.builds(SubscriptionRequest, st.sampled_from(TOPICS), st.sampled_from(DEPTHS)), max_size=5),
    )
    def acquire(self, owner: int, requests: list[SubscriptionRequest]) -> None:
        before = self.topics()
        change = self.registry.acquire(owner, requests)
        self.wanted[owner] = requests
        assert change.added == self.topics() - before
        assert change.removed == before - self.topics()

    @rule(owner=st.integers(0, 4))
    def release(self, owner: int) -> None:
        before = self.topics()
        change = self.registry.release(owner)
        self.wanted.pop(owner, None)
        assert change.removed == before - self.topics()
        assert not change.added

    @rule(owner=st.integers(0, 4), request=st.builds(SubscriptionRequest, st.sampled_from(TOPICS)))
    def break_off(self, owner: int, request: SubscriptionRequest) -> None:
        interrupting = SubscriptionRequest(request.topic, Interruption())  # type: ignore[arg-type]
        with pytest.raises(KeyboardInterrupt):
            self.registry.acquire(owner, [request, interrupting])
        self.registry.acquire(owner, self.wanted.get(owner, []))  # as who makes the change does then

    @property
    def model(self) -> Counter[tuple[Topic, int]]:
        return Counter((each.topic, each.depth or 30) for requests in self.wanted.values() for each in requests)

    def topics(self) -> set[Topic]:
        return {topic for topic, _ in self.model.elements()}

    @invariant()
    def the_union_is_the_models(self) -> None:
        assert self.registry.topics() == self.topics()
        for topic in self.topics():
            deepest = max(depth for wanted, depth in self.model if wanted == topic)
            assert self.registry.request(topic) == SubscriptionRequest(topic, None if deepest == 30 else deepest)
            assert self.registry.count(topic) == sum(n for (wanted, _), n in self.model.items() if wanted == topic)


TestRegistryMachine = RegistryMachine.TestCase
TestRegistryMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_the_greatest_depth_satisfies_everybody_and_shrinks_when_its_friend_leaves() -> None:
    registry = Registry()
    registry.acquire("one", [SubscriptionRequest(BTC, 5)])
    assert registry.acquire("another", [SubscriptionRequest(BTC, 15)]).deepened == {BTC}
    assert registry.request(BTC) == SubscriptionRequest(BTC, 15)
    assert registry.release("another").deepened == {BTC}
    assert registry.request(BTC) == SubscriptionRequest(BTC, 5)


def test_who_wants_other_things_wants_the_old_ones_no_more() -> None:
    registry = Registry()
    registry.acquire("one", [SubscriptionRequest(BTC)])
    change = registry.acquire("one", [SubscriptionRequest(ETH)])
    assert (change.added, change.removed) == ({ETH}, {BTC})
    assert registry.topics() == {ETH}
    assert registry.of("one") == (SubscriptionRequest(ETH),)


def test_the_repr_counts_topics_and_requests() -> None:
    registry = Registry()
    registry.acquire("one", [SubscriptionRequest(BTC), SubscriptionRequest(BTC), SubscriptionRequest(ETH)])
    assert repr(registry) == "<Registry 2 topics for 3 requests>"
    assert (len(registry), BTC in registry) == (2, True)
