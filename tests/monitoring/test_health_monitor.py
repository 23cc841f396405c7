from __future__ import annotations

import dataclasses
import logging
import queue
import sys
import threading
import time

import pytest

from tests.support.waiting import promised
from upbit_backbone._concurrency import Deadline
from upbit_backbone.errors import ClosedError, NetworkError
from upbit_backbone.models.enums import Channel, DataType, HealthStatus
from upbit_backbone.models.events import CallbackErrorEvent, ConnectionState, GapEvent, HealthEvent
from upbit_backbone.models.report import RecorderStats
from upbit_backbone.monitoring.alerts import AlertRule
from upbit_backbone.monitoring.health_monitor import HealthMonitor, HealthSources
from upbit_backbone.monitoring.metrics import Metrics


class World:
    """The parts as the monitor sees them; change the lists and look again."""

    def __init__(self, make):
        self.sessions = [make.session()]
        self.groups = [make.group()]
        self.subscriptions = [make.subscription()]
        self.sources = HealthSources(
            sessions=lambda: self.sessions, groups=lambda: self.groups, subscriptions=lambda: self.subscriptions
        )


@pytest.fixture
def world(make):
    return World(make)


@pytest.fixture
def monitored(world):
    """make_monitor(**options): monitors that are closed at the end of the test"""
    monitors = []

    def start(**options):
        monitor = HealthMonitor(world.sources, Metrics(), **options)
        monitors.append(monitor)
        return monitor

    yield start
    for monitor in monitors:
        assert monitor.close(Deadline.after(2.0)) == []


def test_looking_starts_no_thread(world, monitored):
    before = threading.active_count()
    monitor = monitored()
    assert monitor.health().status is HealthStatus.HEALTHY
    assert str(monitor.health()).startswith("HEALTHY")
    assert threading.active_count() == before
    assert repr(monitor) == "<HealthMonitor on demand, healthy>"


def test_rates_are_taken_between_two_looks(world, make, hand_clock):
    monitor = HealthMonitor(world.sources, Metrics(hand_clock), clock=hand_clock)
    assert monitor.health().sessions[0].messages_per_second is None
    hand_clock.now += 2.0
    world.sessions = [make.session(messages=210, bytes=5000)]
    session = monitor.health().sessions[0]
    assert (session.messages_per_second, session.bytes_per_second) == (100.0, 2000.0)


def test_drops_count_for_a_minute_and_only_where_they_hurt(world, make, hand_clock):
    monitor = HealthMonitor(world.sources, Metrics(hand_clock), clock=hand_clock)
    monitor.health()
    world.subscriptions = [
        make.subscription(dropped=6, lost=5),
        make.subscription(subscription="c", dropped=9),
    ]
    hand_clock.now += 1.0
    report = monitor.health()
    assert (report.recent_drops, report.status) == ({"sub-1": 5}, HealthStatus.DEGRADED)
    for _ in range(70):
        hand_clock.now += 1.0
        report = monitor.health()
    assert report.recent_drops == {}


def test_the_clock_offset_is_shown_as_ours_minus_upbits(monitored):
    assert monitored(clock_offset=lambda: 1.5).health().clock_offset == -1.5
    assert monitored(clock_offset=lambda: None).health().clock_offset is None


