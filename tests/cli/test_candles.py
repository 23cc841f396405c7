from __future__ import annotations

import csv
import json

import pytest


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
        screen = terminal("candles", "KRW-BTC", "1m", "--start", "2026-01-01", "--csv", str(target))
        screen.wait_for(r"[1-9]\d*/\d+")
        screen.press("\x03")
        assert screen.finish() == 130
    finally:
        upbit.clear_faults()
    assert "the same command goes on" in screen.seen
    assert "Traceback" not in screen.seen
    assert not target.exists()
