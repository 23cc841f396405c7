"""Tables at 60, 80 and 120 columns: columns go, numbers never; Korean names are twice as wide as they are long."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from upbit_backbone.cli import asking, candles, output, views
from upbit_backbone.cli.views import Board
from upbit_backbone.models.enums import DataSource, DataType, Side
from upbit_backbone.models.market import CandleData, OrderbookData, OrderbookUnit, TickerData, TradeData

NOON = datetime(2026, 11, 28, 3, tzinfo=UTC)
DEAR, CHEAP = Decimal("132677000"), Decimal("0.00001234")
WIDTHS = (60, 80, 120)


def a_ticker(symbol: str, price: Decimal) -> TickerData:
    rest = dict.fromkeys(("change_rate", "change_amount", "volume_24h", "prev_closing_price"), Decimal("-0.0135"))
    numbers = rest | {"high_24h": price + 1, "low_24h": price, "traded_value_24h": Decimal("123456789012")}
    return TickerData(symbol=symbol, current_price=price, timestamp=NOON, source=DataSource.WEBSOCKET, **numbers)


def a_trade(symbol: str, price: Decimal) -> TradeData:
    return TradeData(symbol, price, Decimal("12345.67890123"), Side.BID, NOON, 17_959_100_202_270_000, DataSource.REST)


def a_book(symbol: str, price: Decimal) -> OrderbookData:
    units = tuple(OrderbookUnit(price, Decimal(f"{size}.87654321")) for size in (1, 22, 333))
    return OrderbookData(symbol, units, units, Decimal(900), Decimal(100), NOON, DataSource.WEBSOCKET)


def a_candle(symbol: str, price: Decimal) -> CandleData:
    prices = (price, price, price, price)
    candle = CandleData(symbol, "1m", *prices, Decimal("1234.56789012"), NOON, DataSource.WEBSOCKET)
    return replace(candle, is_closed=False)


MAKERS: dict[DataType, Callable[[str, Decimal], Any]] = {
    DataType.TICKER: a_ticker, DataType.TRADE: a_trade, DataType.ORDERBOOK: a_book, DataType.CANDLE_1M: a_candle,
}  # fmt: skip


def lines(picture: RenderableType, width: int) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width, color_system=None, highlight=False).print(picture)
    return file.getvalue().splitlines()


def assert_whole(shown: list[str], width: int, *texts: str) -> None:
    assert max(map(cell_len, shown)) <= width, shown
    table = "\n".join(shown)
    for text in texts:
        assert text in table, table
    for line in shown:  # an ellipsis stands for a word, never for a part of a number
        for cell in line.split("│"):
            assert "…" not in cell or not any(letter.isdigit() for letter in cell), line


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("symbols", [("KRW-BTC",), ("KRW-BTC", "BTC-1INCH", "USDT-BTC")])
def test_live_views_show_every_price_whole(kind: DataType, symbols: tuple[str, ...], width: int) -> None:
    board = Board([*symbols, "KRW-QUIET"] if len(symbols) > 1 else list(symbols))
    for symbol in symbols:
        for price in (CHEAP, DEAR):
            board.take(MAKERS[kind](symbol, price), 1.0)
    shown = lines(views.view_of(kind)(board, width, 40, 2.0), width)
    assert_whole(shown, width, "132,677,000")
    assert width < 120 or len(symbols) == 1 or any("waiting…" in line for line in shown) or kind is DataType.TRADE


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("columns", "rows", "spare"),
    [
        (
            asking.TICKER_COLUMNS,
            [asking._ticker_row(a_ticker(*each)) for each in (("KRW-BTC", DEAR), ("BTC-ETH", CHEAP))],
            asking.TICKER_SPARE,
        ),
        (candles.COLUMNS, [candles._row(a_candle("KRW-BTC", DEAR))], candles.SPARE),
        (asking.TRADE_COLUMNS, [asking._trade_row(a_trade("KRW-BTC", DEAR))], asking.TRADE_SPARE),
        (asking.BOOK_COLUMNS, asking.book_rows(a_book("KRW-BTC", DEAR), 3), ()),
    ],
)
def test_answers_show_every_price_whole(columns: Any, rows: Any, spare: Any, width: int) -> None:
    assert_whole(lines(output.fitted("title", columns, rows, width, spare), width), width, "132,677,000")


@pytest.mark.parametrize("width", WIDTHS)
def test_long_names_give_way_and_never_the_symbol(width: int) -> None:
    rows = [
        (
            "KRW-1INCH",
            "Ethereum Classic Name Service",
            "이더리움클래식네임서비스",
            "PRICE_FLUCTUATIONS, DEPOSIT_AMOUNT_SOARING",
        )
    ]
    shown = lines(output.fitted("2 markets", asking.MARKET_COLUMNS, rows, width), width)
    assert_whole(shown, width, "KRW-1INCH")
    assert width >= 120 or any("…" in line for line in shown)


@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_list_of_long_names_is_no_wider_than_its_terminal(monkeypatch: pytest.MonkeyPatch, language: str) -> None:
    monkeypatch.setenv("UPBIT_BACKBONE_LANGUAGE", language)
    file = io.StringIO()
    console = Console(file=file, width=60, force_terminal=True, color_system=None, highlight=False)
    monkeypatch.setattr(output, "console", console)
    row = (
        "KRW-1INCH",
        "Ethereum Classic Name Service",
        "이더리움클래식네임서비스",
        "PRICE_FLUCTUATIONS, DEPOSIT_AMOUNT_SOARING",
    )
    output.show_table("2 markets", asking.MARKET_COLUMNS, [row], asking.MARKET_SPARE)
    assert_whole(file.getvalue().splitlines(), 60, "KRW-1INCH")


def test_a_chart_takes_the_room_that_is_left_or_goes() -> None:
    board = Board(["KRW-BTC"])
    board.take(a_ticker("KRW-BTC", DEAR), 1.0)
    pictures = {width: "".join(lines(views.tickers(board, width, 40, 2.0), width)) for width in (60, 300)}
    assert "chart" not in pictures[60]
    assert "chart" in pictures[300]


def test_a_terminal_too_narrow_for_two_numbers_wraps_rather_than_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    console = Console(file=file, width=12, force_terminal=True, color_system=None, highlight=False)
    monkeypatch.setattr(output, "console", console)
    output.show_table("t", (">price", ">size"), [("132,677,000", "0.12345678")])
    assert "132,677,000" in file.getvalue()
    assert "0.12345678" in file.getvalue()


def test_trades_have_one_word_for_a_side_everywhere() -> None:
    assert [output.side(word) for word in (Side.BID, Side.ASK, "BID", None, "NEW")] == [
        "buy",
        "sell",
        "buy",
        "–",
        "NEW",
    ]
