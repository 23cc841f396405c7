"""Events written to the standard log: one event one line, machine-readable in `extra`, at most ten lines an outage.

An outage begins with the first bad event and is over when all is well again and has been for some seconds. Its
beginning is one WARNING, its end one INFO. What lies in between is DEBUG, but for the first of each other kind of
trouble (a gap that could not be filled, say); after eight such lines the ninth says that the rest is withheld.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import fields

from .._concurrency import SYSTEM_CLOCK, Clock, GuardedLogger, get_logger
from ..errors import one_line
from ..models import events
from ..models.enums import HealthStatus

LINES_PER_OUTAGE = 10
CALM_SECONDS = 10.0
# One trouble seen from several sides: whoever is told of the first knows of the others.
OF_THE_LINE = (events.ConnectionEvent, events.StaleEvent, events.BreakerEvent, events.HealthEvent)
RENEWAL_SECONDS = 300.0  # a flapping line earns new lines after this long


class EventLog:
    """Give it every event: `event_log(event)`. Thread-safe; writes outside its lock."""

    def __init__(self, log: logging.Logger | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        self._log = get_logger("upbit_backbone.events") if log is None else GuardedLogger(log)
        self._clock = clock
        self._lock = threading.Lock()  # guards everything below
        self._down: set[str] = set()
        self._began: float | None = None
        self._last_bad = 0.0
        self._written = 0
        self._withheld = 0
        self._told: set[type[events.Event]] = set()  # kinds of trouble that this outage has a line of

    def __call__(self, event: events.Event) -> None:
        level, text = describe(event)
        with self._lock:
            lines = self._decide(event, level, text)
        for line_level, line in lines:
            self._log.log(line_level, "%s", one_line(line, 400), extra=as_extra(event))

    def _decide(self, event: events.Event, level: int, text: str) -> list[tuple[int, str]]:
        now = self._clock.monotonic()
        if self._began is not None and self._is_over(now):
            self._began = None
        was_down = bool(self._down)
        self._track(event)
        is_bad = level >= logging.WARNING
        if is_bad and self._began is None:
            self._began, self._written, self._withheld = now, 0, 0
            self._told = set()
        if is_bad:
            self._last_bad = now
        if self._began is None:
            return [(level, text)]
        if level < logging.INFO:
            return []  # an attempt is no news while the line is down
        is_end = was_down and not self._down
        kind = events.ConnectionEvent if isinstance(event, OF_THE_LINE) else type(event)
        if kind in self._told or not is_bad:
            level = logging.DEBUG
        self._told.add(kind)
        return self._within_budget(level, text, is_end, now - self._began)

    def _within_budget(self, level: int, text: str, is_end: bool, seconds: float) -> list[tuple[int, str]]:
        left = LINES_PER_OUTAGE - self._written
        if is_end and left >= 1:
            withheld = f"; {self._withheld} lines were withheld" if self._withheld else ""
            self._written += 1
            return [(logging.INFO, f"{text}; the outage of {seconds:.1f} s is over{withheld}")]
        if left > 2:
            self._written += 1
            return [(level, text)]
        self._withheld += 1
        if left == 2:
            self._written += 1
            return [(level, f"{text}; further lines are withheld until the outage is over")]
        return []

    def _is_over(self, now: float) -> bool:
        if self._down:
            return False
        is_calm = now - self._last_bad >= CALM_SECONDS
        return is_calm or (self._began is not None and now - self._began >= RENEWAL_SECONDS)

    def _track(self, event: events.Event) -> None:
        subject, is_down = _condition(event)
        if is_down:
            self._down.add(subject)
        else:
            self._down.discard(subject)
            if isinstance(event, events.ConnectionEvent) and subject:
                self._down.discard(f"stale {event.session}")  # a new line has nothing to be suspected of

    def __repr__(self) -> str:
        return f"<EventLog {len(self._down)} down, {self._written} lines in this outage>"


def _condition(event: events.Event) -> tuple[str, bool]:
    """(whose condition this event tells about, whether it is down); ("", False) where it tells nothing lasting."""
    match event:
        case events.ConnectionEvent(state=events.ConnectionState.CONNECTING):
            return "", False  # an attempt changes nothing yet
        case events.ConnectionEvent():
            return f"session {event.session}", event.state is events.ConnectionState.WAITING
        case events.StaleEvent():
            return f"stale {event.session}", event.stale
        case _:
            return "", False


def as_extra(event: events.Event) -> dict[str, object]:
    """The event's fields for structured log handlers, prefixed so that they never collide with a record's own."""
    values = {f"upbit_{each.name}": _plain(getattr(event, each.name)) for each in fields(event)}
    return {"upbit_event": type(event).__name__, **values}


def _plain(value: object) -> object:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, tuple):
        return [one_line(each) for each in value]
    return one_line(value)


# Every event in words, with the log level that fits it.


def describe(event: events.Event) -> tuple[int, str]:
    """(log level, the event in words)."""
    handler = _WORDS.get(type(event))
    return handler(event) if handler else (logging.INFO, repr(event))


def _connection(event: events.ConnectionEvent) -> tuple[int, str]:
    if event.is_interruption:
        retry = "" if event.retry_in is None else f", next attempt in {event.retry_in:.1f} s"
        return logging.WARNING, f"session {event.session} interrupted: {event.reason}{retry} (attempt {event.attempt})"
    if event.is_recovery:
        return logging.INFO, f"session {event.session} recovered after {event.downtime:.1f} s: {event.reason}"
    if event.state is events.ConnectionState.CONNECTING:
        return logging.DEBUG, f"session {event.session} connecting: {event.reason}"
    return logging.INFO, f"session {event.session} {event.state.value}: {event.reason}"


def _gap(event: events.GapEvent) -> tuple[int, str]:
    hole = f"{event.type.value} {event.symbol} {event.start:%H:%M:%S.%f}Z to {event.end:%H:%M:%S.%f}Z"
    if event.complete:
        late = ", late" if event.late else ""
        return logging.INFO, f"gap in {hole} filled with {event.recovered} items{late}"
    start, end = event.missing_start or event.start, event.missing_end or event.end
    left = f"missing are {start:%H:%M:%S.%f}Z to {end:%H:%M:%S.%f}Z"
    return logging.WARNING, f"gap in {hole} not complete, {event.recovered} items recovered, {left}: {event.reason}"


def _stale(event: events.StaleEvent) -> tuple[int, str]:
    level, word = (logging.WARNING, "is not believed") if event.stale else (logging.INFO, "is believed again")
    return level, f"session {event.session} {word} ({len(event.symbols)} symbols): {event.reason}"


def _subscription(event: events.SubscriptionEvent) -> tuple[int, str]:
    shown = ", ".join(event.topics[:5]) + (" …" if len(event.topics) > 5 else "")
    return logging.WARNING, f"{shown or event.subscription}: {event.reason}"


def _market(event: events.MarketEvent) -> tuple[int, str]:
    detail = " to ".join(each for each in (event.before, event.after) if each)
    return logging.INFO, f"market {event.symbol}: {event.change.value.replace('_', ' ')} {detail}".rstrip()


def _overflow(event: events.OverflowEvent) -> tuple[int, str]:
    text = f"subscription {event.subscription} ({event.policy}) is not read fast enough, {event.dropped} lost so far"
    return logging.WARNING, f"{text}: {event.reason}"


def _callback_error(event: events.CallbackErrorEvent) -> tuple[int, str]:
    text = f"callback of {event.subscription} raised {type(event.error).__name__}: {event.error}"
    return logging.ERROR, f"{text} ({event.in_a_row} in a row)"


def _rate_limit(event: events.RateLimitEvent) -> tuple[int, str]:
    word = "Upbit bans this IP" if event.banned else f"rate limit of {event.group} exceeded"
    return logging.WARNING, f"{word} until {event.until:%H:%M:%S}Z: {event.reason}"


def _breaker(event: events.BreakerEvent) -> tuple[int, str]:
    level = logging.INFO if event.new == "closed" else logging.WARNING
    return level, f"circuit breaker {event.breaker}: {event.old} to {event.new}: {event.reason}"


def _malformed(event: events.MalformedEvent) -> tuple[int, str]:
    text = f"session {event.session}: message {event.count} not understood: {event.reason}"
    return logging.WARNING, f"{text}: {event.sample}"


def _recording(event: events.RecordingEvent) -> tuple[int, str]:
    if event.error is not None:
        return logging.ERROR, f"recording {event.path} has ended: {event.error}; {event.lost} records lost"
    return logging.WARNING, f"recording {event.path}: the disk is too slow, {event.lost} records lost so far"


def _sink(event: events.SinkEvent) -> tuple[int, str]:
    figures = f"{event.waiting} items wait, {event.dropped} are lost so far"
    if event.error is None:
        return logging.INFO, f"sink {event.sink} works again: {figures}"
    return logging.WARNING, f"sink {event.sink}: {event.error}; {figures}"


def _upstream(event: events.UpstreamEvent) -> tuple[int, str]:
    if event.direct:
        return logging.WARNING, f"streams come from Upbit directly: {event.reason}"
    return logging.INFO, f"streams come from the relay at {event.upstream} again: {event.reason}"


def _unread_field(event: events.UnreadFieldEvent) -> tuple[int, str]:
    text = f"{event.source}: {event.field} could not be read and is None, {event.count} times so far"
    return logging.WARNING, f"{text}: {event.key} {event.reason}"


def _history_gap(event: events.HistoryGapEvent) -> tuple[int, str]:
    when = f", {event.first:%F %T}Z to {event.last:%F %T}Z" if event.first and event.last else ""
    text = f"history of {event.symbol} ({event.kind}): {event.count} rows could not be read and are missing{when}"
    return logging.WARNING, f"{text}: {event.reason}"


def _health(event: events.HealthEvent) -> tuple[int, str]:
    level = logging.INFO if event.new is HealthStatus.HEALTHY else logging.WARNING
    reasons = f": {'; '.join(event.reasons)}" if event.reasons else ""
    return level, f"health {event.old.value} to {event.new.value}{reasons}"


_WORDS: dict[type[events.Event], Callable[..., tuple[int, str]]] = {
    events.ConnectionEvent: _connection,
    events.GapEvent: _gap,
    events.StaleEvent: _stale,
    events.SubscriptionEvent: _subscription,
    events.MarketEvent: _market,
    events.OverflowEvent: _overflow,
    events.CallbackErrorEvent: _callback_error,
    events.RateLimitEvent: _rate_limit,
    events.BreakerEvent: _breaker,
    events.MalformedEvent: _malformed,
    events.UnreadFieldEvent: _unread_field,
    events.HistoryGapEvent: _history_gap,
    events.HealthEvent: _health,
    events.RecordingEvent: _recording,
    events.SinkEvent: _sink,
    events.UpstreamEvent: _upstream,
}
