"""Intelligent cache: REST answers that may be given a second time. The only module that knows cachetools.

A key is a DataRequest, or the tuple it comes to: the kind of data, the market, and what else tells answers apart
(`("ticker", "KRW-BTC")`). Each kind has its own lifetime. Live data is never kept here. An answer that was under way
when its subject was invalidated is not stored: whoever asks Upbit notes the `generation` first and hands it in with
the answer.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cachetools import TLRUCache

from .._concurrency import SLEEP_SECONDS, SYSTEM_CLOCK, Clock, clock_offset
from ..exchange.endpoints import BOOK_DEPTHS
from ..models.enums import RequestKind
from ..models.request import DataRequest

if TYPE_CHECKING:
    from ..models.report import CacheStats

MAX_ENTRIES: Final = 20_000
# Each invalidation is remembered for the answers still under way; a program that invalidates in a loop must not grow
# for it.
MAX_SCOPES: Final = 10_000

Key = tuple[Hashable, ...]


def key_of(request: DataRequest) -> Key:
    """Under which key the answer to `request` is kept. Neither how urgent it is nor how old its answer may be matters.

    Books are asked in few depths and trimmed, so that different requests share one answer.
    """
    kind, first, others = request.kind, request.symbols[:1] or (request.quote,), request.symbols[1:]
    if kind is RequestKind.TICKER:
        return (kind.value, *first, *others)
    if kind is RequestKind.ORDERBOOK:
        depth = next(each for each in BOOK_DEPTHS if each >= request.levels)
        return (kind.value, *first, depth, request.level, *others)
    return (kind.value, *first, request.timeframe, request.count, request.to, request.start, request.end, *others)


class Lifetime(NamedTuple):
    """An entry answers for `fresh` seconds by default and is kept for `kept`, for those who allow more."""

    fresh: float
    kept: float


LIFETIMES: Final[Mapping[str, Lifetime]] = MappingProxyType(
    {
        "ticker": Lifetime(1.0, 60.0),
        "orderbook": Lifetime(1.0, 60.0),
        "markets": Lifetime(300.0, 3600.0),
        "candles": Lifetime(3600.0, 3600.0),  # pages of closed candles only: they do not change any more
        "unknown": Lifetime(60.0, 60.0),  # markets that do not exist; one may be listed any minute
    }
)
DEFAULT_LIFETIME: Final = Lifetime(1.0, 60.0)


class CachedAnswer(NamedTuple):
    """One answer that is kept: when it came and when it was asked for (both monotonic), for how many seconds it answers
    by its kind's own measure, and for how many it is kept."""

    value: Any
    stored_at: float
    asked_at: float
    fresh: float
    kept: float

    def age(self, now: float, max_age: float | None) -> float:
        """Its age as `max_age` counts it: see `IntelligentCache.get_cached_data`."""
        return now - (self.stored_at if max_age is None else self.asked_at)

    def is_young(self, now: float, max_age: float | None) -> bool:
        """Whether it may answer who wants nothing older than `max_age` (None: its kind's own measure)."""
        # By our own measure and not by the cache's expiry: who names a `max_age` may allow more or less than the
        # default.
        limit = self.fresh if max_age is None else max_age
        # 0 asks for what is not here yet, and a coarse clock calls what came a moment ago no time old.
        return limit != 0 and self.age(now, max_age) <= limit


class CacheLook(NamedTuple):
    """What a look into the cache has found, None for nothing."""

    answer: CachedAnswer | None


