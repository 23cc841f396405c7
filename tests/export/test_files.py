"""Files that are whole or not there: interrupted, resumed, killed in the middle of a line."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.export.files import CsvFile, write_csv, write_parquet
from upbit_backbone.models.enums import DataSource
from upbit_backbone.models.market import CandleData, OrderbookUnit

START = datetime(2026, 3, 1, tzinfo=UTC)


def candle(index: int, price: str = "0.00000012") -> CandleData:
    value = Decimal(price)
    at = START + timedelta(minutes=index)
    return CandleData("KRW-BTC", "1m", value, value, value, value, Decimal("1E+3"), at, DataSource.REST)


def candles(count: int, first: int = 0) -> list[CandleData]:
    return [candle(index) for index in range(first, first + count)]


def breaking(count: int) -> Iterator[CandleData]:
    yield from candles(count)
    raise RuntimeError("the line was cut")


def times(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8") as file:
        return [row["timestamp"] for row in csv.DictReader(file)]


def test_csv_numbers_are_written_out_and_times_have_their_zone(tmp_path: Path) -> None:
    path = tmp_path / "candles.csv"
    assert write_csv(candles(2), path) == 2
    header, first, _ = path.read_text(encoding="utf-8").splitlines()
    assert header.startswith("timestamp,symbol,timeframe,open_price")
    assert first == "2026-03-01T00:00:00+00:00,KRW-BTC,1m" + ",0.00000012" * 4 + ",1000,,True,False,rest"


def test_nothing_to_write_makes_a_file_with_a_header(tmp_path: Path) -> None:
    assert write_csv([], tmp_path / "empty.csv") == 0
    assert times(tmp_path / "empty.csv") == []


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_an_error_leaves_the_old_file_and_no_other(tmp_path: Path, write: object) -> None:
    path = tmp_path / "candles.out"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="cut"):
        write(breaking(50), path)  # type: ignore[operator]
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["candles.out"]


def test_an_interrupted_download_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "candles.csv"
    with pytest.raises(RuntimeError), CsvFile(path) as file:
        file.write(breaking(30))
    assert not path.exists()
    with CsvFile(path, resume=True) as file:
        assert file.last == candle(29).timestamp
        assert file.rows == 30
        file.write(candles(20, first=30))
    assert times(path) == [each.timestamp.isoformat() for each in candles(50)]
    assert [each.name for each in tmp_path.iterdir()] == ["candles.csv"]


def test_a_finished_file_can_be_gone_on_from_and_stays_whole_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "candles.csv"
    write_csv(candles(5), path)
    with CsvFile(path, resume=True) as file:
        file.write(candles(5, first=5))
        assert len(times(path)) == 5
    assert len(times(path)) == 10


def test_without_resume_it_starts_afresh(tmp_path: Path) -> None:
    path = tmp_path / "candles.csv"
    path.with_name("candles.csv.part").write_text("rubbish")
    with CsvFile(path) as file:
        file.write(candles(3))
    assert len(times(path)) == 3


def test_a_part_of_something_else_is_not_gone_on_from(tmp_path: Path) -> None:
    path = tmp_path / "candles.csv"
    path.with_name("candles.csv.part").write_text("a,b,c\n1,2,3\n")
    with pytest.raises(InvalidRequestError, match="other columns"):
        CsvFile(path, resume=True)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40), st.integers(0, 3_000))
def test_wherever_a_file_is_torn_it_resumes_at_a_whole_row(
    tmp_path_factory: pytest.TempPathFactory, rows: int, lost: int
) -> None:
    path = tmp_path_factory.mktemp("torn") / "candles.csv"
    with pytest.raises(RuntimeError), CsvFile(path) as file:
        file.write(breaking(rows))
    part = path.with_name("candles.csv.part")
    part.write_bytes(part.read_bytes()[: max(0, part.stat().st_size - lost)])
    with CsvFile(path, resume=True) as file:
        done = file.rows
        assert file.last == (candle(done - 1).timestamp if done else None)
        file.write(candles(50 - done, first=done))
    assert times(path) == [each.timestamp.isoformat() for each in candles(50)]


def test_parquet_keeps_every_digit(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "candles.parquet"
    assert write_parquet([candle(0, "116539000.1234567890123456"), candle(1, "1E-8")], path) == 2
    table = parquet.read_table(path)
    assert table["close_price"].to_pylist() == [Decimal("116539000.1234567890123456"), Decimal("0.00000001")]
    assert table["timestamp"].to_pylist()[1].isoformat() == "2026-03-01T00:01:00+00:00"
    assert write_parquet(candles(25_000), path, numbers="float") == 25_000
    assert parquet.read_table(path)["volume"].to_pylist()[:2] == [1000.0, 1000.0]


def test_a_number_that_does_not_fit_is_an_error_never_rounded(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(InvalidRequestError, match="does not fit"):
        write_parquet([candle(0, "1E-20")], tmp_path / "candles.parquet")
    assert list(tmp_path.iterdir()) == []


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"upbit-backbone\[parquet\]"):
        write_parquet(candles(1), tmp_path / "candles.parquet")


def test_what_has_no_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="CandleData, TradeData, TickerData"):
        write_csv([OrderbookUnit(Decimal(1), Decimal(1))], tmp_path / "units.csv")
