"""Intake, the one door for data: bytes off a socket become models, are kept, and are published.

frames ─▶ decode ─▶ is it wanted here? ─▶ is it plausible? ─▶ keep (older never overwrites newer)
       ─▶ trades and candles: continuity (once each, gaps repaired) ─▶ publish, one entry per mailbox and read

Order books of the usual shape are not decoded on arrival; `LazyBook` does it for the first who reads one. So a broken
book whose two ends look right is counted and reported when somebody first reads it (readers then skip it), and one
that is overtaken unread is never counted: nobody could have been harmed by it. Every other broken payload is counted
and, sampled, reported at once; the next message is always delivered. Tickers are proven sound on arrival, and made
when somebody looks at one; trades, too, and of these is made at once what nearly everybody looks at.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from ._concurrency import SYSTEM_CLOCK, Clock, get_logger, raise_if_users
from ._lazy import loading
from ._log import LogThrottle
from .backfill.gap_repair import Early, GapRepair
from .backfill.sequence import ConnectionId
from .delivery.hub import Hub
from .errors import MalformedDataError, NoTradesYetError, one_line
from .exchange.endpoints import RestCall
from .exchange.timeframes import timeframe_of
from .models.enums import Audience, DataSource, DataType
from .models.events import Event, MalformedEvent, UnreadFieldEvent
from .models.half_made import Habit
from .models.lazy_book import Envelope, LazyBook, StoredItem
from .models.market import CandleData, OrderbookData, TickerData, TradeData, keep_frame
from .models.request import Topic
from .models.session import FirstFrame, Notice, RefusedFrames, SessionHealth, UnknownMessage
from .store.exchange_clock import ExchangeClock
from .store.live_store import STATE_TYPES, LiveStore
from .unify.halves import HalfTickers, HalfTrades
from .unify.reader import Tell, Unread, UnreadField, tell_nobody
from .unify.rest import Rows, decode_answer
from .unify.stream import BOOK_HEADS, HALF_HEADS, HEAD_BYTES, StreamDecoder, StreamItem, book_header, type_and_code

if TYPE_CHECKING:
    from .models.report import RefusalStats
    from .wire.rest_transport import RestResponse


class Tap(Protocol):
    """Where a recorder is attached. Called by whoever receives, on its own thread, with the very times it gives the
    data. Never blocks or raises."""

    # Raw, before anything is decoded: a replay has to meet the poison as well. With the receiver's times, because times
    # of the tap's own would give a replay other ages than the original had.
    def frames(
        self, session: str, epoch: int, frames: Sequence[bytes], monotonic: float, received_at: datetime
    ) -> None: ...

    def subscribed(self, session: str, epoch: int, topics: frozenset[Topic]) -> None: ...

    def interrupted(self, session: str, epoch: int, topics: frozenset[Topic], reason: str) -> None: ...

    def rest(self, path: str, status: int, body: bytes, received_at: datetime) -> None:
        """An answer to GET `path` (with its query) in whatever status."""


# Whether an exchange time can be believed. Pure.

# A stamp so far ahead of all others and of our clock is garbage; believed, it would make all that follows "older".
IMPLAUSIBLY_AHEAD = timedelta(days=1)
# But so many in a row are right, and our own clock is wrong.
CONVINCING_OUTLIERS = 20


class TimestampGuard:
    """The latest exchange time one session may reasonably show. Touched by its thread only.

    Our own clock may be wrong by any amount, so the first stamp is believed as it is.
    """

    __slots__ = ("_allowed", "_newest", "_outliers", "wall")

    def __init__(self) -> None:
        self.wall: datetime | None = None  # what our clock shows
        self._allowed = datetime.min.replace(tzinfo=UTC)  # up to here nothing need be looked at
        self._newest: datetime | None = None  # what was last convincing, and later
        self._outliers = 0

    def allows(self, stamp: datetime) -> bool:
        """Whether to believe `stamp`; to be asked once for each message, in order."""
        newest = self._newest
        if newest is None or stamp > newest:
            if stamp > self._allowed:
                if newest is not None and self._is_outlier(stamp, newest):
                    self._outliers += 1
                    if self._outliers < CONVINCING_OUTLIERS:
                        return False
                # Worked out once a day: the newest stamp only rises, so that what was allowed by it stays so.
                self._allowed = stamp + IMPLAUSIBLY_AHEAD
            self._newest = stamp
        if self._outliers:
            self._outliers = 0
        return True

    def _is_outlier(self, stamp: datetime, newest: datetime) -> bool:
        reference = newest if self.wall is None else max(newest, self.wall)
        return stamp > reference + IMPLAUSIBLY_AHEAD


# What the intake keeps in mind about a session between two reads, and about one read while it goes through.

# Where a decoded item belongs, read off the item itself: its type, symbol and what else tells topics apart.
Place = tuple[object, ...]


class SessionExpectation:
    """What is expected on one session. Touched by that session's thread only."""

    def __init__(self) -> None:
        self.epoch = -1  # of the connection whose frames are taken; none are while it is -1
        self.topics: frozenset[Topic] = frozenset()
        self.awaited: dict[Topic, float] = {}  # whose first frame has not come yet; since when (monotonic)
        self.dropped: frozenset[Topic] = frozenset()  # that this connection has streamed before, and then not
        self.by_place: dict[Place, Topic] = {}
        self.unwanted = 0  # items of no topic expected
        self.outdated = 0  # items older than what was known
        self.timestamp_guard = TimestampGuard()
        self.refusals: dict[Topic | None, Refusal] = {}  # of a topic; under None of everything that came
        self.has_accepted = False  # anything readable from this connection
        # When subscriptions were sent (monotonic): the latest one that may have been answered, and those after it.
        self.asked: deque[float] = deque([-inf])
        self.timed_at = float("-inf")  # when its lag behind the exchange was last taken
        # Added to the time of receipt: what is stamped before that comes too late. None: nobody can say.
        self.late_shift: timedelta | None = None
        self.late_shift_at = float("-inf")
        # By the first bytes of a frame: who reads such by half, and the habit of those who get what is in them.
        self.halves: dict[bytes, tuple[HalfTickers | HalfTrades, Habit]] = {}
        self.connection = ConnectionId("", -1)  # the present one

    def expect(self, epoch: int, topics: frozenset[Topic], now: float) -> None:
        """From now on the connection `epoch` streams exactly `topics`; the new ones begin with a first frame."""
        if epoch != self.epoch:
            self.refusals = {}
            self.has_accepted = False
        known = self.topics if epoch == self.epoch else frozenset()
        awaited = self.awaited if epoch == self.epoch else {}
        self.awaited = {topic: awaited.get(topic, now) for topic in topics if topic in awaited or topic not in known}
        self.dropped = self.dropped | (known - topics) if epoch == self.epoch else frozenset()
        if epoch == self.epoch:
            self.asked.append(now)
        else:
            self.asked = deque([now])
        self.epoch = epoch
        self.topics = topics
        self.by_place = {_place_of(topic): topic for topic in topics}
        self.refusals = {topic: each for topic, each in self.refusals.items() if topic is None or topic in topics}

    def answered(self, unanswered_since: float) -> float:
        """When the latest subscription was sent whose answer may be coming in, if nothing sent since then is answered.

        Frames do not say which one they are of, and on a slow line those of an earlier one come long after the next
        has been sent.
        """
        asked = self.asked
        while len(asked) > 1 and asked[1] < unanswered_since:
            asked.popleft()
        return asked[0]

    def fall_silent(self) -> None:
        """The line was lost: nothing is expected until the next `expect`."""
        self.awaited = {}
        self.by_place = {}
        self.refusals = {}
        self.epoch = -1

    def accepted(self, topic: Topic) -> None:
        """Something of `topic` could be read."""
        self.has_accepted = True
        self.refusals.pop(None, None)
        self.refusals.pop(topic, None)

    def refused(self, topic: Topic | None, reason: str, monotonic: float) -> None:
        """Something could not be read, of `topic` if that could be told."""
        for key in (None,) if topic is None else (None, topic):
            known = self.refusals.get(key)
            since, count = (monotonic, 0) if known is None else (known.since, known.count)
            self.refusals[key] = Refusal(since, count + 1, reason)

    def topic_named(self, kind: str | None, symbol: str | None) -> Topic | None:
        """The topic that a refused frame claims to be of, where only one can be meant."""
        named = [topic for topic in self.topics if topic.data_type.value == kind and topic.symbol == symbol]
        return named[0] if len(named) == 1 else None


