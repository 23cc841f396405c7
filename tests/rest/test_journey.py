"""How far a question travels: the objects that pass it on between `get_ticker()` and the socket."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from upbit_backbone import DataSource, DataStrategy, MarketDataBackbone
from upbit_backbone.simulator import FakeUpbit

OURS, NOT_OURS = "upbit_backbone.", "upbit_backbone.simulator"
MOST_OBJECTS = 9


@pytest.fixture
def market() -> Iterator[MarketDataBackbone]:
    """Its line to the simulator is open, and no answer is young enough to be given twice."""
    with (
        FakeUpbit(trades_per_second=0, markets=5) as upbit,
        MarketDataBackbone(
            rest_url=upbit.rest_url, websocket_url=upbit.websocket_url, rest_max_age_seconds=1e-6, max_promoted_topics=1
        ) as backbone,
    ):
        backbone.get_markets()
        backbone.get_ticker("KRW-BTC", strategy=DataStrategy.REST_ONLY)
        yield backbone


def is_ours(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__", "")
    return name.startswith(OURS) and not name.startswith(NOT_OURS)


def on_the_stack(frame: FrameType | None) -> list[str]:
    """The distinct objects of ours that are in the middle of a call, outermost first."""
    found: dict[int, str] = {}
    while frame is not None:
        owner = frame.f_locals.get("self")
        if is_ours(frame) and owner is not None:
            found.setdefault(id(owner), type(owner).__name__)
        frame = frame.f_back
    return [*found.values()][::-1]


@contextmanager
def watching(each: Callable[[FrameType, str, Any], object]) -> Iterator[None]:
    sys.setprofile(each)
    try:
        yield
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("kind", ["ticker", "orderbook"])
def test_a_rest_question_passes_nine_objects_from_the_call_to_the_socket(market: MarketDataBackbone, kind: str) -> None:
    sent: list[list[str]] = []

    def look(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_name == "send_all":
            sent.append(on_the_stack(frame))

    ask = market.get_ticker if kind == "ticker" else market.get_orderbook
    ask("KRW-BTC", strategy=DataStrategy.REST_ONLY, max_age=0.0)
    with watching(look):
        ask("KRW-BTC", strategy=DataStrategy.REST_ONLY, max_age=0.0)
    assert len(sent) == 1
    assert len(sent[0]) <= MOST_OBJECTS, sent[0]
    assert sent[0][0] == "MarketDataBackbone"
    assert sent[0][-1] == "DeadlineSocket"


ASKS = {
    "breaker": ("CircuitBreaker.admit", "CircuitBreaker.refusal"),
    "ban": ("Ban.admits", "Ban.remaining"),
    "cache": ("IntelligentCache.look", "IntelligentCache.get_cached_data", "IntelligentCache.age_of"),
}


@pytest.mark.parametrize("kind", ["ticker", "orderbook"])
@pytest.mark.parametrize("strategy", [DataStrategy.REST_ONLY, DataStrategy.PREFER_REST, DataStrategy.AUTO])
def test_a_rest_question_asks_breaker_ban_and_cache_once_each_router_included(
    market: MarketDataBackbone, kind: str, strategy: DataStrategy
) -> None:
    asked = Counter[str]()

    def look(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and is_ours(frame):
            asked[f"{type(frame.f_locals.get('self')).__name__}.{frame.f_code.co_name}"] += 1

    ask = market.get_ticker if kind == "ticker" else market.get_orderbook
    ask("KRW-BTC", strategy=DataStrategy.REST_ONLY)
    with watching(look):
        item = ask("KRW-BTC", strategy=strategy)
    assert item.source is DataSource.REST
    assert asked["RestTransport.get"] == 1
    assert {name: sum(asked[each] for each in ways) for name, ways in ASKS.items()} == dict.fromkeys(ASKS, 1)


def test_an_answer_of_a_moment_ago_costs_one_look_into_the_cache(market: MarketDataBackbone) -> None:
    first = market.get_ticker("KRW-BTC", strategy=DataStrategy.REST_ONLY)
    looks = Counter[str]()

    def look(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and type(frame.f_locals.get("self")).__name__ == "IntelligentCache":
            looks[frame.f_code.co_name] += 1

    before = market.performance().cache
    with watching(look):
        for strategy in (DataStrategy.AUTO, DataStrategy.REST_ONLY):
            assert market.get_ticker("KRW-BTC", strategy=strategy, max_age=60.0) is first
    after = market.performance().cache
    assert looks["look"] - looks["age_of"] == 2  # the age of what is given is looked up where `max_age` names a bound
    assert looks["get_cached_data"] == 0
    assert (after.hits - before.hits, after.misses - before.misses) == (2, 0)
