"""The breaker: five failures open it, one probe at a time, two successes close it, neutral outcomes change nothing."""

from __future__ import annotations

import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.clock import ManualClock
from upbit_backbone._concurrency import Deadline, join_all, spawn
from upbit_backbone.errors import ChannelUnavailableError
from upbit_backbone.models.events import BreakerEvent, Event
from upbit_backbone.resilience.circuit_breaker import LOST_PROBE_SECONDS, Attempt, CircuitBreaker


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def breaker(clock: ManualClock, events: list[Event]) -> CircuitBreaker:
    return CircuitBreaker("REST ticker", failures=5, reset_seconds=5.0, clock=clock, emit=events.append)


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        with breaker.admit() as attempt:
            attempt.failed(OSError("no route to host"))


def succeed(breaker: CircuitBreaker) -> None:
    with breaker.admit() as attempt:
        attempt.succeeded()


def open_up(breaker: CircuitBreaker) -> None:
    fail(breaker, 5)
    assert breaker.state == "open"


def changes(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.old, event.new) for event in events if isinstance(event, BreakerEvent)]


def test_five_failures_in_a_row_open_it_and_four_do_not(breaker: CircuitBreaker, events: list[Event]) -> None:
    fail(breaker, 4)
    succeed(breaker)
    fail(breaker, 4)
    assert breaker.state == "closed"
    fail(breaker)
    assert breaker.state == "open"
    assert changes(events) == [("closed", "open")]
    assert isinstance(events[0], BreakerEvent)
    assert "no route to host" in events[0].reason


def test_an_open_one_refuses_at_once_and_says_when_to_come_back(breaker: CircuitBreaker, clock: ManualClock) -> None:
    open_up(breaker)
    clock.now += 2.0
    with pytest.raises(ChannelUnavailableError, match="no route to host") as caught:
        breaker.admit()
    assert caught.value.retry_after == 3.0
    refusal = breaker.refusal()
    assert refusal is not None
    assert refusal.retry_after == 3.0


def test_one_probe_at_a_time_and_two_good_ones_close_it(
    breaker: CircuitBreaker, clock: ManualClock, events: list[Event]
) -> None:
    open_up(breaker)
    clock.now += 5.0
    assert breaker.refusal() is None
    with breaker.admit() as probe:
        with pytest.raises(ChannelUnavailableError):
            breaker.admit()
        probe.succeeded()
    assert breaker.state == "half-open"
    succeed(breaker)
    assert breaker.state == "closed"
    assert changes(events) == [("closed", "open"), ("open", "half-open"), ("half-open", "closed")]


def test_a_call_that_goes_anyway_closes_it_when_it_works_and_changes_nothing_else(
    clock: ManualClock, events: list[Event]
) -> None:
    breaker = CircuitBreaker("connect", failures=5, reset_seconds=5.0, probes=1, clock=clock, emit=events.append)
    open_up(breaker)
    with breaker.admit_anyway() as attempt:
        attempt.failed(OSError("still no route"))
    assert breaker.state == "open"
    assert "still no route" in str(breaker.refusal())
    with breaker.admit_anyway():
        pass  # neither good nor bad
    assert breaker.state == "open"
    clock.now += 1.0
    with breaker.admit_anyway() as attempt:
        attempt.succeeded()
    assert breaker.state == "closed"
    assert changes(events) == [("closed", "open"), ("open", "closed")]
    fail(breaker, 4)
    assert breaker.state == "closed", "it counts anew"


def test_where_one_good_probe_is_enough_it_closes_at_once(clock: ManualClock) -> None:
    breaker = CircuitBreaker("connect", failures=5, reset_seconds=5.0, probes=1, clock=clock)
    open_up(breaker)
    clock.now += 5.0
    succeed(breaker)
    assert breaker.state == "closed"


def test_a_failed_probe_opens_it_for_another_while(breaker: CircuitBreaker, clock: ManualClock) -> None:
    open_up(breaker)
    clock.now += 5.0
    fail(breaker)
    assert breaker.state == "open"
    clock.now += 4.9
    assert breaker.refusal() is not None
    clock.now += 0.1
    assert breaker.refusal() is None


def test_neutral_outcomes_are_nothing(breaker: CircuitBreaker, clock: ManualClock) -> None:
    fail(breaker, 4)
    for _ in range(10):
        with breaker.admit():
            pass  # a 429, a 404, a caller in a hurry
    fail(breaker)
    assert breaker.state == "open"
    clock.now += 5.0
    with breaker.admit():
        pass
    assert breaker.state == "half-open"
    assert breaker.refusal() is None  # the probe told nothing, so another may go


