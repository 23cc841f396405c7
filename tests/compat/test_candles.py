"""The stand-in's candle functions: pyupbit's frames, its readings of time, and None with a reason."""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime, timedelta, timezone
from types import ModuleType
from typing import Any

import numpy
import pandas
import pytest

from tests.support.waiting import wait_until
from upbit_backbone.errors import InvalidRequestError, UnknownSymbolError
from upbit_backbone.simulator import FakeUpbit

COLUMNS = ["open", "high", "low", "close", "volume", "value"]
MOMENT = "2026-01-05 03:00:00"  # as UTC, which is noon in Korea
KOREA = timezone(timedelta(hours=9))


def starts(frame: Any) -> list[str]:
    return [str(start) for start in frame.index]


def test_a_frame_has_six_float_columns_and_korean_time_without_a_zone(pyupbit: ModuleType) -> None:
    frame = pyupbit.get_ohlcv("KRW-BTC", interval="minute60", count=3, to=MOMENT)
    assert list(frame.columns) == COLUMNS
    assert {str(kind) for kind in frame.dtypes} == {"float64"}
    assert starts(frame) == ["2026-01-05 09:00:00", "2026-01-05 10:00:00", "2026-01-05 11:00:00"]
    assert (frame.index.tz, frame.index.name, frame.index.freq) == (None, None, None)
    assert frame.index.dtype == pandas.to_datetime([datetime(2026, 1, 5)]).dtype


def test_a_breakout_target_is_a_float_between_yesterdays_numbers(pyupbit: ModuleType) -> None:
    before = pyupbit.get_ohlcv("KRW-BTC", count=2, to=MOMENT).iloc[0]
    target = before["close"] + (before["high"] - before["low"]) * 0.5
    assert isinstance(target, float)
    assert target > before["close"]


@pytest.mark.parametrize(
    ("interval", "first", "last"),
    [
        ("day", "2026-01-04 09:00:00", "2026-01-05 09:00:00"),
        ("days", "2026-01-04 09:00:00", "2026-01-05 09:00:00"),
        ("week", "2025-12-29 09:00:00", "2026-01-05 09:00:00"),
        ("months", "2025-12-01 09:00:00", "2026-01-01 09:00:00"),
        ("minute60", "2026-01-05 10:00:00", "2026-01-05 11:00:00"),
        ("minutes240", "2026-01-05 05:00:00", "2026-01-05 09:00:00"),
        ("years", "2025-01-01 09:00:00", "2026-01-01 09:00:00"),
    ],
)
def test_each_interval_has_both_spellings(pyupbit: ModuleType, interval: str, first: str, last: str) -> None:
    assert starts(pyupbit.get_ohlcv("KRW-BTC", interval, 2, MOMENT)) == [first, last]


@pytest.mark.slow
def test_more_pages_than_a_second_allows_make_one_whole_frame(pyupbit: ModuleType) -> None:
    frame = pyupbit.get_ohlcv("KRW-BTC", interval="minute1", count=2_250, to=MOMENT)
    assert len(frame) == 2_250
    assert frame.index.is_unique
    assert frame.index.is_monotonic_increasing
    assert frame.index[-1] < datetime(2026, 1, 5, 12)


@pytest.mark.parametrize("interval", ["minute2", "hour", "1m", "Day", "minute", "day1", "", None, 5, ["day"]])
def test_an_interval_that_pyupbit_does_not_know_gives_days_and_a_warning(pyupbit: ModuleType, interval: Any) -> None:
    with pytest.warns(UserWarning, match="gives days") as caught:
        frame = pyupbit.get_ohlcv("KRW-BTC", interval, 1, MOMENT)
    assert caught[0].filename == __file__
    assert starts(frame) == ["2026-01-05 09:00:00"]


