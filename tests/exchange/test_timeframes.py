"""Candle units: spellings, period starts and their arithmetic."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from upbit_backbone import MarketDataBackbone
from upbit_backbone.errors import InvalidRequestError, UnknownTimeframeError
from upbit_backbone.exchange.timeframes import (
    FIRST_MOMENT,
    LAST_MOMENT,
    TIMEFRAMES,
    WORDS,
    Timeframe,
    timeframe_of,
    timeframe_of_stream,
)
from upbit_backbone.models.enums import DataType
from upbit_backbone.routing.requests import data_types, described
from upbit_backbone.simulator import FakeUpbit

KST = timezone(timedelta(hours=9))
units = st.sampled_from(TIMEFRAMES)
moments = st.datetimes(datetime(2009, 1, 1), datetime(2040, 1, 1)).map(lambda each: each.replace(tzinfo=UTC))


def test_the_words_are_the_documented_ones() -> None:
    assert WORDS == ("1s", "1m", "3m", "5m", "10m", "15m", "30m", "1h", "4h", "1d", "1w", "1M", "1y")


@pytest.mark.parametrize(
    ("spelling", "word"),
    [pair.split("=") for pair in ("60m=1h", "240m=4h", "candle.1s=1s", "minutes/60=1h", "minute1=1m")],
)
def test_upbits_own_words_are_understood(spelling: str, word: str) -> None:
    assert timeframe_of(spelling).word == word
    assert timeframe_of(timeframe_of(spelling)) is timeframe_of(word)


@pytest.mark.parametrize("wrong", ["", "2m", "1H", "1D", "minutes", "minutes/7", None, 1, "1m\n" * 99])
def test_anything_else_is_refused_with_the_list_of_those_that_exist(wrong: str) -> None:
    with pytest.raises(UnknownTimeframeError, match="1s, 1m, 3m, 5m, 10m, 15m, 30m, 1h, 4h, 1d, 1w, 1M, 1y") as caught:
        timeframe_of(wrong)
    assert "\n" not in str(caught.value)


def test_days_and_longer_have_upbits_words_too() -> None:
    spellings = ["days", "day", "weeks", "months", "years", "seconds"]
    assert [timeframe_of(each).word for each in spellings] == ["1d", "1d", "1w", "1M", "1y", "1s"]


def test_streams_and_units_belong_together() -> None:
    assert {timeframe_of_stream(each) for each in DataType if each.is_candle} == {
        each for each in TIMEFRAMES if each.data_type
    }
    with pytest.raises(InvalidRequestError, match=r"candle\.1s"):
        timeframe_of_stream(DataType.TICKER)


@pytest.mark.parametrize(
    ("word", "start"),
    [
        ("1s", "2026-11-20T05:14:07"),
        ("3m", "2026-11-20T05:12:00"),
        ("1h", "2026-11-20T05:00:00"),
        ("4h", "2026-11-20T04:00:00"),
        ("1d", "2026-11-20T00:00:00"),
        ("1w", "2026-11-16T00:00:00"),
        ("1M", "2026-11-01T00:00:00"),
        ("1y", "2026-01-01T00:00:00"),
    ],
)
def test_a_moment_falls_into_the_period_that_contains_it(word: str, start: str) -> None:
    moment = datetime(2026, 11, 20, 14, 14, 7, 500_000, tzinfo=KST)
    assert timeframe_of(word).floor(moment) == datetime.fromisoformat(start + "+00:00")


def test_the_trading_day_begins_at_nine_in_korea() -> None:
    day = timeframe_of("1d")
    assert day.floor(datetime(2026, 11, 20, 8, 59, 59, tzinfo=KST)) == datetime(2026, 11, 19, tzinfo=UTC)
    assert day.floor(datetime(2026, 11, 20, 9, 0, tzinfo=KST)) == datetime(2026, 11, 20, tzinfo=UTC)


def test_naive_moments_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="aware"):
        timeframe_of("1m").floor(datetime(2026, 1, 1))


def test_the_ends_of_time_are_not_passed() -> None:
    for each in TIMEFRAMES:
        assert each.floor(datetime.min.replace(tzinfo=UTC)) <= each.floor(datetime.max.replace(tzinfo=UTC))
        assert each.shift(datetime(2026, 1, 5, tzinfo=UTC), 10**12) > datetime(8000, 1, 1, tzinfo=UTC)
        assert each.shift(datetime(2026, 1, 5, tzinfo=UTC), -(10**12)) < datetime(2000, 1, 1, tzinfo=UTC)


@given(units, moments, st.integers(-5000, 5000))
def test_shifting_and_counting_undo_each_other(unit: Timeframe, moment: datetime, steps: int) -> None:
    start = unit.floor(moment)
    assert start <= moment < unit.next_start(start)
    assert unit.floor(start) == start == unit.ceil(start)
    assert unit.previous_start(unit.next_start(start)) == start
    there = unit.shift(start, steps)
    assume(FIRST_MOMENT < there < LAST_MOMENT)
    assert unit.floor(there) == there
    assert unit.periods(start, there) == max(0, steps)


@given(units, moments, st.integers(0, 50), st.integers(0, 10**6))
def test_counted_periods_are_the_listed_ones(unit: Timeframe, moment: datetime, steps: int, extra: int) -> None:
    end = unit.shift(unit.floor(moment), steps) + timedelta(microseconds=extra)
    listed = list(unit.starts(moment, end))
    assert len(listed) == unit.periods(moment, end)
    assert all(moment <= start < end for start in listed)
    assert listed == sorted(set(listed))


# ── one vocabulary, both ways ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("unit", TIMEFRAMES, ids=str)
def test_every_spelling_of_a_unit_is_understood_by_candles_and_by_subscriptions_alike(unit: Timeframe) -> None:
    words = {unit.word, unit.rest_path, f"candle.{unit.word}"} | ({str(unit.data_type)} if unit.data_type else set())
    for word in words:
        assert timeframe_of(word) is unit
        if unit.data_type is not None:
            assert data_types(word) == data_types([word]) == (unit.data_type,)
        else:
            with pytest.raises(InvalidRequestError, match=rf"candle_series\(symbol, '{unit.word}'\).*get_candles"):
                data_types(word)
    if unit.data_type is not None:
        assert DataType(unit.word) is DataType(unit.data_type.value) is unit.data_type
        assert described(unit.word, "KRW-BTC", {}).timeframe == unit.word


@pytest.mark.parametrize("word", ["1H", "CANDLE_1M", "2m", "candle.2m", "1S", "", "M"])
def test_other_spellings_are_no_data_type(word: str) -> None:
    with pytest.raises(ValueError, match="is not a valid DataType"):
        DataType(word)


def test_what_was_wanted_is_what_is_delivered() -> None:
    with ExitStack() as stack:
        upbit = stack.enter_context(FakeUpbit(markets=["KRW-BTC"], trades_per_second=20))
        market = stack.enter_context(MarketDataBackbone(url=upbit.url, timeout_seconds=20.0))
        wanted_and_delivered(market)


def wanted_and_delivered(market: MarketDataBackbone) -> None:
    with market.subscribe("KRW-BTC", "1h") as candles:
        candle = candles.get(timeout=20)
    assert candle.timeframe == "1h"
    assert market.get_candles(candle.symbol, candle.timeframe, 1)
    with market.subscribe("KRW-BTC", candle.timeframe) as again:
        assert again.topics == candles.topics
