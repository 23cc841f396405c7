"""Chart items for pyqtgraph (extra `[chart]`): candles, volume, a line at the last price, a crosshair."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from math import floor, log10
from typing import Any, Final, NamedTuple

import numpy as np

from ..models.market import CandleData
from ..models.readable import KST
from .binding import QColor, QtCore, QtGui
from .candle_arrays import CLOSE, HIGH, LOW, OPEN, VOLUME, Bars, CandleArrays, Floats
from .colours import KOREAN, ColourScheme

try:
    import pyqtgraph  # after the binding, whose Qt it then takes
    from pyqtgraph.Qt.internals import PrimitiveArray
except ImportError as error:
    raise ImportError(
        "upbit_backbone.qt.chart_items needs pyqtgraph: python -m pip install 'upbit-backbone[chart]' "
        "/ pyqtgraph가 필요합니다: python -m pip install 'upbit-backbone[chart]'"
    ) from error

QRectF, Signal = QtCore.QRectF, QtCore.Signal

BODY: Final = 0.8  # of a period: what a body is wide
BODIES_FROM_PIXELS: Final = 4.0  # narrower candles are lines: a body would not be seen
MOVES_PER_SECOND: Final = 60
LIGHT: Final = 140  # of 255: on a ground as light as that white is hard to read


class Pixel(NamedTuple):
    """The size of a pixel in what the plot shows: seconds and prices."""

    width: float
    height: float


class _BarsItem(pyqtgraph.GraphicsObject):  # type: ignore[misc]  # pyqtgraph carries no types
    """Base of what is drawn from candle arrays: only what is in sight, in one call a colour."""

    def __init__(self, arrays: CandleArrays, colours: ColourScheme) -> None:
        super().__init__()
        self.arrays = arrays
        self.colours = colours
        self.is_stale = True
        self._bounds: Any = None  # of all candles; asked for many times between two changes
        self._in_sight: Any = None  # the bounds that the view was last told of

    def set_stale(self, stale: object) -> None:
        """Draw it grey, because it is not provably current, or in its colours; takes what `stale_changed` tells."""
        if self.is_stale is not bool(stale):
            self.is_stale = bool(stale)
            self.update()

    def set_colours(self, colours: ColourScheme) -> None:
        self.colours = colours
        self.update()

    def has_changed(self) -> None:
        """The arrays were changed: draw them anew."""
        before, self._bounds = self._bounds, None
        after = self.boundingRect()
        if before != after:  # mostly it is the last candle, somewhere between the others
            self._bounds = before  # Qt asks for the old place first
            self.prepareGeometryChange()
            self._bounds = after
        if (in_sight := self._bounds_in_sight()) != self._in_sight:
            # Only then: the view fits itself anew with each word of this, which costs it more than a paint costs us.
            self._in_sight = in_sight
            self.informViewBoundsChanged()
        self.update()

    def _bounds_in_sight(self) -> Any:
        view = self.getViewBox()
        seen = None if view is None else view.viewRange()[0]
        return seen, self.dataBounds(0), self.dataBounds(1, orthoRange=seen)

    def boundingRect(self) -> Any:  # noqa: N802  # Qt's name
        if self._bounds is None:
            columns, margin = self.arrays.columns, self.arrays.period
            low, high = self._height(slice(None)) if columns.shape[1] else (0.0, 0.0)
            left, right = (columns[0, 0] - margin, columns[0, -1] + margin) if columns.shape[1] else (0.0, 0.0)
            self._bounds = QRectF(left, low, right - left, high - low)
        return self._bounds

    def dataBounds(self, ax: int, frac: float = 1.0, orthoRange: Any = None) -> Any:  # noqa: N802, N803  # pyqtgraph's names
        """What the view fits to: of the prices those that are in sight, where the view asks for that."""
        columns = self.arrays.columns
        if not columns.shape[1]:
            return (None, None)
        if ax == 0:
            return (float(columns[0, 0]) - self.arrays.period, float(columns[0, -1]) + self.arrays.period)
        seen = slice(None) if orthoRange is None else self.arrays.between(*orthoRange)
        return self._height(seen) if columns[0, seen].size else (None, None)

    def paint(self, painter: Any, *_: Any) -> None:
        view = self.getViewBox()
        if view is None or not len(self.arrays):
            return
        (left, right), _y = view.viewRange()
        pixel = Pixel(self.pixelWidth() or 0.0, self.pixelHeight() or 0.0)
        bars = np.array(self.arrays.bars(self.arrays.between(left, right), pixel.width))
        is_up = bars[CLOSE] >= bars[OPEN]
        # Filled areas only: a line of one pixel costs ten times what a filled area as narrow does.
        painter.setPen(QtCore.Qt.PenStyle.NoPen)
        for chosen, colour in ((is_up, self.colours.up), (~is_up, self.colours.down)):
            painter.setBrush(QColor(self.colours.stale if self.is_stale else colour))
            self._draw(painter, Bars(*bars[:, chosen]), pixel)

    def _height(self, seen: slice) -> tuple[float, float]:
        raise NotImplementedError

    def _draw(self, painter: Any, bars: Bars, pixel: Pixel) -> None:
        raise NotImplementedError

    def _fill(self, painter: Any, bars: Bars, width: float, low: Floats, height: Floats, pixel: Pixel) -> None:
        """An upright area for each bar, at least a pixel wide and high."""
        if not len(bars):
            return
        # As pyqtgraph draws its own bars: numbers in one piece of memory, where a QRectF each took three times as long.
        areas = PrimitiveArray(QRectF, 4)
        areas.resize(len(bars))
        columns = areas.ndarray()
        columns[:, 0] = bars.start - width / 2
        columns[:, 1] = low
        columns[:, 2] = max(width, pixel.width)
        columns[:, 3] = np.maximum(height, pixel.height)
        painter.drawRects(*areas.drawargs())


class CandleItem(_BarsItem):
    """Candles of one market, on a time axis in seconds: `plot.addItem(CandleItem())`. For the GUI thread.

        candles = CandleItem()
        live = bridge.candle_series("KRW-BTC", "1m", size=500)
        live.changed.connect(candles.take)
        live.stale_changed.connect(candles.set_stale)

    Fifty thousand candles are drawn as quickly as five hundred: only what is in sight, in two calls for each colour,
    and where several candles share a pixel as one bar from their lowest to their highest price. Whatever is not
    provably current is grey.
    """

    def __init__(self, colours: ColourScheme = KOREAN) -> None:
        super().__init__(CandleArrays(), colours)
        self._followers: list[_BarsItem] = []

    @property
    def rows(self) -> list[CandleData]:
        """The candles that are drawn, exact, oldest first. Not to be changed."""
        return self.arrays.rows

    def take(self, rows: Sequence[CandleData], is_whole: bool = False) -> None:
        """Merge candles by their start, or with `is_whole` draw these alone; takes what `LiveCandles.changed` tells."""
        if is_whole:
            self.arrays.clear()
        self.arrays.merge(rows)
        for item in (self, *self._followers):
            item.has_changed()

    def clear(self) -> None:
        """Draw nothing: what was there was another market's."""
        self.take([], is_whole=True)
        self.set_stale(True)

    def set_stale(self, stale: object) -> None:
        super().set_stale(stale)
        for item in self._followers:
            item.set_stale(stale)

    def volume_item(self) -> VolumeItem:
        """A new item for another plot that draws the volume of these candles."""
        item = VolumeItem(self.arrays, self.colours)
        item.is_stale = self.is_stale
        self._followers.append(item)
        return item

    def _height(self, seen: slice) -> tuple[float, float]:
        columns = self.arrays.columns[:, seen]
        return float(columns[LOW].min()), float(columns[HIGH].max())

    def _draw(self, painter: Any, bars: Bars, pixel: Pixel) -> None:
        self._fill(painter, bars, pixel.width, bars.low, bars.high - bars.low, pixel)
        width = self.arrays.period * BODY
        if width >= BODIES_FROM_PIXELS * pixel.width:
            bottom = np.minimum(bars.open, bars.close)
            self._fill(painter, bars, width, bottom, np.abs(bars.close - bars.open), pixel)