@dataclass(frozen=True, slots=True)
class Refusal:
    """What came since the last that could be read, and could not: since when (monotonic), how many, why the last."""

    since: float
    count: int
    reason: str


class ReadBatch(Struct, eq=False):
    """One read off a socket on its way through."""

    line: SessionExpectation
    health: SessionHealth
    epoch: int
    monotonic: float
    received_at: datetime
    subscribed_at: float  # of no later subscription are its frames
    late_before: datetime | None  # what is stamped before came too late
    asked_at: float | None = None  # when the first frame in it was asked for
    notices: list[Notice] = []
    arrived: list[Envelope] = []
    unread: list[Unread] = []  # fields and elements of a list, while the others of their frame were taken


def _place_of(topic: Topic) -> Place:
    if topic.data_type is DataType.TICKER:
        return TickerData, topic.symbol
    if topic.data_type is DataType.TRADE:
        return TradeData, topic.symbol
    if topic.data_type is DataType.ORDERBOOK:
        return OrderbookData, topic.symbol, topic.level
    return CandleData, topic.symbol, timeframe_of(topic.data_type.value).word


log = get_logger("upbit_backbone.intake")

REFUSALS_IN_A_ROW = 2  # one alone may be an accident, unless nothing readable ever came

# Trades carry their frames if they begin with this, in the format that relays write, and are at most so long: twice as
# long as Upbit's.
TRADE_HEAD = b'{"ty":"trade",'
MOST_KEPT_BYTES = 1024

