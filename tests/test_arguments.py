"""Numbers and times as callers have them: numpy's, pandas', text. Taken as what they mean, or refused in words."""

from __future__ import annotations

import math
import queue
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from upbit_backbone import KST, BackboneConfig, DataStrategy, InvalidRequestError, MarketDataBackbone
from upbit_backbone._arguments import as_real, as_whole, aware, utc_day, whole_number
from upbit_backbone._concurrency import Deadline, check_timeout
from upbit_backbone.history.ranges import checked_count
from upbit_backbone.recorder.recorder import Rotation
from upbit_backbone.routing.requests import price_level
from upbit_backbone.simulator import FakeUpbit


class Three:
    """A whole number of somebody else's, by the protocol that Python has for them."""

    def __index__(self) -> int:
        return 3

    def __repr__(self) -> str:
        return "Three()"


def test_whole_numbers_are_whatever_has_an_index_and_come_out_as_ints() -> None:
    for value in (3, Three()):
        number = as_whole(value)
        assert number == 3
        assert type(number) is int
    for value in (True, 3.0, "3", None, Decimal(3), Fraction(3), [3]):
        assert as_whole(value) is None


def test_real_numbers_are_taken_as_floats_and_huge_ones_as_infinite() -> None:
    assert (as_real(2), as_real(Decimal("0.5")), as_real(Fraction(1, 4))) == (2.0, 0.5, 0.25)
    assert (as_real(10**400), as_real(-(10**400))) == (math.inf, -math.inf)
    assert math.isnan(as_real(Decimal("sNaN")) or 0.0)
    for value in (True, "2", None, b"2", 1j):
        assert as_real(value) is None


def test_numpys_numbers_are_taken_wherever_numbers_are() -> None:
    np = pytest.importorskip("numpy")
    for kind in (np.int8, np.int64, np.uint32):
        assert type(whole_number(kind(5), "n", low=1)) is int
        assert type(check_timeout(kind(5))) is float
    for kind in (np.float16, np.float32, np.float64):
        assert check_timeout(kind(0.5)) == 0.5
        with pytest.raises(InvalidRequestError, match="whole number"):
            whole_number(kind(5), "n", low=1)
    for refused in (np.bool_(True), np.float32("nan"), np.array([1, 2])):
        with pytest.raises(InvalidRequestError, match="expected"):
            check_timeout(refused)
    assert checked_count(np.int64(7), 10) == 7
    assert price_level(np.int64(1000)) == 1000
    assert Rotation(np.int64(10_000), np.float32(0.5)).max_seconds == 0.5
    config = BackboneConfig(
        rest_attempts=np.int64(2), timeout_seconds=np.float32(0.5), close_timeout_seconds=np.int64(1)
    )
    assert repr((config.rest_attempts, config.timeout_seconds, config.close_timeout_seconds)) == "(2, 0.5, 1.0)"


@pytest.fixture(scope="module")
def calm() -> Iterator[FakeUpbit]:
    with FakeUpbit(trades_per_second=0, ban_after=0, markets=["KRW-BTC", "KRW-ETH"]) as upbit:
        yield upbit


@pytest.fixture
def market(calm: FakeUpbit) -> Iterator[MarketDataBackbone]:
    with MarketDataBackbone(rest_url=calm.rest_url, websocket_url=calm.websocket_url, timeout_seconds=20.0) as market:
        yield market


def questions(np: Any) -> dict[str, Callable[[MarketDataBackbone], Any]]:
    four, soon, rest = np.int64(4), np.float32(20), DataStrategy.REST_ONLY
    return {
        "ticker": lambda market: market.get_ticker("KRW-BTC", timeout=np.int64(20), max_age=np.float32(1)),
        "tickers": lambda market: market.get_tickers(["KRW-BTC"], max_age=np.int64(1), timeout=soon),
        "book": lambda market: market.get_orderbook("KRW-BTC", four, level=np.int64(0), timeout=soon),
        "candles": lambda market: market.get_candles("KRW-BTC", "1m", four, rest, timeout=soon),
        "filled": lambda market: market.get_candles("KRW-BTC", "1m", four, fill="forward", timeout=soon),
        "walk": lambda market: list(market.iter_candles("KRW-BTC", "1m", count=four, timeout=soon)),
        "trades": lambda market: market.get_trades("KRW-BTC", four, timeout=soon),
        "days": lambda market: market.get_trades("KRW-BTC", four, days_ago=np.int64(1), timeout=soon),
        "today": lambda market: list(market.iter_trades("KRW-BTC", count=four, days_ago=np.uint8(0), timeout=soon)),
        "markets": lambda market: market.get_markets(max_age=np.float32(60), timeout=soon),
        "subscribe": lambda market: market.subscribe("KRW-BTC", "orderbook", maxsize=four, levels=four).get(soon),
        "queue": lambda market: market.subscribe("KRW-BTC", "trade", maxsize=four, queue=queue.Queue(4)).close(soon),
        "series": lambda market: market.candle_series("KRW-BTC", "1m", four, timeout=soon).resize(np.int64(6)),
        "live book": lambda market: market.live_orderbook("KRW-BTC", four, np.int64(0), timeout=soon).depth(np.int8(2)),
        "health": lambda market: market.check_rest_api_health(soon),
        "cache": lambda market: market.cache_data(("mine", 1), 1, ttl=np.int64(60)),
        "explain": lambda market: market.explain("orderbook", "KRW-BTC", levels=four, max_age=np.float32(1)),
    }


