"""Takes the pictures of the chart viewer: `python docs/pictures.py`, without a screen, against the simulator.

Writes three small PNGs into `docs/_static/pictures`. Fonts are the machine's; Korean ones have to be there.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "_static" / "pictures"
VIEWER = HERE.parent / "examples" / "chart_viewer"
BASES = ("BTC", "ETH", "XRP", "SOL", "DOGE", "ADA", "TRX", "LINK", "AVAX", "DOT", "SHIB", "BCH", "NEAR", "ETC", "APT")
MARKETS = [f"KRW-{base}" for base in BASES]
SIZE = 1280, 800
COLOURS = 64
START_SECONDS, SETTLE_SECONDS = 30, 4

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
sys.path.insert(0, str(VIEWER))

import numpy as np  # noqa: E402
from main_window import MainWindow  # noqa: E402  # after the path to it
from qtpy.QtCore import QEventLoop, QSettings, Qt, QTimer  # noqa: E402
from qtpy.QtGui import QFont, QImage  # noqa: E402
from qtpy.QtWidgets import QApplication  # noqa: E402

from upbit_backbone import MarketDataBackbone  # noqa: E402
from upbit_backbone.simulator import FakeUpbit  # noqa: E402


def wait(seconds: float, until: Callable[[], object] = lambda: False) -> None:
    """Let the window live for so long, or until something has come."""
    loop = QEventLoop()
    QTimer.singleShot(int(seconds * 1000), loop.quit)
    look = QTimer(interval=20)
    look.timeout.connect(lambda: until() and loop.quit())
    look.start()
    loop.exec()


def settle(window: Any) -> None:
    """Until everything is there and live, and a few trades more."""
    panes = (window.chart.candles, window.book, window.trades)
    wait(START_SECONDS, lambda: window.chart.candles.rows and not any(pane.is_stale for pane in panes))
    wait(SETTLE_SECONDS)


def take(window: Any, name: str) -> None:
    """As few colours as a window needs: that is a fourth of the bytes."""
    picture = window.grab().toImage().convertToFormat(QImage.Format.Format_RGB32)
    pixels = np.frombuffer(picture.constBits(), np.uint32)
    colours, counts = np.unique(pixels, return_counts=True)
    table = [int(colour) for colour in colours[np.argsort(counts)[::-1][:COLOURS]]]
    picture = picture.convertToFormat(QImage.Format.Format_Indexed8, table, Qt.ImageConversionFlag.ThresholdDither)
    path = FOLDER / f"{name}.png"
    picture.save(str(path), "PNG", 0)  # 0: the smallest
    sys.stdout.write(f"{path} {path.stat().st_size // 1024} KB\n")


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    application = QApplication([])
    application.setStyle("Fusion")
    font = application.font()
    font.setStyleStrategy(QFont.StyleStrategy.NoSubpixelAntialias)
    application.setFont(font)
    with tempfile.TemporaryDirectory() as folder, FakeUpbit(seed=3, markets=MARKETS, trades_per_second=20) as upbit:
        settings = QSettings(str(Path(folder) / "viewer.ini"), QSettings.Format.IniFormat)
        settings.setValue("timeframe", "1h")
        with MarketDataBackbone(url=upbit.url) as market:
            window = MainWindow(market, settings)
            window.resize(*SIZE)
            window.show()
            settle(window)
            take(window, "chart-viewer")
            window.language_button.click()
            window.dark_button.click()
            window.search.setText("ㅇㄷ")
            window.show_market("KRW-ETH", "1d")
            settle(window)
            take(window, "chart-viewer-korean")
            window.search.clear()
            window.language_button.click()
            window.dark_button.click()
            window.show_market("KRW-BTC", "1h")
            settle(window)
            upbit.handshake_fault(times=None)
            upbit.drop_sessions()
            wait(START_SECONDS, lambda: window.chart.candles.is_stale)
            wait(1.0)
            take(window, "chart-viewer-outage")
            window.close()


if __name__ == "__main__":
    main()
