"""A consumer that never reads: after its bound is reached, memory must not grow, however much is said to it.

The frames are handed to the intake without a socket, as fast as they are taken, so that ten million of them fit into
a few minutes: `python -m benchmarks stuck_consumer --seconds 40`.
"""

from __future__ import annotations

import time

from benchmarks.measuring import resident_mib
from benchmarks.options import Options
from benchmarks.table import Figure
from upbit_backbone.backfill.gap_repair import GapRepair
from upbit_backbone.config import BackboneConfig
from upbit_backbone.delivery.event_bus import EventBus
from upbit_backbone.delivery.hub import Hub
from upbit_backbone.intake import Intake
from upbit_backbone.models.enums import DataType
from upbit_backbone.models.request import SubscriptionRequest, Topic
from upbit_backbone.models.session import SessionHealth
from upbit_backbone.store.live_store import LiveStore

TITLE = "a consumer that never reads"
MESSAGES_PER_SECOND_ASKED = 250_000
FRAMES_PER_READ = 100
GROWN_MIB = 64.0
LATER_MIB_A_MILLION = 1.0
TOPIC = Topic(DataType.TRADE, "KRW-BTC")
FRAME = (
    b'{"ty":"trade","cd":"KRW-BTC","tp":100473000.0,"tv":0.00014208,"ab":"BID","pcp":100571000.0,"c":"FALL",'
    b'"cp":98000.0,"td":"2026-10-31","ttm":"01:07:42","ttms":%d,"tms":%d,"sid":%d,"bap":100473000,"bas":0.43139478,'
    b'"bbp":100465000,"bbs":0.01990656,"st":"REALTIME"}'
)


def run(options: Options) -> list[Figure]:
    queue_size = BackboneConfig().queue_size
    messages = max(int(MESSAGES_PER_SECOND_ASKED * options.seconds), 20 * queue_size)
    hub = Hub(EventBus(), queue_size=queue_size)
    intake = Intake(LiveStore(60.0), hub, repair=_repair(hub))
    stuck = hub.subscribe([SubscriptionRequest(TOPIC)])
    pulse = SessionHealth("session-1")
    pulse.connected, pulse.epoch = True, 1
    intake.subscribed(pulse, 1, frozenset({TOPIC}))
    taken, began = 0, time.monotonic()
    levels: list[float] = []
    for until in (FRAMES_PER_READ, messages // 2, messages):
        while taken < until:
            intake.frames(pulse, 1, _frames(taken), time.monotonic())
            taken += FRAMES_PER_READ
        levels.append(resident_mib())
    spent = time.monotonic() - began
    counted = stuck.stats
    base, half, end = levels
    later = (end - half) / (messages / 2) * 1e6
    return [
        Figure("memory grown in all", "upbit_backbone", end - base, "MiB", target=GROWN_MIB,
               note=f"{taken:,} messages; {counted.dropped:,} dropped, {counted.pending:,} wait"),
        Figure("by a million messages, second half", "upbit_backbone", later, "MiB", target=LATER_MIB_A_MILLION),
        Figure("a message", "upbit_backbone", spent / taken * 1e6, "µs", note="making its bytes included"),
    ]  # fmt: skip


def _repair(hub: Hub) -> GapRepair:
    return GapRepair(
        trades_page=lambda symbol, **_: [],
        candles_page=lambda symbol, timeframe, **_: [],
        publish=hub.publish,
        emit=lambda event: None,
        run_job=lambda job: None,
        wanted=hub.is_wanted,
    )


def _frames(first: int) -> list[bytes]:
    """Ten trades a millisecond, numbered on."""
    now = int(time.time() * 1000)
    return [FRAME % (now, now, 17_000_000_000_000_000 + number) for number in range(first, first + FRAMES_PER_READ)]
