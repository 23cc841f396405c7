"""Promotion: topics asked often are streamed; which ones, and the thread that subscribes and drops them."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

from .._concurrency import Clock, Deadline, Flag, LoopThread, get_logger
from ..errors import UpbitBackboneError, one_line
from ..models.enums import DataType
from ..models.request import SubscriptionRequest, Topic

# Who asks for what, how often.

SWEEP_SYMBOLS = 3  # different symbols in a row, asked for the same kind of data, each not answered from a stream …
SWEEP_GAP_SECONDS = 1.0  # … and never longer apart than this
MAX_TOPICS = 10_000
MAX_COUNTED = 64  # per topic: more often than this makes no difference to anyone


@dataclass(slots=True)
class _Recent:
    """The last different topics of one kind, and when the last of them joined."""

    topics: deque[Topic] = field(default_factory=lambda: deque(maxlen=SWEEP_SYMBOLS))
    at: float = -inf


class RequestFrequency:
    """Counts questions per topic in a sliding window. Thread-safe; every method is O(1) amortised.

    Writing `last_asked[topic] = now` is the hot path's only duty: one dict operation, no lock (the newest instant is
    kept, whichever thread writes last).
    """

    def __init__(self, window_seconds: float) -> None:
        self._window = window_seconds
        self._lock = threading.Lock()  # guards all below but last_asked
        self._asked: OrderedDict[Topic, deque[float]] = OrderedDict()
        # Of each kind by itself: a loop that asks for the price and the book of each market makes two sweeps at once.
        self._recent: dict[DataType, _Recent] = {}
        self.last_asked: dict[Topic, float] = {}

    def ask(self, topic: Topic, now: float) -> tuple[int, tuple[Topic, ...]]:
        """Count one question that the stream could not answer.

        Returns how often the topic was asked lately and, where this question belongs to a sweep over many symbols,
        the latest topics of the sweep (else nothing).
        """
        self.last_asked[topic] = now
        with self._lock:
            if (times := self._asked.get(topic)) is None:
                times = self._asked[topic] = deque(maxlen=MAX_COUNTED)
                if len(self._asked) > MAX_TOPICS:
                    # A program that asks for ever new symbols must not grow; the one asked least lately goes.
                    forgotten, _ = self._asked.popitem(last=False)
                    self.last_asked.pop(forgotten, None)
            else:
                self._asked.move_to_end(topic)
            times.append(now)
            _forget_before(now - self._window, times)
            return len(times), self._sweep(topic, now)

    def peek(self, topic: Topic, now: float) -> int:
        """How often `topic` was asked lately, without counting this look."""
        with self._lock:
            return sum(1 for asked in self._asked.get(topic, ()) if asked >= now - self._window)

    def _sweep(self, topic: Topic, now: float) -> tuple[Topic, ...]:
        recent = self._recent.setdefault(topic.data_type, _Recent())
        if now - recent.at > SWEEP_GAP_SECONDS:
            recent.topics.clear()
        # The same symbol twice is no sweep, but a loop over one.
        if topic not in recent.topics:
            recent.topics.append(topic)
            recent.at = now
        return tuple(recent.topics) if len(recent.topics) == SWEEP_SYMBOLS else ()

    def forget(self, topic: Topic) -> None:
        self.last_asked.pop(topic, None)
        with self._lock:
            self._asked.pop(topic, None)

    def __repr__(self) -> str:
        return f"<RequestFrequency {len(self.last_asked)} topics asked for>"


def _forget_before(instant: float, times: deque[float]) -> None:
    while times[0] < instant:
        times.popleft()


# Topics that are streamed because they are asked often, without anybody having subscribed.

log = get_logger("upbit_backbone.routing")


class Promotions:
    """Turns frequent questions into subscriptions and unused ones back.

    `promote` only takes note and calls `wake`, so it never delays the question that caused it; `flush`, on a thread
    that has the time, makes one request of what has gathered, so that a sweep over many symbols is one subscription.
    """

    def __init__(
        self,
        acquire: Callable[[Hashable, Iterable[SubscriptionRequest]], object],
        *,
        limit: int,
        demote_after: float,
        wake: Callable[[], object] = lambda: None,
        exists: Callable[[str], bool] = lambda symbol: True,
    ) -> None:
        self._acquire = acquire
        self._limit = limit
        self._demote_after = demote_after
        self._wake = wake
        self._exists = exists
        self._lock = threading.Lock()  # guards _since and _noted
        self._since: dict[Topic, float] = {}
        self._noted: list[Topic] = []  # promoted, but not requested for yet

    def has_room(self) -> bool:
        return len(self._since) < self._limit

    def __contains__(self, topic: Topic) -> bool:
        return topic in self._since

    def promote(self, topics: Iterable[Topic], now: float) -> None:
        """Stream `topics` soon, as far as the limit allows and the markets exist; those already streamed stay."""
        new = [topic for topic in self._not_promoted(dict.fromkeys(topics)) if self._exists(topic.symbol)]
        if not new:
            return
        with self._lock:
            room = self._limit - len(self._since)
            # Looked at again under the lock: another thread may have promoted the same meanwhile.
            fresh = self._not_promoted(new)[: max(0, room)]
            # In this order: what Ctrl-C leaves noted alone is nothing, what it left promoted alone would never stream.
            self._noted += fresh
            self._since.update((topic, now) for topic in fresh)
        if fresh:
            # After the lock, and without subscribing here: the question that caused it must not wait for sessions to be
            # made.
            self._wake()

    def _not_promoted(self, topics: Iterable[Topic]) -> list[Topic]:
        return [topic for topic in topics if topic not in self._since]

    def flush(self) -> Sequence[Topic]:
        """SubscriptionRequest for what was promoted since the last time; returns it. For one thread only."""
        with self._lock:
            fresh, self._noted = self._noted, []
        if not fresh:
            return ()
        try:
            self._subscribe()
        except BaseException as error:
            with self._lock:
                for topic in fresh:
                    # Not promoted after all, so that the next frequent question tries again.
                    self._since.pop(topic, None)
            if not isinstance(error, UpbitBackboneError):
                raise
            # Closing, or no room on the connections: REST goes on answering.
            log.info("promotion failed", extra={"topics": len(fresh), "why": one_line(error)})
            return ()
        return fresh

    def _subscribe(self) -> None:
        """Want what is promoted now, and nothing else: whatever went wrong before is made good by this."""
        with self._lock:
            # The whole set as one owner's request: what an interruption left behind is put right by the next change.
            promoted = self._requested()
        self._acquire(self, map(SubscriptionRequest, promoted))

    def _requested(self) -> list[Topic]:
        return [topic for topic in self._since if topic not in self._noted]

    def drop(self, topics: Iterable[Topic]) -> None:
        """Their line is too slow: stop streaming those that were only promoted, as soon as `demote_unused` runs."""
        with self._lock:
            self._since.update((topic, -inf) for topic in topics if topic in self._since)
        self._wake()

    def demote_unused(self, last_asked: Callable[[Topic], float | None], now: float) -> Sequence[Topic]:
        """Stop streaming what nobody asked for lately; returns what was dropped. On the thread that calls `flush`."""
        with self._lock:
            unused = self._unused(last_asked, now)
            for topic in unused:
                del self._since[topic]
        if unused:
            self._subscribe()
        return unused

    def _unused(self, last_asked: Callable[[Topic], float | None], now: float) -> list[Topic]:
        return [
            topic
            for topic in self._requested()
            if _is_unused(now, self._since[topic], last_asked(topic), self._demote_after)
        ]

    def __len__(self) -> int:
        return len(self._since)

    def __repr__(self) -> str:
        return f"<Promotions {len(self._since)} of at most {self._limit}>"


def _is_unused(now: float, since: float, asked_at: float | None, demote_after: float) -> bool:
    return since == -inf or now - max(since, asked_at or since) > demote_after


# The thread that streams what has become frequent, and no longer what nobody asks for.

LOOK_SECONDS = 1.0
GATHER_SECONDS = 0.02  # a sweep promotes one symbol after the other: they go into one message


class PromotionWorker:
    """Starts with the first promotion. `wake` is what `Promotions` calls; it never waits."""

    def __init__(self, frequency: RequestFrequency, *, promote_after: int, clock: Clock) -> None:
        self._frequency = frequency
        self._promote_after = promote_after
        self._clock = clock
        self._promotions: Promotions | None = None
        self._work = Flag()  # something was promoted, or the house is closed
        self._stop = Flag()
        self._loop = LoopThread(self._turn, "upbit-promotion", is_over=self._stop.is_set)

    def look_after(self, promotions: Promotions) -> None:
        self._promotions = promotions

    def asked(self, topics: Sequence[Topic]) -> None:
        """Topics that a question was about and no stream answered: those asked often are streamed from now on."""
        now = self._clock.monotonic()
        often = [topic for topic in topics if self._frequency.ask(topic, now)[0] >= self._enough(topic)]
        if often and self._promotions is not None and self._promotions.has_room():
            self._promotions.promote(often, now)

    def _enough(self, topic: Topic) -> int:
        """Tickers and books share their requests; a chart costs one of its own each time until its candle streams."""
        is_shared = topic.data_type in (DataType.TICKER, DataType.ORDERBOOK)
        return self._promote_after if is_shared else max(1, self._promote_after - 1)

    def wake(self) -> None:
        if not self._work.is_set():
            self._work.set()
        self._loop.ensure()

    def _turn(self) -> None:
        promotions = self._promotions
        if promotions is None or (self._work.wait(LOOK_SECONDS) and self._stop.is_set()):
            return
        # Cleared before the flush: what is promoted after that sets it again.
        if self._work.is_set():
            self._work.clear()
            self._stop.wait(GATHER_SECONDS)
        promotions.flush()
        for topic in promotions.demote_unused(self._frequency.last_asked.get, self._clock.monotonic()):
            self._frequency.forget(topic)

    def close(self, deadline: Deadline) -> list[str]:
        # Before the wake-up, so that the turn it ends finds it.
        self._stop.set()
        self._work.set()
        return self._loop.join(deadline)

    def __repr__(self) -> str:
        return f"<PromotionWorker {'at work' if self._loop.is_alive else 'idle'}, {self._promotions!r}>"
