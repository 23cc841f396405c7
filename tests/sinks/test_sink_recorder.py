"""Recording over the simulator: what the store says is complete holds what the simulator says has happened."""

from __future__ import annotations

import queue
import sqlite3
import threading
from datetime import datetime, timedelta

import pytest

from tests.support.waiting import wait_until
from upbit_backbone import DataSource, DataType, HealthStatus, MarketDataBackbone, TradeData
from upbit_backbone.archive import CoverageState, Store
from upbit_backbone.errors import ClosedError, FileInUseError, InvalidRequestError, UnknownSymbolError
from upbit_backbone.exchange.fields import SHUFFLE
from upbit_backbone.models.events import SinkEvent
from upbit_backbone.sinks import Sink, SqliteSink, filling, sink_recorder, sink_writer
from upbit_backbone.sinks import spool as spool_module
from upbit_backbone.sinks import sqlite as sqlite_module
from upbit_backbone.sinks.columns import from_micros

from .conftest import SYMBOLS, backbone, missing, stored


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(sink_recorder, "COVERAGE_SECONDS", 0.3)
    monkeypatch.setattr(sink_recorder, "LAST_COVERAGE_SECONDS", 0.3)
    monkeypatch.setattr(sink_recorder, "FILL_AGAIN_SECONDS", 0.5)
    monkeypatch.setattr(sink_writer, "FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(sink_writer, "LONGEST_PAUSE_SECONDS", 0.5)  # however long a crowded machine keeps a sink away


class Away(Sink):
    """Keeps batches, and fails while it is told to."""

    def __init__(self) -> None:
        self.items: list = []
        self.calls: queue.Queue[str] = queue.Queue()
        self.is_away = threading.Event()

    def write(self, batch):
        if self.is_away.is_set():
            raise ConnectionError("the database is away")
        self.items += batch.items

    def flush(self):
        self.calls.put("flush")

    def close(self):
        self.calls.put("close")


def seconds_complete(path, symbol: str) -> float:
    stretches = Store(path).coverage(symbol) if path.exists() else []
    return sum(each.seconds for each in stretches if each.state is CoverageState.COMPLETE)


@pytest.mark.slow
def test_what_is_complete_is_there_and_nothing_else_is(upbit, market, path):
    kinds = [DataType.TRADE, DataType.TICKER, DataType.ORDERBOOK, DataType.CANDLE_1S]
    with market.record_to(SqliteSink(path), SYMBOLS, kinds, flush_seconds=0.2) as recorder:
        wait_until(lambda: all(seconds_complete(path, symbol) > 1.0 for symbol in SYMBOLS))
        assert market.health().sinks == (recorder.stats,) or market.health().sinks[0].written
    stats = recorder.stats
    assert (stats.waiting, stats.dropped, stats.error) == (0, 0, None)
    for symbol in SYMBOLS:
        assert missing(upbit, path, symbol) == []
        assert stored(path, symbol) <= {row["sequential_id"] for row in upbit.trades(symbol)} | stored_before(
            upbit, symbol
        )
    store = Store(path)
    assert {kind for _, kind in store.topics()} == {"trade", "ticker", "orderbook", "candle.1s"}
    moment = store.trades("KRW-BTC")[-1].timestamp
    state = store.as_of("KRW-BTC", moment)
    assert state.trade.timestamp == moment
    assert state.ticker.timestamp <= moment
    assert state.orderbook.timestamp <= moment


def stored_before(upbit, symbol: str) -> set[int]:
    """The simulator's past is made up before it begins: of it, a subscription shows the very last trade."""
    first = min(row["sequential_id"] for row in upbit.trades(symbol))
    with backbone(upbit) as asking:
        return {each.sequential_id for each in asking.get_trades(symbol, count=500) if each.sequential_id < first}


def is_one_piece(path, symbol: str, until) -> bool:
    """Whether all is complete from the beginning until after `until`."""
    found = Store(path).coverage(symbol) if path.exists() else []
    return [each.state for each in found] == [CoverageState.COMPLETE] and found[0].end > until


@pytest.mark.slow
def test_a_recording_that_ends_in_order_lacks_no_more_than_trades_may_overtake_each_other(
    upbit, market, path, monkeypatch
):
    monkeypatch.setattr(sink_recorder, "COVERAGE_SECONDS", 1e9)  # it looks at its beginning, and then at its end
    monkeypatch.setattr(sink_recorder, "LAST_COVERAGE_SECONDS", 1e9)
    recorder = market.record_to(SqliteSink(path), SYMBOLS, flush_seconds=0.2)
    times: dict[str, list[datetime]] = {}

    def is_some_time_recorded() -> bool:
        times.update((symbol, sorted(each.timestamp for each in stored_trades(path, symbol))) for symbol in SYMBOLS)
        return all(len(each) > 1 and each[-1] - each[0] > 3 * SHUFFLE for each in times.values())

    wait_until(is_some_time_recorded)
    assert recorder.close(30.0) == []
    for symbol in SYMBOLS:
        (whole,) = [each for each in Store(path).coverage(symbol) if each.state is CoverageState.COMPLETE]
        assert whole.end >= times[symbol][-2] - SHUFFLE
        assert missing(upbit, path, symbol) == []


@pytest.mark.slow
def test_a_recording_is_complete_from_its_first_trade_on(upbit, market, path):
    with market.record_to(SqliteSink(path), SYMBOLS, flush_seconds=0.2):
        wait_until(lambda: all(begins_with_its_first_trade(path, symbol) for symbol in SYMBOLS))
        for symbol in SYMBOLS:
            wait_until(lambda symbol=symbol: is_one_piece(path, symbol, first_streamed(path, symbol) + 2 * SHUFFLE))
    for symbol in SYMBOLS:
        assert missing(upbit, path, symbol) == []


def first_streamed(path, symbol: str) -> datetime:
    return min(each.timestamp for each in stored_trades(path, symbol) if each.source is DataSource.WEBSOCKET)


def begins_with_its_first_trade(path, symbol: str) -> bool:
    known = Store(path).coverage(symbol) if path.exists() else []
    return bool(known) and known[0].start <= first_streamed(path, symbol)


@pytest.mark.slow
def test_what_a_quiet_market_traded_before_it_was_recorded_is_complete_once_an_answer_cannot_be_behind(
    upbit, path, monkeypatch
):
    monkeypatch.setattr(filling, "BEHIND", timedelta(seconds=1.0))
    monkeypatch.setattr(sink_recorder, "START_SECONDS", 0.1)
    monkeypatch.setattr(sink_recorder, "START_AGAIN_SECONDS", 0.5)
    upbit.pause()
    with backbone(upbit) as market, market.record_to(SqliteSink(path), "KRW-BTC", flush_seconds=0.1) as recorder:
        wait_until(lambda: path.exists() and Store(path).trades("KRW-BTC"))
        last = Store(path).trades("KRW-BTC")[-1].timestamp
        wait_until(lambda: is_one_piece(path, "KRW-BTC", last) and Store(path).coverage("KRW-BTC")[0].start <= last)
        wait_until(lambda: recorder.stats.filling == 0)


def test_a_sink_that_says_nothing_of_what_it_lacks_gets_nothing_twice(market, path, monkeypatch):
    monkeypatch.setattr(sink_recorder, "START_SECONDS", 1e9)  # it would be asked for, but not now
    for sink, fills in ((Away(), 0), (SqliteSink(path), 1)):
        with market.record_to(sink, "KRW-BTC", flush_seconds=0.05) as recorder:
            wait_until(lambda recorder=recorder: recorder.stats.written)
            assert recorder.stats.filling == fills


def stored_trades(path, symbol: str) -> list[TradeData]:
    return Store(path).trades(symbol) if path.exists() else []


def test_whoever_closes_in_a_hurry_waits_for_no_last_look(upbit, market, monkeypatch):
    monkeypatch.setattr(sink_recorder, "ENDING_SECONDS", 1e9)
    recorder = market.record_to(Away(), "KRW-BTC", flush_seconds=0.05)
    wait_until(lambda: recorder._watermarks.has_candidates)  # so that there would be something to wait for
    with monkeypatch.context() as hurried:
        hurried.setattr(sink_recorder, "UNHURRIED_SECONDS", 1e9)
        assert recorder.close(60.0) == []
    patient = market.record_to(Away(), "KRW-BTC", flush_seconds=0.05)
    wait_until(lambda: patient._watermarks.has_candidates)
    closing = threading.Thread(target=patient.close, args=(60.0,))
    closing.start()
    assert patient.close(60.0) == []
    closing.join(60.0)
    assert not closing.is_alive()


@pytest.mark.endurance  # always run is `test_kills`, which breaks lines and goes on as well
def test_a_recording_that_goes_on_closes_the_hole_since_the_last_one(upbit, path):
    for _ in range(2):
        with backbone(upbit) as market:
            began = from_micros(upbit.now_ms() * 1000)
            market.record_to(SqliteSink(path), SYMBOLS, flush_seconds=0.2)
            wait_until(lambda began=began: all(is_one_piece(path, symbol, began) for symbol in SYMBOLS))
        already = {symbol: len(upbit.trades(symbol)) for symbol in SYMBOLS}
        wait_until(lambda already=already: all(len(upbit.trades(s)) > already[s] + 20 for s in SYMBOLS))
    for symbol in SYMBOLS:
        assert is_one_piece(path, symbol, began)
        assert missing(upbit, path, symbol) == []


@pytest.mark.endurance  # always run is `test_kills`, which breaks lines and goes on as well
def test_a_broken_line_costs_nothing_that_is_called_complete(upbit, market, path):
    with market.record_to(SqliteSink(path), SYMBOLS, flush_seconds=0.2):
        wait_until(lambda: seconds_complete(path, "KRW-BTC") > 0)
        upbit.refuse(1.0)
        before = seconds_complete(path, "KRW-BTC")
        wait_until(lambda: seconds_complete(path, "KRW-BTC") > before + 3.0)
    for symbol in SYMBOLS:
        assert missing(upbit, path, symbol) == []


@pytest.mark.slow
def test_where_rest_has_nothing_the_hole_has_a_name_and_fill_closes_it_later(upbit, market, path):
    with market.record_to(SqliteSink(path), "KRW-BTC", flush_seconds=0.2):
        wait_until(lambda: seconds_complete(path, "KRW-BTC") > 0)
        upbit.rest_fault("/v1/trades/ticks*", status=400, times=None)  # what no later answer changes
        upbit.refuse(0.5)
        wait_until(lambda: rows_of(path, "SELECT reason FROM gaps WHERE complete = 0"))
        wait_until(lambda: holes_between(path))
    assert missing(upbit, path, "KRW-BTC") == []
    upbit.clear_faults()
    report = Store(path).fill(market, "KRW-BTC")
    assert report.closed
    assert not holes_between(path)
    assert missing(upbit, path, "KRW-BTC") == []


def rows_of(path, query: str) -> list:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def holes_between(path) -> list:
    return [hole for hole in Store(path).holes() if hole.end is not None]


@pytest.mark.slow
def test_a_sink_that_is_away_costs_nothing_while_there_is_room(upbit, market, monkeypatch):
    monkeypatch.setattr(spool_module, "MEMORY_ROWS", 20)
    events: queue.Queue = queue.Queue()
    market.on_event(lambda event: events.put(event) if isinstance(event, SinkEvent) else None)
    sink = Away()
    with market.record_to(sink, "KRW-BTC", flush_seconds=0.05) as recorder:
        wait_until(lambda: recorder.stats.written)
        seen = market.subscribe("KRW-BTC", DataType.TRADE, maxsize=100_000)  # not before: the recorder saw all of it
        sink.is_away.set()
        wait_until(lambda: recorder.stats.spilled > 50)
        report = market.health()
        assert report.status is HealthStatus.DEGRADED
        assert any("sink Away has been failing" in reason for reason in report.reasons)
        assert "the database is away" in recorder.stats.error
        sink.is_away.clear()
        wait_until(lambda: not recorder.stats.error and recorder.stats.waiting < 20)
        last = seen.get(timeout=30.0).sequential_id
        wait_until(lambda: last in {trade.sequential_id for trade in sink.items})
    first, second = events.get(timeout=30.0), events.get(timeout=30.0)
    assert (first.error is not None, second.error) == (True, None)
    told = {row["sequential_id"] for row in upbit.trades("KRW-BTC")}
    have = [trade.sequential_id for trade in sink.items if trade.sequential_id in told]
    assert len(have) == len(set(have))
    between = sorted(each for each in told if have[0] <= each <= have[-1])
    assert have == between
    assert recorder.stats.dropped == 0
    assert recorder.stats.retries > 0


def test_what_finds_no_room_is_counted_and_told_and_health_says_so(market, monkeypatch):
    monkeypatch.setattr(spool_module, "MEMORY_ROWS", 5)
    events: queue.Queue = queue.Queue()
    market.on_event(lambda event: events.put(event) if isinstance(event, SinkEvent) else None)
    sink = Away()
    sink.is_away.set()
    recorder = market.record_to(sink, "KRW-BTC", flush_seconds=0.05, spill_bytes=2_000)
    market.health()
    wait_until(lambda: recorder.stats.dropped)
    wait_until(lambda: any("lost" in reason and "sink Away" in reason for reason in market.health().reasons))
    while not events.get(timeout=30.0).dropped:
        pass
    recorder.close()
    assert recorder.stats.waiting == 0
    assert recorder.stats.dropped > 0  # what still waited included


def test_what_waits_when_the_recorder_closes_is_written_by_the_next(upbit, path, monkeypatch):
    monkeypatch.setattr(spool_module, "MEMORY_ROWS", 10)
    holder = None
    with backbone(upbit) as market:
        recorder = market.record_to(SqliteSink(path), "KRW-BTC", flush_seconds=0.05)
        wait_until(lambda: recorder.stats.written > 5)
        monkeypatch.setattr(recorder.sink, "write", raising)
        wait_until(lambda: recorder.stats.spilled)
        waiting = recorder.stats.waiting
    assert recorder.stats.dropped == 0
    assert recorder.sink.spill_path.exists()
    already = len(Store(path).trades("KRW-BTC"))
    with backbone(upbit) as market:
        holder = market.record_to(SqliteSink(path), "KRW-BTC", flush_seconds=0.05)
        wait_until(lambda: len(Store(path).trades("KRW-BTC")) >= already + waiting)
    assert holder.stats.dropped == 0
    assert not recorder.sink.spill_path.exists()
    assert missing(upbit, path, "KRW-BTC") == []


def raising(batch):
    raise sqlite3.OperationalError("database or disk is full")


def test_a_database_that_another_program_has_locked_is_waited_for(upbit, market, path, monkeypatch):
    monkeypatch.setattr(sqlite_module, "BUSY_SECONDS", 0.05)
    with market.record_to(SqliteSink(path), "KRW-BTC", flush_seconds=0.05) as recorder:
        wait_until(lambda: recorder.stats.written)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        wait_until(lambda: recorder.stats.error)
        assert "locked" in recorder.stats.error
        other.execute("ROLLBACK")
        other.close()
        wait_until(lambda: recorder.stats.error is None)
    assert recorder.stats.dropped == 0
    assert missing(upbit, path, "KRW-BTC") == []


def test_a_sink_that_hangs_neither_holds_up_the_stream_nor_the_end(market):
    release = threading.Event()

    class Hanging(Away):
        def write(self, batch):
            self.calls.put("write")
            release.wait()

    sink = Hanging()
    try:
        recorder = market.record_to(sink, "KRW-BTC", flush_seconds=0.05)
        assert sink.calls.get(timeout=30.0) == "write"
        wait_until(lambda: recorder.stats.waiting > 20)
        stream = market.subscribe("KRW-BTC", DataType.TRADE)
        assert stream.get(timeout=30.0)
        assert recorder.close(1.5) == ["upbit-Hanging-write"]
        assert recorder.stats.dropped > 0  # it had nowhere to leave them
    finally:
        release.set()


def test_closing_flushes_and_lets_go_of_the_sink_and_so_does_closing_the_market(upbit):
    for closes_market in (False, True):
        sink = Away()
        with backbone(upbit) as market:
            recorder = market.record_to(sink, "KRW-BTC", flush_seconds=60.0)
            stream = market.subscribe("KRW-BTC", DataType.TRADE)
            # The first of them: the last may be on its way to the recorder's mailbox just now.
            seen, *_ = [stream.get(timeout=30.0) for _ in range(5)]
            if not closes_market:
                assert recorder.close() == []
                assert market.health().sinks == ()
        assert recorder.wait(0.0)
        calls = [sink.calls.get_nowait() for _ in range(sink.calls.qsize())]
        assert calls[-2:] == ["flush", "close"]
        assert calls.count("close") == 1
        assert seen in sink.items
        assert recorder.stats.written == len(sink.items)
        assert recorder.close() == []


def test_nothing_is_left_behind_where_recording_cannot_begin(market, path):
    with pytest.raises(UnknownSymbolError):
        market.record_to(SqliteSink(path), "KRW-NONE")
    assert not path.exists()
    with pytest.raises(InvalidRequestError, match="expected a Sink"):
        market.record_to(str(path), "KRW-BTC")
    with pytest.raises(InvalidRequestError, match="batch_rows"):
        market.record_to(SqliteSink(path), "KRW-BTC", batch_rows=0)
    first = market.record_to(SqliteSink(path), "KRW-BTC")
    with pytest.raises(FileInUseError):
        market.record_to(SqliteSink(path), "KRW-BTC")
    assert [each.sink for each in market.health().sinks] == [first.name]
    first.close()
    with market.record_to(SqliteSink(path), "KRW-BTC") as again:
        assert again.name == first.name
    market.close()
    with pytest.raises(ClosedError):
        market.record_to(SqliteSink(path), "KRW-BTC")


def test_several_sinks_of_one_kind_have_names_of_their_own(market):
    recorders = [market.record_to(Away(), "KRW-BTC") for _ in range(3)]
    assert [each.name for each in recorders] == ["Away", "Away (2)", "Away (3)"]
    recorders[1].close()
    assert market.record_to(Away(), "KRW-BTC").name == "Away (2)"


def test_a_sink_of_ones_own_is_five_minutes_work(market):
    got: queue.Queue = queue.Queue()

    class Mine(Sink):
        def write(self, batch):
            for item in batch.items:
                got.put(item.price)

    with market.record_to(Mine(), quote="KRW", flush_seconds=0.05) as recorder:
        assert got.get(timeout=30.0) > 0
        wait_until(lambda: recorder.stats.written)
        assert recorder.stats.duplicates == 0


def test_a_recording_becomes_a_store_by_being_replayed_into_one(market, tmp_path, path):
    recording = tmp_path / "day.rec"
    with market.record(recording):
        stream = market.subscribe(SYMBOLS, [DataType.TRADE, DataType.TICKER], maxsize=10_000)
        live = [stream.get(timeout=30.0) for _ in range(60)]
    with MarketDataBackbone.replay(recording) as past:
        recorder = past.record_to(SqliteSink(path), SYMBOLS, [DataType.TRADE, DataType.TICKER])
        assert recorder.wait(30.0)  # it ends with the recording
    store = Store(path)
    kept = [item for symbol in SYMBOLS for item in (*store.trades(symbol), *store.tickers(symbol))]
    assert [item for item in live if item not in kept] == []
    assert recorder.stats.dropped == 0