def test_only_what_was_recorded_counts_even_when_the_block_raises(breaker: CircuitBreaker) -> None:
    for _ in range(10):
        with pytest.raises(KeyboardInterrupt), breaker.admit():
            raise KeyboardInterrupt
    assert breaker.state == "closed"


def test_late_outcomes_change_nothing(breaker: CircuitBreaker, clock: ManualClock) -> None:
    late_good, late_bad = breaker.admit(), breaker.admit()
    open_up(breaker)
    late_good.succeeded()
    assert breaker.state == "open"
    clock.now += 5.0
    with breaker.admit() as probe:
        late_bad.failed(OSError("old"))
        assert breaker.state == "half-open"
        probe.succeeded()
    succeed(breaker)
    assert breaker.state == "closed"


def test_a_probe_of_a_dead_thread_is_given_up(breaker: CircuitBreaker, clock: ManualClock) -> None:
    open_up(breaker)
    clock.now += 5.0
    breaker.admit()
    assert breaker.refusal() is not None
    clock.now += LOST_PROBE_SECONDS
    succeed(breaker)


def test_many_threads_at_a_half_open_breaker_send_one_probe(breaker: CircuitBreaker, clock: ManualClock) -> None:
    open_up(breaker)
    clock.now += 5.0
    barrier = threading.Barrier(16)
    admitted: list[Attempt] = []
    refused: list[ChannelUnavailableError] = []

    def run() -> None:
        barrier.wait(10)
        try:
            admitted.append(breaker.admit())
        except ChannelUnavailableError as error:
            refused.append(error)

    assert join_all([spawn(run, f"test-{n}") for n in range(16)], Deadline.after(20)) == []
    assert (len(admitted), len(refused)) == (1, 15)


def test_calls_do_not_wait_for_each_other(breaker: CircuitBreaker) -> None:
    with breaker.admit(), breaker.admit() as second:
        second.succeeded()
    assert breaker.state == "closed"


def test_a_listener_sees_the_new_state_and_may_ask_the_breaker_itself(clock: ManualClock) -> None:
    seen: list[str] = []
    breaker = CircuitBreaker("x", failures=1, clock=clock, emit=lambda event: seen.append(breaker.state))
    fail(breaker)
    assert seen == ["open"]


def test_it_says_in_one_line_how_it_is(breaker: CircuitBreaker) -> None:
    assert repr(breaker) == "<CircuitBreaker REST ticker closed>"


class Model(RuleBasedStateMachine):
    """Against the plainest description of a breaker that there is."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.breaker = CircuitBreaker("model", failures=3, reset_seconds=5.0, clock=self.clock)
        self.state, self.failures, self.good, self.opened_at = "closed", 0, 0, 0.0
        self.attempts: list[tuple[Attempt, int]] = []
        self.era = 0
        self.probe: Attempt | None = None
        self.probed_at = 0.0

    def change(self, state: str) -> None:
        self.state, self.failures, self.good, self.probe = state, 0, 0, None
        self.era += 1

    @rule(seconds=st.floats(0.1, 6.0))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def admit(self) -> None:
        now = self.clock.now
        is_open = self.state == "open" and now < self.opened_at + 5.0
        is_probed = self.probe is not None and now < self.probed_at + LOST_PROBE_SECONDS
        if is_open or (self.state == "half-open" and is_probed):
            with pytest.raises(ChannelUnavailableError):
                self.breaker.admit()
            return
        attempt = self.breaker.admit()
        if self.state == "open":
            self.change("half-open")
        if self.state == "half-open":
            self.probe, self.probed_at = attempt, now
        self.attempts.append((attempt, self.era))

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), outcome=st.sampled_from(["good", "bad", "neutral"]))
    def settle(self, data: st.DataObject, outcome: str) -> None:
        attempt, era = entry = data.draw(st.sampled_from(self.attempts))
        self.attempts.remove(entry)
        if outcome == "good":
            attempt.succeeded()
        elif outcome == "bad":
            attempt.failed(OSError())
        else:
            attempt.__exit__(None, None, None)
        if era != self.era:
            return
        self.probe = None
        if outcome == "bad":
            self.failures += 1
            if self.state == "half-open" or self.failures >= 3:
                self.change("open")
                self.opened_at = self.clock.now
        elif outcome == "good":
            self.failures = 0
            if self.state == "half-open":
                self.good += 1
                if self.good >= 2:
                    self.change("closed")

    @invariant()
    def states_agree(self) -> None:
        assert self.breaker.state == self.state


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
