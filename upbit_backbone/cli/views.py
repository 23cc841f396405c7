"""The live tables: what they know of each symbol, and what rich can draw of it in so wide a terminal."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .._language import spoken, word
from ..models.enums import DataType
from ..models.market import CandleData, OrderbookData, TickerData, TradeData
from . import output
from .asking import BOOK_COLUMNS, book_rows, source_of
from .output import area_chart, bar, sparkline, squeeze

# What a live view knows: the newest item per symbol, its recent prices and how often it moves. Of the terminal nothing.

MEMORY = 400
RATE_SECONDS = 5.0
TAPE = 100

PRICE_OF: dict[type, Callable[[Any], Decimal | None]] = {
    TickerData: lambda item: item.current_price,
    TradeData: lambda item: item.price,
    OrderbookData: lambda item: item.mid_price,
    CandleData: lambda item: item.close_price,
}


@dataclass(slots=True)
class Row:
    """One symbol. `direction` is the sign of the last price move, `moved_at` when it happened (monotonic)."""

    item: Any = None
    prices: deque[float] = field(default_factory=lambda: deque(maxlen=MEMORY))
    arrivals: deque[float] = field(default_factory=lambda: deque(maxlen=2_000))
    arrived_at: float = 0.0
    moved_at: float = float("-inf")
    direction: int = 0
    count: int = 0

    def rate(self, now: float) -> float:
        """Items per second lately."""
        while self.arrivals and now - self.arrivals[0] > RATE_SECONDS:
            self.arrivals.popleft()
        return len(self.arrivals) / RATE_SECONDS


class Board:
    """Rows in the order in which the symbols were asked for, and the newest items of all as a tape."""

    def __init__(self, symbols: list[str]) -> None:
        self.rows: dict[str, Row] = {symbol: Row() for symbol in symbols}
        self.tape: deque[Any] = deque(maxlen=TAPE)
        self.count = 0

    def take(self, item: Any, now: float) -> None:
        row = self.rows.setdefault(item.symbol, Row())
        self.count += 1
        row.count += 1
        row.item, row.arrived_at = item, now
        row.arrivals.append(now)
        self.tape.appendleft(item)
        price = PRICE_OF[type(item)](item)
        if price is None:
            return
        if row.prices and float(price) != row.prices[-1]:
            row.direction = 1 if float(price) > row.prices[-1] else -1
            row.moved_at = now
        row.prices.append(float(price))

    def rate(self, now: float) -> float:
        return sum(row.rate(now) for row in self.rows.values())


FLASH_SECONDS = 0.4


def view_of(data_type: DataType) -> Callable[[Board, int, int, float], RenderableType]:
    """(board, width, height, now) → the live table for this type."""
    if data_type is DataType.ORDERBOOK:
        return orderbooks
    if data_type is DataType.TRADE:
        return tape
    return candles if data_type.is_candle else tickers


def tickers(board: Board, width: int, height: int, now: float) -> Table:
    def cells(row: Row) -> Iterator[output.Cell]:
        yield _price(row, now, output.number(row.item.current_price))
        yield output.percent(row.item.change_percent)
        yield output.short(row.item.traded_value_24h)
        yield _chart(row)
        yield f"{row.rate(now):.1f}"
        yield source_of(row.item)
        yield output.age(now - row.arrived_at)

    columns = ("symbol", ">price", ">change", ">value 24h", "chart", ">/s", "source", ">age")
    return output.fitted(None, columns, _rows(board, cells), width, ("/s", "source", "value 24h", "age", "change"))


def orderbooks(board: Board, width: int, height: int, now: float) -> RenderableType:
    known = [row for row in board.rows.values() if row.item is not None]
    if len(board.rows) == 1 and known:
        return one_book(known[0].item, max(1, min(30, (height - 8) // 2)), width)
    return _best_prices(board, width, now)


def one_book(book: OrderbookData, levels: int, width: int) -> Table:
    title = f"{output.safe(book.symbol)}   {output.clock_time(book.timestamp)} KST   {book.source.value}"
    table = output.fitted(title, BOOK_COLUMNS, book_rows(book, levels), width, ("side",))
    spread = "" if book.spread_percent is None else f"spread {output.number(book.spread)} ({book.spread_percent:.4f}%)"
    table.caption = Text(spoken(spread))
    return table


def _best_prices(board: Board, width: int, now: float) -> Table:
    def cells(row: Row) -> Iterator[output.Cell]:
        book: OrderbookData = row.item
        if book.best_ask is None or book.best_bid is None:
            yield from ("", Text(word("one-sided"), output.QUIET_STYLE))
            return
        bid_size, ask_size = book.total_bid_size or 0, book.total_ask_size or 0
        share = float(bid_size / (bid_size + ask_size)) if bid_size or ask_size else 0.5
        yield output.number(book.best_bid.size)
        yield Text(output.number(book.best_bid.price), output.RISE_STYLE)
        yield Text(output.number(book.best_ask.price), output.FALL_STYLE)
        yield output.number(book.best_ask.size)
        yield f"{book.spread_percent:.4f}%"
        yield lambda room: Text(bar(share, room).ljust(room, "·"))
        yield output.age(now - row.arrived_at)

    columns = ("symbol", ">bid size", ">bid", ">ask", ">ask size", ">spread", "bids ⟷ asks", ">age")
    return output.fitted(None, columns, _rows(board, cells), width, ("age", "spread", "bid size", "ask size"))


def tape(board: Board, width: int, height: int, now: float) -> Table:
    rows = [
        (
            output.clock_time(trade.timestamp),
            output.safe(trade.symbol),
            Text(output.side(trade.side), output.RISE_STYLE if trade.side == "BID" else output.FALL_STYLE),
            output.number(trade.price),
            output.number(trade.volume),
            word("backfilled") if trade.is_backfilled else "",
        )
        for trade in list(board.tape)[: max(1, height - 6)]
    ]
    columns = ("time (KST)", "symbol", "side", ">price", ">volume", "note")
    return output.fitted(None, columns, rows, width, ("note", "time (KST)", "side"))


def candles(board: Board, width: int, height: int, now: float) -> RenderableType:
    def cells(row: Row) -> Iterator[output.Cell]:
        candle: CandleData = row.item
        yield output.moment(candle.timestamp)[11:]
        yield from map(output.number, (candle.open_price, candle.high_price, candle.low_price))
        yield _price(row, now, output.number(candle.close_price))
        yield output.number(candle.volume)
        yield _chart(row)
        yield output.age(now - row.arrived_at)

    columns = ("symbol", "start (KST)", ">open", ">high", ">low", ">close", ">volume", "chart", ">age")
    spare = ("age", "open", "volume", "high", "low", "start (KST)")
    return output.fitted(None, columns, _rows(board, cells), width, spare)


def _rows(board: Board, cells: Callable[[Row], Iterator[output.Cell]]) -> Iterator[list[output.Cell]]:
    for symbol, row in board.rows.items():
        waiting = (Text(word("waiting…"), output.QUIET_STYLE),)
        yield [symbol, *(waiting if row.item is None else cells(row))]


def _chart(row: Row) -> Callable[[int], Text]:
    return lambda room: Text(sparkline(squeeze(row.prices, room), room), _trend(row))


def big_chart(row: Row, width: int, height: int) -> RenderableType:
    """Recent prices as an area, with their highest and lowest."""
    lines = area_chart(row.prices, width, height)
    if not lines:
        return Text("")
    texts = [Text(line, _trend(row)) for line in lines]
    low, high = min(row.prices), max(row.prices)
    highest, lowest = f"{word('high')} {high:,.10g}", f"{word('low')} {low:,.10g}"
    return Group(Text(highest, output.QUIET_STYLE), *texts, Text(lowest, output.QUIET_STYLE))


def _price(row: Row, now: float, text: str) -> Text:
    if now - row.moved_at > FLASH_SECONDS:
        return Text(text)
    return Text(text, f"{output.RISE_STYLE if row.direction > 0 else output.FALL_STYLE} reverse")


def _trend(row: Row) -> str:
    if len(row.prices) < 2 or row.prices[-1] == row.prices[0]:
        return ""
    return output.RISE_STYLE if row.prices[-1] > row.prices[0] else output.FALL_STYLE
