from __future__ import annotations

import csv
import json
import tracemalloc
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.support.clock import ManualClock
from tests.support.waiting import wait_until
from upbit_backbone.archive import Store
from upbit_backbone.errors import FileInUseError, InvalidRequestError
from upbit_backbone.sinks import CsvSink, JsonlSink, SqliteSink, columnar, day_files
from upbit_backbone.sinks.base import Batch, Span
from upbit_backbone.sinks.day_files import EXPORT_SECONDS

from .conftest import START, book, candle, ticker, trade

MIDNIGHT = START.replace(hour=0)
DAY = timedelta(days=1)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def sink(folder, clock):
    sink = JsonlSink(folder, clock=clock)
    sink.open()
    yield sink
    sink.close()


def lines_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def files(folder) -> dict[str, int]:
    """The rows of each file, by its path."""
    return {
        path.relative_to(folder).as_posix(): len(path.read_text().splitlines()) for path in folder.glob("*/*/*.jsonl")
    }


def whole_day(kind: str = "trade") -> Span:
    return Span("KRW-BTC", kind, MIDNIGHT - DAY, MIDNIGHT + DAY)


def test_a_file_is_written_when_it_is_due_and_final_once_the_day_is_complete(sink, folder, clock):
    sink.write(Batch([trade(2), trade(1), trade(3, seconds=24 * 3600)]))
    sink.flush()
    assert files(folder) == {}
    clock.now += EXPORT_SECONDS
    sink.flush()
    sink.flush()
    sink.flush()
    assert files(folder) == {
        "trades/2026-01-31/KRW-BTC.open.jsonl": 2,
        "trades/2026-02-01/KRW-BTC.open.jsonl": 1,
    }
    sink.write(Batch(spans=(whole_day(),)))
    sink.flush()
    assert files(folder) == {"trades/2026-01-31/KRW-BTC.jsonl": 2, "trades/2026-02-01/KRW-BTC.open.jsonl": 1}
    rows = lines_of(folder / "trades/2026-01-31/KRW-BTC.jsonl")
    assert [row["sequential_id"] for row in rows] == [trade(1).sequential_id, trade(2).sequential_id]
    assert rows[0]["price"] == "106691001"
    assert rows[0]["timestamp"] == trade(1).timestamp.isoformat()


def test_each_kind_market_and_timeframe_has_files_of_its_own(sink, folder):
    hourly = candle(0, timeframe="1h")
    sink.write(Batch([trade(1), trade(2, symbol="KRW-ETH"), ticker(1), book(1), candle(0), hourly]))
    sink.close()
    assert set(files(folder)) == {
        f"{kind}/2026-01-31/{symbol}.open.jsonl"
        for kind, symbol in (
            ("trades", "KRW-BTC"), ("trades", "KRW-ETH"), ("tickers", "KRW-BTC"), ("orderbooks", "KRW-BTC"),
            ("candles-1m", "KRW-BTC"), ("candles-1h", "KRW-BTC"),
        )
    }  # fmt: skip
    assert Store(folder).trades("KRW-BTC") == [trade(1)]


def test_a_korean_day_begins_at_fifteen_hours_of_utc(folder):
    sink = JsonlSink(folder, day="KST")
    sink.open()
    sink.write(Batch([trade(1, seconds=12 * 3600 - 1), trade(2, seconds=12 * 3600)]))
    sink.close()
    assert set(files(folder)) == {"trades/2026-01-31/KRW-BTC.open.jsonl", "trades/2026-02-01/KRW-BTC.open.jsonl"}
    with pytest.raises(InvalidRequestError, match="expected 'UTC' or 'KST'"):
        JsonlSink(folder, day="Seoul")


def test_what_a_crash_left_open_is_written_by_the_next_recording(folder, clock):
    first = JsonlSink(folder, clock=clock)
    first.open()
    first.write(Batch([trade(1)], spans=(whole_day(),)))
    super(JsonlSink, first)._open_connection.close()  # and nothing else happens: it is killed
    first._lock.release()
    assert files(folder) == {}
    torn = folder / "trades" / "2026-01-31" / ".KRW-BTC.jsonl.1234abcd.tmp"
    torn.parent.mkdir(parents=True)
    torn.write_text("{")
    again = JsonlSink(folder, clock=clock)
    assert again.export() == 1
    assert files(folder) == {"trades/2026-01-31/KRW-BTC.jsonl": 1}
    assert again.export() == 0
    assert not torn.exists()