class VolumeItem(_BarsItem):
    """The volume of a CandleItem's candles; made by its `volume_item()`."""

    def _height(self, seen: slice) -> tuple[float, float]:
        return 0.0, float(self.arrays.columns[VOLUME, seen].max())

    def _draw(self, painter: Any, bars: Bars, pixel: Pixel) -> None:
        self._fill(painter, bars, self.arrays.period * BODY, np.zeros(len(bars)), bars.volume, pixel)


class LastPriceLine(pyqtgraph.InfiniteLine):  # type: ignore[misc]
    """A line at the last price; grey while that is not provably current.

    With `axis`, the PriceAxis of its plot, the price is written there, where it covers no candle; without one, at the
    left end of the line.
    """

    def __init__(self, candles: CandleItem, axis: PriceAxis | None = None) -> None:
        beside = {"position": 0.0, "anchors": [(0, 1), (0, 1)], "movable": False, "fill": (128, 128, 128, 60)}
        super().__init__(angle=0, movable=False, **({} if axis else {"label": "", "labelOpts": beside}))
        self._candles = candles
        self._axis = axis
        self._colour: Any = None
        self.hide()

    def dataBounds(self, axis: int, frac: float = 1.0, orthoRange: Any = None) -> None:  # noqa: N802, N803
        """None: the view fits to candles, wherever the last of them closed. (pyqtgraph's name.)"""

    def informViewBoundsChanged(self) -> None:  # noqa: N802
        """Nothing: so there is nothing to fit anew when it moves. (pyqtgraph's name.)"""

    def refresh(self, *_: object) -> None:
        """Go where the last candle closed, in the colour of that candle.

        To be called when the candles changed, and when they became current or ceased to be.
        """
        rows, colours = self._candles.rows, self._candles.colours
        if not rows:
            self.hide()
            if self._axis is not None:
                self._axis.set_mark(None)
            return
        last = rows[-1]
        colour = colours.of_stale() if self._candles.is_stale else colours.of_change(last.close_price - last.open_price)
        if colour != self._colour:
            self._colour = colour
            self.setPen(pyqtgraph.mkPen(colour, style=QtCore.Qt.PenStyle.DashLine))
        self.setValue(float(last.close_price))
        self.show()  # first: a label that is not seen writes nothing
        if self._axis is not None:
            self._axis.set_mark(float(last.close_price), f"{last.close_price:,f}", colour)
        else:
            self.label.setFormat(f"{last.close_price:,f}")
            self.label.setColor(colour)


