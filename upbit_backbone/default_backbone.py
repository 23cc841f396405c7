"""For scripts: one shared `MarketDataBackbone`, started on first use and closed at exit.

    import upbit_backbone as ub
    ub.get_ticker("KRW-BTC")

It is configured by the environment (UPBIT_BACKBONE_*). Each function is the method of the same name.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from .backbone import MarketDataBackbone
from .models.market import CandleData, MarketInfo, OrderbookData, TickerData, TradeData

_lock = threading.Lock()  # guards _backbone
_backbone: MarketDataBackbone | None = None


def _start_over_in_child() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over_in_child)


def shared_backbone() -> MarketDataBackbone:
    """The one that the functions below use; a new one if it was closed (or if the process was forked)."""
    global _backbone
    with _lock:
        if _backbone is None or _backbone.closed:
            _backbone = MarketDataBackbone()
        return _backbone


def get_ticker(symbol: str, *more: Any, **options: Any) -> TickerData:
    """See `MarketDataBackbone.get_ticker`."""
    return shared_backbone().get_ticker(symbol, *more, **options)


def get_tickers(symbols: Any = None, **options: Any) -> dict[str, TickerData]:
    """See `MarketDataBackbone.get_tickers`."""
    return shared_backbone().get_tickers(symbols, **options)


def get_orderbook(symbol: str, *more: Any, **options: Any) -> OrderbookData:
    """See `MarketDataBackbone.get_orderbook`."""
    return shared_backbone().get_orderbook(symbol, *more, **options)


def get_trades(symbol: str, *more: Any, **options: Any) -> list[TradeData]:
    """See `MarketDataBackbone.get_trades`."""
    return shared_backbone().get_trades(symbol, *more, **options)


def get_candles(symbol: str, timeframe: str = "1m", *more: Any, **options: Any) -> list[CandleData]:
    """See `MarketDataBackbone.get_candles`."""
    return shared_backbone().get_candles(symbol, timeframe, *more, **options)


def get_markets(quote: str | None = None, **options: Any) -> list[MarketInfo]:
    """See `MarketDataBackbone.get_markets`."""
    return shared_backbone().get_markets(quote, **options)
