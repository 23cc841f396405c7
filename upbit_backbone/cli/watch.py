"""`watch`: live prices, trades, books or candles until Ctrl-C."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from .._concurrency import Deadline
from .._language import spoken
from ..backbone import subscribe_to_existing
from ..models.enums import DataType, Overflow
from ..models.events import Event
from ..models.market import CandleData, OrderbookData, TickerData, TradeData
from ..monitoring.log_lines import describe
from ..routing.requests import data_types
from . import output, running
from .views import Board, view_of

NEWS_SECONDS = 15.0
NEWS_LINES = 3


class News:
    """The last few things that happened to the streams, for the lines at the bottom."""

    def __init__(self) -> None:
        self._texts: deque[tuple[float, str]] = deque(maxlen=NEWS_LINES)

    def __call__(self, event: Event) -> None:
        level, text = describe(event)
        if level > logging.DEBUG:
            self._texts.append((time.monotonic(), output.safe(spoken(text))))

    def lines(self) -> str:
        """The recent ones, one a line; from any thread."""
        now = time.monotonic()
        return "\n".join(text for at, text in list(self._texts) if now - at < NEWS_SECONDS)


class Screen:
    """Redraws on the whole terminal, and leaves the last picture behind when it ends."""

    def __init__(self, draw: Callable[[int, int, float], RenderableType]) -> None:
        self._draw = draw
        self._live = Live(console=output.console, auto_refresh=False, screen=True, vertical_overflow="crop")

    def refresh(self) -> None:
        self._live.update(self._picture(), refresh=True)

    def _picture(self) -> RenderableType:
        return self._draw(output.console.width, output.console.height, time.monotonic())

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        if kind is None or kind is KeyboardInterrupt:
            output.console.print(self._picture())


def cells_of(item: Any) -> tuple[object, ...]:
    """One item as the cells of one plain line: when, what, then the numbers."""
    match item:
        case TickerData():
            change = output.percent(item.change_percent)
            return (
                output.clock_time(item.timestamp),
                item.symbol,
                output.number(item.current_price),
                change,
                item.source,
            )
        case TradeData():
            numbers = (output.number(item.price), output.number(item.volume))
            return output.clock_time(item.timestamp), item.symbol, *numbers, output.side(item.side)
        case OrderbookData():
            best = (unit.price if unit else None for unit in (item.best_bid, item.best_ask))
            return output.clock_time(item.timestamp), item.symbol, *map(output.number, best)
        case CandleData():
            prices = (item.open_price, item.high_price, item.low_price, item.close_price, item.volume)
            return output.moment(item.timestamp), item.symbol, item.timeframe, *map(output.number, prices)
        case _:
            return (item,)


def print_line(item: Any) -> None:
    print("\t".join(map(output.safe, cells_of(item))), flush=True)


def print_json_line(item: Any) -> None:
    output.print_json(output.as_plain(item))


@running.command
def watch(
    symbols: running.Symbols,
    kind: Annotated[
        str,
        typer.Option(
            "--type", help=f"What to watch: {running.TYPE_HELP}.", metavar="TYPE", autocompletion=running.type_words
        ),
    ] = DataType.TICKER.value,
    seconds: running.Seconds = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many messages.")] = None,
    json: running.Json = False,
) -> int:
    """Live data in a table that follows the market; plain lines into a pipe."""
    news, (data_type,) = News(), data_types(kind)
    overflow = Overflow.DROP_OLDEST if data_type is DataType.TRADE else Overflow.CONFLATE
    end = Deadline.after(seconds)
    say = print_json_line if json else print_line
    is_drawn = output.is_terminal() and not json
    with (
        running.open_market(on_event=news) as market,
        subscribe_to_existing(market, symbols, data_type, overflow=overflow) as stream,
    ):
        board = Board(list(dict.fromkeys(request.topic.symbol for request in stream.requests)))

        def take(item: Any) -> bool:
            board.take(item, time.monotonic())
            if not is_drawn:
                say(item)
            return count is not None and board.count >= count

        if is_drawn:
            with Screen(lambda *size: _picture(board, data_type, news, *size)) as screen:
                running.follow(stream, end, take, screen.refresh)
        else:
            running.follow(stream, end, take)
        if not board.count:
            running.say_error(f"nothing came: {running.why_nothing(market)}")
    return 0 if board.count else running.FOUND_TROUBLE


def _picture(board: Board, data_type: DataType, news: News, width: int, height: int, now: float) -> RenderableType:
    status = spoken(f"{data_type.value} · {board.count} messages · {board.rate(now):.1f}/s · Ctrl-C ends")
    return Group(
        view_of(data_type)(board, width, height, now), Text(status, output.QUIET_STYLE), Text(news.lines(), "yellow")
    )
