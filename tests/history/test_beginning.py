"""The first candle of a market: found exactly, in few requests, whatever is kept how long."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.candle_reference import SYMBOL, ReferenceExchange, candle, utc
from upbit_backbone._concurrency import Deadline
from upbit_backbone.errors import ServerError
from upbit_backbone.exchange.timeframes import TIMEFRAMES, Timeframe, timeframe_of
from upbit_backbone.history.candles import CandleHistory
from upbit_backbone.history.paging import first_candle
from upbit_backbone.models.market import CandleData

NOW = utc(2026, 3, 1, 0, 10, 30, 500_000)
DAY = timedelta(days=1)


class LongPast:
    """A market with a trade in every period since `listed`, some units kept for a while only; rows made when asked."""

    def __init__(self, listed: datetime, kept: dict[str, timedelta] | None = None, blind: Sequence[int] = ()) -> None:
        self.listed = listed
        self.kept = kept or {}
        self.blind = blind  # these calls, from 1, get an empty answer
        self.calls = 0

    def begins(self, unit: Timeframe) -> datetime:
        kept = self.kept.get(unit.word)
        start = unit.floor(self.listed)
        return start if kept is None else max(start, unit.ceil(NOW - kept))

    def page(self, unit: Timeframe, count: int, to: datetime | None) -> list[CandleData]:
        self.calls += 1
        assert 1 <= count <= 200
        start = unit.floor(NOW) if to is None else min(unit.floor(NOW), unit.previous_start(unit.ceil(to)))
        rows: list[CandleData] = []
        while len(rows) < count and start >= self.begins(unit):
            rows.append(candle(unit, start))
            start = unit.previous_start(start)
        return [] if self.calls in self.blind else rows


@pytest.mark.parametrize("unit", TIMEFRAMES, ids=str)
@pytest.mark.parametrize("listed", [utc(2017, 9, 25, 3, 1, 7), utc(2020, 2, 29), utc(2025, 12, 31, 23, 59, 59), NOW])
def test_the_first_candle_is_found_in_a_handful_of_requests(unit: Timeframe, listed: datetime) -> None:
    past = LongPast(listed)
    first = first_candle(past.page, unit)
    assert first is not None
    assert first.timestamp == unit.floor(listed)
    assert past.calls <= 6


@pytest.mark.parametrize("kept", [timedelta(seconds=5), timedelta(hours=7), 90 * DAY])
@pytest.mark.parametrize("word", ["1s", "1m", "4h"])
def test_a_unit_kept_for_a_while_only_is_searched_by_halving(word: str, kept: timedelta) -> None:
    unit = timeframe_of(word)
    past = LongPast(utc(2017, 9, 25, 3), {word: kept, "1s": kept})
    first = first_candle(past.page, unit)
    assert first is None or first.timestamp == past.begins(unit)
    assert (first is None) == (past.begins(unit) > NOW)
    assert past.calls <= 36


def test_a_market_without_candles_begins_nowhere() -> None:
    assert first_candle(lambda unit, count, to: [], timeframe_of("1m")) is None


@settings(deadline=None, max_examples=60)
@given(
    age=st.integers(0, 3_000 * 86_400),
    unit=st.sampled_from(TIMEFRAMES),
    kept=st.dictionaries(
        st.sampled_from([each.word for each in TIMEFRAMES]), st.integers(1, 900).map(lambda n: n * DAY)
    ),
)
def test_whatever_is_kept_how_long_the_first_candle_is_exact(
    age: int, unit: Timeframe, kept: dict[str, timedelta]
) -> None:
    past = LongPast(NOW - timedelta(seconds=age), kept)
    first = first_candle(past.page, unit)
    begins = past.begins(unit)
    assert (None if begins > NOW else begins) == (first and first.timestamp)


def sparse_page(starts: list[datetime]) -> object:
    def page(unit: Timeframe, count: int, to: datetime | None) -> list[CandleData]:
        own = sorted({unit.floor(each) for each in starts})
        stop = len(own) if to is None else bisect_left(own, to)
        return [candle(unit, each) for each in reversed(own[max(0, stop - count) : stop])]

    return page


@settings(deadline=None, max_examples=60)
@given(ages=st.lists(st.integers(0, 3_000 * 86_400), min_size=1, max_size=30), unit=st.sampled_from(TIMEFRAMES))
def test_holes_do_not_mislead_the_search(ages: list[int], unit: Timeframe) -> None:
    starts = [NOW - timedelta(seconds=age) for age in ages]
    first = first_candle(sparse_page(starts), unit)
    assert first is not None
    assert first.timestamp == unit.floor(min(starts))


@pytest.mark.parametrize("blind", range(1, 16))
def test_an_empty_answer_on_the_way_misleads_nobody(blind: int) -> None:
    past = LongPast(utc(2017, 9, 25, 3), {"1s": 90 * DAY}, blind=[blind])
    first = first_candle(past.page, timeframe_of("1s"))
    assert first is not None
    assert first.timestamp == past.begins(timeframe_of("1s"))


@pytest.mark.parametrize("word", ["1m", "1d"])
def test_two_empty_answers_wherever_they_come_mislead_nobody(word: str) -> None:
    misled = []
    for blind in combinations(range(1, 24), 2):
        past = LongPast(utc(2017, 9, 25, 3), blind=blind)
        first = first_candle(past.page, timeframe_of(word))
        if first is None or first.timestamp != past.begins(timeframe_of(word)):
            misled.append(blind)
    assert misled == []


# -- in a history ----------------------------------------------------------------------------------------------------


def history_of(past: LongPast) -> CandleHistory:
    def page(symbol: str, word: str, *, count: int, to: datetime | None, **_: object) -> list[CandleData]:
        return past.page(timeframe_of(word), count, to)

    return CandleHistory(page, exchange_now=lambda: NOW)


@pytest.mark.parametrize(("word", "kept"), [("1s", timedelta(hours=4)), ("1m", None)])
def test_asking_from_long_before_the_first_candle_costs_some_requests_not_thousands(
    word: str, kept: timedelta | None
) -> None:
    unit, listed = timeframe_of(word), NOW - 10 * DAY
    past = LongPast(listed, {} if kept is None else {word: kept})
    history = history_of(past)
    told: list[tuple[int, int | None]] = []
    walk = history.iter(SYMBOL, word, start=utc(2000, 1, 1), progress=lambda *done: told.append(done))
    assert next(walk).timestamp == past.begins(unit)
    assert past.calls <= 34 + 48  # to find the beginning, and two blocks of pages
    rows = 1 + sum(1 for _ in walk)
    assert rows == unit.periods(past.begins(unit), NOW)
    assert told[-1] == (rows, rows)
    assert past.calls <= 36 + 2 + rows / 200 + 10
    assert history.close(Deadline.after(2.0)) == []


def test_a_beginning_that_is_known_costs_nothing_again() -> None:
    past = LongPast(utc(2019, 5, 6, 7, 8, 9))
    history = history_of(past)
    assert history.history_start(SYMBOL, "1m") == utc(2019, 5, 6, 7, 8)
    before = past.calls
    assert history.history_start(SYMBOL, "1m") == utc(2019, 5, 6, 7, 8)
    assert list(history.iter(SYMBOL, "1m", start=utc(1999, 1, 1), end=utc(2019, 5, 6, 7, 8))) == []
    assert past.calls == before
    assert history.close(Deadline.after(2.0)) == []


def test_a_search_that_fails_costs_the_walk_nothing() -> None:
    unit = timeframe_of("1m")
    exchange = ReferenceExchange(NOW)
    exchange.serve(unit, [unit.shift(unit.floor(NOW), -index) for index in range(500)])
    exchange.faults[2] = ServerError("a hiccup", status=500)
    history = CandleHistory(exchange.candles_page, exchange_now=exchange.tell_now)
    rows = list(history.iter(SYMBOL, "1m", start=NOW - 12 * DAY))
    assert rows == exchange.candles(unit)
    assert history.close(Deadline.after(2.0)) == []
