from __future__ import annotations

import pytest

from upbit_backbone.models.enums import HealthStatus
from upbit_backbone.models.events import ConnectionState
from upbit_backbone.models.report import GapStats, PerformanceMetric, RefusalStats
from upbit_backbone.monitoring.assessment import Facts, Hysteresis, assess, assess_rest, assess_websocket

HEALTHY, DEGRADED, UNHEALTHY = HealthStatus.HEALTHY, HealthStatus.DEGRADED, HealthStatus.UNHEALTHY
WAITING = ConnectionState.WAITING


def metric(success_rate: float, samples: int) -> PerformanceMetric:
    return PerformanceMetric(
        name="rest:ticker", window_seconds=300, samples=samples, requests=samples, failures=0,
        success_rate=success_rate, p50=0.1, p95=0.1, p99=0.1, slowest=0.1, errors={"ServerError": 4}, bytes=0,
    )  # fmt: skip


def test_nothing_asked_and_nothing_subscribed_is_healthy():
    assert assess(Facts()) == assess(
        Facts(),
    )  # equal facts, equal answer
    assert assess(Facts()).status is HEALTHY


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({}, HEALTHY, ""),
        ({"state": WAITING, "last_error": "close 1001"}, UNHEALTHY, "is waiting since 05:00:00Z (close 1001)"),
        ({"suspect": True}, UNHEALTHY, "suspected mute"),
        ({"last_data_age": 30.0, "last_pong_age": 11.0}, UNHEALTHY, "was not heard for more than 10 s"),
        ({"last_data_age": 3600.0, "last_pong_age": 2.0}, HEALTHY, ""),  # a quiet market is no trouble
        ({"lag": 7.5}, DEGRADED, "7.5 s behind the exchange"),
        ({"state": WAITING, "topics": 0}, HEALTHY, ""),  # nobody wants anything of it
        ({"state": ConnectionState.CONNECTING, "connects": 0}, HEALTHY, ""),  # on its way for the first time
        ({"state": ConnectionState.CONNECTING, "connects": 0, "last_error": "refused"}, UNHEALTHY, "refused"),
    ],
)
def test_a_session_is_judged_by_what_it_can_deliver(make, changes, status, words):
    verdict = assess_websocket(Facts(sessions=[make.session(**changes)]))
    assert verdict.status is status
    assert words in "; ".join(verdict.reasons)


@pytest.mark.parametrize(
    ("gaps", "words"),
    [
        (GapStats(open=0, late=0, parked=0, oldest=0.0, unattended=0.0), ""),
        (GapStats(open=1, late=0, parked=9, oldest=0.5, unattended=0.0), ""),  # usually filled within a second
        (GapStats(open=2, late=0, parked=9, oldest=12.0, unattended=0.0, problem="503"), "the oldest for 12 s (503)"),
        (GapStats(open=2, late=2, parked=0, oldest=3.0, unattended=0.0), "live data goes on"),
        (
            GapStats(open=3, late=0, parked=0, oldest=9.0, unattended=8.0, problem="can't start new thread"),
            "no thread has come to them for 8 s (can't start new thread)",
        ),
    ],
)
def test_gaps_that_stay_open_and_work_nobody_does_are_told(gaps, words):
    verdict = assess(Facts(gaps=gaps))
    assert verdict.status is (DEGRADED if words else HEALTHY)
    assert words in "; ".join(verdict.reasons)


def test_a_ban_is_told_with_what_it_means_for_streams(make):
    verdict = assess(Facts(groups=[make.group()], ban="Upbit blocks this IP for 60 s more: open streams go on"))
    assert "open streams go on" in verdict.reasons[0]


def refusal(seconds, topic=None):
    return RefusalStats(session="ws-1", topic=topic, seconds=seconds, count=7, reason="tp is not a number")


