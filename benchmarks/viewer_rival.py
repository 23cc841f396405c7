"""The chart viewer as it is written with pyupbit: a QThread for each subscription, a signal for each message.

`python -m benchmarks.viewer_rival REST_URL WEBSOCKET_URL CODES`, CODES with commas between; a child of `chart_viewer`,
which sends "SECONDS" for each measurement. It has the panes that pyupbit's users build: every market in a table, the
order book of one, its trades, its candles with the item that pyqtgraph's own example draws them with. What the viewer
of the examples has besides (averages, RSI, volume, search, what is stale) it does without.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

from benchmarks.chart_viewer import BEAT_MILLISECONDS, Beats, run_for, run_until
from benchmarks.children import say, told
from benchmarks.measuring import cpu_seconds

try:
    import pyqtgraph as pg
    import pyupbit
    from pyupbit import websocket_api
    from qtpy.QtCore import QPointF, QRectF, QThread, QTimer, Signal
    from qtpy.QtGui import QPainter, QPicture
    from qtpy.QtWidgets import QApplication, QHBoxLayout, QTableWidget, QTableWidgetItem, QVBoxLayout, QWidget

    from benchmarks.pyupbit_here import pyupbit_at
except ImportError as missing:
    say(missing=str(missing))
    sys.exit(1)

LEVELS, TRADES, CANDLES = 15, 300, 500
SHOWN = "KRW-BTC"
HANGS_SECONDS = 10.0  # a window that stands still for longer than this beyond its time is measured as it stands


class Feed(QThread):  # type: ignore[misc]
    received = Signal(dict)

    def __init__(self, kind: str, codes: list[str]) -> None:
        super().__init__()
        self.manager = pyupbit.WebSocketManager(kind, codes)

    def run(self) -> None:
        while True:
            item = self.manager.get()
            if isinstance(item, dict):
                self.received.emit(item)


class Past(QThread):  # type: ignore[misc]
    loaded = Signal(object)

    def run(self) -> None:
        self.loaded.emit(pyupbit.get_ohlcv(SHOWN, "minute1", CANDLES))


class Candles(pg.GraphicsObject):  # type: ignore[misc]
    """pyqtgraph's example: one picture of all candles, drawn anew with each change."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[float]] = []
        self.picture = QPicture()

    def draw(self) -> None:
        self.picture = QPicture()
        painter = QPainter(self.picture)
        for place, (opened, high, low, closed) in enumerate(self.rows):
            painter.setPen(pg.mkPen("r" if closed >= opened else "b"))
            painter.setBrush(pg.mkBrush("r" if closed >= opened else "b"))
            painter.drawLine(QPointF(place, low), QPointF(place, high))
            painter.drawRect(QRectF(place - 0.4, opened, 0.8, closed - opened))
        painter.end()
        self.informViewBoundsChanged()
        self.update()

    def paint(self, painter: Any, *_: Any) -> None:
        painter.drawPicture(0, 0, self.picture)

    def boundingRect(self) -> Any:  # noqa: N802  # Qt's name
        return QRectF(self.picture.boundingRect())


class Window(QWidget):  # type: ignore[misc]
    def __init__(self, codes: list[str]) -> None:
        super().__init__()
        self.items = 0
        self.watch, self.book = QTableWidget(len(codes), 4), QTableWidget(2 * LEVELS, 2)
        self.trades, self.candles = QTableWidget(0, 3), Candles()
        chart = pg.PlotWidget()
        chart.addItem(self.candles)
        self.rows = {code: row for row, code in enumerate(codes)}
        right, layout = QVBoxLayout(), QHBoxLayout(self)
        right.addWidget(self.book)
        right.addWidget(self.trades)
        layout.addWidget(self.watch)
        layout.addWidget(chart, 1)
        layout.addLayout(right)
        self.resize(1680, 940)
        self.past = Past()
        self.past.loaded.connect(self.show_past)
        self.past.start()
        kinds = (("ticker", codes, self.ticker), ("orderbook", [SHOWN], self.level), ("trade", [SHOWN], self.trade))
        self.feeds = [Feed(kind, chosen) for kind, chosen, _ in kinds]
        for feed, (_, _, slot) in zip(self.feeds, kinds, strict=True):
            feed.received.connect(slot)
            feed.start()

    def show_past(self, frame: Any) -> None:
        self.candles.rows = frame[["open", "high", "low", "close"]].to_numpy().tolist()
        self.candles.draw()

    def put(self, table: Any, row: int, *texts: str) -> None:
        for column, text in enumerate(texts):
            table.setItem(row, column, QTableWidgetItem(text))

    def ticker(self, item: dict[str, Any]) -> None:
        self.items += 1
        code, price = item["code"], item["trade_price"]
        change, turnover = item["signed_change_rate"] * 100, item["acc_trade_price_24h"]
        self.put(self.watch, self.rows[code], code, f"{price:,}", f"{change:+.2f} %", f"{turnover:,.0f}")
        if code == SHOWN and self.candles.rows:
            last = self.candles.rows[-1]
            last[1:] = max(last[1], price), min(last[2], price), price
            self.candles.draw()

    def level(self, item: dict[str, Any]) -> None:
        self.items += 1
        for place, unit in enumerate(item["orderbook_units"][:LEVELS]):
            self.put(self.book, LEVELS - 1 - place, f"{unit['ask_price']:,}", f"{unit['ask_size']}")
            self.put(self.book, LEVELS + place, f"{unit['bid_price']:,}", f"{unit['bid_size']}")

    def trade(self, item: dict[str, Any]) -> None:
        self.items += 1
        self.trades.insertRow(0)
        self.put(self.trades, 0, item["trade_time"], f"{item['trade_price']:,}", f"{item['trade_volume']}")
        self.trades.setRowCount(min(self.trades.rowCount(), TRADES))


def end(window: Window) -> None:
    """Its processes, and then itself: its threads wait in `get()` for ever."""
    for feed in window.feeds:
        feed.manager.terminate()
    os._exit(0)


def measure(application: Any, window: Window, seconds: float) -> None:
    beats, before, cpu = Beats(), window.items, cpu_seconds(os.getpid())

    def answer() -> None:
        spent = beats.seconds()
        used = (cpu_seconds(os.getpid()) - cpu) / spent * 100
        say(pauses=beats.pauses(), cpu=used, items=(window.items - before) / spent)

    # A signal for each message comes before every timer: where they come faster than they are shown, the loop ends no
    # more, and neither would this.
    hangs = threading.Timer(seconds + HANGS_SECONDS, lambda: (answer(), end(window)))
    hangs.start()
    timer = QTimer(interval=BEAT_MILLISECONDS)
    timer.timeout.connect(beats.beat)
    timer.start()
    run_for(application, seconds)
    timer.stop()
    hangs.cancel()
    answer()


def main() -> None:
    rest_url, websocket_url, codes = sys.argv[1:]
    pyupbit_at(rest_url)
    connect = websocket_api.websockets.connect  # its address is fixed in its source
    websocket_api.websockets.connect = lambda _uri, **options: connect(websocket_url, **options)
    application = QApplication([])
    begun = time.perf_counter()
    window = Window(codes.split(","))
    window.show()
    run_until(application, lambda: bool(window.candles.rows))
    say(first=time.perf_counter() - begun)
    for line in told():
        measure(application, window, float(line))
    end(window)


if __name__ == "__main__":
    main()
