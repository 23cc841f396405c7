"""Candles from trades, from smaller candles and from tickers are those Upbit gives."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.candle_reference import SYMBOL, brute_force, candle, trade, utc
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.exchange.timeframes import TIMEFRAMES, Timeframe, timeframe_of
from upbit_backbone.history.aggregate import FormingPeriod, candles_from_trades, day_of_ticker, resample
from upbit_backbone.models.enums import DataSource
from upbit_backbone.models.market import CandleData, TickerData, TradeData

DAY = timeframe_of("1d")
LONG = [timeframe_of(word) for word in ("1d", "1w", "1M", "1y")]


def numbers(candle: CandleData) -> tuple[object, ...]:
    prices = (candle.open_price, candle.high_price, candle.low_price, candle.close_price)
    return (candle.timestamp, *prices, candle.volume, candle.traded_value, candle.last_trade_at)


def ticker_after(trades: list[TradeData]) -> TickerData:
    """The ticker Upbit publishes right after the last of `trades`."""
    last = trades[-1]
    today = brute_force(DAY, trades, last.timestamp)[-1]
    return TickerData(
        symbol=SYMBOL,
        current_price=last.price,
        change_rate=None,
        change_amount=None,
        volume_24h=None,
        high_24h=today.high_price,
        low_24h=today.low_price,
        prev_closing_price=None,
        timestamp=last.timestamp,
        trade_timestamp=last.timestamp,
        source=DataSource.WEBSOCKET,
        opening_price=today.open_price,
        volume_today=today.volume,
        traded_value_today=today.traded_value,
    )


@st.composite
def histories(draw: st.DrawFn) -> list[TradeData]:
    """Trades of up to 400 days around a New Year, unordered ids, several in one moment."""
    start = utc(2025, 6, 1) + timedelta(hours=draw(st.integers(0, 5_000)))
    steps = draw(st.lists(st.sampled_from([0, 1, 900, 40_000, 86_400, 3_000_000]), min_size=1, max_size=40))
    prices = draw(st.lists(st.integers(1, 1_000), min_size=len(steps), max_size=len(steps)))
    trades, at = [], start
    for number, (step, price) in enumerate(zip(steps, prices, strict=True)):
        at += timedelta(seconds=step)
        trades.append(trade(at, price, f"0.{price:04}", number=10**9 + number))
    return trades


@given(histories(), st.sampled_from(TIMEFRAMES), st.randoms(use_true_random=False))
def test_trades_make_the_candles_that_brute_force_makes(trades: list[TradeData], unit: object, random: object) -> None:
    shuffled = [*trades, trades[0]]
    random.shuffle(shuffled)
    made = candles_from_trades(shuffled, unit)
    expected = brute_force(unit, trades, utc(2030, 1, 1))
    assert [numbers(candle) for candle in made] == [numbers(candle) for candle in expected]


@given(histories(), st.sampled_from(LONG))
def test_smaller_candles_add_up_to_larger_ones(trades: list[TradeData], unit: object) -> None:
    now = trades[-1].timestamp
    added = resample(brute_force(timeframe_of("1m"), trades, now), unit)
    expected = brute_force(unit, trades, now)
    assert [numbers(candle) for candle in added] == [numbers(candle) for candle in expected]


@pytest.mark.parametrize("small", TIMEFRAMES, ids=str)
@pytest.mark.parametrize("large", TIMEFRAMES, ids=str)
def test_candles_are_added_up_only_where_periods_nest(small: Timeframe, large: Timeframe) -> None:
    starts = list(small.starts(utc(2023, 12, 25), small.shift(utc(2023, 12, 25), 400)))
    parts = [candle(small, start) for start in starts]
    is_smaller = TIMEFRAMES.index(small) < TIMEFRAMES.index(large)
    crosses = any(small.next_start(start) > large.next_start(large.floor(start)) for start in starts)
    begins_within = any(small.floor(large.floor(start)) != large.floor(start) for start in starts)
    if is_smaller and not crosses and not begins_within:
        assert [row.timestamp for row in resample(parts[::-1], large)] == sorted({large.floor(s) for s in starts})
    else:
        with pytest.raises(InvalidRequestError, match="possible are"):
            resample(parts, large)


def test_trades_of_one_moment_follow_each_other_by_their_ids() -> None:
    at = utc(2026, 1, 1, 0, 0, 30)
    trades = [trade(at, 100 + index, number=10**15 + index) for index in range(3)]
    for order in (trades, trades[::-1], [trades[1], trades[2], trades[0]]):
        (made,) = candles_from_trades(order, "1m")
        assert (made.open_price, made.close_price) == (100, 102)


def test_markets_are_not_mixed() -> None:
    at = utc(2026, 1, 1)
    with pytest.raises(InvalidRequestError, match="one market"):
        candles_from_trades([trade(at, number=1), replace(trade(at, number=2), symbol="KRW-ETH")], "1m")
    unit = timeframe_of("1m")
    with pytest.raises(InvalidRequestError, match="one market"):
        resample([candle(unit, at), replace(candle(unit, at), symbol="KRW-ETH")], "1h")


@settings(deadline=None)
@given(histories(), st.sampled_from(LONG), st.data())
def test_tickers_keep_long_candles_equal_to_rest_from_any_point_on(
    trades: list[TradeData], unit: object, data: st.DataObject
) -> None:
    begin = data.draw(st.integers(0, len(trades) - 1))
    forming = FormingPeriod(unit)
    lost = data.draw(st.sets(st.integers(begin, len(trades) - 1)))
    for index in range(begin, len(trades)):
        now, known = trades[index].timestamp, trades[: index + 1]
        has_lost_a_day = index in lost
        if index == begin or forming.wants_days(now + timedelta(seconds=9)) or has_lost_a_day:
            days = brute_force(DAY, known, now)
            forming.seed([day for day in days if day.timestamp >= unit.floor(now)], now + timedelta(seconds=9))
        if has_lost_a_day:
            continue
        candle = forming.apply(ticker_after(known))
        assert candle is not None
        later = [each for each in trades[index + 1 :] if each.timestamp == now]
        if not later:
            missed_midnight = forming.wants_days(now + timedelta(seconds=9))
            if not missed_midnight:
                assert numbers(candle) == numbers(brute_force(unit, known, now)[-1])


def test_nothing_is_told_before_the_finished_days_are_known() -> None:
    week = FormingPeriod(timeframe_of("1w"))
    assert week.wants_days(utc(2026, 3, 4))
    assert week.apply(ticker_after([trade(utc(2026, 3, 4, 1))])) is None


def test_after_midnight_the_finished_day_is_wanted_once_it_has_settled() -> None:
    week = FormingPeriod(timeframe_of("1w"))
    trades = [trade(utc(2026, 3, 3, 23)), trade(utc(2026, 3, 4, 0, 0, 1))]
    week.seed(brute_force(DAY, trades[:1], trades[0].timestamp), trades[0].timestamp)
    assert not week.wants_days(utc(2026, 3, 3, 23, 59))
    candle = week.apply(ticker_after(trades))
    assert candle is not None
    assert candle.volume == 2
    assert not week.wants_days(utc(2026, 3, 4, 0, 0, 2))
    assert week.wants_days(utc(2026, 3, 4, 0, 0, 6))
    week.seed(brute_force(DAY, trades, utc(2026, 3, 4, 0, 0, 6)), utc(2026, 3, 4, 0, 0, 6))
    assert not week.wants_days(utc(2026, 3, 4, 0, 0, 7))


@pytest.mark.parametrize(
    "stale",
    [
        {"timestamp": utc(2026, 3, 5, 0, 0, 1)},  # a new day has begun and nobody traded in it
        {"volume_today": Decimal(0)},
        {"volume_today": None},
        {"opening_price": None},
    ],
)
def test_a_ticker_that_does_not_tell_today_tells_nothing(stale: dict[str, object]) -> None:
    from dataclasses import replace

    ticker = ticker_after([trade(utc(2026, 3, 4, 23, 59))])
    assert day_of_ticker(ticker) is not None
    assert day_of_ticker(replace(ticker, **stale)) is None


def test_weeks_begin_on_monday_and_days_at_nine_in_korea() -> None:
    sunday, monday = (
        datetime.fromisoformat("2026-03-02T08:59:59+09:00"),
        datetime.fromisoformat("2026-03-02T09:00+09:00"),
    )
    weeks = candles_from_trades([trade(sunday, 1), trade(monday, 2)], "1w")
    assert [week.timestamp for week in weeks] == [utc(2026, 2, 23), utc(2026, 3, 2)]
