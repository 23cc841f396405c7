"""Upbit's market data through one blocking, thread-safe object.

    from upbit_backbone import MarketDataBackbone

    with MarketDataBackbone() as market:
        print(market.get_ticker("KRW-BTC").current_price)

The public names, and only names. The functions are for scripts: they use one shared backbone. A name loads what it
needs when it is first used, so importing the package costs next to nothing.
"""

from typing import TYPE_CHECKING

from . import _lazy, _moved

if TYPE_CHECKING:  # the same names as below, for type checkers and editors
    from .backbone import MarketDataBackbone, UnifiedMarketDataAPI
    from .config import BackboneConfig
    from .default_backbone import (
        get_candles,
        get_markets,
        get_orderbook,
        get_ticker,
        get_tickers,
        get_trades,
        shared_backbone,
    )
    from .delivery.subscription import Subscription, SubscriptionId
    from .errors import (
        AuthenticationError,
        BannedError,
        ChannelUnavailableError,
        ClosedError,
        DownloadCancelledError,
        FileInUseError,
        InvalidRequestError,
        MaintenanceError,
        MalformedDataError,
        MessageTooBigError,
        NetworkError,
        NoTradesYetError,
        ProtocolError,
        RateLimitError,
        RequestTimeoutError,
        ServerError,
        StaleDataError,
        SubscriptionError,
        TlsError,
        UnknownSymbolError,
        UnknownTimeframeError,
        UpbitBackboneError,
    )
    from .exchange.fields import FIELD_MAPPING
    from .history.aggregate import candles_from_trades, resample
    from .history.candles import CandleHistory
    from .live.candle_series import CandleSeries
    from .live.orderbook import LiveOrderbook
    from .models.enums import (
        Change,
        Channel,
        ChannelPreference,
        DataSource,
        DataStrategy,
        DataType,
        HealthStatus,
        Overflow,
        Priority,
        RequestKind,
        Side,
        StreamType,
    )
    from .models.events import (
        BreakerEvent,
        CallbackErrorEvent,
        ConnectionEvent,
        ConnectionState,
        Event,
        GapEvent,
        HealthEvent,
        MalformedEvent,
        OverflowEvent,
        RateLimitEvent,
        StaleEvent,
        SubscriptionEvent,
        UnreadFieldEvent,
    )
    from .models.market import (
        KST,
        CandleData,
        MarketInfo,
        OrderbookData,
        OrderbookUnit,
        TickerData,
        TradeData,
        UnifiedCandleData,
        UnifiedOrderbookData,
        UnifiedTickerData,
        UnifiedTradeData,
    )
    from .models.metric import PerformanceMetric
    from .models.report import Alert, HealthReport, PerformanceReport
    from .models.request import ChannelDecision, DataRequest
    from .monitoring.health_monitor import HealthMonitor
    from .resilience.circuit_breaker import CircuitBreaker
    from .routing.policy import choose_channel
    from .routing.router import RequestRouter, SmartChannelRouter
    from .sessions.connection_pool import ConnectionPool
    from .sessions.session_manager import SessionManager
    from .store.intelligent_cache import IntelligentCache
    from .unify.unifier import DataUnifier

