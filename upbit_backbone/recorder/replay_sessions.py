"""The recorded sessions as they are while a recording is played: healths, topics and figures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from .._concurrency import get_logger
from ..errors import one_line
from ..models.enums import DataType
from ..models.events import ConnectionEvent, ConnectionState, Event, GapEvent
from ..models.report import SessionStats
from ..models.request import Topic
from ..models.session import SessionHealth
from .format import Record, RecordKind

if TYPE_CHECKING:
    from ..sessions.ports import FrameSink

log = get_logger("upbit_backbone.recorder")


class ReplayClock:
    """The present for ages and deadlines, the recorded time for everything that is shown."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self, start: datetime | None = None) -> None:
        # Where the recording begins, so that questions make sense before anything is played. Afterwards written by the
        # replaying thread only.
        self.now = start or datetime.fromtimestamp(0, UTC)

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

    def __init__(
        self,
        sink: FrameSink,
        clock: ReplayClock,
        emit: Callable[[Event], None],
        wanted: Callable[[], frozenset[Topic]] = frozenset,
    ) -> None:
        self._sink = sink
        self._clock = clock
        self._emit = emit
        self.was_interrupted = False
        self._is_incomplete = False  # whether something is missing in what was fed
        self._missing: tuple[datetime, str] | None = None  # since when, and why: until the next record tells the end
        self._fed_until: datetime | None = None
        self._wanted = wanted
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
        if self._missing is not None:
            since, reason = self._missing
            self._missing = None
            self._tell_gap(since, record.wall, reason)
        self._feed(record)
        self._fed_until = record.wall

    def missing(self, reason: str) -> None:
        """Here the recording has a hole, which lasts until the next record."""
        self._is_incomplete = True
        since, before = self._missing or (self._fed_until or self._clock.wall(), "")
        self._missing = since, f"{before}; {reason}" if before else reason

    def end(self, reason: str) -> None:
        """Nothing more comes."""
        if self._missing is not None:
            since, why = self._missing
            self._missing = None
            self._tell_gap(since, self._clock.wall(), why)
        self.end_all(reason, ConnectionState.CLOSED)

    def _tell_gap(self, start: datetime, end: datetime, reason: str) -> None:
        """What streamed and is wanted has a hole that nobody can fill: as after an interruption without a repair."""
        for topic in sorted(self.topics() & self._wanted(), key=str):
            self._emit(
                GapEvent(
                    at=self._clock.wall(),
                    symbol=topic.symbol,
                    type=topic.data_type,
                    start=start,
                    end=end,
                    recovered=0,
                    complete=False,
                    reason=reason,
                    missing_start=start,
                    missing_end=end,
                )
            )

    def _feed(self, record: Record) -> None:
        match record.kind:
            case RecordKind.BEGIN if not (record.details or {}).get("continues"):
                self.end_all("the recorder was attached anew")
            case RecordKind.BEGIN:
                pass  # the next file of a rotated recording: nothing happened to the streams
            case RecordKind.FRAMES:
                self._feed_frames(record)
            case RecordKind.SUBSCRIBED:
                self._feed_subscribed(record)
            case RecordKind.INTERRUPTED:
                self._feed_interrupted(record)
            case RecordKind.LOST:
                lost = (record.details or {}).get("records", "some")
                self._is_incomplete = True
                log.warning("records are missing in the recording", extra={"lost": lost})
                since = self._fed_until or record.wall
                self._tell_gap(since, record.wall, f"{lost} records were lost while recording: the disk was too slow")
            case RecordKind.REST:
                pass  # ReplayTransport answers with these

    def _feed_frames(self, record: Record) -> None:
        played, now = self._session(record), self._clock.monotonic()
        if self._is_incomplete and (not played.health.connected or played.health.epoch != record.epoch):
            # That it was subscribed is among what is missing; without it everything that follows would be dropped.
            self._subscribe(played, record.epoch, played.topics or self._wanted())
        played.health.heard_at = played.data_at = now
        played.messages += len(record.blobs)
        played.bytes += record.size
        self._sink.frames(played.health, record.epoch, list(record.blobs), now)

    def _feed_subscribed(self, record: Record) -> None:
        played, topics = self._session(record), topics_of(record)
        is_known = played.health.connected and played.health.epoch == record.epoch and played.topics == topics
        if is_known and (record.details or {}).get("restated"):
            return  # said again at the beginning of a file, for those who play it alone
        self._subscribe(played, record.epoch, topics)

    def _subscribe(self, played: _Played, epoch: int, topics: frozenset[Topic]) -> None:
        is_new = played.health.epoch != epoch or not played.health.connected
        played.health.epoch, played.health.connected = epoch, True
        played.health.heard_at = self._clock.monotonic()
        with self._lock:
            played.topics = topics
        if is_new:
            played.connects += 1
            self._tell(played, ConnectionState.LIVE, "replayed")
        self._sink.subscribed(played.health, epoch, topics)

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
