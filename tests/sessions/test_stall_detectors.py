"""A session that brings everything too late is told, loses load, and connects anew where that does not help."""

from __future__ import annotations

import pytest

from upbit_backbone.models.session import SessionHealth
from upbit_backbone.sessions.stall_detectors import (
    CALM_SECONDS,
    FIRST_PATIENCE_SECONDS,
    LONGEST_BACKLOG_SECONDS,
    LONGEST_PATIENCE_SECONDS,
    TELL_SECONDS,
    LatenessWatch,
)


def late_since(now: float) -> LatenessWatch:
    watch = LatenessWatch()
    assert watch.look(True, now)
    return watch


def test_a_hiccup_is_not_worth_telling() -> None:
    watch = late_since(100.0)
    assert not watch.must_tell(102.9)
    assert not watch.look(True, 101.0, is_evidence=False)
    assert not watch.must_tell(110.0), "nothing came late since"
    assert watch.due == float("inf")
    assert watch.look(False, 110.9)
    assert not watch.must_tell(200.0)
    assert not watch.has_caught_up(200.0)


def test_a_session_that_stays_late_is_told_once_and_then_given_time() -> None:
    watch = late_since(100.0)
    assert watch.look(True, 100.0 + TELL_SECONDS)
    assert watch.due == 100.0 + TELL_SECONDS
    assert watch.must_tell(103.0)
    assert not watch.must_tell(103.1)
    assert watch.due == 103.0 + FIRST_PATIENCE_SECONDS
    assert not watch.is_beyond_help(103.0 + FIRST_PATIENCE_SECONDS - 0.1)
    assert watch.is_beyond_help(103.0 + FIRST_PATIENCE_SECONDS)
    assert not watch.is_beyond_help(200.0)


def test_whoever_catches_up_is_told_so_after_a_moment_of_calm() -> None:
    watch = late_since(100.0)
    watch.look(True, 103.0)
    watch.must_tell(103.0)
    assert watch.look(False, 105.0)
    assert watch.due == 105.0 + CALM_SECONDS
    assert not watch.has_caught_up(106.9)
    assert watch.has_caught_up(107.0)
    assert not watch.has_caught_up(108.0)


def test_what_lies_here_already_is_read_and_not_thrown_away_for_a_new_connection() -> None:
    watch = late_since(100.0)
    watch.look(True, 103.0)
    watch.must_tell(103.0)
    now = 103.0 + FIRST_PATIENCE_SECONDS
    while now < 100.0 + LONGEST_BACKLOG_SECONDS:
        assert not watch.is_beyond_help(now, has_backlog=True)
        assert watch.due > now, "it is looked at again"
        now = watch.due
    assert watch.is_beyond_help(now, has_backlog=True), "it never keeps up"


def test_a_backlog_that_is_read_leaves_the_usual_patience() -> None:
    watch = late_since(100.0)
    watch.look(True, 103.0)
    watch.must_tell(103.0)
    assert not watch.is_beyond_help(113.0, has_backlog=True)
    assert watch.is_beyond_help(115.0), "late, and not for want of reading"


def test_connecting_anew_is_tried_ever_less_often_until_all_was_well_for_long() -> None:
    watch, now, pauses = late_since(0.0), 3.0, []
    watch.look(True, now)
    assert watch.must_tell(now)
    for _ in range(8):
        pauses.append(watch.due - now)
        now = watch.due
        assert watch.is_beyond_help(now)
        watch.opened(now)
        now += 1.0
        watch.look(True, now)
    assert pauses == [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, LONGEST_PATIENCE_SECONDS, LONGEST_PATIENCE_SECONDS]
    watch.look(False, now)
    assert watch.has_caught_up(now + CALM_SECONDS)
    watch.look(True, now + 310.0)
    watch.look(True, now + 313.0)
    watch.must_tell(now + 313.0)
    assert watch.due == now + 313.0 + FIRST_PATIENCE_SECONDS


def test_an_answer_that_is_overdue_makes_a_line_late_unless_what_comes_is_young() -> None:
    health = SessionHealth("session-1", 2.0)
    health.answered(0.05, 100.0)
    assert health.overdue_at == float("inf")
    health.unanswered_since = 105.0
    health.news_came(0.1, 106.0)
    assert health.overdue_at == pytest.approx(107.95)
    health.overdue(108.0)
    assert health.is_late
    assert health.overdue_at == float("inf"), "once is enough"
    health.news_came(0.1, 108.5)
    assert not health.is_late


@pytest.mark.parametrize("lag", [0.0, 0.5, 1.5, 1.9])
def test_a_late_line_that_falls_silent_has_less_time_to_answer(lag: float) -> None:
    """Whatever is given as current was overtaken less than three seconds ago."""
    health = SessionHealth("session-1", 2.0)
    health.answered(lag, 100.0)
    health.news_came(lag, 105.0)
    health.unanswered_since = 105.9
    assert health.overdue_at < 105.0 - lag + 3.0
    health.overdue(health.overdue_at)
    assert health.is_late


def test_the_last_news_of_a_quiet_line_is_no_deadline_for_a_regular_question() -> None:
    health = SessionHealth("session-1", 2.0)
    health.news_came(0.1, 105.0)
    health.answered(0.05, 106.0)
    for seconds in (1.1, 2.6, 5.0):
        health.unanswered_since = 105.0 + seconds
        assert health.overdue_at == pytest.approx(health.unanswered_since + 2.05)


def test_what_has_been_answered_since_the_last_news_is_known_as_well() -> None:
    health = SessionHealth("session-1", 2.0)
    health.news_came(0.4, 105.0)
    health.answered(0.9, 106.3)
    health.unanswered_since = 105.9
    assert health.overdue_at == pytest.approx(105.4 + 2.75)


def test_how_long_something_was_on_its_way_is_known_only_while_answers_come() -> None:
    health = SessionHealth("session-1", 2.0)
    assert health.longest_way(100.0) == float("inf")
    health.answered(0.05, 100.0)
    health.unanswered_since = 105.0
    assert health.longest_way(105.01) == pytest.approx(0.05)
    assert health.longest_way(109.0) == pytest.approx(9.05), "sent after the last question that was answered"


def test_what_a_pong_proves_and_what_it_does_not() -> None:
    health = SessionHealth("session-1", 2.0)
    assert health.proven_at is None
    health.answered(0.05, 100.0)
    assert (health.lag, health.is_late, health.proven_at) == (0.05, False, 99.95)
    health.news_came(5.0, 110.0)  # Upbit holds back what it sends
    assert health.is_late
    health.answered(0.05, 112.0)
    assert health.is_late
    health.answered(0.05, 116.0)  # quiet for longer than it was late: whatever was held back has come
    assert (health.lag, health.is_late) == (0.05, False)
    health.answered(3.0, 120.0)
    assert health.is_late
    health.news_came(0.1, 120.5)
    assert health.lag == pytest.approx(0.1)
    assert not health.is_late
    health.reset_lag()
    assert health.proven_at is None