_NAMES_OF = {
    "backbone": ("MarketDataBackbone", "UnifiedMarketDataAPI"),
    "history.aggregate": ("candles_from_trades", "resample"),
    "history.candles": ("CandleHistory",),
    "live.orderbook": ("LiveOrderbook",),
    "live.candle_series": ("CandleSeries",),
    "config": ("BackboneConfig",),
    "delivery.subscription": ("Subscription", "SubscriptionId"),
    "errors": (
        "AuthenticationError",
        "BannedError",
        "ChannelUnavailableError",
        "ClosedError",
        "DownloadCancelledError",
        "FileInUseError",
        "InvalidRequestError",
        "MaintenanceError",
        "MalformedDataError",
        "MessageTooBigError",
        "NetworkError",
        "ProtocolError",
        "RateLimitError",
        "RequestTimeoutError",
        "ServerError",
        "NoTradesYetError",
        "StaleDataError",
        "SubscriptionError",
        "TlsError",
        "UnknownSymbolError",
        "UnknownTimeframeError",
        "UpbitBackboneError",
    ),
    "models.enums": (
        "Change",
        "Channel",
        "ChannelPreference",
        "DataSource",
        "DataStrategy",
        "DataType",
        "HealthStatus",
        "Overflow",
        "Priority",
        "RequestKind",
        "Side",
        "StreamType",
    ),
    "models.events": (
        "BreakerEvent",
        "CallbackErrorEvent",
        "ConnectionEvent",
        "ConnectionState",
        "Event",
        "GapEvent",
        "HealthEvent",
        "MalformedEvent",
        "OverflowEvent",
        "RateLimitEvent",
        "StaleEvent",
        "SubscriptionEvent",
        "UnreadFieldEvent",
    ),
    "models.market": (
        "KST",
        "CandleData",
        "MarketInfo",
        "OrderbookData",
        "OrderbookUnit",
        "TickerData",
        "TradeData",
        "UnifiedCandleData",
        "UnifiedOrderbookData",
        "UnifiedTickerData",
        "UnifiedTradeData",
    ),
    "models.metric": ("PerformanceMetric",),
    "models.report": ("Alert", "HealthReport", "PerformanceReport"),
    "models.request": ("ChannelDecision", "DataRequest"),
    "monitoring.health_monitor": ("HealthMonitor",),
    "resilience.circuit_breaker": ("CircuitBreaker",),
    "routing.policy": ("choose_channel",),
    "routing.router": ("RequestRouter", "SmartChannelRouter"),
    "sessions.connection_pool": ("ConnectionPool",),
    "sessions.session_manager": ("SessionManager",),
    "default_backbone": (
        "get_candles",
        "get_markets",
        "get_orderbook",
        "get_ticker",
        "get_tickers",
        "get_trades",
        "shared_backbone",
    ),
    "store.intelligent_cache": ("IntelligentCache",),
    "exchange.fields": ("FIELD_MAPPING",),
    "unify.unifier": ("DataUnifier",),
}
if not TYPE_CHECKING:  # which would otherwise take any name for a good one
    __getattr__, __dir__ = _lazy.attributes(__name__, _NAMES_OF)
_moved.keep_old_paths()

__version__ = "0.1.0"

__all__ = [
    "FIELD_MAPPING",
    "KST",
    "Alert",
    "AuthenticationError",
    "BackboneConfig",
    "BannedError",
    "BreakerEvent",
    "CallbackErrorEvent",
    "CandleData",
    "CandleHistory",
    "CandleSeries",
    "Change",
    "Channel",
    "ChannelDecision",
    "ChannelPreference",
    "ChannelUnavailableError",
    "CircuitBreaker",
    "ClosedError",
    "ConnectionEvent",
    "ConnectionPool",
    "ConnectionState",
    "DataRequest",
    "DataSource",
    "DataStrategy",
    "DataType",
    "DataUnifier",
    "DownloadCancelledError",
    "Event",
    "FileInUseError",
    "GapEvent",
    "HealthEvent",
    "HealthMonitor",
    "HealthReport",
    "HealthStatus",
    "IntelligentCache",
    "InvalidRequestError",
    "LiveOrderbook",
    "MaintenanceError",
    "MalformedDataError",
    "MalformedEvent",
    "MarketDataBackbone",
    "MarketInfo",
    "MessageTooBigError",
    "NetworkError",
    "NoTradesYetError",
    "OrderbookData",
    "OrderbookUnit",
    "Overflow",
    "OverflowEvent",
    "PerformanceMetric",
    "PerformanceReport",
    "Priority",
    "ProtocolError",
    "RateLimitError",
    "RateLimitEvent",
    "RequestKind",
    "RequestRouter",
    "RequestTimeoutError",
    "ServerError",
    "SessionManager",
    "Side",
    "SmartChannelRouter",
    "StaleDataError",
    "StaleEvent",
    "StreamType",
    "Subscription",
    "SubscriptionError",
    "SubscriptionEvent",
    "SubscriptionId",
    "TickerData",
    "TlsError",
    "TradeData",
    "UnifiedCandleData",
    "UnifiedMarketDataAPI",
    "UnifiedOrderbookData",
    "UnifiedTickerData",
    "UnifiedTradeData",
    "UnknownSymbolError",
    "UnknownTimeframeError",
    "UnreadFieldEvent",
    "UpbitBackboneError",
    "__version__",
    "candles_from_trades",
    "choose_channel",
    "get_candles",
    "get_markets",
    "get_orderbook",
    "get_ticker",
    "get_tickers",
    "get_trades",
    "resample",
    "shared_backbone",
]
