"""For Qt programs (extra `[qt]`; PyQt5, PyQt6, PySide2 and PySide6 through qtpy).

    bridge = MarketBridge(market, parent=window)
    table = TickerTableModel(parent=window)
    table.follow(bridge, quote="KRW")                  # every market of the currency, live
    view.setModel(table)
    bridge.ask(market.get_candles, "KRW-BTC", "1m", count=200, then=window.show_candles)

Nothing here blocks the GUI thread, and what is not provably current does not look live.
"""

from .bridge import MarketBridge, QtBridge
from .colours import INTERNATIONAL, KOREAN, ColourScheme
from .live import LiveBook, LiveCandles, LiveSubscription
from .orderbook_table import BarDelegate, OrderbookModel
from .question import Question
from .ticker_table import TickerTableModel
from .trade_tape import TradesModel

__all__ = [
    "INTERNATIONAL",
    "KOREAN",
    "BarDelegate",
    "ColourScheme",
    "LiveBook",
    "LiveCandles",
    "LiveSubscription",
    "MarketBridge",
    "OrderbookModel",
    "QtBridge",
    "Question",
    "TickerTableModel",
    "TradesModel",
]