def test_a_stream_of_which_nothing_can_be_read_is_unhealthy_though_rest_is_well(make):
    facts = Facts(
        sessions=[make.session(session="ws-1", refused_seconds=1.5)], groups=[make.group()], refusals=[refusal(1.5)]
    )
    verdict = assess(facts)
    assert verdict.status is assess_websocket(facts).status is UNHEALTHY
    assert "nothing that came for 1.5 s could be read (tp is not a number)" in verdict.reasons[0]
    moment = Facts(sessions=[make.session(session="ws-1", refused_seconds=0.2)], refusals=[refusal(0.2)])
    assert assess(moment).status is HEALTHY


def test_a_single_topic_of_which_nothing_can_be_read_degrades(make):
    facts = Facts(sessions=[make.session(session="ws-1")], refusals=[refusal(2.0, "ticker:KRW-BTC")])
    verdict = assess(facts)
    assert verdict.status is DEGRADED
    assert verdict.reasons == ("ticker:KRW-BTC: the last 7 messages could not be read (tp is not a number)",)


def test_one_lost_session_of_two_degrades(make):
    sessions = [make.session(), make.session(session="upbit-session-2", state=WAITING)]
    assert assess_websocket(Facts(sessions=sessions)).status is DEGRADED


def test_without_streams_but_with_rest_answers_still_come(make):
    verdict = assess(Facts(sessions=[make.session(state=WAITING)], groups=[make.group()]))
    assert verdict.status is DEGRADED


def test_without_rest_but_with_streams_answers_still_come(make):
    verdict = assess(Facts(sessions=[make.session()], groups=[make.group(breaker="open")]))
    assert verdict.status is DEGRADED
    assert "circuit breaker is open" in verdict.reasons[0]


def test_with_neither_channel_nothing_works(make):
    facts = Facts(sessions=[make.session(state=WAITING)], groups=[make.group(breaker="open")])
    assert assess(facts).status is UNHEALTHY
    assert assess(Facts(groups=[make.group(breaker="open")])).status is UNHEALTHY


def test_three_errors_in_a_row_say_that_rest_is_down_before_any_breaker_does():
    assert assess_rest(Facts(rest_failing_streak=2)).status is HEALTHY
    assert assess_rest(Facts(rest_failing_streak=3)).status is UNHEALTHY


def test_a_429_degrades_and_a_ban_takes_rest_away(make):
    slowed = make.group(limited_429=1, paused_for=0.5)
    verdict = assess_rest(Facts(groups=[slowed, make.group(group="candle")]))
    assert (verdict.status, "slow down (429)" in verdict.reasons[0]) == (DEGRADED, True)
    banned = [make.group(banned_418=1, paused_for=60.0), make.group(group="candle", paused_for=60.0)]
    verdict = assess_rest(Facts(groups=banned))
    assert (verdict.status, "bans this IP (418)" in verdict.reasons[0]) == (UNHEALTHY, True)


def test_a_bad_success_rate_counts_only_with_enough_answers():
    assert assess_rest(Facts(group_metrics=[metric(0.5, 9)])).status is HEALTHY
    verdict = assess_rest(Facts(group_metrics=[metric(0.5, 20)]))
    assert verdict.reasons == ("rest:ticker: only 50% of the last 20 answers were good (ServerError)",)


def test_a_slow_consumer_degrades_and_is_told_what_to_do():
    verdict = assess(Facts(recent_drops={"sub-1": 12}))
    assert verdict.status is DEGRADED
    assert "read faster" in verdict.reasons[0]


def test_a_closed_backbone_is_not_healthy():
    assert assess(Facts(closed=True)).reasons == ("the backbone is closed",)


def test_health_worsens_at_once_and_improves_only_after_calm():
    seen = Hysteresis(better_after=2.0).seen(DEGRADED, 0.0)
    assert seen.status is DEGRADED
    assert seen.seen(HEALTHY, 1.0).seen(HEALTHY, 2.9).status is DEGRADED
    assert seen.seen(HEALTHY, 1.0).seen(HEALTHY, 3.0).status is HEALTHY
    flutter = seen.seen(HEALTHY, 1.0).seen(DEGRADED, 2.0).seen(HEALTHY, 2.5).seen(HEALTHY, 4.0)
    assert flutter.status is DEGRADED
