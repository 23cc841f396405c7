"""A forced outage shows everywhere at once: in events, in health, on the Prometheus page and in a few log lines."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

import pytest

from tests.support.waiting import promised, wait_until
from upbit_backbone import DataType, MarketDataBackbone
from upbit_backbone.models.enums import HealthStatus
from upbit_backbone.models.events import ConnectionEvent, HealthEvent
from upbit_backbone.simulator import FakeUpbit

prometheus_client = pytest.importorskip("prometheus_client")


@pytest.fixture
def upbit():
    with FakeUpbit(seed=2, markets=["KRW-BTC", "KRW-ETH"], trades_per_second=50.0) as upbit:
        yield upbit


def test_an_outage_shows_everywhere_within_a_second(upbit, caplog):
    events: queue.Queue = queue.Queue()
    caplog.set_level(logging.INFO, logger="upbit_backbone")
    with MarketDataBackbone(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url) as market:
        alerts: queue.Queue = queue.Queue()
        market.alert(alerts.put)
        market.on_event(events.put)
        registry = prometheus_client.CollectorRegistry()
        registry.register(market.prometheus_collector())
        with market.subscribe(["KRW-BTC", "KRW-ETH"], [DataType.TICKER, DataType.TRADE]) as stream:
            stream.get(timeout=10.0)
            wait_until(lambda: market.health().status is HealthStatus.HEALTHY, "good health")
            caplog.clear()
            upbit.refuse(4.0)
            noticed = wait_for(events, lambda e: isinstance(e, ConnectionEvent) and e.is_interruption)
            detected_at = time.monotonic()
            changed = wait_for(events, lambda e: isinstance(e, HealthEvent) and e.old is HealthStatus.HEALTHY)
            assert changed.new is not HealthStatus.HEALTHY
            assert "is waiting" in changed.reasons[0] or "is connecting" in changed.reasons[0]
            assert market.health().status is changed.new
            assert 'upbit_backbone_session_up{session="' + noticed.session + '"} 0.0' in page(registry)
            assert 'upbit_backbone_health_status{status="healthy"} 0.0' in page(registry)
            assert alerts.get(timeout=1.0).rule == "health"
            assert any("interrupted" in line for line in lines(caplog))
            assert time.monotonic() - detected_at < promised(1.0)
            back = wait_for(events, lambda e: isinstance(e, ConnectionEvent) and e.is_recovery, 15.0)
            assert back.downtime > 3.0
            wait_for(events, lambda e: isinstance(e, HealthEvent) and e.new is HealthStatus.HEALTHY, 15.0)
        assert 1 <= len(lines(caplog)) <= 10, lines(caplog)
        assert all("\n" not in line for line in lines(caplog))


def test_without_listeners_nothing_runs_in_the_background(upbit):
    with MarketDataBackbone(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url) as market:
        market.get_ticker("KRW-BTC")
        market.health()
        market.performance()
        assert "upbit-health" not in {thread.name for thread in threading.enumerate()}


def test_the_report_tells_how_answers_came(upbit):
    with MarketDataBackbone(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url) as market:
        with market.subscribe("KRW-BTC", DataType.TICKER) as stream:
            stream.get(timeout=10.0)
            for _ in range(100):
                market.get_ticker("KRW-BTC")
        market.get_trades("KRW-BTC", count=5)
        report = market.performance()
        assert report.live_answers >= 99
        assert {"rest:trade", "rest:market"} <= {metric.name for metric in report.groups}
        health = market.health()
        assert {group.group for group in health.groups if group.requests} >= {"trade", "market"}
        assert health.to_dict()["status"] == "healthy"
        assert "HEALTHY" in str(health)
        assert type(health).from_json(health.to_json()).status is HealthStatus.HEALTHY


def wait_for(events: queue.Queue, wanted: Callable[[object], bool], seconds: float = 10.0):
    end = time.monotonic() + seconds
    while True:
        event = events.get(timeout=max(0.01, end - time.monotonic()))
        if wanted(event):
            return event


def page(registry) -> str:
    return prometheus_client.generate_latest(registry).decode()


def lines(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("upbit_backbone")]
