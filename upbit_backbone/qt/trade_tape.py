"""Trade tape: the newest trades of one market, newest first, and never more than so many."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from .._arguments import whole_number
from ..models.enums import DataType
from ..models.market import TradeData
from ..models.readable import number
from .bridge import MarketBridge
from .colours import KOREAN, ColourScheme
from .live import LiveSubscription
from .market_table import ALIGNMENT, DISPLAY, FOREGROUND, NONE, TO_THE_RIGHT, USER, OneMarketTable

TITLES: Final = (("Time", "체결시각"), ("Price", "체결가"), ("Volume", "체결량"), ("Value", "체결금액"))
TIME, PRICE, VOLUME, VALUE = range(4)
MOST_ROWS: Final = 100_000
ANSWERED: Final = frozenset({DISPLAY, FOREGROUND, ALIGNMENT, USER})


class TradesModel(OneMarketTable):
    """A table model of trades, the newest on top, at most `rows` of them. For the GUI thread.

        tape = TradesModel(rows=500, parent=window)
        tape.follow(bridge, "KRW-BTC")

    Rows are put in and taken out, never reset, so that a tape that is scrolled down stays where it is. What comes late,
    filled in after a break, is put where it belongs. Times are Korean wall-clock times; Qt.UserRole gives the values.
    """

    def __init__(
        self, rows: int = 500, *, colours: ColourScheme = KOREAN, language: str | None = None, parent: Any = None
    ) -> None:
        super().__init__(TITLES, colours, language, parent)
        self._most = whole_number(rows, "rows", low=1, high=MOST_ROWS)
        self._trades: list[TradeData] = []  # newest first

    def follow(self, bridge: MarketBridge, symbol: str) -> LiveSubscription:
        """Show the trades of this market from now on, instead of those before. Returns at once."""
        self._leave()
        self.clear()
        live = self._follow(bridge.subscribe(symbol, DataType.TRADE))
        live.received.connect(self.take)
        return live

    def clear(self) -> None:
        self.beginResetModel()
        self._trades, self.is_stale = [], True
        self.endResetModel()

    @property
    def trades(self) -> list[TradeData]:
        """Those that are shown, newest first."""
        return list(self._trades)

    def take(self, items: Iterable[Any]) -> None:
        """New trades, in the order they came; what is no TradeData is passed over."""
        trades = [item for item in items if isinstance(item, TradeData)]
        newest = self._trades[0].timestamp if self._trades else None
        late = [trade for trade in trades if newest is not None and trade.timestamp < newest]
        fresh = sorted(
            (trade for trade in trades if newest is None or trade.timestamp >= newest), key=lambda each: each.timestamp
        )[-self._most :]
        if fresh:
            self._insert(0, fresh[::-1])
        for trade in late:
            self._insert(self._place_of(trade), [trade])
        if (surplus := len(self._trades) - self._most) > 0:
            self.beginRemoveRows(NONE, self._most, self._most + surplus - 1)
            del self._trades[self._most :]
            self.endRemoveRows()

    # Qt's questions

    def data(self, index: Any, role: int = DISPLAY) -> Any:
        if role not in ANSWERED or not index.isValid() or (row := index.row()) >= len(self._trades):
            return None
        if role == ALIGNMENT:
            return TO_THE_RIGHT
        trade = self._trades[row]
        if role == FOREGROUND:
            return self.colours.of_stale() if self.is_stale else self.colours.of_side(trade.side)
        column = index.column()
        if role == DISPLAY:
            return _text(trade, column)
        return (trade.timestamp, trade.price, trade.volume, trade.price * trade.volume)[column]

    # Within

    def _row_count(self) -> int:
        return len(self._trades)

    def _insert(self, place: int, trades: list[TradeData]) -> None:
        self.beginInsertRows(NONE, place, place + len(trades) - 1)
        self._trades[place:place] = trades
        self.endInsertRows()

    def _place_of(self, late: TradeData) -> int:
        """Before the first that is not newer. Only what comes late looks for its place, and not far from the top."""
        older = (place for place, each in enumerate(self._trades) if each.timestamp <= late.timestamp)
        return next(older, len(self._trades))

    def __repr__(self) -> str:
        return f"<TradesModel {len(self._trades)} of at most {self._most} trades>"


def _text(trade: TradeData, column: int) -> str:
    if column == TIME:
        time = trade.timestamp_kst
        return f"{time.hour:02}:{time.minute:02}:{time.second:02}"  # ten times as fast as strftime, with each repaint
    return f"{trade.price * trade.volume:,.0f}" if column == VALUE else number((trade.price, trade.volume)[column - 1])
