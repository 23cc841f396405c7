"""Ticker table: every market a row, kept by the stream, sorted and searched; changed cell by cell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Any, Final, NamedTuple

from ..models.enums import DataType
from ..models.events import MarketChange, MarketEvent
from ..models.market import MarketInfo, TickerData
from ..models.readable import moment, number
from . import market_table
from .binding import Qt, QTimer
from .bridge import MarketBridge
from .colours import KOREAN, ColourScheme
from .live import LiveSubscription
from .market_search import matches

NAMES_AGAIN_MILLISECONDS: Final = 5_000
ANSWERED: Final = frozenset(
    {market_table.DISPLAY, market_table.FOREGROUND, market_table.ALIGNMENT, market_table.USER, market_table.TOOL_TIP}
)
SORT_SECONDS: Final = 1.0  # rows that jump about with every trade cannot be read, nor clicked


class Column(NamedTuple):
    """What a column shows of a row. `value` is what it is sorted by, None last whichever way."""

    key: str
    english: str
    korean: str
    value: Callable[[Row], Any]
    text: Callable[[Any], str]
    is_coloured: bool = False
    is_text: bool = False


class Row:
    """A market: its names, and its newest ticker or None."""

    __slots__ = ("english", "is_stale", "is_wanted", "korean", "shown", "symbol", "ticker")

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.korean = self.english = ""
        self.ticker: TickerData | None = None
        self.is_stale = True
        self.is_wanted = True  # passes the filter
        self.shown: tuple[Any, ...] = ()  # the values of all columns


def _of_ticker(name: str) -> Callable[[Row], Any]:
    return lambda row: None if row.ticker is None else getattr(row.ticker, name)


def _percent(value: Any) -> str:
    return "–" if value is None else f"{value:+.2f} %"


def _whole(value: Any) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _signed(value: Any) -> str:
    return "–" if value is None else f"{value:+,f}"


COLUMNS: Final = (
    Column("symbol", "Market", "마켓", lambda row: row.symbol, str, is_text=True),
    Column("name", "Name", "이름", lambda row: row.english, str, is_text=True),
    Column("price", "Price", "현재가", _of_ticker("current_price"), number, is_coloured=True),
    Column("change", "Change", "전일대비", _of_ticker("change_percent"), _percent, is_coloured=True),
    Column("amount", "Difference", "변동액", _of_ticker("change_amount"), _signed, is_coloured=True),
    Column("turnover", "Turnover 24 h", "거래대금(24h)", _of_ticker("traded_value_24h"), _whole),
    Column("volume", "Volume 24 h", "거래량(24h)", _of_ticker("volume_24h"), _whole),
    Column("high", "High today", "당일 고가", _of_ticker("high_24h"), number),
    Column("low", "Low today", "당일 저가", _of_ticker("low_24h"), number),
)


class TickerTableModel(market_table.MarketTable):
    """A table model of tickers, for a QTableView. For the GUI thread.

        table = TickerTableModel(parent=window)
        table.follow(bridge, quote="KRW")
        view.setModel(table)

    `sort(column, order)`, which a view with `setSortingEnabled(True)` calls, keeps rows in order as they change, at
    most once a second; `set_filter("ㅂㅌㅋㅇ")` shows what `market_search.matches`. A ticker changes the cells that
    look different and nothing else, so selection and scroll position stay. What is not provably current is written in
    the colour scheme's `stale` colour. Qt.UserRole gives a cell's value itself, for delegates.
    """

    def __init__(
        self,
        *,
        columns: Sequence[str] = ("symbol", "name", "price", "change", "turnover"),
        colours: ColourScheme = KOREAN,
        language: str | None = None,
        parent: Any = None,
    ) -> None:
        """`columns` are keys of COLUMNS (ValueError for others); `language` is "ko" or "en" (default: the user's)."""
        known = {column.key: column for column in COLUMNS}
        if unknown := [key for key in columns if key not in known]:
            raise ValueError(f"columns={unknown}: expected keys of {', '.join(known)}")
        self.columns = tuple(known[key] for key in columns)
        super().__init__([(each.english, each.korean) for each in self.columns], colours, language, parent)
        self._all: dict[str, Row] = {}
        self._rows: list[Row] = []  # that pass the filter, in the order shown
        self._places: dict[str, int] = {}
        self._filter = ""
        self._sorted_by = 0
        self._order = Qt.SortOrder.AscendingOrder
        self._sorted_at = float("-inf")
        self._bridge: MarketBridge | None = None
        self._quote: str | None = None
        self._is_new = True
        self._stale: frozenset[str] | None = None  # nothing is known of it yet
        self._names_again = QTimer(self)
        self._names_again.setSingleShot(True)
        self._names_again.timeout.connect(self._ask_names)

    # Where the rows come from

    def follow(self, bridge: MarketBridge, quote: str | None = None, symbols: Iterable[str] = ()) -> LiveSubscription:
        """Show all markets of a quote currency, new ones as they are listed, or these symbols. Returns at once.

        What was shown before is forgotten, and its subscription closed.
        """
        self._leave()
        self.set_symbols(chosen := list(symbols))
        self._quote = quote
        if self._bridge is not bridge:
            self._bridge = bridge
            bridge.event.connect(self._happened)
        options: dict[str, Any] = {"quote": quote} if quote is not None else {"symbols": chosen}
        live = self._follow(bridge.subscribe(data_types=DataType.TICKER, **options))
        live.received.connect(self.take)
        self._ask_names()
        return live

    def _ask_names(self) -> None:
        if self._bridge is not None:
            self._bridge.cancel(self)
            self._bridge.ask(
                self._bridge.market.get_markets, self._quote, then=self.set_markets, failed=self._no_names, tag=self
            )

    def _no_names(self, error: object) -> None:
        """The table does without; they are asked for until they come."""
        self._names_again.start(NAMES_AGAIN_MILLISECONDS)

    def _happened(self, event: object) -> None:
        if isinstance(event, MarketEvent) and event.change in (MarketChange.LISTED, MarketChange.RENAMED):
            self._ask_names()
        elif isinstance(event, MarketEvent) and event.change is MarketChange.DELISTED and self._quote is not None:
            self._all.pop(event.symbol, None)
            self._arrange()

    def set_symbols(self, symbols: Iterable[str]) -> None:
        """Exactly these rows, without prices until tickers come."""
        self._all, self._stale, self._is_new = {}, None, True
        for symbol in symbols:
            self._new_row(symbol)
        self._arrange()

    def set_markets(self, markets: Iterable[MarketInfo]) -> None:
        """The names of markets; with a quote currency followed, rows for those that have none yet."""
        for market in markets:
            row = self._all.get(market.symbol)
            if row is None and self._quote is not None:
                row = self._new_row(market.symbol)
            if row is not None:
                row.korean, row.english = market.korean_name or "", market.english_name or ""
                row.is_wanted = self._passes(row)
                self._show(row)
        self._arrange()

    def take(self, items: Iterable[Any]) -> None:
        """New tickers, of any number of markets; what is no TickerData is passed over."""
        has_new_rows = False
        for item in items:
            if not isinstance(item, TickerData):
                continue
            row = self._all.get(item.symbol)
            if row is None:
                row = self._new_row(item.symbol)
                has_new_rows = True
            row.ticker = item
            self._show(row)
        if has_new_rows or monotonic() - self._sorted_at >= SORT_SECONDS:
            self._arrange()

    def set_stale(self, symbols: frozenset[str]) -> None:
        """These markets are not provably current; all others are."""
        self._stale = symbols
        for row in self._all.values():
            is_stale = row.symbol in symbols
            if row.is_stale is not is_stale:
                row.is_stale = is_stale
                self._tell(row, 0, len(self.columns) - 1)

    # What is shown, and in which order

    def set_filter(self, typed: str) -> None:
        """Show markets whose code or name, Korean or English, has what was typed; "" shows all."""
        self._filter = typed
        for row in self._all.values():
            row.is_wanted = self._passes(row)
        self._arrange()

    def set_language(self, language: str) -> None:
        super().set_language(language)
        for row in self._all.values():
            row.shown = self._values(row)
        self._repaint()

    def sort(self, column: int, order: Any = Qt.SortOrder.AscendingOrder) -> None:
        """Keep the rows in the order of that column. (Qt's own name for it.)"""
        self._sorted_by, self._order = column, order
        self._arrange()

    def symbol_at(self, row: int) -> str | None:
        """The market of a row; None where there is no such row."""
        return self._rows[row].symbol if 0 <= row < len(self._rows) else None

    def ticker_of(self, symbol: str) -> TickerData | None:
        """The newest ticker of a market, current or not; None before the first."""
        row = self._all.get(symbol)
        return None if row is None else row.ticker

    def is_stale(self, symbol: str) -> bool:
        """Whether what is shown of a market is not provably current."""
        row = self._all.get(symbol)
        return row is None or row.ticker is None or row.is_stale

    def row_of(self, symbol: str) -> int | None:
        """The row of a market; None where it is not shown."""
        return self._places.get(symbol)

    # Qt's questions

    def data(self, index: Any, role: int = market_table.DISPLAY) -> Any:
        if role not in ANSWERED or not index.isValid() or (at := index.row()) >= len(self._rows):
            return None
        row, place = self._rows[at], index.column()
        column = self.columns[place]
        if role == market_table.DISPLAY:
            return column.text(row.shown[place])
        if role == market_table.FOREGROUND:
            return self._colour(row, column)
        if role == market_table.ALIGNMENT:
            return market_table.TO_THE_LEFT if column.is_text else market_table.TO_THE_RIGHT
        return row.shown[place] if role == market_table.USER else self._tip(row)

    # Within

    def _row_count(self) -> int:
        return len(self._rows)

    def _values(self, row: Row) -> tuple[Any, ...]:
        return tuple(
            row.korean if column.key == "name" and self._is_korean and row.korean else column.value(row)
            for column in self.columns
        )

    def _new_row(self, symbol: str) -> Row:
        row = self._all[symbol] = Row(symbol)
        row.is_stale = self._stale is None or symbol in self._stale
        row.is_wanted = self._passes(row)
        row.shown = self._values(row)
        return row

    def _passes(self, row: Row) -> bool:
        return not self._filter or matches(self._filter, row.symbol, row.korean, row.english)

    def _show(self, row: Row) -> None:
        """Tell the view of the cells that look different now."""
        before, row.shown = row.shown, self._values(row)
        different = [place for place, (old, new) in enumerate(zip(before, row.shown, strict=True)) if old != new]
        if different:
            self._tell(row, different[0], different[-1])

    def _tell(self, row: Row, first: int, last: int) -> None:
        place = self._places.get(row.symbol)
        if place is not None and self._rows[place] is row:
            self.dataChanged.emit(self.index(place, first), self.index(place, last))

    def _colour(self, row: Row, column: Column) -> Any:
        if row.is_stale or row.ticker is None:
            return self.colours.of_stale()
        return self.colours.of_change(row.ticker.change_amount) if column.is_coloured else None

    def _tip(self, row: Row) -> str:
        names = f"{row.symbol} {row.korean} {row.english}".rstrip()
        if row.ticker is None:
            return f"{names}\n{'아직 시세가 없습니다' if self._is_korean else 'no price yet'}"
        state = ("현재 시세 아님: " if self._is_korean else "not current: ") if row.is_stale else ""
        return f"{names}\n{state}{moment(row.ticker.timestamp)} ({row.ticker.source.value})"

    def _arrange(self) -> None:
        """Have the rows shown that pass the filter, in order: what has left is taken out, what is new comes in, and
        what has only moved keeps its selection."""
        self._sorted_at = monotonic()
        wanted = self._in_order()
        if self._is_new:  # another table altogether
            self._is_new = False
            self.beginResetModel()
            self._put(wanted)
            self.endResetModel()
            return
        self._take_out({id(row) for row in wanted})
        shown = {id(row) for row in self._rows}
        if fresh := [row for row in wanted if id(row) not in shown]:
            self.beginInsertRows(market_table.NONE, len(self._rows), len(self._rows) + len(fresh) - 1)
            self._put(self._rows + fresh)
            self.endInsertRows()
        if [id(row) for row in self._rows] != [id(row) for row in wanted]:
            self._reorder(wanted)

    def _in_order(self) -> list[Row]:
        rows = [row for row in self._all.values() if row.is_wanted]
        place, is_descending = self._sorted_by, self._order == Qt.SortOrder.DescendingOrder
        if not 0 <= place < len(self.columns):
            return rows
        known = [row for row in rows if row.shown[place] is not None]
        known.sort(key=lambda row: row.shown[place], reverse=is_descending)
        return known + [row for row in rows if row.shown[place] is None]

    def _take_out(self, wanted: set[int]) -> None:
        """From the end, so that the numbers of those before stay; neighbours in one go."""
        last = len(self._rows) - 1
        while last >= 0:
            if id(self._rows[last]) in wanted:
                last -= 1
                continue
            first = last
            while first > 0 and id(self._rows[first - 1]) not in wanted:
                first -= 1
            self.beginRemoveRows(market_table.NONE, first, last)
            self._put(self._rows[:first] + self._rows[last + 1 :])
            self.endRemoveRows()
            last = first - 1

    def _reorder(self, wanted: list[Row]) -> None:
        self.layoutAboutToBeChanged.emit()
        kept = self.persistentIndexList()
        rows = [self._rows[index.row()].symbol for index in kept]
        self._put(wanted)
        moved = [self.index(self._places[symbol], index.column()) for symbol, index in zip(rows, kept, strict=True)]
        self.changePersistentIndexList(kept, moved)
        self.layoutChanged.emit()

    def _put(self, rows: list[Row]) -> None:
        self._rows = rows
        self._places = {row.symbol: place for place, row in enumerate(rows)}

    def __repr__(self) -> str:
        return f"<TickerTableModel {len(self._rows)} of {len(self._all)} markets>"
