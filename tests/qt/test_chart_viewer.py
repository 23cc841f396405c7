"""The chart viewer, driven without a screen: what a person would see in it, when all is well and when it is not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from qtpy.QtCore import QSettings, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QApplication

from tests.support.qt import deleted, run_until, what_is_wrong
from tests.support.waiting import wait_until
from upbit_backbone import MarketDataBackbone
from upbit_backbone.qt import KOREAN
from upbit_backbone.simulator import FakeUpbit

pytest.importorskip("pyqtgraph", reason="the extra [chart] is not installed")

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "chart_viewer"
FOREGROUND = Qt.ItemDataRole.ForegroundRole


@pytest.fixture(scope="module")
def upbit() -> Iterator[FakeUpbit]:
    with FakeUpbit(seed=3, markets=["KRW-BTC", "KRW-ETH", "KRW-XRP"], trades_per_second=20) as simulator:
        yield simulator


@pytest.fixture(scope="module", autouse=True)
def importable() -> Iterator[None]:
    sys.path.insert(0, str(FOLDER))
    palette = QApplication.instance().palette()
    yield
    sys.path.remove(str(FOLDER))
    QApplication.instance().setPalette(palette)


@pytest.fixture
def settings(tmp_path: Path) -> QSettings:
    return QSettings(str(tmp_path / "viewer.ini"), QSettings.Format.IniFormat)


@contextmanager
def opened(market: MarketDataBackbone, settings: QSettings) -> Iterator[Any]:
    """A window, shown, and deleted on the GUI thread. Left to Python's collector it would be taken apart by whichever
    thread happens to run that, a session's for example, which PyQt5 does not survive every time."""
    from main_window import MainWindow

    window = MainWindow(market, settings)
    window.show()
    yield window
    window.close()
    deleted(window)


@pytest.fixture
def window(market: MarketDataBackbone, settings: QSettings) -> Iterator[Any]:
    with opened(market, settings) as window:
        yield window


def is_live(window: Any) -> bool:
    """Whether every pane shows what is provably current."""
    rows = [window.watch_list.index(row, 2) for row in range(window.watch_list.rowCount())]
    grey = [row for row in rows if window.watch_list.data(row, FOREGROUND) == QColor(KOREAN.stale)]
    panes = (window.book, window.trades, window.chart.candles)
    return bool(rows) and not grey and not any(pane.is_stale for pane in panes)


def is_all_grey(window: Any) -> bool:
    rows = [window.watch_list.index(row, 2) for row in range(window.watch_list.rowCount())]
    is_grey = all(window.watch_list.data(row, FOREGROUND) == QColor(KOREAN.stale) for row in rows)
    return is_grey and all(pane.is_stale for pane in (window.book, window.trades, window.chart.candles))