@pytest.mark.parametrize("seconds", [1, 5, 9, 11, 30, 60, 61, 120, 3600])
def test_rates_and_drops_are_right_however_seldom_somebody_looks(world, make, hand_clock, seconds):
    monitor = HealthMonitor(world.sources, Metrics(hand_clock), clock=hand_clock)
    looks = max(14, 120 // seconds)
    for _ in range(looks):
        hand_clock.now += seconds
        passed = int(hand_clock.now - 1000)
        world.sessions = [make.session(messages=100 * passed, bytes=1000 * passed)]
        world.subscriptions = [make.subscription(lost=50 * passed)]
        report = monitor.health()
    assert report.sessions[0].messages_per_second == pytest.approx(100.0)
    assert report.recent_drops["sub-1"] == min(3_000, 50 * (looks - 1) * seconds)
    assert report.status is HealthStatus.DEGRADED


def test_several_who_look_do_not_spoil_each_others_rates(world, make, hand_clock):
    monitor = HealthMonitor(world.sources, Metrics(hand_clock), clock=hand_clock)
    seen = []
    for step in range(200):
        hand_clock.now += 0.5
        passed = hand_clock.now - 1000
        world.sessions = [make.session(messages=int(100 * passed))]
        seen.append(monitor.health().sessions[0].messages_per_second)
        if step % 30 == 0:
            again = monitor.health().sessions[0].messages_per_second  # another scraper, at the very same moment
            assert again == seen[-1]
    assert seen[0] is None
    assert seen[1:] == pytest.approx([100.0] * 199)


def test_a_name_that_is_used_again_starts_anew(world, make, hand_clock):
    monitor = HealthMonitor(world.sources, Metrics(hand_clock), clock=hand_clock)
    world.subscriptions = [make.subscription(lost=500)]
    monitor.health()
    hand_clock.now += 2.0
    world.subscriptions = [make.subscription(lost=3)]
    assert monitor.health().recent_drops == {}


def test_a_recording_that_ended_or_loses_is_a_reason_not_to_be_healthy(world, hand_clock):
    stats = [RecorderStats(path="day.rec", records=7, received_bytes=70, written_bytes=50, lost=0, error=None)]
    sources = dataclasses.replace(world.sources, recorder=lambda: stats[0])
    monitor = HealthMonitor(sources, Metrics(hand_clock), clock=hand_clock)
    assert monitor.health().status is HealthStatus.HEALTHY
    hand_clock.now += 1.0
    stats[0] = dataclasses.replace(stats[0], lost=4)
    report = monitor.health()
    assert (report.status, report.recorder) == (HealthStatus.DEGRADED, stats[0])
    assert report.reasons == ("recording day.rec lost 4 records within a minute: the disk is too slow",)
    hand_clock.now += 61.0
    assert monitor.health().status is HealthStatus.HEALTHY
    stats[0] = dataclasses.replace(stats[0], error="No space left on device")
    assert "has ended: No space left on device; 4 records lost" in monitor.health().reasons[0]


def test_a_lost_session_becomes_a_health_event_within_a_second(world, make, monitored):
    events: queue.Queue = queue.Queue()
    monitor = monitored(emit=events.put)
    monitor.watch()
    world.sessions = [make.session(state=ConnectionState.WAITING, last_error="close 1001")]
    began = time.monotonic()
    monitor.observe(GapEvent(at=make.start, symbol="KRW-BTC", type=DataType.TRADE, start=make.start, end=make.start,
                             recovered=0, complete=False))  # fmt: skip
    event = events.get(timeout=5.0)
    assert time.monotonic() - began < promised(1.0)
    assert isinstance(event, HealthEvent)
    assert (event.old, event.new) == (HealthStatus.HEALTHY, HealthStatus.DEGRADED)
    assert "close 1001" in event.reasons[0]
    assert monitor.performance().counters == {"event.gap": 1}


def test_an_alert_callback_that_raises_hurts_only_itself(world, make, monitored, caplog):
    alerts: queue.Queue = queue.Queue()
    monitor = monitored()
    monitor.alert(lambda alert: 1 / 0)
    monitor.alert(alerts.put)
    with caplog.at_level(logging.ERROR, logger="upbit_backbone.monitoring"):
        world.sessions = [make.session(state=ConnectionState.WAITING)]
        first = alerts.get(timeout=5.0)
    assert (first.rule, first.active) == ("health", True)
    assert "an alert callback raised" in caplog.text


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, ZeroDivisionError])
def test_whatever_an_alert_callback_raises_is_told_and_the_next_alert_comes(world, make, monitored, error):
    alerts: queue.Queue = queue.Queue()
    events: queue.Queue = queue.Queue()

    def leave(alert):
        alerts.put(alert)
        raise error("enough")

    monitor = monitored(emit=events.put)
    monitor.alert(leave)
    for suspect in (True, False):
        world.sessions = [make.session(suspect=suspect)]
        assert alerts.get(timeout=10.0).active is suspect
        told = [events.get(timeout=10.0) for _ in range(2)]
        (failure,) = [event for event in told if isinstance(event, CallbackErrorEvent)]
        assert (failure.subscription, type(failure.error)) == ("alert health", error)


