"""A recording played into the same pipeline that live data takes, and REST as it answered then."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .._arguments import as_real
from .._concurrency import Deadline, EventCount, Flag, get_logger, join_all, spawn, wait_event
from ..errors import ChannelUnavailableError, InvalidRequestError, RequestTimeoutError, one_line
from ..exchange.endpoints import MARKETS, RestCall
from ..models.enums import DataType
from ..models.events import ConnectionEvent, ConnectionState, Event, GapEvent, SubscriptionEvent
from ..models.report import SessionStats
from ..models.request import SubscriptionRequest, Topic
from ..models.session import SessionHealth
from ..wire.rest_transport import RestResponse
from .format import Damage, Record, RecordKind
from .recording import Place, Recording

if TYPE_CHECKING:
    from ..sessions.ports import FrameSink
    from ..wire.io_deadline import Departure


log = get_logger("upbit_backbone.recorder")

HEARTBEAT_SECONDS = 0.25
LOOK_SECONDS = 0.001
MAX_BACKLOG = 1_000
STUCK_SECONDS = 1.0
SETTLE_SECONDS = 3.0


class Played(Protocol):
    """What can be played: a recording, or a store that looks like one."""

    path: Path

    @property
    def damage(self) -> str | None: ...

    def entries(
        self, since: datetime | None = None, until: datetime | None = None, *kinds: RecordKind
    ) -> Iterable[tuple[Place, Record | Damage | GapEvent]]: ...

    def streams_at(self, moment: datetime) -> list[Record]: ...


class Answers(Protocol):
    """What answers in REST's place while something is played; see `ReplayTransport`."""

    @property
    def is_awaited(self) -> bool: ...

    def begin(self) -> None: ...

    def reached(self, place: Place) -> None: ...

    def end(self) -> None: ...

    def close(self) -> None: ...


