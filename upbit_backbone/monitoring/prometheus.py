"""Health and performance as Prometheus metrics (the [prometheus] extra; import this module only when you want it).

Names follow Prometheus' conventions: base units (seconds, bytes), `_total` for what only grows, one label per
dimension. Nothing is kept here: every scrape looks at the backbone once.

Worth an alert: `health` above 0 for a minute, `gap_oldest_seconds` above 10 (REST fills no gaps), an increase of
`gaps_incomplete_total` (something is missing for good, `gap_missing_seconds_total` says of how long a time), of
`subscription_lost_total` (a consumer is too slow) and of `recorder_lost_records_total`. The help text of each family
says the rest.
"""

from __future__ import annotations

import socketserver
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .._concurrency import Deadline, Flag, LoopThread
from ..errors import InvalidRequestError
from ..models import report
from ..models.enums import HealthStatus
from ..models.events import ConnectionState
from ..models.metric import PerformanceMetric
from .assessment import WORSE
from .metrics import Metrics

PREFIX = "upbit_backbone_"
POLL_SECONDS = 0.1  # between two looks whether the server is closed
BREAKER_VALUES = {"closed": 0, "half-open": 1, "half_open": 1, "open": 2}

# (name, help, value of one part, whether it only grows); None values are left out.
Column = tuple[str, str, Callable[..., float | int | None], bool]

SESSION_COLUMNS: tuple[Column, ...] = (
    ("session_up", "1 while the WebSocket session is live.", lambda s: s.state is ConnectionState.LIVE, False),
    ("session_suspect", "1 while a silent stall is suspected.", lambda s: s.suspect, False),
    ("session_topics", "Topics the session carries.", lambda s: s.topics, False),
    ("session_last_data_age_seconds", "Seconds since the last readable data.", lambda s: s.last_data_age, False),
    ("session_last_pong_age_seconds", "Seconds since the last pong.", lambda s: s.last_pong_age, False),
    ("session_pong_seconds", "Round trip of the last ping.", lambda s: s.pong_seconds, False),
    ("session_lag_seconds", "Lag against the exchange clock, offset removed.", lambda s: s.lag, False),
    ("session_messages_received", "Messages received.", lambda s: s.messages, True),
    ("session_received_bytes", "Bytes received.", lambda s: s.bytes, True),
    ("session_messages_sent", "Messages sent.", lambda s: s.messages_sent, True),
    ("session_connects", "Connections made.", lambda s: s.connects, True),
    ("session_reconnects", "Connections made after an interruption.", lambda s: s.reconnects, True),
    ("session_malformed_messages", "Messages not understood.", lambda s: s.malformed, True),
    ("session_refused_seconds", "For how long nothing readable came.", lambda s: s.refused_seconds or 0.0, False),
)
GROUP_COLUMNS: tuple[Column, ...] = (
    ("rest_requests", "REST requests.", lambda g: g.requests, True),
    ("rest_failures", "REST requests that failed.", lambda g: g.failures, True),
    ("rest_received_bytes", "Bytes of REST answers.", lambda g: g.bytes, True),
    ("rest_rate_limited", "Answers 429, too many requests.", lambda g: g.limited_429, True),
    ("rest_banned", "Answers 418, blocked.", lambda g: g.banned_418, True),
    ("rest_limit_requests_per_second", "Requests per second that are allowed.", lambda g: g.limit_per_second, False),
    ("rest_limit_available_requests", "Requests the limiter would let through now.", lambda g: g.available, False),
    ("rest_waiting_requests", "Requests that wait for the limiter.", lambda g: g.waiting, False),
    ("rest_paused_seconds", "For how long the group is still paused.", lambda g: g.paused_for, False),
    (
        "rest_breaker_state",
        "Circuit breaker: 0 closed, 1 half open, 2 open.",
        lambda g: BREAKER_VALUES.get(g.breaker),
        False,
    ),
)
SUBSCRIPTION_COLUMNS: tuple[Column, ...] = (
    ("subscription_received", "Items received.", lambda s: s.received, True),
    ("subscription_delivered", "Items taken by the consumer.", lambda s: s.delivered, True),
    ("subscription_dropped", "Items dropped or replaced by newer ones.", lambda s: s.dropped, True),
    ("subscription_lost", "Items dropped for want of room.", lambda s: s.lost, True),
    ("subscription_errors", "Exceptions the callback raised.", lambda s: s.errors, True),
    ("subscription_pending_items", "Items that wait for the consumer.", lambda s: s.pending, False),
    ("subscription_lag_seconds", "Age of the oldest item that waits.", lambda s: s.lag, False),
)

