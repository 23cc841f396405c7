"""The live tables: a board and the width of the terminal in, something rich can draw out."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..models.enums import DataType
from ..models.market import OrderbookData
from . import output
from .asking import book_rows
from .board import Board, Row
from .output import area_chart, bar, sparkline, squeeze

FLASH_SECONDS = 0.4
MIN_CHART = 8
BEST_COLUMNS = ("symbol", ">bid size", ">bid", ">ask", ">ask size", ">spread", "bids ⟷ asks", ">age")
CANDLE_COLUMNS = ("symbol", "start (KST)", ">open", ">high", ">low", ">close", ">volume", "chart", ">age")


def view_of(data_type: DataType) -> Callable[[Board, int, int, float], RenderableType]:
    """(board, width, height, now) → the live table for this type."""
    if data_type is DataType.ORDERBOOK:
        return orderbooks
    if data_type is DataType.TRADE:
        return tape
    return candles if data_type.is_candle else tickers


def tickers(board: Board, width: int, height: int, now: float) -> Table:
    chart = max(MIN_CHART, width - 82)
    table = output.new_table(None, ("symbol", ">price", ">change", ">value 24h", "chart", ">/s", "source", ">age"))
    for symbol, row in board.rows.items():
        if row.item is None:
            table.add_row(symbol, Text("waiting…", output.QUIET_STYLE))
            continue
        table.add_row(
            symbol,
            _price(row, now, output.number(row.item.current_price)),
            output.percent(row.item.change_percent),
            output.short(row.item.traded_value_24h),
            Text(sparkline(squeeze(row.prices, chart), chart), _trend(row)),
            f"{row.rate(now):.1f}",
            row.item.source.value,
            output.age(now - row.arrived_at),
        )
    return table


def orderbooks(board: Board, width: int, height: int, now: float) -> RenderableType:
    known = [row for row in board.rows.values() if row.item is not None]
    if len(board.rows) == 1 and known:
        return one_book(known[0].item, max(1, min(30, (height - 8) // 2)), max(MIN_CHART, width - 60))
    return _best_prices(board, width, now)


def one_book(book: OrderbookData, levels: int, width: int) -> Table:
    title = f"{output.safe(book.symbol)}   {output.clock_time(book.timestamp)} KST   {book.source.value}"
    table = output.new_table(title, ("side", ">price", ">size", "depth"))
    for cells in book_rows(book, levels, width):
        table.add_row(*cells)
    spread = "" if book.spread_percent is None else f"spread {output.number(book.spread)} ({book.spread_percent:.4f}%)"
    table.caption = Text(spread)
    return table


def _best_prices(board: Board, width: int, now: float) -> Table:
    table = output.new_table(
        None, ("symbol", ">bid size", ">bid", ">ask", ">ask size", ">spread", "bids ⟷ asks", ">age")
    )
    balance = max(MIN_CHART, width - 92)
    for symbol, row in board.rows.items():
        book: OrderbookData | None = row.item
        if book is None or book.best_ask is None or book.best_bid is None:
            table.add_row(symbol, Text("waiting…", output.QUIET_STYLE))
            continue
        bid_size, ask_size = book.total_bid_size or 0, book.total_ask_size or 0
        share = float(bid_size / (bid_size + ask_size)) if bid_size or ask_size else 0.5
        table.add_row(
            symbol,
            output.number(book.best_bid.size),
            Text(output.number(book.best_bid.price), output.RISE_STYLE),
            Text(output.number(book.best_ask.price), output.FALL_STYLE),
            output.number(book.best_ask.size),
            f"{book.spread_percent:.4f}%",
            Text(bar(share, balance).ljust(balance, "·")),
            output.age(now - row.arrived_at),
        )
    return table


def tape(board: Board, width: int, height: int, now: float) -> Table:
    table = output.new_table(None, ("time (KST)", "symbol", "side", ">price", ">volume", "note"))
    for trade in list(board.tape)[: max(1, height - 6)]:
        is_buy = trade.side == "BID"
        table.add_row(
            output.clock_time(trade.timestamp),
            output.safe(trade.symbol),
            Text("buy" if is_buy else "sell", output.RISE_STYLE if is_buy else output.FALL_STYLE),
            output.number(trade.price),
            output.number(trade.volume),
            "backfilled" if trade.is_backfilled else "",
        )
    return table


def candles(board: Board, width: int, height: int, now: float) -> RenderableType:
    table = output.new_table(
        None, ("symbol", "start (KST)", ">open", ">high", ">low", ">close", ">volume", "chart", ">age")
    )
    chart = max(MIN_CHART, width - 112)
    for symbol, row in board.rows.items():
        candle = row.item
        if candle is None:
            table.add_row(symbol, Text("waiting…", output.QUIET_STYLE))
            continue
        prices = (candle.open_price, candle.high_price, candle.low_price)
        table.add_row(
            symbol,
            output.moment(candle.timestamp)[11:],
            *(output.number(price) for price in prices),
            _price(row, now, output.number(candle.close_price)),
            output.number(candle.volume),
            Text(sparkline(squeeze(row.prices, chart), chart), _trend(row)),
            output.age(now - row.arrived_at),
        )
    return table


def big_chart(row: Row, width: int, height: int) -> RenderableType:
    """Recent prices as an area, with their highest and lowest."""
    lines = area_chart(row.prices, width, height)
    if not lines:
        return Text("")
    texts = [Text(line, _trend(row)) for line in lines]
    low, high = min(row.prices), max(row.prices)
    return Group(Text(f"high {high:,.10g}", output.QUIET_STYLE), *texts, Text(f"low {low:,.10g}", output.QUIET_STYLE))


def _price(row: Row, now: float, text: str) -> Text:
    if now - row.moved_at > FLASH_SECONDS:
        return Text(text)
    return Text(text, f"{output.RISE_STYLE if row.direction > 0 else output.FALL_STYLE} reverse")


def _trend(row: Row) -> str:
    if len(row.prices) < 2 or row.prices[-1] == row.prices[0]:
        return ""
    return output.RISE_STYLE if row.prices[-1] > row.prices[0] else output.FALL_STYLE