def test_a_late_row_makes_its_final_file_anew(sink, folder, clock):
    sink.write(Batch([trade(1)], spans=(whole_day(),)))
    clock.now += EXPORT_SECONDS
    sink.flush()
    assert files(folder) == {"trades/2026-01-31/KRW-BTC.jsonl": 1}
    sink.write(Batch([trade(2)]))
    clock.now += EXPORT_SECONDS
    sink.flush()
    assert files(folder) == {"trades/2026-01-31/KRW-BTC.jsonl": 2}


def test_closing_writes_some_files_and_the_rest_is_due_the_next_time(folder, monkeypatch):
    monkeypatch.setattr(day_files, "CLOSING_FILES", 2)
    sink = JsonlSink(folder)
    sink.open()
    sink.write(Batch([trade(number, symbol=f"KRW-C{number}") for number in range(5)]))
    sink.close()
    assert len(files(folder)) == 2
    assert JsonlSink(folder).export() == 5
    assert len(files(folder)) == 5


def test_a_file_that_could_not_be_written_is_tried_again(sink, folder, clock, monkeypatch):
    sink.write(Batch([trade(1)]))
    clock.now += EXPORT_SECONDS

    def full(path, table, rows):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(sink, "_write_file", full)
        with pytest.raises(OSError, match="No space"):
            sink.flush()
    assert not list(folder.glob("*/*/*"))
    sink.flush()
    assert files(folder) == {"trades/2026-01-31/KRW-BTC.open.jsonl": 1}


def test_files_that_take_long_are_written_less_often(sink, folder, clock, monkeypatch):
    write = sink._write_file

    def slowly(path, table, rows):
        clock.now += 100.0
        return write(path, table, rows)

    monkeypatch.setattr(sink, "_write_file", slowly)
    file = folder / "trades/2026-01-31/KRW-BTC.open.jsonl"
    sink.write(Batch([trade(1)]))
    clock.now += EXPORT_SECONDS
    sink.flush()
    sink.write(Batch([trade(2)]))
    clock.now += EXPORT_SECONDS
    sink.flush()
    assert len(lines_of(file)) == 1
    clock.now += 100.0 / day_files.EXPORT_SHARE - EXPORT_SECONDS
    sink.flush()
    assert len(lines_of(file)) == 2