RECORDER_COLUMNS: tuple[Column, ...] = (
    ("recorder_up", "1 while the recorder writes, 0 after a disk error.", lambda r: r.error is None, False),
    ("recorder_records", "Records safely on the disk.", lambda r: r.records, True),
    (
        "recorder_lost_records",
        "Records that will never be on the disk.",
        lambda r: r.lost,
        True,
    ),
    ("recorder_waiting_records", "Records that wait for the disk.", lambda r: r.waiting, False),
    ("recorder_written_bytes", "Bytes written.", lambda r: r.written_bytes, True),
)
SINK_COLUMNS: tuple[Column, ...] = (
    ("sink_up", "1 while the sink takes what it is given.", lambda s: s.error is None, False),
    ("sink_written_items", "Items kept by the sink.", lambda s: s.written, True),
    ("sink_duplicate_items", "Items it had already.", lambda s: s.duplicates, True),
    ("sink_dropped_items", "Items that will never be kept.", lambda s: s.dropped, True),
    ("sink_failures", "Calls of the sink that failed and were made again.", lambda s: s.retries, True),
    ("sink_waiting_items", "Items that wait for the sink, in memory and on disk.", lambda s: s.waiting, False),
    ("sink_spilled_items", "Items that wait on disk.", lambda s: s.spilled, False),
    ("sink_spilled_bytes", "Bytes of what waits on disk.", lambda s: s.spilled_bytes, False),
    ("sink_filling_topics", "Topics that wait for what was missed before.", lambda s: s.filling, False),
)
GAP_COLUMNS: tuple[Column, ...] = (
    ("gaps_open", "Gaps in streams that REST has not filled yet.", lambda g: g.open, False),
    ("gaps_late", "Open gaps for which live data does not wait any more.", lambda g: g.late, False),
    ("gap_parked_items", "Live items that wait for a gap to be filled.", lambda g: g.parked, False),
    ("gap_oldest_seconds", "Age of the oldest open gap, 0 while there is none.", lambda g: g.oldest, False),
    ("gap_unattended_seconds", "For how long due repairs have found no thread.", lambda g: g.unattended, False),
)
GAP_TOTAL_COLUMNS: tuple[Column, ...] = (
    ("gaps_filled", "Gaps filled from REST.", lambda g: g.filled, True),
    ("gaps_incomplete", "Gaps of which something stayed missing.", lambda g: g.incomplete, True),
    ("gap_recovered_items", "Trades or candles fetched from REST and delivered.", lambda g: g.recovered, True),
    (
        "gap_missing_seconds",
        "Time on the exchange in which something stayed missing (how many items, nobody can tell).",
        lambda g: g.missing_seconds,
        True,
    ),
)


class HasHealth(Protocol):
    def health(self) -> report.HealthReport: ...


class PrometheusCollector(Collector):
    """Register it with any registry: `REGISTRY.register(market.prometheus_collector())`.

    Once: a page on which a name is announced twice is refused by every parser, so a registry refuses a second collector
    (ValueError). Several backbones share one, by names of yours: `PrometheusCollector({"kr": one, "sg": other})`;
    every sample then carries the label `backbone`.
    """

    def __init__(self, health: Callable[[], report.HealthReport] | Mapping[str, HasHealth]) -> None:
        self._health = health

    def describe(self) -> Iterable[Metric]:
        """The names of all families, by which a registry knows who is there twice. Asks nothing of a backbone."""
        return _families(_NOTHING)

    def collect(self) -> Iterator[Metric]:
        if not isinstance(self._health, Mapping):
            yield from _families(self._health())
            return
        merged: dict[str, Metric] = {}
        for name, market in self._health.items():
            for family in _families(market.health()):
                known = merged.setdefault(family.name, family)
                labelled = [each._replace(labels={"backbone": name, **each.labels}) for each in family.samples]
                known.samples = labelled if known is family else known.samples + labelled
        yield from merged.values()

    def __repr__(self) -> str:
        names = f" of {', '.join(self._health)}" if isinstance(self._health, Mapping) else ""
        return f"<PrometheusCollector{names}>"


