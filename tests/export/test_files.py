"""Files that are whole or not there: interrupted, resumed, killed in the middle of a line."""

from __future__ import annotations

import csv
import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upbit_backbone.errors import FileInUseError, InvalidRequestError
from upbit_backbone.export.dataframe import as_text, columns_of
from upbit_backbone.export.files import CsvFile, Download, ParquetFile, write_csv, write_parquet
from upbit_backbone.export.parquet import rows_of_parquet
from upbit_backbone.models.enums import DataSource
from upbit_backbone.models.market import CandleData, OrderbookUnit, TradeData

START = datetime(2026, 3, 1, tzinfo=UTC)
WITH_PARQUET = pytest.mark.skipif(find_spec("pyarrow") is None, reason="the extra [parquet] is not installed")


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


@pytest.mark.parametrize("write", [write_csv, pytest.param(write_parquet, marks=WITH_PARQUET)])
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


def test_what_came_to_nothing_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "candles.csv"
    with pytest.raises(RuntimeError), CsvFile(path) as file:
        file.write(breaking(0))
    assert list(tmp_path.iterdir()) == []
    write_csv(candles(5), path)
    with pytest.raises(RuntimeError), CsvFile(path, resume=True) as file:
        file.write(breaking(0))
    with pytest.raises(InvalidRequestError):
        CsvFile(path, resume=True, download=Download("KRW-ETH", "1m", START))
    assert [each.name for each in tmp_path.iterdir()] == ["candles.csv"]


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
@given(st.integers(1, 40), st.integers(0, 3_000))
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


# -- whose rows they are ----------------------------------------------------------------------------------------------

BTC = Download("KRW-BTC", "1m", START)


def begun(
    path: Path, rows: int = 30, download: Download = BTC, make: type[CsvFile] = CsvFile, flush_each: int = 100
) -> Path:
    """An interrupted download of so many rows; the file they are in."""

    def flushed(file: CsvFile) -> Iterator[CandleData]:
        for item in breaking(rows):
            yield item
            if file.rows % flush_each == 0:
                file.flush()

    with pytest.raises(RuntimeError), make(path, download=download) as file:
        file.write(flushed(file))
    return file.part


@pytest.mark.parametrize("has_note", [True, False])
@pytest.mark.parametrize(
    "other",
    [
        Download("KRW-ETH", "1m", START),
        Download("KRW-BTC", "3m", START),
        Download("KRW-BTC", "1m", START + timedelta(minutes=5)),
    ],
)
def test_only_the_same_download_goes_on(tmp_path: Path, other: Download, has_note: bool) -> None:
    path = tmp_path / "candles.csv"
    part = begun(path)
    if not has_note:
        path.with_name("candles.csv.part.json").unlink()
    before = part.read_bytes()
    with pytest.raises(InvalidRequestError, match=r"KRW-BTC.*another name.*--force"):
        CsvFile(path, resume=True, download=other)
    assert part.read_bytes() == before
    with CsvFile(path, resume=True, download=BTC) as file:
        assert file.rows == 30
        assert file.is_noted


@pytest.mark.parametrize("others", [replace(BTC, fill="forward"), replace(BTC, start=START - timedelta(days=1))])
def test_what_rows_cannot_tell_is_told_by_the_note(tmp_path: Path, others: Download) -> None:
    path = tmp_path / "candles.csv"
    begun(path)
    with pytest.raises(InvalidRequestError, match="another name"):
        CsvFile(path, resume=True, download=others)
    path.with_name("candles.csv.part.json").unlink()
    with CsvFile(path, resume=True, download=replace(BTC, start=START - timedelta(days=1))) as file:
        assert not file.is_noted  # nobody knows: whoever goes on must ask
    holes = [candle(index) for index in (0, 1, 5)]
    write_csv(holes, path)
    with pytest.raises(InvalidRequestError, match=r"line 4.*missing"):
        CsvFile(path, resume=True, download=replace(BTC, fill="forward"))


def test_an_unfinished_last_candle_is_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "candles.csv"
    write_csv([*candles(5), replace(candle(5), is_closed=False)], path)
    with CsvFile(path, resume=True, download=BTC) as file:
        assert file.last == candle(4).timestamp
        file.write(candles(3, first=5))
    assert times(path) == [each.timestamp.isoformat() for each in candles(8)]