def test_csv_has_a_head_and_the_same_rows(folder):
    sink = CsvSink(folder)
    sink.open()
    nameless = trade(1, sequential_id=None)
    sink.write(Batch([nameless, trade(2), ticker(1, volume_today=None)]))
    sink.close()
    with (folder / "trades/2026-01-31/KRW-BTC.open.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["sequential_id"] for row in rows] == ["", str(trade(2).sequential_id)]
    assert {row["volume"] for row in rows} == {"0.00012345"}


def test_parquet_has_decimals_that_add_up(folder):
    pyarrow = pytest.importorskip("pyarrow.parquet")
    from upbit_backbone.sinks import ParquetSink

    sink = ParquetSink(folder)
    sink.open()
    sink.write(Batch([trade(1), trade(2, sequential_id=None), candle(0), ticker(1), book(1)]))
    sink.close()
    table = pyarrow.read_table(folder / "trades/2026-01-31/KRW-BTC.open.parquet")
    assert sum(table["price"].to_pylist()) == trade(1).price + trade(2).price
    assert table["sequential_id"].to_pylist() == [trade(1).sequential_id, None]
    assert str(table.schema.field("price").type) == "decimal128(18, 8)"
    assert not list(folder.glob("orderbooks/*"))
    assert {path.parent.parent.name for path in folder.glob("*/*/*.parquet")} == {"trades", "candles-1m", "tickers"}


@pytest.mark.parametrize("rows", [1, 2, 1_000])  # at a time: what is written already becomes as wide as what follows
def test_a_parquet_file_has_room_for_a_number_that_is_wider_than_others(folder, monkeypatch, rows):
    pyarrow = pytest.importorskip("pyarrow.parquet")
    from upbit_backbone.sinks import ParquetSink

    monkeypatch.setattr(columnar, "TEXT_ROWS", 1)
    monkeypatch.setattr(day_files, "GROUP_ROWS", rows)
    sink = ParquetSink(folder)
    sink.open()
    tiny, huge = Decimal("0.123456789012345678"), Decimal("12345678901234567890")
    sink.write(Batch([trade(1), trade(2, volume=tiny), trade(3, volume=huge)]))
    sink.close()
    table = pyarrow.read_table(folder / "trades/2026-01-31/KRW-BTC.open.parquet")
    assert table["volume"].to_pylist() == [trade(1).volume, tiny, huge]
    again = ParquetSink(folder)
    again.open()
    again.write(Batch([trade(4)]))  # the connection is free for the next batch
    again.close()
    assert pyarrow.read_table(folder / "trades/2026-01-31/KRW-BTC.open.parquet").num_rows == 4


FEW, MANY = 1_000, 6_000


def filled(sink, count: int) -> Any:
    """The sink, which has a day of so many trades and no file of it yet."""
    sink.open()
    sink.write(Batch([trade(number) for number in range(count)], spans=(whole_day(),)))
    SqliteSink.close(sink)
    return sink


def test_a_long_day_becomes_parquet_in_the_memory_of_a_short_one(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    from upbit_backbone.sinks import ParquetSink

    monkeypatch.setattr(columnar, "TEXT_ROWS", 50)
    monkeypatch.setattr(day_files, "GROUP_ROWS", 100, raising=False)

    def most(count: int) -> int:
        """Of Arrow's bytes at a time while a file is made."""
        sink, usual = filled(ParquetSink(tmp_path / str(count)), count), pyarrow.default_memory_pool()
        counted = pyarrow.proxy_memory_pool(usual)
        pyarrow.set_memory_pool(counted)
        try:
            sink.export()
        finally:
            pyarrow.set_memory_pool(usual)
        (file,) = sink.folder.glob("trades/*/KRW-BTC.parquet")
        ids = parquet.read_table(file)["sequential_id"].to_pylist()
        assert ids == [trade(number).sequential_id for number in range(count)]
        return counted.max_memory()

    assert most(MANY) < 2 * most(FEW)


@pytest.mark.parametrize("kind", [CsvSink, JsonlSink])
def test_a_day_becomes_text_row_by_row(tmp_path, kind):
    sink = filled(kind(tmp_path / "data"), FEW)
    tracemalloc.start()
    try:
        sink.export()
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 400 * FEW  # bytes: a row that waits has twice that


def test_a_disk_that_is_full_in_the_middle_of_a_file_leaves_none_and_the_store_free(folder, clock, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    from upbit_backbone.export.parquet import ParquetRows
    from upbit_backbone.sinks import ParquetSink

    monkeypatch.setattr(columnar, "TEXT_ROWS", 10)
    monkeypatch.setattr(day_files, "GROUP_ROWS", 10)
    sink = ParquetSink(folder, clock=clock)
    sink.open()
    sink.write(Batch([trade(number) for number in range(95)]))
    clock.now += EXPORT_SECONDS
    append, pieces = ParquetRows._append, []

    def full(file, table):
        pieces.append(table)
        if len(pieces) == 5:
            raise OSError(28, "No space left on device")
        append(file, table)

    monkeypatch.setattr(ParquetRows, "_append", full)
    with pytest.raises(OSError, match="No space"):
        sink.flush()
    assert not [path for path in folder.glob("*/*/*") if path.is_file()]
    sink.write(Batch([trade(95)]))
    sink.flush()
    sink.close()
    (file,) = folder.glob("trades/*/*.parquet")
    assert parquet.ParquetFile(file).metadata.num_row_groups == 10
    assert parquet.read_table(file)["price"].to_pylist() == [trade(number).price for number in range(96)]


def test_two_on_one_folder_are_refused(sink, folder):
    with pytest.raises(FileInUseError):
        CsvSink(folder).open()
    with pytest.raises(InvalidRequestError, match="no folder can be made"):
        JsonlSink(folder / "store.db").open()


def test_what_is_recorded_ends_in_files(market, folder):
    with market.record_to(JsonlSink(folder), "KRW-BTC", flush_seconds=0.05) as recorder:
        wait_until(lambda: recorder.stats.written > 20)
    ids = [row["sequential_id"] for path in folder.glob("trades/*/*.jsonl") for row in lines_of(path)]
    assert len(ids) == len(set(ids)) == recorder.stats.written
