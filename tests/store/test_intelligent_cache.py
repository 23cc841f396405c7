"""What the cache may and may not give a second time."""

from __future__ import annotations

import sys
import threading

import pytest

from tests.support.clock import ManualClock
from upbit_backbone._concurrency import Deadline, join_all, spawn
from upbit_backbone.store.intelligent_cache import MAX_SCOPES, IntelligentCache, Lifetime

BTC, ETH = ("ticker", "KRW-BTC"), ("ticker", "KRW-ETH")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def cache(clock: ManualClock) -> IntelligentCache:
    return IntelligentCache(clock=clock)


def test_a_ticker_answers_for_a_second_by_default_and_longer_for_those_who_allow_it(
    cache: IntelligentCache, clock: ManualClock
) -> None:
    cache.cache_data(BTC, "price")
    clock.now += 1.0
    assert cache.get_cached_data(BTC) == "price"
    clock.now += 0.5
    assert cache.get_cached_data(BTC) is None
    assert cache.get_cached_data(BTC, max_age=2.0) == "price"
    assert cache.get_cached_data(BTC, max_age=1.4) is None
    clock.now += 60.0
    assert cache.get_cached_data(BTC, max_age=1e9) is None


def test_max_age_zero_never_takes_an_old_answer(cache: IntelligentCache) -> None:
    cache.cache_data(BTC, "price")
    assert cache.get_cached_data(BTC, max_age=0) is None


def test_where_nothing_is_kept_nothing_is_given_though_a_coarse_clock_calls_it_no_time_old(clock: ManualClock) -> None:
    cache = IntelligentCache({"ticker": Lifetime(0.0, 60.0)}, clock=clock)
    cache.cache_data(BTC, "old")
    assert cache.get_cached_data(BTC) is None
    assert cache.get_cached_data(BTC, 0.5) == "old"


def test_each_kind_has_its_own_lifetime_and_it_can_be_configured(clock: ManualClock) -> None:
    cache = IntelligentCache({"ticker": Lifetime(5.0, 50.0)}, clock=clock)
    cache.cache_data(BTC, "price")
    cache.cache_data(("unknown", "KRW-NOPE"), "absent")
    cache.cache_data(("anything", "else"), 1, ttl=100.0)
    clock.now += 4.0
    assert cache.get_cached_data(BTC) == "price"
    clock.now += 50.0
    assert cache.get_cached_data(("unknown", "KRW-NOPE")) == "absent"
    assert cache.get_cached_data(("anything", "else")) == 1
    clock.now += 47.0
    assert cache.get_cached_data(("anything", "else")) is None


def test_the_age_of_what_is_stored_counts_from_its_birth(cache: IntelligentCache, clock: ManualClock) -> None:
    cache.cache_data(BTC, "price", age=0.8)
    assert cache.get_cached_data(BTC, max_age=1.0) == "price"
    clock.now += 0.3
    assert cache.get_cached_data(BTC, max_age=1.0) is None


def test_max_age_counts_from_when_an_answer_was_asked_for_whatever_held_it_up_since(
    cache: IntelligentCache, clock: ManualClock
) -> None:
    asked_at = clock.monotonic()
    clock.now += 0.4  # on its way, or in our own hands on a busy machine
    cache.cache_data(BTC, "price", asked_at=asked_at)
    assert cache.age_of(BTC) == pytest.approx(0.4)
    assert cache.get_cached_data(BTC, max_age=0.3) is None
    clock.now += 0.8
    assert cache.get_cached_data(BTC) == "price", "its kind's own measure counts from when it came"


def test_a_newer_answer_replaces_the_older_one(cache: IntelligentCache) -> None:
    cache.cache_data(BTC, 1)
    cache.cache_data(BTC, 2)
    assert cache.get_cached_data(BTC) == 2
    assert len(cache) == 1


@pytest.mark.parametrize(
    ("symbol", "data_type", "left"),
    [
        (None, None, set()),
        ("KRW-BTC", None, {("ticker", "KRW-ETH"), ("orderbook", "KRW-ETH", 30)}),
        (None, "ticker", {("orderbook", "KRW-BTC", 30), ("orderbook", "KRW-ETH", 30)}),
        ("KRW-BTC", "orderbook", {BTC, ETH, ("orderbook", "KRW-ETH", 30)}),
        ("KRW-XRP", None, {BTC, ETH, ("orderbook", "KRW-BTC", 30), ("orderbook", "KRW-ETH", 30)}),
    ],
)
def test_invalidation_by_symbol_and_type(
    cache: IntelligentCache, symbol: str | None, data_type: str | None, left: set[tuple[object, ...]]
) -> None:
    keys = {BTC, ETH, ("orderbook", "KRW-BTC", 30), ("orderbook", "KRW-ETH", 30)}
    for key in keys:
        cache.cache_data(key, "value")
    assert cache.invalidate_cache(symbol, data_type) == len(keys - left)
    assert {key for key in keys if cache.get_cached_data(key)} == left


