"""The chart viewer of the examples without a screen: does it stutter, and what does it cost?"""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import sin
from pathlib import Path
from typing import Any

from benchmarks.measuring import percentile, resident_mib
from benchmarks.options import Options
from benchmarks.servers import upbit
from benchmarks.table import Figure, absent
from upbit_backbone import CandleData, DataSource, MarketDataBackbone
from upbit_backbone.simulator import FakeUpbit

TITLE = "the chart viewer, every pane in sight (offscreen)"
FOLDER = Path(__file__).parents[1] / "examples" / "chart_viewer"
BUSY_RATE, USUAL_RATE = 5000.0, 500.0
BEAT_MILLISECONDS = 16
START_SECONDS = 15.0
MANY_CANDLES = 50_000
REPAINTS = 100
OURS = "upbit_backbone"


def run(options: Options) -> list[Figure]:
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    sys.path.insert(0, str(FOLDER))
    try:
        import pyqtgraph  # noqa: F401
        from qtpy.QtCore import QSettings
        from qtpy.QtWidgets import QApplication
    except ImportError:
        return [absent(TITLE, OURS, "ms")]
    application = QApplication.instance() or QApplication([])
    with upbit() as fake, tempfile.TemporaryDirectory() as folder:
        settings = QSettings(str(Path(folder) / "viewer.ini"), QSettings.Format.IniFormat)
        return _painting() + _viewer(application, fake, settings, options)


def _viewer(application: Any, fake: FakeUpbit, settings: Any, options: Options) -> list[Figure]:
    from main_window import MainWindow

    begun = time.perf_counter()
    with MarketDataBackbone(url=fake.url) as market:
        window = MainWindow(market, settings)
        window.show()
        _run_until(application, lambda: bool(window.chart.candles.rows))
        first = time.perf_counter() - begun
        _run_until(application, lambda: window.watch_list.rowCount() > 100)
        figures = [Figure("start to first chart", OURS, first, "s", target=1.0)]
        for rate, seconds in ((USUAL_RATE, options.seconds * 2), (BUSY_RATE, options.seconds * 2)):
            fake.load(rate)
            figures += _watched(application, window, rate, seconds)
        fake.load(0)
        window.close()
    return figures


def _watched(application: Any, window: Any, rate: float, seconds: float) -> list[Figure]:
    from qtpy.QtCore import Qt, QTimer

    _run_for(application, 2.0)  # until the stream is at that rate
    beats: list[float] = []
    timer = QTimer(window, interval=BEAT_MILLISECONDS, timerType=Qt.TimerType.PreciseTimer)
    timer.timeout.connect(lambda: beats.append(time.perf_counter()))
    timer.start()
    items = [0]

    def count(several: list[Any]) -> None:
        items[0] += len(several)

    window.bridge.received_many.connect(count)
    cpu, memory = time.process_time(), resident_mib()
    _run_for(application, seconds)
    cpu, memory = (time.process_time() - cpu) / seconds * 100, resident_mib() - memory
    timer.stop()
    window.bridge.received_many.disconnect(count)
    pauses = [(later - earlier) * 1000 for earlier, later in itertools.pairwise(beats)]
    case, is_busy = f"{rate:,.0f} messages/s", rate == BUSY_RATE
    note = f"{items[0] / seconds:,.0f} items/s reached the window"
    return [
        Figure(f"{case}, 16 ms heartbeat, p99", OURS, percentile(pauses, 0.99), "ms", target=33.0, note=note),
        Figure(f"{case}, longest frame", OURS, max(pauses), "ms", target=50.0),
        Figure(f"{case}, CPU of the process", OURS, cpu, "%", target=None if is_busy else 25.0),
        Figure(f"{case}, memory gained in {seconds:.0f} s", OURS, memory, "MiB"),
    ]


def _painting() -> list[Figure]:
    """An update of the last bar and the repaint that follows, with 500 candles in sight."""
    import pyqtgraph
    from qtpy.QtWidgets import QApplication

    from upbit_backbone.qt.chart_items import CandleItem, LastPriceLine, time_axis

    plot = pyqtgraph.PlotWidget(axisItems={"bottom": time_axis()})
    plot.resize(1000, 700)
    candles = CandleItem()
    line = LastPriceLine(candles)
    plot.addItem(candles)
    plot.addItem(line)
    rows = [_candle(minute) for minute in range(MANY_CANDLES)]
    candles.take(rows, is_whole=True)
    last = rows[-1].timestamp.timestamp()
    plot.setXRange(last - 500 * 60, last, padding=0)
    plot.show()
    QApplication.processEvents()
    spent = []
    for step in range(REPAINTS):
        moved = dataclasses.replace(rows[-1], close_price=rows[-1].close_price + step % 3)
        before = time.thread_time()
        candles.take([moved])
        line.refresh()
        QApplication.processEvents()
        spent.append((time.thread_time() - before) * 1000)
    plot.close()
    case = f"last of {MANY_CANDLES:,} candles updated and painted, CPU"
    return [Figure(case, OURS, percentile(spent, 0.5), "ms", target=3.0)]


def _candle(minute: int) -> CandleData:
    # Waves with a zigzag on them: candles as high as those of a market, a tenth of what is in sight.
    opened, closed = (Decimal(1000 + int(300 * sin(each / 150)) + each * 7919 % 23) for each in (minute, minute + 1))
    start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
    high, low = max(opened, closed) + 5, min(opened, closed) - 5
    return CandleData("KRW-BTC", "1m", opened, high, low, closed, Decimal(minute % 9), start, DataSource.REST)


def _run_until(application: Any, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        application.processEvents()
        if time.monotonic() > deadline:
            raise RuntimeError("the viewer never showed anything")


def _run_for(application: Any, seconds: float) -> None:
    from qtpy.QtCore import QEventLoop, QTimer

    loop = QEventLoop(application)
    QTimer.singleShot(int(seconds * 1000), loop.quit)  # the application's own quit would close the window
    loop.exec()
