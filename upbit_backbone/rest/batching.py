"""Batching: what is asked at about the same time leaves as one list, be it tickers, books of one depth or quote lists.

A question that meets no other leaves at once. Behind one that is under way, and for a moment after two have met, a
batch stays open: while its predecessor is under way, a little longer while more arrive, and in any case until there is
a turn to send it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final, Generic, Protocol, TypeVar

from .._concurrency import Clock, Deadline, EventCount, get_logger
from ..errors import MalformedDataError, UnknownSymbolError, UpbitBackboneError, one_line
from ..exchange.endpoints import RestCall
from ..exchange.markets import CODE
from ..models.enums import Priority
from ..store.intelligent_cache import IntelligentCache, Key
from ..unify.rest import Rows, error_of, unread_of
from .group_queue import Door, GroupQueue, Job

log = get_logger("upbit_backbone.rest")

# How often the quiet that ends a window may be put off, and how long a slow predecessor may hold a batch back.
# A steady stream of questions would otherwise put the departure off for ever.
LONGEST_WINDOWS: Final = 20
PREDECESSOR_SECONDS: Final = 0.1
# How long after two questions met the next one is expected to meet another.
CROWD_SECONDS: Final = 0.05
# So many suspects are asked for one by one; of more, the market list and the refusal of the whole list are believed.
MAX_SUSPECTS: Final = 10


class HasSymbol(Protocol):
    @property
    def symbol(self) -> str: ...


Model = TypeVar("Model", bound=HasSymbol)


EMPTY: Final[Mapping[str, UpbitBackboneError]] = MappingProxyType({})


class Answers(dict[str, Model]):
    """By symbol what Upbit said; `refused` are the markets it spoke of in a way that cannot be read, that have no price
    yet, or that it left out twice (`left_out`), each with the error for whoever asked for that very one."""

    __slots__ = ("left_out", "refused")

    def __init__(
        self,
        found: Iterable[tuple[str, Model]] = (),
        refused: Mapping[str, UpbitBackboneError] = EMPTY,
        left_out: Iterable[str] = (),
    ) -> None:
        super().__init__(found)
        self.refused = refused
        self.left_out = frozenset(left_out)


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


def left_out(kind: str, name: str) -> MalformedDataError:
    """For whoever asked for what two answers lacked."""
    return MalformedDataError(f"{kind} of {name}: Upbit answered twice and left it out; ask again")


class Batch(Job[Rows[Model]]):
    """One list of names: open until it is sealed, then one call. Its batcher's lock guards all that is its own."""

    def __init__(
        self, batcher: Batcher[Model], generation: int, now: float, priority: Priority, deadline: Deadline
    ) -> None:
        super().__init__(priority, deadline)
        self._batcher = batcher
        self.generation = generation
        self.opened_at = self.last_at = now
        self.names: dict[str, None] = {}
        self.call: RestCall | None = None  # once it has left
        self.is_sealed = False  # nothing gets into it any more
        self.expects_company = False
        self._oldest = float("inf")  # that an answer of another process may be, for all who are in it

    def take_in(self, deadline: Deadline, priority: Priority, max_age: float) -> None:
        """As `join`, of who wants nothing older; 0 wants nothing of another process."""
        self.join(deadline, priority)
        self._oldest = min(self._oldest, max_age)
        self.shared_age = self._oldest or None

    def prepare(self) -> None:
        self._batcher.wait_for_company(self)

    def seal(self) -> RestCall:
        return self._batcher.seal(self)

    def read(self, body: bytes, received_at: datetime) -> Rows[Model]:
        return self._batcher.read(self, body, received_at)


