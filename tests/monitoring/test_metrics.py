from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.errors import NetworkError, UnknownSymbolError
from upbit_backbone.models.enums import Channel
from upbit_backbone.monitoring.metrics import WINDOW_SAMPLES, Metrics, Tally, percentile


def test_percentiles_are_those_of_the_nearest_rank(hand_clock):
    metrics = Metrics(hand_clock)
    for milliseconds in range(1, 101):
        metrics.record(Channel.REST, "ticker", milliseconds / 1000, None, 10)
    metric = metrics.channel(Channel.REST)
    assert (metric.p50, metric.p95, metric.p99, metric.slowest) == (0.050, 0.095, 0.099, 0.100)
    assert (metric.requests, metric.bytes, metric.success_rate) == (100, 1000, 1.0)


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0.01, 1.0))
def test_a_percentile_is_a_value_that_was_seen_and_covers_its_share(values, share):
    values.sort()
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


def test_old_answers_leave_the_window_but_not_the_totals(hand_clock):
    clock = hand_clock
    metrics = Metrics(clock)
    metrics.record(Channel.REST, None, 9.0, NetworkError("cut"))
    clock.now += 301
    metrics.record(Channel.REST, None, 0.1)
    metric = metrics.channel(Channel.REST)
    assert (metric.samples, metric.slowest, metric.success_rate) == (1, 0.1, 1.0)
    assert (metric.requests, metric.failures, metric.errors) == (2, 1, {"NetworkError": 1})


def test_a_window_is_bounded_however_many_answers_there_are(hand_clock):
    metrics = Metrics(hand_clock)
    for _ in range(3 * WINDOW_SAMPLES):
        metrics.record(Channel.CACHE, None, 0.001)
    assert metrics.channel(Channel.CACHE).samples == WINDOW_SAMPLES


def test_a_mistake_of_the_caller_is_listed_but_is_no_failure_of_the_channel(hand_clock):
    metrics = Metrics(hand_clock)
    metrics.record(Channel.REST, "ticker", 0.1, UnknownSymbolError("no such market"))
    metric = metrics.channel(Channel.REST)
    assert metric.errors == {"UnknownSymbolError": 1}
    assert (metric.failures, metric.samples) == (0, 0)


def test_a_group_alone_does_not_count_as_a_channel_answer(hand_clock):
    metrics = Metrics(hand_clock)
    metrics.record(None, "candle", 0.1)
    report = metrics.report()
    assert report.channels == ()
    assert [group.name for group in report.groups] == ["rest:candle"]


def test_a_tally_loses_no_hit_of_many_threads_while_somebody_looks():
    tally = Tally()

    def hit() -> None:
        for _ in range(5_000):
            tally.hit()

    threads = [threading.Thread(target=hit) for _ in range(4)]
    for thread in threads:
        thread.start()
    seen = [tally.value for _ in range(100)]
    for thread in threads:
        thread.join()
    assert tally.value == 20_000
    assert seen == sorted(seen)


def test_the_live_share_tells_how_many_answers_needed_no_request(hand_clock):
    metrics = Metrics(hand_clock)
    for _ in range(3):
        metrics.live_hit()
    metrics.record(Channel.REST, None, 0.1)
    metrics.routed("first-question")
    report = metrics.report()
    assert (report.live_answers, report.live_share, report.routing) == (3, 0.75, {"first-question": 1})
    assert "3 answers straight from a stream (75.0% of all)" in str(report)


@pytest.mark.parametrize("count", [0, 1])
def test_a_report_of_nothing_can_be_read_too(count, hand_clock):
    metrics = Metrics(hand_clock)
    metrics.count("event.gap", count)
    assert str(metrics.report()).startswith("0 answers straight from a stream")
