"""Where symbols that are asked at about the same time get onto one list.

A question that meets no other leaves at once. Behind one that is under way, and for a moment after two have met, a list
stays open: while its predecessor is under way, a little longer while more arrive, and in any case until there is a turn
to send it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final, Generic, TypeVar

from .._concurrency import Clock, Deadline
from ..models.enums import Priority
from ..store.intelligent_cache import IntelligentCache, Key
from ..wire.endpoints import RestCall
from .rest_job import Job
from .rest_lane import RestLane

# How often the quiet that ends a list may be put off, and how long a slow predecessor may hold it back.
LONGEST_WINDOWS: Final = 20
PREDECESSOR_SECONDS: Final = 0.1
# How long after two questions met the next one is expected to meet another.
CROWD_SECONDS: Final = 0.05

Model = TypeVar("Model")


class ListJob(Job[list[Model]]):
    """One list: open until it is sealed, then one call. Its boarding's lock guards all that is its own."""

    def __init__(
        self, boarding: Boarding[Model], generation: int, now: float, priority: Priority, deadline: Deadline
    ) -> None:
        super().__init__(priority, deadline)
        self._boarding = boarding
        self.generation = generation
        self.opened_at = self.last_at = now
        self.symbols: dict[str, None] = {}
        self.is_sealed = False
        self.expects_company = False

    def prepare(self) -> None:
        self._boarding.wait_for_company(self)

    def seal(self) -> RestCall:
        return self._boarding.seal(self)

    def read(self, body: bytes, received_at: datetime) -> list[Model]:
        return self._boarding.read(body, received_at, self.generation)


Boarded = dict[ListJob[Model], list[str]]


class Boarding(Generic[Model]):
    """The open list and those under way. Thread-safe."""

    def __init__(
        self,
        *,
        key: Callable[[str], Key],
        make_call: Callable[[Iterable[str]], RestCall],
        read: Callable[[bytes, datetime, int], list[Model]],
        lane: RestLane,
        cache: IntelligentCache,
        clock: Clock,
        window_seconds: float,
        limit: int,
    ) -> None:
        self._key = key
        self._make_call = make_call
        self.read = read
        self._lane = lane
        self._cache = cache
        self._clock = clock
        self._window = window_seconds
        self._limit = limit
        self._lists = threading.Condition()  # guards the four below, and the jobs' own state
        self._open: ListJob[Model] | None = None
        self._under_way: dict[str, ListJob[Model]] = {}
        self._away: set[ListJob[Model]] = set()
        self._crowded_until = float("-inf")

    def board(
        self, symbols: Sequence[str], deadline: Deadline, priority: Priority, *, is_fresh_wanted: bool, is_alone: bool
    ) -> Boarded[Model]:
        """Find each symbol a place: on a list that has it already, on the open one, or on a new one.

        `is_fresh_wanted` takes no list that has left, `is_alone` none that others are on. Where the question meets no
        other, its answer is there when this returns.
        """
        generation = self._cache.generation()
        boarded: Boarded[Model] = {}
        started: list[ListJob[Model]] = []

        def start() -> ListJob[Model]:
            job = ListJob(self, generation, self._clock.monotonic(), priority, deadline)
            # A future that held its own job would keep the answer until the next full garbage collection.
            known = weakref.ref(job)
            job.future.add_done_callback(lambda _: self._landed(known()))
            started.append(job)
            return job

        try:
            with self._lists:
                is_crowded = self._is_crowded()
                if is_alone:
                    boarded[self._fill(start(), symbols)] = list(symbols)
                else:
                    self._find_places(symbols, generation, is_fresh_wanted, start, boarded)
                for job in boarded:
                    job.join(deadline)
                for job in started:
                    job.expects_company = is_crowded
            self._cache.count_merged(len(boarded) - len(started))
            for job in started:
                self._lane.carry_out(job, here=not is_crowded and len(boarded) == 1)
        except BaseException:
            for job in started:
                job.desert()
            raise
        return boarded

    def _find_places(
        self,
        symbols: Sequence[str],
        generation: int,
        is_fresh_wanted: bool,
        start: Callable[[], ListJob[Model]],
        boarded: Boarded[Model],
    ) -> None:
        job = self._open
        for symbol in symbols:
            shared = self._under_way.get(symbol)
            if shared is not None and self._is_joinable(shared, symbol, is_fresh_wanted):
                boarded.setdefault(shared, []).append(symbol)
                continue
            if job is None or job.generation != generation or len(job.symbols) >= self._limit:
                job = self._open = start()
            boarded.setdefault(self._fill(job, (symbol,)), []).append(symbol)

    def _fill(self, job: ListJob[Model], symbols: Iterable[str]) -> ListJob[Model]:
        for symbol in symbols:
            job.symbols[symbol] = None
            self._under_way[symbol] = job
        job.last_at = self._clock.monotonic()
        return job

    def _is_crowded(self) -> bool:
        """Whether a question that comes now meets another one, or is likely to."""
        now = self._clock.monotonic()
        if self._under_way:
            self._crowded_until = now + CROWD_SECONDS
        return now < self._crowded_until

    def _is_joinable(self, job: ListJob[Model], symbol: str, is_fresh_wanted: bool) -> bool:
        if self._cache.is_outdated(self._key(symbol), job.generation) or not job.is_joinable(self._clock.monotonic()):
            return False
        return not (is_fresh_wanted and job.is_sealed)

    def wait_for_company(self, job: ListJob[Model]) -> None:
        """Keep the list open while it is likely to grow; on a worker's thread."""
        with self._lists:
            while not job.is_sealed:
                wait = self._window_left(job, self._clock.monotonic())
                if wait <= 0 or job.deadline.expired:
                    return
                self._lists.wait(job.deadline.remaining_or(wait))

    def _window_left(self, job: ListJob[Model], now: float) -> float:
        if len(job.symbols) >= self._limit or not job.expects_company:
            return 0.0
        if self._away:
            return job.opened_at + PREDECESSOR_SECONDS - now
        return min(job.last_at + self._window, job.opened_at + self._window * LONGEST_WINDOWS) - now

    def seal(self, job: ListJob[Model]) -> RestCall:
        """The call of a list that leaves now."""
        with self._lists:
            self._close(job)
            self._away.add(job)
            symbols = list(job.symbols)
        return self._make_call(symbols)

    def _close(self, job: ListJob[Model]) -> None:
        job.is_sealed = True
        if self._open is job:
            self._open = None

    def _landed(self, job: ListJob[Model] | None) -> None:
        if job is None:
            return  # nobody waits for it, and no table holds it
        with self._lists:
            self._close(job)
            self._away.discard(job)
            for symbol in job.symbols:
                if self._under_way.get(symbol) is job:
                    del self._under_way[symbol]
            self._lists.notify_all()

    def __repr__(self) -> str:
        return f"<Boarding {len(self._away)} lists under way{', one open' if self._open else ''}>"
