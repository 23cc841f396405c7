from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import threading

import pytest

from upbit_backbone._concurrency import Deadline
from upbit_backbone.export.files import CsvFile

pause = threading.Event()  # never set: to look again in a moment


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_csv_of_a_count_is_whole(piped, tmp_path):
    target = tmp_path / "btc.csv"
    done = piped("candles", "KRW-BTC", "1m", "--count", "450", "--csv", str(target))
    assert done.returncode == 0, done.stderr
    rows = rows_of(target)
    assert len(rows) == 450
    times = [row["timestamp"] for row in rows]
    assert times == sorted(set(times))


def test_a_broken_download_goes_on_where_it_was(piped, tmp_path):
    target = tmp_path / "btc.csv"
    whole = ("candles", "KRW-BTC", "1h", "--start", "2026-01-01", "--end", "2026-02-01", "--csv", str(target))
    assert piped(*whole).returncode == 0
    wanted = target.read_text("utf-8")
    lines = wanted.splitlines(keepends=True)
    target.unlink()
    (tmp_path / "btc.csv.part").write_text("".join(lines[:100]) + lines[100][:20], "utf-8")
    done = piped(*whole)
    assert "going on after" in done.stderr
    assert target.read_text("utf-8") == wanted
    assert not (tmp_path / "btc.csv.part").exists()


def test_a_finished_file_can_be_extended(piped, tmp_path):
    target = tmp_path / "btc.csv"
    first = ("candles", "KRW-BTC", "1d", "--start", "2026-01-01", "--csv", str(target))
    assert piped(*first, "--end", "2026-02-01").returncode == 0
    assert piped(*first, "--end", "2026-03-01", "--resume").returncode == 0
    times = [row["timestamp"][:10] for row in rows_of(target)]
    assert times == sorted(set(times))
    assert (times[0], times[-1]) == ("2026-01-01", "2026-02-28")


SPAN = ("--start", "2026-01-01", "--end", "2026-01-20")


def test_a_download_that_is_all_there_is_finished_by_the_same_command(piped, tmp_path):
    target = tmp_path / "btc.csv"
    whole = ("candles", "KRW-BTC", "1h", *SPAN, "--csv", str(target))
    assert piped(*whole).returncode == 0
    wanted = target.read_text("utf-8")
    target.rename(tmp_path / "btc.csv.part")  # ended between the last row and the new name
    done = piped(*whole)
    assert done.returncode == 0, done.stderr
    assert target.read_text("utf-8") == wanted
    assert [each.name for each in tmp_path.iterdir()] == ["btc.csv"]


@pytest.mark.parametrize(
    ("suffix", "other"),
    [
        ("csv", ("KRW-ETH", "1h", *SPAN)),
        ("csv", ("KRW-BTC", "1h", "--start", "2025-12-20", "--end", "2026-01-20")),
        ("csv", ("KRW-BTC", "1h", "--start", "2026-01-01", "--end", "2026-01-05")),
        ("parquet", ("KRW-BTC", "1h", "--start", "2026-01-10", "--end", "2026-01-20")),
    ],
)
def test_another_download_is_refused_and_changes_nothing(piped, tmp_path, suffix, other):
    pytest.importorskip("pyarrow")
    target = tmp_path / f"btc.{suffix}"
    assert piped("candles", "KRW-BTC", "1h", *SPAN, f"--{suffix}", str(target)).returncode == 0
    before = target.read_bytes()
    done = piped("candles", *other, f"--{suffix}", str(target), "--resume")
    assert done.returncode == 2
    assert "--force" in done.stderr
    assert "Traceback" not in done.stderr
    assert target.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [target.name]
    assert piped("candles", *other, f"--{suffix}", str(target), "--force").returncode == 0
    assert target.read_bytes() != before
    assert [each.name for each in tmp_path.iterdir()] == [target.name]


