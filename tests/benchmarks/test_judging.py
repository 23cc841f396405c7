"""The judge of the storm: lost, doubled, admitted, available, stale, each from a log that can be read at a glance."""

from __future__ import annotations

import itertools
import math

import pytest

from benchmarks.storming.judge import Admitted, Answer, Arrival, Line, Published, Verdict, judge, judge_answers
from benchmarks.storming.plan import BY_NAME, KINDS, Fault, plan

BEGAN = 1_000_000.0


def published(*seconds: float) -> list[Published]:
    return [Published(BEGAN + second, ("KRW-BTC", number)) for number, second in enumerate(seconds, 1)]


def arrived(*numbers: int, late: float = 0.0, trades: list[Published], backfilled: bool = False) -> list[Arrival]:
    at = {trade.key[1]: trade.at for trade in trades}
    return [Arrival(at[number] + late, ("KRW-BTC", number), backfilled) for number in numbers]


def test_who_saw_everything_once_lost_nothing_and_was_always_available() -> None:
    trades = published(0.5, 1.5, 2.5, 3.5)
    verdict = judge([], BEGAN, 4, trades, arrived(1, 2, 3, 4, trades=trades))
    assert (verdict.lost, verdict.duplicated, verdict.unreported) == (0, 0, 0)
    assert verdict.availability == verdict.best_possible == verdict.of_best == 1.0


def test_a_missing_run_of_trades_is_one_unreported_gap() -> None:
    trades = published(0.5, 1.5, 2.5, 3.5)
    verdict = judge([], BEGAN, 4, trades, arrived(1, 4, trades=trades))
    assert (verdict.lost, verdict.unreported) == (2, 1)
    assert verdict.availability == 0.5


def test_a_gap_that_was_admitted_with_its_bounds_is_lost_but_reported() -> None:
    trades = published(0.5, 1.5, 2.5, 3.5)
    receipt = Admitted("KRW-BTC", BEGAN + 0.5, BEGAN + 3.5)
    verdict = judge([], BEGAN, 4, trades, arrived(1, 4, trades=trades), [receipt])
    assert (verdict.lost, verdict.unreported) == (2, 0)


def test_a_receipt_with_wrong_bounds_does_not_count() -> None:
    trades = published(0.5, 1.5, 2.5, 3.5)
    receipt = Admitted("KRW-BTC", BEGAN + 0.5, BEGAN + 2.0)
    verdict = judge([], BEGAN, 4, trades, arrived(1, 4, trades=trades), [receipt])
    assert verdict.unreported == 1


def test_what_came_before_the_first_trade_seen_is_not_lost() -> None:
    trades = published(0.5, 1.5, 2.5)
    assert judge([], BEGAN, 3, trades, arrived(2, 3, trades=trades)).lost == 0


def test_a_trade_that_came_twice_is_counted() -> None:
    trades = published(0.5, 1.5)
    assert judge([], BEGAN, 2, trades, arrived(1, 2, 2, trades=trades)).duplicated == 1


def test_late_and_filled_in_trades_make_no_second_available() -> None:
    trades = published(0.5, 1.5)
    late = arrived(1, late=2.0, trades=trades)
    filled = arrived(2, trades=trades, backfilled=True)
    verdict = judge([], BEGAN, 3, trades, late + filled)
    assert verdict.availability == 0.0
    assert verdict.backfilled == 1


def test_seconds_in_which_the_server_could_not_serve_are_nobodys_fault() -> None:
    outage = Fault(2.0, BY_NAME["accepted, then closed"])
    trades = published(0.5, 1.5, 6.2, 7.5)
    verdict = judge([outage], BEGAN, 8, trades, arrived(1, 2, 3, 4, trades=trades))
    assert verdict.best_possible == 0.5
    assert verdict.of_best == 1.0
    assert verdict.recoveries[0][1] == pytest.approx(0.2, abs=0.01)


def test_who_never_recovers_takes_for_ever() -> None:
    trades = published(0.5)
    verdict = judge([Fault(1.0, BY_NAME["FIN"])], BEGAN, 3, trades, arrived(1, trades=trades))
    assert math.isinf(verdict.recoveries[0][1])


