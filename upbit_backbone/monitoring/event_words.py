"""Every event in words, with the log level that fits it. Pure."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..models.enums import HealthStatus
from ..models.events import (
    BreakerEvent,
    CallbackErrorEvent,
    ConnectionEvent,
    ConnectionState,
    Event,
    GapEvent,
    HealthEvent,
    HistoryGapEvent,
    MalformedEvent,
    OverflowEvent,
    RateLimitEvent,
    RecordingEvent,
    StaleEvent,
    SubscriptionEvent,
    UnreadFieldEvent,
)


def describe(event: Event) -> tuple[int, str]:
    """(log level, the event in words)."""
    handler = _WORDS.get(type(event))
    return handler(event) if handler else (logging.INFO, repr(event))


def _connection(event: ConnectionEvent) -> tuple[int, str]:
    if event.is_interruption:
        retry = "" if event.retry_in is None else f", next attempt in {event.retry_in:.1f} s"
        return logging.WARNING, f"session {event.session} interrupted: {event.reason}{retry} (attempt {event.attempt})"
    if event.is_recovery:
        return logging.INFO, f"session {event.session} recovered after {event.downtime:.1f} s: {event.reason}"
    if event.state is ConnectionState.CONNECTING:
        return logging.DEBUG, f"session {event.session} connecting: {event.reason}"
    return logging.INFO, f"session {event.session} {event.state.value}: {event.reason}"


def _gap(event: GapEvent) -> tuple[int, str]:
    hole = f"{event.type.value} {event.symbol} {event.start:%H:%M:%S.%f}Z to {event.end:%H:%M:%S.%f}Z"
    if event.complete:
        late = ", late" if event.late else ""
        return logging.INFO, f"gap in {hole} filled with {event.recovered} items{late}"
    start, end = event.missing_start or event.start, event.missing_end or event.end
    left = f"missing are {start:%H:%M:%S.%f}Z to {end:%H:%M:%S.%f}Z"
    return logging.WARNING, f"gap in {hole} not complete, {event.recovered} items recovered, {left}: {event.reason}"


def _stale(event: StaleEvent) -> tuple[int, str]:
    level, word = (logging.WARNING, "is not believed") if event.stale else (logging.INFO, "is believed again")
    return level, f"session {event.session} {word} ({len(event.symbols)} symbols): {event.reason}"


def _subscription(event: SubscriptionEvent) -> tuple[int, str]:
    shown = ", ".join(event.topics[:5]) + (" …" if len(event.topics) > 5 else "")
    return logging.WARNING, f"{shown}: {event.reason}"


def _overflow(event: OverflowEvent) -> tuple[int, str]:
    text = f"subscription {event.subscription} ({event.policy}) is not read fast enough, {event.dropped} lost so far"
    return logging.WARNING, f"{text}: {event.reason}"


def _callback_error(event: CallbackErrorEvent) -> tuple[int, str]:
    text = f"callback of {event.subscription} raised {type(event.error).__name__}: {event.error}"
    return logging.ERROR, f"{text} ({event.in_a_row} in a row)"


def _rate_limit(event: RateLimitEvent) -> tuple[int, str]:
    word = "Upbit bans this IP" if event.banned else f"rate limit of {event.group} exceeded"
    return logging.WARNING, f"{word} until {event.until:%H:%M:%S}Z: {event.reason}"


def _breaker(event: BreakerEvent) -> tuple[int, str]:
    level = logging.INFO if event.new == "closed" else logging.WARNING
    return level, f"circuit breaker {event.breaker}: {event.old} to {event.new}: {event.reason}"


def _malformed(event: MalformedEvent) -> tuple[int, str]:
    text = f"session {event.session}: message {event.count} not understood: {event.reason}"
    return logging.WARNING, f"{text}: {event.sample}"


def _recording(event: RecordingEvent) -> tuple[int, str]:
    if event.error is not None:
        return logging.ERROR, f"recording {event.path} has ended: {event.error}; {event.lost} records lost"
    return logging.WARNING, f"recording {event.path}: the disk is too slow, {event.lost} records lost so far"


def _unread_field(event: UnreadFieldEvent) -> tuple[int, str]:
    text = f"{event.source}: {event.field} could not be read and is None, {event.count} times so far"
    return logging.WARNING, f"{text}: {event.key} {event.reason}"


def _history_gap(event: HistoryGapEvent) -> tuple[int, str]:
    when = f", {event.first:%F %T}Z to {event.last:%F %T}Z" if event.first and event.last else ""
    text = f"history of {event.symbol} ({event.kind}): {event.count} rows could not be read and are missing{when}"
    return logging.WARNING, f"{text}: {event.reason}"


def _health(event: HealthEvent) -> tuple[int, str]:
    level = logging.INFO if event.new is HealthStatus.HEALTHY else logging.WARNING
    reasons = f": {'; '.join(event.reasons)}" if event.reasons else ""
    return level, f"health {event.old.value} to {event.new.value}{reasons}"


_WORDS: dict[type[Event], Callable[..., tuple[int, str]]] = {
    ConnectionEvent: _connection,
    GapEvent: _gap,
    StaleEvent: _stale,
    SubscriptionEvent: _subscription,
    OverflowEvent: _overflow,
    CallbackErrorEvent: _callback_error,
    RateLimitEvent: _rate_limit,
    BreakerEvent: _breaker,
    MalformedEvent: _malformed,
    UnreadFieldEvent: _unread_field,
    HistoryGapEvent: _history_gap,
    HealthEvent: _health,
    RecordingEvent: _recording,
}