@pytest.mark.endurance
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_download_killed_anywhere_again_and_again_is_whole_in_the_end(piped, started, tmp_path, suffix, upbit):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    target, whole = tmp_path / f"btc.{suffix}", tmp_path / f"whole.{suffix}"
    span = ("--start", "2026-01-01", "--end", "2026-06-01")
    asked = ("candles", "KRW-BTC", "1h", *span, f"--{suffix}")
    assert piped(*asked, str(whole)).returncode == 0
    part = tmp_path / f"btc.{suffix}.part"
    upbit.rest_fault("/v1/candles*", mode="latency", latency=0.1, times=None)
    try:
        for size in (1, 40_000, 120_000, 200_000):
            download = started(*asked, str(target))
            grown = Deadline.after(60.0)
            while download.poll() is None and not grown.expired:
                if part.exists() and part.stat().st_size >= size:
                    break
                pause.wait(0.005)
            download.kill()
            download.wait(10.0)
    finally:
        upbit.clear_faults()
    done = piped(*asked, str(target))
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == whole.read_bytes()
    left_over = {each.name for each in tmp_path.iterdir()} - {target.name, whole.name}
    assert left_over <= {f"{target.name}.lock"}


def test_two_downloads_into_one_file_are_one_and_a_refusal(piped, tmp_path):
    target = tmp_path / "btc.csv"
    with CsvFile(target):
        done = piped("candles", "KRW-BTC", "1h", *SPAN, "--csv", str(target))
    assert done.returncode == 2
    assert f"process {os.getpid()}" in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--count", "5", "--csv", "btc.csv", "--resume"),
        ("--csv", "btc.csv", "--resume"),
        (*SPAN, "--resume"),
        (*SPAN, "--csv", "btc.csv", "--resume", "--force"),
        (*SPAN, "--csv", "btc.csv", "--parquet", "btc.pq"),
        ("--start", "2026-02-01", "--end", "2026-01-01", "--csv", "btc.csv"),
    ],
)
def test_what_cannot_be_continued_is_refused(piped, tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "btc.csv").write_text("mine", "utf-8")
    assert piped("candles", "KRW-BTC", "1h", *options).returncode == 2
    assert (tmp_path / "btc.csv").read_text("utf-8") == "mine"
    assert [each.name for each in tmp_path.iterdir()] == ["btc.csv"]


def test_filled_candles_are_written_without_a_hole_and_gone_on_from(piped, tmp_path):
    target = tmp_path / "xrp.csv"
    asked = ("candles", "KRW-XRP", "1m", "--fill", "--csv", str(target), "--start", "2026-01-01")
    assert piped(*asked, "--end", "2026-01-02").returncode == 0
    assert piped(*asked, "--end", "2026-01-03", "--resume").returncode == 0
    rows = rows_of(target)
    assert len(rows) == 2 * 1_440
    assert {row["is_filled"] for row in rows} == {"True", "False"}


