"""A recording played into the same pipeline that live data takes."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable, Hashable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from .._arguments import as_real
from .._concurrency import Deadline, Flag, get_logger, join_all, spawn, wait_event
from ..errors import InvalidRequestError, one_line
from ..models.events import ConnectionState, Event, SubscriptionEvent
from ..models.report import SessionStats
from ..models.request import SubscriptionRequest, Topic
from ..models.session import SessionHealth
from .format import Record, RecordKind
from .members import Damage
from .recording import Recording
from .replay_sessions import PlayedSessions, ReplayClock
from .replay_transport import ReplayTransport

if TYPE_CHECKING:
    from ..sessions.ports import FrameSink

log = get_logger("upbit_backbone.recorder")

HEARTBEAT_SECONDS = 0.25
LOOK_SECONDS = 0.001
MAX_BACKLOG = 1_000
STUCK_SECONDS = 1.0
SETTLE_SECONDS = 3.0


class ReplaySource:
    """Stands in for SessionManager: same questions, but the data comes from a recording.

    `speed` 1.0 keeps the recorded pace, 10.0 is ten times as fast, None as fast as the consumers read: then `backlog`
    (the largest number of items that wait in any subscription) holds it back, so that nothing overflows; a consumer
    that takes nothing for a second is not waited for. Playing begins with the first `want` (or `start()`); `on_end` is
    called after the last record, on the replaying thread.

    Only what came from `since` on and before `until` is played; what was subscribed by then streams from the beginning.
    Where the recording has holes (damage, or a disk that was too slow then), each topic that is wanted gets a GapEvent
    that is not complete.

    What is fed, and in which order, is always the same. While a hole is being filled (not `is_settled`), playing
    waits, and `rest` gives a recorded answer no earlier than its place in the recording.
    """

    def __init__(
        self,
        recording: Recording,
        sink: FrameSink,
        *,
        clock: ReplayClock,
        rest: ReplayTransport | None = None,
        speed: float | None = 1.0,
        emit: Callable[[Event], None] = lambda _: None,
        backlog: Callable[[], int] = lambda: 0,
        is_settled: Callable[[], bool] = lambda: True,
        on_end: Callable[[], None] = lambda: None,
        autostart: bool = True,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> None:
        rate = math.inf if speed is None else as_real(speed)
        if rate is None or not rate > 0 or (speed is not None and math.isinf(rate)):
            raise InvalidRequestError(f"speed={speed!r}: expected a number > 0, or None for as fast as possible")
        self._recording = recording
        self._rest = rest or ReplayTransport(recording, since=since, until=until)
        self._since = since
        self._until = until
        self._sessions = PlayedSessions(sink, clock, emit, self.topics)
        self._clock = clock
        self._speed = None if speed is None else rate
        self._emit = emit
        self._backlog = backlog
        self._is_settled = is_settled
        self._on_end = on_end
        self._autostart = autostart
        self._stop = Flag()
        self._over = Flag()
        self._origin: tuple[float, float] | None = None  # (recorded, now) monotonic; the replaying thread's own
        self._lock = threading.Lock()  # guards everything below
        self._wanted: dict[Hashable, frozenset[Topic]] = {}  # by owner
        self._thread: threading.Thread | None = None

    # What SessionManager offers

    def acquire(self, owner: Hashable, requests: Iterable[SubscriptionRequest]) -> None:
        topics = frozenset(request.topic for request in requests)
        with self._lock:
            self._wanted[owner] = topics
        if self._autostart:
            self.start()

    def release(self, owner: Hashable) -> None:
        with self._lock:
            self._wanted.pop(owner, None)

    def health(self, topic: Topic) -> SessionHealth | None:
        return self._sessions.health(topic)

    def topics(self) -> frozenset[Topic]:
        """What is wanted, whether the recording has it or not."""
        with self._lock:
            return frozenset().union(*self._wanted.values())

    def states(self) -> dict[str, ConnectionState]:
        return {each.session: each.state for each in self.stats()}

    def stats(self) -> list[SessionStats]:
        return self._sessions.stats()

    def reconnect(self, session: str | None = None, reason: str = "") -> None:
        """A recording cannot be asked to connect again; it goes on as it is."""

    def ban(self, seconds: float, reason: str) -> None:
        """Nobody is connected to who could ban."""

    def close(self, deadline: Deadline) -> list[str]:
        """Stop playing; names of threads that would not. Idempotent."""
        self._stop.set()
        self._rest.close()
        with self._lock:
            thread = self._thread
        return join_all([thread] if thread else [], deadline)

    # Playing

    def start(self) -> None:
        """Begin to play; without effect when playing already."""
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                self._rest.begin()
                self._thread = spawn(self._run, "upbit-replay")

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    def wait(self, deadline: Deadline) -> bool:
        """Until the last record was fed (not: consumed), or the deadline; True when it was."""
        return wait_event(self._over, deadline)

    def _run(self) -> None:
        # One pass and no loop of turns: what broke off in the middle cannot be begun anew without giving twice what was
        # given already. It is told, and the replay is over.
        try:
            if not self._play():
                return
            self._sessions.end("the recording is over")
            self._tell_what_was_missing()
        except BaseException as error:
            log.exception("the replay broke off")
            self._sessions.end_all(f"the replay broke off: {one_line(error)}", ConnectionState.CLOSED)
        finally:
            self._rest.end()
            self._over.set()
        self._settle()
        self._on_end()

    def _play(self) -> bool:
        """Feed every record in its turn; False when told to stop."""
        if self._since is not None:
            for stream in self._recording.streams_at(self._since):
                self._sessions.feed(dataclasses.replace(stream, wall=self._since))
        for place, record in self._recording.entries(self._since, self._until):
            if isinstance(record, Damage):
                if record.size:  # else only its head is damaged, and all the data is there
                    self._sessions.missing(f"the recording is damaged {record}")
                continue
            if not self._pace(record):
                return False
            self._clock.now = record.wall
            self._sessions.feed(record)
            self._rest.reached(place)
            if self._sessions.was_interrupted and record.kind in (RecordKind.FRAMES, RecordKind.REST):
                # So that filling a hole happens at the same place in every replay. Holes can show long after the
                # interruption, so this goes on, unless one proves to be never filled.
                self._sessions.was_interrupted = self._settle()
        return True

    def _settle(self) -> bool:
        """Wait a while until every hole is filled or its filling waits for a later answer; False if neither happens."""
        patience = Deadline.after(SETTLE_SECONDS)
        while not (is_settled := self._is_settled() or self._rest.is_awaited):
            if patience.expired or self._stop.is_set():
                break
            self._stop.wait(LOOK_SECONDS)
        return is_settled

    def _pace(self, record: Record) -> bool:
        """Wait until it is this record's turn; False when told to stop."""
        if self._speed is None:
            return self._wait_for_consumers()
        now = self._clock.monotonic()
        is_anew = record.kind is RecordKind.BEGIN and not (record.details or {}).get("continues")
        if is_anew or self._origin is None:
            self._origin = (record.monotonic, now)
        recorded, began = self._origin
        turn = began + (record.monotonic - recorded) / self._speed
        while not self._stop.is_set() and (left := turn - self._clock.monotonic()) > 0:
            self._sessions.beat()
            self._stop.wait(min(left, HEARTBEAT_SECONDS))
        return not self._stop.is_set()

    def _wait_for_consumers(self) -> bool:
        waiting = self._backlog()
        patience = Deadline.after(STUCK_SECONDS)
        while waiting >= MAX_BACKLOG and not self._rest.is_awaited and not patience.expired and not self._stop.is_set():
            self._stop.wait(LOOK_SECONDS)
            before, waiting = waiting, self._backlog()
            if waiting != before:
                patience = Deadline.after(STUCK_SECONDS)
        return not self._stop.is_set()

    def _tell_what_was_missing(self) -> None:
        if self._recording.damage:
            log.warning("the recording is damaged", extra={"damage": self._recording.damage})
        missing = sorted(str(topic) for topic in self.topics() - self._sessions.topics())
        if missing:
            reason = "the recording has nothing about this"
            self._emit(SubscriptionEvent(at=self._clock.wall(), topics=tuple(missing), reason=reason))

    def __repr__(self) -> str:
        state = "over" if self.is_over else "playing" if self._thread else "waiting to be wanted"
        return f"<ReplaySource {one_line(self._recording.path)} {state}>"
