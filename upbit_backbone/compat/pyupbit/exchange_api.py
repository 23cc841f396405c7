"""pyupbit's trading side: `get_tick_size` here, everything else from the pyupbit that is installed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from .stand_in import installed

# pyupbit's own table, which is older than Upbit's: from this price on, what to divide by; below 1,000 by what to
# divide again to come back. Programs compare with what it gives; the true ticks are `market.round_price`.
_FROM_A_THOUSAND: Final = ((2_000_000, 1000), (1_000_000, 500), (500_000, 100), (100_000, 50), (10_000, 10), (1000, 1))
_BELOW: Final = (
    *((100, 0.1, 10), (10, 0.01, 100), (1, 0.001, 1000), (0.1, 0.0001, 10_000), (0.01, 0.00001, 100_000)),
    *((0.001, 0.000001, 1_000_000), (0.0001, 0.0000001, 10_000_000), (-math.inf, 0.00000001, 100_000_000)),
)
_METHODS: Final[dict[str, Callable[[Any], Any]]] = {"floor": math.floor, "round": round}


def get_tick_size(price: Any, method: str = "floor") -> Any:
    """`price` on pyupbit's grid of KRW prices (not the size of a tick): int from 1,000 won up, float below.

    `method` is "floor" or "round"; anything else rounds up. For what Upbit really allows, and for BTC and USDT
    markets, see `MarketDataBackbone.round_price`.
    """
    whole = _METHODS.get(method, math.ceil) if isinstance(method, str) else math.ceil
    for least, step in _FROM_A_THOUSAND:
        if price >= least:
            return whole(price / step) * step
    for lowest, part, parts in _BELOW:
        if price >= lowest:
            return whole(price / part) / parts
    return whole(price / 0.00000001) / 100_000_000  # not a number: what follows says so, as in pyupbit


MISSING: Final = (
    "is a part of pyupbit's trading side, which upbit_backbone does not have; install pyupbit beside it "
    "(pip install pyupbit), and it is passed through"
)

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        pyupbit = installed()
        if pyupbit is None and name == "Upbit":
            raise ImportError(f"pyupbit.{name} {MISSING}")
        if not hasattr(pyupbit, "exchange_api") or not hasattr(pyupbit.exchange_api, name):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(pyupbit.exchange_api, name)
