"""Health monitor: looks at all the parts when asked, and (only when somebody wants to be told) twice a second."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .._concurrency import SYSTEM_CLOCK, Clock, Deadline, Flag, LoopThread, calls_users, get_logger
from ..errors import ClosedError, UpbitBackboneError
from ..models import report
from ..models.enums import Channel, HealthStatus
from ..models.events import CallbackErrorEvent, Event, HealthEvent
from .alerts import BACKBONE, DEFAULT_RULES, AlertBook, AlertRule
from .assessment import DEFAULT_LIMITS, Facts, Hysteresis, Limits, assess, assess_rest, assess_websocket
from .metrics import Metrics

log = get_logger("upbit_backbone.monitoring")

POLL_SECONDS = 0.5
MIN_SPAN_SECONDS = POLL_SECONDS / 2  # looks nearer than this are one: several may look at the same time
RATE_SECONDS = 10.0
DROP_SECONDS = 60.0
STREAK_SECONDS = 30.0
RECORDER = "recorder"


def _nothing() -> Sequence[object]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSources:
    """Where the facts come from: callables that each part offers. They must be quick and must not block.

    `ask_rest` is one real and cheap REST question, for `check_rest_api_health` when nothing was measured lately.
    """

    sessions: Callable[[], Sequence[report.SessionStats]] = _nothing  # type: ignore[assignment]
    groups: Callable[[], Sequence[report.GroupStats]] = _nothing  # type: ignore[assignment]
    subscriptions: Callable[[], Sequence[report.SubscriptionStats]] = _nothing  # type: ignore[assignment]
    cache: Callable[[], report.CacheStats | None] = lambda: None
    breakers: Callable[[], Mapping[str, str]] = dict
    gaps: Callable[[], report.GapStats | None] = lambda: None
    ban: Callable[[], str | None] = lambda: None
    limits: Callable[[], str | None] = lambda: None  # why they are not kept together with all others
    recorder: Callable[[], report.RecorderStats | None] = lambda: None
    sinks: Callable[[], Sequence[report.SinkStats]] = _nothing  # type: ignore[assignment]
    refusals: Callable[[], Sequence[report.RefusalStats]] = _nothing  # type: ignore[assignment]
    upstream: Callable[[], tuple[str, str | None] | None] = lambda: None  # where it is, and the trouble with it
    ask_rest: Callable[[Deadline], object] | None = None


class Trend:
    """A growing number looked at now and then, by however many and however seldom: how fast it grows."""

    __slots__ = ("_looks", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._looks: deque[tuple[float, int]] = deque()

    def look(self, now: float, value: int) -> tuple[int, float]:
        """(growth, over how many seconds) of the last `seconds`, or of the time since the last look if that is more."""
        looks = self._looks
        if looks and value < looks[-1][1]:
            looks.clear()  # counted anew: another session, or subscription, has the name now
        if not looks or now - looks[-1][0] >= MIN_SPAN_SECONDS:
            looks.append((now, value))
        # The newest of those beyond the memory stays: who looks once in five minutes would have nothing to compare.
        while len(looks) > 1 and now - looks[1][0] >= self._seconds:
            looks.popleft()
        then, before = looks[0]
        return value - before, now - then

    def recent(self, now: float, value: int) -> int:
        """The growth within the last `seconds`: a share of it where the looks are further apart, but never nothing."""
        growth, span = self.look(now, value)
        return growth if span <= self._seconds else math.ceil(growth * self._seconds / span)


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
        self._wake = Flag()
        self._lock = threading.Lock()  # guards everything below
        self._trends: dict[tuple[str, str], Trend] = {}
        self._watchers: list[tuple[AlertBook, Callable[[report.Alert], object]]] = []
        self._loop = LoopThread(self._turn, name, is_over=lambda: self._closed, failed=self._failed)
        self._has_failed = False
        self._closed = False
        self._hysteresis = Hysteresis()

    # Looking

    def health(self) -> report.HealthReport:
        """How everything is now, with reasons."""
        facts, subscriptions = self._facts()
        verdict = assess(facts, self._limits)
        return report.HealthReport(
            at=self._clock.wall(),
            status=verdict.status,
            reasons=verdict.reasons,
            sessions=tuple(facts.sessions),
            groups=tuple(facts.groups),
            subscriptions=subscriptions,
            performance=self.performance(),
            recent_drops=dict(facts.recent_drops),
            refusals=tuple(facts.refusals),
            gaps=facts.gaps,
            clock_offset=None if (ahead := self._clock_offset()) is None else -ahead,
            recorder=facts.recorder,
            sinks=tuple(facts.sinks),
            upstream=None if facts.upstream is None else facts.upstream[0],
        )

    def performance(self) -> report.PerformanceReport:
        """Latency percentiles, success rates, routing and cache figures."""
        return self._metrics.report(self._sources.cache())

    get_performance_report = performance

    def check_rest_api_health(self, timeout: float = 2.0) -> HealthStatus:
        """REST alone. Asks Upbit once, for at most `timeout` seconds, when nothing was measured lately."""
        ask = self._sources.ask_rest
        # What users ask anyway is the better probe, and costs no request of the limit.
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

    def _facts(self) -> tuple[Facts, tuple[report.SubscriptionStats, ...]]:
        now = self._clock.monotonic()
        sessions, groups = self._sources.sessions(), self._sources.groups()
        subscriptions, recorder = tuple(self._sources.subscriptions()), self._sources.recorder()
        performance, sinks = self._metrics.report(), self._sources.sinks()
        refusals = self._sources.refusals()
        wholly_refused = {each.session: each.seconds for each in refusals if each.topic is None}
        with self._lock:
            sessions = [self._with_rates(session, now, wholly_refused.get(session.session)) for session in sessions]
            drops = {
                each.subscription: self._trend("lost", each.subscription, DROP_SECONDS).recent(now, each.lost)
                for each in subscriptions
            }
            unrecorded = 0 if recorder is None else self._trend("", RECORDER, DROP_SECONDS).recent(now, recorder.lost)
            dropped = {
                each.sink: self._trend("sink", each.sink, DROP_SECONDS).recent(now, each.dropped) for each in sinks
            }
            # Sessions and subscriptions come and go for weeks; what is not there any more must not be remembered.
            names = {s.session for s in sessions} | {s.subscription for s in subscriptions} | {s.sink for s in sinks}
            self._forget(names | {RECORDER})
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
            limits=self._sources.limits(),
            upstream=self._sources.upstream(),
            recorder=recorder,
            recently_unrecorded=unrecorded,
            sinks=sinks,
            recently_dropped=dropped,
            refusals=refusals,
            closed=closed,
        )
        return facts, subscriptions

    def _with_rates(self, stats: report.SessionStats, now: float, refused_seconds: float | None) -> report.SessionStats:
        messages, seconds = self._trend("messages", stats.session, RATE_SECONDS).look(now, stats.messages)
        size, _ = self._trend("bytes", stats.session, RATE_SECONDS).look(now, stats.bytes)
        is_known = seconds >= MIN_SPAN_SECONDS
        return dataclasses.replace(
            stats,
            messages_per_second=messages / seconds if is_known else None,
            bytes_per_second=size / seconds if is_known else None,
            refused_seconds=refused_seconds,
        )

    def _trend(self, what: str, name: str, memory: float) -> Trend:
        assert self._lock.locked()  # noqa: S101 - the caller holds it
        trend = self._trends.get((what, name))
        if trend is None:
            trend = self._trends[what, name] = Trend(memory)
        return trend

    def _forget(self, present: set[str]) -> None:
        for key in [key for key in self._trends if key[1] not in present]:
            del self._trends[key]

    def _rest_failing_streak(self) -> int:
        streak = 0
        # From the newest: one good answer ends the streak, however bad it was before.
        for sample in reversed(self._metrics.recent(Channel.REST, STREAK_SECONDS)):
            if sample.good:
                break
            streak += 1
        return streak

    # Telling

    def observe(self, event: Event) -> None:
        """Count an event and look again at once. Called from any thread; never blocks."""
        self._metrics.count_event(event)
        # Its own event would wake it to look again, and that for ever while the status changes.
        if not isinstance(event, HealthEvent):
            self._wake.set()

    def watch(self) -> None:
        """Emit a HealthEvent whenever the status changes; it worsens at once and improves after two calm seconds."""
        with self._lock:
            if self._closed:
                return
        self._loop.ensure()

    def alert(
        self, callback: Callable[[report.Alert], object], rules: Sequence[AlertRule] = DEFAULT_RULES
    ) -> Callable[[], None]:
        """Call `callback` on the monitor's thread when a rule begins or ceases to hold; returns the way to stop it.

        Whatever the callback raises (SystemExit and KeyboardInterrupt included) is told as a CallbackErrorEvent and in
        the log, and the next alert comes all the same. A rule whose measure raises is removed, with those beside it.
        """
        watcher = (AlertBook(rules), callback)
        with self._lock:
            if self._closed:
                raise ClosedError("the backbone is closed: no alerts any more")
            self._watchers.append(watcher)
        self.watch()
        return lambda: self._remove(watcher)

    def _turn(self) -> None:
        try:
            self._look_once()
            self._has_failed = False
        finally:
            # In `finally`, or a source that fails would be asked in a circle at full speed.
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()

    def _failed(self, error: BaseException) -> None:
        """A source of ours failed: told once, and whoever watches goes on watching."""
        if not self._has_failed:
            log.error("the health monitor could not look; it tries again", exc_info=error)
        self._has_failed = True

    def _look_once(self) -> None:
        health, now = self.health(), self._clock.monotonic()
        before = self._hysteresis.status
        self._hysteresis = self._hysteresis.seen(health.status, now)  # only this thread writes it
        after = self._hysteresis.status
        if after is not before and self._emit is not None:
            self._emit(HealthEvent(at=health.at, old=before, new=after, reasons=health.reasons))
        with self._lock:
            # A copy, because a callback may add or remove watchers, and none is called under the lock.
            watchers = list(self._watchers)
        for watcher in watchers:
            self._tell(watcher, health, now)

    @calls_users
    def _tell(
        self, watcher: tuple[AlertBook, Callable[[report.Alert], object]], health: report.HealthReport, now: float
    ) -> None:
        book, callback = watcher
        try:
            alerts = book.look(health, now, _present(health))
        except BaseException as error:  # a measure of the user's; it would fail again in half a second
            log.exception("an alert rule raised; its watcher is removed")
            self._remove(watcher)
            self._report_error("alert rule", error, 1)
            return
        for alert in alerts:
            self._call(callback, alert)

    @calls_users
    def _call(self, callback: Callable[[report.Alert], object], alert: report.Alert) -> None:
        try:
            callback(alert)
        except BaseException as error:  # sys.exit() in a callback must not end the alerts of everybody
            log.exception("an alert callback raised", extra={"alert": alert.rule, "subject": alert.subject})
            self._report_error(f"alert {alert.rule}", error, 1)

    def _report_error(self, whose: str, error: BaseException, in_a_row: int) -> None:
        if self._emit is not None:
            self._emit(CallbackErrorEvent(at=self._clock.wall(), subscription=whose, error=error, in_a_row=in_a_row))

    def _remove(self, watcher: tuple[AlertBook, Callable[[report.Alert], object]]) -> None:
        with contextlib.suppress(ValueError):  # no lock: one call in C, and whoever stops may be a finalizer
            self._watchers.remove(watcher)

    def close(self, deadline: Deadline) -> list[str]:
        """Stop; names of threads that would not. Idempotent."""
        with self._lock:
            self._closed = True
            self._watchers.clear()
        self._wake.set()
        return self._loop.join(deadline)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "watching" if self._loop.is_alive else "on demand"
        return f"<HealthMonitor {state}, {self._hysteresis.status.value}>"


def _present(health: report.HealthReport) -> frozenset[str]:
    """Everything an alert can be about that is there now."""
    metrics = (*health.performance.channels, *health.performance.groups)
    return frozenset(
        (
            BACKBONE,
            *(session.session for session in health.sessions),
            *(subscription.subscription for subscription in health.subscriptions),
            *(metric.name for metric in metrics),
        )
    )
