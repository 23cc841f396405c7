"""A session's figures for reports, read from any thread."""

from __future__ import annotations

from ..models.report import SessionStats
from .lifecycle import Lifecycle


def session_stats(lifecycle: Lifecycle, topics: int, malformed: int, now: float) -> SessionStats:
    """Each figure is right; two of them may be a moment apart. `now` is monotonic."""
    record, pulse, line = lifecycle.record, lifecycle.pulse, lifecycle.line
    pong_at = None if line is None else line.liveness.pong_at
    return SessionStats(
        session=pulse.session,
        state=record.state,
        since=record.since,
        topics=topics,
        epoch=pulse.epoch,
        last_data_age=_age(record.last_data_at, now),
        last_pong_age=_age(pong_at, now),
        pong_seconds=None if line is None else line.liveness.pong_seconds,
        messages=record.messages,
        bytes=record.bytes,
        connects=record.connects,
        reconnects=max(0, record.connects - 1),
        messages_sent=record.messages_sent,
        malformed=malformed,
        suspect=pulse.suspect,
        last_error=record.last_error,
    )


def _age(at: float | None, now: float) -> float | None:
    return None if at is None else max(0.0, now - at)
