"""How far a question travels: the objects that pass it on between `get_ticker()` and the socket."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from upbit_backbone import DataStrategy, MarketDataBackbone
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


def test_on_its_way_breaker_ban_and_cache_are_asked_once_each(market: MarketDataBackbone) -> None:
    """From the channel on; the router has looked at them before, to choose it."""
    asked = Counter[str]()
    has_left_the_router = False

    def look(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal has_left_the_router
        if event != "call" or not is_ours(frame):
            return
        owner, name = type(frame.f_locals.get("self")).__name__, frame.f_code.co_name
        has_left_the_router |= owner == "RestChannel"
        if has_left_the_router:
            asked[f"{owner}.{name}"] += 1

    with watching(look):
        market.get_ticker("KRW-BTC", strategy=DataStrategy.REST_ONLY, max_age=0.0)
    assert asked["CircuitBreaker.admit"] + asked["CircuitBreaker.refusal"] == 1
    assert asked["Ban.admits"] + asked["Ban.remaining"] == 1
    assert asked["IntelligentCache.get_cached_data"] == 1
