"""Questions about many markets: whatever is asked at about the same time leaves as one list.

Upbit fails a whole list for one unknown code; then the codes that do not exist are found out with the market list, and
the others are asked again.
"""

from __future__ import annotations

import logging
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
from .rest_boarding import Boarding, ListJob
from .rest_lane import RestLane

log = logging.getLogger("upbit_backbone.rest")

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
        self._cache = cache
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

    def _read(self, body: bytes, received_at: datetime, generation: int) -> list[Model]:
        items = self._decode(body, received_at)
        self.keep(items, generation)
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
        is_fresh_wanted: bool = False,
        is_alone: bool = False,
    ) -> Outcome[Model]:
        outcome: Outcome[Model] = Outcome()
        boarded = self._boarding.board(symbols, deadline, priority, is_fresh_wanted=is_fresh_wanted, is_alone=is_alone)
        for job, mine in boarded.items():
            try:
                items = job.result(deadline, f"{self._kind} of {one_line(', '.join(mine), 60)}")
            except UnknownSymbolError:
                outcome.add(self._sort_out(job, mine, deadline, priority))
            except UpbitBackboneError as error:
                if job.is_to_be_asked_again(error, deadline):
                    outcome.add(self._from_upbit(mine, deadline, priority, is_fresh_wanted=is_fresh_wanted))
                else:
                    outcome.add(Outcome(error=error))
            else:
                wanted = set(mine)
                outcome.add(Outcome({item.symbol: item for item in items if item.symbol in wanted}))
        return outcome

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