@pytest.mark.parametrize(
    ("count", "rows"), [(0, 1), (-3, 1), (True, 1), (199, 199), (201, 201), (401, 401), (numpy.int64(3), 3)]
)
def test_a_count_is_exact_and_at_least_one(pyupbit: ModuleType, count: Any, rows: int) -> None:
    frame = pyupbit.get_ohlcv("KRW-BTC", "day", count, MOMENT)
    assert len(frame) == rows
    assert frame.index.is_unique
    assert frame.index.is_monotonic_increasing


@pytest.mark.parametrize("count", [None, "3", 2.0])
def test_what_is_no_count_gives_none(pyupbit: ModuleType, count: Any) -> None:
    assert pyupbit.get_ohlcv("KRW-BTC", "day", count, MOMENT) is None


@pytest.mark.parametrize(
    "to",
    [
        "20260105",
        "202601050000",
        "2026-01-05T00:00:00Z",
        "2026-01-05T09:00:00+09:00",
        date(2026, 1, 5),
        datetime(2026, 1, 5),
        datetime(2026, 1, 5, 0, 0, 0, 999_999),
        datetime(2026, 1, 5, 9, tzinfo=KOREA),
        pandas.Timestamp("2026-01-05T00:00:00.123456789"),
        pandas.Timestamp("2026-01-05", tz="UTC"),
    ],
)
def test_to_is_exclusive_and_read_as_utc_unless_it_has_a_zone(pyupbit: ModuleType, to: Any) -> None:
    assert starts(pyupbit.get_ohlcv("KRW-BTC", count=2, to=to)) == ["2026-01-03 09:00:00", "2026-01-04 09:00:00"]


@pytest.mark.parametrize("to", ["soon", "", "NaT", pandas.NaT, 12345, numpy.datetime64("2026-01-05"), [MOMENT]])
def test_what_is_no_time_gives_none(pyupbit: ModuleType, to: Any) -> None:
    assert pyupbit.get_ohlcv("KRW-BTC", to=to) is None


def test_a_time_to_come_is_now(pyupbit: ModuleType) -> None:
    newest = pyupbit.get_ohlcv("KRW-BTC", "day", 1)
    assert newest.index.equals(pyupbit.get_ohlcv("KRW-BTC", "day", 1, datetime(2099, 1, 1)).index)


@pytest.mark.parametrize("ticker", ["KRW-NOSUCH", "BTC-KRW", "BTC/KRW", "", None, 5, ["KRW-BTC", "KRW-ETH"]])
def test_a_market_that_does_not_exist_as_it_is_said_gives_none(pyupbit: ModuleType, ticker: Any) -> None:
    assert pyupbit.get_ohlcv(ticker, count=1, to=MOMENT) is None


def test_a_list_of_one_market_is_that_market(pyupbit: ModuleType) -> None:
    assert len(pyupbit.get_ohlcv(["KRW-BTC"], count=2, to=MOMENT)) == 2


def test_none_has_its_reason_in_the_log_and_not_a_second_time(
    pyupbit: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "upbit_backbone.compat"):
        for _ in range(3):
            assert pyupbit.get_ohlcv("KRW-BTCC", to=MOMENT) is None
    reasons = [record.getMessage() for record in caplog.records if record.name == "upbit_backbone.compat"]
    assert len(reasons) == 1
    assert "get_ohlcv('KRW-BTCC'" in reasons[0]
    assert "did you mean KRW-BTC" in reasons[0]


def test_strict_raises_our_own_error_instead(pyupbit: ModuleType) -> None:
    pyupbit.strict()
    with pytest.raises(UnknownSymbolError):
        pyupbit.get_ohlcv("KRW-NOSUCH")
    with pytest.raises(InvalidRequestError, match="count='3'"):
        pyupbit.get_ohlcv("KRW-BTC", count="3")
    pyupbit.strict(False)
    assert pyupbit.get_ohlcv("KRW-NOSUCH") is None