class Crosshair(QtCore.QObject):  # type: ignore[misc]
    """Two lines under the mouse, the vertical one in all plots at once; `moved(CandleData)` says over which candle,
    and `moved(None)` that the mouse has left. The plots are one PlotWidget, or lie in one GraphicsLayoutWidget."""

    moved = Signal(object)

    def __init__(self, plots: Sequence[Any], candles: CandleItem, parent: Any = None) -> None:
        super().__init__(parent)
        self._plots = tuple(plots)
        self._candles = candles
        pen = pyqtgraph.mkPen("#8888", style=QtCore.Qt.PenStyle.DotLine)
        self.verticals = [pyqtgraph.InfiniteLine(angle=90, movable=False, pen=pen) for _ in plots]
        self.horizontals = [pyqtgraph.InfiniteLine(angle=0, movable=False, pen=pen) for _ in plots]
        for plot, *lines in zip(self._plots, self.verticals, self.horizontals, strict=True):
            for line in lines:
                line.hide()
                plot.addItem(line, ignoreBounds=True)
        self._proxy = pyqtgraph.SignalProxy(
            plots[0].scene().sigMouseMoved, rateLimit=MOVES_PER_SECOND, slot=lambda moved: self.go_to(moved[0])
        )

    def go_to(self, position: Any) -> CandleData | None:
        """Stand at a point of the scene; the candle there, None outside of all plots or where there are no candles."""
        over = next((plot for plot in self._plots if plot.getViewBox().sceneBoundingRect().contains(position)), None)
        point = None if over is None else over.getViewBox().mapSceneToView(position)
        place = None if point is None else self._candles.arrays.nearest(point.x())
        candle = None if place is None else self._candles.rows[place]
        for plot, vertical, horizontal in zip(self._plots, self.verticals, self.horizontals, strict=True):
            vertical.setVisible(candle is not None)
            horizontal.setVisible(candle is not None and plot is over)
            if candle is not None and point is not None:
                vertical.setValue(candle.timestamp.timestamp())
                horizontal.setValue(point.y())
        self.moved.emit(candle)
        return candle


class PriceAxis(pyqtgraph.AxisItem):  # type: ignore[misc]
    """An axis for the left or right of a plot: prices with thousands separators, as long as they are; one of them may
    be marked, as `LastPriceLine` does."""

    def __init__(self, orientation: str = "left") -> None:
        super().__init__(orientation)
        self.enableAutoSIPrefix(False)
        self._mark: tuple[float, str, Any] | None = None

    def set_mark(self, price: float | None, text: str = "", colour: Any = None) -> None:
        """Write `text` at this price, on a ground of that colour; None: nothing is marked."""
        mark = None if price is None else (price, text, QColor(colour))
        if mark != self._mark:
            self._mark = mark
            self.update()

    def paint(self, painter: Any, *about: Any) -> None:
        super().paint(painter, *about)
        view = self.linkedView()
        if self._mark is None or view is None:
            return
        price, text, colour = self._mark
        area, height = self.mapRectFromParent(self.geometry()), painter.fontMetrics().height()
        middle = self.mapFromScene(view.mapViewToScene(QtCore.QPointF(0.0, price))).y()
        if area.top() <= middle <= area.bottom():
            tag = QRectF(area.left(), middle - height / 2, area.width(), height)
            painter.fillRect(tag, colour)
            painter.setPen(QColor("black" if QtGui.qGray(colour.rgb()) > LIGHT else "white"))
            painter.drawText(tag, QtCore.Qt.AlignmentFlag.AlignCenter, text)

    def tickStrings(self, values: Any, scale: float, spacing: float) -> list[str]:  # noqa: N802  # pyqtgraph's name
        places = max(0, -floor(log10(spacing))) if spacing > 0 else 0
        return [f"{value:,.{places}f}" for value in values]


def time_axis() -> Any:
    """An axis for the bottom of a plot: the starts of candles as Korean wall-clock times."""
    offset = KST.utcoffset(None) or timedelta()
    return pyqtgraph.DateAxisItem(orientation="bottom", utcOffset=-offset.total_seconds())
