"""The retry policy: immediate first, jittered after, capped always, and never changed but by its successor."""

from __future__ import annotations

import random
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.sessions.reconnect_policy import Backoff


def delays(policy: Backoff, count: int, seed: int = 1) -> list[float]:
    rng, given_so_far = random.Random(seed), []
    for _ in range(count):
        delay, policy = policy.retry(rng.random)
        given_so_far.append(delay)
    return given_so_far


def test_the_first_retry_is_immediate_and_the_second_is_not() -> None:
    first, second = delays(Backoff(), 2)
    assert first == 0.0
    assert 0.25 <= second <= 0.75


@given(st.integers(), st.floats(0.01, 100), st.floats(0.01, 100))
def test_no_delay_is_longer_than_the_cap_or_shorter_than_base_and_cap(seed: int, base: float, cap: float) -> None:
    later = delays(Backoff(base=base, cap=cap), 30, seed)[1:]
    assert all(min(base, cap) <= delay <= cap for delay in later)


def test_clients_that_fail_together_do_not_return_together() -> None:
    tenth = {round(delays(Backoff(), 4, seed)[-1], 3) for seed in range(100)}
    assert len(tenth) > 50


def test_delays_grow_towards_the_cap() -> None:
    runs = [delays(Backoff(), 20, seed) for seed in range(200)]
    early, late = (sum(run[position] for run in runs) / len(runs) for position in (1, 15))
    assert late > 2 * early


def test_a_policy_never_changes_and_starting_over_is_the_first_value_again() -> None:
    policy = Backoff()
    _, successor = policy.retry(lambda: 0.5)
    assert (policy.attempt, successor.attempt) == (0, 1)
    assert policy == Backoff()
    with pytest.raises(FrozenInstanceError):
        policy.attempt = 5  # type: ignore[misc]


@given(st.floats(0.1, 1000), st.floats(0, 1, exclude_max=True))
def test_slow_retries_wait_at_least_as_long_as_asked_and_little_more(seconds: float, chance: float) -> None:
    delay, successor = Backoff().retry_slowly(seconds, lambda: chance)
    assert seconds <= delay <= seconds * 1.03
    assert successor.attempt == 1
