"""How the parts are doing: snapshots that every long-lived object can give of itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from .events import ConnectionState


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStats:
    """One WebSocket session. Ages in seconds, None before the first time."""

    session: str
    state: ConnectionState
    since: datetime
    topics: int
    epoch: int
    last_data_age: float | None
    last_pong_age: float | None
    pong_seconds: float | None
    messages: int
    bytes: int
    connects: int
    reconnects: int
    messages_sent: int
    malformed: int
    suspect: bool
    last_error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionStats:
    """One subscription. received == delivered + dropped + pending; `lag` is the age in seconds of the oldest
    undelivered item, 0.0 when nothing waits."""

    subscription: str
    topics: int
    policy: str
    received: int
    delivered: int
    dropped: int
    pending: int
    lag: float
    errors: int
    closed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    hits: int
    misses: int
    merged: int
    stored: int
    invalidated: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStats:
    """One REST rate group: limiter, breaker and traffic."""

    group: str
    limit_per_second: float
    available: float
    waiting: int
    granted: int
    limited_429: int
    banned_418: int
    paused_for: float
    breaker: str
    requests: int
    failures: int
    bytes: int