def test_a_rule_that_leaves_the_interpreter_ends_nobody_elses_alerts(world, make, monitored):
    alerts: queue.Queue = queue.Queue()
    monitor = monitored()
    monitor.alert(alerts.put, [AlertRule(name="exit", measure=lambda report: sys.exit(), raise_at=1, clear_below=1,
                                         message="")])  # fmt: skip
    monitor.alert(alerts.put)
    world.sessions = [make.session(suspect=True)]
    assert alerts.get(timeout=10.0).rule == "health"


def test_a_rule_that_raises_is_removed_and_the_others_go_on(world, make, monitored, caplog):
    alerts: queue.Queue = queue.Queue()
    monitor = monitored()
    broken = AlertRule(name="broken", measure=lambda report: {}["x"], raise_at=1, clear_below=1, message="")
    with caplog.at_level(logging.ERROR, logger="upbit_backbone.monitoring"):
        monitor.alert(alerts.put, [broken])
        monitor.alert(alerts.put)
        world.sessions = [make.session(state=ConnectionState.WAITING)]
        assert alerts.get(timeout=5.0).rule == "health"
    assert caplog.text.count("an alert rule raised") == 1


def test_an_alert_can_be_called_off(world, make, monitored):
    alerts: queue.Queue = queue.Queue()
    monitor = monitored()
    stop = monitor.alert(alerts.put)
    stop()
    stop()
    world.sessions = [make.session(state=ConnectionState.WAITING)]
    sentinel: queue.Queue = queue.Queue()
    monitor.alert(sentinel.put)
    assert sentinel.get(timeout=5.0).active
    assert alerts.empty()


def test_rest_is_asked_only_when_nothing_was_measured_lately(make):
    asked = []
    metrics = Metrics()
    sources = HealthSources(groups=lambda: [make.group()], ask_rest=asked.append)
    monitor = HealthMonitor(sources, metrics)
    assert monitor.check_rest_api_health() is HealthStatus.HEALTHY
    metrics.record(Channel.REST, "ticker", 0.1)
    assert monitor.check_rest_api_health() is HealthStatus.HEALTHY
    assert len(asked) == 1


def test_a_failing_question_says_that_rest_is_unhealthy(make):
    def fail(deadline):
        raise NetworkError("refused")

    monitor = HealthMonitor(HealthSources(ask_rest=fail), Metrics())
    assert monitor.check_rest_api_health() is HealthStatus.UNHEALTHY
    assert monitor.check_websocket_health() is HealthStatus.HEALTHY


def test_a_failing_streak_shows_before_the_breaker_opens(make):
    metrics = Metrics()
    monitor = HealthMonitor(HealthSources(groups=lambda: [make.group()]), metrics)
    for _ in range(3):
        metrics.record(Channel.REST, "ticker", 0.1, NetworkError("refused"))
    assert monitor.health().status is HealthStatus.UNHEALTHY
    metrics.record(Channel.REST, "ticker", 0.1)
    assert "REST: the last" not in " ".join(monitor.health().reasons)


def test_after_close_nothing_is_told_and_closing_again_is_fine(world, monitored):
    monitor = monitored()
    monitor.watch()
    assert monitor.close(Deadline.after(2.0)) == []
    assert monitor.close(Deadline.after(2.0)) == []
    with pytest.raises(ClosedError):
        monitor.alert(print)
    assert monitor.health().status is HealthStatus.UNHEALTHY


def test_a_source_that_fails_once_does_not_end_the_watch(world, make, monitored, caplog):
    events: queue.Queue = queue.Queue()
    failures = [RuntimeError("not now")]

    def sessions():
        if failures:
            raise failures.pop()
        return [make.session(suspect=True)]

    monitor = HealthMonitor(HealthSources(sessions=sessions), Metrics(), emit=events.put)
    with caplog.at_level(logging.ERROR, logger="upbit_backbone.monitoring"):
        monitor.watch()
        assert events.get(timeout=5.0).new is HealthStatus.DEGRADED
    assert monitor.close(Deadline.after(2.0)) == []
