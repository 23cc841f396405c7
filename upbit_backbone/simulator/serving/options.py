"""Every switch of the simulator in one place: the command line, `FakeUpbit` and the server read the same table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(slots=True)
class Options:
    """How the simulated Upbit behaves. Defaults follow what was measured on the wire, not what is documented."""

    seed: int = 1
    """The same seed gives the same market."""
    markets: int | list[str] | None = None
    """None: 289 KRW, 328 BTC and 238 USDT pairs. A number: that many of them. A list: exactly these pairs."""
    trades_per_second: float = 50.0
    """Average over all markets; 0 means that nothing moves unless `publish_trade` is called."""
    books_per_second: float = 0.0
    """Book changes besides those that trades cause, over all markets; 0 means: twice the trade rate."""
    start_time: str | None = None
    """Where the simulator's clock starts (ISO 8601, UTC); None means now."""
    tls: bool = False
    """Whether https and wss are spoken."""
    certificate: str = "good"
    """With tls: `good`, `expired`, `wrong-host` or `self-signed`."""
    host: str = "127.0.0.1"
    """The address to listen on."""
    rest_port: int = 0
    """0 picks a free one."""
    websocket_port: int = 0
    """0 picks a free one."""
    control_port: int = 0
    """0 picks a free one."""

    rest_limit: int = 10
    """Requests per second for each REST group, in any sliding second, counted on arrival."""
    count_rejected: bool = False
    """Whether a request answered with 429 uses up budget too."""
    origin_seconds: float = 10.0
    """A request with an `Origin` header is allowed once in so many seconds."""
    connect_limit: int = 5
    """WebSocket connections per second."""
    message_limit_second: int = 5
    """Messages per second on a connection."""
    message_limit_minute: int = 100
    """Messages per minute on a connection."""
    ping_counts: bool = False
    """Whether the text message PING counts as a message."""
    body_429: str = "text"
    """`text` (Too many API requests.), `json`, or `empty`."""
    retry_after: bool = False
    """Whether 429 and 418 carry a Retry-After header; Upbit was never seen to send one."""
    ban_after: int = 30
    """So many 429s within ten seconds block the address with 418; 0 switches that off."""
    ban_seconds: float = 10.0
    """Length of the first block; each further one is twice as long."""

    idle_seconds: float = 60.0
    """A WebSocket without any traffic for so long is dropped without a close frame (documented: 120)."""
    up_seconds: float = 10.0
    """Interval of {"status":"UP"} once the text message PING has arrived."""
    error_close_delay: float = 0.15
    """From an error object to the close frame (code 1000)."""
    close_after_message_limit: bool = True
    """Whether a connection that sends more is closed."""
    snapshot_label: str = "SNAPSHOT"
    """`stream_type` of snapshots; "REALTIME" is a lie that a client has to see through."""
    kst_fields: bool = True
    """Whether candles and REST tickers carry Korean time; the venues in Singapore, Indonesia and Thailand do not."""
    snapshot_delay: float = 0.0
    """Seconds from a subscription to its first frame."""
    deflate: bool = True
    """Whether permessage-deflate is accepted when the client offers it."""
    list_batch: int = 1
    """Elements per frame in the LIST formats."""
    deprecated_ticker_fields: bool = True
    """Whether the WebSocket ticker still has `is_trading_suspended` and `market_warning`."""
    short_trade_time: bool = True
    """Whether the WebSocket trade time drops seconds that are zero ("18:17"), as was recorded."""
    text_frames: bool = False
    """Send text frames; Upbit sends binary ones."""

    candle_count_over_200: str = "truncate"
    """`truncate` (measured) or `error` (documented)."""
    unordered_ids: bool = False
    """Give some trades an id that is smaller than that of the trade before."""
    latency: float = 0.0
    """Seconds added to every REST answer."""
    keepalive_seconds: float = 75.0
    """An idle REST connection is closed after so long."""
    receive_buffer: int = 0
    """SO_RCVBUF of accepted connections; small values let a frozen server block the client's sends soon."""
    retained_trades: int = 300_000
    """Live trades kept for REST, over all markets."""
    wire_log_size: int = 100_000
    """Entries of the wire log that are kept."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def parse_setting(text: str) -> tuple[str, Any]:
    """`name=value` of `--set`; the value is JSON, or else a plain word. Unknown names are an error."""
    name, separator, value = text.partition("=")
    known = {field.name for field in fields(Options)}
    if not separator or name not in known:
        raise ValueError(f"{text!r} is not NAME=VALUE with a name among: {', '.join(sorted(known))}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
