"""The recorded sessions as they are while a recording is played: healths, topics and figures."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Protocol

from ..errors import one_line
from ..models.enums import DataType
from ..models.events import ConnectionEvent, ConnectionState, Event
from ..models.report import SessionStats
from ..models.session import SessionHealth
from ..models.topic import Topic
from .format import Record, RecordKind

log = logging.getLogger("upbit_backbone.recorder")


class FrameSink(Protocol):
    """Where the frames go; see sessions.ports.FrameSink, which is the same."""

    def frames(self, health: SessionHealth, epoch: int, frames: list[bytes], monotonic: float) -> Sequence[object]: ...

    def subscribed(self, health: SessionHealth, epoch: int, topics: frozenset[Topic]) -> None: ...

    def interrupted(self, health: SessionHealth, epoch: int, topics: frozenset[Topic], reason: str) -> None: ...


class ReplayClock:
    """The present for ages and deadlines, the recorded time for everything that is shown."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self.now = datetime.fromtimestamp(0, UTC)  # written by the replaying thread only

    def wall(self) -> datetime:
        return self.now

    def __repr__(self) -> str:
        return f"ReplayClock({self.now:%Y-%m-%d %H:%M:%S}Z)"


class _Played:
    """One recorded session as it is now."""

    def __init__(self, name: str, since: datetime) -> None:
        self.health = SessionHealth(name)
        self.topics: frozenset[Topic] = frozenset()
        self.since = since
        self.state = ConnectionState.CONNECTING
        self.messages = self.bytes = self.connects = 0
        self.data_at: float | None = None


class PlayedSessions:
    """Gives records to the sink as the sessions did then. Fed by the replaying thread, asked by any."""

    def __init__(self, sink: FrameSink, clock: ReplayClock, emit: Callable[[Event], None]) -> None:
        self._sink = sink
        self._clock = clock
        self._emit = emit
        self.was_interrupted = False
        self._lock = threading.Lock()  # guards _played and the topics in it
        self._played: dict[str, _Played] = {}

    def health(self, topic: Topic) -> SessionHealth | None:
        with self._lock:
            return next((each.health for each in self._played.values() if topic in each.topics), None)

    def topics(self) -> frozenset[Topic]:
        with self._lock:
            return frozenset().union(*(each.topics for each in self._played.values()))

    def stats(self) -> list[SessionStats]:
        now = self._clock.monotonic()
        with self._lock:
            return [_stats(each, now) for each in self._played.values()]

    def beat(self) -> None:
        """Silence on the recorded line was covered by pongs, which are not recorded."""
        now = self._clock.monotonic()
        with self._lock:
            for each in self._played.values():
                each.health.heard_at = now

    def feed(self, record: Record) -> None:
        match record.kind:
            case RecordKind.BEGIN:
                self.end_all("the recorder was attached anew")
            case RecordKind.FRAMES:
                self._feed_frames(record)
            case RecordKind.SUBSCRIBED:
                self._feed_subscribed(record)
            case RecordKind.INTERRUPTED:
                self._feed_interrupted(record)
            case RecordKind.LOST:
                log.warning("records are missing in the recording", extra={"lost": record.details})
            case RecordKind.REST:
                pass  # ReplayTransport answers with these

    def _feed_frames(self, record: Record) -> None:
        played, now = self._session(record), self._clock.monotonic()
        played.health.heard_at = played.data_at = now
        played.messages += len(record.blobs)
        played.bytes += record.size
        self._sink.frames(played.health, record.epoch, list(record.blobs), now)

    def _feed_subscribed(self, record: Record) -> None:
        played, topics = self._session(record), topics_of(record)
        is_new = played.health.epoch != record.epoch or not played.health.connected
        played.health.epoch, played.health.connected = record.epoch, True
        played.health.heard_at = self._clock.monotonic()
        with self._lock:
            played.topics = topics
        if is_new:
            played.connects += 1
            self._tell(played, ConnectionState.LIVE, "replayed")
        self._sink.subscribed(played.health, record.epoch, topics)

    def _feed_interrupted(self, record: Record) -> None:
        reason = one_line((record.details or {}).get("reason", ""))
        self._interrupt(self._session(record), record.epoch, topics_of(record), reason)

    def _interrupt(
        self,
        played: _Played,
        epoch: int,
        topics: frozenset[Topic],
        reason: str,
        state: ConnectionState = ConnectionState.WAITING,
    ) -> None:
        played.health.connected = False
        self.was_interrupted = True
        self._tell(played, state, reason)
        self._sink.interrupted(played.health, epoch, topics, reason)

    def end_all(self, reason: str, state: ConnectionState = ConnectionState.WAITING) -> None:
        for played in list(self._played.values()):
            if played.health.connected:
                self._interrupt(played, played.health.epoch, played.topics, reason, state)

    def _tell(self, played: _Played, state: ConnectionState, reason: str) -> None:
        played.since, played.state = self._clock.wall(), state
        self._emit(ConnectionEvent(at=self._clock.wall(), session=played.health.session, state=state, reason=reason))

    def _session(self, record: Record) -> _Played:
        with self._lock:
            if record.session not in self._played:
                self._played[record.session] = _Played(record.session, record.wall)
            return self._played[record.session]

    def __repr__(self) -> str:
        return f"<PlayedSessions {len(self._played)}>"


def topics_of(record: Record) -> frozenset[Topic]:
    rows = (record.details or {}).get("topics", ())
    return frozenset(Topic(DataType(kind), str(symbol), Decimal(level)) for kind, symbol, level in rows)


def _stats(played: _Played, now: float) -> SessionStats:
    return SessionStats(
        session=played.health.session,
        state=played.state,
        since=played.since,
        topics=len(played.topics),
        epoch=played.health.epoch,
        last_data_age=None if played.data_at is None else now - played.data_at,
        last_pong_age=None,
        pong_seconds=None,
        messages=played.messages,
        bytes=played.bytes,
        connects=played.connects,
        reconnects=max(0, played.connects - 1),
        messages_sent=0,
        malformed=0,
        suspect=False,
        last_error=None,
    )
