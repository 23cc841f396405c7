"""Table models: what a view shows, built from the models' signals alone, is what the models hold."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from qtpy.QtCore import QModelIndex, QPersistentModelIndex, Qt
from qtpy.QtGui import QColor
from qtpy.QtTest import QAbstractItemModelTester

from tests.support.qt import run_until
from upbit_backbone import (
    DataSource,
    InvalidRequestError,
    MarketDataBackbone,
    MarketInfo,
    OrderbookData,
    OrderbookUnit,
    TickerData,
    TradeData,
)
from upbit_backbone.qt import INTERNATIONAL, KOREAN, MarketBridge, OrderbookModel, TickerTableModel, TradesModel
from upbit_backbone.qt import ticker_table as module
from upbit_backbone.qt.orderbook_table import BAR_ROLE, IS_ASK_ROLE
from upbit_backbone.simulator import FakeUpbit

NOW = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
SHOWN = Qt.ItemDataRole.DisplayRole
DESCENDING, ASCENDING = Qt.SortOrder.DescendingOrder, Qt.SortOrder.AscendingOrder


def ticker(symbol: str, price: str = "100", change: str = "1", turnover: str = "5") -> TickerData:
    amount = Decimal(change)
    return TickerData(
        symbol=symbol,
        current_price=Decimal(price),
        change_rate=amount / 100,
        change_amount=amount,
        volume_24h=Decimal(1),
        high_24h=None,
        low_24h=None,
        prev_closing_price=Decimal(100),
        timestamp=NOW,
        source=DataSource.WEBSOCKET,
        traded_value_24h=Decimal(turnover),
    )


def trade(number: int, seconds: float = 0.0, side: str = "BID") -> TradeData:
    return TradeData(
        symbol="KRW-BTC",
        price=Decimal(1000 + number),
        volume=Decimal("0.5"),
        side=side,
        timestamp=NOW + timedelta(seconds=seconds),
        sequential_id=number,
        source=DataSource.WEBSOCKET,
    )


def book(asks: list[tuple[int, str]], bids: list[tuple[int, str]]) -> OrderbookData:
    def side(levels: list[tuple[int, str]]) -> tuple[OrderbookUnit, ...]:
        return tuple(OrderbookUnit(Decimal(price), Decimal(size)) for price, size in levels)

    return OrderbookData(
        symbol="KRW-BTC",
        asks=side(asks),
        bids=side(bids),
        total_ask_size=None,
        total_bid_size=None,
        timestamp=NOW,
        source=DataSource.WEBSOCKET,
    )


class Picture:
    """A view's picture of a model, kept by its signals alone."""

    def __init__(self, model: Any) -> None:
        self.model = model
        # Qt's own judge of models: it complains of each signal that does not agree with the model.
        self.tester = QAbstractItemModelTester(model, QAbstractItemModelTester.FailureReportingMode.Fatal)
        self.resets = 0
        self.changed: list[tuple[int, int, int, int]] = []
        self.rows: list[list[Any]] = self._all()
        model.modelReset.connect(self._reset)
        model.rowsInserted.connect(self._inserted)
        model.rowsRemoved.connect(self._removed)
        model.dataChanged.connect(self._changed)
        model.layoutChanged.connect(self._laid_out)

    def row(self, number: int) -> list[Any]:
        return [self.model.data(self.model.index(number, column), SHOWN) for column in range(self.model.columnCount())]

    def _all(self) -> list[list[Any]]:
        return [self.row(number) for number in range(self.model.rowCount())]

    def _reset(self) -> None:
        self.resets += 1
        self.rows = self._all()

    def _inserted(self, _: QModelIndex, first: int, last: int) -> None:
        self.rows[first:first] = [self.row(number) for number in range(first, last + 1)]

    def _removed(self, _: QModelIndex, first: int, last: int) -> None:
        del self.rows[first : last + 1]

    def _changed(self, first: QModelIndex, last: QModelIndex, *_: Any) -> None:
        self.changed.append((first.row(), first.column(), last.row(), last.column()))
        for number in range(first.row(), last.row() + 1):
            self.rows[number][first.column() : last.column() + 1] = self.row(number)[first.column() : last.column() + 1]

    def _laid_out(self, *_: Any) -> None:
        self.rows = self._all()

    def check(self) -> None:
        assert self.rows == self._all()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are sorted with each change, not once a second."""
    monkeypatch.setattr(module, "SORT_SECONDS", 0.0)


def table(symbols: tuple[str, ...] = ("KRW-BTC", "KRW-ETH", "KRW-XRP"), **options: Any) -> TickerTableModel:
    model = TickerTableModel(language="en", **options)
    model.set_symbols(symbols)
    return model


def column(model: Any, number: int) -> list[Any]:
    return [model.data(model.index(row, number), SHOWN) for row in range(model.rowCount())]


# Tickers


def test_a_ticker_changes_the_cells_that_look_different_and_no_others() -> None:
    model = table()
    model.take([ticker("KRW-BTC"), ticker("KRW-ETH")])
    picture = Picture(model)
    model.take([ticker("KRW-BTC")])
    assert picture.changed == []
    model.take([ticker("KRW-BTC", price="101")])
    assert picture.changed == [(0, 2, 0, 2)]
    model.take([ticker("KRW-ETH", price="7", change="-2")])
    assert picture.changed[1:] == [(1, 2, 1, 3)]
    assert picture.resets == 0
    picture.check()
    assert picture.rows[0] == ["KRW-BTC", "", "101", "+1.00 %", "5"]
    assert picture.rows[2] == ["KRW-XRP", "", "–", "–", "–"]


@pytest.mark.usefixtures("at_once")
def test_it_is_sorted_by_value_with_what_has_none_at_the_end() -> None:
    model = table()
    model.take([ticker("KRW-BTC", change="-3"), ticker("KRW-ETH", change="10")])
    model.sort(3, DESCENDING)
    assert column(model, 0) == ["KRW-ETH", "KRW-BTC", "KRW-XRP"]
    model.sort(3, ASCENDING)
    assert column(model, 0) == ["KRW-BTC", "KRW-ETH", "KRW-XRP"]
    picture = Picture(model)
    model.take([ticker("KRW-BTC", change="99")])
    assert column(model, 0) == ["KRW-ETH", "KRW-BTC", "KRW-XRP"]
    assert picture.resets == 0
    picture.check()


@pytest.mark.usefixtures("at_once")
def test_a_selected_market_stays_selected_wherever_its_row_goes() -> None:
    model = table()
    model.take([ticker("KRW-BTC", price="1"), ticker("KRW-ETH", price="2"), ticker("KRW-XRP", price="3")])
    selected = QPersistentModelIndex(model.index(0, 0))
    model.sort(2, DESCENDING)
    assert selected.row() == 2
    model.take([ticker("KRW-BTC", price="9")])
    assert model.symbol_at(selected.row()) == "KRW-BTC"
    assert model.row_of("KRW-BTC") == 0
    model.set_filter("btc")
    assert model.symbol_at(selected.row()) == "KRW-BTC"
    model.set_filter("eth")
    assert not selected.isValid()
    assert model.row_of("KRW-BTC") is None


def test_it_is_searched_by_code_and_by_either_name() -> None:
    model = table()
    market = MarketInfo(symbol="KRW-BTC", korean_name="비트코인", english_name="Bitcoin", source=DataSource.REST)
    model.set_markets([market])
    for typed in ("ㅂㅌㅋㅇ", "비트", "bitc", "BTC"):
        model.set_filter(typed)
        assert column(model, 0) == ["KRW-BTC"]
    model.set_filter("nothing like it")
    assert model.rowCount() == 0
    model.set_filter("")
    assert model.rowCount() == 3


def test_a_stale_row_is_grey_and_only_that_row() -> None:
    model = table(colours=KOREAN)
    model.take([ticker("KRW-BTC"), ticker("KRW-ETH", change="-1")])
    model.set_stale(frozenset())
    picture = Picture(model)

    def colour(row: int) -> QColor:
        return model.data(model.index(row, 2), Qt.ItemDataRole.ForegroundRole)

    assert colour(0) == QColor(KOREAN.up)
    assert colour(1) == QColor(KOREAN.down)
    assert colour(2) == QColor(KOREAN.stale), "without a price nothing is live"
    model.set_stale(frozenset({"KRW-BTC"}))
    assert colour(0) == QColor(KOREAN.stale)
    assert colour(1) == QColor(KOREAN.down)
    assert picture.changed == [(0, 0, 0, 4)]
    assert "not current" in model.data(model.index(0, 0), Qt.ItemDataRole.ToolTipRole)
    model.set_stale(frozenset())
    model.set_colours(INTERNATIONAL)
    assert colour(0) == QColor(INTERNATIONAL.up)
    assert "not current" not in model.data(model.index(0, 0), Qt.ItemDataRole.ToolTipRole)


def test_titles_and_names_speak_either_language() -> None:
    model = table()
    market = MarketInfo(symbol="KRW-BTC", korean_name="비트코인", english_name="Bitcoin", source=DataSource.REST)
    model.set_markets([market])
    horizontal = Qt.Orientation.Horizontal
    assert (model.headerData(2, horizontal), column(model, 1)[0]) == ("Price", "Bitcoin")
    model.set_language("ko")
    assert (model.headerData(2, horizontal), column(model, 1)[0]) == ("현재가", "비트코인")
    assert "3 of 3" in repr(model)


def test_a_column_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ValueError, match="turnover"):
        TickerTableModel(columns=["symbol", "nonsense"])


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_a_view_shows_what_the_model_holds(seed: int) -> None:
    chance = random.Random(seed)
    symbols = [f"KRW-{chance.choice('ABC')}{number}" for number in range(12)]
    model = table(tuple(symbols[:5]))
    picture = Picture(model)

    def some_tickers() -> list[TickerData]:
        chosen = chance.choices(symbols, k=chance.randrange(6))
        return [ticker(each, price=str(chance.randrange(5)), change=str(chance.randrange(-5, 5))) for each in chosen]

    steps: list[Callable[[], object]] = [
        lambda: model.take(some_tickers()),
        lambda: model.take(some_tickers()),
        lambda: model.sort(chance.randrange(5), chance.choice([ASCENDING, DESCENDING])),
        lambda: model.set_filter(chance.choice(["", "A", "b", "1", "nothing"])),
        lambda: model.set_stale(frozenset(chance.sample(symbols, 4))),
        lambda: model.set_symbols(chance.sample(symbols, 4)),
    ]
    for _ in range(60):
        chance.choice(steps)()
        picture.check()
        shown = [model.symbol_at(row) for row in range(model.rowCount())]
        assert len(shown) == len(set(shown))


def test_it_follows_every_market_of_a_currency(market: MarketDataBackbone, upbit: FakeUpbit) -> None:
    bridge = MarketBridge(market)
    model = TickerTableModel(language="ko", parent=bridge)
    live = model.follow(bridge, quote="KRW")
    run_until(lambda: column(model, 1) == ["비트코인", "이더리움"] and "–" not in column(model, 2))
    run_until(lambda: not live.is_stale)
    assert model.data(model.index(0, 2), Qt.ItemDataRole.ForegroundRole) != QColor(KOREAN.stale)
    upbit.handshake_fault(times=None)
    upbit.drop_sessions()

    def is_grey() -> bool:
        cells = [model.index(row, 2) for row in range(model.rowCount())]
        return all(model.data(cell, Qt.ItemDataRole.ForegroundRole) == QColor(KOREAN.stale) for cell in cells)

    run_until(is_grey, "an outage is visible in every row")
    upbit.clear_faults()
    run_until(lambda: not is_grey(), "and heals by itself")
    model.follow(bridge, symbols=["KRW-ETH"])
    assert not live.is_ready
    run_until(lambda: column(model, 0) == ["KRW-ETH"] and column(model, 2) != ["–"])
    bridge.close()


# Order books


def test_a_ladder_shows_asks_above_bids_each_from_the_middle() -> None:
    model = OrderbookModel(levels=3, language="en")
    model.take(book([(101, "1"), (102, "4")], [(100, "2"), (99, "2"), (98, "1"), (97, "9")]))
    assert column(model, 1) == [None, "102", "101", "100", "99", "98"]
    assert column(model, 0) == [None, "4", "1", "2", "2", "1"]
    assert column(model, 3) == [None, "5", "1", "2", "4", "5"]
    bars = [model.data(model.index(row, 0), BAR_ROLE) for row in range(6)]
    assert bars == [None, 1.0, 0.25, 0.5, 0.5, 0.25]
    assert model.data(model.index(1, 0), IS_ASK_ROLE) is True
    assert model.data(model.index(3, 0), IS_ASK_ROLE) is False
    assert column(model, 2)[1:] == ["–"] * 5
    model.set_prev_close(Decimal(100))
    assert column(model, 2)[1:4] == ["+2.00 %", "+1.00 %", "+0.00 %"]


def test_a_new_book_changes_the_rows_that_look_different() -> None:
    model = OrderbookModel(levels=2)
    model.take(book([(101, "4"), (102, "1")], [(100, "1"), (99, "1")]))
    picture = Picture(model)
    model.take(book([(101, "4"), (102, "1")], [(100, "1"), (99, "1")]))
    assert picture.changed == []
    model.take(book([(101, "4"), (102, "1")], [(100, "1"), (99, "2")]))
    assert picture.changed == [(3, 0, 3, 3)]
    picture.check()
    model.clear()
    assert column(model, 1) == [None] * 4
    picture.check()
    assert picture.resets == 0


def test_a_book_that_is_not_current_is_grey() -> None:
    model = OrderbookModel(levels=1)
    model.take(book([(101, "4")], [(100, "1")]))
    model.set_prev_close(Decimal(100))

    def colour(row: int) -> QColor:
        return model.data(model.index(row, 1), Qt.ItemDataRole.ForegroundRole)

    assert colour(0) == QColor(KOREAN.stale), "until it is proven"
    model.set_stale(frozenset())
    assert colour(0) == QColor(KOREAN.up)
    model.set_stale(frozenset({"KRW-BTC"}))
    assert colour(0) == QColor(KOREAN.stale)


def test_it_follows_one_market_after_the_other(market: MarketDataBackbone) -> None:
    bridge = MarketBridge(market)
    model = OrderbookModel(levels=5, parent=bridge)
    first = model.follow(bridge, "KRW-BTC")
    run_until(lambda: model.book is not None and not model.is_stale)
    second = model.follow(bridge, "KRW-ETH")
    assert model.book is None
    assert column(model, 1) == [None] * 10
    run_until(lambda: model.book is not None)
    assert model.book is not None
    assert model.book.symbol == "KRW-ETH"
    assert first.opening.is_closed
    assert not second.opening.is_closed
    bridge.close()


# Trades


def test_the_newest_trade_is_on_top_and_there_are_never_more_than_so_many() -> None:
    model = TradesModel(rows=5, language="en")
    picture = Picture(model)
    model.take([trade(number, number) for number in range(3)])
    assert [each.sequential_id for each in model.trades] == [2, 1, 0]
    model.take([trade(number, number) for number in range(3, 7)])
    assert [each.sequential_id for each in model.trades] == [6, 5, 4, 3, 2]
    picture.check()
    model.take([trade(number, number) for number in range(10, 30)])
    assert [each.sequential_id for each in model.trades] == [29, 28, 27, 26, 25]
    picture.check()
    assert picture.resets == 0
    assert picture.rows[0] == ["12:00:29", "1,029", "0.5", "514"]


def test_what_comes_late_is_put_where_it_belongs() -> None:
    model = TradesModel(rows=10)
    picture = Picture(model)
    model.take([trade(1, 1), trade(5, 5)])
    model.take([trade(3, 3), trade(6, 6), trade(0, 0)])
    assert [each.sequential_id for each in model.trades] == [6, 5, 3, 1, 0]
    picture.check()


def test_a_trade_has_the_colour_of_its_side_and_grey_while_some_may_be_missing() -> None:
    model = TradesModel()
    model.take([trade(1, 1), trade(2, 2, side="ASK"), trade(3, 3, side="?")])

    def colours() -> list[str]:
        cells = [model.index(row, 1) for row in range(3)]
        return [model.data(cell, Qt.ItemDataRole.ForegroundRole).name() for cell in cells]

    assert colours() == [KOREAN.stale] * 3
    model.set_stale(frozenset())
    assert colours() == [KOREAN.flat, KOREAN.down, KOREAN.up]
    with pytest.raises(InvalidRequestError, match="rows"):
        TradesModel(rows=0)


def test_it_follows_the_trades_of_one_market(market: MarketDataBackbone, upbit: FakeUpbit) -> None:
    bridge = MarketBridge(market)
    model = TradesModel(rows=20, parent=bridge)
    model.follow(bridge, "KRW-BTC")
    run_until(lambda: model.rowCount() == 20 and not model.is_stale)
    assert {each.symbol for each in model.trades} == {"KRW-BTC"}
    times = [each.timestamp for each in model.trades]
    assert times == sorted(times, reverse=True)
    bridge.close()