def test_an_answer_in_flight_never_survives_an_invalidation(cache: IntelligentCache) -> None:
    generation = cache.generation()
    cache.invalidate_cache("KRW-BTC")
    assert cache.is_outdated(BTC, generation)
    assert not cache.cache_data(BTC, "old", generation=generation)
    assert cache.cache_data(ETH, "fine", generation=generation)
    assert cache.cache_data(BTC, "new", generation=cache.generation())
    assert cache.get_cached_data(BTC) == "new"


def test_of_a_list_in_flight_only_what_was_invalidated_is_not_kept(cache: IntelligentCache) -> None:
    generation = cache.generation()
    cache.invalidate_cache("KRW-BTC")
    assert cache.cache_list({BTC: "old", ETH: "good"}, generation=generation) == 1
    assert cache.get_cached_data(BTC) is None
    assert cache.get_cached_data(ETH) == "good"
    assert cache.stats().stored == 1


@pytest.mark.parametrize("scope", [(None, None), ("KRW-BTC", None), (None, "ticker"), ("KRW-BTC", "ticker")])
def test_every_scope_reaches_the_answers_under_way(
    cache: IntelligentCache, scope: tuple[str | None, str | None]
) -> None:
    generation = cache.generation()
    cache.invalidate_cache(*scope)
    assert not cache.cache_data(BTC, "old", generation=generation)


def test_endless_invalidations_take_no_endless_memory(cache: IntelligentCache) -> None:
    generation = cache.generation()
    for number in range(MAX_SCOPES + 10):
        cache.invalidate_cache(f"KRW-{number}")
    assert len(cache._invalidated) <= MAX_SCOPES + 1
    assert not cache.cache_data(("ticker", "KRW-0"), "old", generation=generation)
    assert cache.cache_data(BTC, "new", generation=cache.generation())


def test_the_cache_is_bounded_and_forgets_the_least_used(clock: ManualClock) -> None:
    cache = IntelligentCache(clock=clock, max_entries=100)
    for number in range(100):
        cache.cache_data(("ticker", f"KRW-{number}"), number)
    assert cache.get_cached_data(("ticker", "KRW-0")) == 0
    cache.cache_data(BTC, "one more")
    assert len(cache) == 100
    assert cache.get_cached_data(("ticker", "KRW-0")) == 0
    assert cache.get_cached_data(("ticker", "KRW-1")) is None


@pytest.mark.parametrize("jump", [3600.0, -3600.0, 2.5])
def test_a_sleeping_laptop_wakes_up_with_an_empty_cache(
    cache: IntelligentCache, clock: ManualClock, jump: float
) -> None:
    cache.cache_data(BTC, "yesterday's price")
    generation = cache.generation()
    clock.wall_ahead += jump
    assert cache.get_cached_data(BTC) is None
    assert not cache.cache_data(BTC, "asked before the sleep", generation=generation)


def test_a_clock_that_is_merely_adjusted_harms_nothing(cache: IntelligentCache, clock: ManualClock) -> None:
    cache.cache_data(BTC, "price")
    for _ in range(10):
        clock.wall_ahead += 0.5
        assert cache.get_cached_data(BTC) == "price"


def test_it_counts(cache: IntelligentCache) -> None:
    cache.get_cached_data(BTC)
    cache.cache_data(BTC, 1)
    cache.get_cached_data(BTC)
    cache.get_cached_data(ETH, counted=False)
    cache.count_merged(3)
    cache.invalidate_cache()
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.merged, stats.stored, stats.invalidated, stats.size) == (1, 1, 3, 1, 1, 0)
    assert repr(cache) == "<IntelligentCache 0 entries, 1 hits, 1 misses, 3 merged>"


def test_thirty_two_threads_cannot_corrupt_it() -> None:
    cache = IntelligentCache({"ticker": Lifetime(0.001, 0.002)}, max_entries=50)
    failures: list[BaseException] = []
    stop = threading.Event()

    def churn(seed: int) -> None:
        try:
            for number in range(2_000):
                if stop.is_set():
                    return
                key = ("ticker", f"KRW-{(seed * 31 + number) % 80}")
                cache.cache_data(key, number, generation=cache.generation())
                cache.get_cached_data(key, max_age=60.0)
                if number % 97 == 0:
                    cache.invalidate_cache(str(key[1]))
                assert len(cache) <= 50
        except BaseException as error:
            failures.append(error)
            stop.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        assert join_all([spawn(lambda n=n: churn(n), f"test-churn-{n}") for n in range(32)], Deadline.after(60)) == []
    finally:
        sys.setswitchinterval(interval)
    assert failures == []
    cache.cache_data(BTC, "fine", 60.0)
    assert cache.get_cached_data(BTC, max_age=60.0) == "fine"
