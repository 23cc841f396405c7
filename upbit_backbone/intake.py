"""The one door for data: bytes off a socket become models, are kept, and are published.

frames ─▶ decode ─▶ is it wanted here? ─▶ is it plausible? ─▶ keep (older never overwrites newer)
       ─▶ trades and candles: continuity (once each, holes repaired) ─▶ publish, one entry per mailbox and read

Order books of the usual shape are not decoded on arrival; `LazyBook` does it for the first who reads one. So a broken
book whose two ends look right is counted and reported when somebody first reads it (readers then skip it), and one
that is overtaken unread is never counted: nobody could have been harmed by it. Every other broken payload is counted
and, sampled, reported at once; the next message is always delivered.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Protocol

from ._concurrency import SYSTEM_CLOCK, Clock
from .delivery.hub import Hub
from .delivery.sampling import Sampler
from .errors import MalformedDataError, one_line
from .models.events import Event, MalformedEvent
from .models.lazy_book import Datum, Delivery, LazyBook, Parcel
from .models.market import CandleData, MarketInfo, OrderbookData, TickerData, TradeData
from .models.notice import FirstFrame, Notice
from .models.pulse import Pulse
from .models.topic import Topic
from .reading import Expectation, Read
from .sessions.continuity import Line
from .sessions.gap_repair import GapRepair
from .store.live_store import STATE_TYPES, LiveStore
from .unify.glance import glance_at_book
from .unify.stream import StreamDecoder

log = logging.getLogger("upbit_backbone.intake")

BOOK_HEADS = (b'{"ty":"orderbook"', b'{"type":"orderbook"')
SAMPLE_BYTES = 200

# How often a session's lag behind the exchange is taken.
TIMED_EVERY_SECONDS = 0.1

# (session, exchange time, received at, monotonic) of a datum that was news when it came
OnLive = Callable[[str, datetime, datetime, float], object]


class Tap(Protocol):
    """A recorder's view of what comes in."""

    def frames(
        self, session: str, epoch: int, frames: Sequence[bytes], monotonic: float, received_at: datetime
    ) -> None: ...

    def subscribed(self, session: str, epoch: int, topics: frozenset[Topic]) -> None: ...

    def interrupted(self, session: str, epoch: int, topics: frozenset[Topic], reason: str) -> None: ...


