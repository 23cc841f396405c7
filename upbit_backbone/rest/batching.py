"""Order books by REST: asked in few depths and trimmed, so that different requests meet on one list."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Final, Generic, Protocol, TypeVar

from .._concurrency import Clock, Deadline, EventCount, get_logger
from ..errors import InvalidRequestError, MalformedDataError, UnknownSymbolError, UpbitBackboneError, one_line
from ..exchange.endpoints import BOOK_DEPTHS, RestCall, check_levels
from ..exchange.symbols import CODE
from ..models.enums import Priority
from ..models.market import OrderbookData
from ..store.intelligent_cache import IntelligentCache, Key
from ..unify.rest import error_of, unread_of
from .call import Job
from .group_queue import GroupQueue

# Where symbols that are asked at about the same time get onto one list.
#
# A question that meets no other leaves at once. Behind one that is under way, and for a moment after two have met, a
# list
# stays open: while its predecessor is under way, a little longer while more arrive, and in any case until there is a
# turn
# to send it.

# How often the quiet that ends a list may be put off, and how long a slow predecessor may hold it back.
LONGEST_WINDOWS: Final = 20
PREDECESSOR_SECONDS: Final = 0.1
# How long after two questions met the next one is expected to meet another.
CROWD_SECONDS: Final = 0.05

Answer = TypeVar("Answer")


class ListJob(Job[list[Answer]]):
    """One list: open until it is sealed, then one call. Its boarding's lock guards all that is its own."""

    def __init__(
        self, boarding: Boarding[Answer], generation: int, now: float, priority: Priority, deadline: Deadline
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

    def read(self, body: bytes, received_at: datetime) -> list[Answer]:
        return self._boarding.read(body, received_at, self.generation, self.sent_at)


Boarded = dict[ListJob[Answer], list[str]]


class Boarding(Generic[Answer]):
    """The open list and those under way. Thread-safe."""

    def __init__(
        self,
        *,
        key: Callable[[str], Key],
        make_call: Callable[[Iterable[str]], RestCall],
        read: Callable[[bytes, datetime, int, float], list[Answer]],
        lane: GroupQueue,
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
        self._lists = threading.Lock()  # guards the four below, and the jobs' own state
        self._changed = EventCount()
        self._open: ListJob[Answer] | None = None
        self._under_way: dict[str, ListJob[Answer]] = {}
        self._away: set[ListJob[Answer]] = set()
        self._crowded_until = float("-inf")

    def board(
        self,
        symbols: Sequence[str],
        deadline: Deadline,
        priority: Priority,
        *,
        max_age: float | None,
        is_alone: bool,
    ) -> Boarded[Answer]:
        """Find each symbol a place: on a list that has it already, on the open one, or on a new one.

        None that left longer ago than `max_age`, because what it brings was true then; with `is_alone` none that others
        are on. Where the question meets no other, its answer is there when this returns.
        """
        generation = self._cache.generation()
        boarded: Boarded[Answer] = {}
        started: list[ListJob[Answer]] = []

        def start() -> ListJob[Answer]:
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
                    self._find_places(symbols, generation, max_age, start, boarded)
                for job in boarded:
                    job.join(deadline)
                for job in started:
                    job.expects_company = is_crowded
            self._cache.count_merged(len(boarded) - len(started))
            for job in started:
                self._lane.execute(job, here=not is_crowded and len(boarded) == 1)
        except BaseException:
            for job in started:
                job.desert()
            raise
        return boarded

    def _find_places(
        self,
        symbols: Sequence[str],
        generation: int,
        max_age: float | None,
        start: Callable[[], ListJob[Answer]],
        boarded: Boarded[Answer],
    ) -> None:
        job = self._open
        for symbol in symbols:
            shared = self._under_way.get(symbol)
            if shared is not None and self._is_joinable(shared, symbol, max_age):
                boarded.setdefault(shared, []).append(symbol)
                continue
            if job is None or job.generation != generation or len(job.symbols) >= self._limit:
                job = self._open = start()
            boarded.setdefault(self._fill(job, (symbol,)), []).append(symbol)

    def _fill(self, job: ListJob[Answer], symbols: Iterable[str]) -> ListJob[Answer]:
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

    def _is_joinable(self, job: ListJob[Answer], symbol: str, max_age: float | None) -> bool:
        is_outdated = self._cache.is_outdated(self._key(symbol), job.generation)
        return not is_outdated and job.is_joinable(self._clock.monotonic(), max_age)

    def wait_for_company(self, job: ListJob[Answer]) -> None:
        """Keep the list open while it is likely to grow; on a worker's thread."""
        while not job.is_sealed and not job.deadline.expired:
            with self._lists:
                wait = self._window_left(job, self._clock.monotonic())
            if wait <= 0:
                return
            self._wait_for_change(job, wait)

    def _wait_for_change(self, job: ListJob[Answer], seconds: float) -> None:
        away = len(self._away)
        self._changed.wait_for(lambda: job.is_sealed or len(self._away) != away, job.deadline.sooner(seconds))

    def _window_left(self, job: ListJob[Answer], now: float) -> float:
        if len(job.symbols) >= self._limit or not job.expects_company:
            return 0.0
        if self._away:
            return job.opened_at + PREDECESSOR_SECONDS - now
        return min(job.last_at + self._window, job.opened_at + self._window * LONGEST_WINDOWS) - now

    def seal(self, job: ListJob[Answer]) -> RestCall:
        """The call of a list that leaves now."""
        with self._lists:
            self._close(job)
            self._away.add(job)
            symbols = list(job.symbols)
        return self._make_call(symbols)

    def _close(self, job: ListJob[Answer]) -> None:
        job.is_sealed = True
        if self._open is job:
            self._open = None

    def _landed(self, job: ListJob[Answer] | None) -> None:
        if job is None:
            return  # nobody waits for it, and no table holds it
        with self._lists:
            self._close(job)
            self._away.discard(job)
            for symbol in job.symbols:
                if self._under_way.get(symbol) is job:
                    del self._under_way[symbol]
        self._changed.notify_all()

    def __repr__(self) -> str:
        return f"<Boarding {len(self._away)} lists under way{', one open' if self._open else ''}>"


# Questions about many markets: whatever is asked at about the same time leaves as one list.
#
# Upbit fails a whole list for one unknown code; then the market list tells which codes to suspect, each of those is
# asked for by itself, and the others are asked again. Only such a refusal means that a market does not exist: one
# that an
# answer merely left out is asked for once more, and then it is an error of Upbit's.

log = get_logger("upbit_backbone.rest")

EMPTY: Final[Mapping[str, UpbitBackboneError]] = MappingProxyType({})
ABSENT: Final = object()  # kept for a market that does not exist
# So many suspects are asked for one by one; of more, the market list and the refusal of the whole list are believed.
MAX_SUSPECTS: Final = 10


class HasSymbol(Protocol):
    @property
    def symbol(self) -> str: ...


Model = TypeVar("Model", bound=HasSymbol)


class Answers(dict[str, Model]):
    """By symbol what Upbit said; `refused` are the markets it spoke of in a way that cannot be read, or that have no
    price yet, each with the error for whoever asked for that very one."""

    __slots__ = ("refused",)

    def __init__(
        self, found: Iterable[tuple[str, Model]] = (), refused: Mapping[str, UpbitBackboneError] = EMPTY
    ) -> None:
        super().__init__(found)
        self.refused = refused


def refused_in(items: Sequence[HasSymbol], wanted: Iterable[str]) -> dict[str, UpbitBackboneError]:
    """Which of the `wanted` markets are among the rows that could not be read. A row that does not even say its market
    may be any that is missing."""
    rows = unread_of(items)
    if not rows:
        return {}
    by_symbol = {row.symbol: row for row in rows}
    missing = set(wanted) - {item.symbol for item in items}
    nameless = next((row for row in rows if row.symbol is None or not CODE.fullmatch(row.symbol)), None)
    found = ((symbol, by_symbol.get(symbol, nameless)) for symbol in missing)
    return {symbol: error_of(row, symbol) for symbol, row in found if row is not None}


@dataclass(slots=True)
class Outcome(Generic[Model]):
    """What came of a question: the found ones, those whose rows could not be read, and the first error. Without an
    error, Upbit has refused the rest."""

    found: dict[str, Model] = field(default_factory=dict)
    error: UpbitBackboneError | None = None
    refused: dict[str, UpbitBackboneError] = field(default_factory=dict)

    def add(self, other: Outcome[Model]) -> None:
        self.found.update(other.found)
        self.refused.update(other.refused)
        self.error = self.error or other.error


class ListDesk(Generic[Model]):
    """Where tickers, or order books of one depth, are asked."""

    def __init__(
        self,
        kind: str,
        variant: tuple[object, ...],
        *,
        lane: GroupQueue,
        cache: IntelligentCache,
        clock: Clock,
        make_call: Callable[[Iterable[str]], RestCall],
        decode: Callable[[bytes, datetime], list[Model]],
        remember: Callable[[Sequence[Model]], object],
        known_markets: Callable[[Deadline, Priority], frozenset[str]],
        window_seconds: float,
        limit: int,
        may_leave_out: bool = False,
    ) -> None:
        self._kind = kind
        self._variant = variant
        self._may_leave_out = may_leave_out
        self._cache = cache
        self._clock = clock
        self._decode = decode
        self._remember = remember
        self._known_markets = known_markets
        self._boarding: Boarding[Model] = Boarding(
            key=self.key,
            make_call=make_call,
            read=self._read,
            lane=lane,
            cache=cache,
            clock=clock,
            window_seconds=window_seconds,
            limit=limit,
        )

    def ask(
        self, symbols: Iterable[str], deadline: Deadline, priority: Priority, max_age: float | None
    ) -> Answers[Model]:
        """What Upbit says about those of `symbols` that exist, at most `max_age` seconds old, in the order given.

        MalformedDataError where Upbit answered twice without saying anything about one of them, not even that it does
        not exist.
        With `max_age=0` nothing that left before this call counts.
        """
        wanted = dict.fromkeys(_checked(symbol) for symbol in symbols)
        found, missing = self._from_cache(wanted, max_age)
        refused: Mapping[str, UpbitBackboneError] = EMPTY
        if missing:
            outcome = self._from_upbit(missing, deadline, priority, max_age=max_age)
            if outcome.error is not None:
                raise outcome.error
            found.update(outcome.found)
            refused = outcome.refused
        return Answers(((symbol, found[symbol]) for symbol in wanted if symbol in found), refused)

    def key(self, symbol: str) -> Key:
        return (self._kind, symbol, *self._variant)

    def from_cache(self, symbols: Iterable[str], max_age: float | None) -> dict[str, Model] | None:
        """All of `symbols` from the cache, or None if one of them is missing."""
        found, missing = self._from_cache(symbols, max_age)
        return None if missing else found

    def keep(self, items: Sequence[Model], generation: int, sent_at: float) -> None:
        """Fresh answers to a request that left at `sent_at`, into the cache and on to whoever wants to know."""
        age = max(0.0, self._clock.monotonic() - sent_at)
        for item in items:
            self._cache.cache_data(self.key(item.symbol), item, generation=generation, age=age)
        self._remember(items)

    def _read(self, body: bytes, received_at: datetime, generation: int, sent_at: float) -> list[Model]:
        items = self._decode(body, received_at)
        self.keep(items, generation, sent_at)
        return items

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
        max_age: float | None = None,
        is_alone: bool = False,
        is_second: bool = False,
    ) -> Outcome[Model]:
        outcome: Outcome[Model] = Outcome()
        boarded = self._boarding.board(symbols, deadline, priority, max_age=max_age, is_alone=is_alone)
        for job, mine in boarded.items():
            try:
                items = job.result(deadline, f"{self._kind} of {one_line(', '.join(mine), 60)}")
            except UnknownSymbolError:
                outcome.add(self._sort_out(job, mine, deadline, priority))
            except UpbitBackboneError as error:
                if job.is_to_be_asked_again(error, deadline):
                    outcome.add(self._from_upbit(mine, deadline, priority, max_age=max_age))
                else:
                    outcome.add(Outcome(error=error))
            else:
                wanted = set(mine)
                found = {item.symbol: item for item in items if item.symbol in wanted}
                outcome.add(Outcome(found, refused=refused_in(items, wanted)))
                left_out = [symbol for symbol in mine if symbol not in found and symbol not in outcome.refused]
                if left_out and not self._may_leave_out:
                    outcome.add(self._once_more(left_out, deadline, priority, is_second=is_second))
        return outcome

    def _once_more(
        self, symbols: Sequence[str], deadline: Deadline, priority: Priority, *, is_second: bool
    ) -> Outcome[Model]:
        """Ask for what an answer left out: an answer may be cut, and a market that does not exist is refused."""
        if not is_second:
            return self._from_upbit(symbols, deadline, priority, is_alone=True, is_second=True)
        names = one_line(", ".join(symbols), 60)
        error = MalformedDataError(f"{self._kind} of {names}: Upbit answered twice and left it out; ask again")
        return Outcome(error=error)

    # --- unknown codes --------------------------------------------------------------------------------------

    def _sort_out(
        self, job: ListJob[Model], mine: Sequence[str], deadline: Deadline, priority: Priority
    ) -> Outcome[Model]:
        """A code on the list does not exist: note which, and ask again for those of `mine` that may exist.

        Everyone who was on the list does so; their questions meet again on the next list.
        """
        if len(job.symbols) == 1:
            self._note_absent(mine, job)
            return Outcome()
        suspects = self._not_listed(job.symbols, deadline, priority)
        if len(suspects) > MAX_SUSPECTS:
            self._note_absent(suspects, job)
            return self._from_upbit([symbol for symbol in mine if symbol not in suspects], deadline, priority)
        parts = [[symbol] for symbol in mine if symbol in suspects]
        rest = [symbol for symbol in mine if symbol not in suspects]
        if not suspects:  # no market list, or it knows no better: the question is halved until the culprit is alone
            middle = len(rest) // 2
            parts, rest = [rest[:middle], rest[middle:]], []
        outcome = self._from_upbit(rest, deadline, priority)
        for part in filter(None, parts):
            outcome.add(self._from_upbit(part, deadline, priority, is_alone=True))
        return outcome

    def _note_absent(self, symbols: Iterable[str], job: ListJob[Model]) -> None:
        for symbol in symbols:
            self._cache.cache_data(("unknown", symbol), ABSENT, generation=job.generation)

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


MAX_DESKS: Final = 64


class BookDesks:
    """One desk for each depth and price grouping, made when first asked for."""

    def __init__(self, make: Callable[[int, Decimal], ListDesk[OrderbookData]]) -> None:
        self._make = make
        self._lock = threading.Lock()  # guards _desks
        self._desks: dict[tuple[int, Decimal], ListDesk[OrderbookData]] = {}

    def ask(
        self,
        symbols: Iterable[str],
        levels: int,
        level: Decimal | int,
        deadline: Deadline,
        priority: Priority,
        max_age: float | None,
    ) -> Answers[OrderbookData]:
        """Books with at most `levels` levels a side; see `ListDesk.ask`."""
        check_levels(levels, level)
        depth = next(each for each in BOOK_DEPTHS if each >= levels)
        books = self._desk(depth, Decimal(level)).ask(symbols, deadline, priority, max_age)
        if depth == levels:
            return books
        cut = (
            (symbol, replace(book, asks=book.asks[:levels], bids=book.bids[:levels])) for symbol, book in books.items()
        )
        return Answers(cut, books.refused)

    def _desk(self, depth: int, level: Decimal) -> ListDesk[OrderbookData]:
        with self._lock:
            desk = self._desks.get((depth, level))
            if desk is None:
                if len(self._desks) >= MAX_DESKS:
                    self._desks.clear()  # whoever waits at one of them keeps it
                desk = self._desks[depth, level] = self._make(depth, level)
            return desk
