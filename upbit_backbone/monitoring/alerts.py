"""When to call somebody: rules with two thresholds and two waiting times, so that nothing flutters. Pure.

A rule measures one number per subject (a session, a group, a subscription) in a `HealthReport`. Its alert begins when
the number has been at or above `raise_at` for `hold_seconds`, and is over when it has been below `clear_below` for
`calm_seconds`, when there is nothing to measure any more, or when the subject is gone; its message says which.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import InvalidRequestError
from ..models.events import ConnectionState
from ..models.report import Alert, HealthReport, SessionStats
from .assessment import WORSE

BACKBONE = "backbone"

Measure = Callable[[HealthReport], Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRule:
    """`message` may use {subject} and {value}, `quiet` {subject}: it says what it means that nothing is measured."""

    name: str
    measure: Measure
    raise_at: float
    clear_below: float
    message: str
    hold_seconds: float = 0.0
    calm_seconds: float = 5.0
    quiet: str | None = None

    def __post_init__(self) -> None:
        if self.clear_below > self.raise_at:
            raise InvalidRequestError(
                f"alert rule {self.name!r}: clear_below={self.clear_below} must not exceed raise_at={self.raise_at}"
            )


def health(report: HealthReport) -> Mapping[str, float]:
    """0 healthy, 1 degraded, 2 unhealthy."""
    return {BACKBONE: float(WORSE[report.status])}


def error_rate(report: HealthReport) -> Mapping[str, float]:
    """Failed share of the recent answers per channel and REST group, where there are enough to say."""
    metrics = (*report.performance.channels, *report.performance.groups)
    # Ten at least: one failure of two would be an alarm of 50 %.
    return {m.name: 1.0 - m.success_rate for m in metrics if m.success_rate is not None and m.samples >= 10}


def lag(report: HealthReport) -> Mapping[str, float]:
    """Seconds by which each session's data is late."""
    return {session.session: session.lag for session in report.sessions if session.lag is not None}


def staleness(report: HealthReport) -> Mapping[str, float]:
    """Seconds since each session in use was last heard; a session that is away counts from when it was lost."""
    return {s.session: _unheard(s, report) for s in report.sessions if s.topics}


def _unheard(session: SessionStats, report: HealthReport) -> float:
    is_away = session.state is not ConnectionState.LIVE
    away = (report.at - session.since).total_seconds() if is_away else 0.0
    ages = [age for age in (session.last_data_age, session.last_pong_age) if age is not None]
    return max(away, min(ages, default=0.0))


def refused(report: HealthReport) -> Mapping[str, float]:
    """Seconds for which nothing that each stream brought could be read."""
    # A report made by hand, to try out rules, need not have them.
    return {each.topic or each.session: each.seconds for each in getattr(report, "refusals", ())}


def dropped(report: HealthReport) -> Mapping[str, float]:
    """Items each slow subscription lost within the last minute."""
    return {name: float(count) for name, count in report.recent_drops.items()}


DEFAULT_RULES: tuple[AlertRule, ...] = (
    AlertRule(
        name="health", measure=health, raise_at=1.0, clear_below=1.0, calm_seconds=2.0, message="health is not good"
    ),
    AlertRule(
        name="error-rate",
        measure=error_rate,
        raise_at=0.10,
        clear_below=0.05,
        message="{subject}: {value:.0%} of the recent answers failed",
        quiet="{subject}: too few answers lately to tell how many fail",
    ),
    AlertRule(
        name="lag",
        measure=lag,
        raise_at=2.0,
        clear_below=1.0,
        hold_seconds=3.0,
        message="session {subject} is {value:.1f} s behind the exchange",
        quiet="session {subject} has had no data lately that could be late",
    ),
    AlertRule(
        name="staleness",
        measure=staleness,
        raise_at=10.0,
        clear_below=8.0,
        calm_seconds=1.0,
        message="session {subject} was not heard for {value:.1f} s",
        quiet="session {subject} is not in use any more",
    ),
    AlertRule(
        name="refused",
        measure=refused,
        raise_at=1.0,
        clear_below=1.0,
        message="{subject}: nothing that came for {value:.1f} s could be read",
    ),
    AlertRule(
        name="dropped",
        measure=dropped,
        raise_at=1.0,
        clear_below=1.0,
        message="subscription {subject} lost {value:.0f} items within a minute: its consumer is too slow",
        quiet="subscription {subject} has lost nothing for a minute",
    ),
)


