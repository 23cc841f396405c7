"""Candles and trades through the whole stack, over real sockets, with Upbit's limits and faults."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from upbit_backbone._concurrency import Deadline
from upbit_backbone.backbone import MarketDataBackbone
from upbit_backbone.config import BackboneConfig
from upbit_backbone.errors import DownloadCancelledError, InvalidRequestError
from upbit_backbone.exchange.timeframes import TIMEFRAMES, timeframe_of
from upbit_backbone.history.candles import CandleHistory
from upbit_backbone.history.trades import TradesHistory
from upbit_backbone.limits.rate_limiter import RateLimiter
from upbit_backbone.live.candle_series import CandleSeries
from upbit_backbone.models.market import CandleData
from upbit_backbone.rest.client import RestClient
from upbit_backbone.simulator import FakeUpbit

pytestmark = pytest.mark.slow
PATIENCE = 40.0


@pytest.fixture(scope="module")
def upbit() -> Iterator[FakeUpbit]:
    with FakeUpbit(seed=5, trades_per_second=0, markets=["KRW-BTC", "BTC-ETH"]) as simulator:
        yield simulator


@pytest.fixture
def rest(upbit: FakeUpbit) -> Iterator[RestClient]:
    config = BackboneConfig(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url)
    channel = RestClient(config, limiter=RateLimiter(upbit.rest_url))
    yield channel
    upbit.clear_faults()
    upbit.set_limit("candle", 10)
    assert channel.close(Deadline.after(2.0)) == []


def clock_of(upbit: FakeUpbit) -> Callable[[], datetime]:
    return lambda: datetime.fromtimestamp(upbit.now_ms() / 1000, UTC)


def one_by_one(upbit: FakeUpbit, symbol: str, timeframe: str, count: int) -> list[CandleData]:
    """The plainest pager there is, with the limits switched off."""
    upbit.set_limit("candle", 1_000)
    config = BackboneConfig(url=upbit.url)
    rest = RestClient(config, limiter=RateLimiter(f"reference {upbit.rest_url}", per_second=1_000))
    rows: list[CandleData] = []
    to = None
    while len(rows) < count:
        page = rest.candles_page(symbol, timeframe, count=200, to=to, deadline=Deadline.after(20.0))
        if not page:
            break
        rows.extend(page)
        to = page[-1].timestamp
    assert rest.close(Deadline.after(2.0)) == []
    threading.Event().wait(1.1)  # until Upbit's sliding second has forgotten these
    upbit.set_limit("candle", 10)
    return rows[:count][::-1]


@pytest.mark.parametrize(
    ("symbol", "timeframe"), [("KRW-BTC", "1m"), pytest.param("BTC-ETH", "5m", marks=pytest.mark.endurance)]
)
def test_ten_thousand_candles_with_holes_a_429_and_a_cut_are_the_reference_rows(
    upbit: FakeUpbit, rest: RestClient, symbol: str, timeframe: str
) -> None:
    history = CandleHistory(rest.candles_page, exchange_now=clock_of(upbit))
    upbit.inject("clear_wire_log")
    connections_cut: list[int] = []
    troubles = {
        2_000: lambda: upbit.rest_fault("/v1/candles/*", status=429),
        6_000: lambda: connections_cut.append(upbit.drop_connections("rst")),
    }

    def trouble(done: int, total: int | None) -> None:
        for due in [rows for rows in troubles if rows <= done]:
            troubles.pop(due)()

    to = clock_of(upbit)()
    rows = history.get(symbol, timeframe, count=10_000, to=to, progress=trouble, timeout=60.0)
    statuses = [request["status"] for request in upbit.requests(group="candle")]
    assert statuses.count(429) == 1
    assert connections_cut[0] >= 1
    assert upbit.busiest(group="candle") <= 10
    unit = timeframe_of(timeframe)
    assert unit.periods(rows[0].timestamp, to) > 10_000, "there are holes"
    reference = one_by_one(upbit, symbol, timeframe, 10_001)
    assert rows == [row for row in reference if row.timestamp < to][-10_000:]
    assert history.close(Deadline.after(2.0)) == []


@pytest.mark.parametrize("unit", TIMEFRAMES, ids=str)
def test_every_unit_starts_where_the_table_says(upbit: FakeUpbit, rest: RestClient, unit: Any) -> None:
    history = CandleHistory(rest.candles_page, exchange_now=clock_of(upbit))
    rows = history.get("KRW-BTC", unit, count=30, timeout=PATIENCE)
    starts = [row.timestamp for row in rows]
    assert starts == sorted(set(starts))
    assert [unit.floor(start) for start in starts] == starts
    assert history.close(Deadline.after(2.0)) == []


def test_trades_of_two_days_are_complete_and_unique(upbit: FakeUpbit, rest: RestClient) -> None:
    history = TradesHistory(rest.trades_page, exchange_now=clock_of(upbit))
    count = len(history.get("KRW-BTC", days_ago=0)) + 700
    trades = history.get("KRW-BTC", count=count, timeout=120.0)
    assert len(trades) == count
    assert len({trade.sequential_id for trade in trades}) == count
    assert [trade.timestamp for trade in trades] == sorted(trade.timestamp for trade in trades)
    assert len({trade.timestamp.date() for trade in trades}) >= 2


def prices(row: CandleData) -> tuple[object, ...]:
    return (row.timestamp, row.open_price, row.high_price, row.low_price, row.close_price, row.volume)


STORM: tuple[Callable[[FakeUpbit], object], ...] = (
    lambda upbit: upbit.drop_sessions("rst"),
    lambda upbit: upbit.mute(seconds=2.5),  # too short to be noticed: the seconds are missing all the same
    lambda upbit: upbit.rest_fault("/v1/candles/*", status=429),
    lambda upbit: upbit.close_sessions(1001),
    lambda upbit: upbit.rest_fault("/v1/candles/*", mode="reset", times=3),
    lambda upbit: upbit.refuse(4.0),
    lambda upbit: upbit.flap(times=3, seconds=2.0),
)


@pytest.mark.endurance
def test_series_of_all_kinds_survive_a_storm_over_midnight_and_equal_rest() -> None:
    start = "2026-11-22T23:59:50Z"  # a Sunday: day, week and all smaller units turn over
    with (
        FakeUpbit(seed=6, trades_per_second=30, markets=["KRW-BTC"], start_time=start) as upbit,
        MarketDataBackbone(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url) as market,
    ):
        every = [market.candle_series("KRW-BTC", word, size=300) for word in ("1s", "1m", "1h", "1d", "1w", "1M")]
        pause = threading.Event()
        for hurt in STORM:
            pause.wait(2.0)
            hurt(upbit)
        pause.wait(6.0)
        moment, deadline = clock_of(upbit)() - timedelta(seconds=1), Deadline.after(PATIENCE)
        asker = RestClient(BackboneConfig(url=upbit.url), limiter=RateLimiter(upbit.rest_url))
        expected = [closed_at(moment, one, told(asker, one)) for one in every]
        assert asker.close(Deadline.after(2.0)) == []
        while wrong := [one for one, rows in zip(every, expected, strict=True) if not equals(one, rows, moment)]:
            assert not deadline.expired, f"{wrong} do not equal REST"
            pause.wait(0.5)
        assert min(len(rows) for rows in expected) >= 20
        assert [series.last_error for series in every] == [None] * len(every)
        assert upbit.busiest(group="candle") <= 10


def told(asker: RestClient, series: CandleSeries) -> list[CandleData]:
    """The newest candles by REST, oldest first."""
    return asker.candles_page("KRW-BTC", series.timeframe, count=60, deadline=Deadline.after(20.0))[::-1]


def closed_at(moment: datetime, series: CandleSeries, rows: Iterable[CandleData]) -> list[tuple[object, ...]]:
    """Those of `rows` that were over at `moment`."""
    unit = timeframe_of(series.timeframe)
    return [prices(row) for row in rows if unit.next_start(row.timestamp) <= moment]


def equals(series: CandleSeries, expected: list[tuple[object, ...]], moment: datetime) -> bool:
    """Whether the series says the same as REST: no candle less, none more, none twice, none out of order."""
    return closed_at(moment, series, series.candles)[-len(expected) :] == expected


def test_trades_are_walked_through_the_one_door_with_progress_and_can_be_called_off(upbit: FakeUpbit) -> None:
    with MarketDataBackbone(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url) as market:
        # Yesterday's: of today's there are hardly any in the first minutes of a day.
        told: list[tuple[int, int | None]] = []
        got = market.get_trades(
            "KRW-BTC", 1_200, days_ago=1, progress=lambda *done: told.append(done), timeout=PATIENCE
        )
        assert told[-1] == (1_200, 1_200)
        walked = list(market.iter_trades("KRW-BTC", count=1_200, days_ago=1))
        assert {each.sequential_id for each in walked} == {each.sequential_id for each in got}
        assert [each.timestamp for each in walked] == [each.timestamp for each in reversed(got)]
        cancel = threading.Event()
        with pytest.raises(DownloadCancelledError) as caught:
            market.get_trades(
                "KRW-BTC", 5_000, days_ago=1, progress=lambda *_: cancel.set(), cancel=cancel, timeout=PATIENCE
            )
        assert len(caught.value.partial) == 500
        for wrong in ({"progress": 5}, {"cancel": 5}, {"count": 0}, {"days_ago": 8}):
            with pytest.raises(InvalidRequestError):
                market.iter_trades("KRW-BTC", **wrong)


def test_forgotten_candles_are_asked_for_again(upbit: FakeUpbit) -> None:
    end = clock_of(upbit)() - timedelta(days=2)
    with MarketDataBackbone(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url) as market:
        bounds = {"start": end - timedelta(hours=3), "end": end, "timeout": PATIENCE}
        rows = market.get_candles("KRW-BTC", "1m", **bounds)

        def asked() -> int:
            return len(upbit.requests(path="/v1/candles/minutes/1"))

        before = asked()
        assert market.get_candles("KRW-BTC", "1m", **bounds) == rows
        assert asked() == before
        market.forget_candles("KRW-BTC")
        assert market.get_candles("KRW-BTC", "1m", **bounds) == rows
        assert asked() > before


@pytest.mark.parametrize("timeframe", ["1m", "1d", "1M"])
def test_the_beginning_is_where_the_oldest_day_says(upbit: FakeUpbit, timeframe: str) -> None:
    with MarketDataBackbone(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url) as market:
        began = market.history_start("BTC-ETH", timeframe, timeout=PATIENCE)
        days = market.get_candles("BTC-ETH", "1d", 4_000, timeout=PATIENCE)
        assert began is not None
        unit = timeframe_of(timeframe)
        assert unit.floor(days[0].timestamp) <= began < days[0].timestamp + timedelta(days=1)
        assert market.get_candles("BTC-ETH", timeframe, 1, to=began, timeout=PATIENCE) == []
        assert market.get_candles("BTC-ETH", timeframe, start=began, end=unit.next_start(began), timeout=PATIENCE)