def _families(health: report.HealthReport) -> Iterator[Metric]:
    yield from _overall(health)
    yield from _table(SESSION_COLUMNS, "session", health.sessions, lambda s: s.session)
    yield from _table(GROUP_COLUMNS, "group", health.groups, lambda g: g.group)
    yield from _subscriptions(health.subscriptions)
    gaps = [] if health.gaps is None else [health.gaps]
    yield from _table(GAP_COLUMNS, None, gaps, str)
    yield from _table(GAP_TOTAL_COLUMNS, "type", [each for one in gaps for each in one.totals], lambda g: g.type)
    yield from _table(RECORDER_COLUMNS, "path", [r for r in (health.recorder,) if r is not None], lambda r: r.path)
    yield from _table(SINK_COLUMNS, "sink", health.sinks, lambda s: s.sink)
    performance = health.performance
    yield from _answers(performance.channels, "channel_answer", "channel", "by channel")
    yield from _answers(performance.groups, "rest_answer", "group", "by REST group")


_NOTHING = report.HealthReport(
    at=datetime.fromtimestamp(0, UTC),
    status=HealthStatus.HEALTHY,
    reasons=(),
    sessions=(),
    groups=(),
    subscriptions=(),
    performance=Metrics().report(report.CacheStats(hits=0, misses=0, merged=0, stored=0, invalidated=0, size=0)),
    clock_offset=0.0,  # so that what is left out while it is not known is named, too
)


def _overall(health: report.HealthReport) -> Iterator[Metric]:
    status = GaugeMetricFamily(f"{PREFIX}health_status", "1 for the present status.", labels=["status"])
    for word in HealthStatus:
        status.add_metric([word.value], health.status is word)
    yield status
    yield GaugeMetricFamily(f"{PREFIX}health", "0 healthy, 1 degraded, 2 unhealthy.", value=WORSE[health.status])
    if health.clock_offset is not None:
        yield GaugeMetricFamily(f"{PREFIX}clock_offset_seconds", "Our clock minus Upbit's.", value=health.clock_offset)
    performance = health.performance
    yield CounterMetricFamily(
        f"{PREFIX}live_answers", "Answers straight from a live stream.", value=performance.live_answers
    )
    yield _counted(f"{PREFIX}routed", "Answers by the rule that chose the way.", "rule", performance.routing)
    events = {name.removeprefix("event."): n for name, n in performance.counters.items() if name.startswith("event.")}
    yield _counted(f"{PREFIX}events", "Events by kind.", "kind", events)
    unread = {name.removeprefix("unread."): n for name, n in performance.counters.items() if name.startswith("unread.")}
    yield _counted(f"{PREFIX}unread_fields", "Fields that could not be read.", "field", unread)
    if (cache := performance.cache) is not None:
        words = {"hit": cache.hits, "miss": cache.misses, "merged": cache.merged}
        yield _counted(f"{PREFIX}cache_requests", "Questions to the cache by result.", "result", words)
        yield GaugeMetricFamily(f"{PREFIX}cache_entries", "Entries in the cache.", value=cache.size)


