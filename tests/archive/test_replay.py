"""A store is played again through the one door: in order, as of then, with what is missing."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from tests.sinks.conftest import SYMBOLS, at, backbone, book, candle, stored, ticker, trade
from tests.support.waiting import wait_until
from upbit_backbone import DataStrategy, DataType, MarketDataBackbone, Overflow
from upbit_backbone._concurrency import SYSTEM_CLOCK
from upbit_backbone.archive import Store
from upbit_backbone.archive.replay import StoreRecording, StoreTransport
from upbit_backbone.errors import ChannelUnavailableError, InvalidRequestError
from upbit_backbone.models.events import GapEvent
from upbit_backbone.simulator import FakeUpbit
from upbit_backbone.sinks import SqliteSink
from upbit_backbone.sinks.base import Batch, Span

KEEP = Overflow.DROP_OLDEST


def span(kind: str, start: float, end: float, symbol: str = "KRW-BTC") -> Span:
    return Span(symbol, kind, at(start), at(end))


def as_said(items) -> list:
    return [item.to_dict() | {"received_at": None, "stream_type": None} for item in items]


def test_everything_comes_in_the_order_of_upbits_time(make_store):
    items = [*map(trade, range(50)), *(ticker(number) for number in range(3, 48, 5)), book(10), book(20)]
    spans = [span(kind, 0, 6) for kind in ("trade", "ticker", "orderbook")]
    store = make_store(Batch(items[::-1], (), tuple(spans)))
    kinds = (DataType.TRADE, DataType.TICKER, DataType.ORDERBOOK)
    with MarketDataBackbone.replay(store) as market:
        found = list(market.subscribe("KRW-BTC", kinds, overflow=KEEP))
    times = [item.timestamp for item in found]
    assert times == sorted(times)
    assert len(found) == len(items)
    assert [item.received_at for item in found] == times
    assert as_said(each for each in found if type(each) is type(trade(0))) == as_said(map(trade, range(50)))


def test_questions_are_answered_as_of_the_time_that_is_played(make_store):
    items = [*map(trade, range(600)), ticker(10), ticker(590), book(10), book(590, size="9")]
    spans = tuple(span(kind, 0, 70) for kind in ("trade", "ticker", "orderbook"))
    store = make_store(Batch(items, (), spans))
    with MarketDataBackbone.replay(store.path, start=at(30)) as market:
        assert market.get_ticker("KRW-BTC").timestamp == at(1)
        assert market.get_orderbook("KRW-BTC").timestamp == at(1)
        assert [each.timestamp for each in market.get_trades("KRW-BTC", count=2)] == [at(29.9), at(30)]
        with pytest.raises(ChannelUnavailableError, match="neither"):
            market.get_candles("KRW-ETH", "1m")


def test_a_candle_that_is_asked_for_knows_nothing_of_the_future(make_store):
    items = [trade(number, seconds=float(number)) for number in range(300)]
    store = make_store(Batch(items, (), (span("trade", 0, 300),)))
    with MarketDataBackbone.replay(store, start=at(150)) as market:
        candles = market.get_candles("KRW-BTC", "1m", count=10)
    assert [each.timestamp for each in candles] == [at(0), at(60), at(120)]
    assert candles[-1].close_price == trade(150).price
    assert candles[0].close_price == trade(59).price


def test_as_many_candles_come_as_are_asked_for_however_quiet_the_market(make_store):
    items = [trade(number, seconds=3600.0 * number) for number in range(20)]
    store = make_store(Batch(items, (), (span("trade", 0, 80_000),)))
    transport = StoreTransport(StoreRecording(store.path), SYSTEM_CLOCK)

    def starts(count: int, **more: str) -> list[str]:
        asked = {"market": "KRW-BTC", "count": str(count), **more}
        rows = json.loads(transport.body("/v1/candles/minutes/1", asked, at(3600 * 18.5)))
        return [row["candle_date_time_utc"] for row in rows]

    hours = [at(3600 * hour).strftime("%Y-%m-%dT%H:%M:%S") for hour in range(18, -1, -1)]
    assert starts(5) == hours[:5]
    assert starts(200) == hours
    assert starts(2, to=at(3600 * 4).strftime("%Y-%m-%d %H:%M:%S")) == hours[15:17]


def test_a_forming_candle_that_is_asked_for_again_grows_as_if_it_were_asked_for_once(make_store):
    items = [trade(number, price=Decimal(100 + number * 37 % 50), seconds=float(number)) for number in range(100)]
    store = make_store(Batch(items, (), (span("trade", 0, 200),)))
    often = StoreTransport(StoreRecording(store.path), SYSTEM_CLOCK)
    for seconds in (10, 30.5, 30.5, 59.999, 75, 99, 40, 150):
        once = StoreTransport(StoreRecording(store.path), SYSTEM_CLOCK)
        asked = {"market": "KRW-BTC", "count": "3"}
        bodies = [each.body("/v1/candles/minutes/1", asked, at(seconds)) for each in (often, once)]
        assert bodies[0] == bodies[1]
        (row, *_) = json.loads(bodies[0])
        assert row["trade_price"] == int([each for each in items if each.timestamp <= at(seconds)][-1].price)


def test_a_period_that_began_before_the_trades_do_is_no_candle(make_store):
    store = make_store(Batch([*map(trade, range(20))], (), (span("trade", 0, 2),)))
    transport = StoreTransport(StoreRecording(store.path), SYSTEM_CLOCK)
    assert transport.body("/v1/candles/days", {"market": "KRW-BTC", "count": "3"}, at(1)) == b"[]"


def test_a_recorded_candle_comes_with_its_last_trade(make_store):
    candles = [candle(0, "3", last_trade_at=at(59)), candle(1, "4", last_trade_at=at(61)), candle(2, "5")]
    trades = [trade(number, seconds=float(number)) for number in (58, 60, 62)]
    spans = (span("candle.1m", 0, 200), span("trade", 0, 200))
    store = make_store(Batch([*candles, *trades], (), spans))
    with MarketDataBackbone.replay(store) as market:
        found = list(market.subscribe("KRW-BTC", [DataType.TRADE, DataType.CANDLE_1M], overflow=KEEP))
    closes = [getattr(each, "close_price", None) for each in found]
    assert closes == [None, Decimal(3), None, Decimal(4), None, Decimal(5)]


def test_what_is_missing_does_not_stream_and_is_told_when_it_is_over(make_store):
    items = [*map(trade, range(10)), *map(trade, range(100, 110)), ticker(1), ticker(105)]
    spans = (span("trade", 0, 1), span("trade", 10, 12), span("ticker", 0, 1), span("ticker", 10, 12))
    store = make_store(Batch(items, (), spans))
    told = []
    with MarketDataBackbone.replay(store, on_event=told.append) as market:
        list(market.subscribe("KRW-BTC", DataType.TRADE, overflow=KEEP))
    gaps = [each for each in told if isinstance(each, GapEvent)]
    assert [(each.type, each.start, each.end, each.complete) for each in gaps] == [
        (DataType.TRADE, at(1), at(10), False)
    ]
    assert "nobody recorded then" in gaps[0].reason
    with (
        MarketDataBackbone.replay(store, start=at(5)) as market,
        pytest.raises(ChannelUnavailableError, match="missing in the store"),
    ):
        market.get_ticker("KRW-BTC", strategy=DataStrategy.REST_ONLY)


def test_what_a_crash_left_of_a_hole_is_played_all_the_same(make_store):
    items = [*map(trade, range(30)), *map(trade, range(100, 110))]
    store = make_store(Batch(items, (), (span("trade", 0, 1), span("trade", 10, 12))))
    with MarketDataBackbone.replay(store) as market:
        found = list(market.subscribe("KRW-BTC", DataType.TRADE, overflow=KEEP))
    assert as_said(found) == as_said(items)


def test_a_part_is_played_from_a_time_on_and_before_another(make_store):
    store = make_store(Batch([*map(trade, range(100))], (), (span("trade", 0, 10),)))
    with MarketDataBackbone.replay(store, start=at(2), end=at(5)) as market:
        found = list(market.subscribe("KRW-BTC", DataType.TRADE, overflow=KEEP))
    assert as_said(found) == as_said(map(trade, range(20, 50)))


@pytest.mark.slow
def test_a_recorded_market_comes_out_as_it_was_and_twice_the_same(tmp_path):
    path = tmp_path / "day.db"
    with FakeUpbit(seed=5, markets=SYMBOLS, trades_per_second=60.0) as upbit, backbone(upbit) as market:
        kinds = (DataType.TRADE, DataType.TICKER, DataType.ORDERBOOK, DataType.CANDLE_1S)
        with market.record_to(SqliteSink(path), SYMBOLS, kinds, flush_seconds=0.05) as recorder:
            wait_until(lambda: recorder.stats.written > 500, seconds=60.0)
    replays = []
    for _ in range(2):
        with MarketDataBackbone.replay(path) as market:
            replays.append([each.to_json() for each in market.subscribe(SYMBOLS, kinds, overflow=KEEP)])
    assert replays[0] == replays[1]
    store = Store(path)
    kept = [
        (store.trades(each), store.tickers(each), store.orderbooks(each), store.candles(each, "1s")) for each in SYMBOLS
    ]
    assert len(replays[0]) == sum(len(rows) for each in kept for rows in each) > 100
    for symbol in SYMBOLS:
        with MarketDataBackbone.replay(path) as market:
            found = {each.sequential_id for each in market.subscribe(symbol, DataType.TRADE, overflow=KEEP)}
        assert found == stored(path, symbol)


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(InvalidRequestError, match="no such store"):
        MarketDataBackbone.replay(tmp_path)