class Intake:
    """Implements the sessions' `FrameSink`, and takes REST answers by `remember`.

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
        on_live: OnLive | None = None,
    ) -> None:
        self._on_live = on_live
        self._store = store
        self._hub = hub
        self._repair = repair
        self._emit = emit
        self._clock = clock
        self._decoder = StreamDecoder()
        self._decode = self._decoder.decode
        self._lines: dict[str, Expectation] = {}
        self._past = Counter[str]()  # counts of sessions that are gone
        self._opening = threading.Lock()  # guards the decoding of lazy books, so that each is decoded once
        self._counting = threading.Lock()  # guards _malformed, _samplers and _past
        self._malformed: dict[str, int] = {}
        self._samplers: dict[str, Sampler] = {}
        self.tap: Tap | None = None  # a recorder, while there is one

    # What sessions call

    def frames(self, pulse: Pulse, epoch: int, frames: Sequence[bytes], monotonic: float) -> Sequence[Notice]:
        """Take one read's frames in wire order; notices are for the session."""
        received_at = self._clock.wall()
        if self.tap is not None:
            self.tap.frames(pulse.session, epoch, frames, monotonic, received_at)
        read = Read(self._line(pulse.session), pulse, epoch, monotonic, received_at)
        read.line.horizon.advance(received_at)
        for raw in frames:
            try:
                for item in self._decoded(raw, read):
                    self._take(item, read)
            except Exception as error:  # noqa: BLE001 - a poison message affects only itself, whatever it breaks
                self._poisoned(pulse.session, raw, error)
        if read.arrived:
            self._hub.publish_all(read.arrived)
            if self._on_live is not None and monotonic - read.line.timed_at >= TIMED_EVERY_SECONDS:
                self._time(read, self._on_live)
        if self._repair is not None:
            self._repair.work_if_needed()  # only now, so that nothing of this read can come after what is repaired
        return read.notices

    def subscribed(self, pulse: Pulse, epoch: int, topics: frozenset[Topic]) -> None:
        """The session streams exactly `topics` from now on; what it streamed besides is not live any more."""
        if self.tap is not None:
            self.tap.subscribed(pulse.session, epoch, topics)
        line = self._line(pulse.session)
        for topic in line.topics - topics:
            self._store.forget(topic, pulse)
            if self._repair is not None and not self._hub.is_wanted(topic):
                self._repair.forget(topic)
        line.expect(epoch, topics)
        if self._repair is not None:
            self._repair.subscribed(Line(pulse.session, epoch), topics)

    def interrupted(self, pulse: Pulse, epoch: int, topics: frozenset[Topic], reason: str) -> None:
        """The line was lost: what still arrives from it is not taken."""
        if self.tap is not None:
            self.tap.interrupted(pulse.session, epoch, topics, reason)
        self._line(pulse.session).fall_silent()
        if self._repair is not None:
            self._repair.interrupted(Line(pulse.session, epoch), topics)

    # What others call

    def attach(self, tap: Tap) -> None:
        """Show everything from now on to `tap`, beginning with what streams already; `self.tap = None` ends it."""
        self.tap = tap
        for session, line in list(self._lines.items()):
            if line.epoch >= 0 and line.topics:
                tap.subscribed(session, line.epoch, line.topics)

    def remember(self, items: Iterable[Datum | MarketInfo]) -> None:
        """Keep REST answers as last known values; they are never live."""
        self._store.remember(items)

    def current(self, topic: Topic) -> Delivery | None:
        """The live value for somebody who has just subscribed; None where there is none, or trades are being filled."""
        if self._repair is not None and self._repair.is_repairing(topic):
            return None
        now = self._clock.monotonic()
        parcel = self._store.current_parcel(topic, now)
        return None if parcel is None else (topic, parcel, now)

    def malformed(self, session: str | None = None) -> int:
        """Broken payloads so far, of one session or of all."""
        with self._counting:
            return sum(self._malformed.values()) if session is None else self._malformed.get(session, 0)

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

    def _line(self, session: str) -> Expectation:
        line = self._lines.get(session)
        if line is None:
            self._forget_idle()
            line = self._lines[session] = Expectation()
        return line

    def _forget_idle(self) -> None:
        """A session that nobody wanted anything of is not heard of again: new wishes make a new one."""
        with self._counting:
            for name, line in list(self._lines.items()):
                if not line.topics and line.epoch >= 0:
                    del self._lines[name]
                    self._past.update(unwanted=line.unwanted, outdated=line.outdated)

    def _decoded(self, raw: bytes, read: Read) -> Sequence[Any]:
        if raw.startswith(BOOK_HEADS):
            seen = glance_at_book(raw)
            if seen is not None:
                symbol, timestamp, level = seen
                session = read.pulse.session
                return (LazyBook(raw, symbol, level, timestamp, read.received_at, session, self._open_book),)
        return self._decode(raw, read.received_at)

    def _take(self, item: Any, read: Read) -> None:
        line = read.line
        kind = type(item)
        if kind is LazyBook or kind is OrderbookData:
            topic = line.by_place.get((OrderbookData, item.symbol, item.level))
        elif kind is TickerData or kind is TradeData:
            topic = line.by_place.get((kind, item.symbol))
        elif kind is CandleData:
            topic = line.by_place.get((kind, item.symbol, item.timeframe))
        else:
            read.notices.append(item)
            return
        if topic is None or line.epoch != read.epoch:
            line.unwanted += 1
            return
        if not line.horizon.allows(item.timestamp):
            raise MalformedDataError(f"timestamp {item.timestamp.isoformat()} lies in the future", field="timestamp")
        if line.awaited and topic in line.awaited:
            line.awaited.discard(topic)
            read.notices.append(FirstFrame(topic))
        self._keep(topic, item, read)

    def _keep(self, topic: Topic, item: Parcel, read: Read) -> None:
        is_newest = self._store.put(topic, item, read.pulse, read.epoch, read.monotonic)
        if self._repair is not None and topic.data_type not in STATE_TYPES:
            due = self._repair.arrived(topic, item, read.connection, read.monotonic)
            read.arrived.extend((topic, each, read.monotonic) for each in due)
        elif is_newest or topic.data_type not in STATE_TYPES:
            read.arrived.append((topic, item, read.monotonic))
        else:
            read.line.outdated += 1

    def _open_book(self, lazy: LazyBook) -> None:
        with self._opening:
            if lazy.is_read:
                return
            try:
                (book,) = self._decode(lazy.raw, lazy.received_at)
                if type(book) is not OrderbookData:
                    raise MalformedDataError(f"an order book was announced, but {type(book).__name__} came")
                lazy.settle(book)
                return
            except Exception as caught:  # noqa: BLE001 - a poison message affects only itself, whatever it breaks
                error = caught
                raw = lazy.raw
                lazy.settle(None)
        self._poisoned(lazy.session, raw, error)

    def _time(self, read: Read, on_live: OnLive) -> None:
        """Tell when Upbit said and when we heard the newest datum, if it was news: no snapshot, nothing repaired."""
        topic, item, _ = read.arrived[-1]
        is_old = topic.data_type.is_candle or getattr(item, "is_backfilled", False)  # a candle's time is its start
        if is_old or read.notices or read.line.awaited:
            return
        read.line.timed_at = read.monotonic
        on_live(read.pulse.session, item.timestamp, read.received_at, read.monotonic)

    def _poisoned(self, session: str, raw: bytes, error: Exception) -> None:
        with self._counting:
            count = self._malformed[session] = self._malformed.get(session, 0) + 1
            sampler = self._samplers.setdefault(session, Sampler())
            is_due = sampler.is_due(count, self._clock.monotonic())
        if not is_due:
            return
        reason = one_line(error if isinstance(error, MalformedDataError) else f"{type(error).__name__}: {error}")
        sample = one_line(raw[:SAMPLE_BYTES].decode("utf-8", "replace"))
        self._emit(MalformedEvent(at=self._clock.wall(), session=session, reason=reason, sample=sample, count=count))

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {word}" for word, count in self.counts().items())
        return f"<Intake {len(self._lines)} sessions: {counts}>"
