"""Lifecycle of one WebSocket session as a table: what happens in which state, and what is to be done then. Pure.

Inputs come in with the time; effects come out. No socket, no clock, no thread: the same object runs in a
session's thread and, years of faults in minutes, in the simulation.

    IDLE ──request──▶ CONNECTING ──opened──▶ LIVE ──lost──▶ WAITING ──time──▶ CONNECTING
                        └──failed──▶ WAITING      close, from anywhere ──▶ CLOSED, for good

What the table does not hold changes nothing: an answer that comes too late meets a state without a row for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from math import inf
from typing import Any, Final

from ..config import BackboneConfig
from ..errors import RateLimitError
from ..models.events import ConnectionState
from ..models.request import Topic
from ..models.session import SessionHealth, StreamError
from ..wire.frames import only_messages
from . import messages as do
from . import messages as on
from .open_connection import NORMAL_CLOSE, Lost, OpenConnection
from .ports import TakeFrames
from .reconnect_policy import Random, ReconnectPolicy
from .session_state import SessionState, SessionStatus, said
from .stall_detectors import LatenessWatch, StreamStallDetector, TopicStallDetector
from .subscription_plan import FirstFrames, SubscriptionPlan

IDLE, CONNECTING, LIVE = ConnectionState.IDLE, ConnectionState.CONNECTING, ConnectionState.LIVE
WAITING, CLOSED = ConnectionState.WAITING, ConnectionState.CLOSED

NOTHING: Final[tuple[do.Effect, ...]] = ()


class Lifecycle:
    """Decides everything about one session. Used by one thread at a time."""

    def __init__(
        self,
        session: str,
        config: BackboneConfig,
        *,
        random: Random,
        wall: Callable[[], datetime],
        next_epoch: Callable[[], int],
    ) -> None:
        self.health = SessionHealth(session, config.max_lag_seconds)
        self.status = SessionStatus(session, wall)
        self._plan = SubscriptionPlan()
        self._reconnect_policy = ReconnectPolicy(config, random)
        self._stream_stalls = StreamStallDetector(config.stall_probe_seconds)
        self._topic_stalls = TopicStallDetector(config.stall_probe_seconds)
        self._lateness = LatenessWatch()
        self._first_frames = FirstFrames(config.first_frame_seconds)
        self._shared = SessionState(
            config,
            random,
            self.health,
            self.status,
            self._plan,
            self._reconnect_policy,
            self._stream_stalls,
            self._topic_stalls,
            self._lateness,
            self._first_frames,
        )
        self._effects = self._shared.effects
        self._next_epoch = next_epoch
        self._due_at: float | None = None  # None: not known, because something happened since it was
        self._promised_wake = inf
        self.line: OpenConnection | None = None  # the present connection, or the latest one

    @property
    def state(self) -> ConnectionState:
        return self.status.state

    @property
    def topics(self) -> frozenset[Topic]:
        return self._plan.wanted

    @property
    def held_back(self) -> frozenset[Topic]:
        """Topics left out for the time being, because Upbit complained about some of those sent with them."""
        return self._plan.held_back

    def handle(self, happened: on.Input, now: float) -> list[do.Effect]:
        """What is to be done about it, in this order."""
        # No row, no change: a probe's answer, a ban or a wake-up that comes after the line was lost meets a state that
        # has no use for it, and nobody has to remember to check.
        row = TABLE.get((self.status.state, type(happened)))
        if row is None:
            return []
        row(self, happened, now)
        # Anything may have changed what is due; worked out anew only when asked, because several inputs often come in
        # one turn.
        self._due_at = None
        return self._take_effects()

    def _take_effects(self) -> list[do.Effect]:
        effects = self._effects.copy()
        self._effects.clear()
        return effects

    def next_wake(self) -> float:
        """The time by which the next Tick is needed; inf while only others can change anything."""
        # Kept for the next tick, which measures by it how late our own thread runs: that lag is no fault of the peer's.
        if self._due_at is None:
            self._due_at = self._find_due()
        self._promised_wake = self._due_at
        return self._promised_wake

    def is_due(self, now: float) -> bool:
        """Whether a Tick is needed now."""
        if self._due_at is None:
            self._due_at = self._find_due()
        return now >= self._due_at

    def _find_due(self) -> float:
        if self.state is LIVE:
            return self._open_line.due
        return self._reconnect_policy.retry_at if self.state is WAITING else inf

    @property
    def _open_line(self) -> OpenConnection:
        assert self.line is not None  # noqa: S101  # no row of LIVE is reached without one
        return self.line

    # The fast path

    def take(self, data: bytes, take_frames: TakeFrames, now: float) -> Sequence[do.Effect]:
        """Hand the messages in `data` to the sink at once; what else there is to do, if anything.

        Nearly every read brings messages, and all of them data. The table leads to the same, step by step, by
        Received, Deliver and Noticed: the simulation runs it for every other seed, and a property test compares the
        two. It would cost the session's thread about as much again as decoding a trade does.
        """
        line = self.line
        events = line.cut(data, now) if line is not None and self.status.state is LIVE else ()
        if line is None or not events:
            return NOTHING
        if not only_messages(events):
            return self.handle(on.Heard(events), now)
        health, status = self.health, self.status
        status.messages += len(events)
        # The sink first, all else after it: what it makes of the frames decides whether they were data at all.
        notices = take_frames(health, health.epoch, events, now)
        if notices:
            return self.handle(on.Noticed(health.epoch, len(events), notices), now)
        if line.delivered(now):
            self._due_at = None
        return self._take_effects() if self._effects else NOTHING

    # Connecting

    def _connect(self, reason: str, now: float) -> None:
        self._reconnect_policy.dialling(now)
        self._enter(CONNECTING, reason, now, attempt=self._reconnect_policy.attempt)
        self._effects.append(do.Dial())

    def _opened(self, _: on.Opened, now: float) -> None:
        # Before `connected`: other threads read the two without a lock, and an old value under a line that is up again
        # would be called current.
        self.health.epoch = self._next_epoch()
        self.health.suspect = False
        self.health.mute = frozenset()
        self.health.reset_lag()
        self.health.heard_at = now
        self.health.connected = True
        self._lateness.opened(now)
        # A handshake proves nothing yet; only time or data after it makes the policy start over.
        self._reconnect_policy.opened(now)
        self._enter(LIVE, "connected", now)
        self.line = OpenConnection(self._shared, now)

    def _open_failed(self, failed: on.OpenFailed, now: float) -> None:
        error = failed.error
        self._reconnect_policy.open_failed(error, now)
        if isinstance(error, RateLimitError):
            self._effects.append(do.ReportRefusal(error))  # to the limiter, which tells everybody
        self._wait(said(error), now)

    def _open_deferred(self, deferred: on.OpenDeferred, now: float) -> None:
        self._reconnect_policy.deferred(deferred.error, now)
        self._pause(said(deferred.error), now)

    # Losing the line

    def _lose(self, lost: Lost, now: float) -> None:
        """The connection is useless: give it back, tell whom it concerns, go on as the retry policy says."""
        # Before anybody is told, so that whoever looks then finds the stream not connected.
        self._hang_up(lost.say)
        interrupted = self._plan.streamed & self._plan.wanted
        if interrupted:
            self._effects.append(do.TellInterrupted(self.health.epoch, interrupted, lost.reason))
        self._reconnect_policy.line_lost(now)
        self._wait(lost.reason, now, lost.code)

    def _hang_up(self, say: int | None) -> None:
        self.health.connected = False
        self._first_frames.line_lost()
        self._stream_stalls.stop()
        self._topic_stalls.stop()
        self._effects.append(do.Drop(say))

    def _wait(self, reason: str, now: float, code: int | None = None) -> None:
        """After a loss or failure: between two attempts."""
        self.status.lost(now, reason)
        self._pause(reason, now, code)

    def _pause(self, reason: str, now: float, code: int | None = None) -> None:
        """Until the next attempt; or at rest, if meanwhile nobody wants anything."""
        if not self._plan.target:
            self._rest(reason, now)
            return
        retry_in = max(0.0, self._reconnect_policy.retry_at - now)
        self._enter(WAITING, reason, now, code=code, retry_in=retry_in, attempt=self._reconnect_policy.attempt)
        if retry_in <= 0:
            self._connect(reason, now)

    def _rest(self, reason: str, now: float) -> None:
        self.status.forgive()
        self._enter(IDLE, reason, now)
        self._effects.append(do.BecameIdle())

    def _line_lost(self, lost: on.ConnectionLost, now: float) -> None:
        self._lose(Lost(lost.reason, code=lost.code), now)

    def _reconnect(self, asked: on.ReconnectRequested, now: float) -> None:
        self._lose(Lost(asked.reason, say=NORMAL_CLOSE), now)

    def _woke_up(self, jump: on.ClockJumped, now: float) -> None:
        # The attempts before the sleep say nothing about the network after it, and the line is certainly dead.
        self._reconnect_policy.start_over()
        self._lose(Lost(f"the machine slept for {jump.seconds:.0f} s"), now)

    def _crashed(self, crash: on.Crashed, now: float) -> None:
        self._lose(Lost(f"the session's thread failed: {said(crash.error)}"), now)

    def _crashed_dialling(self, crash: on.Crashed, now: float) -> None:
        self._reconnect_policy.line_lost(now)
        self._wait(f"the session's thread failed: {said(crash.error)}", now)

    def _close_live(self, _: on.CloseRequested, now: float) -> None:
        self._hang_up(NORMAL_CLOSE)
        self._enter(CLOSED, "closed", now)

    def _close(self, _: on.CloseRequested, now: float) -> None:
        self._enter(CLOSED, "closed", now)

    # Waiting and resting

    def _tick_waiting(self, _: on.Tick, now: float) -> None:
        if now >= self._reconnect_policy.retry_at:
            self._connect("trying again", now)

    def _retry_now(self, _: on.ReconnectRequested | on.RetryRequested | on.ClockJumped, now: float) -> None:
        self._reconnect_policy.retry_now(now)
        self._tick_waiting(on.Tick(), now)

    def _noticed_late(self, noticed: on.Noticed, now: float) -> None:
        """Upbit's complaint and its close may come in one read, and the close is dealt with first."""
        if noticed.epoch != self.health.epoch:
            return
        for notice in noticed.notices:
            if isinstance(notice, StreamError):
                self._open_line.sender.complained(notice, now)

    def _requests_changed(self, changed: on.SubscriptionsChanged, now: float) -> None:
        self._plan.request(changed.requests)
        self._first_frames.keep(self._plan.wanted)
        self._topic_stalls.keep(self._plan.wanted)

    def _requests_changed_idle(self, changed: on.SubscriptionsChanged, now: float) -> None:
        # The plan is kept whatever follows; the pause below holds against a program that subscribes and unsubscribes in
        # a circle.
        self._requests_changed(changed, now)
        if self._plan.target and now < self._reconnect_policy.retry_at:
            self._pause("waiting for the next attempt", now)
        elif self._plan.target:
            self._connect("somebody wants data", now)

    def _requests_changed_waiting(self, changed: on.SubscriptionsChanged, now: float) -> None:
        self._requests_changed(changed, now)
        if not self._plan.target:
            self._rest("nobody wants anything", now)

    def _ban(self, ban: on.BanImposed, now: float) -> None:
        self._reconnect_policy.ban(now + ban.seconds)

    # Living

    def _requests_changed_live(self, changed: on.SubscriptionsChanged, now: float) -> None:
        self._requests_changed(changed, now)
        self._open_line.sender.reconsider(now)

    def _ban_live(self, ban: on.BanImposed, now: float) -> None:
        self._ban(ban, now)
        self._open_line.sender.hold_until(now + ban.seconds)

    def _received(self, received: on.Received, now: float) -> None:
        self._unless_lost(self._open_line.hear(self._open_line.cut(received.data, now), now), now)

    def _heard(self, heard: on.Heard, now: float) -> None:
        self._unless_lost(self._open_line.hear(heard.events, now), now)

    def _ponged(self, ponged: on.Ponged, now: float) -> None:
        if ponged.epoch == self.health.epoch:
            self._open_line.ponged(ponged.payload, now)

    def _noticed(self, noticed: on.Noticed, now: float) -> None:
        if noticed.epoch == self.health.epoch:
            self._open_line.noticed(noticed, now)

    def _silent_found(self, found: on.SilentFound, now: float) -> None:
        if found.epoch == self.health.epoch:
            self._open_line.silent_found(found, now)

    def _probe_answered(self, answer: on.ProbeAnswered, now: float) -> None:
        if answer.epoch == self.health.epoch:
            self._open_line.probe_answered(answer, now)

    def _tick_live(self, _: on.Tick, now: float) -> None:
        if now >= self._open_line.due:
            # A busy thread reads late what came in time: a deadline that finds us late is put off, or a computing main
            # thread would cost the connection.
            own_lag = max(0.0, now - self._promised_wake)
            self._unless_lost(self._open_line.tick(now, own_lag), now)

    def _unless_lost(self, lost: Lost | None, now: float) -> None:
        if lost is None:
            return
        if lost.is_idle:
            self._hang_up(lost.say)
            self._effects.append(do.TellSubscribed(self.health.epoch, frozenset()))
            self._rest(lost.reason, now)
        else:
            self._lose(lost, now)

    def _enter(self, state: ConnectionState, reason: str, now: float, **details: Any) -> None:
        self._shared.emit(self.status.entered(state, reason, now, **details))

    def __repr__(self) -> str:
        return f"<Lifecycle {self.health.session} {self.state} {len(self.topics)} topics>"


