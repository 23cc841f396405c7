"""Request frequency: who asks for what, how often; recognises frequent topics and sweeps over many symbols."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque

from ..models.topic import Topic

SWEEP_SYMBOLS = 3  # different symbols in a row, each not answered from a stream …
SWEEP_GAP_SECONDS = 1.0  # … and never longer apart than this
MAX_TOPICS = 10_000
MAX_COUNTED = 64  # per topic: more often than this makes no difference to anyone


class RequestFrequency:
    """Counts questions per topic in a sliding window. Thread-safe; every method is O(1) amortised.

    Writing `last_asked[topic] = now` is the hot path's only duty: one dict operation, no lock (the newest instant is
    kept, whichever thread writes last).
    """

    def __init__(self, window_seconds: float) -> None:
        self._window = window_seconds
        self._lock = threading.Lock()  # guards _asked and _recent
        self._asked: OrderedDict[Topic, deque[float]] = OrderedDict()
        self._recent: deque[tuple[float, Topic]] = deque(maxlen=SWEEP_SYMBOLS)
        self.last_asked: dict[Topic, float] = {}

    def ask(self, topic: Topic, now: float) -> tuple[int, tuple[Topic, ...]]:
        """Count one question that the stream could not answer.

        Returns how often the topic was asked lately and, where this question belongs to a sweep over many symbols,
        the latest topics of the sweep (else nothing).
        """
        self.last_asked[topic] = now
        with self._lock:
            times = self._asked.setdefault(topic, deque(maxlen=MAX_COUNTED))
            self._asked.move_to_end(topic)
            times.append(now)
            while times[0] < now - self._window:
                times.popleft()
            if len(self._asked) > MAX_TOPICS:
                # A program that asks for ever new symbols must not grow; the one asked least lately is not frequent.
                forgotten, _ = self._asked.popitem(last=False)
                self.last_asked.pop(forgotten, None)
            return len(times), self._sweep(topic, now)

    def peek(self, topic: Topic, now: float) -> int:
        """How often `topic` was asked lately, without counting this look."""
        with self._lock:
            return sum(1 for asked in self._asked.get(topic, ()) if asked >= now - self._window)

    def _sweep(self, topic: Topic, now: float) -> tuple[Topic, ...]:
        recent = self._recent
        if recent and (now - recent[-1][0] > SWEEP_GAP_SECONDS or recent[-1][1].data_type is not topic.data_type):
            recent.clear()
        # The same symbol twice is no sweep, but a loop over one.
        if all(known != topic for _, known in recent):
            recent.append((now, topic))
        return tuple(known for _, known in recent) if len(recent) == SWEEP_SYMBOLS else ()

    def forget(self, topic: Topic) -> None:
        self.last_asked.pop(topic, None)
        with self._lock:
            self._asked.pop(topic, None)

    def __repr__(self) -> str:
        return f"<RequestFrequency {len(self.last_asked)} topics asked for>"
