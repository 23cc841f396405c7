"""The vocabulary: closed sets of words, each a `str` so that it prints and serialises as itself."""

from __future__ import annotations

from enum import Enum, IntEnum, StrEnum


class DataSource(StrEnum):
    """Where a datum came from."""

    REST = "rest"
    WEBSOCKET = "websocket"
    RELAY = "relay"  # streamed to a relay, which handed it on through Redis (`upstream=`)
    DERIVED = "derived"  # made by us from other data: filled or aggregated candles


class Channel(StrEnum):
    """A way to answer a question."""

    LIVE = "live"  # the newest value of a running stream, straight from memory
    WEBSOCKET = "websocket"  # subscribe and wait for the first frame
    REST = "rest"
    CACHE = "cache"  # an earlier REST answer that is still young enough
    REST_API = REST  # another name for the same member


class ChannelPreference(StrEnum):
    """Which of Upbit's two ways a decision prefers, however many steps it has."""

    WEBSOCKET_PREFERRED = "WEBSOCKET_PREFERRED"
    REST_API_PREFERRED = "REST_API_PREFERRED"


class DataType(StrEnum):
    """What can be subscribed to. The values are Upbit's own words; `DataType("1h")` understands ours for candles."""

    TICKER = "ticker"
    TRADE = "trade"
    ORDERBOOK = "orderbook"
    CANDLE_1S = "candle.1s"
    CANDLE_1M = "candle.1m"
    CANDLE_3M = "candle.3m"
    CANDLE_5M = "candle.5m"
    CANDLE_10M = "candle.10m"
    CANDLE_15M = "candle.15m"
    CANDLE_30M = "candle.30m"
    CANDLE_60M = "candle.60m"
    CANDLE_240M = "candle.240m"

    @property
    def is_candle(self) -> bool:
        """Whether these are candles, of whatever unit."""
        return self.value.startswith("candle.")

    @classmethod
    def _missing_(cls, value: object) -> DataType | None:
        # The words that candles are asked for with, and that they carry in `timeframe`: what one call gives, the other
        # takes.
        word = {"1h": "60m", "4h": "240m"}.get(str(value), str(value))
        return cls.__members__.get(f"CANDLE_{word.upper()}") if word.islower() else None


class RequestKind(StrEnum):
    """What can be asked."""

    TICKER = "ticker"
    ORDERBOOK = "orderbook"
    TRADES = "trades"
    CANDLES = "candles"
    MARKETS = "markets"


class Priority(IntEnum):
    """Who is served first when requests wait for the rate limit; equal priorities are first come, first served."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


class DataStrategy(StrEnum):
    """How the caller wants the channel to be chosen."""

    AUTO = "auto"
    REST_ONLY = "rest_only"
    WEBSOCKET_ONLY = "websocket_only"
    PREFER_REST = "prefer_rest"
    PREFER_WEBSOCKET = "prefer_websocket"
    CACHE_OK = "cache_ok"  # an answer up to the cache's lifetime old is fine


class Overflow(StrEnum):
    """What a subscription does when its consumer is slower than the market. None of them makes the stream wait.

    Without one, tickers, order books and candles are conflated and trades drop the oldest.

    CONFLATE: only the latest of each market and type waits; a newer one takes its place. Never full, and what you read
    is the present.
    DROP_OLDEST: at most `maxsize` items wait; the oldest give way to new ones, counted in `stats.lost`.
    BLOCK: nothing is given up. What exceeds `maxsize` is parked, up to 40,000 items (some 45 MB of trades); you are
    told when parking begins (OverflowEvent). Only beyond that are the newest refused, counted and told.
    ERROR: at most `maxsize` items wait; one more ends the subscription. What waits can still be read, then reading
    raises SubscriptionError.
    """

    CONFLATE = "conflate"
    DROP_OLDEST = "drop_oldest"
    BLOCK = "block"
    ERROR = "error"


class Audience(Enum):
    """Which subscribers something is for, while what a break has cost is still being fetched."""

    EVERYONE = "everyone"
    STRICT = "strict"  # those who would rather wait than get things out of order
    OTHERS = "others"


class Change(StrEnum):
    """Price against the previous UTC day's close."""

    RISE = "RISE"
    EVEN = "EVEN"
    FALL = "FALL"


class Side(StrEnum):
    """Taker side of a trade: BID = a buyer lifted an ask, ASK = a seller hit a bid."""

    ASK = "ASK"
    BID = "BID"


class StreamType(StrEnum):
    """Whether a WebSocket frame was the first picture or a change."""

    SNAPSHOT = "SNAPSHOT"
    REALTIME = "REALTIME"


class HealthStatus(StrEnum):
    """How it is: all well, something is worse than it should be, or answers cannot be relied on."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


class RateGroup(StrEnum):
    """Upbit's rate groups; each has a budget of its own (docs: rate-limits)."""

    MARKET = "market"
    CANDLE = "candle"
    TRADE = "trade"
    TICKER = "ticker"
    ORDERBOOK = "orderbook"
    WEBSOCKET_CONNECT = "websocket-connect"
    WEBSOCKET_MESSAGE = "websocket-message"
