"""ccxt.pro: `watch_*` in an asyncio loop."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import ccxt.pro

from benchmarks.clients.task import Seen, Task

RETRY_SECONDS = 0.1


def exchange_at(rest_url: str, websocket_url: str) -> Any:
    """Its Upbit, led to our server."""
    exchange = ccxt.pro.upbit({"newUpdates": True})
    exchange.cafile = os.environ.get("SSL_CERT_FILE", exchange.cafile)
    exchange.urls["api"] = {"public": rest_url, "private": rest_url, "ws": websocket_url}
    return exchange


def consume(task: Task, seen: Seen) -> None:
    """Reads until the process ends."""
    asyncio.run(_consume(task, seen))


async def _consume(task: Task, seen: Seen) -> None:
    exchange = exchange_at(task.rest_url, task.websocket_url)
    await exchange.load_markets()
    names = ["/".join(reversed(symbol.split("-"))) for symbol in task.symbols]
    if task.kind == "trade":
        while True:
            try:
                for trade in await exchange.watch_trades_for_symbols(names):
                    seen(int(trade["id"]))
            except Exception:  # its users are told to ask again
                await asyncio.sleep(RETRY_SECONDS)
    if task.kind == "ticker":
        while True:
            for _ in await exchange.watch_tickers(names):
                seen(0)
    await asyncio.gather(*(_books(exchange, name, seen) for name in names))


async def _books(exchange: Any, name: str, seen: Seen) -> None:
    while True:
        await exchange.watch_order_book(name)
        seen(0)