# (state, input) -> what happens. A missing row means: changes nothing. CLOSED has no rows.
TABLE: Final[dict[tuple[ConnectionState, type], Callable[[Lifecycle, Any, float], None]]] = {
    (IDLE, on.SubscriptionsChanged): Lifecycle._requests_changed_idle,
    (IDLE, on.BanImposed): Lifecycle._ban,
    (IDLE, on.CloseRequested): Lifecycle._close,
    (CONNECTING, on.SubscriptionsChanged): Lifecycle._requests_changed,
    (CONNECTING, on.BanImposed): Lifecycle._ban,
    (CONNECTING, on.Opened): Lifecycle._opened,
    (CONNECTING, on.OpenFailed): Lifecycle._open_failed,
    (CONNECTING, on.OpenDeferred): Lifecycle._open_deferred,
    # Also after the loss: Upbit's complaint and its close come in one read, and forgetting the complaint would send the
    # same message again.
    (CONNECTING, on.Noticed): Lifecycle._noticed_late,
    (CONNECTING, on.Crashed): Lifecycle._crashed_dialling,
    (CONNECTING, on.CloseRequested): Lifecycle._close,
    (LIVE, on.SubscriptionsChanged): Lifecycle._requests_changed_live,
    (LIVE, on.BanImposed): Lifecycle._ban_live,
    (LIVE, on.Received): Lifecycle._received,
    (LIVE, on.Heard): Lifecycle._heard,
    (LIVE, on.Ponged): Lifecycle._ponged,
    (LIVE, on.Noticed): Lifecycle._noticed,
    (LIVE, on.SilentFound): Lifecycle._silent_found,
    (LIVE, on.ProbeAnswered): Lifecycle._probe_answered,
    (LIVE, on.Tick): Lifecycle._tick_live,
    (LIVE, on.ConnectionLost): Lifecycle._line_lost,
    (LIVE, on.ReconnectRequested): Lifecycle._reconnect,
    (LIVE, on.ClockJumped): Lifecycle._woke_up,
    (LIVE, on.Crashed): Lifecycle._crashed,
    (LIVE, on.CloseRequested): Lifecycle._close_live,
    (WAITING, on.SubscriptionsChanged): Lifecycle._requests_changed_waiting,
    (WAITING, on.BanImposed): Lifecycle._ban,
    (WAITING, on.Noticed): Lifecycle._noticed_late,
    (WAITING, on.Tick): Lifecycle._tick_waiting,
    (WAITING, on.ReconnectRequested): Lifecycle._retry_now,
    (WAITING, on.RetryRequested): Lifecycle._retry_now,
    (WAITING, on.ClockJumped): Lifecycle._retry_now,
    (WAITING, on.Crashed): Lifecycle._crashed_dialling,
    (WAITING, on.CloseRequested): Lifecycle._close,
}
