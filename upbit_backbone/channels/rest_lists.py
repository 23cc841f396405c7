"""Questions about many markets: whatever is asked at about the same time leaves as one list.

A list stays open for a moment after its first symbol, a little longer while more arrive or while its predecessor is
under way, and in any case until there is a turn to send it. Upbit fails a whole list for one unknown code; then the
codes that do not exist are found out with the market list, and the others are asked again.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Generic, Protocol, TypeVar

from .._concurrency import Clock, Deadline
from ..errors import InvalidRequestError, UnknownSymbolError, UpbitBackboneError, one_line
from ..models.enums import Priority
from ..models.symbol import CODE
from ..store.intelligent_cache import IntelligentCache, Key
from ..wire.endpoints import RestCall
from .rest_calls import shared_result
from .rest_lane import Job, RestLane

log = logging.getLogger("upbit_backbone.rest")

# How often the quiet that ends a list may be put off, and how long a slow predecessor may hold it back.
LONGEST_WINDOWS: Final = 5
PREDECESSOR_SECONDS: Final = 0.1
ABSENT: Final = object()  # kept for a market that does not exist


class HasSymbol(Protocol):
    @property
    def symbol(self) -> str: ...


Model = TypeVar("Model", bound=HasSymbol)


@dataclass(slots=True)
class Outcome(Generic[Model]):
    """What came of a question: the found ones and the first error. Without an error, the rest does not exist."""

    found: dict[str, Model] = field(default_factory=dict)
    error: UpbitBackboneError | None = None

    def add(self, other: Outcome[Model]) -> None:
        self.found.update(other.found)
        self.error = self.error or other.error


class ListJob(Job[list[Model]]):
    """One list: open until it is sealed, then one call. Its desk's lock guards `symbols`, `is_sealed`, `last_at`."""

    def __init__(
        self, desk: ListDesk[Model], generation: int, now: float, priority: Priority, deadline: Deadline
    ) -> None:
        super().__init__(priority, deadline)
        self._desk = desk
        self.generation = generation
        self.opened_at = self.last_at = now
        self.symbols: dict[str, None] = {}
        self.is_sealed = False

    def prepare(self) -> None:
        self._desk.wait_for_company(self)

    def seal(self) -> RestCall:
        return self._desk.seal(self)

    def read(self, body: bytes, received_at: datetime) -> list[Model]:
        items = self._desk.decode(body, received_at)
        self._desk.keep(items, self.generation)
        return items


