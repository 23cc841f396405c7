"""`demo`: a simulated Upbit in a process of its own, and this library live on it. No network, no key."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from .._concurrency import Deadline
from .._language import spoken, word
from ..backbone import MarketDataBackbone
from ..models.enums import DataType, Overflow
from ..models.market import OrderbookData, TickerData
from . import output
from .running import FOUND_TROUBLE, Json, Seconds, command, follow, overrides
from .views import Board, Row, big_chart, one_book, tickers
from .watch import News, Screen, print_json_line

MARKETS = ["KRW-BTC", "KRW-ETH", "KRW-XRP", "KRW-SOL", "KRW-DOGE", "KRW-ADA", "BTC-ETH", "USDT-BTC"]
PLAIN_SECONDS = 1.0
BOOK_LEVELS = 5


@command
def demo(
    seconds: Seconds = None,
    rate: Annotated[float, typer.Option(min=0.1, max=5_000, help="Trades per second of the simulated market.")] = 40.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same market.")] = 7,
    json: Json = False,
) -> int:
    """Live prices of several markets and an order book, from the bundled simulator."""
    from ..simulator import FakeUpbit

    shown = _Shown()
    with FakeUpbit(seed=seed, trades_per_second=rate, markets=MARKETS) as upbit:
        urls = {**overrides, "url": upbit.url, "rest_url": None, "websocket_url": None}
        with MarketDataBackbone(on_event=shown.news, **urls) as market:
            stream = market.subscribe(MARKETS, [DataType.TICKER, DataType.ORDERBOOK], overflow=Overflow.CONFLATE)
            end = Deadline.after(seconds)
            if json:
                follow(stream, end, shown.take_and_print)
            elif output.is_terminal():
                with Screen(shown.picture) as screen:
                    follow(stream, end, shown.take, screen.refresh)
            else:
                follow(stream, end, shown.take, shown.print_now_and_then)
    return 0 if shown.prices.count else FOUND_TROUBLE


class _Shown:
    """What the demo knows and how it shows it."""

    def __init__(self) -> None:
        self.news = News()
        self.prices = Board(list(MARKETS))
        self.books: dict[str, OrderbookData] = {}
        self._next_print = Deadline.after(PLAIN_SECONDS)

    def take(self, item: Any) -> None:
        if isinstance(item, TickerData):
            self.prices.take(item, time.monotonic())
        elif isinstance(item, OrderbookData):
            self.books[item.symbol] = item

    def take_and_print(self, item: Any) -> None:
        self.take(item)
        print_json_line(item)

    def picture(self, width: int, height: int, now: float) -> RenderableType:
        first = MARKETS[0]
        parts: list[RenderableType] = [
            Text(spoken("Upbit, simulated on this machine: no network, no key, moving live"), "bold"),
            tickers(self.prices, width, height, now),
        ]
        room = height - len(MARKETS) - 8
        if room >= 2 * 3 + 5 and first in self.books:
            parts.append(one_book(self.books[first], min(8, (room - 5) // 2), width))
        elif room >= 5:
            parts.append(big_chart(self.prices.rows[first], width, room - 2))
        pace = f"{self.prices.count} prices · {self.prices.rate(now):.0f}/s"
        status = spoken(f"{pace} · source and age of each beside it · Ctrl-C ends")
        parts.append(Text(status, output.QUIET_STYLE))
        parts.append(Text(self.news.lines(), "yellow"))
        return Group(*parts)

    def print_now_and_then(self) -> None:
        if not self._next_print.expired:
            return
        self._next_print = Deadline.after(PLAIN_SECONDS)
        now = time.monotonic()
        for symbol, row in self.prices.rows.items():
            print(_price_line(symbol, row, now))
        if (book := self.books.get(MARKETS[0])) is not None:
            _print_book(book)
        print(flush=True)


def _price_line(symbol: str, row: Row, now: float) -> str:
    if row.item is None:
        return f"{symbol:<10} {word('waiting')}"
    ticker: TickerData = row.item
    price, change = output.number(ticker.current_price), str(output.percent(ticker.change_percent))
    where = f"{ticker.source.value}, {output.age(now - row.arrived_at)} {word('old')}"
    return f"{output.clock_time(ticker.timestamp)}  {symbol:<10}{price:>18}{change:>9}  {where}"


def _print_book(book: OrderbookData) -> None:
    print(spoken(f"order book of {book.symbol}:"))
    for side, units in (("ask", book.asks[:BOOK_LEVELS][::-1]), ("bid", book.bids[:BOOK_LEVELS])):
        for unit in units:
            print(f"  {word(side)} {output.number(unit.price):>16} {output.number(unit.size):>14}")
