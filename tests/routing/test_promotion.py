"""What was asked before is answered quickly, what is asked often is streamed, and what nobody asks for no longer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace

import pytest

from tests.support.waiting import wait_until
from upbit_backbone._concurrency import SYSTEM_CLOCK, Deadline, ForkGuard
from upbit_backbone.models.enums import DataSource, DataType, RequestKind
from upbit_backbone.models.market import TickerData
from upbit_backbone.models.request import DataRequest, Topic
from upbit_backbone.models.session import SessionHealth
from upbit_backbone.monitoring.metrics import Metrics
from upbit_backbone.routing.promotion import Promotions, PromotionWorker, RequestFrequency
from upbit_backbone.routing.router import HotPath
from upbit_backbone.store.live_store import LiveStore

BTC = Topic(DataType.TICKER, "KRW-BTC")
CHART = Topic(DataType.CANDLE_1M, "KRW-BTC")
ASK = DataRequest(RequestKind.TICKER, ("KRW-BTC",))


# --- the hot path ---


@pytest.fixture
def hot() -> SimpleNamespace:
    made = SimpleNamespace(
        store=LiveStore(10.0), frequency=RequestFrequency(10.0), metrics=Metrics(), health=SessionHealth("session-1")
    )
    made.health.epoch, made.health.connected, made.health.heard_at = 1, True, 100.0
    made.ticker = TickerData("KRW-BTC", *[Decimal(1)] * 7, datetime(2026, 11, 22, tzinfo=UTC), DataSource.WEBSOCKET)
    assert made.store.put(BTC, made.ticker, made.health, 1, 100.0)
    made.path = HotPath(made.store, made.frequency, made.metrics, ForkGuard("test"))
    return made


def test_only_symbols_that_were_answered_before_are_known(hot: SimpleNamespace) -> None:
    assert hot.path.ticker("KRW-BTC", 101.0) is None
    hot.path.learn(ASK)
    assert hot.path.ticker("KRW-BTC", 101.0) is hot.ticker
    assert hot.path.book("KRW-BTC", 30, 101.0) is None


def test_each_hot_answer_counts_as_asked_for(hot: SimpleNamespace) -> None:
    hot.path.learn(ASK)
    hot.path.ticker("KRW-BTC", 101.0)
    assert hot.frequency.last_asked[BTC] == 101.0
    assert hot.metrics.live.value == 1


def test_what_is_not_current_any_more_is_left_to_the_router(hot: SimpleNamespace) -> None:
    hot.path.learn(ASK)
    assert hot.path.ticker("KRW-BTC", 100.0 + 11.0) is None
    hot.health.connected = False
    assert hot.path.ticker("KRW-BTC", 101.0) is None
    assert hot.metrics.live.value == 0


def test_a_grouped_book_does_not_teach_the_way_to_the_plain_one(hot: SimpleNamespace) -> None:
    hot.path.learn(DataRequest(RequestKind.ORDERBOOK, ("KRW-BTC",), level=Decimal(1000)))
    assert "0 books" in repr(hot.path)


# --- housekeeping ---


@pytest.fixture
def house() -> Iterator[SimpleNamespace]:
    """A promotion_worker; `wanted` is what its promotions wanted, each time."""
    made = SimpleNamespace(wanted=[], frequency=RequestFrequency(10.0))
    made.keeper = PromotionWorker(made.frequency, promote_after=3, clock=SYSTEM_CLOCK)

    def promotions(demote_after: float, limit: int = 10) -> Promotions:
        kept = Promotions(
            lambda owner, requests: made.wanted.append([request.topic for request in requests]),
            limit=limit,
            demote_after=demote_after,
            wake=made.keeper.wake,
        )
        made.keeper.look_after(kept)
        return kept

    made.promotions = promotions
    yield made
    assert made.keeper.close(Deadline.after(5)) == []


def test_the_third_question_streams_a_ticker_and_the_second_a_chart(house: SimpleNamespace) -> None:
    promoted = house.promotions(demote_after=60.0)
    house.keeper.asked([BTC, CHART])
    assert len(promoted) == 0
    house.keeper.asked([BTC, CHART])
    assert CHART in promoted
    assert BTC not in promoted
    house.keeper.asked([BTC])
    assert BTC in promoted
    wait_until(lambda: {topic for request in house.wanted for topic in request} == {BTC, CHART})


def test_no_thread_starts_before_something_is_promoted(house: SimpleNamespace) -> None:
    house.promotions(demote_after=60.0)
    house.keeper.asked([BTC])
    assert "idle" in repr(house.keeper)
    house.keeper.wake()
    assert "at work" in repr(house.keeper)


def test_what_is_promoted_at_about_the_same_time_is_one_request(house: SimpleNamespace) -> None:
    promoted = house.promotions(demote_after=60.0)
    symbols = [Topic(DataType.TICKER, f"KRW-{number}") for number in range(8)]
    promoted.promote(symbols, time.monotonic())
    wait_until(lambda: house.wanted)
    assert house.wanted == [symbols]


def test_what_nobody_asks_for_is_streamed_no_longer_and_counts_from_nought(house: SimpleNamespace) -> None:
    promoted = house.promotions(demote_after=0.2)
    for _ in range(3):
        house.keeper.asked([BTC])
    wait_until(lambda: house.wanted and house.wanted[-1] == [])
    wait_until(lambda: BTC not in house.frequency.last_asked)
    assert len(promoted) == 0


def test_a_full_house_promotes_nothing_more(house: SimpleNamespace) -> None:
    promoted = house.promotions(demote_after=60.0, limit=1)
    for _ in range(3):
        house.keeper.asked([BTC])
    for _ in range(3):
        house.keeper.asked([CHART])
    assert BTC in promoted
    assert CHART not in promoted


def test_after_closing_nothing_starts(house: SimpleNamespace) -> None:
    house.promotions(demote_after=60.0)
    assert house.keeper.close(Deadline.after(5)) == []
    house.keeper.wake()
    assert "idle" in repr(house.keeper)
