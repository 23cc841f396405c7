from __future__ import annotations

import dataclasses

import pytest

from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.models.enums import HealthStatus
from upbit_backbone.models.events import ConnectionState
from upbit_backbone.models.report import HealthReport
from upbit_backbone.monitoring.alerts import DEFAULT_RULES, AlertBook, AlertRule, lag
from upbit_backbone.monitoring.metrics import Metrics


@pytest.fixture
def report(hand_clock, make):
    return HealthReport(
        at=make.start, status=HealthStatus.HEALTHY, reasons=(), sessions=(make.session(),), groups=(),
        subscriptions=(), performance=Metrics(hand_clock).report(),
    )  # fmt: skip


LATE = AlertRule(
    name="late", measure=lag, raise_at=3.0, clear_below=1.0, hold_seconds=2.0, calm_seconds=5.0,
    message="{subject} is {value:.1f} s late",
)  # fmt: skip


def told(book, report, make, series):
    """[(time, began?)] of the alerts for a series of (time, lag)."""
    found = []
    for now, value in series:
        changed = dataclasses.replace(report, sessions=(make.session(lag=value),))
        found += [(now, alert.active) for alert in book.look(changed, now)]
    return found


def test_an_alert_waits_until_the_trouble_has_lasted_and_ends_after_calm(report, make):
    series = [(0, 4.0), (1, 4.0), (2, 4.0), (3, 0.5), (5, 0.5), (8, 0.5), (20, 0.5)]
    assert told(AlertBook([LATE]), report, make, series) == [(2, True), (8, False)]


def test_a_value_between_the_thresholds_neither_raises_nor_clears(report, make):
    series = [(0, 2.0), (9, 2.0), (10, 4.0), (12, 4.0), (13, 2.0), (30, 2.0)]
    assert told(AlertBook([LATE]), report, make, series) == [(12, True)]


def test_a_flutter_raises_nothing(report, make):
    series = [(now, 4.0 if now % 2 else 0.0) for now in range(40)]
    assert told(AlertBook([LATE]), report, make, series) == []


def test_an_alert_ends_when_its_subject_is_gone(report, make):
    book = AlertBook([LATE])
    told(book, report, make, [(0, 4.0), (2, 4.0)])
    assert book.active == [("late", "upbit-session-1")]
    (alert,) = book.look(dataclasses.replace(report, sessions=()), 3.0)
    assert (alert.active, alert.message) == (False, "upbit-session-1 is gone")
    assert book.active == []


@pytest.mark.parametrize(
    ("rule", "before", "why"),
    [
        ("dropped", {"recent_drops": {"sub-1": 5}}, "subscription sub-1 has lost nothing for a minute"),
        ("lag", {"lag": 4.0}, "session upbit-session-1 has had no data lately that could be late"),
        ("staleness", {"last_data_age": 11.0}, "session upbit-session-1 is not in use any more"),
    ],
)
def test_an_alert_that_ends_for_want_of_anything_to_measure_says_so(report, make, rule, before, why):
    rules = [dataclasses.replace(each, hold_seconds=0.0) for each in DEFAULT_RULES if each.name == rule]
    drops = before.pop("recent_drops", {})
    bad = dataclasses.replace(
        report, recent_drops=drops, sessions=(make.session(last_pong_age=None, **before),),
        subscriptions=(make.subscription(),),
    )  # fmt: skip
    good = dataclasses.replace(bad, recent_drops={}, sessions=(make.session(topics=0),))
    book = AlertBook(rules)
    assert [alert.active for alert in book.look(bad, 0.0)] == [True]
    (ended,) = book.look(good, 1.0, {"sub-1", "upbit-session-1"})
    assert (ended.active, ended.message) == (False, why)
    book.look(bad, 2.0)
    (ended,) = book.look(good, 3.0, set())
    assert ended.message == f"{ended.subject} is gone"


def test_an_alert_that_ends_after_calm_says_by_how_much_it_is_good(report, make):
    book = AlertBook([LATE])
    told(book, report, make, [(0, 4.0), (2, 4.0), (3, 0.5)])
    good = dataclasses.replace(report, sessions=(make.session(lag=0.25),))
    (ended,) = book.look(good, 8.0)
    assert ended.message == "late of upbit-session-1 is good again: 0.25, below 1 for 5 s"


def test_the_default_rules_see_health_staleness_drops_and_errors(report, make):
    book = AlertBook(DEFAULT_RULES)
    assert book.look(report, 0.0) == []
    bad = dataclasses.replace(
        report,
        status=HealthStatus.UNHEALTHY,
        reasons=("nothing works",),
        sessions=(make.session(state=ConnectionState.WAITING, since=make.start.replace(hour=4)),),
        recent_drops={"sub-1": 7},
    )
    messages = {alert.rule: alert.message for alert in book.look(bad, 1.0)}
    assert messages == {
        "health": "health is unhealthy: nothing works",
        "staleness": "session upbit-session-1 was not heard for 3600.0 s",
        "dropped": "subscription sub-1 lost 7 items within a minute: its consumer is too slow",
    }


def test_a_rule_that_could_never_settle_is_refused():
    with pytest.raises(InvalidRequestError, match="clear_below"):
        AlertRule(name="odd", measure=lag, raise_at=1.0, clear_below=2.0, message="")