class ListDesk(Generic[Model]):
    """Where tickers, or order books of one depth, are asked."""

    def __init__(
        self,
        kind: str,
        variant: tuple[object, ...],
        *,
        lane: RestLane,
        cache: IntelligentCache,
        clock: Clock,
        make_call: Callable[[Iterable[str]], RestCall],
        decode: Callable[[bytes, datetime], list[Model]],
        remember: Callable[[Sequence[Model]], object],
        known_markets: Callable[[Deadline, Priority], frozenset[str]],
        window_seconds: float,
        limit: int,
    ) -> None:
        self._kind = kind
        self._variant = variant
        self._lane = lane
        self._cache = cache
        self._clock = clock
        self._make_call = make_call
        self.decode = decode
        self._remember = remember
        self._known_markets = known_markets
        self._window = window_seconds
        self._limit = limit
        self._lists = threading.Condition()  # guards the three below, and the jobs' own state
        self._open: ListJob[Model] | None = None
        self._under_way: dict[str, ListJob[Model]] = {}
        self._away: set[ListJob[Model]] = set()

    def ask(
        self, symbols: Iterable[str], deadline: Deadline, priority: Priority, max_age: float | None
    ) -> dict[str, Model]:
        """What Upbit says about those of `symbols` that exist, at most `max_age` seconds old, in the order given.

        With `max_age=0` nothing that left before this call counts.
        """
        wanted = dict.fromkeys(_checked(symbol) for symbol in symbols)
        found, missing = self._from_cache(wanted, max_age)
        if missing:
            outcome = self._from_upbit(missing, deadline, priority, is_fresh_wanted=max_age == 0)
            if outcome.error is not None:
                raise outcome.error
            found.update(outcome.found)
        return {symbol: found[symbol] for symbol in wanted if symbol in found}

    def key(self, symbol: str) -> Key:
        return (self._kind, symbol, *self._variant)

    def from_cache(self, symbols: Iterable[str], max_age: float | None) -> dict[str, Model] | None:
        """All of `symbols` from the cache, or None if one of them is missing."""
        found, missing = self._from_cache(symbols, max_age)
        return None if missing else found

    def keep(self, items: Sequence[Model], generation: int) -> None:
        """Fresh answers, into the cache and on to whoever wants to know."""
        for item in items:
            self._cache.cache_data(self.key(item.symbol), item, generation=generation)
        self._remember(items)

    def _from_cache(self, symbols: Iterable[str], max_age: float | None) -> tuple[dict[str, Model], list[str]]:
        found: dict[str, Model] = {}
        missing: list[str] = []
        for symbol in symbols:
            item = self._cache.get_cached_data(self.key(symbol), max_age)
            if item is not None:
                found[symbol] = item
            elif self._cache.get_cached_data(("unknown", symbol), counted=False) is not ABSENT:
                missing.append(symbol)
        return found, missing

    def _from_upbit(
        self,
        symbols: Sequence[str],
        deadline: Deadline,
        priority: Priority,
        *,
        is_fresh_wanted: bool = False,
        is_alone: bool = False,
    ) -> Outcome[Model]:
        outcome: Outcome[Model] = Outcome()
        for job, mine in self._board(symbols, deadline, priority, is_fresh_wanted, is_alone):
            try:
                items = shared_result(job.future, deadline, f"{self._kind} of {one_line(', '.join(mine), 60)}")
            except UnknownSymbolError:
                outcome.add(self._sort_out(job, mine, deadline, priority))
            except UpbitBackboneError as error:
                outcome.add(Outcome(error=error))
            else:
                wanted = set(mine)
                outcome.add(Outcome({item.symbol: item for item in items if item.symbol in wanted}))
        return outcome

    # --- the lists ------------------------------------------------------------------------------------------

    def _board(
        self, symbols: Sequence[str], deadline: Deadline, priority: Priority, is_fresh_wanted: bool, is_alone: bool
    ) -> list[tuple[ListJob[Model], list[str]]]:
        """Find each symbol a place: on a list that has it already, on the open one, or on a new one."""
        generation = self._cache.generation()
        boarded: dict[ListJob[Model], list[str]] = {}
        started: list[ListJob[Model]] = []
        with self._lists:
            now = self._clock.monotonic()
            job = ListJob(self, generation, now, priority, deadline) if is_alone else self._open
            if is_alone and job is not None:
                started.append(job)
            for symbol in symbols:
                shared = None if is_alone else self._under_way.get(symbol)
                if shared is not None and self._is_joinable(shared, symbol, is_fresh_wanted):
                    boarded.setdefault(shared, []).append(symbol)
                    continue
                if job is None or job.generation != generation or len(job.symbols) >= self._limit:
                    job = self._open = ListJob(self, generation, now, priority, deadline)
                    started.append(job)
                job.symbols[symbol] = None
                job.last_at = now
                self._under_way[symbol] = job
                boarded.setdefault(job, []).append(symbol)
            for each in boarded:
                each.deadline.extend(deadline)
        self._cache.count_merged(len(boarded) - len(started))
        for each in started:
            self._start(each)
        return list(boarded.items())

    def _is_joinable(self, job: ListJob[Model], symbol: str, is_fresh_wanted: bool) -> bool:
        if self._cache.is_outdated(self.key(symbol), job.generation) or not job.is_joinable(self._clock.monotonic()):
            return False
        return not (is_fresh_wanted and job.is_sealed)

    def _start(self, job: ListJob[Model]) -> None:
        # A future that held its own job would keep the answer until the next full garbage collection.
        known = weakref.ref(job)
        job.future.add_done_callback(lambda _: self._landed(known()))
        try:
            self._lane.submit(job)
        except UpbitBackboneError as error:
            job.future.set_exception(error)  # not raised here: others may be on the list already

    def wait_for_company(self, job: ListJob[Model]) -> None:
        """Keep the list open while it is likely to grow; on a worker's thread."""
        with self._lists:
            while not job.is_sealed:
                wait = self._window_left(job, self._clock.monotonic())
                if wait <= 0 or job.deadline.expired:
                    return
                self._lists.wait(job.deadline.remaining_or(wait))

    def _window_left(self, job: ListJob[Model], now: float) -> float:
        if len(job.symbols) >= self._limit:
            return 0.0
        if self._away:
            return job.opened_at + PREDECESSOR_SECONDS - now
        return min(job.last_at + self._window, job.opened_at + self._window * LONGEST_WINDOWS) - now

    def seal(self, job: ListJob[Model]) -> RestCall:
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

    # --- unknown codes --------------------------------------------------------------------------------------

    def _sort_out(
        self, job: ListJob[Model], mine: Sequence[str], deadline: Deadline, priority: Priority
    ) -> Outcome[Model]:
        """A code on the list does not exist: note which, and ask again for those of `mine` that may exist.

        Everyone who was on the list does so; their questions meet again on the next list.
        """
        absent = set(job.symbols) if len(job.symbols) == 1 else self._not_listed(job.symbols, deadline, priority)
        for symbol in absent:
            self._cache.cache_data(("unknown", symbol), ABSENT, generation=job.generation)
        rest = [symbol for symbol in mine if symbol not in absent]
        if absent or not rest:
            return self._from_upbit(rest, deadline, priority)
        # The market list cannot be had, or knows no better: halve the question until the culprit stands alone.
        outcome: Outcome[Model] = Outcome()
        middle = len(rest) // 2
        for half in (rest[:middle], rest[middle:]):
            outcome.add(self._from_upbit(half, deadline, priority, is_alone=True))
        return outcome

    def _not_listed(self, symbols: Iterable[str], deadline: Deadline, priority: Priority) -> set[str]:
        try:
            known = self._known_markets(deadline, priority)
        except UpbitBackboneError as error:
            log.info("no market list to sort out an unknown code", extra={"why": one_line(error)})
            return set()
        return {symbol for symbol in symbols if symbol not in known} if known else set()


def _checked(symbol: str) -> str:
    """Before anything is sent, so that nobody's bad code gets onto a list with others."""
    if not isinstance(symbol, str) or not CODE.fullmatch(symbol):
        raise InvalidRequestError(f"symbol {one_line(repr(symbol), 60)}: expected a market code such as 'KRW-BTC'")
    return symbol