class ReplaySource:
    """Stands in for SessionManager: same questions, but the data comes from a recording.

    `speed` 1.0 keeps the recorded pace, 10.0 is ten times as fast, None as fast as the consumers read: then `backlog`
    (the largest number of items that wait in any subscription) holds it back, so that nothing overflows; a consumer
    that takes nothing for a second is not waited for. Playing begins with the first `want` (or `start()`); `on_end` is
    called after the last record, on the replaying thread.

    Only what came from `since` on and before `until` is played; what was subscribed by then streams from the beginning.
    Where the recording has holes (damage, or a disk that was too slow then), each topic that is wanted gets a GapEvent
    that is not complete. What is missing in a store is among its entries, topic by topic.

    What is fed, and in which order, is always the same. While a hole is being filled (not `is_settled`), playing
    waits, and `rest` gives a recorded answer no earlier than its place in the recording.
    """

    def __init__(
        self,
        recording: Played,
        sink: FrameSink,
        *,
        clock: ReplayClock,
        rest: Answers,
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
        self._rest = rest
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
            if isinstance(record, GapEvent):
                if any((topic.symbol, topic.data_type) == (record.symbol, record.type) for topic in self.topics()):
                    self._emit(record)
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


# REST from a recording: the same question gets the answers it got then, in the same order.


CLOSE_SECONDS = 1.0  # the index is left after the block in hand


class ReplayTransport:
    """Stands in for RestTransport. A question asked more often than then gets its last answer again.

    While the recording is played (between `begin` and `end`), an answer is given no earlier than at its place in the
    recording; whoever asks earlier waits for it, until the deadline. A question nobody asked then raises
    ChannelUnavailableError. Only the market list is made up from the recorded topics where it is missing, because
    everything needs it.

    Where the answers are is found out on a thread of its own, from the first question on, so that in a recording of
    any size a question ends by its deadline (RequestTimeoutError). Of what was answered before `since` only the last
    answer to each question counts, and nothing from `until` on.
    """

    def __init__(self, recording: Recording, *, since: datetime | None = None, until: datetime | None = None) -> None:
        self._recording = recording
        self._since = since
        self._until = until
        self._stop = Flag()
        self._lock = threading.Lock()  # guards everything below, but for what is one read or one write
        self._moved = EventCount()
        self._places: dict[str, list[Place]] = {}
        self._symbols: set[str] = set()
        self._indexer: threading.Thread | None = None
        self._is_indexed = False
        self._is_past_start = since is None  # whether no earlier answer can be replaced by a later one any more
        self._given: Counter[str] = Counter()
        self._is_playing = False
        self._reached = Place(0, 0, -1)
        self._awaited: list[Place] = []

    def get(self, call: RestCall, deadline: Deadline, departure: Departure | None = None) -> RestResponse:
        place = self._place(call, deadline)
        if departure is not None:
            departure.sent()
        if place is None:
            body = made_up_markets(sorted(self._symbols))
            return RestResponse(200, {}, body, 0.0, len(body))
        self._wait_for(place, call, deadline)
        record = self._recording.at(place)
        status, body = int((record.details or {}).get("status", 200)), record.blobs[0]
        return RestResponse(status, {}, body, 0.0, len(body), record.wall)

    def _place(self, call: RestCall, deadline: Deadline) -> Place | None:
        """Where the next answer to this question is; None for a market list that was not recorded."""
        while True:
            number = self._given[call.target] + 1
            self._find(call, number, deadline)
            with self._lock:
                if self._given[call.target] + 1 != number:
                    continue  # meanwhile somebody else was given that one
                places = self._places.get(call.target)
                if places is None and call.path == MARKETS.path:
                    return None
                if places is None:
                    raise ChannelUnavailableError(
                        f"{one_line(call)}: the recording {one_line(self._recording.path)} has no answer to this"
                    )
                self._given[call.target] = number
                return places[min(number, len(places)) - 1]

    def _find(self, call: RestCall, number: int, deadline: Deadline) -> None:
        """Wait until so many answers to this question are found, or the whole recording was looked through."""
        with self._lock:
            if self._indexer is None and not self._stop.is_set():
                self._indexer = spawn(self._index, "upbit-replay-index")

        def is_found() -> bool:
            return self._is_indexed or (self._is_past_start and len(self._places.get(call.target, ())) >= number)

        if not self._moved.wait_for(is_found, deadline):
            raise RequestTimeoutError(f"{one_line(call)}: the recording was not looked through by the deadline")

    def _index(self) -> None:
        try:
            for place, record in self._recording.located(None, self._until, RecordKind.REST, RecordKind.SUBSCRIBED):
                if self._stop.is_set():
                    return
                with self._lock:
                    self._learn(place, record)
                self._moved.notify_all()
        except BaseException as error:  # noqa: BLE001
            # Whatever it is: one pass, so what was found until then can be answered with, the rest cannot.
            log.warning("the recording cannot be looked through to its end: %s", one_line(error))
        finally:
            self._is_indexed = True
            self._moved.notify_all()

    def _learn(self, place: Place, record: Record) -> None:
        details = record.details or {}
        is_early = self._since is not None and record.wall < self._since
        self._is_past_start = self._is_past_start or not is_early
        if record.kind is RecordKind.SUBSCRIBED:
            self._symbols.update(str(topic[1]) for topic in details.get("topics", ()))
            return
        places = self._places.setdefault(str(details.get("path")), [])
        if is_early:
            places.clear()
        places.append(place)

    def _wait_for(self, place: Place, call: RestCall, deadline: Deadline) -> None:
        try:
            self._awaited.append(place)
            is_there = self._moved.wait_for(lambda: not self._is_playing or self._reached >= place, deadline)
        finally:
            with contextlib.suppress(ValueError):  # interrupted before it was entered
                self._awaited.remove(place)
        if not is_there:
            raise RequestTimeoutError(
                f"{one_line(call)}: the replay did not come to the recorded answer by the deadline"
            )

    # What the replay tells

    def begin(self) -> None:
        self._is_playing = True

    def reached(self, place: Place) -> None:
        """Everything up to `place` was played."""
        self._reached = place
        if self._awaited:
            self._moved.notify_all()

    def end(self) -> None:
        """Nothing more is played: every answer is there."""
        self._is_playing = False
        self._moved.notify_all()

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for an answer that is still to come."""
        return any(place > self._reached for place in list(self._awaited))

    def close(self) -> None:
        """Whoever waits for an answer gets it. Idempotent."""
        self._stop.set()
        self.end()
        with self._lock:
            indexer = self._indexer
        join_all([indexer] if indexer else [], Deadline.after(CLOSE_SECONDS))

    def __repr__(self) -> str:
        return f"<ReplayTransport {one_line(self._recording.path)}>"


def made_up_markets(symbols: Iterable[str]) -> bytes:
    rows = [{"market": symbol, "korean_name": symbol, "english_name": symbol} for symbol in symbols]
    return json.dumps(rows).encode()


# The recorded sessions as they are while a recording is played: healths, topics and figures.


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
