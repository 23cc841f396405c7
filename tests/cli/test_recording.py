from __future__ import annotations

import json
import os

import pytest

from upbit_backbone.recorder import Recorder


def test_what_is_recorded_is_replayed_the_same_each_time(piped, tmp_path):
    file = str(tmp_path / "day.rec")
    done = piped("record", file, "KRW-BTC", "KRW-ETH", "--seconds", "3")
    assert done.returncode == 0, done.stderr
    assert "records" in done.stdout
    first, second = (piped("replay", file, "--json") for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    rows = [json.loads(line) for line in first.stdout.splitlines()]
    assert {row["symbol"] for row in rows} == {"KRW-BTC", "KRW-ETH"}
    assert len(rows) > 20
    trades = piped("replay", file, "KRW-BTC", "--type", "trade", "--speed", "20")
    assert trades.returncode == 0
    assert all("KRW-BTC" in line for line in trades.stdout.splitlines())


def test_the_contents_of_a_recording_are_told(piped, tmp_path):
    file = str(tmp_path / "day.rec")
    assert piped("record", file, "KRW-BTC", "--type", "trade", "--seconds", "2").returncode == 0
    info = json.loads(piped("replay", file, "--info", "--json").stdout)
    assert info["topics"] == [["trade", "KRW-BTC"]]
    assert info["frames"] > 0
    done = piped("replay", file, "KRW-XRP")
    assert done.returncode == 2
    assert "--info" in done.stderr


def test_a_recording_becomes_a_store_that_plays_the_same_trades(piped, tmp_path):
    file, store = str(tmp_path / "day.rec"), str(tmp_path / "day.db")
    assert piped("record", file, "KRW-BTC", "--type", "trade", "--seconds", "2").returncode == 0
    done = piped("replay", file, "--sqlite", store)
    assert done.returncode == 0, done.stderr
    assert " written" in done.stdout
    played = [piped("replay", each, "--json") for each in (file, store)]
    ids = [sorted(json.loads(line)["sequential_id"] for line in each.stdout.splitlines()) for each in played]
    assert ids[0] == ids[1] != []
    done = piped("replay", store, "--info")
    assert done.returncode == 2
    assert "command store" in done.stderr


def test_a_terminal_shows_how_much_was_recorded_until_ctrl_c(terminal, tmp_path):
    screen = terminal("record", str(tmp_path / "day.rec"), "KRW-BTC")
    screen.wait_for(r"[1-9][\d,]* bytes received")
    screen.press("\x03")
    assert screen.finish() == 0
    assert "bytes received" in screen.seen
    assert "Traceback" not in screen.seen


def test_a_damaged_recording_plays_up_to_the_damage_and_says_so(piped, tmp_path):
    path = tmp_path / "day.rec"
    assert piped("record", str(path), "KRW-BTC", "--seconds", "3").returncode == 0
    path.write_bytes(path.read_bytes()[:-10])
    done = piped("replay", str(path))
    assert done.returncode == 0
    assert "damaged" in done.stderr


def test_a_rotated_recording_is_replayed_by_its_one_name_from_a_time_on(piped, tmp_path):
    file = tmp_path / "day.rec"
    done = piped("record", str(file), "KRW-BTC", "--type", "trade", "--seconds", "3", "--rotate-seconds", "0.6")
    assert done.returncode == 0, done.stderr
    assert " files" in done.stdout
    assert len(list(tmp_path.glob("day.*.rec"))) >= 3
    rows = [json.loads(line) for line in piped("replay", str(file), "--json").stdout.splitlines()]
    half = rows[len(rows) // 2]["received_at"]
    later = [json.loads(line) for line in piped("replay", str(file), "--json", "--start", half).stdout.splitlines()]
    earlier = [json.loads(line) for line in piped("replay", str(file), "--json", "--end", half).stdout.splitlines()]
    assert earlier + later == rows
    wrong = piped("replay", str(file), "--start", "yesterday")
    assert (wrong.returncode, "--start yesterday: expected a time" in wrong.stderr) == (2, True)


def test_a_file_that_is_being_recorded_is_refused_with_the_holders_name(piped, tmp_path):
    path = tmp_path / "day.rec"
    with Recorder(path):
        done = piped("record", str(path), "KRW-BTC", "--seconds", "1")
    assert done.returncode == 2
    assert f"is in use: recording by process {os.getpid()}" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_recorded_into_a_store_is_told_by_it(piped, tmp_path):
    file = str(tmp_path / "day.db")
    done = piped("record", "KRW-BTC", "KRW-ETH", "--type", "trade", "--sqlite", file, "--seconds", "3")
    assert done.returncode == 0, done.stderr
    assert " written" in done.stdout
    done = piped("store", file, "--json")
    assert done.returncode == 0, done.stderr
    topics = json.loads(done.stdout)
    assert {(each["symbol"], each["type"]) for each in topics} == {("KRW-BTC", "trade"), ("KRW-ETH", "trade")}
    assert all(each["rows"] and each["holes"] for each in topics)
    done = piped("store", file, "--fill")
    assert done.returncode == 0, done.stderr
    assert "closed" in done.stderr
    assert "of the day complete" in done.stdout


def test_a_store_is_written_until_ctrl_c_and_the_screen_shows_how_much(terminal, tmp_path):
    screen = terminal("record", "--sqlite", str(tmp_path / "day.db"), "--quote", "KRW")
    screen.wait_for(r"[1-9][\d,]* written")
    screen.press("\x03")
    assert screen.finish() == 0
    assert "Traceback" not in screen.seen
    assert not (tmp_path / "day.db-wal").exists()  # closed in order


def test_words_that_do_not_go_together_are_refused_before_anything_is_written(piped, tmp_path):
    for words, reason in (
        (["record", "day.rec"], "name the recording"),
        (["record", "KRW-BTC", "--sqlite", "day.db", "--rotate-mib", "3"], "are for recordings"),
        (["record", "day.rec", "KRW-BTC", "--quote", "KRW"], "name the recording"),
        (["record", "KRW-BTC", "--sqlite", "day.db", "--csv", "days"], "give one of"),
        (["record", "KRW-BTC", "--sqlite", "day.db", "--spill", "waiting"], "is for --postgres"),
        (["record", "KRW-BTC", "--sqlite", "day.db", "--kept", "3"], "is for --redis"),
        (["store", str(tmp_path / "none.db")], "no such store"),
    ):
        done = piped(*words)
        assert (done.returncode, reason in done.stderr) == (2, True), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_folder_has_a_file_for_each_market_and_day(piped, tmp_path, kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    folder = tmp_path / "days"
    done = piped("record", "KRW-BTC", "KRW-ETH", "--type", "trade", f"--{kind}", str(folder), "--seconds", "2")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in folder.glob("trades/*/*")} == {f"KRW-{coin}.open.{kind}" for coin in ("BTC", "ETH")}
