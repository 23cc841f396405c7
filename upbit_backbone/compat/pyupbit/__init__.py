"""pyupbit's quotation side over the backbone: a program changes one line and nothing else.

    import upbit_backbone.compat.pyupbit as pyupbit

For programs that cannot be edited: `python -m upbit_backbone.compat.pyupbit script.py`.

Every function keeps its signature, shape, types and quirks (docs/en/migration/pyupbit.md lists them). Behind them is
one shared `MarketDataBackbone`, configured by the environment (UPBIT_BACKBONE_*): prices asked often are streamed,
lists are one request, limits are kept. What belongs to trading is passed through to an installed pyupbit.

Beside pyupbit's own names there are `strict()`, `status()` and `backbone()`. Needs the extra `[pyupbit]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ... import _lazy

if TYPE_CHECKING:  # the same names as below, for type checkers and editors
    from .asking import Status, backbone, status, strict
    from .errors import RemainingReqParsingError, TooManyRequests, UpbitError
    from .exchange_api import get_tick_size
    from .quotation_api import (
        get_current_price,
        get_daily_ohlcv_from_base,
        get_ohlcv,
        get_ohlcv_from,
        get_orderbook,
        get_tickers,
        get_url_ohlcv,
    )
    from .websocket_api import WebSocketClient, WebSocketManager

    __all__ = [
        "RemainingReqParsingError",
        "Status",
        "TooManyRequests",
        "UpbitError",
        "WebSocketClient",
        "WebSocketManager",
        "backbone",
        "get_current_price",
        "get_daily_ohlcv_from_base",
        "get_ohlcv",
        "get_ohlcv_from",
        "get_orderbook",
        "get_tick_size",
        "get_tickers",
        "get_url_ohlcv",
        "status",
        "strict",
    ]

__version__ = "0.2.33"  # what pyupbit 0.2.34 says of itself

_OURS = ("Status", "backbone", "status", "strict")
_NAMES_OF = {
    "asking": _OURS,
    "errors": (
        *("CreateAskError", "CreateBidError", "ExpiredAccessKey", "InValidAccessKey", "InsufficientFundsAsk"),
        *("InsufficientFundsBid", "InvalidQueryPayload", "JwtVerification", "NoAutorizationIP", "NonceUsed"),
        *("OutOfScope", "RemainingReqParsingError", "TooManyRequests", "UnderMinTotalAsk", "UnderMinTotalBid"),
        *("UpbitError", "ValidationError", "WidthdrawAddressNotRegisterd", "error_handler"),
    ),
    "exchange_api": ("get_tick_size", "Upbit"),
    "quotation_api": (
        *("get_current_price", "get_daily_ohlcv_from_base", "get_ohlcv", "get_ohlcv_from", "get_orderbook"),
        *("get_tickers", "get_url_ohlcv"),
    ),
    "websocket_api": ("WebSocketClient", "WebSocketManager"),
}
# Modules and names that pyupbit lets slip out, and that programs with a star import use: found where they are at home.
_SLIPPED: dict[str, tuple[str, str | None]] = {
    **{name: (name, None) for name in ("datetime", "hashlib", "json", "jwt", "math", "re", "requests", "time", "uuid")},
    **{name: ("typing", name) for name in ("Any", "Dict", "Optional", "Tuple")},
    "pd": ("pandas", None),
    "Response": ("requests", "Response"),
    "urlencode": ("urllib.parse", "urlencode"),
}
# What pyupbit's star import brings of trading is there only where pyupbit is.
_TRADING = ("Upbit", "error_handler", "jwt")

if not TYPE_CHECKING:
    _own, _own_names = _lazy.attributes(__name__, _NAMES_OF)

    def __getattr__(name: str) -> Any:
        if name == "__all__":
            return _all_names()
        if name in _SLIPPED:
            from importlib import import_module

            module, attribute = _SLIPPED[name]
            value = import_module(module)
            globals()[name] = value if attribute is None else getattr(value, attribute)
            return globals()[name]
        if name.startswith("_"):  # asked for by the import system and by inspection, and nothing of pyupbit's
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            return _own(name)
        except AttributeError:
            from .stand_in import installed

            pyupbit = installed()
            if not hasattr(pyupbit, name):
                raise
            return getattr(pyupbit, name)

    def __dir__() -> list[str]:
        return sorted({*_own_names(), *_SLIPPED})


def _all_names() -> list[str]:
    """What `from pyupbit import *` brings: pyupbit's own names, those of trading where pyupbit is installed."""
    from .stand_in import is_installed

    names = {name for names in _NAMES_OF.values() for name in names if name not in _OURS} | set(_SLIPPED)
    return sorted(names if is_installed() else names - set(_TRADING))
