"""Which connection carries which topic: few, evenly loaded, one symbol's topics together, moved only when late."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.errors import SubscriptionError
from upbit_backbone.models.enums import DataType
from upbit_backbone.models.request import Topic
from upbit_backbone.sessions.connection_pool import ConnectionPool, weight

BOOK, TICKER, TRADE = DataType.ORDERBOOK, DataType.TICKER, DataType.TRADE


def place_all(pool: ConnectionPool[str], topics: list[Topic]) -> None:
    for topic in topics:
        while pool.place(topic) is None:
            pool.add(f"c{len(pool.carriers()) + 1}")


def pool_of(connections: int = 5, topics: int = 1000) -> ConnectionPool[str]:
    return ConnectionPool(max_connections=connections, max_topics_per_connection=topics)


def test_a_handful_of_topics_shares_one_connection() -> None:
    pool = pool_of()
    place_all(pool, [Topic(kind, symbol) for symbol in ("KRW-BTC", "KRW-ETH") for kind in (BOOK, TICKER, TRADE)])
    assert pool.carriers() == ["c1"]


def test_half_of_a_load_can_move_and_a_symbol_is_never_torn_apart() -> None:
    pool = pool_of()
    symbols = [f"KRW-C{number}" for number in range(10)]
    place_all(pool, [Topic(kind, symbol) for symbol in symbols for kind in (BOOK, TICKER, TRADE)])
    half = pool.half("c1")
    pool.add("c2")
    assert pool.lightest("c1", len(half)) == "c2"
    pool.move(half, "c2")
    assert len(pool.carried("c1")) == len(pool.carried("c2")) == 15
    assert {topic.symbol for topic in pool.carried("c1")}.isdisjoint(topic.symbol for topic in pool.carried("c2"))
    assert all(pool.home(topic) == "c2" for topic in half)
    assert pool.lightest("c1", 1) is None, "it would carry as much as the other"


def test_a_single_symbol_is_not_moved() -> None:
    pool = pool_of()
    place_all(pool, [Topic(kind, "KRW-BTC") for kind in (BOOK, TICKER, TRADE)])
    assert pool.half("c1") == []


def test_the_topics_of_a_symbol_stay_together_across_a_spread_load() -> None:
    pool = pool_of()
    topics = [Topic(BOOK, f"KRW-C{number}") for number in range(800)]
    place_all(pool, topics)
    assert len(pool.carriers()) > 1
    place_all(pool, [Topic(TICKER, topic.symbol) for topic in topics])
    assert all(pool.home(Topic(TICKER, topic.symbol)) == pool.home(topic) for topic in topics)


def test_load_is_spread_by_expected_traffic() -> None:
    pool = pool_of()
    place_all(pool, [Topic(BOOK, f"KRW-C{number}") for number in range(1500)])
    loads = [sum(map(weight, pool.carried(carrier))) for carrier in pool.carriers()]
    assert max(loads) < 2.0 * min(loads) or len(loads) == pool_of()._max_connections


def test_quiet_markets_weigh_less_than_lively_ones() -> None:
    assert weight(Topic(BOOK, "BTC-ETH")) < weight(Topic(TICKER, "KRW-BTC")) < weight(Topic(BOOK, "KRW-BTC"))


def test_more_than_all_connections_can_carry_is_refused_with_a_hint() -> None:
    pool = pool_of(connections=2, topics=3)
    place_all(pool, [Topic(TICKER, f"KRW-C{number}") for number in range(5)])
    pool.check_room(1)
    with pytest.raises(SubscriptionError, match="max_topics_per_connection"):
        pool.check_room(2)


@given(st.lists(st.tuples(st.sampled_from([BOOK, TICKER, TRADE]), st.integers(0, 60)), max_size=120, unique=True))
def test_caps_hold_and_every_topic_has_exactly_one_home(wanted: list[tuple[DataType, int]]) -> None:
    pool = pool_of(connections=3, topics=40)
    topics = [Topic(kind, f"KRW-C{number}") for kind, number in wanted]
    place_all(pool, topics)
    carried = [pool.carried(carrier) for carrier in pool.carriers()]
    assert len(carried) <= 3
    assert all(len(each) <= 40 for each in carried)
    assert sum(map(len, carried)) == len(topics)
    touched = pool.release(topics)
    assert touched <= set(pool.carriers())
    assert all(not pool.carried(carrier) for carrier in pool.carriers())


def test_a_carrier_that_still_carries_cannot_be_forgotten() -> None:
    pool = pool_of()
    place_all(pool, [Topic(TICKER, "KRW-BTC")])
    with pytest.raises(ValueError, match="still carries"):
        pool.remove("c1")
    pool.release([Topic(TICKER, "KRW-BTC")])
    pool.remove("c1")
    assert pool.carriers() == []


def test_the_repr_tells_the_load() -> None:
    pool = pool_of()
    assert repr(pool) == "<ConnectionPool 0/5: empty>"
    place_all(pool, [Topic(BOOK, "KRW-BTC"), Topic(TICKER, "KRW-BTC")])
    assert repr(pool) == "<ConnectionPool 1/5: 2 topics ~6/s>"
