"""Looks at all the parts, on demand and (only when somebody wants to be told) twice a second."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .._concurrency import SYSTEM_CLOCK, Clock, Deadline, join_all, spawn
from ..errors import ClosedError, UpbitBackboneError
from ..models.enums import Channel, HealthStatus
from ..models.events import Event, HealthEvent
from ..models.report import (
    Alert,
    CacheStats,
    GapStats,
    GroupStats,
    HealthReport,
    PerformanceReport,
    SessionStats,
    SubscriptionStats,
)
from .alerts import DEFAULT_RULES, AlertBook, AlertRule
from .assessment import DEFAULT_LIMITS, Facts, Hysteresis, Limits, assess, assess_rest, assess_websocket
from .metrics import Metrics

log = logging.getLogger("upbit_backbone.monitoring")

POLL_SECONDS = 0.5
RATE_SECONDS = 10.0
DROP_SECONDS = 60.0
STREAK_SECONDS = 30.0


def _nothing() -> Sequence[object]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSources:
    """Where the facts come from: callables that each part offers. They must be quick and must not block.

    `ask_rest` is one real and cheap REST question, for `check_rest_api_health` when nothing was measured lately.
    """

    sessions: Callable[[], Sequence[SessionStats]] = _nothing  # type: ignore[assignment]
    groups: Callable[[], Sequence[GroupStats]] = _nothing  # type: ignore[assignment]
    subscriptions: Callable[[], Sequence[SubscriptionStats]] = _nothing  # type: ignore[assignment]
    cache: Callable[[], CacheStats | None] = lambda: None
    breakers: Callable[[], Mapping[str, str]] = dict
    gaps: Callable[[], GapStats | None] = lambda: None
    ban: Callable[[], str | None] = lambda: None
    ask_rest: Callable[[Deadline], object] | None = None


class Trend:
    """A growing number looked at now and then: how much it grew over the last seconds."""

    __slots__ = ("_looks", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._looks: deque[tuple[float, int]] = deque()

    def look(self, now: float, value: int) -> tuple[int, float]:
        """(growth, over how many seconds) since the oldest look within the memory."""
        if not self._looks or now - self._looks[-1][0] >= POLL_SECONDS / 2:
            self._looks.append((now, value))
        while len(self._looks) > 1 and now - self._looks[0][0] > self._seconds:
            self._looks.popleft()
        then, before = self._looks[0]
        return value - before, now - then


class HealthMonitor:
    """Thread-safe. `health()` and `performance()` look on the calling thread; nothing runs in the background until
    `watch()` or `alert()` asks for it. `close()` ends the background thread by its deadline."""

    def __init__(
        self,
        sources: HealthSources,
        metrics: Metrics,
        *,
        clock_offset: Callable[[], float | None] = lambda: None,
        clock: Clock = SYSTEM_CLOCK,
        emit: Callable[[Event], None] | None = None,
        limits: Limits = DEFAULT_LIMITS,
        name: str = "upbit-health",
    ) -> None:
        self._sources = sources
        self._metrics = metrics
        self._clock_offset = clock_offset
        self._clock = clock
        self._emit = emit
        self._limits = limits
        self._name = name
        self._wake = threading.Event()
        self._lock = threading.Lock()  # guards everything below
        self._trends: dict[tuple[str, str], Trend] = {}
        self._watchers: list[tuple[AlertBook, Callable[[Alert], object]]] = []
        self._thread: threading.Thread | None = None
        self._closed = False
        self._hysteresis = Hysteresis()

    # Looking

    def health(self) -> HealthReport:
        """How everything is now, with reasons."""
        facts, subscriptions = self._facts()
        verdict = assess(facts, self._limits)
        return HealthReport(
            at=self._clock.wall(),
            status=verdict.status,
            reasons=verdict.reasons,
            sessions=tuple(facts.sessions),
            groups=tuple(facts.groups),
            subscriptions=subscriptions,
            performance=self.performance(),
            recent_drops=dict(facts.recent_drops),
            gaps=facts.gaps,
            clock_offset=None if (ahead := self._clock_offset()) is None else -ahead,
        )

    def performance(self) -> PerformanceReport:
        """Latency percentiles, success rates, routing and cache figures."""
        return self._metrics.report(self._sources.cache())

    get_performance_report = performance

    def check_rest_api_health(self, timeout: float = 2.0) -> HealthStatus:
        """REST alone. Asks Upbit once, for at most `timeout` seconds, when nothing was measured lately."""
        ask = self._sources.ask_rest
        is_known = bool(self._metrics.recent(Channel.REST, STREAK_SECONDS))
        if ask is not None and not is_known and not self._closed:
            try:
                ask(Deadline.after(timeout))
            except UpbitBackboneError as error:
                log.debug("the REST health question failed: %s", error)
                return HealthStatus.UNHEALTHY
        facts, _ = self._facts()
        return assess_rest(facts, self._limits).status

    def check_websocket_health(self) -> HealthStatus:
        """The WebSocket sessions alone; HEALTHY while nothing is subscribed."""
        facts, _ = self._facts()
        return assess_websocket(facts, self._limits).status

    def _facts(self) -> tuple[Facts, tuple[SubscriptionStats, ...]]:
        now = self._clock.monotonic()
        sessions, groups = self._sources.sessions(), self._sources.groups()
        subscriptions = tuple(self._sources.subscriptions())
        performance = self._metrics.report()
        with self._lock:
            sessions = [self._with_rates(session, now) for session in sessions]
            drops = {
                each.subscription: self._grown("lost", each.subscription, now, each.lost, DROP_SECONDS)[0]
                for each in subscriptions
            }
            self._forget({s.session for s in sessions} | {s.subscription for s in subscriptions})
            closed = self._closed
        facts = Facts(
            sessions=sessions,
            groups=groups,
            group_metrics=performance.groups,
            rest_failing_streak=self._rest_failing_streak(),
            breakers=self._sources.breakers(),
            recent_drops={name: count for name, count in drops.items() if count > 0},
            gaps=self._sources.gaps(),
            ban=self._sources.ban(),
            closed=closed,
        )
        return facts, subscriptions

    def _with_rates(self, stats: SessionStats, now: float) -> SessionStats:
        messages, seconds = self._grown("messages", stats.session, now, stats.messages, RATE_SECONDS)
        size, _ = self._grown("bytes", stats.session, now, stats.bytes, RATE_SECONDS)
        return dataclasses.replace(
            stats,
            messages_per_second=messages / seconds if seconds > 0 else None,
            bytes_per_second=size / seconds if seconds > 0 else None,
        )

    def _grown(self, what: str, name: str, now: float, value: int, memory: float) -> tuple[int, float]:
        assert self._lock.locked()  # noqa: S101 - the caller holds it
        trend = self._trends.setdefault((what, name), Trend(memory))
        return trend.look(now, value)

    def _forget(self, present: set[str]) -> None:
        for key in [key for key in self._trends if key[1] not in present]:
            del self._trends[key]

    def _rest_failing_streak(self) -> int:
        streak = 0
        for sample in reversed(self._metrics.recent(Channel.REST, STREAK_SECONDS)):
            if sample.good:
                break
            streak += 1
        return streak

    # Telling

    def observe(self, event: Event) -> None:
        """Count an event and look again at once. Called from any thread; never blocks."""
        self._metrics.count_event(event)
        if not isinstance(event, HealthEvent):
            self._wake.set()

    def watch(self) -> None:
        """Emit a HealthEvent whenever the status changes; it worsens at once and improves after two calm seconds."""
        with self._lock:
            if self._closed or self._thread is not None:
                return
            self._thread = spawn(self._run, self._name)

    def alert(
        self, callback: Callable[[Alert], object], rules: Sequence[AlertRule] = DEFAULT_RULES
    ) -> Callable[[], None]:
        """Call `callback` on the monitor's thread when a rule begins or ceases to hold; returns the way to stop it.

        An exception in the callback is logged and hurts nobody else.
        """
        watcher = (AlertBook(rules), callback)
        with self._lock:
            if self._closed:
                raise ClosedError("the backbone is closed: no alerts any more")
            self._watchers.append(watcher)
        self.watch()
        return lambda: self._remove(watcher)

    def _run(self) -> None:
        failed = False
        while not self._closed:
            try:
                self._look_once()
                failed = False
            except Exception:  # a source of ours failed: whoever watches must go on watching
                if not failed:
                    log.exception("the health monitor could not look; it tries again")
                failed = True
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()

    def _look_once(self) -> None:
        report, now = self.health(), self._clock.monotonic()
        before = self._hysteresis.status
        self._hysteresis = self._hysteresis.seen(report.status, now)  # only this thread writes it
        after = self._hysteresis.status
        if after is not before and self._emit is not None:
            self._emit(HealthEvent(at=report.at, old=before, new=after, reasons=report.reasons))
        with self._lock:
            watchers = list(self._watchers)
        for watcher in watchers:
            self._tell(watcher, report, now)

    def _tell(self, watcher: tuple[AlertBook, Callable[[Alert], object]], report: HealthReport, now: float) -> None:
        book, callback = watcher
        try:
            alerts = book.look(report, now)
        except Exception:  # a measure of the user's; it would fail again in half a second
            log.exception("an alert rule raised; its watcher is removed")
            self._remove(watcher)
            return
        for alert in alerts:
            _call(callback, alert)

    def _remove(self, watcher: tuple[AlertBook, Callable[[Alert], object]]) -> None:
        with self._lock:
            if watcher in self._watchers:
                self._watchers.remove(watcher)

    def close(self, deadline: Deadline) -> list[str]:
        """Stop; names of threads that would not. Idempotent."""
        with self._lock:
            self._closed = True
            self._watchers.clear()
            thread = self._thread
        self._wake.set()
        return join_all([thread] if thread else [], deadline)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "watching" if self._thread else "on demand"
        return f"<HealthMonitor {state}, {self._hysteresis.status.value}>"


def _call(callback: Callable[[Alert], object], alert: Alert) -> None:
    try:
        callback(alert)
    except Exception:
        log.exception("an alert callback raised", extra={"alert": alert.rule, "subject": alert.subject})
