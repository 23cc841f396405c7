"""Open connection: what it says, what we hear, and the moment it has become useless. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from ..models.request import Topic
from ..models.session import FirstFrame, Notice, RefusedFrames, StreamError, SubscriptionList
from ..wire.frames import Close, FrameEvent, FrameReader, Ping, Pong, ProtocolViolation
from . import messages
from .keep_alive import KeepAlive
from .session_state import SessionState, said
from .stall_detectors import SILENT, UNUSUAL, UNUSUAL_ALONE
from .subscription_sender import PongPacer, SubscriptionSender

NORMAL_CLOSE: Final = 1000
BACKLOG_BYTES: Final = (
    131_072  # all of Upbit's markets fill a read as large in a tenth of a second, a narrow line never
)


class Lost(Struct, frozen=True):
    """Why the line is of no use any more; `say` is the close code to send first, if any."""

    reason: str
    code: int | None = None
    say: int | None = None
    is_idle: bool = False


class OpenConnection:
    """Everything that belongs to one connection and dies with it."""

    def __init__(self, shared: SessionState, now: float) -> None:
        config = shared.config
        self._shared = shared
        self._reader = FrameReader()
        self._pongs = PongPacer()
        self._news_at = shared.health.news_at
        self._has_backlog = False  # more lay ready than comes between two reads
        self.keep_alive = KeepAlive(now, config.ping_interval_seconds, config.pong_timeout_seconds)
        self.sender = SubscriptionSender(shared, self.keep_alive, now)

    @property
    def due(self) -> float:
        shared = self._shared
        return min(
            self.keep_alive.due,
            self._pongs.due,
            self.sender.due,
            shared.stream_stalls.due,
            shared.topic_stalls.due,
            shared.lateness.due,
            shared.health.overdue_at,
            shared.reconnect_policy.due,
        )

    def cut(self, data: bytes, now: float) -> list[FrameEvent]:
        """What these bytes complete, in wire order; they are a sign of life in any case."""
        # Bytes and not messages: on a slow line half a frame is a sign of life, too, and the pong waits behind it.
        self.keep_alive.heard(now)
        size = len(data)
        self._shared.status.bytes += size
        self._has_backlog = size >= BACKLOG_BYTES
        events = self._reader.feed(data)
        if events:
            self._shared.health.heard_at = now
        return events

    def hear(self, events: Sequence[FrameEvent], now: float) -> Lost | None:
        shared, frames, controls = self._shared, [], []
        for event in events:
            if type(event) is bytes:
                frames.append(event)
            elif frames and type(event) is Pong:
                # In its place among the frames: which subscription a frame belongs to shows by the pong between them.
                shared.effects.append(messages.Deliver(shared.health.epoch, frames))
                shared.effects.append(messages.HearPong(shared.health.epoch, event.payload))
                frames = []
            else:
                controls.append(event)
        shared.status.messages += list(map(type, events)).count(bytes)
        if frames:
            shared.effects.append(messages.Deliver(shared.health.epoch, frames))
        # Deliver stands before all that follows: data that came with a close is delivered, not lost with the line.
        return self._hear_controls(controls, now) if controls else None

    def _hear_controls(self, events: list[FrameEvent], now: float) -> Lost | None:
        for event in events:
            match event:
                case Ping(payload):
                    self._pongs.pinged(payload)
                case Pong(payload):
                    self.ponged(payload, now)
                case Close(code, reason):
                    return Lost(f"closed by Upbit: {code} {reason}".rstrip(), code=code, say=code)
                case ProtocolViolation():
                    return Lost(said(event), code=event.close_code, say=event.close_code)
        self._pong(now)
        return None

    def ponged(self, payload: bytes, now: float) -> None:
        """Whatever we had sent before that ping has been read, and all that Upbit had sent by then is here."""
        seconds = self.keep_alive.ponged(payload, now)
        if seconds is None:
            return
        health = self._shared.health
        health.unanswered_since = self.keep_alive.unanswered_since
        health.answered(seconds, now)
        self._shared.lateness.look(health.is_late, now, is_evidence=seconds > health.max_lag)
        self.sender.passed(now - seconds, now)

    def noticed(self, noticed: messages.Noticed, now: float) -> None:
        """What the sink made of our frames: everything that is not about the session, and was not refused, was data."""
        no_data = sum(map(_frames_without_data, noticed.notices))
        if noticed.frames > no_data:
            self.delivered(now)
        self._first_frames_came([notice.topic for notice in noticed.notices if isinstance(notice, FirstFrame)])
        for notice in noticed.notices:
            self._hear(notice, now)

    def delivered(self, now: float) -> bool:
        """What was cut last is with the sink, and there was data in it.

        Whether something may be due earlier than before; nearly always False.
        """
        shared = self._shared
        health, lateness = shared.health, shared.lateness
        shared.status.last_data_at = now
        self.keep_alive.has_data = True
        news_at = health.news_at
        # What is said again and again, or stamped anew without a trade, is no sign of life: see `news_at`.
        if shared.stream_stalls.heard(news_at):
            health.suspect = False
            shared.emit(shared.status.stale(shared.plan.wanted, stale=False, reason="data flows again"))
        is_other_lateness = False
        if health.is_late or lateness.is_late:
            is_other_lateness = lateness.look(health.is_late, now, is_evidence=news_at > self._news_at)
        self._news_at = news_at
        return shared.reconnect_policy.data_came(now) or is_other_lateness

    def _first_frames_came(self, topics: list[Topic]) -> None:
        shared = self._shared
        belated = frozenset(topic for topic in topics if shared.first_frames.arrived(topic))
        if belated:
            shared.emit(shared.status.topics(belated, "the first frame came after all", is_error=False))

    def _hear(self, notice: Notice, now: float) -> None:
        match notice:
            case StreamError():
                self.sender.complained(notice, now)
            case SubscriptionList():
                self.sender.audited(notice, now)

    def silent_found(self, found: messages.SilentFound, now: float) -> None:
        shared, watch = self._shared, self._shared.topic_stalls
        proven, doubted = watch.proven, watch.doubted
        awake = watch.found(found.question, found.silent)
        proven, doubted = watch.proven - proven, watch.doubted - doubted
        shared.health.mute = watch.mute
        if awake:
            shared.emit(shared.status.stale(awake, stale=False, reason="data flows again"))
        if doubted:
            shared.emit(shared.status.stale(doubted, stale=True, reason=UNUSUAL_ALONE))
        if proven:
            shared.emit(shared.status.stale(proven, stale=True, reason=f"{SILENT}; other topics flow"))
            if watch.may_resend(proven, now):
                self.sender.repeat(now)
        # Then the whole line is put to REST, and asking about single topics besides would spend requests on the same
        # doubt.
        is_whole_line_silent = now >= shared.stream_stalls.is_silent_at
        if not is_whole_line_silent:
            self._probe(watch.to_probe(found.silent & shared.plan.streamed, now), whole_line=False)

    def probe_answered(self, answer: messages.ProbeAnswered, now: float) -> None:
        shared = self._shared
        if answer.whole_line:
            must_ask = shared.stream_stalls.answered(None if answer.behind is None else bool(answer.behind), now)
        else:
            cleared = shared.topic_stalls.answered(answer.topics, answer.behind, now)
            shared.health.mute = shared.topic_stalls.mute
            if cleared:
                shared.emit(shared.status.stale(cleared, stale=False, reason="REST knows of no trades, either"))
            must_ask = answer.behind is None and shared.topic_stalls.may_ask_stream(now)
        # REST does not say. Upbit answers a subscription with snapshots: proof of a line that moves, and the cure for a
        # topic that had gone mute.
        if must_ask:
            self.sender.repeat(now)
        if must_ask and answer.whole_line and now < shared.reconnect_policy.banned_until:
            self._suspect_if_unusual()

    def _suspect_if_unusual(self) -> None:
        """While the whole IP is blocked nothing may be sent, and a line given up could not come back: this one is kept,
        but what it brought last is not current any more."""
        shared = self._shared
        if shared.health.suspect or not shared.topic_stalls.is_unusual(shared.plan.streamed & shared.plan.wanted):
            return
        shared.health.suspect = True
        shared.stream_stalls.suspect()
        shared.emit(shared.status.stale(shared.plan.wanted, stale=True, reason=UNUSUAL))

    def tick(self, now: float, own_lag: float) -> Lost | None:
        # Before the others, which say goodbye; a frozen line is given no close code, because sending could only wait.
        if self.keep_alive.is_frozen(now, own_lag):
            seconds = now - self.keep_alive.heard_at
            return Lost(f"nothing heard for {seconds:.1f} s, pings unanswered")
        if self.sender.is_idle(now):
            return Lost("nobody wants anything", say=NORMAL_CLOSE, is_idle=True)
        stall = self._shared.stream_stalls.stall(now)
        if stall is not None and self._shared.plan.target:
            return self._stalled(stall)
        if self._shared.lateness.is_beyond_help(now, has_backlog=self._has_backlog):
            return Lost(f"{self._shared.health.lag:.1f} s behind Upbit", say=NORMAL_CLOSE)
        if now >= self._shared.health.overdue_at:
            self._shared.health.overdue(now)
            self._shared.lateness.look(True, now, is_evidence=False)
        ping = self.keep_alive.ping(now) or self.keep_alive.ask(now)
        if ping is not None:
            self.sender.ping(ping, now)
        self._pong(now)
        self.sender.tick(now)
        self._look_for_silence(now)
        self._tell_lateness(now)
        self._shared.reconnect_policy.prove(now)
        return None

    def _tell_lateness(self, now: float) -> None:
        shared = self._shared
        if shared.lateness.must_tell(now):
            reason = f"{shared.health.lag:.1f} s behind Upbit"
            shared.emit(shared.status.stale(shared.plan.wanted, stale=True, reason=reason))
            shared.effects.append(messages.ShedLoad())
        elif shared.lateness.has_caught_up(now):
            shared.emit(shared.status.stale(shared.plan.wanted, stale=False, reason="in time again"))

    def _stalled(self, why: str) -> Lost:
        shared = self._shared
        # Before the line is dropped, which takes a moment: from now on nothing of it is given as current.
        shared.health.suspect = True
        shared.emit(shared.status.stale(shared.plan.wanted, stale=True, reason=why))
        return Lost(why, say=NORMAL_CLOSE)

    def _pong(self, now: float) -> None:
        payload = self._pongs.take(now)
        if payload is not None:
            self._shared.effects.append(messages.SendPong(payload))

    def _look_for_silence(self, now: float) -> None:
        shared = self._shared
        streamed = shared.plan.streamed & shared.plan.wanted
        if shared.stream_stalls.must_probe(now, anything_wanted=bool(streamed)):
            self._probe(shared.topic_stalls.liveliest(streamed), whole_line=True)
        question = shared.topic_stalls.question(streamed, now)
        if question is not None:
            shared.effects.append(messages.AskSilent(shared.health.epoch, question))

    def _probe(self, topics: frozenset[Topic], *, whole_line: bool) -> None:
        if topics:
            self._shared.effects.append(messages.StartProbe(self._shared.health.epoch, topics, whole_line))


def _frames_without_data(notice: Notice) -> int:
    if isinstance(notice, FirstFrame):
        return 0
    return notice.count if isinstance(notice, RefusedFrames) else 1
