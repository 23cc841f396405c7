"""Rows K1, K2: a wrong clock frightens nobody, and old data never pass for new."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.chaos.watched import PAUSE, Watched, within
from upbit_backbone import DataSource, MarketDataBackbone
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
    within(lambda: seen.market.explain("ticker", "KRW-BTC").rule == "live", "the ticker to be live")
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
    within(lambda: seen.market.explain("ticker", "KRW-BTC").rule == "live", "the ticker to be live")
    server.stale_timestamps(60_000)
    seen.market.get_ticker("KRW-BTC")
    server.drop_sessions("fin")
    within(lambda: seen.reconnects == 1, "the reconnection")
    for _ in range(60):
        answer = seen.market.get_ticker("KRW-BTC")
        age = server.now_ms() / 1000 - answer.timestamp.timestamp()
        assert age < 3.0, (age, answer)
        PAUSE.wait(0.01)
    server.stale_timestamps(0)
    within(lambda: seen.market.explain("ticker", "KRW-BTC").rule == "live", "the ticker to be believed again")
