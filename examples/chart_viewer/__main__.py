"""A chart viewer for Upbit: watch list, candles, order book, trades, alerts.

    python -m pip install ".[chart]"
    python examples/chart_viewer                  # Upbit
    python examples/chart_viewer --simulator      # a local exchange with made-up prices

The parts are the library's (`upbit_backbone.qt`); what is here puts them into a window.
"""

from __future__ import annotations

import argparse
import contextlib
import sys

from main_window import MainWindow
from qtpy.QtCore import QSettings
from qtpy.QtWidgets import QApplication

from upbit_backbone import MarketDataBackbone
from upbit_backbone.simulator import FakeUpbit

CLOSE_SECONDS = 0.7  # the process ends within a second of its window, also while a server does not answer
PING_SECONDS = 0.65  # a line that froze is seen a quarter of a second after it; Upbit takes 100 messages a minute


def main() -> int:
    parser = argparse.ArgumentParser(prog="chart_viewer", description="A chart viewer for Upbit.")
    parser.add_argument("--simulator", action="store_true", help="show a local exchange with made-up prices")
    parser.add_argument("--market", help="the market to begin with (default: the last one shown)")
    chosen, qt_arguments = parser.parse_known_args()
    application = QApplication([sys.argv[0], *qt_arguments])
    application.setStyle("Fusion")  # follows the palette on every platform
    with contextlib.ExitStack() as stack:
        settings = {"close_timeout_seconds": CLOSE_SECONDS, "ping_interval_seconds": PING_SECONDS}
        if chosen.simulator:
            settings["url"] = stack.enter_context(FakeUpbit(trades_per_second=0.3)).url
        market = stack.enter_context(MarketDataBackbone(**settings))
        window = MainWindow(market, QSettings("upbit-backbone", "chart-viewer"), chosen.market)
        window.show()
        return int(application.exec())


if __name__ == "__main__":
    sys.exit(main())
