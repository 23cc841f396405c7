"""Days that begin at another hour are exact sums of smaller candles, whole and as many as were asked for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from upbit_backbone import KST, CandleData, InvalidRequestError, MarketDataBackbone
from upbit_backbone.simulator import FakeUpbit

QUIET = "KRW-QQQ"  # not listed by the real one: trades every few hours


@pytest.fixture(scope="module")
def upbit() -> Iterator[FakeUpbit]:
    # No limit: what is compared with asks for thousands of hours.
    with FakeUpbit(
        seed=9,
        trades_per_second=0,
        markets=["KRW-BTC", QUIET],
        ban_after=0,
        start_time="2026-03-02T03:20:30Z",
        rest_limit=10_000,
    ) as server:
        yield server


@pytest.fixture
def market(upbit: FakeUpbit) -> Iterator[MarketDataBackbone]:
    with MarketDataBackbone(url=upbit.url, timeout_seconds=60.0, rest_requests_per_second=1_000) as backbone:
        backbone.get_markets()  # tells Upbit's time
        yield backbone


def by_hand(market: MarketDataBackbone, symbol: str, unit: str, offset: timedelta, days: int) -> list[dict[str, Any]]:
    end = datetime(2026, 3, 3, 23, tzinfo=UTC)
    parts = market.get_candles(symbol, unit, start=end - timedelta(days=days + 3), end=end)
    sums: dict[datetime, dict[str, Any]] = {}
    for part in parts:
        day = datetime.combine((part.timestamp - offset).date(), time(), UTC) + offset
        known = sums.setdefault(
            day,
            {"start": day, "open": part.open_price, "high": part.high_price, "low": part.low_price, "volume": 0},
        )
        known["high"], known["low"] = max(known["high"], part.high_price), min(known["low"], part.low_price)
        known["close"] = part.close_price
        known["volume"] += part.volume
    return list(sums.values())[-days:]


def figures(days: list[CandleData]) -> list[dict[str, Any]]:
    return [
        {
            "start": day.timestamp,
            "open": day.open_price,
            "high": day.high_price,
            "low": day.low_price,
            "volume": day.volume,
            "close": day.close_price,
        }
        for day in days
    ]


@pytest.mark.parametrize(
    ("day_start", "unit", "offset"),
    [
        (time(0), "1h", timedelta(hours=15)),
        (time(0, tzinfo=UTC), "1h", timedelta(0)),
        (time(12, 30), "30m", timedelta(hours=3, minutes=30)),
        (time(0, tzinfo=timezone(timedelta(hours=5, minutes=45))), "15m", timedelta(hours=18, minutes=15)),
        (time(0, tzinfo=ZoneInfo("Asia/Seoul")), "1h", timedelta(hours=15)),
    ],
)
def test_days_are_the_exact_sums_of_their_parts(
    market: MarketDataBackbone, day_start: time, unit: str, offset: timedelta
) -> None:
    days = market.get_candles("KRW-BTC", "1d", 12, day_start=day_start)
    assert len(days) == 12
    assert figures(days) == by_hand(market, "KRW-BTC", unit, offset, 12)
    assert [day.is_closed for day in days] == [True] * 11 + [False]
    assert {day.timeframe for day in days} == {"1d"}


def test_days_at_upbits_own_hour_are_upbits_days(market: MarketDataBackbone) -> None:
    made = market.get_candles("KRW-BTC", "1d", 30, day_start=time(9))
    told = market.get_candles("KRW-BTC", "1d", 30)
    assert figures(made) == figures(told)


def test_as_many_days_as_asked_for_come_over_days_without_a_trade(market: MarketDataBackbone) -> None:
    days = market.get_candles(QUIET, "1d", 60, day_start=time(1))
    assert len(days) == 60
    starts = [day.timestamp for day in days]
    assert starts == sorted(set(starts))
    assert {start.astimezone(KST).time() for start in starts} == {time(1)}


def test_ranges_hold_the_days_that_begin_in_them(market: MarketDataBackbone) -> None:
    first, stop = datetime(2026, 2, 1, tzinfo=KST), datetime(2026, 2, 6, tzinfo=KST)
    whole = market.get_candles("KRW-BTC", "1d", start=first, end=stop, day_start=time(0))
    assert [day.timestamp for day in whole] == [first.astimezone(UTC) + timedelta(days=each) for each in range(5)]
    later = market.get_candles("KRW-BTC", "1d", start=first + timedelta(seconds=1), end=stop, day_start=time(0))
    assert later == whole[1:]
    before = market.get_candles("KRW-BTC", "1d", 3, to=stop, day_start=time(0))
    assert before == whole[-3:]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"timeframe": "1h", "day_start": time(0)}, "1d"),
        ({"day_start": 9}, "datetime.time"),
        ({"day_start": time(9, 0, 30)}, "whole minutes"),
        ({"day_start": time(0, tzinfo=ZoneInfo("Europe/Berlin"))}, "changes its clocks"),
        ({"day_start": time(0), "fill": "forward"}, "fill"),
        ({"day_start": time(0), "count": 3, "start": datetime(2026, 1, 1, tzinfo=UTC)}, "do not go together"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(
    market: MarketDataBackbone, options: dict[str, Any], word: str
) -> None:
    with pytest.raises(InvalidRequestError, match=word):
        market.get_candles("KRW-BTC", **({"timeframe": "1d"} | options))


def test_an_estimate_is_what_a_download_takes_at_most(upbit: FakeUpbit, market: MarketDataBackbone) -> None:
    end = datetime(2026, 3, 1, tzinfo=UTC)
    start = end - timedelta(minutes=5_000)
    estimate = market.estimate("KRW-BTC", "1m", start, end)
    assert (estimate.rows, estimate.requests, estimate.seconds) == (5_000, 25, 0.025)
    before = len(upbit.requests(group="candle"))
    rows = market.get_candles("KRW-BTC", "1m", start=start, end=end)
    assert len(rows) <= estimate.rows
    assert len(upbit.requests(group="candle")) > before
    assert market.estimate("KRW-BTC", "1h", count=450).requests == 3


def test_an_estimate_leaves_out_what_was_before_the_market(market: MarketDataBackbone) -> None:
    began = market.history_start("KRW-BTC", "1h")
    assert began is not None
    estimate = market.estimate("KRW-BTC", "1h", datetime(1990, 1, 1, tzinfo=UTC))
    assert estimate == market.estimate("KRW-BTC", "1h", began)
    assert "rows at most" in str(estimate)
