"""For Qt programs (extra `[qt]`; PyQt5, PyQt6, PySide2 and PySide6 through qtpy).

bridge = QtBridge(market.subscribe(["KRW-BTC", "KRW-ETH"], DataType.TICKER), parent=window)
bridge.received.connect(window.show_ticker)        # runs on the GUI thread
bridge.ask(market.get_candles, "KRW-BTC", "1m", count=200, then=window.show_candles)
"""

from __future__ import annotations

from .bridge import QtBridge

__all__ = ["QtBridge"]
