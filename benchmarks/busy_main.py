"""A CPU-bound main thread, and a Qt loop that must not stutter. Runs for 5 × --seconds each."""

from __future__ import annotations

import itertools
import os
import time
from typing import Any

from benchmarks.latency import measure
from benchmarks.measuring import percentile
from benchmarks.options import Options
from benchmarks.servers import Stream, paced, some_markets
from benchmarks.table import HANDED, LIMIT, Figure, absent
from upbit_backbone import DataType, MarketDataBackbone, TradeData
from upbit_backbone.models.events import ConnectionEvent, Event

TITLE = "busy main thread (1,000/s) and Qt loop (5,000/s)"
TIMES_SECONDS = 5
BUSY_RATE, QT_RATE = 1000.0, 5000.0
BUSY_P99_MILLISECONDS, HEARTBEAT_P99_MILLISECONDS = 15.0, 50.0
BEAT_MILLISECONDS = 16
START_SECONDS = 15.0


def run(options: Options) -> list[Figure]:
    seconds = options.seconds * (1 if options.quick else TIMES_SECONDS)
    with paced() as stream:
        return _busy(stream, seconds) + _qt(stream, seconds)


def _busy(stream: Stream, seconds: float) -> list[Figure]:
    late: list[float] = []
    breaks: list[Event] = []

    def note(trade: TradeData) -> None:
        late.append((time.time_ns() // 1000 - (trade.sequential_id or 0)) / 1000)

    def watch(event: Event) -> None:
        if isinstance(event, ConnectionEvent) and event.is_interruption:
            breaks.append(event)

    with MarketDataBackbone(rest_url=stream.rest_url, websocket_url=stream.websocket_url, on_event=watch) as market:
        market.subscribe_realtime(list(some_markets(stream.fake)), [DataType.TRADE], callback=note)
        _await_pieces(stream)
        stream.rate(BUSY_RATE)
        time.sleep(1.0)
        late.clear()
        sent = stream.counters()["sent"]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sum(number * number for number in range(1000))
        seen = list(late)
        sent = stream.counters()["sent"] - sent
        stream.rate(0)
    case = "main thread computes"
    hand, handed = (
        measure(stream, "by_hand", BUSY_RATE, seconds / TIMES_SECONDS, mode=mode, busy=True)
        for mode in ("queue", "handed")
    )
    return [
        Figure(f"{case}, p50", "upbit_backbone", percentile(seen, 0.5), "ms", note=f"for {seconds:.0f} s"),
        Figure(f"{case}, p50", LIMIT, hand.get("p50"), "ms"),
        Figure(f"{case}, p50", HANDED, handed.get("p50"), "ms"),
        Figure(f"{case}, p99", "upbit_backbone", percentile(seen, 0.99), "ms", target=BUSY_P99_MILLISECONDS,
               note=f"{len(seen):,} of {sent:,} seen"),
        Figure(f"{case}, p99", LIMIT, hand.get("p99"), "ms"),
        Figure(f"{case}, p99", HANDED, handed.get("p99"), "ms"),
        Figure(f"{case}, false reconnects", "upbit_backbone", float(len(breaks)), "", target=0),
    ]  # fmt: skip


def _qt(stream: Stream, seconds: float) -> list[Figure]:
    case = f"Qt loop for {seconds:.0f} s, 16 ms heartbeat"
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    try:
        from qtpy.QtCore import QCoreApplication, Qt, QTimer

        from upbit_backbone.qt import QtBridge
    except ImportError:
        return [absent(case, "upbit_backbone", "ms")]
    application = QCoreApplication.instance() or QCoreApplication([])
    beats: list[float] = []
    received: list[int] = [0]

    def count(_: Any) -> None:
        received[0] += 1

    with MarketDataBackbone(rest_url=stream.rest_url, websocket_url=stream.websocket_url) as market:
        bridge = QtBridge(market.subscribe(list(some_markets(stream.fake)), DataType.TICKER))
        bridge.received.connect(count)
        _await_pieces(stream)
        stream.rate(QT_RATE)
        timer = QTimer()
        timer.setTimerType(Qt.TimerType.PreciseTimer)
        timer.setInterval(BEAT_MILLISECONDS)
        timer.timeout.connect(lambda: beats.append(time.perf_counter()))
        timer.start()
        QTimer.singleShot(int(seconds * 1000), application.quit)
        application.exec()
        timer.stop()
        stream.rate(0)
        bridge.close()
    pauses = [(later - earlier) * 1000 for earlier, later in itertools.pairwise(beats)]
    return [
        Figure(f"{case}, p50", "upbit_backbone", percentile(pauses, 0.5), "ms"),
        Figure(f"{case}, p99", "upbit_backbone", percentile(pauses, 0.99), "ms", target=HEARTBEAT_P99_MILLISECONDS,
               note=f"{received[0] / seconds:,.0f} signals/s of {QT_RATE:,.0f} messages/s"),
        Figure(f"{case}, longest", "upbit_backbone", max(pauses, default=float("nan")), "ms"),
    ]  # fmt: skip


def _await_pieces(stream: Stream) -> None:
    deadline = time.monotonic() + START_SECONDS
    while stream.counters()["pieces"] < len(some_markets(stream.fake)):
        if time.monotonic() > deadline:
            raise RuntimeError("never subscribed")
        time.sleep(0.1)
