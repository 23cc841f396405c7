"""Session state: the status and all else that outlives a single connection. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ..config import BackboneConfig
from ..errors import SubscriptionError, UpbitBackboneError, one_line
from ..models.events import ConnectionEvent, ConnectionState, Event, RateLimitEvent, StaleEvent, SubscriptionEvent
from ..models.request import Topic
from ..models.session import SessionHealth
from .messages import Effect, Emit
from .reconnect_policy import Random, ReconnectPolicy
from .stall_detectors import LatenessWatch, StreamStallDetector, TopicStallDetector
from .subscription_plan import FirstFrames, SubscriptionPlan

# A session's own story: its state since when, its counters, and the events that tell others. Pure.


class SessionStatus:
    """Written by the session's thread only; others read single attributes."""

    def __init__(self, session: str, wall: Callable[[], datetime]) -> None:
        self._session = session
        self._wall = wall
        self.state = ConnectionState.IDLE
        self.since = wall()
        self.last_error: str | None = None
        self.last_data_at: float | None = None
        self.connects = 0
        self.messages = 0
        self.bytes = 0
        self.messages_sent = 0
        self._lost_at: tuple[datetime, float] | None = None

    def lost(self, now: float, reason: str) -> None:
        """The line broke, or could not be opened; a first such moment starts the downtime."""
        self.last_error = reason
        if self._lost_at is None:
            self._lost_at = (self._wall(), now)

    def forgive(self) -> None:
        """Nobody wants the line any more, so its absence is no downtime."""
        self._lost_at = None

    def entered(
        self,
        state: ConnectionState,
        reason: str,
        now: float,
        *,
        code: int | None = None,
        retry_in: float | None = None,
        attempt: int = 0,
    ) -> ConnectionEvent:
        self.state = state
        self.since = at = self._wall()
        since, lost_at = self._lost_at or (None, None)
        if state is ConnectionState.LIVE:
            self.connects += 1
            self._lost_at = None
        return ConnectionEvent(
            at=at,
            session=self._session,
            state=state,
            reason=reason,
            code=code,
            since=since,
            downtime=None if lost_at is None else now - lost_at,
            retry_in=retry_in,
            attempt=attempt,
        )

    def stale(self, topics: frozenset[Topic], *, stale: bool, reason: str) -> StaleEvent:
        symbols = tuple(sorted({topic.symbol for topic in topics}))
        return StaleEvent(at=self._wall(), session=self._session, symbols=symbols, stale=stale, reason=reason)

    def topics(self, topics: frozenset[Topic], reason: str, *, is_error: bool = True) -> SubscriptionEvent:
        names = tuple(str(topic) for topic in sorted(topics))
        error = SubscriptionError(f"{', '.join(names)}: {reason}") if is_error else None
        return SubscriptionEvent(at=self._wall(), topics=names, reason=reason, error=error)

    def limited(self, group: str, seconds: float, reason: str, *, banned: bool) -> RateLimitEvent:
        at = self._wall()
        until = at + timedelta(seconds=seconds)
        return RateLimitEvent(at=at, group=group, until=until, banned=banned, reason=reason)


def said(error: BaseException) -> str:
    """An error as a reason: ours speak for themselves, others are named."""
    text = one_line(error)
    return text if isinstance(error, UpbitBackboneError) else one_line(f"{type(error).__name__}: {text}")


# What outlives a single connection: passed from one line of a session to the next.


@dataclass(frozen=True, slots=True)
class SessionState:
    """One session's belongings. `effects` collects, in order, what the present input leads to."""

    config: BackboneConfig
    random: Random
    health: SessionHealth
    status: SessionStatus
    plan: SubscriptionPlan
    reconnect_policy: ReconnectPolicy
    stream_stalls: StreamStallDetector
    topic_stalls: TopicStallDetector
    lateness: LatenessWatch
    first_frames: FirstFrames
    effects: list[Effect] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        self.effects.append(Emit(event))
