"""Relay: publishes what this process streams to a Redis server, while it leads; ready to go on while another does.

Several relays of the same markets elect one leader. Those that stand by are subscribed as well and remember what came
in the last seconds, so that whoever takes over publishes what its predecessor had no time for; what both had is
published once, because each trade and candle has an identity.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

from msgspec.structs import replace

from .._arguments import whole_number
from .._concurrency import SYSTEM_CLOCK, Clock, Deadline, Flag, ForkGuard, LoopThread, get_logger
from ..backbone import MarketDataBackbone, markets_of_quote, parts_of, subscribe_to_existing
from ..channels.stream import moved_at
from ..delivery.hub import DELISTED
from ..delivery.subscription import Subscription
from ..errors import ClosedError, UpbitBackboneError, one_line
from ..exchange.timeframes import timeframe_of
from ..models.enums import DataType, Overflow
from ..models.events import ConnectionEvent, Event
from ..models.lazy_book import Datum
from ..models.market import CandleData, TradeData
from ..models.report import RelayStats
from ..models.request import SubscriptionRequest, Topic
from ..upstream.sightings import Sightings, heard, told
from ..wire.relay_keys import DEFAULT_PREFIX, Keys
from .entries import entry_of, latest_of, topic_of
from .redis_store import Lease, NotLeadingError, RedisStore
from .tail import Tail

log = get_logger("upbit_backbone.relay")

RENEW_SECONDS: Final = 0.5  # four times in the life of a lease
STAND_BY_SECONDS: Final = 0.25  # between two looks whether the leader is still there
BATCH_ITEMS: Final = 500
ANSWER_SECONDS: Final = 0.05  # after which an answer of Redis is read though nothing new is to be sent
MAILBOX_ITEMS: Final = 100_000
# What a relay that stands by remembers: longer than a lease and all that may delay its end.
REMEMBERED_SECONDS: Final = 15.0
WAITING_ENTRIES: Final = 200_000  # while Redis cannot be reached; the oldest give way and are counted
WAITING_EVENTS: Final = 1_000
SEEN_SECONDS: Final = 2.0  # between two times that a relay tells what it has seen
SEEN_KEPT_SECONDS: Final = 5.0  # of one that died, what it saw proves nothing
# Two lines may be wrong together: every so many questions whether silence means anything are for Upbit all the same.
ASKED_OF_UPBIT: Final = 6
# After Redis has been away, which may have forgotten what clients asked for; they come back within seconds.
ASKED_AGAIN_SECONDS: Final = 10.0
NOT_ASKED_FOR: Final = "no client asks for it any more"
CLOSED_AFTER: Final = timedelta(
    seconds=3
)  # Upbit's trades may be two seconds out of order, and change a candle that is over

# What a later datum replaces: of a topic, or of one period of a candle, whose last state is nobody's to skip.
State = tuple[Topic, datetime | None]


class Relay:
    """Publishes the streams of `market` to the Redis server at `url`, from construction until `close()`.

    `symbols`, `data_types` and `quote` are those of `market.subscribe`. Under `prefix` lie: a hash for each ticker,
    order book and forming candle (`data`, `source`, `exchange_time` and `received_at` in milliseconds, `epoch`, which
    grows with each new line); a stream of the last `kept` trades and closed candles of each market, each once, as the
    frames that Upbit sends; a stream of events; and a hash that says which relay leads, when it was last there, and
    what of it is not provably current.

    Of several relays with one prefix the one that holds the lease publishes. Redis may fail for as long as it likes:
    what is to be published waits (the oldest give way, counted in `stats.lost`). Usable from any thread.

    Raises InvalidRequestError where an argument is wrong or the prefix holds what no relay of this version wrote (and
    then changes nothing there), NetworkError, AuthenticationError or ServerError where Redis does not answer at the
    start, and what `subscribe` raises. It ends with the backbone.
    """

    def __init__(
        self,
        market: MarketDataBackbone,
        url: str,
        symbols: str | Sequence[str] | None = None,
        data_types: DataType | str | Sequence[DataType | str] = DataType.TICKER,
        *,
        quote: str | None = None,
        prefix: str = DEFAULT_PREFIX,
        kept: int = 10_000,
        name: str | None = None,
    ) -> None:
        self.name: Final = name or f"{socket.gethostname()}-{os.getpid()}-{os.urandom(3).hex()}"
        self._store = RedisStore(url, Keys(prefix), whole_number(kept, "kept", low=1, high=10_000_000))
        self._guard = ForkGuard("this relay")
        self._clock: Clock = SYSTEM_CLOCK
        self._market = market
        self._events: deque[Event] = deque(maxlen=WAITING_EVENTS)  # appended by the listener's thread
        self._closing = Flag()
        self._is_over = False
        # All below is the relay's own thread's; the figures are read by others.
        self._lease: Lease | None = None
        self._is_failing = False
        self._is_new = False  # as the one that leads: what it had when that began is not all published yet
        self._began_at = 0.0
        self._unpublished = 0  # of the states that it had
        self._due = 0.0
        self._epoch = 1
        self._time = datetime.min.replace(tzinfo=UTC)  # Upbit's, as far as what has come tells it
        self._states: dict[State, tuple[Datum, int]] = {}
        self._changed: dict[State, None] = {}  # in the order in which they changed first
        self._refused: frozenset[Topic] = frozenset()  # the topics for which there was no room
        self._forming: dict[Topic, dict[datetime, CandleData]] = {}
        # As they came: who stands by has most of it for nothing, and need not write it down.
        self._waiting: deque[tuple[float, TradeData | CandleData]] = deque()
        self._sent: list[tuple[float, TradeData | CandleData]] = []  # of which Redis has not said that it has them
        self._tail = Tail()
        self._again: deque[TradeData | CandleData] | None = None  # what an emptied Redis lacks; None: not looked yet
        self._tells_at = 0.0  # what it has seen
        self._keeps_until = float("-inf")  # what clients asked for before Redis was away
        self._questions = 0
        self._published = self._duplicates = self._lost = self._changes = 0
        self._error: str | None = None
        self._thread = LoopThread(
            self._turn, "upbit-relay", is_over=lambda: self._is_over, failed=self._failed, at_end=self._end
        )
        parts_of(market).intake.keep_frames()
        self._listening = market.on_event(self._hear)
        try:
            self._subscription: Subscription[Any] = subscribe_to_existing(
                market,
                symbols if quote is None else markets_of_quote(market, symbols, quote),
                data_types,
                overflow=Overflow.DROP_OLDEST,
                maxsize=MAILBOX_ITEMS,
            )
            # What it streams by itself. The markets of a currency are followed here: two who each say what one
            # subscription is about would take turns in dropping what the other has added.
            self._own = self._subscription.topics
            self._kinds = {topic.data_type for topic in self._own}
            self._listed: tuple[str, ...] | None = None  # set by the thread that looks
            try:
                if parts_of(market).upstream is None:  # else it asks the relay that feeds it
                    parts_of(market).probe.witness = self._seen_by_others
                if quote is not None:
                    parts_of(market).market_watch.follow(quote, self._hear_of_markets)
                self._renew()
                self._thread.ensure()
            except BaseException:
                self._subscription.close()
                raise
        except BaseException:
            self._listening.close()
            self._store.close()
            raise

    # --- what came in -------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        if self._closing.is_set() or not self._collect():
            self._is_over = True
            return
        if self._clock.monotonic() >= self._due:
            self._renew()
        if self._lease is None:
            self._forget_old()
        elif not self._is_failing:
            self._publish()
            if self._is_new and self._has_published_all():
                self._is_new, self._due = False, 0.0  # now it is told that what is published is what there is

    def _collect(self) -> bool:
        """Take what has come, waiting for it until something else is due; False once nothing can come any more."""
        is_publishing = self._lease is not None and not self._is_failing
        has_work = is_publishing and (self._again or self._waiting or self._changed)
        mailbox = self._subscription.mailbox
        try:
            if not has_work:
                seconds = max(0.0, self._due - self._clock.monotonic())
                mailbox.wait_news(Deadline.after(min(seconds, ANSWER_SECONDS) if self._sent else seconds))
            now = self._clock.monotonic()
            for item in mailbox.drain(BATCH_ITEMS):
                if isinstance(item, TradeData):
                    if item.timestamp > self._time:
                        self._time = item.timestamp
                    self._wait(item, now)
                else:
                    self._take_state(item)
        except ClosedError:
            return False
        return True

    def _take_state(self, item: Datum) -> None:
        topic = topic_of(item)
        if isinstance(item, CandleData):
            self._forming.setdefault(topic, {})[item.timestamp] = item
            self._time = max(self._time, item.last_trade_at or item.timestamp)
        else:
            self._time = max(self._time, item.timestamp)
        state = topic, item.timestamp if isinstance(item, CandleData) else None
        known = self._states.get(state)
        if known is None or item.timestamp >= known[0].timestamp:
            self._states[state] = item, self._epoch
            self._changed[state] = None

    def _hear(self, event: Event) -> None:
        """On the listener's thread, the only one that counts lines."""
        if isinstance(event, ConnectionEvent) and event.is_recovery:
            self._epoch += 1
        self._events.append(event)

    def _wait(self, item: TradeData | CandleData, now: float) -> None:
        if len(self._waiting) >= WAITING_ENTRIES:
            self._waiting.popleft()
            self._lost += self._lease is not None
        self._waiting.append((now, item))

    def _close_candles(self) -> None:
        """What Upbit will not change any more is closed, by its own time: this machine's clock may be wrong."""
        now = self._clock.monotonic()
        for topic, candles in self._forming.items():
            for start in sorted(candles):
                end = timeframe_of(candles[start].timeframe).next_start(start)
                if end + CLOSED_AFTER <= self._time:
                    self._wait(candles.pop(start), now)
                    self._states.pop((topic, start), None)
                    self._changed.pop((topic, start), None)

    def _forget_old(self) -> None:
        self._events.clear()  # they are this relay's, and it is the leader's that matter
        if self._is_failing:
            return  # nobody publishes, and it may be this relay that does once Redis is back
        now = self._clock.monotonic()
        while self._waiting and self._waiting[0][0] < now - REMEMBERED_SECONDS:
            self._tail.add(*self._waiting.popleft())
        self._tail.shorten(now)

    # --- leading ------------------------------------------------------------------------------------------------

    def _renew(self) -> None:
        self._close_candles()
        try:
            held = self._held()
            stale = json.dumps(sorted(self._market.stale_symbols(self._subscription)))
            pulse = "" if self._is_new else f'{{"stale": {stale}, "lag": {self._lag():.3f}}}'
            self._lease = self._store.lead(self.name, held, pulse, self._status(stale))
            self._begin_to_lead(held)
            self._follow_demand()
            self._tell_seen()
        finally:
            # Now and then: with each batch it took as long as to add to it.
            self._tail.shorten(self._clock.monotonic())
            self._due = self._clock.monotonic() + (STAND_BY_SECONDS if self._lease is None else RENEW_SECONDS)
        if self._is_failing:
            log.warning("the relay reaches Redis again", extra={"place": self._store.place})
        self._is_failing, self._error = False, None

    def _held(self) -> Lease | None:
        """The lease, if it was one when the last entries came to Redis."""
        try:
            self._hear_of_sent()
        except NotLeadingError:
            self._lease = None
        return self._lease

    def _begin_to_lead(self, held: Lease | None) -> None:
        """Where this lease is another than the one `held` before; at once, for the rest of a renewal may fail."""
        if self._lease is not None and self._lease != held:
            self._changes += 1
            self._is_new = True
            # The hashes may hold what a predecessor wrote, or nothing at all where Redis has lost its memory.
            self._changed = dict.fromkeys(self._states)
            self._began_at, self._unpublished, self._again = self._clock.monotonic(), len(self._changed), None
            log.info("the relay leads", extra={"relay": self.name, "token": self._lease.token})

    def _status(self, stale: str) -> list[str | int]:
        return [
            "topics", len(self._subscription.topics), "stale", stale, "lost", self._lost,
            "dropped", self._subscription.stats.dropped, "epoch", self._epoch,
        ]  # fmt: skip

    def _lag(self) -> float:
        """How many seconds what comes from Upbit is late at most."""
        health_of = parts_of(self._market).sessions.health
        lines = {health for topic in self._subscription.topics if (health := health_of(topic)) is not None}
        return max((line.lag for line in lines), default=0.0)

    def _hear_of_markets(self, symbols: Sequence[str]) -> bool:
        """On the thread that looks after the market list; False where nobody needs it any more."""
        self._listed = tuple(symbols)
        return not self._closing.is_set()

    def _tell_seen(self) -> None:
        """For who reads here and for other relays: silence that they share with this line is the market's."""
        now = self._clock.monotonic()
        if now < self._tells_at:
            return
        self._tells_at = now + SEEN_SECONDS
        known = parts_of(self._market).store
        entries = ((topic, known.entry(topic)) for topic in self._subscription.topics)
        seen = {topic: None if entry is None else moved_at(entry) for topic, entry in entries}
        self._store.tell_seen(told(self.name, seen), SEEN_KEPT_SECONDS, leads=self._lease is not None)

    def _seen_by_others(self, topics: frozenset[Topic]) -> Sightings:
        """When `topics` last moved as the other relays have seen it; on the thread that looks into a silence."""
        leads = self.is_leading
        self._questions += leads
        if self._is_over or (leads and self._questions % ASKED_OF_UPBIT == 0):
            return {}
        seen = heard(self._store.seen(leads=leads), but_of=self.name)
        return {topic: seen[topic] for topic in topics if topic in seen}

    def _follow_demand(self) -> None:
        """Stream what there is of the currency, and what clients ask for besides, as long as they do; whoever stands by
        does as well."""
        parts, streamed = parts_of(self._market), self._subscription.topics
        if self._listed is not None:
            self._own = frozenset(Topic(kind, symbol) for kind in self._kinds for symbol in self._listed)
        asked = frozenset(self._store.demanded())
        now = self._clock.monotonic()
        if self._is_failing:
            self._keeps_until = now + ASKED_AGAIN_SECONDS
        if now < self._keeps_until:
            asked |= streamed - self._own
        asked = frozenset(topic for topic in asked if parts.directory.knows(topic.symbol))
        wanted = self._own | asked
        if wanted in (streamed, self._refused):
            return
        gone = {topic.symbol for topic in streamed - wanted}
        why = DELISTED if any(not parts.directory.knows(symbol) for symbol in gone) else NOT_ASKED_FOR
        try:
            parts.hub.change(self._subscription.id, map(SubscriptionRequest, sorted(wanted)), why)
        except UpbitBackboneError as error:
            # As many as there is room for are streamed already; who asks for more goes to Upbit himself.
            self._refused = wanted
            log.warning("the relay cannot stream what is asked for: %s", one_line(error), extra={"relay": self.name})
        else:
            self._refused = frozenset()

    def _publish(self) -> None:
        lease = self._lease
        if lease is None:
            return
        try:
            if self._sent:
                self._hear_of_sent()
            if (self._again is None or self._again) and not self._has_told_again(lease):
                return  # a stream is in order, so all else comes after it
            # Looked at here: hundreds of times a second there is only one of the three.
            if self._waiting:
                self._send_entries(lease)
                if self._changed or self._events or self._is_new:
                    self._hear_of_sent()
            if self._changed:
                self._publish_latest(lease)
            if self._events:
                self._publish_events(lease)
        except NotLeadingError:
            self._lease, self._due = None, 0.0

    def _has_published_all(self) -> bool:
        """That there was when it began to lead; there may be more by now."""
        is_done = self._again is not None and not self._again and not self._unpublished
        return is_done and (not self._waiting or self._waiting[0][0] > self._began_at)

    def _has_told_again(self, lease: Lease) -> bool:
        """Publish once more, where a Redis that lost its memory has nothing of a topic, what it had; False while there
        is more of it."""
        if self._again is None:
            self._again = deque(self._tail.of(self._store.unwritten(self._tail.topics)))
        batch = [entry_of(item) for item in itertools.islice(self._again, BATCH_ITEMS)]
        if batch:
            self._store.publish_entries(lease, [replace(each, is_told=False) for each in batch])
            for _ in batch:
                self._again.popleft()
        return not self._again

    def _send_entries(self, lease: Lease) -> None:
        """What Redis says to it is heard with the next ones: till then this thread and Redis work at the same time."""
        batch = list(itertools.islice(self._waiting, BATCH_ITEMS))
        if batch:
            self._store.send_entries(lease, [entry_of(item) for _, item in batch])
            self._sent = batch
            for _ in batch:
                self._waiting.popleft()

    def _hear_of_sent(self) -> None:
        """Where Redis does not have them, or does not say, they wait again: what it has is not published twice."""
        if not self._sent:
            return
        try:
            added = self._store.added()
        except BaseException:
            self._waiting.extendleft(reversed(self._sent))
            self._sent = []
            raise
        self._published += added
        self._duplicates += len(self._sent) - added
        self._tail.extend(self._sent)
        self._sent = []

    def _publish_latest(self, lease: Lease) -> None:
        states = list(itertools.islice(self._changed, BATCH_ITEMS))
        if states:
            self._store.publish_latest(lease, [latest_of(each[0], *self._states[each]) for each in states])
            for each in states:
                del self._changed[each]
            self._published += len(states)
            self._unpublished = max(0, self._unpublished - len(states))

    def _publish_events(self, lease: Lease) -> None:
        events = [self._events.popleft() for _ in range(min(len(self._events), BATCH_ITEMS))]
        if events:
            try:
                self._store.publish_events(lease, [(type(each).__name__, each.to_json()) for each in events])
            except BaseException:
                self._events.extendleft(reversed(events))
                raise

    def _failed(self, error: BaseException) -> None:
        """A step raised: told once, and tried again when the lease is due."""
        self._error = one_line(error)
        self._due = max(self._due, self._clock.monotonic() + STAND_BY_SECONDS)
        if not self._is_failing:
            self._is_failing = True
            is_ours = isinstance(error, UpbitBackboneError)
            log.warning("the relay waits: %s", self._error, exc_info=None if is_ours else error)

    # --- the end ------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """On the relay's thread: what has come is published, and the next relay leads at once."""
        lease = self._lease
        try:
            if lease is not None and not self._is_failing:
                while self._sent or self._again or self._waiting or self._changed:
                    self._hear_of_sent()
                    if not self._has_told_again(lease):
                        continue
                    self._send_entries(lease)
                    self._hear_of_sent()
                    self._publish_latest(lease)
                self._store.leave(lease)
        except (UpbitBackboneError, NotLeadingError) as error:
            self._error = one_line(error)
        finally:
            self._lost += len(self._waiting) + len(self._sent) if lease is not None else 0
            self._lease = None
            self._store.close()
            self._listening.close()

    def close(self, timeout: float = 1.5) -> list[str]:
        """Publish what has come, give the lead back and end; names of threads that would not within `timeout` seconds.
        Idempotent."""
        if self._guard.is_foreign:
            return []
        deadline = Deadline.after(timeout)
        self._closing.set()
        self._subscription.close(deadline.remaining())
        return self._thread.join(deadline)

    @property
    def is_leading(self) -> bool:
        """Whether it is this relay that publishes."""
        return self._lease is not None

    @property
    def closed(self) -> bool:
        """Whether it has ended, by `close()` or with its backbone."""
        return self._is_over

    @property
    def stats(self) -> RelayStats:
        """How it stands at the moment."""
        lease = self._lease
        return RelayStats(
            relay=self.name,
            is_leading=lease is not None,
            token=None if lease is None else lease.token,
            published=self._published,
            duplicates=self._duplicates,
            waiting=len(self._sent) + len(self._waiting) + len(self._changed),
            lost=self._lost,
            dropped=self._subscription.stats.dropped,
            changes=self._changes,
            error=self._error,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Relay {one_line(self.name)} {'leading' if self.is_leading else 'standing by'} at {self._store.place}>"