def test_while_one_writes_the_other_is_told_who(tmp_path: Path) -> None:
    path = tmp_path / "candles.csv"
    link = tmp_path / "latest.csv"
    link.symlink_to(path)
    with CsvFile(path) as file:
        file.write(candles(3))
        for wanted in (path, link):
            with pytest.raises(FileInUseError, match=f"process {os.getpid()}"):
                CsvFile(wanted, resume=True)
            with pytest.raises(FileInUseError):
                write_csv(candles(1), wanted)
        script = (
            "import sys; from upbit_backbone.export.files import CsvFile\n"
            "try: CsvFile(sys.argv[1])\n"
            "except Exception as error: print(type(error).__name__, error)"
        )
        said = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
        assert said.stdout.startswith("FileInUseError")
        assert f"process {os.getpid()}" in said.stdout
    assert len(times(path)) == 3
    assert sorted(each.name for each in tmp_path.iterdir()) == ["candles.csv", "latest.csv"]


def test_a_link_stays_a_link_and_a_private_file_private(tmp_path: Path) -> None:
    real, link = tmp_path / "2026.csv", tmp_path / "latest.csv"
    real.write_text("old")
    real.chmod(0o600)
    link.symlink_to(real)
    write_csv(candles(2), link)
    assert link.is_symlink()
    assert len(times(real)) == 2
    assert stat.S_IMODE(real.stat().st_mode) == 0o600
    with CsvFile(link, resume=True) as file:
        file.write(candles(2, first=2))
    assert link.is_symlink()
    assert len(times(real)) == 4
    assert stat.S_IMODE(real.stat().st_mode) == 0o600


