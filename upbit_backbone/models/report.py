"""How the parts are doing: snapshots that every long-lived object can give of itself, and the reports made of them.

Durations and ages are seconds throughout.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from .._language import spoken, told
from .enums import HealthStatus
from .events import ConnectionState
from .jsonable import Jsonable
from .metric import PerformanceMetric, duration
from .readable import preformatted


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStats(Jsonable):
    """One WebSocket session. Ages in seconds, None before the first time.

    `last_data_age` counts data that could be read; `messages` and `bytes` whatever came, `malformed` what was refused.
    `lag` is how many seconds what came last was late at most, by Upbit's clock or, where nothing new comes, by the time
    an answer took. The rates between two looks are filled in by the health monitor, and so is `refused_seconds`, for
    how long everything that came has been unreadable.
    """

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
    messages_per_second: float | None = None
    bytes_per_second: float | None = None
    lag: float | None = None
    refused_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionStats(Jsonable):
    """One subscription. received == delivered + dropped + pending; `lag` is the age in seconds of the oldest
    undelivered item, 0.0 when nothing waits. Of what was dropped, `lost` found no room; the rest was replaced by newer
    values of the same kind, which is what conflating means. `ahead_of_end`: how many items stood in a queue of your own
    in front of its end mark when that was put in."""

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
    lost: int = 0
    ahead_of_end: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalStats(Jsonable):
    """Data that comes and cannot be read: of one `topic`, or (None) everything a session receives. `seconds` since the
    last that could; `reason` is the latest complaint."""

    session: str
    topic: str | None
    seconds: float
    count: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats(Jsonable):
    """The cache of REST answers; `merged` are callers who shared somebody else's call."""

    hits: int
    misses: int
    merged: int
    stored: int
    invalidated: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStats(Jsonable):
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


