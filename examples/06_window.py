"""Live prices in a Qt window that never waits for the network: prices come as they change, questions go off-thread."""

from qtpy import QtWidgets

from upbit_backbone import CandleData, DataType, MarketDataBackbone, TickerData
from upbit_backbone.qt import QtBridge

SYMBOLS = ["KRW-BTC", "KRW-ETH", "KRW-XRP"]
COLUMNS = ["Price", "Change", "Highest of 60 minutes"]


class Viewer(QtWidgets.QTableWidget):
    def __init__(self, market: MarketDataBackbone) -> None:
        super().__init__(len(SYMBOLS), len(COLUMNS))
        self.setHorizontalHeaderLabels(COLUMNS)
        self.setVerticalHeaderLabels(SYMBOLS)
        self.bridge = QtBridge(market.subscribe(SYMBOLS, DataType.TICKER), parent=self)
        self.bridge.received.connect(self.show_ticker)  # at most once per screen refresh and market
        self.bridge.failed.connect(lambda error: self.setWindowTitle(str(error)))
        for symbol in SYMBOLS:
            self.bridge.ask(market.get_candles, symbol, "1m", count=60, then=self.show_candles)

    def show_ticker(self, ticker: TickerData) -> None:
        self.write(ticker.symbol, 0, f"{ticker.current_price:,}")
        self.write(ticker.symbol, 1, f"{ticker.change_percent:+.2f} %")

    def show_candles(self, candles: list[CandleData]) -> None:
        self.write(candles[0].symbol, 2, f"{max(candle.high_price for candle in candles):,}")

    def write(self, symbol: str, column: int, text: str) -> None:
        self.setItem(SYMBOLS.index(symbol), column, QtWidgets.QTableWidgetItem(text))
        if "…" not in str(self):
            self.close()  # a viewer of yours stays open: leave these two lines out

    def __str__(self) -> str:
        rows = [[self.item(row, column) for column in range(len(COLUMNS))] for row in range(len(SYMBOLS))]
        return "\n".join(" | ".join(cell.text() if cell else "…" for cell in row) for row in rows)


application = QtWidgets.QApplication([])
with MarketDataBackbone() as market:
    viewer = Viewer(market)
    viewer.show()
    application.exec()
    print(viewer)