RELAY = DataSource.RELAY  # looked up once: a member of an enumeration costs as much as a call

# How often a session's lag behind the exchange is taken.
TIMED_EVERY_SECONDS = 0.1


def _keep_frame(item: StreamItem, raw: bytes) -> None:
    """The trade carries the frame that it was read from, if that is fit for others."""
    # What is longer than any trade of Upbit's, or holds bytes that nobody has looked at, is not for others.
    is_fit = raw.startswith(TRADE_HEAD) and len(raw) <= MOST_KEPT_BYTES and raw.isascii()
    if is_fit and type(item) is TradeData:
        keep_frame(item, raw)


class Intake:
    """Implements the sessions' `FrameSink`, and takes REST answers by `answer`.

    Called on sessions' threads, each session by its own thread only; never blocks, never raises.
    """

    def __init__(
        self,
        store: LiveStore,
        hub: Hub,
        *,
        repair: GapRepair | None = None,
        emit: Callable[[Event], None] = lambda event: None,
        clock: Clock = SYSTEM_CLOCK,
        exchange_clock: ExchangeClock | None = None,
        unread: UnreadLog | None = None,
        on_symbols: Callable[[Iterable[str]], object] = lambda symbols: None,
    ) -> None:
        self._on_symbols = on_symbols
        self._exchange_clock = exchange_clock  # learns from every session; without one nothing is called late
        self._store = store
        self._hub = hub
        self._repair = repair
        self._emit = emit
        self._clock = clock
        self._decoder = StreamDecoder()
        self._decode: Callable[..., list[StreamItem]] = self._decoder.decode
        self._half_readers: dict[bytes, HalfTickers | HalfTrades] = {}  # by the first bytes of a frame
        self._keeps_frames = False
        self._relayed: StreamDecoder | None = None  # of frames that came through a relay
        self._lines: dict[str, SessionExpectation] = {}
        self._past = Counter[str]()  # counts of sessions that are gone
        self._opening = threading.Lock()  # guards the decoding of lazy books, so that each is decoded once, and:
        self._unread = unread or UnreadLog(emit, clock, lambda name: None)
        self._counting = threading.Lock()  # guards _past and what the lines know of refusals
        self.tap: Tap | None = None  # a recorder, while there is one

    # What sessions call

    def frames(self, health: SessionHealth, epoch: int, frames: Sequence[bytes], monotonic: float) -> Sequence[Notice]:
        """Take one read's frames in wire order; notices are for the session."""
        # One time for the whole read: the tap is shown the very times that the items carry, or a replay would not
        # repeat them.
        received_at = self._clock.wall()
        if self.tap is not None:
            self.tap.frames(health.session, epoch, frames, monotonic, received_at)
        line = self._lines.get(health.session) or self._line(health.session)
        # Before the first frame is judged, so that after a long silence new stamps are not taken for stamps of the
        # future.
        line.timestamp_guard.wall = received_at
        if (exchange_clock := self._exchange_clock) is not None and (
            monotonic - line.late_shift_at >= TIMED_EVERY_SECONDS
        ):
            self._time(line, health, monotonic, received_at, exchange_clock)
        late_before = None if line.late_shift is None else received_at + line.late_shift
        subscribed_at = line.asked[0] if len(line.asked) == 1 else line.answered(health.unanswered_since)
        read = ReadBatch(line, health, epoch, monotonic, received_at, subscribed_at, late_before)
        refused = 0
        for raw in frames:
            try:
                for item in self._decoded(raw, read):
                    self._take(item, read)
            except NoTradesYetError as error:
                self._untraded(error, read)
            except Exception as error:  # noqa: BLE001 - a poison message affects only itself, whatever it breaks
                refused += 1
                self._poisoned(health.session, health, raw, error, monotonic)
            # Per frame: told at the end only, it would take back what a later frame of the same read has made current.
            if read.unread:
                self._tell_unread(read)
        if refused:
            read.notices.append(RefusedFrames(refused))
        if read.arrived:
            self._hub.publish_all(read.arrived)
            # After publishing: nobody's data waits for our bookkeeping.
            is_due = monotonic - line.timed_at >= TIMED_EVERY_SECONDS or health.is_late or read.asked_at is not None
            if is_due and exchange_clock is not None:
                self._take_lag(read, exchange_clock)
        if self._repair is not None:
            self._repair.work_if_needed()  # only now, so that nothing of this read can come after what is repaired
        return read.notices

    def subscribed(self, health: SessionHealth, epoch: int, topics: frozenset[Topic]) -> None:
        """The session streams exactly `topics` from now on; what it streamed besides is not live any more."""
        if self.tap is not None:
            self.tap.subscribed(health.session, epoch, topics)
        line = self._line(health.session)
        # No stream keeps these up any more, so they must not be found current from now on.
        for topic in line.topics - topics:
            self._store.forget(topic, health)
            # A topic may have moved to another session, where its gap is still to be filled.
            if self._repair is not None and not self._hub.is_wanted(topic):
                self._repair.forget(topic)
        line.expect(epoch, topics, self._clock.monotonic())
        line.connection = ConnectionId(health.session, epoch)
        if self._repair is not None:
            self._repair.subscribed(line.connection, topics)

    def interrupted(self, health: SessionHealth, epoch: int, topics: frozenset[Topic], reason: str) -> None:
        """The line was lost: what still arrives from it is not taken."""
        if self.tap is not None:
            self.tap.interrupted(health.session, epoch, topics, reason)
        self._line(health.session).fall_silent()
        if self._repair is not None:
            self._repair.interrupted(ConnectionId(health.session, epoch), topics)

    # What others call

    def attach(self, tap: Tap) -> None:
        """Show everything from now on to `tap`, beginning with what streams already; `self.tap = None` ends it."""
        self.tap = tap
        for session, line in list(self._lines.items()):
            if line.epoch >= 0 and line.topics:
                tap.subscribed(session, line.epoch, line.topics)

    def keep_frames(self) -> None:
        """Trades carry the frame that they are read from, from now on: a relay hands it on as it is."""
        self._decode = self._decode_and_keep
        self._keeps_frames = True

    def heard(self, call: RestCall, response: RestResponse, received_at: datetime) -> None:
        """REST said something, in whatever status: a recorder is shown it, with the time that the answer will carry."""
        if (tap := self.tap) is not None:
            tap.rest(call.target, response.status, response.body, received_at)

    def answer(self, call: RestCall, body: bytes, received_at: datetime) -> Rows[Any]:
        """Take a good answer of REST's: decoded, kept as last known values, which are never live, and its markets
        known from now on. What cannot be read of it is told, as of frames. On the thread that fetched it;
        MalformedDataError where it makes no sense at all."""
        rows = decode_answer(call, body, received_at)
        if rows.unread or rows.unread_fields:
            self._unread.rows(call.group.value, rows)
        # As last known and never as live: however young, it says nothing about the stream.
        self._store.remember(rows)
        self._on_symbols(item.symbol for item in rows)
        return rows

    def current(self, topic: Topic) -> Envelope | None:
        """The live value for somebody who has just subscribed; None where there is none, or trades are being filled."""
        # A new subscriber who got the newest trade now would get the older ones after it.
        if self._repair is not None and self._repair.is_repairing(topic):
            return None
        now = self._clock.monotonic()
        stored = self._store.current_stored(topic, now)
        return None if stored is None else (topic, stored, now)

    def malformed(self, session: str | None = None) -> int:
        """Broken payloads so far, of one session or of all."""
        return self._unread.count(session)

    def refusals(self) -> list[RefusalStats]:
        """What comes and cannot be read: topics, and sessions of which nothing can."""
        with loading():
            from .models.report import RefusalStats  # loaded with the first report

        now = self._clock.monotonic()
        with self._counting:
            found = self._refused()
        return [
            RefusalStats(
                session=name,
                topic=None if topic is None else str(topic),
                seconds=max(0.0, now - each.since),
                count=each.count,
                reason=each.reason,
            )
            for name, line, refusals in found
            for topic, each in refusals.items()
            if each.count >= REFUSALS_IN_A_ROW or not line.has_accepted
        ]

    def counts(self) -> dict[str, int]:
        """Messages not delivered, by reason."""
        with self._counting:
            lines = list(self._lines.values())
            unwanted = self._past["unwanted"] + sum(line.unwanted for line in lines)
            outdated = self._past["outdated"] + sum(line.outdated for line in lines)
        return {
            "malformed": self.malformed(),
            "unwanted": unwanted,
            "outdated": outdated,
            **({} if self._repair is None else self._repair.counts()),
        }

    # Within

    def _line(self, session: str) -> SessionExpectation:
        line = self._lines.get(session)
        if line is None:
            self._forget_idle()
            line = self._lines[session] = SessionExpectation()
        return line

    def _refused(self) -> list[tuple[str, SessionExpectation, dict[Topic | None, Refusal]]]:
        return [(name, line, dict(line.refusals)) for name, line in self._lines.items() if line.refusals]

    def _forget_idle(self) -> None:
        """A session that nobody wanted anything of is not heard of again: new requests make a new one."""
        with self._counting:
            for name, line in self._idle():
                del self._lines[name]
                self._past.update(unwanted=line.unwanted, outdated=line.outdated)

    def _idle(self) -> list[tuple[str, SessionExpectation]]:
        return [(name, line) for name, line in self._lines.items() if not line.topics and line.epoch >= 0]

    def _decoded(self, raw: bytes, read: ReadBatch) -> Sequence[Any]:
        if read.health.source is RELAY:
            if self._relayed is None:
                self._relayed = StreamDecoder(DataSource.RELAY)
            relayed = self._relayed.decode(raw, read.received_at, read.unread.append)
            if self._keeps_frames:
                for item in relayed:
                    _keep_frame(item, raw)
            return relayed
        head, line = raw[:HEAD_BYTES], read.line
        if (known := line.halves.get(head)) is None and head in HALF_HEADS:
            known = line.halves[head] = self._half_reader(head), Habit()
        if known is not None:
            halves, habit = known
            if habit.is_half_enough() and (half := halves.read(raw, read.received_at, habit)) is not None:
                if self._keeps_frames:
                    _keep_frame(half, raw)
                return (half,)
        elif head in BOOK_HEADS:
            seen = book_header(raw)
            # While books are refused each is decoded at once: what nobody reads could be called neither good nor bad.
            if seen is not None and not line.refusals:
                symbol, timestamp, level = seen
                session = read.health.session
                return (LazyBook(raw, symbol, level, timestamp, read.received_at, session, self._open_book),)
        return self._decode(raw, read.received_at, read.unread.append)

    def _half_reader(self, head: bytes) -> HalfTickers | HalfTrades:
        if (halves := self._half_readers.get(head)) is None:
            halves = self._half_readers[head] = self._decoder.halves(head)
        return halves

    def _decode_and_keep(self, raw: bytes, received_at: datetime, tell: Tell = tell_nobody) -> list[StreamItem]:
        items = self._decoder.decode(raw, received_at, tell)
        for item in items:
            _keep_frame(item, raw)
        return items

    def _take(self, item: Any, read: ReadBatch) -> None:
        line = read.line
        kind = type(item)
        if kind is TickerData or kind is TradeData:
            topic = line.by_place.get((kind, item.symbol))
        elif kind is LazyBook or kind is OrderbookData:
            topic = line.by_place.get((OrderbookData, item.symbol, item.level))
        elif kind is CandleData:
            topic = line.by_place.get((kind, item.symbol, item.timeframe))
        else:
            # Of a stream that comes under a new name nothing is ever taken. Once something was, what comes beside it is
            # merely new.
            if kind is UnknownMessage and not line.has_accepted and line.topics and line.epoch == read.epoch:
                with self._counting:
                    line.refused(None, f"its type {item.type!r} is not known", read.monotonic)
            read.notices.append(item)
            return
        # The epoch is compared for each item: a line that was lost may still have frames on their way through.
        if topic is None or line.epoch != read.epoch:
            line.unwanted += 1
            return
        if not line.timestamp_guard.allows(item.timestamp):
            # As poison rather than as an old item: believed once, this stamp would make all that follows "older".
            raise MalformedDataError(f"timestamp {item.timestamp.isoformat()} lies in the future", field="timestamp")
        is_foreign, asked_at = False, read.subscribed_at  # of an earlier subscription: then it shows what was
        if line.awaited and topic in line.awaited:
            is_unclear = topic in line.dropped  # else it answers the first subscription that named it, and none before
            is_foreign = is_unclear and line.awaited[topic] > read.subscribed_at and topic.data_type in STATE_TYPES
            if not is_foreign:
                awaited = line.awaited.pop(topic)
                read.asked_at = asked_at = min(awaited, asked_at) if is_unclear else awaited
                read.notices.append(FirstFrame(topic))
        # Looked at without the lock, which a healthy stream never takes.
        if line.refusals:
            with self._counting:
                line.accepted(topic)
        elif not line.has_accepted:
            line.has_accepted = True
        self._keep(topic, item, read, asked_at, is_foreign)

    def _keep(self, topic: Topic, item: StoredItem, read: ReadBatch, asked_at: float, is_foreign: bool) -> None:
        is_state = topic.data_type in STATE_TYPES
        late_before = read.late_before if is_state else None  # a candle's stamp is its start, and trades are no state
        # Kept before it is published: who is woken by it and asks at once must find it.
        is_newest = self._store.put(
            topic, item, read.health, read.epoch, read.monotonic, late_before, asked_at, is_foreign
        )
        if self._repair is not None and not is_state:
            # Of the line's present connection it is: `_take` has compared the epochs.
            due = self._repair.arrived(topic, item, read.line.connection, read.monotonic)
            if type(due) is Early:
                self._publish_early(topic, due, read)
            else:
                for each in due:
                    read.arrived.append((topic, each, read.monotonic))
        # A state that is older than what is known is news to nobody; a trade or candle always is.
        elif is_newest or not is_state:
            read.arrived.append((topic, item, read.monotonic))
        else:
            read.line.outdated += 1

    def _publish_early(self, topic: Topic, items: Early, read: ReadBatch) -> None:
        """While strict subscribers wait for a repair, live data is for the others; after what came before it."""
        self._hub.publish_all(read.arrived)
        read.arrived = []
        self._hub.publish(topic, items, to=Audience.OTHERS)

    def _open_book(self, lazy: LazyBook) -> None:
        with self._opening:
            if lazy.is_read:
                return
            try:
                if (half := self._decoder.half_book(lazy.raw, lazy.received_at)) is not None:
                    lazy.settle(half)
                    return
                (book,) = self._decode(lazy.raw, lazy.received_at)
                if type(book) is not OrderbookData:
                    raise MalformedDataError(f"an order book was announced, but {type(book).__name__} came")
                lazy.settle(book)
                return
            except Exception as caught:  # noqa: BLE001 - a poison message affects only itself, whatever it breaks
                # On the thread of whoever reads: an alarm of his that goes off meanwhile is no poison, and the book
                # stays as it was.
                raise_if_users(caught)
                error = caught
                raw = lazy.raw
                # Settled as unreadable, so that each further reader does not decode and report it again.
                lazy.settle(None)
        # After the lock: reporting emits an event.
        self._poisoned(lazy.session, None, raw, error, self._clock.monotonic())

    def _time(
        self,
        line: SessionExpectation,
        health: SessionHealth,
        monotonic: float,
        received_at: datetime,
        exchange_clock: ExchangeClock,
    ) -> None:
        """What is stamped before when comes too late. Looked up now and then: an addition is all a read can afford."""
        now = exchange_clock.latest_time(monotonic)
        line.late_shift = None if now is None else now - received_at - timedelta(seconds=health.max_lag)
        line.late_shift_at = monotonic

    def _take_lag(self, read: ReadBatch, exchange_clock: ExchangeClock) -> None:
        """How late this read is: by its newest datum, if that is news. A first frame may be as old as its quiet market
        likes; then its subscription tells, unless better was known: a market without a snapshot begins any time."""
        health, now = read.health, read.monotonic
        topic, item, _ = read.arrived[-1]
        lag = None if topic.data_type.is_candle else exchange_clock.seconds_since(item.timestamp, now)
        if read.asked_at is not None:
            if lag is not None and lag < now - read.asked_at:
                health.news_came(lag, now)
            else:
                _answer_came(read, read.asked_at)
            return
        entry = self._store.entry(topic)
        is_news = entry is not None and entry.news_at == now and entry.follows
        if not is_news or topic.data_type.is_candle:
            if entry is not None and not entry.follows:
                _answer_came(read, read.subscribed_at)  # Upbit repeats every topic after each subscription
            return
        read.line.timed_at = now
        exchange_clock.learn_stamp(health.session, item.timestamp, now, health.longest_way(now))
        lag = exchange_clock.seconds_since(item.timestamp, now)
        if lag is not None:
            health.news_came(lag, now)

    def _untraded(self, error: NoTradesYetError, read: ReadBatch) -> None:
        """A ticker of a market without a price: its topic has spoken, though there is nothing to keep."""
        topic = read.line.by_place.get((TickerData, error.symbol))
        if topic is not None and topic in read.line.awaited:
            del read.line.awaited[topic]
            read.notices.append(FirstFrame(topic))

    def _tell_unread(self, read: ReadBatch) -> None:
        for unread in read.unread:
            if isinstance(unread, UnreadField):
                self._unread.field(read.health.session, unread)
            elif isinstance(unread.error, NoTradesYetError):
                self._untraded(unread.error, read)
            else:
                topic = read.line.topic_named(unread.kind, unread.symbol)
                self._refuse(read.line, read.health, topic, unread.error, read.monotonic)
                self._unread.refused(read.health.session, one_line(unread.error), unread.error)
        read.unread.clear()

    def _poisoned(
        self, session: str, health: SessionHealth | None, raw: bytes, error: Exception, monotonic: float
    ) -> None:
        """A frame, or (on whatever thread first read it, without a health) a book, turned out to be broken."""
        line = self._lines.get(session)
        if line is not None:
            self._refuse(line, health, line.topic_named(*type_and_code(raw)), error, monotonic)
        self._unread.refused(session, raw, error)

    def _refuse(
        self,
        line: SessionExpectation,
        health: SessionHealth | None,
        topic: Topic | None,
        error: Exception,
        monotonic: float,
    ) -> None:
        """Something newer than the live value of `topic` came and cannot be read: that value is current no more."""
        with self._counting:
            line.refused(topic, one_line(error), monotonic)
        if topic is not None and health is not None:
            self._store.forget(topic, health)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {word}" for word, count in self.counts().items())
        return f"<Intake {len(self._lines)} sessions: {counts}>"