@dataclass(frozen=True, slots=True)
class _Track:
    """One rule on one subject: whether it is on, and since when the number has been on the other side."""

    active: bool = False
    since: float | None = None


class AlertBook:
    """Remembers where each rule stands. Used by one thread at a time."""

    def __init__(self, rules: Sequence[AlertRule] = DEFAULT_RULES) -> None:
        self._rules = tuple(rules)
        self._tracks: dict[tuple[str, str], _Track] = {}

    @property
    def active(self) -> list[tuple[str, str]]:
        """(rule, subject) of every alert that is on."""
        return [key for key, track in self._tracks.items() if track.active]

    def look(self, report: HealthReport, now: float, present: Container[str] | None = None) -> list[Alert]:
        """The alerts that begin or end with this report; `now` is monotonic.

        `present` are all subjects there are (None: not known): what is not measured and not there either is gone.
        """
        alerts = []
        for rule in self._rules:
            values = rule.measure(report)
            unmeasured = {subject for name, subject in self._tracks if name == rule.name} - values.keys()
            # Popped here, so that a subject which comes back begins anew and not in the middle of its old alert.
            ended = [subject for subject in sorted(unmeasured) if self._tracks.pop((rule.name, subject)).active]
            alerts += [
                _alert(rule, subject, 0.0, False, report, _why_unmeasured(rule, subject, present)) for subject in ended
            ]
            for subject, value in values.items():
                alerts += self._look_at(rule, subject, value, report, now)
        return alerts

    def _look_at(self, rule: AlertRule, subject: str, value: float, report: HealthReport, now: float) -> list[Alert]:
        before = self._tracks.get((rule.name, subject), _Track())
        after = _step(rule, before, value, now)
        self._tracks[rule.name, subject] = after
        if after.active == before.active:
            return []
        message = rule.message.format(subject=subject, value=value)
        # A status is no number that tells anybody anything; its reasons do.
        if rule.measure is health and report.reasons:
            message = f"health is {report.status.value}: {'; '.join(report.reasons)}"
        elif not after.active:
            below = f"{rule.clear_below:g} for {rule.calm_seconds:g} s"
            message = f"{rule.name} of {subject} is good again: {value:.3g}, below {below}"
        return [_alert(rule, subject, value, after.active, report, message)]

    def __repr__(self) -> str:
        return f"<AlertBook {len(self._rules)} rules, {len(self.active)} active>"


def _why_unmeasured(rule: AlertRule, subject: str, present: Container[str] | None) -> str:
    # "Gone" and "has nothing to measure" look alike in a report, and mean the opposite to whoever is woken by it.
    is_gone = rule.quiet is None if present is None else subject not in present
    if is_gone:
        return f"{subject} is gone"
    return (rule.quiet or "{subject} is not measured any more").format(subject=subject)


def _step(rule: AlertRule, track: _Track, value: float, now: float) -> _Track:
    is_crossing = value < rule.clear_below if track.active else value >= rule.raise_at
    # Any moment on the right side begins the wait anew: the hold is for trouble without a break.
    if not is_crossing:
        return replace(track, since=None)
    since = now if track.since is None else track.since
    patience = rule.calm_seconds if track.active else rule.hold_seconds
    if now - since >= patience:
        return _Track(active=not track.active)
    return replace(track, since=since)


def _alert(rule: AlertRule, subject: str, value: float, active: bool, report: HealthReport, message: str) -> Alert:
    return Alert(at=report.at, rule=rule.name, subject=subject, active=active, value=value, message=message)