def test_a_file_that_another_program_holds_open_is_told_and_nothing_hides_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on Windows: what Excel shows is not replaced, and what a virus scanner looks at is not removed."""
    path = tmp_path / "held.csv"
    write_csv(candles(1), path)
    path.chmod(0o400)

    replace_any = Path.replace

    def held(self: Path, target: Path) -> Path:
        if target != path:
            return replace_any(self, target)
        raise PermissionError(errno.EACCES, "Access is denied", str(self), None, str(target))

    def looked_at(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EACCES, "looked at", str(self))

    with monkeypatch.context() as windows:
        windows.setattr(Path, "replace", held)
        with pytest.raises(PermissionError, match="Access is denied"):
            write_csv(candles(3), path)
        assert [each.name for each in tmp_path.iterdir()] == ["held.csv"]
        windows.setattr(Path, "unlink", looked_at)
        with pytest.raises(PermissionError, match="Access is denied"):
            write_csv(candles(3), path)
        assert "temporary file cannot be removed" in caplog.text
    with monkeypatch.context() as windows:
        windows.setattr(Path, "replace", held)
        with CsvFile(path, resume=False) as file:
            file.write(candles(3))
            with pytest.raises(PermissionError, match="Access is denied"):
                file.commit()
    assert len(times(path)) == 1
    with CsvFile(path, resume=True) as file:  # closed there at last: what was fetched is here
        assert file.rows == 3
        file.commit()
    assert len(times(path)) == 3


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_whatever_befell_the_part_the_file_is_right_or_the_damage_is_told(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "candles.csv"
    part = begun(path, data.draw(st.integers(1, 40)), flush_each=data.draw(st.sampled_from([7, 100])))
    content = bytearray(part.read_bytes())
    how = data.draw(st.sampled_from(["flip", "zeros", "cut out", "cut off", "twice"]))
    place = data.draw(st.integers(0, len(content) - 1))
    if how == "flip":
        content[place] ^= data.draw(st.integers(1, 255))
    elif how == "zeros":
        content[place:] = bytes(len(content) - place)
    elif how == "cut off":
        del content[place:]
    elif how == "cut out":
        del content[place : place + data.draw(st.integers(1, 200))]
    else:
        content += content[place:]
    part.write_bytes(content)
    try:
        with CsvFile(path, resume=True, download=BTC) as file:
            file.write(candles(50 - file.rows, first=file.rows))
    except InvalidRequestError:
        assert not path.exists()
        return
    assert path.read_text("utf-8").splitlines() == expected_lines(candles(50))


def expected_lines(items: list[CandleData]) -> list[str]:
    columns = columns_of(CandleData)
    return [",".join(columns)] + [",".join(as_text(getattr(item, name)) for name in columns) for item in items]


@pytest.mark.parametrize("make", [CsvFile, pytest.param(ParquetFile, marks=WITH_PARQUET)])
@pytest.mark.parametrize("flush_each", [7, 100])
def test_what_a_power_cut_left_behind_the_last_flush_is_not_taken_for_rows(
    tmp_path: Path, make: type[CsvFile], flush_each: int
) -> None:
    path = tmp_path / "candles.out"
    file = make(path, download=BTC)
    rows = candles(20)
    for item in rows:
        file.write([item])
        if file.rows % flush_each == 0:
            file.flush()
    safe = len(rows) // flush_each * flush_each
    file._out.file.close()  # the power is cut: nothing of what `close` does
    file._lock.release()
    like_rows = "".join(f"{line}\r\n" for line in expected_lines([candle(index, "7") for index in range(safe, 30)])[1:])
    kept = file._marks[-1][0] if file._marks else len(file.part.read_bytes().split(b"\n")[0]) + 1
    file.part.write_bytes(file.part.read_bytes()[:kept] + like_rows.encode())
    with make(path, resume=True, download=BTC) as again:
        assert again.rows == safe
        again.write(candles(40 - safe, first=safe))
    if make is ParquetFile:
        assert [row.close_price for row in rows_of_parquet(path)] == [candle(0).close_price] * 40
    else:
        assert path.read_text("utf-8").splitlines() == expected_lines(candles(40))


def test_a_damaged_line_is_told_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "candles.csv"
    part = begun(path, 5)
    lines = part.read_bytes().splitlines(keepends=True)
    for damage in (b"\0" * 200 + b"\r\n", lines[3], lines[3].replace(b"0.00000012", b"0.0000x012"), b"\xff" + lines[3]):
        part.write_bytes(b"".join([*lines[:4], damage, *lines[4:]]))
        with pytest.raises(InvalidRequestError, match="line 5 is damaged"):
            CsvFile(path, resume=True, download=BTC)
    part.write_bytes(b"".join([*lines[:3], lines[3].replace(b"0.00000012", b"0.00000013"), *lines[4:]]))
    with pytest.raises(InvalidRequestError, match="not what was written"):
        CsvFile(path, resume=True, download=BTC)


# -- appending ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["candles.csv", "candles.parquet"])
def test_rows_are_appended_to_what_is_there(tmp_path: Path, name: str) -> None:
    pytest.importorskip("pyarrow")
    path, write = tmp_path / name, write_csv if name.endswith("csv") else write_parquet
    assert write(candles(3), path, append=True) == 3
    assert write(iter(candles(2, first=3)), path, append=True) == 2
    found = times(path) if name.endswith("csv") else [row.timestamp.isoformat() for row in rows_of_parquet(path)]
    assert found == [each.timestamp.isoformat() for each in candles(5)]
    before = path.read_bytes()
    other = TradeData("KRW-BTC", Decimal(1), Decimal(1), None, START, 1, DataSource.REST)
    with pytest.raises(InvalidRequestError, match="other columns"):
        write([other], path, append=True)
    with pytest.raises(RuntimeError, match="cut"):
        write(breaking(3), path, append=True)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [name]


# -- Parquet --------------------------------------------------------------------------------------------------------


def types_of(path: Path) -> dict[str, str]:
    parquet = pytest.importorskip("pyarrow.parquet")
    return {field.name: str(field.type) for field in parquet.read_schema(path)}


def traded(index: int, price: str, volume: str, value: str) -> CandleData:
    return replace(candle(index, price), volume=Decimal(volume), traded_value=Decimal(value))


@WITH_PARQUET
def test_parquet_keeps_every_digit_in_columns_as_narrow_as_they_can_be(tmp_path: Path) -> None:
    path = tmp_path / "candles.parquet"
    rows = [traded(0, "116539000.12345678", "0.00000001", "812345678901.12345678"), candle(1, "1.00E-8")]
    assert write_parquet(rows, path) == 2
    types = types_of(path)
    assert types["close_price"] == "decimal128(18, 8)"
    assert types["volume"] == "decimal128(20, 8)"
    assert types["traded_value"] == "decimal128(38, 8)"
    read = list(rows_of_parquet(path))
    assert [row.close_price for row in read] == [Decimal("116539000.12345678"), Decimal("0.00000001")]
    assert read[1].timestamp.isoformat() == "2026-03-01T00:01:00+00:00"
    assert read[1].traded_value is None
    assert write_parquet(candles(25_000), path, numbers="float") == 25_000
    assert types_of(path)["volume"] == "double"


@WITH_PARQUET
@pytest.mark.parametrize("place", [0, 1_500, 2_499])
@pytest.mark.parametrize("price", ["0.1234567890123456", "123456789012345678", "98765432109.000000000012"])
def test_a_column_becomes_wider_by_itself_wherever_a_number_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int, price: str
) -> None:
    monkeypatch.setattr("upbit_backbone.export.parquet.BATCH_ROWS", 1_000)  # in the first, a middle and the last one
    path = tmp_path / "candles.parquet"
    rows = candles(2_500)
    rows[place] = candle(place, price)
    write_parquet(rows, path)
    read = list(rows_of_parquet(path))
    assert [row.close_price for row in read] == [row.close_price for row in rows]
    assert types_of(path)["volume"] == "decimal128(20, 8)"
    assert write_parquet([candle(2_500, "0.00000000000000012345")], path, append=True) == 1
    read = list(rows_of_parquet(path))
    assert read[place].close_price == Decimal(price)
    assert read[-1].close_price == Decimal("0.00000000000000012345")
    assert [each.name for each in tmp_path.iterdir()] == ["candles.parquet"]


def test_a_number_that_does_not_fit_is_an_error_never_rounded(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for prices in (["1E-40"], ["1E+20", "1E-20"], ["1E+30", "1E-9"]):
        with pytest.raises(InvalidRequestError, match="38 digits"):
            write_parquet([candle(index, price) for index, price in enumerate(prices)], tmp_path / "candles.parquet")
    assert list(tmp_path.iterdir()) == []


def test_other_tools_read_the_same_numbers_and_compute_with_them(tmp_path: Path) -> None:
    duckdb, polars, pandas = map(pytest.importorskip, ("duckdb", "polars", "pandas"))
    path = tmp_path / "candles.parquet"
    rows = [traded(index, f"1{index:08}.5", f"{index}.00000001", "99999999999999.00000001") for index in range(1_000)]
    rows.append(replace(candle(1_000), traded_value=None))
    write_parquet(rows, path)
    closes = [row.close_price for row in rows]
    frame = pandas.read_parquet(path)
    assert frame["close_price"].tolist() == closes
    assert frame["timestamp"].iloc[0] == START
    assert polars.read_parquet(path)["close_price"].to_list() == closes
    question = f"select sum(close_price * volume), sum(traded_value), max(timestamp) from '{path}'"  # noqa: S608
    (product, value, last), *_ = duckdb.sql(question).fetchall()
    with localcontext() as context:
        context.prec = 60
        assert product == sum((row.close_price * row.volume for row in rows), Decimal(0))
        assert value == sum((row.traded_value or Decimal(0) for row in rows), Decimal(0))
    assert last == rows[-1].timestamp


def test_a_parquet_download_goes_on_where_it_ended_and_can_be_continued(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "candles.parquet"
    begun(path, make=ParquetFile)
    assert not path.exists()
    with ParquetFile(path, resume=True, download=BTC) as file:
        assert file.rows == 30
        file.write(candles(20, first=30))
    assert [each.name for each in tmp_path.iterdir()] == ["candles.parquet"]
    with ParquetFile(path, resume=True, download=BTC) as file:
        assert file.last == candle(49).timestamp
        file.write(candles(10, first=50))
    whole = tmp_path / "whole.parquet"
    write_parquet(candles(60), whole)
    assert [vars(row) for row in rows_of_parquet(path)] == [vars(row) for row in rows_of_parquet(whole)]
    assert types_of(path) == types_of(whole)
    with pytest.raises(InvalidRequestError, match="KRW-ETH"):
        ParquetFile(path, resume=True, download=Download("KRW-ETH", "1m", START))
    assert len(list(rows_of_parquet(path))) == 60


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"upbit-backbone\[parquet\]"):
        write_parquet(candles(1), tmp_path / "candles.parquet")


def test_what_has_no_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="CandleData, TradeData, TickerData"):
        write_csv([OrderbookUnit(Decimal(1), Decimal(1))], tmp_path / "units.csv")


@pytest.mark.parametrize("make", [CsvFile, pytest.param(ParquetFile, marks=WITH_PARQUET)])
def test_a_crash_right_after_a_finished_file_was_taken_up_costs_no_row(tmp_path: Path, make: type[CsvFile]) -> None:
    path = tmp_path / "day"
    with make(path) as file:
        file.write([candle(0), candle(1)])
    crashed = make(path, resume=True)
    crashed._out.file.close()
    crashed._lock.release()
    with make(path, resume=True) as file:
        assert file.rows == 2


def test_without_a_word_what_was_broken_off_is_gone_on_from_and_a_finished_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "day.csv"
    file = CsvFile(path, resume=None)
    file.write([candle(0), candle(1)])
    file.close()
    with CsvFile(path, resume=None) as file:
        assert file.rows == 2
    with CsvFile(path, resume=None) as file:
        assert file.rows == 0