def _answer_came(read: ReadBatch, asked_at: float) -> None:
    """What was asked for at `asked_at` comes in, and what is new meanwhile waits behind it: nothing is proven since."""
    health, now = read.health, read.monotonic
    if health.proven_at is None:
        health.answered(now - asked_at, now, asked_at)
        return
    unproven = now - max(asked_at, health.proven_at)
    if health.proven_at < asked_at or unproven > health.lag:
        health.answered(unproven, now, asked_at)


# What could not be read: counted by name, and told in events, samples of many alike.

SAMPLE_BYTES = 200


class UnreadLog:
    """Thread-safe; never raises. `where` is the session's name, or `REST` and the kind of the question."""

    def __init__(self, emit: Callable[[Event], None], clock: Clock, count: Callable[[str], None]) -> None:
        self._emit = emit
        self._clock = clock
        self._count = count  # into the performance report
        self._lock = threading.Lock()  # guards the three below
        self._refused = Counter[str]()
        self._fields = Counter[str]()
        self._samplers: dict[str, LogThrottle] = {}

    def refused(self, where: str, raw: bytes | str, error: Exception) -> None:
        """A whole payload, or a row of one, did not say what, when or how much."""
        count = self._due(self._refused, where, where)
        if count is None:
            return
        reason = one_line(error if isinstance(error, MalformedDataError) else f"{type(error).__name__}: {error}")
        text = raw if isinstance(raw, str) else raw[:SAMPLE_BYTES].decode("utf-8", "replace")
        self._emit(
            MalformedEvent(at=self._clock.wall(), session=where, reason=reason, sample=one_line(text), count=count)
        )

    def field(self, where: str, unread: UnreadField) -> None:
        """A message was taken without one of its fields."""
        name = f"{unread.kind}.{unread.name}"
        self._count(f"unread.{name}")
        count = self._due(self._fields, name, f"field {name}")
        if count is not None:
            at = self._clock.wall()
            self._emit(
                UnreadFieldEvent(at=at, source=where, field=name, key=unread.key, reason=unread.reason, count=count)
            )

    def rows(self, kind: str, rows: Rows[Any]) -> None:
        """What a REST answer held of it. A market that nobody has traded yet is nothing to complain of."""
        where = f"REST {kind}"
        for row in rows.unread:
            if not isinstance(row.error, NoTradesYetError):
                self.refused(where, _shown(row.row), row.error)
        for unread in rows.unread_fields:
            self.field(where, unread)

    def count(self, where: str | None = None) -> int:
        """Refused payloads so far, from one place or from all."""
        with self._lock:
            return self._refused.total() if where is None else self._refused[where]

    def fields(self) -> dict[str, int]:
        """How often each field could not be read."""
        with self._lock:
            return dict(self._fields)

    def _due(self, counts: Counter[str], name: str, sampler: str) -> int | None:
        """Count one more; the total where it is worth an event."""
        with self._lock:
            counts[name] += 1
            is_due = self._samplers.setdefault(sampler, LogThrottle()).is_due(counts[name], self._clock.monotonic())
            return counts[name] if is_due else None

    def __repr__(self) -> str:
        return f"<UnreadLog {self.count()} refused, {len(self.fields())} fields>"


def _shown(row: object) -> str:
    try:
        return repr(row)[:SAMPLE_BYTES]
    except (ValueError, RecursionError):  # an integer of too many digits, or nested too deep
        return f"a {type(row).__name__}"