@dataclass(slots=True)
class Outcome(Generic[Model]):
    """What came of a question: the found ones, those whose rows could not be read or did not come, and the first error.
    Without an error, Upbit has refused the rest."""

    found: dict[str, Model] = field(default_factory=dict)
    error: UpbitBackboneError | None = None
    refused: dict[str, UpbitBackboneError] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)  # of the refused

    def add(self, other: Outcome[Model]) -> None:
        self.found.update(other.found)
        self.refused.update(other.refused)
        self.left_out |= other.left_out
        self.error = self.error or other.error


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing(Generic[Model]):
    """What one batcher asks for: one kind of list, and how its names and answers belong together."""

    kind: str
    make_call: Callable[[Iterable[str]], RestCall]
    name_of: Callable[[str], str]  # which of the names is for the market with this symbol
    key: Callable[[str], Key]  # the cache's, of a name
    # Told of the names, the fresh items, their generation, how many seconds their request took, and how long ago
    # somebody else's left whose answer it is.
    keep: Callable[[Sequence[str], Sequence[Model], int, float, float], object]
    limit: int
    # Where the names are markets, one unknown code fails a whole list; the suspects are sorted out with these two.
    known_markets: Callable[[Deadline, Priority], frozenset[str]] | None = None
    note_absent: Callable[[str, int], object] = lambda name, generation: None
    may_leave_out: bool = True