def test_every_question_takes_numpys_numbers(market: MarketDataBackbone) -> None:
    for name, ask in questions(pytest.importorskip("numpy")).items():
        answer = ask(market)
        assert answer is None or answer, name


# ── times ────────────────────────────────────────────────────────────────────────────────────────────────────────────

HALF_PAST_NINE = datetime(2026, 11, 28, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "moment",
    [
        "2026-11-28 09:30+09:00",
        "2026-11-28T00:30Z",
        "2026-11-28T00:30:00.000+00:00",
        " 2026-11-27 19:30-05:00 ",
        HALF_PAST_NINE.astimezone(KST),
        HALF_PAST_NINE.astimezone(timezone(timedelta(hours=-5))),
    ],
)
def test_a_time_with_its_zone_is_taken_as_text_or_as_a_datetime(moment: Any) -> None:
    assert aware(moment, "to") == HALF_PAST_NINE
    assert type(aware(moment, "to")) is datetime
    assert aware(moment, "to").tzinfo is UTC


@pytest.mark.parametrize(
    "moment", ["2026-11-28", "2026-11-28 09:30", "20261128T0930", datetime(2026, 11, 28, 9, 30), date(2026, 11, 28)]
)
def test_a_time_without_a_zone_is_refused_with_both_ways_to_write_it(moment: Any) -> None:
    with pytest.raises(
        InvalidRequestError, match=r"'2026-\d\d-\d\d \d\d:\d\d\+09:00' \(Korean time\).*Z' \(UTC\)"
    ) as error:
        aware(moment, "start")
    assert str(error.value).startswith("start=")


@pytest.mark.parametrize(
    "day",
    [
        "2026-11-28", " 2026-11-28 ", "20261128", date(2026, 11, 28), HALF_PAST_NINE, "2026-11-28 09:30+09:00",
        "2026-11-29 08:59+09:00", datetime(2026, 11, 27, 19, 30, tzinfo=timezone(timedelta(hours=-5))),
    ],
)  # fmt: skip
def test_a_utc_day_is_a_date_its_text_or_a_time_in_it(day: Any) -> None:
    assert utc_day(day, "day") == datetime(2026, 11, 28, tzinfo=UTC)


@pytest.mark.parametrize("day", ["today", "", "2026-11-31", 20261128, None])
def test_what_is_no_day_is_refused_with_what_is_one(day: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"day=.*expected a UTC day such as '2026-01-31'"):
        utc_day(day, "day")


@pytest.mark.parametrize("moment", ["today", "", "9:30", 1_764_289_800, None, "2026-11-28 09:30\n\x1b[31m"])
def test_what_is_no_time_is_refused_in_one_line(moment: Any) -> None:
    with pytest.raises(InvalidRequestError, match="expected a time with its zone") as error:
        aware(moment, "since")
    assert str(error.value).isprintable()


def test_a_pandas_timestamp_is_a_time_and_leaves_no_trace_of_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    exact = pandas.Timestamp("2026-11-28 09:30:00.000000789", tz="Asia/Seoul")
    assert aware(exact, "to") == HALF_PAST_NINE
    assert type(aware(exact, "to")) is datetime
    for naive in (pandas.Timestamp("2026-11-28 09:30"), pandas.NaT):
        with pytest.raises(InvalidRequestError, match="to="):
            aware(naive, "to")


def test_no_end_stays_no_end_in_any_zone() -> None:
    assert aware(datetime.max.replace(tzinfo=timezone(timedelta(hours=-9))), "to").year == 9999
    assert aware(datetime.min.replace(tzinfo=KST), "to").year == 1


def test_candles_and_trades_are_asked_for_by_text(market: MarketDataBackbone) -> None:
    newest = market.get_candles("KRW-BTC", "1m", 5, DataStrategy.REST_ONLY)
    first, last = (candle.timestamp_kst.isoformat(sep=" ") for candle in (newest[0], newest[-1]))
    assert market.get_candles("KRW-BTC", "1m", start=first, end=last) == newest[:-1]
    assert market.get_candles("KRW-BTC", "1m", 2, to=last) == newest[2:4]
    assert list(market.iter_candles("KRW-BTC", "1m", start=first, end=last)) == newest[:-1]
    since = market.get_trades("KRW-BTC", 5)[0].timestamp
    assert len(market.get_trades("KRW-BTC", since=since.isoformat())) >= 5


def test_a_deadline_of_any_number_is_one() -> None:
    assert Deadline.after(Fraction(1, 2)).remaining_or(9.0) <= 0.5  # type: ignore[arg-type]
    assert Deadline.after(10**400).remaining_or(9.0) == 9.0
