"""The table of goals: what is met, what is missed and how far from the limit, and where the instructions go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import goals, parts
from benchmarks.table import HANDED, LIMIT, Figure, absent, save


def ticker(ours: float, **others: float) -> list[Figure]:
    names = {"limit": LIMIT, "handed": HANDED, "plain": goals.PLAIN}
    case = "ticker, 2,000/s"
    return [
        Figure(case, "upbit_backbone", ours, "µs CPU"),
        *(Figure(case, names.get(who, who), value, "µs CPU") for who, value in others.items()),
    ]


@pytest.mark.parametrize(
    ("ours", "shown", "verdict"), [(30.0, "30 (1.00 ×)", "met"), (33.0, "33 (1.10 ×)", "missed; 3.3 × the limit")]
)
def test_a_goal_is_held_against_whom_it_names(ours: float, shown: str, verdict: str) -> None:
    (row,) = goals.rows(
        {"ingest": ticker(ours, plain=30.0, cryptofeed=22.0, limit=10.0)}, {"ingest": ticker(44.0, plain=30.0)}
    )
    assert row == (
        "ticker at 2,000/s", "44", shown, "cryptofeed 22", "10", f"≤ 1 × {goals.PLAIN}", verdict,
    )  # fmt: skip


def test_the_limit_with_a_hand_over_stands_beside_the_other() -> None:
    (row,) = goals.rows({"ingest": ticker(33.0, plain=30.0, limit=10.0, handed=22.0)})
    assert row[3:5] == (f"{goals.PLAIN} 30", "10; handed over 22")
    assert row[6] == "missed; 3.3 × the limit, 1.5 × handed over"


def test_who_gave_no_figure_is_no_obstacle() -> None:
    case = "ticker, 2,000/s"
    some = [absent(case, who, "µs CPU", "it fell") for who in (goals.PLAIN, "cryptofeed", LIMIT, HANDED)]
    (row,) = goals.rows({"ingest": [Figure(case, "upbit_backbone", 33.0, "µs CPU"), *some]})
    assert row[2:5] == ("33", "–", "–")
    assert row[6] == "nothing to compare with"
    (row,) = goals.rows({"ingest": [absent(case, "upbit_backbone", "µs CPU", "it fell"), *some]})
    assert row[6] == "not available here"


def test_where_no_peer_is_named_the_best_one_counts_also_of_another_case() -> None:
    book = [
        Figure(goals.BOOK, who, value, "µs CPU") for who, value in (("upbit_backbone", 59.0), ("a", 80.0), ("b", 60.0))
    ]
    top = Figure(f"{goals.BOOK}, {goals.BEST}", "upbit_backbone", 20.0, "µs CPU")
    whole, best = goals.rows({"ingest": [*book, top]})
    assert (whole[2], whole[3], whole[6]) == ("59 (0.98 ×)", "b 60", "missed")
    assert (best[2], best[3], best[6]) == ("20 (0.33 ×)", "b 60", "met")


def test_what_cannot_be_measured_here_is_said_to_be_missing() -> None:
    (row,) = goals.rows({"latency": [absent(f"{goals.FREE}, p99", "upbit_backbone, queue", "ms", "none is here")]})
    assert row[6] == "not available here"


def test_who_fell_behind_is_not_praised_for_it() -> None:
    figure = Figure("ticker, 10,000/s", "upbit_backbone", 11.0, "µs CPU", note="saw 48% of the messages")
    (row,) = goals.rows({"ingest": [figure]})
    assert row[6] == "met; saw 48% of the messages"


def test_more_may_be_better() -> None:
    case = "ticker, 10,000/s over TLS, seen"
    (row,) = goals.rows({"tls": [Figure(case, "upbit_backbone", 99.9, "%"), Figure(case, LIMIT, 100.0, "%")]})
    assert (row[5], row[6]) == ("≥ 97 %", "met")


def test_the_table_of_the_readme_is_made_of_two_files(tmp_path: Path) -> None:
    now, before = tmp_path / "now.json", tmp_path / "before.json"
    save(now, {}, {"ingest": ticker(30.0, plain=31.0)}, {})
    save(before, {}, {"ingest": ticker(44.0)}, {})
    assert json.loads(now.read_text(encoding="utf-8"))["results"]
    lines = goals.markdown(goals.rows(goals.read(now), goals.read(before))).splitlines()
    assert lines[0].startswith("| row | before | now |")
    assert lines[2].startswith("| ticker at 2,000/s | 44 | 30 (0.97 ×) |")


def test_no_two_goals_are_alike() -> None:
    assert len({(goal.benchmark, goal.case) for goal in goals.GOALS}) == len(goals.GOALS)


def test_a_listing_gives_each_function_with_all_it_calls() -> None:
    listing = """
57,000,000 (100.0%)  PROGRAM TOTALS
Ir                   file:function
56,000,000 (98.09%)  /x/Python/ceval.c:_PyEval_EvalFrameDefault [/x/libpython.so]
18,234,351 (26.93%)  ???:JSONDecoder_decode [/x/_core.so]
 5,849,135 ( 8.64%)  /x/object.c:_Py_Dealloc [/x/libpython.so]
 2,262,066 ( 3.34%)  /x/object.c:_Py_Dealloc'2 [/x/libpython.so]
    20,600 ( 0.04%)  /x/object.h:_Py_Dealloc [/x/libpython.so]
"""
    whole, functions = parts.inclusive(listing)
    assert whole == 57_000_000
    assert (functions["JSONDecoder_decode"], functions["_Py_Dealloc"]) == (18_234_351, 5_849_135)


def test_the_steps_of_a_message_are_told_by_folders_and_repeat() -> None:
    first, second = (parts.interpreter_steps("trade", 4, 40, "all") for _ in range(2))
    assert {"sessions/", "intake.py", "delivery/", "store/"} <= first.keys()
    assert sum(first.values()) == pytest.approx(sum(second.values()), rel=0.05)


def test_a_peer_that_could_not_be_measured_is_no_best_one() -> None:
    """cryptofeed has no tickers, and what is not installed has no figure."""
    case = "ticker, 10,000/s"
    figures = [Figure(case, "upbit_backbone", 22.0, "µs CPU"), Figure(case, "a", 23.0, "µs CPU")]
    (row,) = goals.rows({"ingest": [*figures, absent(case, "cryptofeed", "µs CPU", "no such stream")]})
    assert row[3] == "a 23"
