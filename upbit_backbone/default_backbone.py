"""For scripts: one shared `MarketDataBackbone`, started on first use and closed at exit.

    import upbit_backbone as ub
    ub.get_ticker("KRW-BTC")

It is configured by the environment (UPBIT_BACKBONE_*). Each function is the method of the same name: its arguments, its
answers, its help.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from inspect import signature
from typing import Concatenate, ParamSpec, TypeVar

from ._concurrency import at_fork, notice
from .backbone import MarketDataBackbone

P = ParamSpec("P")
R = TypeVar("R")

_lock = threading.Lock()  # guards _backbone
_backbone: MarketDataBackbone | None = None


def _start_over_in_child() -> None:
    global _lock
    _lock = threading.Lock()


at_fork(_start_over_in_child)


def shared_backbone() -> MarketDataBackbone:
    """The one that the functions below use; a new one if it was closed (or if the process was forked)."""
    global _backbone
    if (known := _backbone) is not None and not known.closed:  # without the lock, which costs as much as an answer
        return known
    notice()  # in a child nobody may ever release the parent's lock
    with _lock:
        if _backbone is None or _backbone.closed:
            _backbone = MarketDataBackbone()
        return _backbone


def _of_shared(method: Callable[Concatenate[MarketDataBackbone, P], R]) -> Callable[P, R]:
    @functools.wraps(method)
    def function(*args: P.args, **options: P.kwargs) -> R:
        return method(shared_backbone(), *args, **options)

    whole = signature(method)  # for `help`, editors and notebooks; without `self`, which nobody gives
    function.__signature__ = whole.replace(parameters=list(whole.parameters.values())[1:])  # type: ignore[attr-defined]
    function.__module__, function.__qualname__ = __name__, function.__name__
    return function


get_ticker = _of_shared(MarketDataBackbone.get_ticker)
get_tickers = _of_shared(MarketDataBackbone.get_tickers)
get_orderbook = _of_shared(MarketDataBackbone.get_orderbook)
get_trades = _of_shared(MarketDataBackbone.get_trades)
get_candles = _of_shared(MarketDataBackbone.get_candles)
get_markets = _of_shared(MarketDataBackbone.get_markets)
