"""Where the modules of 0.1.0 have gone: their old paths still lead to them, with a DeprecationWarning.

Only paths are kept, not what 0.1.0 kept inside them. Nothing within the package uses an old path. To be taken out with
0.3.0.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import MappingProxyType, ModuleType
from typing import Any, Final

PACKAGE: Final = "upbit_backbone"

# Old path -> new path, both below the package. An empty new path is a folder that is gone.
MOVED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "candles": "",
        "candles.aggregate": "history.aggregate",
        "candles.bars": "live.bars",
        "candles.closed_store": "history.closed_candles",
        "candles.download": "history.download",
        "candles.history": "history.candles",
        "candles.live_book": "live.orderbook",
        "candles.paging": "history.paging",
        "candles.ranges": "history.ranges",
        "candles.series": "live.candle_series",
        "candles.trades_history": "history.trades",
        "candles.walk": "history.pages",
        "channels.rest_verdict": "exchange.status",
        "channels.stream_wait": "channels.stream",
        "cli.board": "cli.views",
        "frames": "export.dataframe",
        "models.symbol": "exchange.markets",
        "models.timeframe": "exchange.timeframes",
        "models.topic": "models.request",
        "monitoring.event_words": "monitoring.log_lines",
        "recorder.replay_sessions": "recorder.replay",
        "recorder.replay_transport": "recorder.replay",
        "resilience.backoff": "sessions.reconnect_policy",
        "resilience.ban": "limits.ban",
        "resilience.rate_limiter": "limits.rate_limiter",
        "resilience.window": "limits.window",
        "routing.hot_path": "routing.router",
        "sessions.continuity": "backfill.sequence",
        "sessions.gap_repair": "backfill.gap_repair",
        "sessions.pacing": "sessions.subscription_sender",
        "sessions.registry": "sessions.subscription_plan",
        "shared": "default_backbone",
        "unify.builders": "unify.typed",
        "unify.fields": "exchange.fields",
        "unify.values": "exchange.values",
        "wire.endpoints": "exchange.endpoints",
        "wire.handshake": "wire.websocket_transport",
        "wire.protocol": "exchange.stream",
        "writers": "export.files",
    }
)


class _Redirect:
    """A loader that fills an old module with the names of the new one.

    No subclass of importlib.abc.Loader, whose module takes longer to load than this package.
    """

    def __init__(self, old: str, new: str) -> None:
        self._old = old
        self._new = new

    def create_module(self, spec: ModuleSpec) -> None:
        """The ordinary empty one."""

    def exec_module(self, module: ModuleType) -> None:
        if not self._new:
            return
        message = f"{PACKAGE}.{self._old} is now {PACKAGE}.{self._new}; the old path goes with 0.3.0"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        found = import_module(f"{PACKAGE}.{self._new}")
        vars(module).update({name: value for name, value in vars(found).items() if not name.startswith("__")})


class _OldPaths:
    """A meta path finder. Asked last, so only for what is not found where it was asked for."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, old = fullname.partition(".")
        if package != PACKAGE or old not in MOVED:
            return None
        loader: Any = _Redirect(old, MOVED[old])
        return ModuleSpec(fullname, loader, is_package=not MOVED[old])


def keep_old_paths() -> None:
    """Have imports by old paths find the new modules. Once a process is enough; more does nothing."""
    if not any(isinstance(finder, _OldPaths) for finder in sys.meta_path):
        sys.meta_path.append(_OldPaths())