def test_strict_may_come_from_the_environment(pyupbit: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPBIT_BACKBONE_PYUPBIT_STRICT", "1")
    with pytest.raises(UnknownSymbolError):
        pyupbit.get_ohlcv("KRW-NOSUCH")


def test_a_limit_and_a_broken_answer_are_waited_out_before_there_is_none(pyupbit: ModuleType, upbit: FakeUpbit) -> None:
    upbit.rest_fault("/v1/candles/*", status=503, times=4)  # more than one question tries by itself
    assert len(pyupbit.get_ohlcv("KRW-ETH", "day", 3, MOMENT)) == 3
    upbit.rest_fault("/v1/candles/*", status=429, times=2)
    assert len(pyupbit.get_ohlcv("KRW-ETH", "week", 3, MOMENT)) == 3


def test_from_a_time_in_korea_on_up_to_a_time_in_utc(pyupbit: ModuleType) -> None:
    frame = pyupbit.get_ohlcv_from("KRW-BTC", "minute60", "2026-01-04 07:30:00", "2026-01-05 03:00:00")
    more = pyupbit.get_ohlcv("KRW-BTC", "minute60", 60, "2026-01-05 03:00:00")
    assert frame.equals(more[more.index >= "2026-01-04 07:30:00"])
    assert 20 < len(frame) <= 28


@pytest.mark.parametrize(
    "begin", [date(2026, 1, 4), datetime(2026, 1, 3, 15, tzinfo=UTC), pandas.Timestamp("20260104")]
)
def test_from_takes_every_form_of_a_time(pyupbit: ModuleType, begin: Any) -> None:
    frame = pyupbit.get_ohlcv_from("KRW-BTC", "day", begin, "2026-01-06")
    assert starts(frame) == ["2026-01-04 09:00:00", "2026-01-05 09:00:00"]


def test_from_with_nothing_between_gives_an_empty_frame_and_before_all_trade_none(pyupbit: ModuleType) -> None:
    empty = pyupbit.get_ohlcv_from("KRW-BTC", "day", "2026-01-05 10:00:00", "2026-01-05 23:00:00")
    assert empty.shape == (0, 6)
    assert list(empty.columns) == COLUMNS
    assert pyupbit.get_ohlcv_from("KRW-BTC", "day", "2010-01-01", "2011-01-01") is None
    assert pyupbit.get_ohlcv_from("KRW-BTC", "day", "2026-01-05", "2026-01-01") is None


def test_days_of_another_hour_are_made_of_hours(pyupbit: ModuleType) -> None:
    hours = pyupbit.get_ohlcv("KRW-BTC", "minute60")
    days = pyupbit.get_daily_ohlcv_from_base("KRW-BTC", base=12.5)
    assert list(days.columns) == COLUMNS[:5]
    assert {(start.hour, start.minute) for start in days.index} == {(12, 30)}
    assert str(days.index.freq) == "<24 * Hours>"
    assert days["volume"].sum() == pytest.approx(hours["volume"].sum())
    assert days["high"].max() == hours["high"].max()
    for nonsense in ("9", [1], float("nan")):
        assert pyupbit.get_daily_ohlcv_from_base("KRW-BTC", base=nonsense) is None


def test_urls_are_upbits(pyupbit: ModuleType) -> None:
    assert pyupbit.get_url_ohlcv("minutes15") == "https://api.upbit.com/v1/candles/minutes/15"


def test_charts_asked_again_and_again_cost_no_request_each(pyupbit: ModuleType, upbit: FakeUpbit) -> None:
    for _ in range(3):
        pyupbit.get_ohlcv("KRW-XRP", "minute1", 200)
    wait_until(lambda: upbit.sessions(), "a stream for what is asked often")
    before = len(upbit.requests(group="candle"))
    for _ in range(50):
        pyupbit.get_ohlcv("KRW-XRP", "minute1", 200)
    assert len(upbit.requests(group="candle")) - before < 10
