"""Order-book ladder: asks above, bids below, each level a row that stays where it is."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final, NamedTuple

from ..models.market import OrderbookData
from ..models.readable import number
from .binding import QColor, QtCore, QtWidgets
from .bridge import MarketBridge
from .colours import KOREAN, ColourScheme
from .live import LiveBook
from .market_table import ALIGNMENT, DISPLAY, FOREGROUND, TO_THE_RIGHT, USER, OneMarketTable

BAR_OPACITY: Final = 60  # of 255: the number on top of a bar stays readable
TITLES: Final = (("Size", "잔량"), ("Price", "가격"), ("From close", "전일대비"), ("Cumulated", "누적"))
SIZE, PRICE, PERCENT, CUMULATED = range(4)

# How much of the widest bar this level's is, from 0.0 to 1.0; and whether the level is an ask.
BAR_ROLE: Final = USER + 1
IS_ASK_ROLE: Final = USER + 2
ANSWERED: Final = frozenset({DISPLAY, FOREGROUND, ALIGNMENT, USER, BAR_ROLE, IS_ASK_ROLE})


class Level(NamedTuple):
    """A row of the ladder, as it is shown."""

    price: Decimal
    size: Decimal
    cumulated: Decimal
    bar: float


class OrderbookModel(OneMarketTable):
    """A table model of one order book: `levels` asks from the dearest down, then as many bids. For the GUI thread.

        book = OrderbookModel(levels=15, parent=window)
        book.follow(bridge, "KRW-BTC")

    There are always twice `levels` rows, empty ones where the book has fewer, and a new book changes the rows that look
    different. Data in BAR_ROLE is the length of a level's bar (0.0 to 1.0 of the widest), which `BarDelegate` draws;
    Qt.UserRole gives a cell's value itself. A book that is not provably current is written in the `stale` colour.
    """

    def __init__(
        self, levels: int = 15, *, colours: ColourScheme = KOREAN, language: str | None = None, parent: Any = None
    ) -> None:
        super().__init__(TITLES, colours, language, parent)
        self.levels = levels
        self._rows: list[Level | None] = [None] * (2 * levels)
        self._prev_close: Decimal | None = None
        self.book: OrderbookData | None = None

    def follow(self, bridge: MarketBridge, symbol: str, level: Decimal | int | str = 0) -> LiveBook:
        """Show the book of this market from now on, its prices grouped by `level`. Returns at once."""
        self._leave()
        self.clear()
        live = self._follow(bridge.live_orderbook(symbol, self.levels, level))
        live.changed.connect(self.take)
        return live

    def clear(self) -> None:
        """Show nothing: what was there was another market's."""
        self.book, self.is_stale, self._prev_close = None, True, None
        self._put([None] * len(self._rows))

    def take(self, book: OrderbookData) -> None:
        """Show this book, whole, instead of the one before."""
        self.book = book
        asks, bids = book.asks[: self.levels], book.bids[: self.levels]
        widest = max((unit.size for unit in (*asks, *bids)), default=Decimal(0))
        above, below = _side(asks, widest), _side(bids, widest)
        blank: list[Level | None] = [None]
        self._put(
            blank * (self.levels - len(above)) + list(reversed(above)) + below + blank * (self.levels - len(below))
        )

    def set_prev_close(self, price: Decimal | None) -> None:
        """What the column of per cent compares with, from a ticker's `prev_closing_price`."""
        if price != self._prev_close:
            self._prev_close = price
            self._repaint()

    # Qt's questions

    def data(self, index: Any, role: int = DISPLAY) -> Any:
        row = self._rows[index.row()] if role in ANSWERED and index.isValid() else None
        if row is None:
            return None
        if role == ALIGNMENT:
            return TO_THE_RIGHT
        if role == FOREGROUND:
            return self._colour(row, index)
        if role == BAR_ROLE:
            return row.bar if index.column() == SIZE else None
        if role == IS_ASK_ROLE:
            return index.row() < self.levels
        value = self._value(row, index.column())
        if role == USER:
            return value
        return f"{value:+.2f} %" if index.column() == PERCENT and value is not None else number(value)

    # Within

    def _row_count(self) -> int:
        return len(self._rows)

    def _value(self, row: Level, column: int) -> Decimal | None:
        if column == PERCENT:
            return None if not self._prev_close else (row.price / self._prev_close - 1) * 100
        return (row.size, row.price, None, row.cumulated)[column]

    def _colour(self, row: Level, index: Any) -> Any:
        if self.is_stale:
            return self.colours.of_stale()
        if index.column() not in (PRICE, PERCENT) or self._prev_close is None:
            return None
        return self.colours.of_change(row.price - self._prev_close)

    def _put(self, rows: list[Level | None]) -> None:
        before, self._rows = self._rows, rows
        different = [place for place, (old, new) in enumerate(zip(before, rows, strict=True)) if old != new]
        if different:
            self._tell_rows(different[0], different[-1])

    def __repr__(self) -> str:
        return f"<OrderbookModel {self.book.symbol if self.book else 'empty'}{' stale' if self.is_stale else ''}>"


class BarDelegate(QtWidgets.QStyledItemDelegate):  # type: ignore[misc]
    """Draws each level's bar behind its size: `view.setItemDelegateForColumn(0, BarDelegate(view))`."""

    def paint(self, painter: Any, option: Any, index: Any) -> None:
        bar = index.data(BAR_ROLE)
        if bar:
            model = index.model()
            colours: ColourScheme = model.colours
            side = colours.down if index.data(IS_ASK_ROLE) else colours.up
            colour = QColor(colours.stale if model.is_stale else side)
            colour.setAlpha(BAR_OPACITY)
            width = option.rect.width() * bar
            area = QtCore.QRectF(option.rect.right() - width, option.rect.top(), width, option.rect.height() - 1)
            painter.fillRect(area, colour)
        super().paint(painter, option, index)


def _side(units: Any, widest: Decimal) -> list[Level]:
    """The levels of one side from the best one on."""
    levels, sum_of_sizes = [], Decimal(0)
    for unit in units:
        sum_of_sizes += unit.size
        levels.append(Level(unit.price, unit.size, sum_of_sizes, float(unit.size / widest) if widest else 0.0))
    return levels
