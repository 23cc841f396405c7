"""The window: watch list, chart, order book and trades of one market, alerts, and a line that says how it all is."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from chart_pane import ChartPane
from qtpy import QtWidgets
from qtpy.QtCore import QModelIndex, QSettings, QSize, Qt, QTimer
from words import Words, palette

from upbit_backbone import GapEvent, MarketChange, MarketDataBackbone, MarketEvent, SubscriptionEvent, TickerData
from upbit_backbone.qt import (
    INTERNATIONAL,
    KOREAN,
    BarDelegate,
    MarketBridge,
    OrderbookModel,
    TickerTableModel,
    TradesModel,
)

TIMEFRAMES = ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "4h", "1d", "1w", "1M", "1y")
QUOTES = ("KRW", "BTC", "USDT")
STATUS_MILLISECONDS = 250
NARROW = 1200  # pixels
MESSAGES_KEPT = 200


def table_view(model: Any, *widths: int) -> QtWidgets.QTableView:
    view = QtWidgets.QTableView()
    view.setModel(model)
    for column, width in enumerate(widths):
        view.setColumnWidth(column, width)
    view.verticalHeader().hide()
    view.verticalHeader().setDefaultSectionSize(20)
    view.horizontalHeader().setHighlightSections(False)
    view.horizontalHeader().setSectionResizeMode(len(widths), QtWidgets.QHeaderView.ResizeMode.Stretch)
    view.setSelectionBehavior(QtWidgets.QAbstractItemView.SelectionBehavior.SelectRows)
    view.setSelectionMode(QtWidgets.QAbstractItemView.SelectionMode.SingleSelection)
    view.setShowGrid(False)
    view.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    view.setWordWrap(False)
    return view


def row_of(*widgets: QtWidgets.QWidget) -> QtWidgets.QWidget:
    holder = QtWidgets.QWidget()
    layout = QtWidgets.QHBoxLayout(holder)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(2)  # a small screen has room for twelve time frames then
    for widget in widgets:
        layout.addWidget(widget)
    return holder


class MainWindow(QtWidgets.QMainWindow):
    """Everything of it is on the GUI thread; what takes time, the bridge has done elsewhere."""

    def __init__(self, market: MarketDataBackbone, settings: QSettings, symbol: str | None = None) -> None:
        super().__init__()
        self._settings = settings
        language = str(settings.value("language", "en"))
        self.is_dark = str(settings.value("dark", "true")) == "true"
        self.colours = INTERNATIONAL if settings.value("colours") == INTERNATIONAL.name else KOREAN
        self.symbol = symbol or str(settings.value("market", "KRW-BTC"))
        self.timeframe = str(settings.value("timeframe", "1m"))
        self.words = Words(language)
        self.alerts: dict[str, list[tuple[Decimal, bool]]] = {}  # market: price, and whether it is reached from below
        self.bridge = MarketBridge(market, self)
        options: dict[str, Any] = {"colours": self.colours, "language": language, "parent": self}
        self.watch_list = TickerTableModel(**options)
        self.book = OrderbookModel(levels=15, **options)
        self.trades = TradesModel(rows=300, **options)
        self.chart = ChartPane(self.bridge, self.colours, self.words)
        self._make_controls()
        self._make_panes()
        self._connect()
        self.follow_quote(self.symbol.partition("-")[0])
        self.show_market(self.symbol)
        self._set_appearance()

    # The parts

    def _make_controls(self) -> None:
        self.search = QtWidgets.QLineEdit(clearButtonEnabled=True)
        self.quote = QtWidgets.QComboBox()
        self.quote.addItems(QUOTES)
        self.timeframes = QtWidgets.QButtonGroup(self)
        for timeframe in TIMEFRAMES:
            self.timeframes.addButton(QtWidgets.QToolButton(self, text=timeframe, checkable=True, autoRaise=True))
        self.alert_price = QtWidgets.QLineEdit(returnPressed=self._set_alert)
        self.alert_price.setFixedWidth(96)
        self.alert_button = QtWidgets.QPushButton(clicked=self._set_alert)
        self.language_button = QtWidgets.QPushButton(clicked=self._other_language)
        self.dark_button = QtWidgets.QPushButton(checkable=True, checked=self.is_dark)
        self.colour_button = QtWidgets.QPushButton(checkable=True, checked=self.colours is KOREAN)
        self.messages = QtWidgets.QPlainTextEdit(readOnly=True, maximumBlockCount=MESSAGES_KEPT, maximumHeight=64)
        self.notice = QtWidgets.QLabel(minimumWidth=1)
        self.state = QtWidgets.QLabel()

    def _make_panes(self) -> None:
        self.watch_view = table_view(self.watch_list, 80, 88, 90, 62)
        self.watch_view.setSortingEnabled(True)
        self.watch_view.sortByColumn(4, Qt.SortOrder.DescendingOrder)
        self.book_view = table_view(self.book, 84, 92, 66)
        self.book_view.setItemDelegateForColumn(0, BarDelegate(self.book_view))
        self.book_view.setSelectionMode(QtWidgets.QAbstractItemView.SelectionMode.NoSelection)
        self.trades_view = table_view(self.trades, 60, 86, 90)
        left, right, middle = QtWidgets.QWidget(), QtWidgets.QSplitter(Qt.Orientation.Vertical), QtWidgets.QWidget()
        left_layout, middle_layout = QtWidgets.QVBoxLayout(left), QtWidgets.QVBoxLayout(middle)
        left_layout.addWidget(row_of(self.search, self.quote))
        left_layout.addWidget(self.watch_view)
        right.addWidget(self.book_view)
        right.addWidget(self.trades_view)
        right.setSizes([630, 260])
        controls = (self.alert_price, self.alert_button, self.colour_button, self.dark_button, self.language_button)
        middle_layout.addWidget(row_of(*self.timeframes.buttons()))
        middle_layout.addWidget(row_of(*controls))
        middle_layout.addWidget(self.chart, 1)
        middle_layout.addWidget(self.messages)
        for layout in (left_layout, middle_layout):
            layout.setContentsMargins(4, 4, 4, 4)
        splitter = QtWidgets.QSplitter()
        for part, width in ((left, 249), (middle, 400), (right, 238)):
            splitter.addWidget(part)
            splitter.setStretchFactor(splitter.count() - 1, part is middle)
            part.setMinimumWidth(width)
        splitter.setSizes([440, 800, 340])
        self.setCentralWidget(splitter)
        self.statusBar().addWidget(self.notice, 1)
        self.statusBar().addPermanentWidget(self.state)
        self.resize(QSize(1680, 940).boundedTo(self.screen().availableSize()))
        if (geometry := self._settings.value("geometry")) is not None:
            self.restoreGeometry(geometry)

    def resizeEvent(self, event: Any) -> None:  # noqa: N802  # Qt's name
        """A small window shows the numbers that matter most, and none of them cut."""
        is_narrow = event.size().width() < NARROW
        for view, columns in ((self.watch_view, (1, 4)), (self.book_view, (2, 3)), (self.trades_view, (3,))):
            for column in columns:
                view.setColumnHidden(column, is_narrow)
        self.trades_view.setColumnWidth(2, 76 if is_narrow else 90)
        super().resizeEvent(event)

    def _connect(self) -> None:
        self.bridge.received_many.connect(self._items_came)
        self.bridge.event.connect(self._happened)
        self.bridge.failed.connect(lambda error: self._say(str(error)))
        self.bridge.stale_changed.connect(self._refresh_status)
        self.chart.notice.connect(self.notice.setText)
        self.search.textChanged.connect(self.watch_list.set_filter)
        self.search.returnPressed.connect(self._chosen_by_search)
        self.quote.currentTextChanged.connect(self.follow_quote)
        self.watch_view.clicked.connect(self._clicked)
        self.watch_view.activated.connect(self._clicked)
        self.timeframes.buttonClicked.connect(lambda button: self.show_market(self.symbol, button.text()))
        self.dark_button.toggled.connect(self._set_appearance)
        self.colour_button.toggled.connect(self._set_appearance)
        self._status_timer = QTimer(self, interval=STATUS_MILLISECONDS, timeout=self._refresh_status)
        self._status_timer.start()

    # What is shown

    def follow_quote(self, quote: str) -> None:
        """Watch every market of this currency, by one subscription."""
        if self.quote.currentText() != quote:
            self.quote.setCurrentText(quote)  # which comes back here
            if self.quote.currentText() == quote:
                return
        self.watch_list.follow(self.bridge, quote=quote)

    def show_market(self, symbol: str, timeframe: str | None = None) -> None:
        """Show this market in the chart, the ladder and the tape."""
        is_other = symbol != self.symbol or self.book.live is None
        self.symbol, self.timeframe = symbol, timeframe or self.timeframe
        self.setWindowTitle(f"{self.symbol} {self.timeframe} – {self.words('title')}")
        self.notice.setText("")
        for button in self.timeframes.buttons():
            button.setChecked(button.text() == self.timeframe)
        self.chart.show_market(self.symbol, self.timeframe)
        if is_other:
            self.book.follow(self.bridge, symbol)
            self.trades.follow(self.bridge, symbol)
            self.alert_price.clear()

    def _clicked(self, index: QModelIndex) -> None:
        symbol = self.watch_list.symbol_at(index.row())
        if symbol is not None and symbol != self.symbol:
            self.show_market(symbol)

    def _chosen_by_search(self) -> None:
        found = self.watch_list.symbol_at(0)
        if found is None:
            self._say(self.words("no_match", self.search.text()))
        else:
            self.show_market(found)
            self.search.clear()

    # What happens

    def _items_came(self, items: list[Any]) -> None:
        for item in items:
            if isinstance(item, TickerData):
                if item.symbol == self.symbol:
                    self.book.set_prev_close(item.prev_closing_price)
                if item.symbol in self.alerts:
                    self._check_alerts(item)

    def _happened(self, event: object) -> None:
        if isinstance(event, GapEvent) and event.symbol == self.symbol:
            missing = "" if event.complete else self.words("incomplete")
            self._say(self.words("gap", event.symbol, event.recovered, missing))
        elif isinstance(event, MarketEvent) and event.change is MarketChange.DELISTED:
            self._say(self.words("delisted", event.symbol))
        elif isinstance(event, MarketEvent):
            self._say(f"{event.symbol}: {event.change.value} {event.after or ''}")
        elif isinstance(event, SubscriptionEvent):
            self._say(f"{', '.join(event.topics[:3])}: {event.reason}")

    def _say(self, text: str) -> None:
        self.notice.setText(text)
        self.messages.appendPlainText(f"{datetime.now():%H:%M:%S}  {text}")

    def _refresh_status(self, *_: object) -> None:
        """Where the price comes from, how old it is, and how the line is: by what is provable, not by what came."""
        ticker = self.watch_list.ticker_of(self.symbol)
        if self.bridge.market.closed:
            state = self.words("closed")
        elif ticker is None:
            word = "stale" if self.book.is_stale else "live"
            state = self.words(word if self.bridge.is_connected else "connecting")
        else:
            age = max(0.0, (datetime.now(UTC) - ticker.timestamp).total_seconds())
            is_stale = self.watch_list.is_stale(self.symbol)
            word = "stale" if is_stale and self.bridge.is_connected else "disconnected" if is_stale else "live"
            price = f"{ticker.symbol} {ticker.current_price:,f} {ticker.change_percent or 0:+.2f} %"
            state = f"{price}   {ticker.source.value}, {self.words('age', f'{age:.0f}')}   {self.words(word)}"
        self.state.setText(state)
        is_live = state.endswith(self.words("live"))
        self.state.setStyleSheet("" if is_live else "background: #b3261e; color: white; padding: 0 6px;")

    # Alerts

    def _set_alert(self) -> None:
        try:
            price = Decimal(self.alert_price.text().replace(",", ""))
        except InvalidOperation:
            self._say(f"{self.words('alert')} {self.alert_price.text()!r}?")
            return
        ticker = self.watch_list.ticker_of(self.symbol)
        if ticker is not None and price.is_finite():
            self.alerts.setdefault(self.symbol, []).append((price, price > ticker.current_price))
            self._say(self.words("alert_set", self.symbol, f"{price:,f}"))

    def _check_alerts(self, ticker: TickerData) -> None:
        for alert in list(self.alerts[ticker.symbol]):
            price, is_from_below = alert
            is_reached = ticker.current_price >= price if is_from_below else ticker.current_price <= price
            if is_reached:
                self.alerts[ticker.symbol].remove(alert)
                self._say(self.words("alert_hit", ticker.symbol, f"{price:,f}"))
                QtWidgets.QApplication.alert(self)
                QtWidgets.QApplication.beep()

    # How it looks

    def _other_language(self) -> None:
        self.words.language = "en" if self.words.language == "ko" else "ko"
        for model in (self.watch_list, self.book, self.trades):
            model.set_language(self.words.language)
        self._set_appearance()

    def _set_appearance(self, *_: object) -> None:
        self.is_dark = self.dark_button.isChecked()
        self.colours = KOREAN if self.colour_button.isChecked() else INTERNATIONAL
        QtWidgets.QApplication.instance().setPalette(palette(self.is_dark))
        for model in (self.watch_list, self.book, self.trades):
            model.set_colours(self.colours)
        self.chart.set_colours(self.colours, self.is_dark)
        self.search.setPlaceholderText(self.words("search"))
        named = (("alert", self.alert_button), ("dark", self.dark_button), ("colours", self.colour_button))
        for key, button in (*named, ("language", self.language_button)):
            button.setText(self.words(key))
        self.setWindowTitle(f"{self.symbol} {self.timeframe} – {self.words('title')}")

    def closeEvent(self, event: Any) -> None:  # noqa: N802  # Qt's name
        for key, value in (
            ("language", self.words.language),
            ("dark", "true" if self.is_dark else "false"),
            ("colours", self.colours.name),
            ("market", self.symbol),
            ("timeframe", self.timeframe),
            ("geometry", self.saveGeometry()),
        ):
            self._settings.setValue(key, value)
        self.bridge.close()
        super().closeEvent(event)