def _counted(name: str, text: str, label: str, counts: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, n in sorted(counts.items()):
        family.add_metric([key], n)
    return family


Part = (
    report.SessionStats
    | report.GroupStats
    | report.SubscriptionStats
    | report.RecorderStats
    | report.SinkStats
    | report.GapStats
    | report.GapTotals
)


def _table(
    columns: tuple[Column, ...], label: str | None, parts: Iterable[Part], name_of: Callable[..., str]
) -> Iterator[Metric]:
    """One family for each column, one sample in it for each part; without a `label` there is only one part."""
    parts = list(parts)
    for name, text, value_of, only_grows in columns:
        kind = CounterMetricFamily if only_grows else GaugeMetricFamily
        family = kind(f"{PREFIX}{name}", text, labels=[] if label is None else [label])
        for part in parts:
            if (value := value_of(part)) is not None:
                family.add_metric([] if label is None else [name_of(part)], float(value))
        yield family


def _subscriptions(subscriptions: tuple[report.SubscriptionStats, ...]) -> Iterator[Metric]:
    yield GaugeMetricFamily(f"{PREFIX}subscriptions", "Open subscriptions.", value=len(subscriptions))
    yield from _table(SUBSCRIPTION_COLUMNS, "subscription", subscriptions, lambda s: s.subscription)


def _answers(metrics: tuple[PerformanceMetric, ...], name: str, label: str, text: str) -> Iterator[Metric]:
    times = GaugeMetricFamily(f"{PREFIX}{name}_seconds", f"Recent answering times {text}.", labels=[label, "quantile"])
    success = GaugeMetricFamily(f"{PREFIX}{name}_success_ratio", f"Recent good answers {text}.", labels=[label])
    total = CounterMetricFamily(f"{PREFIX}{name}s", f"Answers {text}.", labels=[label])
    errors = CounterMetricFamily(f"{PREFIX}{name}_errors", f"Errors {text}.", labels=[label, "error"])
    for metric in metrics:
        who = metric.name.removeprefix("rest:")
        for quantile, value in (("0.5", metric.p50), ("0.95", metric.p95), ("0.99", metric.p99)):
            if value is not None:
                times.add_metric([who, quantile], value)
        if metric.success_rate is not None:
            success.add_metric([who], metric.success_rate)
        total.add_metric([who], metric.requests)
        for error, n in sorted(metric.errors.items()):
            errors.add_metric([who, error], n)
    yield from (times, success, total, errors)


class _Server(WSGIServer):
    def server_bind(self) -> None:
        # The base class asks DNS for our own full name, which can take many seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class _QuietHandler(WSGIRequestHandler):
    timeout = 5.0  # a client that says nothing must not keep others waiting

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class named it
        """A scrape every few seconds is not worth a line on stderr."""


class MetricsServer:
    """The metrics page, served on a thread of its own until `close()`."""

    def __init__(self, collector: Collector, port: int, host: str = "127.0.0.1") -> None:
        registry = CollectorRegistry()
        registry.register(collector)
        try:
            self._server = make_server(host, port, make_wsgi_app(registry), _Server, _QuietHandler)
        except (OSError, OverflowError) as error:
            raise InvalidRequestError(
                f"port={port}: cannot serve metrics on {host} ({error}); choose another port"
            ) from error
        # Request by request: `shutdown` of `serve_forever` waits for ever for a thread that had not begun to serve.
        self._server.timeout = POLL_SECONDS
        self._is_closed = Flag()
        self._loop = LoopThread(self._server.handle_request, "upbit-metrics-server", is_over=self._is_closed.is_set)
        try:
            self._loop.ensure()
        except BaseException:  # no thread to be had, or Ctrl-C: nobody could ever close it
            self.close()
            raise

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def url(self) -> str:
        return f"http://{self._server.server_name}:{self.port}/metrics"

    def close(self, timeout: float = 2.0) -> list[str]:
        """Stop serving; idempotent."""
        self._is_closed.set()
        stubborn = self._loop.join(Deadline.after(timeout))
        self._server.server_close()
        return stubborn

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<MetricsServer {self.url}>"


def serve_metrics(market: HasHealth | Mapping[str, HasHealth], port: int, host: str = "127.0.0.1") -> MetricsServer:
    """Serve a backbone's figures (or those of several, by name) as a Prometheus page; port 0 takes a free one.

    InvalidRequestError when the port is taken.
    """
    return MetricsServer(PrometheusCollector(market if isinstance(market, Mapping) else market.health), port, host)
