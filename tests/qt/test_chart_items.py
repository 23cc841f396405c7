"""Candles on a screen: what is drawn where, by the painted pixels; and the arrays behind it against a plain dict."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qtpy.QtCore import QPointF
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QApplication

from tests.support.qt import run_until
from upbit_backbone import CandleData, DataSource, MarketDataBackbone
from upbit_backbone.qt import INTERNATIONAL, KOREAN, MarketBridge

pytest.importorskip("pyqtgraph", reason="the extra [chart] is not installed")

import pyqtgraph as pg

from upbit_backbone.qt.candle_arrays import FEWEST, CandleArrays
from upbit_backbone.qt.chart_items import CandleItem, Crosshair, LastPriceLine, PriceAxis, time_axis

START = datetime(2026, 3, 1, tzinfo=UTC)


def candle(minute: int, opened: int = 100, closed: int = 110, volume: int = 1) -> CandleData:
    low, high = min(opened, closed), max(opened, closed)
    prices = (Decimal(each) for each in (opened, high, low, closed))
    start = START + timedelta(minutes=minute)
    return CandleData("KRW-BTC", "1m", *prices, Decimal(volume), start, DataSource.REST)


# The arrays


@given(st.lists(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 999)), max_size=8), max_size=12))
@settings(max_examples=60, deadline=None)
def test_merging_is_what_a_dict_by_start_would_hold(batches: list[list[tuple[int, int]]]) -> None:
    arrays, model = CandleArrays(), dict[datetime, CandleData]()
    for batch in batches:
        rows = [candle(minute, closed=closed) for minute, closed in sorted(dict(batch).items())]
        arrays.merge(rows)
        model.update((row.timestamp, row) for row in rows)
        expected = [model[start] for start in sorted(model)]
        assert arrays.rows == expected
        assert arrays.columns[4].tolist() == [float(row.close_price) for row in expected]
        assert arrays.columns[0].tolist() == [row.timestamp.timestamp() for row in expected]


def test_a_chart_that_grows_for_days_keeps_every_candle() -> None:
    arrays = CandleArrays()
    for minute in range(3 * FEWEST):
        arrays.merge([candle(minute, closed=minute + 1)])
    assert arrays.columns[4].tolist() == [float(minute + 1) for minute in range(3 * FEWEST)]
    assert arrays.period == 60.0


def test_only_what_is_in_sight_is_drawn_and_never_more_bars_than_pixels() -> None:
    arrays = CandleArrays()
    arrays.merge([candle(minute, opened=minute, closed=minute + 1, volume=minute % 7) for minute in range(1000)])
    first = arrays.columns[0][0]
    seen = arrays.between(first + 600.0, first + 1200.0)
    assert 9 <= seen.start <= 10
    assert 21 <= seen.stop <= 22
    every = arrays.bars(slice(0, 1000), per_bar=600.0)
    assert len(every) == 100
    assert every.open.tolist() == [float(10 * place) for place in range(100)]
    assert every.close.tolist() == [float(10 * place + 10) for place in range(100)]
    assert every.high.max() == 1000.0
    assert len(arrays.bars(slice(0, 1000), per_bar=1.0)) == 1000
    assert len(arrays.bars(slice(0, 0), per_bar=600.0)) == 0


def test_the_nearest_candle_is_found_before_between_and_after() -> None:
    arrays = CandleArrays()
    assert arrays.nearest(0.0) is None
    arrays.merge([candle(0), candle(1), candle(10)])
    first = arrays.columns[0][0]
    places = [arrays.nearest(first + seconds) for seconds in (-999.0, 0.0, 29.0, 31.0, 300.0, 400.0, 99999.0)]
    assert places == [0, 0, 0, 1, 1, 2, 2]


# The items


class Chart:
    """A plot of two price ranges, and its pixels."""

    def __init__(self) -> None:
        self.window = pg.GraphicsLayoutWidget()
        self.window.resize(500, 400)
        self.plot = self.window.addPlot(axisItems={"bottom": time_axis()})
        self.below = self.window.addPlot(row=1, col=0)
        self.candles = CandleItem()
        self.volume = self.candles.volume_item()
        self.plot.addItem(self.candles)
        self.below.addItem(self.volume)
        self.window.show()

    def colours(self) -> set[str]:
        """Every colour of the price plot."""
        image = self.window.grab().toImage()
        area = self.plot.sceneBoundingRect().toRect()
        return {
            QColor(image.pixel(x, y)).name()
            for x in range(area.left() + 60, area.right(), 2)
            for y in range(area.top(), area.bottom() - 30, 2)
        }


@pytest.fixture
def chart() -> Iterator[Chart]:
    chart = Chart()
    yield chart
    chart.window.close()


def test_candles_are_painted_in_the_colours_of_the_scheme_and_grey_while_stale(chart: Chart) -> None:
    chart.candles.take([candle(0, 100, 110), candle(1, 110, 95)])
    assert KOREAN.stale in chart.colours(), "until proven current"
    assert not chart.colours() & {KOREAN.up, KOREAN.down}
    chart.candles.set_stale(frozenset())
    assert chart.colours() >= {KOREAN.up, KOREAN.down}
    assert not chart.volume.is_stale
    chart.candles.set_colours(INTERNATIONAL)
    assert chart.colours() >= {INTERNATIONAL.up, INTERNATIONAL.down}
    chart.candles.set_stale(frozenset({"KRW-BTC"}))
    assert not chart.colours() & {INTERNATIONAL.up, INTERNATIONAL.down}
    chart.candles.clear()
    assert not chart.colours() & {KOREAN.stale}


def test_the_view_fits_to_the_prices_in_sight(chart: Chart) -> None:
    chart.plot.setAutoVisible(y=True)
    chart.candles.take([candle(minute, 1000 + minute, 1001 + minute) for minute in range(100)])
    left, right = START.timestamp(), START.timestamp() + 10 * 60
    chart.plot.setXRange(left, right, padding=0)
    run_until(lambda: chart.plot.viewRange()[1][1] < 1050)
    chart.plot.setXRange(left + 3000, left + 6000, padding=0)
    run_until(lambda: chart.plot.viewRange()[1][0] > 1030)
    assert chart.candles.boundingRect().height() == 100.0
    assert chart.volume.boundingRect().bottom() == 1.0


def test_older_candles_do_not_move_the_picture(chart: Chart) -> None:
    chart.candles.take([candle(minute) for minute in range(100, 200)], is_whole=True)
    chart.plot.setXRange(START.timestamp() + 6000, START.timestamp() + 9000, padding=0)
    before = chart.plot.viewRange()[0]
    chart.candles.take([candle(minute) for minute in range(100)])
    assert chart.plot.viewRange()[0] == before
    assert len(chart.candles.rows) == 200


@pytest.mark.parametrize("count", [3, 400, 20_000])
def test_however_many_candles_are_in_sight_they_are_painted(chart: Chart, count: int) -> None:
    chart.candles.take([candle(minute, 100 + minute % 3, 101) for minute in range(count)])
    chart.candles.set_stale(frozenset())
    assert chart.colours() & {KOREAN.up, KOREAN.down}


def test_the_last_price_has_its_line_and_its_number(chart: Chart) -> None:
    line = LastPriceLine(chart.candles)
    chart.plot.addItem(line)
    line.refresh()
    assert not line.isVisible()
    chart.candles.take([candle(0, 100, 12345)])
    line.refresh()
    assert line.isVisible()
    assert line.value() == 12345.0
    assert line.label.toPlainText() == "12,345"
    assert line.pen.color().name() == KOREAN.stale
    chart.candles.set_stale(frozenset())
    line.refresh()
    assert line.pen.color().name() == KOREAN.up


def test_the_last_price_is_written_on_the_axis_where_it_covers_no_candle() -> None:
    axis = PriceAxis()
    plot = pg.PlotWidget(axisItems={"left": axis})
    candles = CandleItem()
    line = LastPriceLine(candles, axis)
    plot.addItem(candles)
    plot.addItem(line)
    axis.setWidth(90)
    plot.resize(400, 300)
    plot.show()

    def colours(left: int, right: int) -> set[str]:
        image = plot.grab().toImage()
        return {QColor(image.pixel(x, y)).name() for x in range(left, right) for y in range(image.height())}

    candles.take([candle(0, 100, 12345), candle(1, 20000, 9000), candle(2, 9000, 15000)])
    candles.set_stale(frozenset())
    line.refresh()
    QApplication.processEvents()
    assert KOREAN.up in colours(0, 80)
    candles.set_stale(frozenset(["KRW-BTC"]))
    line.refresh()
    assert KOREAN.up not in colours(0, 80)
    assert KOREAN.stale in colours(0, 80)
    candles.clear()
    line.refresh()
    assert KOREAN.stale not in colours(0, 80)


def test_the_crosshair_says_over_which_candle_it_stands(chart: Chart) -> None:
    rows = [candle(minute, 100 + minute, 105 + minute) for minute in range(10)]
    chart.candles.take(rows)
    crosshair = Crosshair([chart.plot, chart.below], chart.candles)
    moved: list[Any] = []
    crosshair.moved.connect(moved.append)
    chart.window.grab()  # lays it out
    view = chart.plot.getViewBox()
    point = view.mapViewToScene(QPointF(rows[4].timestamp.timestamp() + 9, 105.0))
    assert crosshair.go_to(point) == rows[4]
    assert [line.value() for line in crosshair.verticals] == [rows[4].timestamp.timestamp()] * 2
    assert [line.isVisible() for line in crosshair.horizontals] == [True, False]
    assert crosshair.go_to(QPointF(-50, -50)) is None
    assert not any(line.isVisible() for line in crosshair.verticals)
    assert moved == [rows[4], None]


def test_a_series_of_the_bridge_is_drawn_and_grows_to_the_left(market: MarketDataBackbone, chart: Chart) -> None:
    bridge = MarketBridge(market)
    live = bridge.candle_series("KRW-BTC", "1m", size=30)
    live.changed.connect(chart.candles.take)
    live.stale_changed.connect(chart.candles.set_stale)
    run_until(lambda: len(chart.candles.rows) >= 30 and not chart.candles.is_stale)
    assert live.load_older(40)
    run_until(lambda: len(chart.candles.rows) >= 70)
    run_until(lambda: chart.candles.rows == live.candles)
    bridge.close()
