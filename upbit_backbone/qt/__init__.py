"""For Qt programs (extra `[qt]`; PyQt5, PyQt6, PySide2 and PySide6 through qtpy).

    bridge = MarketBridge(market, parent=window)
    bridge.received.connect(window.show_ticker)        # runs on the GUI thread
    bridge.subscribe(["KRW-BTC", "KRW-ETH"])
    bridge.ask(market.get_candles, "KRW-BTC", "1m", count=200, then=window.show_candles)

Nothing here blocks the GUI thread.
"""

from __future__ import annotations

from .bridge import MarketBridge, QtBridge
from .live import LiveBook, LiveCandles, LiveSubscription
from .question import Question

__all__ = ["LiveBook", "LiveCandles", "LiveSubscription", "MarketBridge", "QtBridge", "Question"]
