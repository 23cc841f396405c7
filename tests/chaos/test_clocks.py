"""Clocks: a wrong clock frightens nobody, and old data never pass for new."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.chaos.watched import Watched
from tests.support.waiting import PAUSE, wait_until
from upbit_backbone import DataSource, MarketDataBackbone
from upbit_backbone._concurrency import SystemClock
from upbit_backbone.models.events import StaleEvent
from upbit_backbone.simulator import FakeUpbit

MakeUpbit = Callable[..., FakeUpbit]
Backbone = Callable[..., MarketDataBackbone]
HOUR = 3600.0


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_is_wrong_from_the_start_matters_to_nobody(
    own_upbit: MakeUpbit, backbone: Backbone, hours: int
) -> None:
    server = own_upbit(seed=51, trades_per_second=40.0)
    server.advance_clock(hours * HOUR)
    seen = Watched(backbone(server, stall_probe_seconds=0.4, liveness_seconds=1.0, ping_interval_seconds=0.3), server,
                   ["KRW-BTC"], ["trade", "ticker"])  # fmt: skip
    wait_until(lambda: seen.market.explain("ticker", "KRW-BTC").rule == "live", "the ticker to be live")
    PAUSE.wait(1.5)
    answer = seen.market.get_ticker("KRW-BTC")
    assert answer.source is DataSource.WEBSOCKET
    assert abs(answer.timestamp.timestamp() - server.now_ms() / 1000) < 3.0
    assert seen.is_whole()
    assert (seen.breaks, seen.of(StaleEvent), seen.malformed) == ([], [], 0)


@pytest.mark.parametrize("seconds", [HOUR, 2.0])
def test_a_clock_that_jumps_under_way_costs_nothing(own_upbit: MakeUpbit, backbone: Backbone, seconds: float) -> None:
    server = own_upbit(seed=52, trades_per_second=40.0)
    seen = Watched(backbone(server), server, ["KRW-BTC"], ["trade", "ticker"])
    PAUSE.wait(0.3)
    server.advance_clock(seconds)
    before = len(seen.items)
    seen.flows(more=10)
    assert len(seen.items) > before
    assert seen.is_whole()
    assert (seen.breaks, seen.of(StaleEvent), seen.malformed) == ([], [], 0)


def test_old_times_after_a_reconnection_are_never_called_live(own_upbit: MakeUpbit, backbone: Backbone) -> None:
    server = own_upbit(seed=53, trades_per_second=40.0, snapshot_label="REALTIME")
    seen = Watched(backbone(server), server, ["KRW-BTC", "KRW-ETH"], ["ticker"])
    wait_until(lambda: seen.market.explain("ticker", "KRW-BTC").rule == "live", "the ticker to be live")
    server.stale_timestamps(60_000)
    seen.market.get_ticker("KRW-BTC")
    server.drop_sessions("fin")
    wait_until(lambda: seen.reconnects == 1, "the reconnection")
    for _ in range(60):
        answer = seen.market.get_ticker("KRW-BTC")
        age = server.now_ms() / 1000 - answer.timestamp.timestamp()
        assert age < 3.0, (age, answer)
        PAUSE.wait(0.01)
    server.stale_timestamps(0)
    wait_until(lambda: seen.market.explain("ticker", "KRW-BTC").rule == "live", "the ticker to be believed again")


def test_a_laptop_that_slept_for_an_hour_serves_nothing_from_before(
    own_upbit: MakeUpbit, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monotonic clock (on Linux) stands still meanwhile, so that every age looks young."""
    asleep = timedelta()
    wall = SystemClock.wall
    monkeypatch.setattr(SystemClock, "wall", staticmethod(lambda: wall() + asleep))
    monkeypatch.setattr(SystemClock, "wall_seconds", staticmethod(lambda: (wall() + asleep).timestamp()))
    server = own_upbit(seed=54, trades_per_second=40.0)
    seen = Watched(backbone(server), server, ["KRW-BTC"], ["trade", "ticker"])
    wait_until(lambda: seen.market.explain("ticker", "KRW-BTC").rule == "live", "the ticker to be live")
    seen.market.get_orderbook("KRW-ETH")
    server.freeze(new_connections=False)  # what was alive before the sleep is dead after it
    asked = len(server.requests())
    asleep = timedelta(hours=1)
    server.advance_clock(HOUR)
    woke = server.now_ms() / 1000
    ticker, book = seen.market.get_ticker("KRW-BTC"), seen.market.get_orderbook("KRW-ETH", max_age=60.0)
    assert ticker.timestamp.timestamp() > woke - 3.0, "a price from before the sleep"
    assert book.received_at >= seen.market.get_orderbook("KRW-ETH", max_age=0).received_at - timedelta(seconds=30)
    assert len(server.requests()) > asked + 1
    wait_until(lambda: "the machine slept" in seen.reasons(), seen.reasons)
    wait_until(lambda: seen.reconnects == 1, seen.reasons)
    wait_until(lambda: seen.market.explain("ticker", "KRW-BTC").rule == "live", "the ticker to be live again")
    assert seen.is_whole()
