from __future__ import annotations

import json
import re
import threading
import urllib.request
from pathlib import Path

import pytest

from tests.support.waiting import PATIENCE_SECONDS
from upbit_backbone.errors import InvalidRequestError, NetworkError
from upbit_backbone.models.enums import Channel
from upbit_backbone.models.events import ConnectionState
from upbit_backbone.models.report import GapStats, GapTotals, RecorderStats
from upbit_backbone.monitoring.health_monitor import HealthMonitor, HealthSources
from upbit_backbone.monitoring.metrics import Metrics

prometheus_client = pytest.importorskip("prometheus_client")
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from upbit_backbone.monitoring.prometheus import PrometheusCollector, serve_metrics  # noqa: E402


@pytest.fixture
def monitor(make):
    metrics = Metrics()
    metrics.record(Channel.REST, "ticker", 0.02)
    metrics.record(Channel.REST, "ticker", 0.03, NetworkError("cut"))
    metrics.routed("first-question")
    metrics.count("event.gap")
    sources = HealthSources(
        sessions=lambda: [make.session(state=ConnectionState.WAITING)],
        groups=lambda: [make.group()],
        subscriptions=lambda: [make.subscription()],
    )
    return HealthMonitor(sources, metrics)


def page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5.0) as answer:  # noqa: S310 - our own page
        return answer.read().decode()


def test_the_page_is_served_until_it_is_closed(monitor):
    with serve_metrics(monitor, 0) as server:
        samples = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(page(server.url))
            for sample in family.samples
        }
    assert samples["upbit_backbone_session_up", "upbit-session-1"] == 0.0
    assert samples["upbit_backbone_health_status", "degraded"] == 1.0
    assert samples["upbit_backbone_rest_requests_total", "ticker"] == 5.0
    assert samples["upbit_backbone_rest_answer_errors_total", "NetworkError", "ticker"] == 1.0
    assert samples["upbit_backbone_routed_total", "first-question"] == 1.0
    assert samples["upbit_backbone_events_total", "gap"] == 1.0
    with pytest.raises(OSError):
        page(server.url)


def test_names_follow_the_conventions(monitor):
    for family in PrometheusCollector(monitor.health).collect():
        assert re.fullmatch(r"upbit_backbone_[a-z0-9_]+", family.name)
        assert family.documentation.endswith(".")
        assert not re.search(r"(milli|micro|_ms|_kb)", family.name)
        if "seconds" in family.documentation.lower() and family.type == "gauge":
            assert family.name.endswith(("_seconds", "_per_second")) or "equest" in family.documentation


def test_registering_asks_nothing(monitor):
    def fail():
        raise AssertionError("asked before the first scrape")

    prometheus_client.CollectorRegistry().register(PrometheusCollector(fail))


def test_a_registry_refuses_what_would_make_a_page_that_nobody_can_read(monitor):
    registry = prometheus_client.CollectorRegistry()
    collector = PrometheusCollector(monitor.health)
    registry.register(collector)
    for another in (collector, PrometheusCollector(monitor.health), PrometheusCollector({"b": monitor})):
        with pytest.raises(ValueError, match=r"Duplicated timeseries.*upbit_backbone_health"):
            registry.register(another)
    registry.unregister(collector)
    registry.register(PrometheusCollector(monitor.health))


def test_all_that_is_collected_is_described(monitor, make):
    collector = PrometheusCollector(monitor.health)
    assert {family.name for family in collector.collect()} <= {family.name for family in collector.describe()}


def test_several_backbones_share_a_page_by_their_names(monitor, make):
    other = HealthMonitor(HealthSources(sessions=lambda: [make.session(), make.session(session="b")]), Metrics())
    with serve_metrics({"kr": monitor, "sg": other}, 0) as server:
        text = page(server.url)
    announced = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    assert len(announced) == len(set(announced)), "every family is announced once"
    up = {
        (sample.labels["backbone"], sample.labels["session"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "upbit_backbone_session_up"
    }
    assert up == {("kr", "upbit-session-1"): 0.0, ("sg", "upbit-session-1"): 1.0, ("sg", "b"): 1.0}


def test_a_recorder_is_exported(make):
    stats = RecorderStats(path="day.rec", records=7, received_bytes=70, written_bytes=50, lost=3, error="full")
    monitor = HealthMonitor(HealthSources(recorder=lambda: stats), Metrics())
    registry = prometheus_client.CollectorRegistry()
    registry.register(PrometheusCollector(monitor.health))
    assert registry.get_sample_value("upbit_backbone_recorder_up", {"path": "day.rec"}) == 0.0
    assert registry.get_sample_value("upbit_backbone_recorder_lost_records_total", {"path": "day.rec"}) == 3.0


def test_gaps_are_exported_those_that_are_open_and_what_became_of_the_others():
    totals = (GapTotals(type="trade", filled=3, incomplete=1, recovered=70, missing_seconds=2.5),)
    stats = GapStats(open=2, late=1, parked=9, oldest=12.5, unattended=0.0, totals=totals)
    monitor = HealthMonitor(HealthSources(gaps=lambda: stats), Metrics())
    registry = prometheus_client.CollectorRegistry()
    registry.register(PrometheusCollector(monitor.health))
    shown = {
        (sample.name.removeprefix("upbit_backbone_"), sample.labels.get("type")): sample.value
        for family in registry.collect()
        for sample in family.samples
        if "gap" in sample.name
    }
    assert shown == {
        ("gaps_open", None): 2,
        ("gaps_late", None): 1,
        ("gap_parked_items", None): 9,
        ("gap_oldest_seconds", None): 12.5,
        ("gap_unattended_seconds", None): 0,
        ("gaps_filled_total", "trade"): 3,
        ("gaps_incomplete_total", "trade"): 1,
        ("gap_recovered_items_total", "trade"): 70,
        ("gap_missing_seconds_total", "trade"): 2.5,
    }


def test_a_taken_port_says_what_to_do(monitor):
    with serve_metrics(monitor, 0) as server, pytest.raises(InvalidRequestError, match="choose another port"):
        serve_metrics(monitor, server.port)


def test_a_server_that_is_closed_before_it_served_ends_at_once(monitor, monkeypatch):
    """Its thread may not have taken a first step yet."""
    started = []
    monkeypatch.setattr("upbit_backbone._concurrency._start", started.append)
    server = serve_metrics(monitor, 0)
    closer = threading.Thread(target=server.close, daemon=True)
    closer.start()
    closer.join(PATIENCE_SECONDS)
    assert not closer.is_alive()
    assert len(started) == 1


def test_the_dashboard_asks_only_for_what_is_exported(monitor):
    dashboard = json.loads((Path(__file__).parents[2] / "examples" / "grafana-dashboard.json").read_text("utf-8"))
    exported = set()
    for family in PrometheusCollector(monitor.health).collect():
        exported |= {family.name, f"{family.name}_total"}
    asked = set()
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            asked |= set(re.findall(r"upbit_backbone_\w+", target["expr"]))
    assert len(asked) > 20
    assert asked - exported <= {"upbit_backbone_clock_offset_seconds", "upbit_backbone_cache_requests_total"}