@dataclass(frozen=True, slots=True, kw_only=True)
class GapTotals(Jsonable):
    """The receipts (`GapEvent`) given for streams of one `type`: gaps `filled` from REST, gaps left `incomplete`, items
    `recovered`, and `missing_seconds`, how much of Upbit's time is in what stayed missing. How many items that were
    nobody can tell: Upbit's ids do not count them."""

    type: str
    filled: int = 0
    incomplete: int = 0
    recovered: int = 0
    missing_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GapStats(Jsonable):
    """Gaps in the streams that REST has not filled yet. Of those `open`, live data does not wait for the `late` ones;
    `parked` items wait for the others (or for strict order). `oldest` is the age in seconds of the oldest hole,
    `unattended` for how long due work has found no thread, `problem` what the latest attempt met. `totals` are about
    the gaps that were open before."""

    open: int
    late: int
    parked: int
    oldest: float
    unattended: float
    problem: str | None = None
    totals: tuple[GapTotals, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderStats(Jsonable):
    """A recorder: `records`, `received_bytes` (what came in, in them) and `written_bytes` are safely on the disk.

    `waiting` records are not there yet, half a second at most while all is well. `lost` ones never will be: the disk
    was too slow for them, or failed; `error` is why recording ended early. `path` is the file that is written now;
    a rotated recording has `files` of them so far. `damage` tells what could not be read of a recording that was
    continued.
    """

    path: str
    records: int
    received_bytes: int
    written_bytes: int
    lost: int
    error: str | None
    waiting: int = 0
    files: int = 1
    damage: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkStats(Jsonable):
    """A sink that is recorded to: `written` items are kept by it, `duplicates` of what it was given it had already.

    `waiting` items are on their way to it, `spilled` of them in a file of `spilled_bytes`, where they wait until it
    takes any again. `dropped` ones are lost: there was no room for them, or nobody could keep them. `retries` counts
    calls that failed in all, `error` is why the last one did, None while all is well, and `failing_seconds` for how
    long that has been so. Of `filling` topics something that was missed before is still to be fetched, or was asked for
    and Upbit's answer may yet change; 0 once all is written that Upbit still has. What it has no more does not count.
    """

    sink: str
    written: int
    duplicates: int
    waiting: int
    spilled: int
    spilled_bytes: int
    dropped: int
    batches: int
    retries: int
    filling: int = 0
    error: str | None = None
    failing_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayStats(Jsonable):
    """A relay to Redis: whether it leads (under which `token`) or stands by.

    `published` items were written by it, `duplicates` had been published by another, `waiting` ones are still to be.
    `lost` ones gave way while Redis could not be reached, `dropped` ones before they came that far. `changes` counts
    how often it took the lead, `error` is why the last step failed, None while all is well.
    """

    relay: str
    is_leading: bool
    token: int | None
    published: int
    duplicates: int
    waiting: int
    lost: int
    dropped: int
    changes: int
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadEstimate(Jsonable):
    """What a download will take at most: `requests` to Upbit, `seconds` at the rate it allows, `rows` in the answer.

    Periods without a trade have no row, so rows and requests may be fewer; what others ask meanwhile adds to the time.
    """

    requests: int
    seconds: float
    rows: int

    def __str__(self) -> str:
        how_long = f"{self.seconds:,.0f} s" if self.seconds < 120 else f"{self.seconds / 60:,.0f} minutes"
        return spoken(f"{self.rows:,} rows at most, {self.requests:,} requests, about {how_long}")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PerformanceReport(Jsonable):
    """What the library did and how fast.

    `routing` counts answers by the rule of the routing table that chose the way; `counters` holds everything else
    that is only counted (event kinds, for example). `live_share` is the share of answers that came straight from a
    running stream, without a request.
    """

    at: datetime
    channels: tuple[PerformanceMetric, ...]
    groups: tuple[PerformanceMetric, ...]
    routing: dict[str, int]
    counters: dict[str, int]
    live_answers: int
    live_share: float | None
    cache: CacheStats | None

    @property
    def cache_hit_rate(self) -> float | None:
        """Share of cacheable questions that needed no request of their own."""
        if self.cache is None or not (asked := self.cache.hits + self.cache.misses):
            return None
        return self.cache.hits / asked

    def __str__(self) -> str:
        share = "" if self.live_share is None else told(" ({} of all)", f"{self.live_share:.1%}")
        lines = [told("{} answers straight from a stream", self.live_answers) + share]
        lines += [str(metric) for metric in (*self.channels, *self.groups)]
        if self.routing:
            lines.append(told("routing: {}", ", ".join(f"{rule} {n}" for rule, n in sorted(self.routing.items()))))
        if (cache := self.cache) is not None:
            lines.append(told("cache: {} hits, {} misses, {} merged", cache.hits, cache.misses, cache.merged))
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<PerformanceReport {self.live_answers} answers straight from a stream, {len(self.channels)} channels>"

    def _repr_html_(self) -> str:
        return preformatted(str(self))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class HealthReport(Jsonable):
    """One look at everything. `reasons` says in words why `status` is not HEALTHY; empty when it is.

    `recent_drops` are items lost by each slow subscription within the last minute, not counting those that were
    replaced by newer ones. `clock_offset` is our clock minus Upbit's,
    including the quickest network way; None before the first live message. `recorder` is the one at work, if any, and
    `sinks` are those that are recorded to. `upstream` is where streams come from where `config.upstream` names a relay.
    """

    at: datetime
    status: HealthStatus
    reasons: tuple[str, ...]
    sessions: tuple[SessionStats, ...]
    groups: tuple[GroupStats, ...]
    subscriptions: tuple[SubscriptionStats, ...]
    performance: PerformanceReport
    recent_drops: dict[str, int] = field(default_factory=dict)
    refusals: tuple[RefusalStats, ...] = ()
    clock_offset: float | None = None
    gaps: GapStats | None = None
    recorder: RecorderStats | None = None
    sinks: tuple[SinkStats, ...] = ()
    upstream: str | None = None

    @property
    def is_healthy(self) -> bool:
        """Whether `status` is HEALTHY."""
        return self.status is HealthStatus.HEALTHY

    def __str__(self) -> str:
        lines = [told(self.status.name)]
        lines += [f"  {spoken(reason)}" for reason in self.reasons]
        lines += [] if self.upstream is None else [f"  {told('streams come from {}', self.upstream)}"]
        lines += [_session_line(each) for each in self.sessions]
        lines += [_group_line(each) for each in self.groups if each.requests or each.paused_for]
        lines += [_subscription_line(each) for each in self.subscriptions]
        return "\n".join([*lines, str(self.performance)])

    def __repr__(self) -> str:
        why = f": {'; '.join(self.reasons)}" if self.reasons else ""
        sessions = f"{len(self.sessions)} sessions, {len(self.subscriptions)} subscriptions"
        return f"<HealthReport {self.status.name}{why}, {sessions}>"

    def _repr_html_(self) -> str:
        return preformatted(str(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert(Jsonable):
    """A rule began (`active=True`) or ceased to hold for one subject (a session, a group, a subscription)."""

    at: datetime
    rule: str
    subject: str
    active: bool
    value: float
    message: str

    def __str__(self) -> str:
        return told("ALERT: {}" if self.active else "over: {}", spoken(self.message))


def _session_line(stats: SessionStats) -> str:
    age, rate = stats.last_data_age, stats.messages_per_second
    said = [
        told(stats.state.value),
        told("{} topics", stats.topics),
        told("nothing heard yet") if age is None else told("data {} s ago", f"{age:.1f}"),
    ]
    if rate is not None:
        said.append(told("{} messages/s", f"{rate:.0f}"))
    if stats.lag is not None:
        said.append(told("lag {}", duration(stats.lag)))
    return told("session {}: {}", stats.session, ", ".join(said))


def _group_line(stats: GroupStats) -> str:
    said = [
        told("{} requests", stats.requests),
        told("{} failed", stats.failures),
        told("{} of {}/s free", f"{stats.available:.0f}", f"{stats.limit_per_second:g}"),
        told(f"breaker {stats.breaker}"),
        f"429 × {stats.limited_429}",
    ]
    if stats.paused_for:
        said.append(told("paused for {} s", f"{stats.paused_for:.1f}"))
    return f"REST {stats.group}: {', '.join(said)}"


def _subscription_line(stats: SubscriptionStats) -> str:
    said = [
        told("{} received", stats.received),
        told("{} delivered", stats.delivered),
        told("{} dropped", stats.dropped),
        told("{} waiting", stats.pending),
        told("lag {}", duration(stats.lag)),
    ]
    return told("subscription {} ({}): {}", stats.subscription, stats.policy, ", ".join(said))
