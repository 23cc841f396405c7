"""cryptofeed: `FeedHandler` with callbacks (trades and books; it has no Upbit ticker)."""

from __future__ import annotations

from typing import Any

from cryptofeed import FeedHandler
from cryptofeed.connection import AsyncConnection, RestEndpoint, Routes, WebsocketEndpoint, WSAsyncConn
from cryptofeed.defines import L2_BOOK, TRADES
from cryptofeed.exchanges import Upbit

from benchmarks.clients.task import Seen, Task


def _accept_any_address(self: WSAsyncConn, address: str, conn_id: str, authentication: Any = None,
                        subscription: Any = None, **kwargs: Any) -> None:  # fmt: skip
    """Its own constructor without the refusal of plain ws://, which we need on loopback."""
    self.address = address
    AsyncConnection.__init__(
        self, f"{conn_id}.ws.{self.conn_count}", authentication=authentication, subscription=subscription
    )
    self.ws_kwargs = kwargs


def consume(task: Task, seen: Seen) -> None:
    """Reads until the process ends."""
    WSAsyncConn.__init__ = _accept_any_address
    Upbit.websocket_endpoints = [WebsocketEndpoint(task.websocket_url)]
    Upbit.rest_endpoints = [RestEndpoint(task.rest_url, routes=Routes("/v1/market/all"))]
    channel = {"trade": TRADES, "orderbook": L2_BOOK}[task.kind]
    names = ["-".join(reversed(symbol.split("-"))) for symbol in task.symbols]

    async def on_trade(trade: Any, received: float) -> None:
        seen(int(trade.id))

    async def on_book(book: Any, received: float) -> None:
        seen(0)

    handler = FeedHandler({"log": {"disabled": True}})
    handler.add_feed(Upbit(symbols=names, channels=[channel], callbacks={TRADES: on_trade, L2_BOOK: on_book}))
    handler.run()