def chart_colours(window: Any) -> set[str]:
    image = window.chart.graphics.grab().toImage()
    return {
        QColor(image.pixel(x, y)).name()
        for x in range(100, image.width() - 10, 2)
        for y in range(10, image.height() * 3 // 5, 2)
    }


def test_every_pane_comes_to_life(window: Any) -> None:
    run_until(lambda: is_live(window) and window.chart.candles.rows and window.trades.rowCount() > 3)
    assert window.watch_list.rowCount() == 3
    run_until(lambda: chart_colours(window) >= {KOREAN.up, KOREAN.down})
    prices = [window.book.data(window.book.index(row, 1)) for row in range(30)]
    assert None not in prices
    run_until(lambda: "websocket" in window.state.text() and window.state.text().endswith("live"))
    assert "KRW-BTC" in window.chart.header.text()


def test_another_market_is_shown_by_a_click_and_nothing_of_the_first_stays(window: Any) -> None:
    run_until(lambda: is_live(window) and window.chart.candles.rows)
    first = window.chart.live
    row = window.watch_list.row_of("KRW-XRP")
    window._clicked(window.watch_list.index(row, 0))
    assert window.chart.candles.rows == []
    assert window.book.book is None
    assert window.trades.rowCount() == 0
    run_until(lambda: is_live(window) and window.chart.candles.rows and window.trades.rowCount() > 3)
    assert first.opening.is_closed
    assert {row.symbol for row in window.chart.candles.rows} == {"KRW-XRP"}
    assert {trade.symbol for trade in window.trades.trades} == {"KRW-XRP"}
    assert window.book.book.symbol == "KRW-XRP"
    assert "KRW-XRP" in window.windowTitle()


@pytest.mark.parametrize("timeframe", ["1s", "1d", "1M", "1y"])
def test_every_time_frame_is_shown_also_those_that_upbit_does_not_stream(window: Any, timeframe: str) -> None:
    button = next(each for each in window.timeframes.buttons() if each.text() == timeframe)
    button.click()
    run_until(lambda: window.chart.candles.rows and not window.chart.candles.is_stale)
    assert {row.timeframe for row in window.chart.candles.rows} == {timeframe}
    assert button.isChecked()


def test_panned_to_the_left_it_loads_older_candles_up_to_the_beginning_of_history(window: Any) -> None:
    window.show_market("KRW-BTC", "1M")
    chart = window.chart
    run_until(lambda: chart.candles.rows and chart.live.is_ready)
    if not chart.live.has_reached_start:
        first = chart.candles.rows[0].timestamp
        chart.price.setXRange(first.timestamp() - 1e6, first.timestamp() + 1e8, padding=0)
        run_until(lambda: chart.live.has_reached_start)
    chart.price.setXRange(0.0, 1e9, padding=0)
    run_until(chart.beginning.isVisible)
    assert "beginning of history" in chart.beginning.toPlainText()
    starts = [row.timestamp for row in chart.candles.rows]
    assert starts == sorted(set(starts)), "no row twice"


def test_panning_left_loads_what_is_older_and_does_not_move_the_picture(window: Any) -> None:
    chart = window.chart
    run_until(lambda: len(chart.candles.rows) >= 500 and not chart.candles.is_stale)
    first = chart.candles.rows[0].timestamp.timestamp()
    chart.price.setXRange(first - 600, first + 6000, padding=0)
    run_until(lambda: len(chart.candles.rows) >= 1000)
    assert chart.price.viewRange()[0] == [first - 600, first + 6000]
    starts = [row.timestamp for row in chart.candles.rows]
    assert starts == sorted(set(starts))


def test_a_cut_line_is_seen_in_every_pane_and_heals_by_itself(window: Any, upbit: FakeUpbit) -> None:
    run_until(lambda: is_live(window) and window.chart.candles.rows)
    upbit.handshake_fault(times=None)
    upbit.drop_sessions()
    run_until(lambda: is_all_grey(window) and window.state.text().endswith("DISCONNECTED"))
    run_until(lambda: not chart_colours(window) & {KOREAN.up, KOREAN.down})
    upbit.clear_faults()
    run_until(lambda: is_live(window) and window.state.text().endswith("live"))
    run_until(lambda: chart_colours(window) >= {KOREAN.up, KOREAN.down})  # the candles are painted a frame later
    # The newest: where a minute begins meanwhile, the series loses its oldest one, and the picture a while later.
    run_until(lambda: window.chart.candles.rows[-100:] == window.chart.live.candles[-100:])


def test_a_frozen_line_is_seen_in_every_pane_before_its_values_are_too_old(
    upbit: FakeUpbit, settings: QSettings
) -> None:
    # As the program has it, but that neither lag nor silence says anything while the test runs.
    unhurried = {"liveness_seconds": 60.0, "max_lag_seconds": 60.0, "pong_timeout_seconds": 60.0}
    with (
        MarketDataBackbone(url=upbit.url, ping_interval_seconds=0.65, **unhurried) as market,
        opened(market, settings) as window,
    ):
        run_until(lambda: is_live(window) and window.chart.candles.rows)
        upbit.freeze(target="all")
        run_until(lambda: is_all_grey(window) and window.state.text().endswith("NOT CURRENT"))
        run_until(lambda: not chart_colours(window) & {KOREAN.up, KOREAN.down})
        upbit.thaw()
        run_until(lambda: is_live(window) and window.state.text().endswith("live"))
        run_until(lambda: chart_colours(window) >= {KOREAN.up, KOREAN.down})


def test_closed_in_the_middle_of_a_download_it_is_gone_at_once(
    market: MarketDataBackbone, settings: QSettings, upbit: FakeUpbit
) -> None:
    upbit.rest_fault(path="/v1/candles*", mode="hang", times=None)
    with opened(market, settings) as window:
        run_until(lambda: window.watch_list.rowCount() == 3)
        window.show_market("KRW-ETH", "1h")
    market.close()
    wait_until(
        lambda: not [thread for thread in threading.enumerate() if "upbit-call" in thread.name],
        lambda: f"no call goes on: {threading.enumerate()}",
    )


def test_a_search_finds_by_initial_consonants_and_says_when_nothing_does(window: Any) -> None:
    run_until(lambda: window.watch_list.rowCount() == 3 and is_live(window))
    window.search.setText("ㅇㄷㄹㅇ")
    assert [window.watch_list.symbol_at(row) for row in range(window.watch_list.rowCount())] == ["KRW-ETH"]
    window.search.returnPressed.emit()
    assert window.symbol == "KRW-ETH"
    assert window.search.text() == ""
    window.search.setText("no such coin")
    window.search.returnPressed.emit()
    assert "no such coin" in window.notice.text()
    assert window.symbol == "KRW-ETH"


def test_an_unknown_market_is_told_in_the_window(window: Any) -> None:
    window.show_market("KRW-NOPE")
    run_until(lambda: "KRW-NOPE" in window.chart.header.text() and "no market" in window.chart.header.text())
    assert "KRW-NOPE" in window.messages.toPlainText()
    window.show_market("KRW-ETH")
    run_until(lambda: window.chart.candles.rows and not window.chart.candles.is_stale)


def test_without_a_network_it_says_so_and_comes_to_life_when_there_is_one(settings: QSettings) -> None:
    nobody = socket.socket()
    nobody.bind(("127.0.0.1", 0))  # held, and never listening: whoever connects is refused
    url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    with nobody, MarketDataBackbone(url=url, rest_attempts=1) as market, opened(market, settings) as window:
        run_until(lambda: window.messages.toPlainText() and window.chart.header.text())
        assert "127.0.0.1" in window.messages.toPlainText() or "connect" in window.messages.toPlainText()
        run_until(lambda: window.state.text() == "connecting")
        assert "b3261e" in window.state.styleSheet()


def test_a_closed_backbone_is_told_in_the_window(window: Any, market: MarketDataBackbone) -> None:
    run_until(lambda: is_live(window))
    market.close()
    run_until(lambda: "closed" in window.state.text())
    run_until(lambda: is_all_grey(window))
    window.show_market("KRW-ETH")
    run_until(lambda: "closed" in window.chart.header.text())


def test_a_market_that_is_delisted_while_shown_is_told(window: Any, upbit: FakeUpbit) -> None:
    from upbit_backbone import MarketChange, MarketEvent

    run_until(lambda: is_live(window))
    at = window.watch_list.ticker_of("KRW-XRP").timestamp
    window.bridge.event.emit(MarketEvent(at=at, symbol="KRW-XRP", change=MarketChange.DELISTED))
    assert "KRW-XRP is no longer listed" in window.notice.text()
    assert window.watch_list.row_of("KRW-XRP") is None


def test_a_market_that_is_delisted_while_shown_looks_live_in_no_pane(window: Any) -> None:
    from upbit_backbone import MarketChange, MarketEvent

    window.show_market("KRW-XRP")
    run_until(lambda: is_live(window) and window.chart.candles.rows)
    at, panes = window.chart.candles.rows[-1].timestamp, (window.book, window.trades, window.chart.candles)
    window.bridge._events.append(MarketEvent(at=at, symbol="KRW-XRP", change=MarketChange.DELISTED))
    run_until(lambda: all(pane.is_stale for pane in panes))
    window.bridge._events.append(MarketEvent(at=at, symbol="KRW-XRP", change=MarketChange.LISTED))
    run_until(lambda: not any(pane.is_stale for pane in panes))


def test_an_alert_is_told_once_when_its_price_is_reached(window: Any) -> None:
    run_until(lambda: is_live(window))
    ticker = window.watch_list.ticker_of("KRW-BTC")
    window.alert_price.setText("nonsense")
    window.alert_button.click()
    assert window.alerts == {}
    window.alert_price.setText(f"{ticker.current_price + 1000:,}")
    window.alert_button.click()
    assert window.alerts == {"KRW-BTC": [(ticker.current_price + 1000, True)]}
    import dataclasses

    window._items_came([dataclasses.replace(ticker, current_price=ticker.current_price + Decimal(5000))])
    assert window.alerts == {"KRW-BTC": []}
    assert window.notice.text().startswith("ALERT: KRW-BTC")


def test_language_colours_and_market_are_kept(market: MarketDataBackbone, settings: QSettings) -> None:
    with opened(market, settings) as window:
        window.language_button.click()
        window.colour_button.click()
        window.dark_button.click()
        window.show_market("KRW-ETH", "4h")
        assert window.language_button.text() == "English"
    with opened(market, settings) as again:
        assert (again.symbol, again.timeframe, again.words.language) == ("KRW-ETH", "4h", "ko")
        assert again.colours.name == "international"
        assert not again.is_dark


def test_the_command_of_the_readme_starts_it_and_closing_ends_the_process(upbit: FakeUpbit, tmp_path: Path) -> None:
    program = f"""
import sys
sys.path.insert(0, {str(FOLDER)!r})
sys.argv = ["chart_viewer", "--market", "KRW-ETH"]
from qtpy.QtCore import QTimer
import __main__, main_window, runpy
shown = main_window.MainWindow.showEvent
def show_event(window, event):
    shown(window, event)
    window.ticks = QTimer(window, interval=20)
    window.ticks.timeout.connect(lambda: window.chart.candles.rows and window.close())
    window.ticks.start()
main_window.MainWindow.showEvent = show_event
runpy.run_path({str(FOLDER)!r}, run_name="__main__")
"""
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program],
        env={**os.environ, **upbit.environment(), **home},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    errors = what_is_wrong(done.stderr)
    assert (done.returncode, errors) == (0, [])


def test_it_stays_small() -> None:
    assert sum(len(path.read_text("utf-8").splitlines()) for path in FOLDER.glob("*.py")) <= 600