def test_a_parquet_download_goes_on_where_it_was(piped, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    target, other = tmp_path / "btc.parquet", tmp_path / "other.parquet"
    asked = ("candles", "KRW-BTC", "1h", "--start", "2026-01-01", "--parquet", str(target))
    assert piped(*asked, "--end", "2026-01-10").returncode == 0
    done = piped(*asked, "--end", "2026-01-20", "--resume")
    assert "going on after" in done.stderr
    assert piped("candles", "KRW-BTC", "1h", *SPAN, "--parquet", str(other)).returncode == 0
    assert parquet.read_table(target).equals(parquet.read_table(other))


def test_parquet_is_exact(piped, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    target = tmp_path / "btc.parquet"
    done = piped("candles", "KRW-BTC", "1m", "--count", "50", "--parquet", str(target), "--json")
    assert json.loads(done.stdout) == {"rows": 50, "path": str(target)}
    assert parquet.read_table(target).num_rows == 50


def test_a_terminal_shows_a_progress_bar_and_ctrl_c_keeps_what_came(terminal, tmp_path, upbit):
    target = tmp_path / "btc.csv"
    upbit.rest_fault("/v1/candles*", mode="latency", seconds=0.3, times=None)
    try:
        screen = terminal("candles", "KRW-BTC", "1m", "--start", "2026-01-01", "--csv", str(target), "--yes")
        screen.wait_for(r"[1-9]\d*/\d+")
        screen.press("\x03")
        assert screen.finish() == 130
    finally:
        upbit.clear_faults()
    assert "the same command goes on" in screen.seen
    assert "Traceback" not in screen.seen
    assert not target.exists()


@pytest.mark.parametrize("fill", [(), ("--fill",)], ids=["plain", "filled"])
def test_ctrl_c_in_a_download_of_a_count_keeps_what_came_and_the_rest_can_be_asked_for(
    terminal, piped, tmp_path, upbit, fill
):
    target, rest = tmp_path / "btc.csv", tmp_path / "rest.csv"
    upbit.rest_fault("/v1/candles*", mode="latency", seconds=0.3, times=None)
    try:
        screen = terminal("candles", "KRW-BTC", "1m", "--count", "5000", "--csv", str(target), *fill, columns=400)
        screen.wait_for(r"[1-9]\d*/\d+")
        screen.press("\x03")
        assert screen.finish() == 130
    finally:
        upbit.clear_faults()
    assert "Traceback" not in screen.seen
    assert [each.name for each in tmp_path.iterdir()] == ["btc.partial.csv"]
    kept = [row["timestamp"] for row in rows_of(tmp_path / "btc.partial.csv")]
    asked = re.search(r"into another file: candles (.*)", screen.seen).group(1).split()
    assert piped("candles", *asked, "--csv", str(rest)).returncode == 0
    times = sorted([*kept, *(row["timestamp"] for row in rows_of(rest))])
    assert len(set(times)) == len(times) == 5_000


def test_an_error_late_in_a_download_of_a_count_keeps_what_came_too(terminal, tmp_path, upbit):
    pytest.importorskip("pyarrow")
    target = tmp_path / "btc.parquet"
    (tmp_path / "btc.partial.parquet").write_text("mine", "utf-8")
    upbit.rest_fault("/v1/candles*", mode="latency", seconds=0.3, times=None)
    try:
        screen = terminal("candles", "KRW-BTC", "1m", "--count", "5000", "--parquet", str(target), columns=400)
        screen.wait_for(r"[1-9]\d*/\d+")
        upbit.clear_faults()
        upbit.rest_fault("/v1/candles*", mode="status", status=400, times=None)
        assert screen.finish() not in (0, 130)
    finally:
        upbit.clear_faults()
    assert "kept in btc.partial2.parquet" in screen.seen
    assert "Traceback" not in screen.seen
    assert (tmp_path / "btc.partial.parquet").read_text("utf-8") == "mine"
    assert not target.exists()


@pytest.fixture
def slow_limit(environment):
    """One request takes longer than a minute, by what is set; the first one goes out at once."""
    environment["UPBIT_BACKBONE_REST_REQUESTS_PER_SECOND"] = "0.01"


def test_a_long_download_is_asked_about_at_a_terminal(slow_limit, terminal, tmp_path):
    target = tmp_path / "btc.csv"
    long = terminal("candles", "KRW-BTC", "1m", "--count", "5", "--csv", str(target))
    long.wait_for(r"5 rows at most, 1 requests, about 100 s")
    long.wait_for(r"Go on\?")
    long.press("n\n")
    assert long.finish() != 0
    assert not target.exists()


def test_a_long_download_is_not_asked_about_where_that_was_said(slow_limit, terminal, tmp_path):
    target = tmp_path / "btc.csv"
    long = terminal("candles", "KRW-BTC", "1m", "--count", "5", "--csv", str(target), "--yes")
    assert long.finish() == 0, long.seen
    assert "rows at most" in long.seen
    assert "Go on" not in long.seen
    assert len(rows_of(target)) == 5


def test_a_script_is_told_of_a_long_download_and_not_asked(slow_limit, piped):
    done = piped("candles", "KRW-BTC", "1m", "--count", "5", "--json")
    assert done.returncode == 0, done.stderr
    assert "1 requests" in done.stderr
    assert len(json.loads(done.stdout)) == 5


def test_a_file_that_another_finishes_meanwhile_is_not_written_over_without_a_word(environment, tmp_path):
    target = tmp_path / "btc.csv"
    part = tmp_path / "btc.csv.part"
    part.write_text("theirs", "utf-8")
    program = f"""
import sys
from pathlib import Path
from upbit_backbone.cli import app, candles
ask = candles.is_replaceable
def finished_meanwhile(path):
    if Path({str(part)!r}).exists():
        Path({str(part)!r}).rename({str(target)!r})
    return ask(path)
candles.is_replaceable = finished_meanwhile
sys.exit(app.run(["candles", "KRW-BTC", "1d", "--start", "2026-01-01", "--csv", {str(target)!r}]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2, done.stderr
    assert "finished by another meanwhile" in done.stderr
    assert target.read_text("utf-8") == "theirs"
    assert {each.name for each in tmp_path.iterdir()} == {"btc.csv"}