class IntelligentCache:
    """Thread-safe, bounded, with one lifetime per kind. The only owner of what it holds."""

    def __init__(
        self,
        lifetimes: Mapping[str, Lifetime] | None = None,
        *,
        clock: Clock = SYSTEM_CLOCK,
        max_entries: int = MAX_ENTRIES,
    ) -> None:
        self._lifetimes = {**LIFETIMES, **(lifetimes or {})}
        self._clock = clock
        self._lock = threading.Lock()  # guards everything below; cachetools has no thread-safe class
        self._entries: TLRUCache[Key, CachedAnswer] = TLRUCache(
            max_entries, ttu=lambda _, entry, now: now + entry.kept, timer=clock.monotonic
        )
        self._generation = 0
        self._invalidated: dict[tuple[str | None, str | None], int] = {}
        self._clock_offset = clock_offset(clock)
        self._hits = self._misses = self._merged = self._stored = self._dropped = 0

    def get_cached_data(
        self, key: Key | DataRequest, max_age: float | None = None, *, counted: bool = True
    ) -> Any | None:
        """The value for `key` if it is at most `max_age` seconds old (None: its kind's own measure), else None.

        `max_age` counts from when the value was asked for, the kind's own measure from when it came: otherwise nobody
        could share what a slow REST says, just when that would help it most.
        `counted=False` leaves the question out of the hits and misses.
        """
        key = key_of(key) if isinstance(key, DataRequest) else key
        with self._lock:
            self._notice_sleep()
            return self._used(self._entries.get(key), max_age, counted)

    def look(self, key: Key | DataRequest) -> CacheLook:
        """What is kept for `key`, however old: for who decides by its age. Counts neither as hit nor as miss."""
        key = key_of(key) if isinstance(key, DataRequest) else key
        with self._lock:
            self._notice_sleep()
            return CacheLook(self._entries.get(key))

    def given(self, look: CacheLook, max_age: float | None) -> Any | None:
        """The value that `look` has found, if it is young enough, else None; counted as by `get_cached_data`."""
        with self._lock:
            return self._used(look.answer, max_age, counted=True)

    def _used(self, found: CachedAnswer | None, max_age: float | None, counted: bool) -> Any | None:
        if found is not None and found.is_young(self._clock.monotonic(), max_age):
            self._hits += counted
            return found.value
        self._misses += counted
        return None

    def age_of(self, key: Key | DataRequest) -> float | None:
        """For how many seconds the value for `key` has been asked for, None where there is none. Counts neither as hit
        nor as miss."""
        answer = self.look(key).answer
        return None if answer is None else answer.age(self._clock.monotonic(), 0.0)

    def generation(self) -> int:
        """To be noted before asking Upbit, and handed in with the answer."""
        with self._lock:
            return self._generation

    def is_outdated(self, key: Key, generation: int) -> bool:
        """Whether the subject of `key` was invalidated since `generation`."""
        with self._lock:
            return self._is_outdated(key, generation)

    def cache_data(
        self,
        key: Key | DataRequest,
        value: Any,
        ttl: float | None = None,
        generation: int | None = None,
        age: float = 0.0,
        asked_at: float = inf,
    ) -> bool:
        """Keep `value`, which is `age` seconds old already; False if its subject was invalidated since `generation`.

        `asked_at` is when it was asked for (monotonic), where that was before it came.
        """
        key = key_of(key) if isinstance(key, DataRequest) else key
        return self.cache_list({key: value}, ttl, generation, age, asked_at) == 1

    def cache_list(
        self,
        values: Mapping[Key, Any],
        ttl: float | None = None,
        generation: int | None = None,
        age: float = 0.0,
        asked_at: float = inf,
    ) -> int:
        """`cache_data` of each of one answer's `values`, by key; how many were kept."""
        with self._lock:
            self._notice_sleep()
            return self._keep(values, ttl, generation, age, asked_at)

    def _keep(
        self, values: Mapping[Key, Any], ttl: float | None, generation: int | None, age: float, asked_at: float
    ) -> int:
        # Aged by what it already was: counted from the insertion an old answer would be young again.
        stored_at = self._clock.monotonic() - age
        asked_at = min(asked_at, stored_at)
        kept = 0
        for key, value in values.items():
            # Asked under the lock that stores it: an invalidation between the two would keep what it was meant to
            # remove.
            if generation is None or not self._is_outdated(key, generation):
                lifetime = self._lifetimes.get(str(key[0]), DEFAULT_LIFETIME) if ttl is None else Lifetime(ttl, ttl)
                self._entries[key] = CachedAnswer(value, stored_at, asked_at, lifetime.fresh, lifetime.kept - age)
                kept += 1
        self._stored += kept
        return kept

    def invalidate_cache(self, symbol: str | DataRequest | None = None, data_type: str | None = None) -> int:
        """Forget everything, or what belongs to `symbol`, to `data_type`, or to both; how many entries that were.

        A DataRequest in place of the symbol stands for its market and its kind.
        """
        if isinstance(symbol, DataRequest):
            request = symbol
            symbol = request.symbols[0] if request.symbols else request.quote
            data_type = request.kind.value if data_type is None else data_type
        with self._lock:
            return self._invalidate(symbol, None if data_type is None else str(data_type))

    def count_merged(self, calls: int = 1) -> None:
        """`calls` questions were answered by a request that was under way anyway."""
        with self._lock:
            self._merged += calls

    def stats(self) -> CacheStats:
        """Hits, misses and what is kept, at one moment."""
        from ..models.report import CacheStats

        with self._lock:
            return CacheStats(
                hits=self._hits,
                misses=self._misses,
                merged=self._merged,
                stored=self._stored,
                invalidated=self._dropped,
                size=len(self._entries),
            )

    def _invalidate(self, symbol: str | None, data_type: str | None) -> int:
        # Whatever it concerns: an answer that left before this moment may not be stored for its subject.
        self._generation += 1
        if len(self._invalidated) >= MAX_SCOPES:
            # Too many to remember one by one: better refuse a few good answers than keep a bad one.
            self._invalidated = {(None, None): self._generation}
        self._invalidated[symbol, data_type] = self._generation
        doomed = [
            key
            # A copy: with cachetools even len() and `in` expire items, which changes what is walked over.
            for key in list(self._entries)
            if (symbol is None or symbol in key[1:2]) and (data_type is None or str(key[0]) == data_type)
        ]
        for key in doomed:
            self._entries.pop(key, None)
        self._dropped += len(doomed)
        return len(doomed)

    def _is_outdated(self, key: Key, generation: int) -> bool:
        if generation == self._generation:
            return False  # nothing was, since
        kind, symbol = str(key[0]), str(key[1]) if len(key) > 1 else None
        scopes = ((None, None), (symbol, None), (None, kind), (symbol, kind))
        return any(self._invalidated.get(scope, 0) > generation for scope in scopes)

    def _notice_sleep(self) -> None:
        before, self._clock_offset = self._clock_offset, clock_offset(self._clock)
        if abs(self._clock_offset - before) > SLEEP_SECONDS:
            self._invalidate(None, None)

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

    def __repr__(self) -> str:
        stats = self.stats()
        return (
            f"<IntelligentCache {stats.size} entries, {stats.hits} hits, {stats.misses} misses, {stats.merged} merged>"
        )
