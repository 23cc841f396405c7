"""The chart: candles with moving averages, volume and RSI; older candles come when it is panned to the left."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget
from words import Words

from upbit_backbone import CandleData
from upbit_backbone.qt import ColourScheme, LiveCandles, MarketBridge
from upbit_backbone.qt.candle_arrays import CLOSE, START
from upbit_backbone.qt.chart_items import CandleItem, Crosshair, LastPriceLine, PriceAxis, time_axis

SIZE = 500  # candles at first, and with each step into the past
CANDLE_PIXELS = 7  # at first: with fewer no bodies are seen
AVERAGES = {5: "#d08a2e", 20: "#8f6fd0", 60: "#3f9f8f"}
RSI_PERIODS = 14
Floats = NDArray[np.float64]


def moving_average(values: Floats, periods: int) -> Floats:
    """The mean of each value and those before it; NaN where there are too few."""
    sums = np.cumsum(np.insert(values, 0, 0.0))
    means = np.full(len(values), np.nan)
    means[periods - 1 :] = (sums[periods:] - sums[:-periods]) / periods
    return means


def relative_strength(closes: Floats, periods: int) -> Floats:
    """The RSI with plain averages (Cutler's), from 0 to 100; NaN where there are too few."""
    changes = np.diff(closes, prepend=closes[:1])
    rises, falls = (moving_average(np.maximum(sign * changes, 0.0), periods) for sign in (1, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100 * rises / (rises + falls)


class ChartPane(QWidget):
    """One market in one time frame. `notice(text)` is for the window's line of messages."""

    notice = Signal(str)

    def __init__(self, bridge: MarketBridge, colours: ColourScheme, words: Words) -> None:
        super().__init__()
        self._bridge, self.words = bridge, words
        self.live: LiveCandles | None = None
        self._is_fresh = True
        self.header = QLabel(wordWrap=True, alignment=Qt.AlignmentFlag.AlignTop)  # an error begins with what matters
        self.header.setTextFormat(Qt.TextFormat.PlainText)
        self.header.setFixedHeight(2 * self.header.fontMetrics().lineSpacing())  # always, so that nothing jumps
        self.graphics = pg.GraphicsLayoutWidget()
        self.price, self.volume, self.rsi = (
            self.graphics.addPlot(row=row, col=0, axisItems={"bottom": time_axis(), "left": PriceAxis()})
            for row in range(3)
        )
        for row, share in enumerate((6, 1, 1)):
            self.graphics.ci.layout.setRowStretchFactor(row, share)
        self.candles = CandleItem(colours)
        self.volumes = self.candles.volume_item()
        self.last_price = LastPriceLine(self.candles, self.price.getAxis("left"))
        self._make_plots()
        self.crosshair = Crosshair([self.price, self.volume, self.rsi], self.candles, self)
        self.crosshair.moved.connect(self._describe)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.header)
        layout.addWidget(self.graphics, 1)

    def _make_plots(self) -> None:
        for plot in (self.price, self.volume, self.rsi):
            plot.setAutoVisible(y=True)
            plot.setMouseEnabled(x=True, y=False)
            plot.hideButtons()
            plot.setMenuEnabled(False)
            plot.getAxis("left").setWidth(90)
        for plot in (self.volume, self.rsi):
            plot.setXLink(self.price)
        for plot in (self.price, self.volume):
            plot.getAxis("bottom").setStyle(showValues=False)
        self.price.addItem(self.candles)
        self.volume.addItem(self.volumes)
        self.price.addItem(self.last_price)
        self.averages = {periods: self.price.plot() for periods in AVERAGES}
        self.rsi_curve = self.rsi.plot()
        self.rsi.setYRange(0, 100, padding=0)
        for level in (30, 70):
            self.rsi.addItem(pg.InfiniteLine(level, angle=0, pen=pg.mkPen("#8886", style=Qt.PenStyle.DotLine)))
        self.beginning = pg.TextItem(anchor=(1, 1), color="#909090")
        self.beginning.hide()
        self.price.addItem(self.beginning, ignoreBounds=True)
        self.price.sigXRangeChanged.connect(self._panned)

    # What is shown

    def show_market(self, symbol: str, timeframe: str) -> None:
        """Show this market instead. Returns at once; the candles come when they are there."""
        if self.live is not None:
            self.live.close()
        self.candles.clear()
        self._set_stale(True)
        self.beginning.hide()
        self._refresh()
        self._is_fresh = True
        self.header.setText(self.words("opening", symbol, timeframe))
        self.live = self._bridge.candle_series(symbol, timeframe, SIZE)
        self.live.changed.connect(self._take)
        self.live.stale_changed.connect(self._set_stale)
        self.live.older_loaded.connect(self._older_came)
        self.live.failed.connect(lambda error: self.header.setText(str(error)))

    def set_colours(self, colours: ColourScheme, is_dark: bool) -> None:
        self.graphics.setBackground("#15171c" if is_dark else "#ffffff")
        for item in (self.candles, self.volumes):
            item.set_colours(colours)
        self.last_price.refresh()

    def _take(self, rows: list[CandleData], is_whole: bool) -> None:
        before = self.candles.rows[-1].timestamp.timestamp() if self.candles.rows else None
        self.candles.take(rows, is_whole)
        last = self.candles.rows[-1].timestamp.timestamp()
        left, right = self.price.viewRange()[0]
        if self._is_fresh:
            period = self.candles.arrays.period
            in_sight = self.price.getViewBox().width() / CANDLE_PIXELS
            self.price.setXRange(last - in_sight * period, last + 3 * period, padding=0)
            self._is_fresh = False  # from here on it is panned by people
            self.notice.emit("")  # what failed before is over
        elif before is not None and last > before and left <= before <= right:
            # The picture follows the newest candle, unless somebody has panned away from it.
            self.price.setXRange(left + last - before, right + last - before, padding=0)
        self._refresh()

    def _set_stale(self, stale: object) -> None:
        self.candles.set_stale(stale)
        self.last_price.refresh()
        for periods, curve in (*self.averages.items(), (20, self.rsi_curve)):
            curve.setPen(self.candles.colours.stale if stale else AVERAGES[periods])

    def _refresh(self) -> None:
        self.last_price.refresh()
        self._draw_indicators()
        self._describe(None)

    def _draw_indicators(self) -> None:
        """Of what is in sight, and of so much before it as they need."""
        (left, right), arrays = self.price.viewRange()[0], self.candles.arrays
        seen = arrays.between(left, right)
        columns = arrays.columns[:, max(0, seen.start - max(AVERAGES)) : seen.stop]
        times, closes = columns[START], columns[CLOSE]
        for periods, curve in self.averages.items():
            curve.setData(times, moving_average(closes, periods) if len(closes) >= periods else times * np.nan)
        is_enough = len(closes) > RSI_PERIODS
        self.rsi_curve.setData(times, relative_strength(closes, RSI_PERIODS) if is_enough else times * np.nan)

    def _describe(self, candle: CandleData | None) -> None:
        """The candle under the mouse, or else the last one, in words."""
        rows = self.candles.rows
        if candle is None and not rows:
            return
        shown = candle or rows[-1]
        percent = (shown.close_price / shown.open_price - 1) * 100
        prices = (("O", shown.open_price), ("H", shown.high_price), ("L", shown.low_price), ("C", shown.close_price))
        said = "  ".join(f"{name} {price:,f}" for name, price in prices)
        moment = f"{shown.timestamp_kst:%Y-%m-%d %H:%M:%S}"
        self.header.setText(
            f"{shown.symbol}  {shown.timeframe}  {moment}  {percent:+.2f} %  V {shown.volume:,f}\n{said}"
        )

    # The past

    def _panned(self, *_: object) -> None:
        self._draw_indicators()
        rows, live = self.candles.rows, self.live
        if not rows or live is None or self._is_fresh:
            return
        left, _right = self.price.viewRange()[0]
        begins = rows[0].timestamp.timestamp()
        if left < begins + 20 * self.candles.arrays.period and live.load_older(SIZE):
            self.notice.emit(self.words("loading"))
        self._mark_beginning()

    def _older_came(self, rows: list[CandleData]) -> None:
        self.notice.emit("")
        self._refresh()
        self._mark_beginning()
        if rows:
            self._panned()  # somebody may have panned on meanwhile

    def _mark_beginning(self) -> None:
        rows = self.candles.rows
        is_known = self.live is not None and self.live.has_reached_start and bool(rows)
        self.beginning.setVisible(is_known)
        if is_known:
            self.beginning.setText(f"│ {self.words('history')}")
            self.beginning.setPos(rows[0].timestamp.timestamp(), float(rows[0].high_price))
