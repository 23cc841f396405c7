"""CandleSeries over a model exchange and a scripted stream."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.support.candle_reference import SYMBOL, ReferenceExchange, brute_force, trade, utc
from tests.support.waiting import PATIENCE_SECONDS, wait_until
from upbit_backbone._concurrency import Deadline
from upbit_backbone.errors import ClosedError, InvalidRequestError, NetworkError, SubscriptionError, UnknownSymbolError
from upbit_backbone.exchange.timeframes import timeframe_of
from upbit_backbone.history.candles import CandleHistory
from upbit_backbone.live.bars import CATCH_UP
from upbit_backbone.live.candle_series import CandleSeries
from upbit_backbone.models.enums import DataSource, DataType
from upbit_backbone.models.events import ConnectionEvent, ConnectionState, Event, GapEvent
from upbit_backbone.models.market import CandleData, TickerData
from upbit_backbone.models.request import Topic

MINUTE = timeframe_of("1m")
NOW = utc(2026, 2, 28, 23, 50, 30)


class Stream:
    """A subscription whose frames the test writes."""

    def __init__(self) -> None:
        self.inbox: queue.Queue[Any] = queue.Queue()
        self.topic: Topic | None = None
        self.on_event: Callable[[Event], None] = lambda event: None
        self.is_closed = False

    def subscribe(self, topic: Topic, on_event: Callable[[Event], None]) -> Stream:
        self.topic, self.on_event = topic, on_event
        return self

    def get(self, *, timeout: float | None) -> Any:
        item = self.inbox.get(timeout=timeout)
        if isinstance(item, Exception):
            raise item
        return item

    def close(self) -> None:
        self.is_closed = True
        self.inbox.put(ClosedError("closed"))


class Stage:
    """An exchange, a stream and what a series over them reported."""

    def __init__(self, now: datetime = NOW) -> None:
        old = [trade(now - timedelta(seconds=20 * index), 100 + index, number=10**6 - index) for index in range(300)]
        self.exchange = ReferenceExchange(now, trades=old)
        self.history = CandleHistory(self.exchange.candles_page, exchange_now=self.exchange.tell_now)
        self.stream = Stream()
        self.updates: list[tuple[CandleData, bool]] = []
        self.series: CandleSeries | None = None

    def open(self, timeframe: str = "1m", size: int = 20, **arguments: Any) -> CandleSeries:
        self.series = CandleSeries(
            SYMBOL,
            timeframe,
            size,
            history=self.history,
            subscribe=self.stream.subscribe,
            exchange_now=self.exchange.tell_now,
            on_update=lambda candle, closed: self.updates.append((candle, closed)),
            **arguments,
        )
        return self.series

    def trade(self, seconds: float, price: int = 500, *, is_seen: bool = True) -> None:
        """Time passes, somebody trades, and the stream tells it."""
        self.exchange.now += timedelta(seconds=seconds)
        self.exchange.trades.append(trade(self.exchange.now, price, number=2 * 10**6 + len(self.exchange.trades)))
        if is_seen:
            self.send()

    def send(self) -> None:
        newest = brute_force(MINUTE, self.exchange.trades, self.exchange.now)[-1]
        self.stream.inbox.put(replace(newest, source=DataSource.WEBSOCKET, is_closed=False))

    def interrupt(self) -> None:
        self.stream.on_event(
            ConnectionEvent(at=self.exchange.now, session="s", state=ConnectionState.WAITING, reason="cut")
        )

    def recover(self) -> None:
        self.stream.on_event(
            ConnectionEvent(at=self.exchange.now, session="s", state=ConnectionState.LIVE, reason="", downtime=1.0)
        )

    def expected(self, timeframe: str = "1m", size: int = 20) -> list[Any]:
        return [numbers(row) for row in brute_force(timeframe_of(timeframe), self.exchange.trades, self.exchange.now)][
            -size:
        ]

    def close(self) -> None:
        if self.series is not None:
            assert self.series.close() == []
        self.history.close(Deadline.after(2.0))


def numbers(row: CandleData) -> tuple[object, ...]:
    prices = (row.open_price, row.high_price, row.low_price, row.close_price)
    return (row.timestamp, *prices, row.volume, row.is_closed)


@pytest.fixture
def stage() -> Iterator[Stage]:
    ready = Stage()
    yield ready
    ready.close()


def test_a_thread_of_a_series_that_dies_is_replaced_and_goes_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    series = stage.open()
    first, take_turn, broke = series._loop.thread, series._loop._take_turn, threading.Event()

    def broken() -> None:
        if not broke.is_set():
            broke.set()
            raise SystemExit
        take_turn()

    monkeypatch.setattr(series._loop, "_take_turn", broken)
    wait_until(lambda: series._loop.thread is not first, "a new thread")
    stage.trade(1, price=777)
    wait_until(lambda: series.last is not None and series.last.close_price == 777, "the next update")
    assert "broke out of its loop" in caplog.text


def test_whatever_a_listener_raises_the_others_hear_of_it(stage: Stage) -> None:
    series = stage.open()

    def exits(candle: CandleData, closed: bool) -> None:
        raise SystemExit

    heard: list[CandleData] = []
    series.on_update(exits)
    series.on_update(lambda candle, closed: heard.append(candle))
    for price in (777, 778):
        stage.trade(1, price=price)
    wait_until(lambda: [each.close_price for each in heard][-1:] == [778], "the last update")
    assert series.callback_errors == len(heard)


def test_it_begins_with_what_rest_says(stage: Stage) -> None:
    series = stage.open()
    assert [numbers(row) for row in series] == stage.expected()
    assert len(series) == 20
    assert series[-1] is series.last
    assert series[:2] == series.candles[:2]
    assert series.last.is_closed is False
    assert stage.stream.topic == Topic(DataType.CANDLE_1M, SYMBOL)
    assert repr(series) == "<CandleSeries KRW-BTC 1m 20/20 candles, current>"


def test_the_stream_carries_it_on_and_every_change_is_reported_in_order(stage: Stage) -> None:
    series = stage.open()
    for _ in range(12):
        stage.trade(25)
    wait_until(lambda: [numbers(row) for row in series] == stage.expected())
    wait_until(lambda: len(stage.updates) >= 12)
    starts = [candle.timestamp for candle, _ in stage.updates]
    assert starts == sorted(starts)
    closed = [candle.timestamp for candle, is_closed in stage.updates if is_closed]
    assert closed == sorted(set(closed))
    assert all(candle.is_closed == is_closed for candle, is_closed in stage.updates)


@pytest.mark.parametrize("seconds", [20, 90, 900, 3_600, 90_000])
def test_after_a_cut_of_any_length_it_is_what_rest_says(stage: Stage, seconds: int) -> None:
    series = stage.open()
    stage.trade(10)
    stage.interrupt()
    assert not series.is_current
    for _ in range(30):
        stage.trade(seconds / 30, is_seen=False)
    stage.send()
    stage.recover()
    wait_until(lambda: [numbers(row) for row in series] == stage.expected() and series.is_current)


@pytest.mark.parametrize("is_told_first", [False, True])
@pytest.mark.parametrize(("size", "missed"), [(1, 1), (1, 5), (2, 1), (20, 60), (20, 250), (200, 199)])
def test_a_cut_longer_than_the_series_skips_no_candle(
    stage: Stage, size: int, missed: int, is_told_first: bool
) -> None:
    first = MINUTE.floor(NOW)
    stage.exchange.serve(MINUTE, [MINUTE.shift(first, index) for index in range(-300, missed + 2)])
    series = stage.open(size=size)
    stage.interrupt()
    stage.exchange.now += timedelta(minutes=missed + 1)
    if is_told_first:  # the stream is back before REST has told what was missed
        newest = stage.exchange.candles(MINUTE)[-1]
        stage.stream.inbox.put(replace(newest, source=DataSource.WEBSOCKET))
        wait_until(lambda: any(candle.timestamp == newest.timestamp for candle, _ in stage.updates))
    stage.recover()
    wait_until(lambda: series.is_current)
    wait_until(lambda: sum(closed for _, closed in stage.updates) >= missed + 1)
    closed = [candle.timestamp for candle, is_closed in stage.updates if is_closed]
    assert sorted(closed) == [MINUTE.shift(first, index) for index in range(missed + 1)]
    assert [row.timestamp for row in series] == [MINUTE.shift(first, missed + 1 - index) for index in range(size)][::-1]


def test_what_was_missed_beyond_all_measure_is_told_once(stage: Stage) -> None:
    first = MINUTE.floor(NOW)
    missed = CATCH_UP + 500
    stage.exchange.serve(MINUTE, [MINUTE.shift(first, index) for index in range(-30, missed + 2)])
    receipts: list[Event] = []
    series = stage.open(size=10, emit=receipts.append)
    stage.interrupt()
    stage.exchange.now += timedelta(minutes=missed + 1)
    stage.recover()
    wait_until(lambda: stage.updates[-1:] and stage.updates[-1][0].timestamp == MINUTE.shift(first, missed + 1))
    (receipt,) = receipts
    assert isinstance(receipt, GapEvent)
    closed = [candle.timestamp for candle, is_closed in stage.updates if is_closed]
    assert not receipt.complete
    assert closed == sorted(set(closed))
    expected = [MINUTE.shift(first, index) for index in range(missed + 1)]
    told = [start for start in expected if not receipt.missing_start <= start <= receipt.missing_end]
    assert len(told) == CATCH_UP - 1
    assert [start for start in closed if start != first] == told  # the first was forming when the line broke
    series.repair()
    wait_until(lambda: series.is_current)
    assert len(receipts) == 1


def test_a_first_connection_that_waited_for_its_turn_leaves_it_current_once_it_stands(stage: Stage) -> None:
    series = stage.open()
    stage.interrupt()
    assert not series.is_current
    stage.trade(30, is_seen=False)
    stage.stream.on_event(
        ConnectionEvent(at=stage.exchange.now, session="s", state=ConnectionState.CONNECTING, reason="trying again")
    )
    assert not series.is_current
    stage.stream.on_event(
        ConnectionEvent(at=stage.exchange.now, session="s", state=ConnectionState.LIVE, reason="connected")
    )
    wait_until(lambda: series.is_current)
    assert [numbers(row) for row in series] == stage.expected()


def test_a_gap_report_about_another_market_is_not_ours(stage: Stage) -> None:
    stage.open()
    before = len(stage.exchange.calls)
    for symbol, kind in (("KRW-ETH", DataType.CANDLE_1M), (SYMBOL, DataType.TRADE)):
        stage.stream.on_event(
            GapEvent(at=NOW, symbol=symbol, type=kind, start=NOW, end=NOW, recovered=0, complete=False)
        )
    stage.trade(1)
    wait_until(lambda: bool(stage.updates))
    assert len(stage.exchange.calls) == before


def test_a_repair_that_fails_is_tried_again_until_it_succeeds(stage: Stage) -> None:
    series = stage.open()
    calls = len(stage.exchange.calls)
    stage.exchange.faults = {calls + 1: UnknownSymbolError("odd")}
    stage.trade(200, is_seen=False)
    stage.recover()
    wait_until(lambda: series.last_error is not None)
    assert not series.is_current
    wait_until(lambda: series.is_current and [numbers(row) for row in series] == stage.expected())
    assert series.last_error is None


def test_a_market_that_falls_silent_still_closes_its_candle(stage: Stage) -> None:
    series = stage.open()
    stage.exchange.now += timedelta(seconds=33)
    wait_until(lambda: bool(stage.updates))
    assert stage.updates[0][1] is True
    assert series.last.is_closed


def test_a_correction_is_reported_and_rest_has_the_last_word(stage: Stage) -> None:
    series = stage.open()
    wrong = replace(series[-3], volume=Decimal(999), source=DataSource.WEBSOCKET)
    stage.stream.inbox.put(wrong)
    wait_until(lambda: series.corrections == 1)
    assert series[-3].volume == 999
    series.repair()
    wait_until(lambda: series.corrections == 2)
    assert [numbers(row) for row in series] == stage.expected()
    assert [candle.timestamp for candle, closed in stage.updates if closed] == [wrong.timestamp] * 2


@pytest.mark.parametrize("timeframe", ["1d", "1w", "1M", "1y"])
def test_units_without_a_stream_are_kept_by_tickers(timeframe: str) -> None:
    stage = Stage(now=utc(2025, 12, 31, 23, 58))
    try:
        series = stage.open(timeframe, size=5)
        assert stage.stream.topic == Topic(DataType.TICKER, SYMBOL)
        for _ in range(10):
            stage.trade(40, is_seen=False)
            stage.stream.inbox.put(ticker_of(stage))
        wait_until(lambda: [numbers(row) for row in series] == stage.expected(timeframe, 5))
        assert stage.updates
    finally:
        stage.close()


def ticker_of(stage: Stage) -> TickerData:
    today = brute_force(timeframe_of("1d"), stage.exchange.trades, stage.exchange.now)[-1]
    nothing: dict[str, Any] = dict.fromkeys(("change_rate", "change_amount", "volume_24h", "prev_closing_price"))
    return TickerData(
        symbol=SYMBOL,
        current_price=today.close_price,
        high_24h=today.high_price,
        low_24h=today.low_price,
        opening_price=today.open_price,
        volume_today=today.volume,
        traded_value_today=today.traded_value,
        timestamp=stage.exchange.now,
        trade_timestamp=stage.exchange.now,
        source=DataSource.WEBSOCKET,
        **nothing,
    )


def test_a_callback_that_raises_hurts_nobody(stage: Stage) -> None:
    series = stage.open()

    @series.on_update
    def broken(candle: CandleData, closed: bool) -> None:
        raise RuntimeError("mine")

    for _ in range(3):
        stage.trade(1)
    wait_until(lambda: series.callback_errors == 3)
    assert len(stage.updates) == 3


def test_waiting_gives_the_candle_that_changed_or_none(stage: Stage) -> None:
    series = stage.open()
    assert series.wait_update(timeout=0.01) is None
    timer = threading.Timer(0.05, stage.trade, [5, 777])
    timer.start()
    changed = series.wait_update(timeout=PATIENCE_SECONDS)
    timer.join()
    assert changed is not None
    assert changed.close_price == 777


def test_growing_fetches_the_older_ones(stage: Stage) -> None:
    series = stage.open(size=5)
    series.resize(30)
    assert [numbers(row) for row in series] == stage.expected(size=30)
    series.resize(3)
    assert [numbers(row) for row in series] == stage.expected(size=3)
    assert series.size == 3
    with pytest.raises(InvalidRequestError, match="from 1 to 100,000"):
        series.resize(0)


def test_older_candles_come_page_by_page_to_the_beginning_of_history_and_never_twice(stage: Stage) -> None:
    series = stage.open(size=5)
    whole = stage.expected(size=1000)
    assert not series.has_reached_start
    older = series.load_older(20)
    assert [numbers(row) for row in older] == whole[-25:-5]
    assert [numbers(row) for row in series] == whole[-25:]
    asked = 0
    while not series.has_reached_start:
        asked += len(series.load_older(40))
    assert [numbers(row) for row in series] == whole
    assert asked == len(whole) - 25
    calls = len(stage.exchange.calls)
    assert series.load_older(40) == []
    assert len(stage.exchange.calls) == calls


def test_a_series_shorter_than_asked_for_has_all_of_history(stage: Stage) -> None:
    series = stage.open(size=500)
    assert len(series) < 500
    assert series.has_reached_start
    assert series.load_older(100) == []


def test_what_falls_off_a_full_series_can_be_loaded_again(stage: Stage) -> None:
    series = stage.open(size=len(stage.expected(size=1000)))
    series.load_older(1)
    assert series.has_reached_start
    first = series[0]
    stage.trade(60)
    wait_until(lambda: series[0] != first, "the oldest falls off")
    assert not series.has_reached_start
    assert series.load_older(5) == [first]


def test_candles_that_end_while_older_ones_are_loaded_leave_no_hole(stage: Stage) -> None:
    series = stage.open(size=5)
    is_asked, may_answer = threading.Event(), threading.Event()

    def answer_late() -> None:
        is_asked.set()
        assert may_answer.wait(PATIENCE_SECONDS)

    stage.exchange.rate = answer_late
    loading = threading.Thread(target=series.load_older, args=(10,))
    loading.start()
    assert is_asked.wait(PATIENCE_SECONDS)
    newest = series.last
    stage.trade(60)
    wait_until(lambda: series.last != newest, "the stream goes on meanwhile")
    assert len(series) == 5
    may_answer.set()
    loading.join()
    assert len(series) == series.size == 16
    assert [row.timestamp for row in series] == [row[0] for row in stage.expected(size=16)]


def test_two_that_load_older_ones_at_once_double_no_row(stage: Stage) -> None:
    series = stage.open(size=5)
    together = threading.Barrier(2)

    def load() -> None:
        together.wait()
        series.load_older(10)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [numbers(row) for row in series] == stage.expected(size=len(series))
    assert len(series) in (15, 25)


def test_older_candles_that_cannot_be_had_change_nothing(stage: Stage) -> None:
    series = stage.open(size=5)
    before = series.candles
    stage.exchange.faults = dict.fromkeys(range(1, 100), UnknownSymbolError("gone"))
    with pytest.raises(UnknownSymbolError):
        series.load_older(10)
    assert (series.candles, series.size) == (before, 5)
    with pytest.raises(InvalidRequestError, match="100,000"):
        series.load_older(100_000)
    series.close()
    with pytest.raises(ClosedError):
        series.load_older(10)


def test_a_seed_that_fails_leaves_nothing_behind(stage: Stage) -> None:
    stage.exchange.faults = {1: UnknownSymbolError("no such market")}
    with pytest.raises(UnknownSymbolError):
        stage.open()
    assert stage.stream.is_closed


def test_closing_ends_it_and_keeps_the_rows_readable(stage: Stage) -> None:
    series = stage.open()
    timer = threading.Timer(0.05, series.close)
    timer.start()
    with pytest.raises(ClosedError):
        series.wait_update(timeout=PATIENCE_SECONDS)
    timer.join()
    assert len(series) == 20
    assert not series.is_current
    assert stage.stream.is_closed
    with pytest.raises(ClosedError):
        series.resize(50)
    assert "closed" in repr(series)


def test_closing_during_a_repair_is_quick(stage: Stage) -> None:
    series = stage.open()
    stage.exchange.latency = 1.0
    calls = len(stage.exchange.calls)
    stage.recover()
    wait_until(lambda: len(stage.exchange.calls) > calls)
    assert series.close(Deadline.after(0.9)) == []


def test_a_subscription_that_ends_ends_the_series_with_its_error(stage: Stage) -> None:
    series = stage.open()
    stage.stream.inbox.put(SubscriptionError("refused"))
    with pytest.raises(ClosedError):
        series.wait_update(timeout=PATIENCE_SECONDS)
    assert isinstance(series.last_error, SubscriptionError)


def test_reading_while_it_changes_never_sees_half_a_change(stage: Stage) -> None:
    series = stage.open()
    stop, broken = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            rows = series.candles
            starts = [row.timestamp for row in rows]
            if starts != sorted(set(starts)) or not all(row.is_closed for row in rows[:-1]):
                broken.append(starts)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for index in range(60):
        stage.trade(31)
        if index % 20 == 10:
            stage.recover()
    wait_until(lambda: series.is_current and [numbers(row) for row in series] == stage.expected())
    stop.set()
    for reader in readers:
        reader.join()
    assert broken == []


def test_trouble_during_a_repair_is_survived(stage: Stage) -> None:
    series = stage.open()
    calls = len(stage.exchange.calls)
    stage.exchange.faults = {calls + 1: NetworkError("cut", retry_after=0.01)}
    stage.trade(500, is_seen=False)
    stage.recover()
    wait_until(lambda: series.is_current and [numbers(row) for row in series] == stage.expected())
