"""A recording played into the same pipeline that live data takes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Protocol

from .._concurrency import Deadline, join_all, spawn, wait_event
from ..errors import InvalidRequestError, one_line
from ..models.enums import DataType
from ..models.events import ConnectionEvent, ConnectionState, Event, SubscriptionEvent
from ..models.pulse import Pulse
from ..models.report import SessionStats
from ..models.topic import Topic, Wish
from .format import Record, RecordKind
from .recording import Recording

log = logging.getLogger("upbit_backbone.recorder")

HEARTBEAT_SECONDS = 0.25
MAX_BACKLOG = 1_000
STUCK_SECONDS = 1.0
SETTLE_SECONDS = 3.0


class FrameSink(Protocol):
    """Where the frames go; see sessions.ports.FrameSink, which is the same."""

    def frames(self, pulse: Pulse, epoch: int, frames: list[bytes], monotonic: float) -> Sequence[object]: ...

    def subscribed(self, pulse: Pulse, epoch: int, topics: frozenset[Topic]) -> None: ...

    def interrupted(self, pulse: Pulse, epoch: int, topics: frozenset[Topic], reason: str) -> None: ...


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
        self.pulse = Pulse(name)
        self.topics: frozenset[Topic] = frozenset()
        self.since = since
        self.state = ConnectionState.CONNECTING
        self.messages = self.bytes = self.connects = 0
        self.data_at: float | None = None


class ReplaySource:
    """Stands in for SessionManager: same questions, but the data comes from a recording.

    `speed` 1.0 keeps the recorded pace, 10.0 is ten times as fast, None as fast as the consumers read: then `backlog`
    (the largest number of items that wait in any subscription) holds it back, so that nothing overflows; a consumer
    that takes nothing for a second is not waited for. Playing begins with the first `want` (or `start()`). After the
    last record it waits a while until the pipeline `is_settled` (a hole may still be being filled) and then calls
    `on_end` on the replaying thread. The order of what is fed is always the recorded one.
    """

    def __init__(
        self,
        recording: Recording,
        sink: FrameSink,
        *,
        clock: ReplayClock,
        speed: float | None = 1.0,
        emit: Callable[[Event], None] = lambda _: None,
        backlog: Callable[[], int] = lambda: 0,
        is_settled: Callable[[], bool] = lambda: True,
        on_end: Callable[[], None] = lambda: None,
        autostart: bool = True,
    ) -> None:
        if speed is not None and not 0 < speed < float("inf"):
            raise InvalidRequestError(f"speed={speed!r}: expected a number > 0, or None for as fast as possible")
        self._recording = recording
        self._sink = sink
        self._clock = clock
        self._speed = speed
        self._emit = emit
        self._backlog = backlog
        self._is_settled = is_settled
        self._on_end = on_end
        self._autostart = autostart
        self._stop = threading.Event()
        self._over = threading.Event()
        self._origin: tuple[float, float] | None = None  # (recorded, now) monotonic; the replaying thread's own
        self._lock = threading.Lock()  # guards everything below
        self._wanted: dict[Topic, int] = {}
        self._played: dict[str, _Played] = {}
        self._thread: threading.Thread | None = None

    # What SessionManager offers

    def want(self, wishes: Iterable[Wish]) -> None:
        with self._lock:
            for wish in wishes:
                self._wanted[wish.topic] = self._wanted.get(wish.topic, 0) + 1
        if self._autostart:
            self.start()

    def unwant(self, wishes: Iterable[Wish]) -> None:
        with self._lock:
            for wish in wishes:
                left = self._wanted.pop(wish.topic, 1) - 1
                if left > 0:
                    self._wanted[wish.topic] = left

    def pulse(self, topic: Topic) -> Pulse | None:
        with self._lock:
            return next((each.pulse for each in self._played.values() if topic in each.topics), None)

    def topics(self) -> frozenset[Topic]:
        """What is wanted, whether the recording has it or not."""
        with self._lock:
            return frozenset(self._wanted)

    def stats(self) -> list[SessionStats]:
        now = self._clock.monotonic()
        with self._lock:
            return [_stats(each, now) for each in self._played.values()]

    def reconnect(self, session: str | None = None, reason: str = "") -> None:
        """A recording cannot be asked to connect again; it goes on as it is."""

    def ban(self, seconds: float, reason: str) -> None:
        """Nobody is connected to who could ban."""

    def close(self, deadline: Deadline) -> list[str]:
        """Stop playing; names of threads that would not. Idempotent."""
        self._stop.set()
        with self._lock:
            thread = self._thread
        return join_all([thread] if thread else [], deadline)

    # Playing

    def start(self) -> None:
        """Begin to play; without effect when playing already."""
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                self._thread = spawn(self._run, "upbit-replay")

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    def wait(self, deadline: Deadline) -> bool:
        """Until the last record was fed (not: consumed), or the deadline; True when it was."""
        return wait_event(self._over, deadline)

    def _run(self) -> None:
        try:
            for record in self._recording:
                if not self._pace(record):
                    return
                self._clock.now = record.wall
                self._feed(record)
            self._end_all("the recording is over", ConnectionState.CLOSED)
            self._tell_what_was_missing()
        except Exception as error:
            log.exception("the replay broke off")
            self._end_all(f"the replay broke off: {one_line(error)}", ConnectionState.CLOSED)
        finally:
            self._over.set()
        patience = Deadline.after(SETTLE_SECONDS)
        while not self._is_settled() and not patience.expired and not self._stop.is_set():
            self._stop.wait(0.01)
        self._on_end()

    def _pace(self, record: Record) -> bool:
        """Wait until it is this record's turn; False when told to stop."""
        if self._speed is None:
            return self._wait_for_consumers()
        now = self._clock.monotonic()
        if record.kind is RecordKind.BEGIN or self._origin is None:
            self._origin = (record.monotonic, now)
        recorded, began = self._origin
        turn = began + (record.monotonic - recorded) / self._speed
        while not self._stop.is_set() and (left := turn - self._clock.monotonic()) > 0:
            self._beat()
            self._stop.wait(min(left, HEARTBEAT_SECONDS))
        return not self._stop.is_set()

    def _wait_for_consumers(self) -> bool:
        waiting = self._backlog()
        patience = Deadline.after(STUCK_SECONDS)
        while waiting >= MAX_BACKLOG and not patience.expired and not self._stop.is_set():
            self._stop.wait(0.001)
            before, waiting = waiting, self._backlog()
            if waiting != before:
                patience = Deadline.after(STUCK_SECONDS)
        return not self._stop.is_set()

    def _beat(self) -> None:
        """Silence on the recorded line was covered by pongs, which are not recorded."""
        now = self._clock.monotonic()
        with self._lock:
            for each in self._played.values():
                each.pulse.heard_at = now

    def _feed(self, record: Record) -> None:
        match record.kind:
            case RecordKind.BEGIN:
                self._end_all("the recorder was attached anew")
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
        played.pulse.heard_at = played.data_at = now
        played.messages += len(record.blobs)
        played.bytes += record.size
        self._sink.frames(played.pulse, record.epoch, list(record.blobs), now)

    def _feed_subscribed(self, record: Record) -> None:
        played, topics = self._session(record), topics_of(record)
        is_new = played.pulse.epoch != record.epoch or not played.pulse.connected
        played.pulse.epoch, played.pulse.connected = record.epoch, True
        played.pulse.heard_at = self._clock.monotonic()
        with self._lock:
            played.topics = topics
        if is_new:
            played.connects += 1
            self._tell(played, ConnectionState.LIVE, f"replayed from {one_line(self._recording.path.name)}")
        self._sink.subscribed(played.pulse, record.epoch, topics)

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
        played.pulse.connected = False
        self._tell(played, state, reason)
        self._sink.interrupted(played.pulse, epoch, topics, reason)

    def _end_all(self, reason: str, state: ConnectionState = ConnectionState.WAITING) -> None:
        for played in list(self._played.values()):
            if played.pulse.connected:
                self._interrupt(played, played.pulse.epoch, played.topics, reason, state)

    def _tell(self, played: _Played, state: ConnectionState, reason: str) -> None:
        played.since, played.state = self._clock.wall(), state
        self._emit(ConnectionEvent(at=self._clock.wall(), session=played.pulse.session, state=state, reason=reason))

    def _tell_what_was_missing(self) -> None:
        if self._recording.damage:
            log.warning("the recording is damaged", extra={"damage": self._recording.damage})
        with self._lock:
            known = frozenset().union(*(each.topics for each in self._played.values()))
            missing = sorted(str(topic) for topic in self._wanted if topic not in known)
        if missing:
            reason = "the recording has nothing about this"
            self._emit(SubscriptionEvent(at=self._clock.wall(), topics=tuple(missing), reason=reason))

    def _session(self, record: Record) -> _Played:
        with self._lock:
            if record.session not in self._played:
                self._played[record.session] = _Played(record.session, record.wall)
            return self._played[record.session]

    def __repr__(self) -> str:
        state = "over" if self.is_over else "playing" if self._thread else "waiting to be wanted"
        return f"<ReplaySource {one_line(self._recording.path)} {state}>"


def topics_of(record: Record) -> frozenset[Topic]:
    rows = (record.details or {}).get("topics", ())
    return frozenset(Topic(DataType(kind), str(symbol), Decimal(level)) for kind, symbol, level in rows)


def _stats(played: _Played, now: float) -> SessionStats:
    return SessionStats(
        session=played.pulse.session,
        state=played.state,
        since=played.since,
        topics=len(played.topics),
        epoch=played.pulse.epoch,
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
