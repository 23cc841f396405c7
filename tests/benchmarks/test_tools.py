"""The measuring tools themselves: verdicts, tables, percentiles, stamped frames, a child's answers."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from benchmarks import passage
from benchmarks.__main__ import NAMES
from benchmarks.children import ROOT, Child, ChildError, MissingError
from benchmarks.clients import by_hand
from benchmarks.clients.task import Task
from benchmarks.measuring import cpu_seconds, percentile
from benchmarks.pacer import SIZES_CHANGED, count_topics, cut
from benchmarks.table import Figure, absent, number, render, save
from upbit_backbone.simulator.serving.framing import Unpacker


def test_a_figure_meets_its_target_or_misses_it_and_one_without_says_nothing() -> None:
    assert Figure("case", "we", 1.0, "ms", target=2.0).verdict == "ok"
    assert Figure("case", "we", 3.0, "ms", target=2.0).verdict == "misses"
    assert Figure("case", "we", 1.0, "ms", 0.9, "they", target=2.0, ratio_target=0.5).verdict == "misses"
    assert Figure("case", "we", 3.0, "1/s", target=2.0, at_least=True).verdict == "ok"
    assert Figure("case", "we", 3.0, "ms").verdict == ""
    assert absent("case", "they", "ms").verdict == ""


def test_a_table_shows_the_ratio_and_what_is_not_installed() -> None:
    text = render(
        "title", [Figure("한글", "we", 1234.5, "µs", 0.5, "they", ratio_target=0.7), absent("b", "they", "µs")]
    )
    title, head, line, ours, theirs = text.splitlines()
    assert (title, head.split()[0], set(line)) == ("title", "case", {"─", " "})
    assert "1,234" in ours
    assert "0.5 × they" in ours
    assert "≤ 0.7 ×" in ours
    assert "not installed" in theirs


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.0, "0"), (0.01234, "0.0123"), (99.94, "99.9"), (1e4, "10,000")]
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_results_can_be_read_back(tmp_path: object) -> None:
    path = tmp_path / "results" / "run.json"  # type: ignore[operator]
    save(path, {"cpu": "some"}, {"one": [Figure("case", "we", 1.0, "ms")]}, {})
    assert Figure(**json.loads(path.read_text())["results"]["one"][0]) == Figure("case", "we", 1.0, "ms")


@pytest.mark.parametrize("mode", ["queue", "handed"])
def test_by_hand_every_message_is_seen(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, peer = socket.socketpair()
    connection = SimpleNamespace(sock=mine, send=lambda text: None)
    monkeypatch.setattr(by_hand.websocket, "create_connection", lambda *args, **more: connection)
    seen: list[int] = []
    with mine:
        with peer:
            peer.sendall(b"".join(passage.reads("trade", 3, 12)))
        by_hand.consume(Task("", "", ("trade",), passage.MARKETS, mode), seen.append)
    assert seen == [(passage.FIRST_STAMP + number) * 10_000 for number in range(12)]


def test_percentiles_of_few_values_are_values() -> None:
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile([3, 1, 2], 1.0) == 3
    assert math.isnan(percentile([], 0.5))


def test_a_stamped_frame_differs_from_the_real_one_in_times_and_id_only() -> None:
    real = {"ty": "trade", "cd": "KRW-BTC", "ttms": 1, "tms": 22, "sid": 333, "tp": 100.5, "st": "SNAPSHOT"}
    frame = cut(json.dumps(real, separators=(",", ":")).encode()).stamped(b"1700000000123", 1_700_000_000_123_456)
    ((_, payload),) = Unpacker(False).feed(_masked(frame))
    stamped = {"ttms": 1_700_000_000_123, "tms": 1_700_000_000_123, "sid": 1_700_000_000_123_456, "st": "REALTIME"}
    assert json.loads(payload) == real | stamped


def test_a_few_sizes_of_a_stamped_book_differ_from_one_to_the_next() -> None:
    units = [{"ap": 2.0 + number, "bp": 1.0, "as": 0.5, "bs": 1e-7} for number in range(30)]
    book = {"ty": "orderbook", "cd": "KRW-BTC", "tms": 1, "tas": 3.0, "tbs": 4.0, "obu": units, "st": "REALTIME"}
    piece = cut(json.dumps(book, separators=(",", ":")).encode())
    read = []
    for microseconds in (1_700_000_000_123_456, 1_700_000_000_123_457):
        ((_, payload),) = Unpacker(False).feed(_masked(piece.stamped(b"1700000000123", microseconds)))
        read.append([number for level in json.loads(payload)["obu"] for number in level.values()])
    assert sum(one != other for one, other in zip(*read, strict=True)) == SIZES_CHANGED


def _masked(frame: bytes) -> bytes:
    """As a client would send it: the only kind of frame our servers can read."""
    short = frame[1] < 126
    start = 2 if short else 4
    return bytes((frame[0], frame[1] | 0x80)) + frame[2:start] + bytes(4) + frame[start:]


def test_topics_of_a_subscription_are_counted() -> None:
    message = [
        {"ticket": "x"},
        {"type": "trade", "codes": ["a", "b"]},
        {"type": "ticker", "codes": ["a"]},
        {"format": "SIMPLE"},
    ]
    assert count_topics(json.dumps(message)) == 3


def test_a_child_without_its_library_says_so_and_an_unknown_one_fails() -> None:
    run = "runpy.run_module('benchmarks.clients', run_name='__main__')"
    hidden = f"import runpy, sys; sys.modules['ccxt'] = None; {run}"
    command = [sys.executable, "-c", hidden, "ccxt_pro", "--rest-url", "x", "--websocket-url", "x"]
    done = subprocess.run(
        [*command, "--kinds", "trade", "--symbols", "KRW-BTC"], capture_output=True, text=True, cwd=ROOT, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "missing" in json.loads(done.stdout.splitlines()[0])
    with pytest.raises(ChildError):
        Child("benchmarks.no_such_module")
    assert issubclass(MissingError, ChildError)


@pytest.mark.skipif(sys.platform != "linux", reason="CPU clocks of other processes are Linux's")
def test_cpu_of_this_process_only_grows() -> None:
    before = cpu_seconds(os.getpid())
    sum(range(300_000))
    assert cpu_seconds(os.getpid()) > before


def test_unknown_benchmarks_are_refused_with_the_list_of_those_there_are() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "nonsense"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 2
    assert all(name in done.stderr for name in NAMES)
