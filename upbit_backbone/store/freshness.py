"""Freshness: when a live value may be called current, and which of two values is to be believed. Pure.

Current means proven: the line is up, the snapshot that follows the latest connection has come, what the session brings
is not late by Upbit's clock, neither the line nor the topic is suspected of a silent stall, and nothing we know
contradicts the value. How long ago the market last moved plays no part in it: a quiet market is current though its last
trade is minutes old; a busy market on a mute line is not, nor is one that moves but shows what was.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Protocol

from .._deadline import SLEEP_SECONDS
from ..exchange.fields import SHUFFLE
from ..models.request import Topic
from ..models.session import SessionHealth

SHUFFLE_SECONDS = SHUFFLE.total_seconds()  # whatever is later than that is no straggler
# After so long of nothing but older frames the newer one must have been the odd one out.
# Without this one absurd stamp would silence its market for ever, since all that follows is older.
OUTVOTED_SECONDS = 60.0
# REST and the stream stamp the same state within this much of each other.
REST_TOLERANCE = timedelta(seconds=1)


class Evidence(Protocol):
    """What is remembered about a live value: when the exchange stamped it, on which line and when it came."""

    topic: Topic
    stamp: datetime
    peak: datetime  # the newest stamp ever seen for the topic
    health: SessionHealth
    epoch: int
    monotonic: float
    proven: bool
    late_by: float  # how much too late it came, in seconds; 0.0 when in time, or when nobody can say


class Verdict(Enum):
    """What to do with the next value of a topic."""

    TAKE = auto()
    TAKE_UNPROVEN = auto()  # newer than what we have, but something says it is not the newest
    REFUSE = auto()  # older than what we have
    DOUBT = auto()  # older, and so late that what we have may be the wrong one: refuse it and trust neither


def is_current(evidence: Evidence, now: float, clock_offset: float, liveness_seconds: float) -> bool:
    """Whether the value is provably what the exchange shows now; `now` is monotonic, `clock_offset` the present one."""
    health = evidence.health
    # Heard is not enough after a sleep: the monotonic clock stood still, and an hour-old price would count as heard a
    # moment ago.
    line_is_up = health.connected and now - health.heard_at <= liveness_seconds and not _has_slept(health, clock_offset)
    # By number and not by time: data from before a break can come in the same millisecond as the return.
    snapshot_has_come = evidence.epoch == health.epoch
    is_suspect = health.is_late or health.suspect or (health.mute and evidence.topic in health.mute)
    return line_is_up and snapshot_has_come and evidence.proven and not is_suspect


def _has_slept(health: SessionHealth, clock_offset: float) -> bool:
    """Whether the machine slept since the session last looked, so that what it heard is older than it seems."""
    return health.clock_offset is not None and abs(clock_offset - health.clock_offset) > SLEEP_SECONDS


def why_not_current(evidence: Evidence | None, now: float, clock_offset: float, liveness_seconds: float) -> str | None:
    """The first reason in words why the value is not current; None if it is."""
    if evidence is None:
        return "nothing has been received on the stream"
    health = evidence.health
    if not health.connected:
        return f"session {health.session} is not connected"
    if evidence.epoch != health.epoch:
        return f"the snapshot after the reconnection of session {health.session} has not arrived"
    unheard = now - health.heard_at
    if unheard > liveness_seconds:
        return f"session {health.session} has not been heard for {unheard:.1f} s (bound {liveness_seconds:g} s)"
    if _has_slept(health, clock_offset):
        return f"the machine slept since session {health.session} was heard, or its clock was set"
    if health.is_late:
        return f"session {health.session} is {health.lag:.1f} s behind Upbit (bound {health.max_lag:g} s)"
    if health.suspect:
        return f"session {health.session} is suspected to be silently stalled"
    if evidence.topic in health.mute:
        return f"{evidence.topic} is mute on session {health.session} while others flow"
    if not evidence.proven and evidence.late_by:
        return f"the newest {evidence.topic} came {evidence.late_by:.1f} s late (bound {health.max_lag:g} s)"
    if not evidence.proven:
        return "the stream contradicts itself or REST about which value is the newest"
    return None


def judge(
    stamp: datetime,
    health: SessionHealth,
    epoch: int,
    monotonic: float,
    known: Evidence | None,
    rest_stamp: datetime | None,
) -> Verdict:
    """What to do with a value stamped `stamp`, when `known` is held and REST last showed `rest_stamp`.

    Older never overwrites newer, not even after a reconnection: a server that replays old state must not make us
    call it fresh. But one absurd stamp must not silence a market for ever either, so REST is the umpire, and in its
    absence a long and steady majority.
    """
    rest_contradicts = rest_stamp is not None and stamp < rest_stamp - REST_TOLERANCE
    rest_confirms = rest_stamp is not None and not rest_contradicts
    if known is None:
        return Verdict.TAKE_UNPROVEN if rest_contradicts else Verdict.TAKE
    is_same_line = known.health is health and known.epoch == epoch
    if stamp < known.stamp:
        # The newer one is in doubt and REST sides with the older: then that is the truth.
        if not known.proven and rest_confirms:
            return Verdict.TAKE
        overdue = monotonic - known.monotonic
        # On another line it is old state replayed; within the shuffle a straggler. Neither says anything about what we
        # hold.
        if not is_same_line or overdue <= SHUFFLE_SECONDS:
            return Verdict.REFUSE
        return Verdict.TAKE_UNPROVEN if overdue > OUTVOTED_SECONDS else Verdict.DOUBT
    if is_same_line:
        is_proven = known.proven or rest_confirms or (stamp >= known.peak and not rest_contradicts)
        return Verdict.TAKE if is_proven else Verdict.TAKE_UNPROVEN
    return Verdict.TAKE_UNPROVEN if rest_contradicts else Verdict.TAKE
