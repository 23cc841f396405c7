"""The registry against a plain multiset: whatever is wanted and unwanted, the union is right."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.models.enums import DataType
from upbit_backbone.models.topic import SubscriptionRequest, Topic
from upbit_backbone.sessions.registry import Registry

BTC = Topic(DataType.ORDERBOOK, "KRW-BTC")
ETH = Topic(DataType.ORDERBOOK, "KRW-ETH")
TOPICS = [Topic(kind, symbol) for kind in (DataType.TICKER, DataType.ORDERBOOK) for symbol in ("KRW-BTC", "KRW-ETH")]
DEPTHS = [None, 1, 5, 15, 30]


class RegistryMachine(RuleBasedStateMachine):
    """The model is a list of everything wanted and not yet taken back."""

    def __init__(self) -> None:
        super().__init__()
        self.registry = Registry()
        self.model: Counter[tuple[Topic, int]] = Counter()

    @rule(
        requests=st.lists(st.builds(SubscriptionRequest, st.sampled_from(TOPICS), st.sampled_from(DEPTHS)), max_size=5)
    )
    def acquire(self, requests: list[SubscriptionRequest]) -> None:
        before = self.topics()
        change = self.registry.acquire(requests)
        self.model.update((request.topic, request.depth or 30) for request in requests)
        assert change.added == self.topics() - before
        assert not change.removed

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def unwant_some(self, data: st.DataObject) -> None:
        wanted = sorted(self.model.elements())
        chosen = data.draw(st.lists(st.sampled_from(range(len(wanted))), unique=True, max_size=5))
        before = self.topics()
        change = self.registry.release([SubscriptionRequest(*wanted[position]) for position in chosen])
        self.model.subtract(wanted[position] for position in chosen)
        self.model = +self.model
        assert change.removed == before - self.topics()
        assert not change.added

    @rule(topic=st.sampled_from(TOPICS), depth=st.sampled_from([1, 5, 15, 30]))
    def unwant_too_much_changes_nothing(self, topic: Topic, depth: int) -> None:
        times = self.model[topic, depth] + 1
        with pytest.raises(InvalidRequestError):
            self.registry.release([SubscriptionRequest(topic, depth)] * times)

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
    registry.acquire([SubscriptionRequest(BTC, 5)])
    assert registry.acquire([SubscriptionRequest(BTC, 15)]).deepened == {BTC}
    assert registry.request(BTC) == SubscriptionRequest(BTC, 15)
    assert registry.release([SubscriptionRequest(BTC, 15)]).deepened == {BTC}
    assert registry.request(BTC) == SubscriptionRequest(BTC, 5)


def test_a_refused_call_takes_nothing_back() -> None:
    registry = Registry()
    registry.acquire([SubscriptionRequest(BTC)])
    with pytest.raises(InvalidRequestError, match="KRW-ETH"):
        registry.release([SubscriptionRequest(BTC), SubscriptionRequest(ETH)])
    assert registry.topics() == {BTC}


def test_the_repr_counts_topics_and_wishes() -> None:
    registry = Registry()
    registry.acquire([SubscriptionRequest(BTC), SubscriptionRequest(BTC), SubscriptionRequest(ETH)])
    assert repr(registry) == "<Registry 2 topics for 3 requests>"
    assert (len(registry), BTC in registry) == (2, True)
