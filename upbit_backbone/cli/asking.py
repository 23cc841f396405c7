"""Commands that ask once and print the answer: ticker, book, trades, markets, explain."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

import typer
from rich.text import Text

from .._language import is_korean, spoken, word
from ..models.enums import RequestKind
from ..models.market import OrderbookData, TickerData, TradeData
from . import output
from .output import bar
from .running import FOUND_TROUBLE, Json, Symbol, Symbols, command, open_market


def _age(received_at: datetime | None) -> str:
    return output.age(None if received_at is None else (datetime.now(UTC) - received_at).total_seconds())


def _ticker_row(ticker: TickerData) -> tuple[str | Text, ...]:
    return (
        output.safe(ticker.symbol),
        output.number(ticker.current_price),
        output.percent(ticker.change_percent),
        output.short(ticker.traded_value_24h),
        output.number(ticker.high_24h),
        output.number(ticker.low_24h),
        output.moment(ticker.timestamp),
        source_of(ticker),
    )


def source_of(ticker: TickerData) -> str:
    return ticker.source.value + (f" ({word('degraded')})" if ticker.degraded else "")


WIDEST_BAR = 40
TICKER_COLUMNS = ("symbol", ">price", ">change", ">value 24h", ">day high", ">day low", "time (KST)", "source")
TRADE_COLUMNS = ("time (KST)", ">price", ">volume", "side", ">id")
TRADE_SPARE = ("id", "time (KST)", "side")
BOOK_COLUMNS = ("side", ">price", ">size", "depth")
MARKET_COLUMNS = ("symbol", "~name", "~한글 이름", "~warnings")
MARKET_SPARE = ("한글 이름", "name")
TICKER_SPARE = ("day low", "day high", "source", "value 24h", "time (KST)", "change")


@command
def ticker(symbols: Symbols, json: Json = False) -> None:
    """The present price of one or more markets."""
    with open_market() as market:
        is_one = len(symbols) == 1
        tickers = [market.get_ticker(symbols[0])] if is_one else list(market.get_tickers(symbols).values())
    if json:
        output.print_json([output.as_plain(each) for each in tickers])
        return
    output.show_table("Tickers", TICKER_COLUMNS, map(_ticker_row, tickers), TICKER_SPARE)


@command
def book(
    symbol: Symbol,
    levels: Annotated[int, typer.Option(min=1, max=30, help="Price levels a side.")] = 10,
    level: Annotated[str, typer.Option(help="Group prices by this step (KRW markets only).")] = "0",
    json: Json = False,
) -> None:
    """The order book of one market."""
    with open_market() as market:
        orderbook = market.get_orderbook(symbol, levels, level=level)
    if json:
        output.print_json(output.as_plain(orderbook))
        return
    title = f"{output.safe(orderbook.symbol)}  {output.moment(orderbook.timestamp)} KST  {orderbook.source.value}"
    output.show_table(title, BOOK_COLUMNS, book_rows(orderbook, levels))
    spread = orderbook.spread_percent
    if spread is not None and output.is_terminal():
        output.console.print(
            Text(spoken(f"spread {output.number(orderbook.spread)} ({spread:.4f}%)"), output.QUIET_STYLE)
        )


def book_rows(orderbook: OrderbookData, levels: int) -> list[tuple[output.Cell, ...]]:
    """Asks from far to near, then bids from near to far, with bars for their sizes."""

    def depth(size: Decimal, style: str) -> Callable[[int], Text]:
        return lambda width: Text(bar(float(size / largest), min(width, WIDEST_BAR)), style)

    asks, bids = orderbook.asks[:levels], orderbook.bids[:levels]
    largest = max((unit.size for unit in (*asks, *bids)), default=Decimal(1)) or Decimal(1)
    sides = [("ask", unit, output.FALL_STYLE) for unit in reversed(asks)]
    sides += [("bid", unit, output.RISE_STYLE) for unit in bids]
    return [
        (
            word(side),
            Text(output.number(unit.price), style),
            output.number(unit.size),
            depth(unit.size, style),
        )
        for side, unit, style in sides
    ]


@command
def trades(
    symbol: Symbol,
    count: Annotated[int, typer.Option(min=1, max=100_000, help="How many, newest.")] = 20,
    days_ago: Annotated[int | None, typer.Option(min=1, max=7, help="One past UTC day.")] = None,
    json: Json = False,
) -> None:
    """Past trades of one market, oldest first."""
    with open_market() as market:
        found = market.get_trades(symbol, count, days_ago=days_ago)
    if json:
        output.print_json([output.as_plain(each) for each in found])
        return
    output.show_table(f"Trades of {output.safe(symbol)}", TRADE_COLUMNS, map(_trade_row, found), TRADE_SPARE)


def _trade_row(trade: TradeData) -> tuple[str, ...]:
    return (
        output.moment(trade.timestamp),
        output.number(trade.price),
        output.number(trade.volume),
        output.side(trade.side),
        output.safe(trade.sequential_id),
    )


@command
def markets(
    quote: Annotated[str | None, typer.Option(help="Only this quote currency, such as KRW.")] = None,
    json: Json = False,
) -> int:
    """All listed markets."""
    with open_market() as market:
        found = market.get_markets(quote=quote)
    if json:
        output.print_json([output.as_plain(each) for each in found])
    else:
        output.show_table(
            f"{len(found)} markets",
            MARKET_COLUMNS,
            (
                (
                    output.safe(each.symbol),
                    output.safe(each.english_name, 60),
                    output.safe(each.korean_name, 60),
                    output.safe(", ".join([*(["WARNING"] if each.warning else []), *(each.cautions or ())])),
                )
                for each in found
            ),
            MARKET_SPARE[::-1] if is_korean() else MARKET_SPARE,
        )
    return 0 if found else FOUND_TROUBLE


@command
def explain(
    kind: Annotated[RequestKind, typer.Argument(help="What would be asked.")],
    symbol: Annotated[str | None, typer.Argument(help="A market code such as KRW-BTC.")] = None,
    json: Json = False,
) -> None:
    """Which way a question would be answered now, and why."""
    with open_market() as market:
        decision = market.explain(kind.value, symbol) if symbol else market.explain(kind.value)
    if json:
        facts = {name: str(value) for name, value in decision.facts.items()}
        channels = [channel.value for channel in decision.channels]
        output.print_json({"channels": channels, "reason": decision.reason, "rule": decision.rule, "facts": facts})
        return
    print(output.safe(spoken(str(decision)), 600))
    print(spoken(f"rule: {output.safe(decision.rule)}"))
    for name, value in decision.facts.items():
        print(f"  {output.safe(name)}: {output.safe(spoken(str(value)))}")