def test_an_answer_is_stale_by_the_oldest_trade_it_misses() -> None:
    trades = published(1.0, 2.0, 30.0)
    verdict = judge([], BEGAN, 40, trades, [])
    answers = [
        Answer(BEGAN + 20, 0.01, "KRW-BTC", trade_at=BEGAN + 2.0),  # quiet for long, and current
        Answer(BEGAN + 20, 0.01, "KRW-BTC", trade_at=BEGAN + 1.0),  # misses the trade of second 2
        Answer(BEGAN + 20, 0.01, "KRW-BTC", trade_at=BEGAN + 1.0, marked=True),
        Answer(BEGAN + 20, 9.00, "KRW-BTC", problem="RequestTimeoutError"),
    ]
    judge_answers(verdict, answers, trades, timeout=3.0, promised=15.0)
    assert (verdict.answers, verdict.stale_unmarked, verdict.late_answers) == (4, 1, 1)
    assert verdict.most_stale == pytest.approx(18.0)
    assert verdict.problems == {"RequestTimeoutError": 1}


def test_the_age_of_a_price_is_how_long_another_had_been_the_present_one() -> None:
    trades = published(1.0, 2.0, 3.0)
    in_time = judge([], BEGAN, 4, trades, arrived(1, 2, 3, trades=trades))
    assert in_time.answer_age == 0.0
    late = judge([], BEGAN, 6, trades, arrived(1, 2, 3, trades=trades, late=1.5))
    assert late.answer_age == pytest.approx(1.5, abs=0.11)
    never = judge([], BEGAN, 10, trades, arrived(1, trades=trades))
    assert never.answer_age == pytest.approx(8.0, abs=0.2), "since the second trade was made"
    judge_answers(never, [Answer(BEGAN + 2.5, 0.01, "KRW-BTC", trade_at=BEGAN + 1.0)], trades, 3.0, 15.0)
    assert never.answer_age == pytest.approx(0.5), "a client that answers is judged by its answers"


def test_an_open_line_is_silent_from_the_first_trade_it_does_not_give() -> None:
    trades = published(1.0, 2.0, 3.0, 8.0, 9.0)
    seen = arrived(1, 2, 4, 5, trades=trades) + arrived(3, trades=trades, late=1.0, backfilled=True)
    lines = [Line(BEGAN, BEGAN + 5.0), Line(BEGAN + 7.0, BEGAN + 10.0)]
    verdict = judge([], BEGAN, 10, trades, seen, lines=lines)
    assert verdict.longest_silence == pytest.approx(2.0)  # from 3.0 to the end of the first line


def test_a_line_is_not_silent_while_nothing_happens_or_the_server_cannot_serve() -> None:
    trades = published(1.0, 3.0, 6.2, 20.0)
    outage = Fault(2.0, BY_NAME["accepted, then closed"])
    verdict = judge([outage], BEGAN, 21, trades, arrived(1, 3, 4, trades=trades), lines=[Line(BEGAN, BEGAN + 21.0)])
    assert verdict.longest_silence == 0.0


def test_where_nobody_knows_when_a_line_was_open_there_is_no_figure() -> None:
    assert math.isnan(judge([], BEGAN, 4, published(0.5), []).longest_silence)


def test_the_plan_holds_every_kind_once_and_repeats_with_its_seed() -> None:
    faults = plan(7, 505)
    assert sorted(fault.kind.name for fault in faults) == sorted(kind.name for kind in KINDS)
    assert faults == plan(7, 505)
    assert faults != plan(8, 505)


@pytest.mark.parametrize("seed", range(20))
def test_faults_never_overlap_and_end_with_the_storm(seed: int) -> None:
    faults = plan(seed, 285)
    for earlier, later in itertools.pairwise(faults):
        assert earlier.able_again < later.at
    assert faults[-1].able_again <= 285


def test_a_verdict_of_nothing_has_no_ratio() -> None:
    assert math.isnan(Verdict(0.0, 0.0, [], 0, 0, 0, 0, 0).of_best)