class Batcher(Generic[Model]):
    """The open batch of one kind of list, and those under way. Thread-safe.

    Upbit fails a whole list for one unknown code; then the market list tells which codes to suspect, each of those is
    asked for by itself, and the others are asked again. Only such a refusal means that a market does not exist: one
    that an answer merely left out is asked for once more, and then it is an error of Upbit's, for that one.
    """

    def __init__(
        self,
        listing: Listing[Model],
        *,
        queue: GroupQueue,
        door: Door,
        cache: IntelligentCache,
        clock: Clock,
        window_seconds: float,
        max_age: float,
    ) -> None:
        self._max_age = max_age  # of who names none
        self.key = listing.key
        self._listing = listing
        self._queue = queue
        self._door = door
        self._cache = cache
        self._clock = clock
        self._window = window_seconds
        self._lock = threading.Lock()  # guards the five below, and the batches' own state
        self._changed = EventCount()
        self._open: Batch[Model] | None = None
        self._under_way: dict[str, Batch[Model]] = {}
        self._away: set[Batch[Model]] = set()
        self._all: set[Batch[Model]] = set()  # the open one, those away, and those on their way out
        self._crowded_until = float("-inf")

    def ask(
        self, names: Sequence[str], deadline: Deadline, priority: Priority, max_age: float | None
    ) -> Answers[Model]:
        """What Upbit says about those of `names` that exist, by symbol; nothing counts that left longer ago than
        `max_age`. Of whom Upbit answered twice without a word, not even that he does not exist, is `left_out`."""
        outcome = self._from_upbit(names, deadline, priority, max_age=max_age)
        if outcome.error is not None:
            raise outcome.error
        return Answers(outcome.found.items(), outcome.refused, outcome.left_out)

    def _from_upbit(
        self,
        names: Sequence[str],
        deadline: Deadline,
        priority: Priority,
        *,
        max_age: float | None = None,
        is_alone: bool = False,
        is_second: bool = False,
    ) -> Outcome[Model]:
        outcome: Outcome[Model] = Outcome()
        joined = self._join(names, deadline, priority, max_age=max_age, is_alone=is_alone)
        for batch, mine in joined.items():
            try:
                items = batch.answer(deadline, f"{self._listing.kind} of {one_line(', '.join(mine), 60)}")
            except UpbitBackboneError as error:
                # Upbit answers 404 for the whole list and does not say which code it meant (measured on order books).
                if isinstance(error, UnknownSymbolError) and self._listing.known_markets is not None:
                    outcome.add(self._sort_out(batch, mine, deadline, priority))
                elif batch.is_to_be_asked_again(error, deadline):
                    outcome.add(self._from_upbit(mine, deadline, priority, max_age=max_age))
                else:
                    outcome.add(Outcome(error=error))
            else:
                part = self._part(items, mine)
                outcome.add(part)
                lacking = [name for name in mine if name not in part.found and name not in part.refused]
                if lacking and not self._listing.may_leave_out:
                    outcome.add(self._once_more(lacking, deadline, priority, is_second=is_second))
        return outcome

    def _part(self, items: Rows[Model], names: Sequence[str]) -> Outcome[Model]:
        """What of a batch's answer is for whoever asked for these `names`."""
        name_of = self._listing.name_of
        wanted = set(names)
        found = {item.symbol: item for item in items if name_of(item.symbol) in wanted}
        # Of markets that were not named one by one only those can be told that say who they are.
        said = (row.symbol for row in items.unread if row.symbol is not None and name_of(row.symbol) in wanted)
        are_markets = self._listing.known_markets is not None
        return Outcome(found, refused=refused_in(items, wanted if are_markets else said))

    # --- joining a batch ------------------------------------------------------------------------------------------

    def _join(
        self, names: Sequence[str], deadline: Deadline, priority: Priority, *, max_age: float | None, is_alone: bool
    ) -> dict[Batch[Model], list[str]]:
        """Find each name a place: in a batch that has it already, in the open one, or in a new one.

        None that left longer ago than `max_age`, because what it brings was true then; with `is_alone` none that others
        are in. Where the question meets no other, its answer is there when this returns.
        """
        # Before the batch is joined: an answer that was asked for before an invalidation is not kept after it.
        generation = self._cache.generation()
        oldest = 0.0 if is_alone else self._max_age if max_age is None else max_age
        joined: dict[Batch[Model], list[str]] = {}
        started: list[Batch[Model]] = []

        def start() -> Batch[Model]:
            batch = Batch(self, generation, self._clock.monotonic(), priority, deadline)
            batch.add_done_callback(self._done)
            started.append(batch)
            self._all.add(batch)
            return batch

        try:
            with self._lock:
                is_crowded = self._is_crowded()
                if is_alone:
                    joined[self._fill(start(), names)] = list(names)
                else:
                    self._find_places(names, generation, max_age, start, joined)
                for batch in joined:
                    batch.take_in(deadline, priority, oldest)
                for batch in started:
                    batch.expects_company = is_crowded
            self._cache.count_merged(len(joined) - len(started))
            for batch in started:
                # Outside the lock: it may send the request here and now.
                self._queue.execute(batch, here=not is_crowded and len(joined) == 1)
        except BaseException:
            for batch in started:
                batch.abandon()
            raise
        return joined

    def _find_places(
        self,
        names: Sequence[str],
        generation: int,
        max_age: float | None,
        start: Callable[[], Batch[Model]],
        joined: dict[Batch[Model], list[str]],
    ) -> None:
        batch = self._open
        for name in names:
            shared = self._under_way.get(name)
            if shared is not None and self._is_joinable(shared, name, max_age):
                joined.setdefault(shared, []).append(name)
                continue
            # Questions from before and after an invalidation must not share an answer.
            if batch is None or batch.generation != generation or len(batch.names) >= self._listing.limit:
                batch = self._open = start()
            joined.setdefault(self._fill(batch, (name,)), []).append(name)

    def _fill(self, batch: Batch[Model], names: Iterable[str]) -> Batch[Model]:
        for name in names:
            batch.names[name] = None
            self._under_way[name] = batch
        batch.last_at = self._clock.monotonic()
        return batch

    def _is_crowded(self) -> bool:
        """Whether a question that comes now meets another one, or is likely to."""
        now = self._clock.monotonic()
        # Ctrl-C may come while `_done` takes one out, or before: what is done is not under way, whatever a table says.
        for batch in [each for each in self._all if each.done()]:
            self._forget(batch)
        if self._under_way:
            self._crowded_until = now + CROWD_SECONDS
        return now < self._crowded_until

    def _is_joinable(self, batch: Batch[Model], name: str, max_age: float | None) -> bool:
        is_outdated = self._cache.is_outdated(self.key(name), batch.generation)
        return not is_outdated and batch.is_joinable(self._clock.monotonic(), max_age)

    # --- on its way: called by whoever carries the batch out ------------------------------------------------------

    def wait_for_company(self, batch: Batch[Model]) -> None:
        """Keep the batch open while it is likely to grow."""
        while not batch.is_sealed and not batch.deadline.expired:
            with self._lock:
                wait = self._window_left(batch, self._clock.monotonic())
            if wait <= 0:
                return
            self._wait_for_change(batch, wait)

    def _wait_for_change(self, batch: Batch[Model], seconds: float) -> None:
        away = len(self._away)
        self._changed.wait_for(lambda: batch.is_sealed or len(self._away) != away, batch.deadline.sooner(seconds))

    def _window_left(self, batch: Batch[Model], now: float) -> float:
        if len(batch.names) >= self._listing.limit or not batch.expects_company:
            return 0.0
        # While one is under way the next gathers, but for a moment only: a predecessor that hangs must not hold
        # everybody up.
        if self._away:
            return batch.opened_at + PREDECESSOR_SECONDS - now
        return min(batch.last_at + self._window, batch.opened_at + self._window * LONGEST_WINDOWS) - now

    def seal(self, batch: Batch[Model]) -> RestCall:
        """The call of a batch that leaves now."""
        with self._lock:
            # Closed and named under one lock: who comes after it is not in the call, and must not wait for its answer.
            self._close(batch)
            self._away.add(batch)
            batch.call = self._listing.make_call(batch.names)
            return batch.call

    def read(self, batch: Batch[Model], body: bytes, received_at: datetime) -> Rows[Model]:
        assert batch.call is not None  # noqa: S101  # an answer comes to what was sent
        items: Rows[Model] = self._door(batch.call, body, received_at)
        # When it left, and not how long it took: between here and the cache a busy machine may do something else.
        self._listing.keep(tuple(batch.names), items, batch.generation, batch.left_at, batch.age)
        return items

    def _close(self, batch: Batch[Model]) -> None:
        batch.is_sealed = True
        if self._open is batch:
            self._open = None

    def _done(self, batch: Future[Rows[Model]]) -> None:
        """A batch was answered, failed or abandoned; whoever waited behind it may go."""
        assert isinstance(batch, Batch)  # noqa: S101  # it is the future that it was added to
        with self._lock:
            self._forget(batch)
        self._changed.notify_all()

    def _forget(self, batch: Batch[Model]) -> None:
        self._close(batch)
        self._away.discard(batch)
        for name in batch.names:
            # A newer batch may carry the name by now.
            if self._under_way.get(name) is batch:
                del self._under_way[name]
        self._all.discard(batch)  # last: who is interrupted before this leaves it for the next one to be forgotten

    # --- what the answer lacks ------------------------------------------------------------------------------------

    def _once_more(
        self, names: Sequence[str], deadline: Deadline, priority: Priority, *, is_second: bool
    ) -> Outcome[Model]:
        """Ask for what an answer left out: an answer may be cut, and a market that does not exist is refused."""
        # One answer that lacks a market may be cut; two say something is wrong at Upbit, but not that the market is
        # gone.
        if not is_second:
            return self._from_upbit(names, deadline, priority, is_alone=True, is_second=True)
        # For each its own: raised for all, one market that has no row failed every list and sweep it was in.
        refused: dict[str, UpbitBackboneError] = {name: left_out(self._listing.kind, name) for name in names}
        return Outcome(refused=refused, left_out=set(refused))

    def _sort_out(
        self, batch: Batch[Model], mine: Sequence[str], deadline: Deadline, priority: Priority
    ) -> Outcome[Model]:
        """A code in the batch does not exist: note which, and ask again for those of `mine` that may exist.

        Everyone who was in the batch does so; their questions meet again in the next one.
        """
        if len(batch.names) == 1:
            self._note_absent(mine, batch)
            return Outcome()
        suspects = self._not_listed(batch.names, deadline, priority)
        if len(suspects) > MAX_SUSPECTS:
            self._note_absent(suspects, batch)
            return self._from_upbit([name for name in mine if name not in suspects], deadline, priority)
        parts = [[name] for name in mine if name in suspects]
        rest = [name for name in mine if name not in suspects]
        if not suspects:  # no market list, or it knows no better: the question is halved until the culprit is alone
            middle = len(rest) // 2
            parts, rest = [rest[:middle], rest[middle:]], []
        outcome = self._from_upbit(rest, deadline, priority)
        for part in filter(None, parts):
            outcome.add(self._from_upbit(part, deadline, priority, is_alone=True))
        return outcome

    def _note_absent(self, names: Iterable[str], batch: Batch[Model]) -> None:
        for name in names:
            self._listing.note_absent(name, batch.generation)

    def _not_listed(self, names: Iterable[str], deadline: Deadline, priority: Priority) -> set[str]:
        known_markets = self._listing.known_markets
        try:
            known = known_markets(deadline, priority) if known_markets is not None else None
        except UpbitBackboneError as error:
            log.info("no market list to sort out an unknown code", extra={"why": one_line(error)})
            return set()
        return {name for name in names if name not in known} if known else set()

    def __repr__(self) -> str:
        return f"<Batcher of {self._listing.kind}, {len(self._away)} under way>"
