"""The thread that streams what has become frequent, and no longer what nobody asks for."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from .._concurrency import Clock, Deadline, join_all, spawn, wait_event
from ..models.enums import DataType
from ..models.topic import Topic
from .demand import Demand
from .promotion import Promotions

LOOK_SECONDS = 1.0
GATHER_SECONDS = 0.02  # a sweep promotes one symbol after the other: they go into one message


class Housekeeper:
    """Starts with the first promotion. `wake` is what `Promotions` calls; it never waits."""

    def __init__(self, demand: Demand, *, promote_after: int, clock: Clock) -> None:
        self._demand = demand
        self._promote_after = promote_after
        self._clock = clock
        self._promotions: Promotions | None = None
        self._work = threading.Event()  # something was promoted, or the house is closed
        self._stop = threading.Event()
        self._lock = threading.Lock()  # guards _thread
        self._thread: threading.Thread | None = None

    def look_after(self, promotions: Promotions) -> None:
        self._promotions = promotions

    def asked(self, topics: Sequence[Topic]) -> None:
        """Topics that a question was about and no stream answered: those asked often are streamed from now on."""
        now = self._clock.monotonic()
        often = [topic for topic in topics if self._demand.ask(topic, now)[0] >= self._enough(topic)]
        if often and self._promotions is not None and self._promotions.has_room():
            self._promotions.promote(often, now)

    def _enough(self, topic: Topic) -> int:
        """Tickers and books share their requests; a chart costs one of its own each time until its candle streams."""
        is_shared = topic.data_type in (DataType.TICKER, DataType.ORDERBOOK)
        return self._promote_after if is_shared else max(1, self._promote_after - 1)

    def wake(self) -> None:
        if not self._work.is_set():
            self._work.set()
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                self._thread = spawn(self._run, "upbit-housekeeping")

    def _run(self) -> None:
        while not self._stop.is_set() and self._promotions is not None:
            if wait_event(self._work, Deadline.after(LOOK_SECONDS)):
                self._work.clear()
                wait_event(self._stop, Deadline.after(GATHER_SECONDS))
                self._promotions.flush()
            for topic in self._promotions.demote_unused(self._demand.last_asked.get, self._clock.monotonic()):
                self._demand.forget(topic)

    def close(self, deadline: Deadline) -> list[str]:
        self._stop.set()
        self._work.set()
        with self._lock:
            threads = [] if self._thread is None else [self._thread]
        return join_all(threads, deadline)

    def __repr__(self) -> str:
        return f"<Housekeeper {'idle' if self._thread is None else 'at work'}, {self._promotions!r}>"
