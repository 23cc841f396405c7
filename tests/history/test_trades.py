"""Trades page by page: over midnight, unique, oldest first, whatever the clocks say."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.candle_reference import SYMBOL, ReferenceExchange, trade, utc
from upbit_backbone.errors import DownloadCancelledError, InvalidRequestError, NetworkError, RequestTimeoutError
from upbit_backbone.history.trades import TradesHistory
from upbit_backbone.models.market import TradeData

NOW = utc(2026, 3, 2, 0, 20)


def every(seconds: float, count: int) -> list[TradeData]:
    """Trades before NOW, two in each moment, ids not in the order of time."""
    return [
        trade(NOW - timedelta(seconds=seconds * (index // 2)), 100 + index, number=10**16 - index ^ 1)
        for index in range(count)
    ]


def decoded(exchange: ReferenceExchange) -> TradesHistory:
    return TradesHistory(exchange.trades_page, exchange_now=exchange.tell_now)


@pytest.fixture
def exchange() -> ReferenceExchange:
    return ReferenceExchange(NOW, trades=every(2.0, 3_000))


def in_order(trades: list[TradeData]) -> bool:
    times = [each.timestamp for each in trades]
    return times == sorted(times) and len({each.sequential_id for each in trades}) == len(trades)


def test_the_newest_come_oldest_first(exchange: ReferenceExchange) -> None:
    got = decoded(exchange).get(SYMBOL)
    assert len(got) == 200
    assert in_order(got)
    assert got[-1].timestamp == NOW
    assert len(exchange.calls) == 1


def test_a_count_is_walked_over_midnight(exchange: ReferenceExchange) -> None:
    got = decoded(exchange).get(SYMBOL, count=2_900)
    assert len(got) == 2_900
    assert in_order(got)
    assert got[0].timestamp.date() < NOW.date()


def test_since_gives_everything_from_that_moment_on(exchange: ReferenceExchange) -> None:
    since = utc(2026, 3, 1, 23, 55)
    got = decoded(exchange).get(SYMBOL, since=since)
    expected = [each for each in exchange.trades if each.timestamp >= since]
    assert {each.sequential_id for each in got} == {each.sequential_id for each in expected}
    assert in_order(got)


def test_a_day_is_one_utc_day(exchange: ReferenceExchange) -> None:
    got = decoded(exchange).get(SYMBOL, days_ago=1)
    assert {each.timestamp.date() for each in got} == {datetime(2026, 3, 1).date()}
    assert len(got) == sum(each.timestamp.date() == datetime(2026, 3, 1).date() for each in exchange.trades)
    assert decoded(exchange).get(SYMBOL, days_ago=1, count=7) == got[-7:]
    assert decoded(exchange).get(SYMBOL, days_ago=5) == []


def test_what_is_not_kept_ends_the_walk_without_an_error(exchange: ReferenceExchange) -> None:
    assert len(decoded(exchange).get(SYMBOL, count=10_000)) == 3_000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"count": 0}, "from 1 to 1,000,000"),
        ({"count": 5, "since": NOW}, "stands alone"),
        ({"days_ago": 1, "since": NOW}, "stands alone"),
        ({"days_ago": 8}, "from 0 to 7; 0 is today"),
        ({"days_ago": -1}, "from 0 to 7; 0 is today"),
        ({"days_ago": True}, "from 0 to 7; 0 is today"),
        ({"since": NOW - timedelta(days=9)}, "2026-02-23"),
        ({"since": datetime(2026, 3, 1)}, "no time zone"),
    ],
)
def test_wrong_questions_say_what_is_allowed(
    exchange: ReferenceExchange, arguments: dict[str, object], says: str
) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        decoded(exchange).get(SYMBOL, **arguments)
    assert exchange.calls == []


def test_the_future_is_empty(exchange: ReferenceExchange) -> None:
    assert decoded(exchange).get(SYMBOL, since=NOW + timedelta(days=2)) == []


def test_midnight_passing_in_the_middle_loses_nothing(exchange: ReferenceExchange) -> None:
    exchange.now = utc(2026, 3, 1, 23, 59, 59)
    history = decoded(exchange)

    def midnight() -> None:
        if len(exchange.calls) == 3:
            exchange.now = utc(2026, 3, 2, 0, 0, 1)

    exchange.rate = midnight
    since = utc(2026, 3, 1, 23, 40)
    got = history.get(SYMBOL, since=since)
    expected = [each for each in exchange.trades if since <= each.timestamp < utc(2026, 3, 2)]
    ids = {each.sequential_id for each in got}
    assert {each.sequential_id for each in expected} <= ids
    assert in_order(got)


@pytest.mark.parametrize("skew", [-3, -1, 1, 3])
@pytest.mark.parametrize("second", [-2, 0, 2])
def test_a_clock_that_is_wrong_around_midnight_loses_nothing(
    exchange: ReferenceExchange, skew: int, second: int
) -> None:
    exchange.now = utc(2026, 3, 2) + timedelta(seconds=second)
    exchange.rate = lambda: setattr(exchange, "now", exchange.now + timedelta(seconds=0.5))
    history = TradesHistory(exchange.trades_page, exchange_now=lambda: exchange.now + timedelta(seconds=skew))
    since = utc(2026, 3, 1, 23, 50)
    started = exchange.now
    got = history.get(SYMBOL, since=since)
    ids = {each.sequential_id for each in got}
    assert {each.sequential_id for each in exchange.trades if since <= each.timestamp <= started} <= ids
    assert in_order(got)


def test_an_error_carries_what_came(exchange: ReferenceExchange) -> None:
    exchange.faults = {4: NetworkError("cut")}
    with pytest.raises(NetworkError) as caught:
        decoded(exchange).get(SYMBOL, count=2_900)
    assert len(caught.value.partial) == 1_202  # all of today; yesterday's first page failed
    assert in_order(list(caught.value.partial))


def test_cancelling_and_deadlines_end_the_walk(exchange: ReferenceExchange) -> None:
    cancel = threading.Event()
    with pytest.raises(DownloadCancelledError):
        decoded(exchange).get(SYMBOL, count=2_900, cancel=cancel, progress=lambda done, total: cancel.set())
    exchange.latency = 0.05
    with pytest.raises(RequestTimeoutError):
        decoded(exchange).get(SYMBOL, count=2_900, timeout=0.12)


def test_iterating_gives_trades_as_they_arrive(exchange: ReferenceExchange) -> None:
    walk = decoded(exchange).iter(SYMBOL, count=2_000)
    assert next(walk).timestamp == NOW
    assert len(exchange.calls) == 1
    assert len(list(walk)) == 1_999


CUTS: dict[str, Callable[[int, int], int]] = {
    "every page holds half": lambda number, rows: min(rows, 250),
    "every page is one trade": lambda number, rows: min(rows, 1),
    "every third page is short": lambda number, rows: rows // 3 if number % 3 == 0 else rows,
    "every third page is empty": lambda number, rows: 0 if number % 3 == 0 else rows,
    "the first page is empty": lambda number, rows: 0 if number == 1 else rows,
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_a_page_that_is_cut_short_ends_no_day(cut: Callable[[int, int], int]) -> None:
    exchange = ReferenceExchange(NOW, trades=every(30.0, 600))
    whole, numbers = exchange.trades_page, itertools.count(1)

    def page(*args: object, **options: object) -> list[TradeData]:
        rows = whole(*args, **options)
        return rows[: cut(next(numbers), len(rows))]

    exchange.trades_page = page
    expected = sorted(exchange.trades, key=lambda each: each.timestamp)
    got = decoded(exchange).get(SYMBOL, count=500)
    assert in_order(got)
    assert [each.timestamp for each in got] == [each.timestamp for each in expected[-500:]]
    since = NOW - timedelta(hours=2)
    assert len(decoded(exchange).get(SYMBOL, since=since)) == sum(each.timestamp >= since for each in expected)
    assert len(list(decoded(exchange).iter(SYMBOL, days_ago=1))) == sum(
        each.timestamp < utc(2026, 3, 2) for each in expected
    )


def test_the_end_of_a_day_costs_one_request(exchange: ReferenceExchange) -> None:
    got = decoded(exchange).get(SYMBOL, days_ago=0)
    assert len(got) == 1_202
    assert len(exchange.calls) == 4


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 8 * 86_400), max_size=60, unique=True),
    st.integers(1, 80),
    st.integers(0, 7 * 86_400 - 1),
)
def test_any_question_gets_what_brute_force_gives(ages: list[int], count: int, since_age: int) -> None:
    trades = [trade(NOW - timedelta(seconds=age), 100, number=10**12 - age) for age in ages]
    exchange = ReferenceExchange(NOW, trades=trades)
    kept = sorted((each for each in trades if each.timestamp >= utc(2026, 2, 23)), key=lambda each: each.timestamp)
    assert decoded(exchange).get(SYMBOL, count=count) == kept[-count:]
    since = NOW - timedelta(seconds=since_age)
    assert decoded(exchange).get(SYMBOL, since=since) == [each for each in kept if each.timestamp >= since]
