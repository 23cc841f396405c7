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

from benchmarks.children import Child, ChildError, MissingError
from benchmarks.measuring import percentile, resident_mib
from benchmarks.options import Options
from benchmarks.servers import upbit
from benchmarks.table import Figure, absent
from upbit_backbone import CandleData, DataSource, MarketDataBackbone
from upbit_backbone.simulator import FakeUpbit

TITLE = "the chart viewer, every pane in sight (offscreen)"
FOLDER = Path(__file__).parents[1] / "examples" / "chart_viewer"
BUSY_RATE, USUAL_RATE, LONG_RATE = 5000.0, 500.0, 200.0
BEAT_MILLISECONDS = 16
START_SECONDS = 15.0
MANY_CANDLES = 50_000
SAMPLES, FLAT_MIB = 9, 3.0
REPAINTS = 100
OURS, THEIRS = "upbit_backbone", "QThread + pyupbit"
SETTLE_SECONDS = 2.0  # until the stream is at its rate


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
        ours = _painting() + _viewer(application, fake, settings, options)
        return ours + (_rival(fake, options) if options.rivals else [])


def _viewer(application: Any, fake: FakeUpbit, settings: Any, options: Options) -> list[Figure]:
    from main_window import MainWindow

    begun = time.perf_counter()
    with MarketDataBackbone(url=fake.url) as market:
        window = MainWindow(market, settings)
        window.show()
        run_until(application, lambda: bool(window.chart.candles.rows))
        first = time.perf_counter() - begun
        run_until(application, lambda: window.watch_list.rowCount() > 100)
        figures = [Figure("start to first chart", OURS, first, "s", target=1.0)]
        for rate, seconds in ((USUAL_RATE, options.seconds * 2), (BUSY_RATE, options.seconds * 2)):
            fake.load(rate)
            figures += _watched(application, window, rate, seconds)
        if options.minutes:
            fake.load(LONG_RATE)
            figures.append(_memory(application, options.minutes))
        fake.load(0)
        window.close()
    return figures


class Beats:
    """When a timer of the GUI thread fired; what lies between is how long the window stood still."""

    def __init__(self) -> None:
        self._times = [time.perf_counter()]

    def beat(self) -> None:
        self._times.append(time.perf_counter())

    def pauses(self) -> list[float]:
        """In milliseconds, the one that has not ended among them."""
        times = [*self._times, time.perf_counter()]
        return [(later - earlier) * 1000 for earlier, later in itertools.pairwise(times)]

    def seconds(self) -> float:
        return time.perf_counter() - self._times[0]


def _watched(application: Any, window: Any, rate: float, seconds: float) -> list[Figure]:
    from qtpy.QtCore import Qt, QTimer

    run_for(application, SETTLE_SECONDS)
    beats = Beats()
    timer = QTimer(window, interval=BEAT_MILLISECONDS, timerType=Qt.TimerType.PreciseTimer)
    timer.timeout.connect(beats.beat)
    timer.start()
    items = [0]

    def count(several: list[Any]) -> None:
        items[0] += len(several)

    window.bridge.received_many.connect(count)
    cpu, memory = time.process_time(), resident_mib()
    run_for(application, seconds)
    cpu, memory = (time.process_time() - cpu) / seconds * 100, resident_mib() - memory
    pauses = beats.pauses()
    timer.stop()
    window.bridge.received_many.disconnect(count)
    return [
        *_beats(OURS, rate, pauses, items[0] / seconds, cpu),
        Figure(f"{rate:,.0f} messages/s, memory gained in {seconds:.0f} s", OURS, memory, "MiB"),
    ]


def _beats(who: str, rate: float, pauses: list[float], items: float, cpu: float) -> list[Figure]:
    case, is_ours = f"{rate:,.0f} messages/s", who == OURS
    note = f"{items:,.0f} items/s reached the window"
    p99, longest, most = (33.0, 50.0, 25.0 if rate == USUAL_RATE else None) if is_ours else (None, None, None)
    return [
        Figure(f"{case}, 16 ms heartbeat, p99", who, percentile(pauses, 0.99), "ms", target=p99, note=note),
        Figure(f"{case}, longest frame", who, max(pauses), "ms", target=longest),
        Figure(f"{case}, CPU of the process", who, cpu, "%", target=most),
    ]


def _rival(fake: FakeUpbit, options: Options) -> list[Figure]:
    """The same with QThread and pyupbit, in a process of its own before the same server."""
    codes = ",".join(code for code in fake.markets() if code.startswith("KRW-"))
    figures: list[Figure] = []
    try:
        with Child("benchmarks.viewer_rival", fake.rest_url, fake.websocket_url, codes, quiet=True) as child:
            figures.append(Figure("start to first chart", THEIRS, child.hello["first"], "s"))
            for rate in (USUAL_RATE, BUSY_RATE):
                fake.load(rate)
                child.ask(str(SETTLE_SECONDS))
                seen = child.ask(str(options.seconds * 2))
                figures += _beats(THEIRS, rate, seen["pauses"], seen["items"], seen["cpu"])
    except MissingError:
        return [absent("the same viewer", THEIRS, "ms")]
    except ChildError:
        figures.append(absent("the same viewer", THEIRS, "ms", "its window stood still and was ended"))
    finally:
        fake.load(0)
    return figures


def _memory(application: Any, minutes: float) -> Figure:
    """What the process gains while the viewer is left to itself; the first tenth, in which caches fill, apart."""
    run_for(application, minutes * 6)
    samples = [resident_mib()]
    for _ in range(SAMPLES):
        run_for(application, minutes * 54 / SAMPLES)
        samples.append(resident_mib())
    shown = ", ".join(f"{sample:.1f}" for sample in samples)
    case = f"{LONG_RATE:,.0f} messages/s for {minutes:g} minutes, memory gained after the first tenth"
    return Figure(
        case, OURS, samples[-1] - samples[0], "MiB", target=FLAT_MIB, note=f"MiB, one after the other: {shown}"
    )


def _painting() -> list[Figure]:
    """An update of the last bar and the repaint that follows, with 500 candles in sight."""
    import pyqtgraph
    from qtpy.QtWidgets import QApplication

    from upbit_backbone.qt.chart_items import CandleItem, LastPriceLine, PriceAxis, time_axis

    prices = PriceAxis()
    plot = pyqtgraph.PlotWidget(axisItems={"bottom": time_axis(), "left": prices})
    plot.resize(1000, 700)
    candles = CandleItem()
    line = LastPriceLine(candles, prices)
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


def run_until(application: Any, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        application.processEvents()
        if time.monotonic() > deadline:
            raise RuntimeError("the viewer never showed anything")


def run_for(application: Any, seconds: float) -> None:
    from qtpy.QtCore import QEventLoop, QTimer

    loop = QEventLoop(application)
    QTimer.singleShot(int(seconds * 1000), loop.quit)  # the application's own quit would close the window
    loop.exec()
