"""What the facts mean: HEALTHY, DEGRADED or UNHEALTHY, each with its reasons in words. Pure.

UNHEALTHY: nothing can answer with current data, or a stream brings nothing that can be read, which neither waiting nor
another channel mends for its subscribers. DEGRADED: answers come, but a channel, a session, a group or a
consumer is in trouble. HEALTHY: neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..models.enums import HealthStatus
from ..models.events import ConnectionState
from ..models.metric import PerformanceMetric
from ..models.report import GapStats, GroupStats, RecorderStats, RefusalStats, SessionStats, SinkStats

OPEN_WORDS = ("open", "half-open", "half_open")
WORSE = {HealthStatus.HEALTHY: 0, HealthStatus.DEGRADED: 1, HealthStatus.UNHEALTHY: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Where trouble begins."""

    liveness_seconds: float = 10.0
    success_rate: float = 0.95
    samples: int = 10  # fewer answers than this prove nothing about a rate
    lag_seconds: float = 2.0
    gap_seconds: float = 5.0  # a hole usually fills within one
    unattended_seconds: float = 1.0
    refused_seconds: float = 1.0  # for so long nothing of a stream could be read


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything the assessment looks at. `rest_failing_streak`: answers since REST last succeeded."""

    sessions: Sequence[SessionStats] = ()
    groups: Sequence[GroupStats] = ()
    group_metrics: Sequence[PerformanceMetric] = ()
    rest_failing_streak: int = 0
    breakers: Mapping[str, str] = field(default_factory=dict)  # those outside the REST groups: WebSocket connect
    recent_drops: Mapping[str, int] = field(default_factory=dict)
    gaps: GapStats | None = None
    ban: str | None = None  # in words, while there is one
    limits: str | None = None  # in words, while they are not kept together with all others
    upstream: tuple[str, str | None] | None = None  # where streams come from, and in words why not from the relay
    recorder: RecorderStats | None = None
    recently_unrecorded: int = 0
    sinks: Sequence[SinkStats] = ()
    recently_dropped: Mapping[str, int] = field(default_factory=dict)  # by sinks
    refusals: Sequence[RefusalStats] = ()
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Assessment:
    status: HealthStatus
    reasons: tuple[str, ...]


DEFAULT_LIMITS = Limits()


def assess(facts: Facts, limits: Limits = DEFAULT_LIMITS) -> Assessment:
    """The status and why. The same facts always give the same answer."""
    if facts.closed:
        return Assessment(HealthStatus.UNHEALTHY, ("the backbone is closed",))
    rest, websocket = assess_rest(facts, limits), assess_websocket(facts, limits)
    consumers = tuple(
        f"subscription {name} lost {count} items within a minute: read faster, or choose Overflow.CONFLATE"
        for name, count in facts.recent_drops.items()
        if count
    )
    troubles = (*_gap_reasons(facts.gaps, limits), *consumers, *_recorder_reasons(facts), *_sink_reasons(facts))
    reasons = (*rest.reasons, *websocket.reasons, *troubles)
    stream_helps = any(_is_wanted(session) for session in facts.sessions) and not _is_down(websocket)
    is_all_refused = any(_is_judged(each, limits) and _is_refused(each, limits) for each in facts.sessions)
    if is_all_refused or (_is_down(rest) and not stream_helps):
        return Assessment(HealthStatus.UNHEALTHY, reasons)
    return Assessment(HealthStatus.DEGRADED if reasons else HealthStatus.HEALTHY, reasons)


def assess_rest(facts: Facts, limits: Limits = DEFAULT_LIMITS) -> Assessment:
    """REST alone: UNHEALTHY when no group in use can answer."""
    reasons = tuple(_rest_reasons(facts, limits))
    used = [group for group in facts.groups if group.requests]
    is_blocked = _is_banned(facts.groups) or (bool(used) and all(group.breaker == "open" for group in used))
    is_failing = facts.rest_failing_streak >= 3
    if is_blocked or is_failing:
        return Assessment(HealthStatus.UNHEALTHY, reasons or ("REST: the last answers were all errors",))
    return Assessment(HealthStatus.DEGRADED if reasons else HealthStatus.HEALTHY, reasons)


def assess_websocket(facts: Facts, limits: Limits = DEFAULT_LIMITS) -> Assessment:
    """The sessions alone: UNHEALTHY when something is subscribed and no session can deliver it."""
    detour = (facts.upstream[1],) if facts.upstream is not None and facts.upstream[1] is not None else ()
    reasons = (*detour, *_session_reasons(facts, limits), *_topics_refused(facts, limits))
    wanted = [session for session in facts.sessions if _is_wanted(session)]
    if wanted and not any(_delivers(session, limits) for session in wanted):
        return Assessment(HealthStatus.UNHEALTHY, reasons)
    return Assessment(HealthStatus.DEGRADED if reasons else HealthStatus.HEALTHY, reasons)


def _rest_reasons(facts: Facts, limits: Limits) -> Iterator[str]:
    if facts.rest_failing_streak >= 3:
        yield f"REST: the last {facts.rest_failing_streak} answers were all errors"
    is_banned = _is_banned(facts.groups)
    if facts.ban is not None:
        yield facts.ban
    if facts.limits is not None:
        yield facts.limits
    for group in facts.groups:
        if group.breaker in OPEN_WORDS:
            yield f"REST {group.group}: the circuit breaker is {group.breaker} after repeated failures"
        if group.paused_for > 0:
            why = "Upbit bans this IP (418)" if is_banned else "Upbit asked to slow down (429)"
            yield f"REST {group.group}: paused for another {group.paused_for:.1f} s, {why}"
    for metric in facts.group_metrics:
        is_known = metric.success_rate is not None and metric.samples >= limits.samples
        if is_known and metric.success_rate < limits.success_rate:  # type: ignore[operator]
            worst = max(metric.errors, key=lambda name: metric.errors[name], default="")
            good = f"only {metric.success_rate:.0%} of the last {metric.samples} answers were good"
            yield f"{metric.name}: {good} ({worst})"


def _session_reasons(facts: Facts, limits: Limits) -> Iterator[str]:
    are_all_live = all(_delivers(session, limits) for session in facts.sessions if _is_wanted(session))
    for name, state in facts.breakers.items():
        # A breaker learns that all is well only at the next attempt, and live sessions make none.
        if state in OPEN_WORDS and not are_all_live:
            yield f"{name}: the circuit breaker is {state}"
    for session in facts.sessions:
        if not _is_judged(session, limits):
            continue
        if session.state is not ConnectionState.LIVE:
            last = f" ({session.last_error})" if session.last_error else ""
            yield f"session {session.session} is {session.state.value} since {session.since:%H:%M:%S}Z{last}"
        elif session.suspect:
            yield f"session {session.session} is suspected mute: silent though there are trades, or as it never was"
        elif not _was_heard(session, limits):
            yield f"session {session.session} was not heard for more than {limits.liveness_seconds:g} s"
        elif _is_refused(session, limits):
            yield (
                f"session {session.session}: nothing that came for {session.refused_seconds:.1f} s could be read "
                f"({_complaint(facts, session.session)})"
            )
        elif session.lag is not None and session.lag > limits.lag_seconds:
            yield f"session {session.session} is {session.lag:.1f} s behind the exchange: busy machine or slow network"


def _gap_reasons(gaps: GapStats | None, limits: Limits) -> Iterator[str]:
    if gaps is None or not gaps.open:
        return
    why = f" ({gaps.problem})" if gaps.problem else ""
    if gaps.unattended > limits.unattended_seconds:
        yield f"gap repair: {gaps.open} gaps, and no thread has come to them for {gaps.unattended:.0f} s{why}"
    elif gaps.late or gaps.oldest > limits.gap_seconds:
        live = "live data goes on" if gaps.late else "live data waits"
        yield f"gap repair: {gaps.open} gaps wait for REST, the oldest for {gaps.oldest:.0f} s{why}; {live}"


def _recorder_reasons(facts: Facts) -> Iterator[str]:
    recorder = facts.recorder
    if recorder is None:
        return
    if recorder.error is not None:
        yield f"recording {recorder.path} has ended: {recorder.error}; {recorder.lost} records lost, close it"
    elif facts.recently_unrecorded:
        lost = f"{facts.recently_unrecorded} records within a minute"
        yield f"recording {recorder.path} lost {lost}: the disk is too slow"


def _sink_reasons(facts: Facts) -> Iterator[str]:
    for each in facts.sinks:
        if each.error is not None:
            waits = f"{each.waiting} items wait, {each.spilled} of them on disk"
            yield f"sink {each.sink} has been failing for {each.failing_seconds:.0f} s: {each.error}; {waits}"
        if lost := facts.recently_dropped.get(each.sink):
            yield f"sink {each.sink} lost {lost} items within a minute: it is too slow, or has been away for too long"


def _topics_refused(facts: Facts, limits: Limits) -> Iterator[str]:
    """Single topics, where the rest of their session is well."""
    wholly = {session.session for session in facts.sessions if _is_refused(session, limits)}
    for each in facts.refusals:
        if each.topic is not None and each.session not in wholly and each.seconds >= limits.refused_seconds:
            yield f"{each.topic}: the last {each.count} messages could not be read ({each.reason})"


def _complaint(facts: Facts, session: str) -> str:
    return next((each.reason for each in facts.refusals if each.session == session and each.topic is None), "")


def _is_down(assessment: Assessment) -> bool:
    return assessment.status is HealthStatus.UNHEALTHY


def _is_banned(groups: Sequence[GroupStats]) -> bool:
    """A ban stops every group at once, a 429 only its own."""
    return any(group.banned_418 for group in groups) and all(group.paused_for > 0 for group in groups)


def _is_wanted(session: SessionStats) -> bool:
    return session.topics > 0 and session.state is not ConnectionState.CLOSED and not _is_starting(session)


def _is_judged(session: SessionStats, limits: Limits) -> bool:
    # Also a line that nobody wants any more, if nothing on it could be read: who gave up because nothing came asks why.
    return _is_wanted(session) or (session.state is ConnectionState.LIVE and _is_refused(session, limits))


def _is_starting(session: SessionStats) -> bool:
    """On its way to its first connection, and nothing went wrong yet: no trouble, nor a help."""
    is_on_its_way = session.state in (ConnectionState.IDLE, ConnectionState.CONNECTING)
    return is_on_its_way and not session.connects and session.last_error is None


def _was_heard(session: SessionStats, limits: Limits) -> bool:
    ages = [age for age in (session.last_data_age, session.last_pong_age) if age is not None]
    return not ages or min(ages) <= limits.liveness_seconds


def _delivers(session: SessionStats, limits: Limits) -> bool:
    is_live = session.state is ConnectionState.LIVE and not session.suspect
    return is_live and _was_heard(session, limits) and not _is_refused(session, limits)


def _is_refused(session: SessionStats, limits: Limits) -> bool:
    return session.refused_seconds is not None and session.refused_seconds >= limits.refused_seconds


@dataclass(frozen=True, slots=True)
class Hysteresis:
    """A status that worsens at once and improves only after it has been better for `better_after` seconds.

    An immutable value: `seen` returns its successor.
    """

    status: HealthStatus = HealthStatus.HEALTHY
    better_after: float = 2.0
    better_since: float | None = None

    def seen(self, status: HealthStatus, now: float) -> Hysteresis:
        if WORSE[status] >= WORSE[self.status]:
            return Hysteresis(status, self.better_after)
        since = now if self.better_since is None else self.better_since
        if now - since >= self.better_after:
            return Hysteresis(status, self.better_after)
        return Hysteresis(self.status, self.better_after, since)
