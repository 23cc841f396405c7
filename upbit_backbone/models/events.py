"""What happened to the streams: typed, frozen, delivered to `on_event`.

Events report what a user must be able to see: no fault is visible in the log only. `at` is when we noticed
(aware UTC).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from ..errors import UpbitBackboneError
from .enums import DataType, HealthStatus
from .jsonable import Jsonable


class ConnectionState(StrEnum):
    """What a session is doing. CLOSED is terminal."""

    IDLE = "idle"
    CONNECTING = "connecting"
    LIVE = "live"
    WAITING = "waiting"  # between two attempts
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Jsonable):
    """Base of all events."""

    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionEvent(Event):
    """A session changed state: `state` is the new one; `reason` says why in words.

    After an interruption `since` is when the line was lost and `downtime` its length in seconds so far.
    `retry_in` is set while waiting.
    """

    session: str
    state: ConnectionState
    reason: str
    code: int | None = None
    since: datetime | None = None
    downtime: float | None = None
    retry_in: float | None = None
    attempt: int = 0

    @property
    def is_interruption(self) -> bool:
        return self.state is ConnectionState.WAITING

    @property
    def is_recovery(self) -> bool:
        return self.state is ConnectionState.LIVE and self.downtime is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class GapEvent(Event):
    """Receipt for a gap in a stream.

    The hole lies strictly between exchange times `start` and `end`. `recovered` items were fetched and delivered in
    order before the live ones; `complete=False` says that not all of them could be had or delivered. Whatever is
    missing even so lies from `missing_start` to `missing_end`, both inclusive; they are None where the hole is closed.
    `late=True`: REST took longer than live data waits (`gap_hold_seconds`), so the recovered items came after newer
    ones, except to those who subscribed with `gap_order="strict"`. With `subscription` it is the receipt for the past
    that this one asked for with `since=`, and the stream itself has no hole.
    """

    symbol: str
    type: DataType
    start: datetime
    end: datetime
    recovered: int
    complete: bool
    reason: str = ""
    missing_start: datetime | None = None
    missing_end: datetime | None = None
    late: bool = False
    subscription: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleEvent(Event):
    """A stream is suspected silent or found late (`stale=True`), or proven alive and in time again (`stale=False`)."""

    session: str
    symbols: tuple[str, ...]
    stale: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionEvent(Event):
    """Something about single topics: no first frame, refused, delisted; with `subscription` about that one's."""

    topics: tuple[str, ...]
    reason: str
    error: UpbitBackboneError | None = None
    subscription: str = ""


class MarketChange(StrEnum):
    """What became of a market."""

    LISTED = "listed"
    DELISTED = "delisted"
    RENAMED = "renamed"
    WARNING_ON = "warning_on"
    WARNING_OFF = "warning_off"
    CAUTION_ON = "caution_on"
    CAUTION_OFF = "caution_off"
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    DELISTING_DATE = "delisting_date"


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketEvent(Event):
    """Something happened to a market, by Upbit's list of them or by its streamed ticker.

    `before` and `after` are the names (RENAMED; Korean and English, with a slash between), the caution flag that came
    or went, or the date (ISO 8601) on which trading ends; None where there is nothing to tell.
    """

    symbol: str
    change: MarketChange
    before: str | None = None
    after: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OverflowEvent(Event):
    """A slow consumer lost items; `dropped` is the total so far."""

    subscription: str
    policy: str
    dropped: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackErrorEvent(Event):
    """A user's callback raised; the stream goes on."""

    subscription: str
    error: BaseException
    in_a_row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimitEvent(Event):
    """A group was slowed down (429), or stopped (418: `banned=True`) until `until`.

    A ban has the group "rest" if REST met it: open streams go on, and one that breaks tries to connect once a second.
    It has "all" once a handshake was refused, too: then nobody connects before its end.
    """

    group: str
    until: datetime
    banned: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerEvent(Event):
    """A circuit breaker changed state."""

    breaker: str
    old: str
    new: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MalformedEvent(Event):
    """A payload could not be understood. Sampled: `count` is the total so far."""

    session: str
    reason: str
    sample: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingEvent(Event):
    """A recording is not whole: `lost` records so far found the disk too slow, or `error` ended it."""

    path: str
    lost: int
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkEvent(Event):
    """A sink that is recorded to fails (`error` says why; batches wait, and it is tried again), works again (None), or
    lost items: `dropped` is how many so far."""

    sink: str
    error: str | None
    waiting: int
    dropped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamEvent(Event):
    """Streams come from Upbit itself (`direct=True`), because the relay at `upstream` cannot be had, or from that
    relay again."""

    upstream: str
    direct: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadFieldEvent(Event):
    """A field that came could not be read, so its datum has None there: Upbit may write it in a new way.

    `field` is our name for it ("ticker.delisting_date"), `key` Upbit's with its place in the payload. Sampled: `count`
    is the total so far.
    """

    source: str
    field: str
    key: str
    reason: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryGapEvent(Event):
    """A page of past candles or trades held `count` rows that cannot be read: they are missing from the answer.

    `kind` is "trade" or the timeframe ("1m"); `first` and `last` are the times of those rows, both inclusive, or None
    where not even that could be read. `reason` is the complaint about one of them.
    """

    symbol: str
    kind: str
    count: int
    first: datetime | None
    last: datetime | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthEvent(Event):
    """The overall health changed."""

    old: HealthStatus
    new: HealthStatus
    reasons: tuple[str, ...]


def now() -> datetime:
    """The default for `at` where no clock is injected."""
    return datetime.now(UTC)
