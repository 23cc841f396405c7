"""The window under every schedule hypothesis can think of: no second ever sees an eleventh request."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from math import sin
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support.clock import TICK, ticked
from upbit_backbone.limits.window import HEALING_SECONDS, UNDELIVERED_SECONDS, WOKEN_SECONDS, Slot, Window


def busiest_second(arrivals: list[float]) -> int:
    """The most arrivals in any window [t, t + 1)."""
    arrivals = sorted(arrivals)
    return max((bisect_left(arrivals, at + 1.0) - index for index, at in enumerate(arrivals)), default=0)


Ways = Callable[[float], tuple[float, float]]


def symmetrical(latency: float) -> Ways:
    return lambda now: (latency / 2, latency / 2)


def send_whenever_allowed(window: Window, seconds: float, ways: Ways, now: float = 1000.0) -> list[float]:
    """One greedy client without any delay of its own; `ways(now)` is how long a request is under way there and back."""
    arrivals: list[float] = []
    answers: list[tuple[float, Slot]] = []
    end = now + seconds
    while now < end:
        for at, slot in [entry for entry in answers if entry[0] <= now]:
            window.answered(slot, at)
            answers.remove((at, slot))
        while window.available(now):
            slot = window.take(now)
            window.sent(slot, now)
            there, back = ways(now)
            arrivals.append(now + there)
            answers.append((now + there + back, slot))
        now = min([at for at, _ in answers] + [max(window.next_change(now), now + 0.001)])
    return arrivals


@pytest.mark.parametrize(("latency", "least"), [(0.0, 9.7), (0.005, 9.7), (0.05, 9.5), (0.15, 9.2), (1.5, 6.0)])
def test_a_greedy_client_gets_nine_a_second_and_never_eleven(latency: float, least: float) -> None:
    arrivals = send_whenever_allowed(Window(10.0), 60.0, symmetrical(latency))
    assert busiest_second(arrivals) <= 10
    assert len(arrivals) / 60.0 >= least


@pytest.mark.parametrize("phase", [0.0, 0.004, 0.008, 0.012])
@pytest.mark.parametrize("latency", [0.0, 0.003, 0.01, 0.0157, 0.02, 0.05])
def test_a_clock_that_ticks_coarsely_fills_no_second_beyond_ten(latency: float, phase: float) -> None:
    """Windows: what it calls no time at all may be 15.6 ms, and what it calls 15.6 ms next to nothing."""
    window, now, arrivals = Window(10.0), 1000.0, []
    while now < 1060.0:
        while window.available(ticked(now)):
            slot = window.take(ticked(now))
            now += phase  # the thread had other things to do, so that the tick comes anywhere
            window.sent(slot, ticked(now))
            arrivals.append(now + latency / 2)
            now += latency
            window.answered(slot, ticked(now))
        now = max(window.next_change(ticked(now)), now + 0.001)
    assert busiest_second(arrivals) <= 10
    assert len(arrivals) / 60.0 >= 8.5


def test_a_refusal_within_the_same_tick_as_the_last_is_the_same_offence() -> None:
    window = Window(10.0)
    assert window.penalise(None, sent_at=5.0, now=5.0) == 6.0
    assert window.penalise(None, sent_at=5.0, now=5.0) is None
    assert window.penalise(None, sent_at=5.0 + TICK, now=5.1) == 7.1


@pytest.mark.parametrize(
    ("ways", "least"),
    [
        (lambda now: (0.1, 0.0), 9.4),
        (lambda now: (0.0, 0.1), 9.4),
        (lambda now: (0.15, 0.15) if now % 20 < 10 else (0.05, 0.05), 8.8),
        (lambda now: (0.1 + 0.05 * sin(now / 3), 0.1 - 0.05 * sin(now / 3)), 9.0),
    ],
    ids=["all of it there", "all of it back", "suddenly a third", "swinging"],
)
def test_wherever_and_however_long_the_way_no_second_is_overfull(ways: Ways, least: float) -> None:
    arrivals = send_whenever_allowed(Window(10.0), 120.0, ways)
    assert busiest_second(arrivals) <= 10
    assert len(arrivals) / 120.0 >= least


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spread", [0.01, 0.1, 0.4])
def test_jitter_costs_turns_but_fills_no_second_beyond_ten(seed: int, spread: float) -> None:
    chance = Random(seed)
    arrivals = send_whenever_allowed(
        Window(10.0), 60.0, lambda now: (0.05 + chance.random() * spread, 0.05 + chance.random() * spread)
    )
    assert busiest_second(arrivals) <= 10


def use_up(window: Window, now: float) -> list[Slot]:
    slots = [window.take(now) for _ in range(window.available(now))]
    for slot in slots:
        window.sent(slot, now)
    return slots


def test_an_idle_window_lets_ten_go_at_once_and_the_eleventh_a_second_later() -> None:
    window = Window(10.0)
    for slot in use_up(window, 5.0):
        window.answered(slot, 5.01)
    assert window.available(5.02) == 0
    assert 6.01 < window.earliest(5.02) < 6.1
    assert window.next_change(5.02) == window.earliest(5.02)


def test_a_server_that_pauses_does_not_wake_up_to_a_crowd() -> None:
    window = Window(10.0)
    slots = use_up(window, 0.0)
    assert window.available(3.0) == 0  # all ten are under way, and may arrive now
    for slot in slots[:5]:
        window.answered(slot, 3.0)
    for slot in slots[5:]:
        window.finished(slot, 3.0)  # no answer: a timeout, a reset
    assert window.available(3.9) == 0
    assert window.available(4.1) == 10


def test_a_request_that_was_given_up_on_keeps_its_place_until_it_cannot_be_delivered_any_more() -> None:
    window = Window(10.0)
    for slot in use_up(window, 0.0):
        window.finished(slot, 0.3, is_given_up=True)
    assert window.available(UNDELIVERED_SECONDS) == 0
    assert window.available(UNDELIVERED_SECONDS + 1.5) == 10


def test_an_answer_to_a_later_request_shows_that_those_given_up_on_have_arrived() -> None:
    window = Window(10.0)
    earlier = [window.take(0.0) for _ in range(8)]
    for slot in earlier:
        window.sent(slot, 0.0)
        window.finished(slot, 0.3, is_given_up=True)
    later, last = window.take(1.0), window.take(1.0)
    window.sent(later, 1.0)
    window.sent(last, 2.0)
    window.finished(last, 2.3, is_given_up=True)
    window.answered(later, 8.0)
    assert window.available(8.0 + WOKEN_SECONDS + 0.9) == 1, (
        "the answered one is over, the others may just be worked off"
    )
    assert window.available(8.0 + WOKEN_SECONDS + 1.1) == 9, "but for the one that left after it"


@pytest.mark.parametrize("seed", range(20))
def test_a_server_that_stood_still_never_finds_an_eleventh_request(seed: int) -> None:
    """It stands still now and then for up to 15 s, works off what has come when it wakes, and clients wait briefly."""
    chance, window, now = Random(seed), Window(10.0), 0.0
    stops = [(at, at + chance.uniform(1.0, 15.0)) for at in (5.0, 30.0, 70.0, 110.0)]
    arrivals: list[float] = []
    answers: list[tuple[float, Slot]] = []
    timeouts: list[tuple[float, Slot]] = []
    while now < 150.0:
        for entry in [entry for entry in answers if entry[0] <= now]:
            answers.remove(entry)
            if any(slot is entry[1] for _, slot in timeouts):  # somebody still waits for it
                timeouts = [each for each in timeouts if each[1] is not entry[1]]
                window.answered(entry[1], entry[0])
                window.finished(entry[1], entry[0])
        for entry in [entry for entry in timeouts if entry[0] <= now]:
            timeouts.remove(entry)
            window.finished(entry[1], entry[0], is_given_up=True)
        while window.available(now):
            slot = window.take(now)
            window.sent(slot, now)
            standing = next((stop for stop in stops if stop[0] <= now < stop[1]), None)
            arrivals.append(now + 0.005 if standing is None else standing[1] + chance.uniform(0.0, WOKEN_SECONDS / 2))
            answers.append((arrivals[-1] + 0.005, slot))
            timeouts.append((now + chance.choice((0.05, 0.2, 1.0)), slot))
        now += 0.01
    assert busiest_second(arrivals) <= 10
    assert len(arrivals) > 500


def test_a_wait_shorter_than_answers_usually_take_proves_nothing() -> None:
    window = Window(10.0)
    slot = window.take(0.0)
    window.sent(slot, 0.0)
    assert window.proves_silence(slot, 0.05), "nothing is known: nothing heard is nothing heard"
    window.answered(slot, 0.1)
    assert not window.proves_silence(slot, 5.0)
    other = window.take(1.0)
    window.sent(other, 1.0)
    assert not window.proves_silence(other, 0.15)
    assert window.proves_silence(other, 0.25)


@pytest.mark.parametrize(
    ("rate", "seconds", "most"), [(0.5, 10.0, 5), (1.0, 10.0, 10), (3.0, 10.0, 30), (9.5, 10.0, 95)]
)
def test_other_rates_hold_as_well(rate: float, seconds: float, most: int) -> None:
    arrivals = send_whenever_allowed(Window(rate), seconds, symmetrical(0.01))
    assert most * 0.85 <= len(arrivals) <= most + max(1, int(rate))
    assert busiest_second(arrivals) <= max(1, round(rate + 0.5))


def test_a_slot_that_waits_for_its_connection_counts_until_it_has_left_and_been_answered() -> None:
    window = Window(10.0)
    slots = [window.take(0.0) for _ in range(10)]
    assert window.available(4.0) == 0  # four seconds of dialling
    for slot in slots:
        window.sent(slot, 4.0)
        window.answered(slot, 4.0)
    assert window.available(4.9) == 0
    assert window.available(5.1) == 10


def test_a_slot_that_was_not_used_is_free_at_once_and_a_sent_one_is_not() -> None:
    window = Window(1.0)
    window.finished(window.take(0.0), 0.0)
    assert window.available(0.0) == 1
    sent = window.take(0.0)
    window.sent(sent, 0.0)
    window.finished(sent, 0.0)
    assert window.available(0.0) == 0


def test_a_slot_nobody_settles_comes_back_in_the_end() -> None:
    window = Window(1.0)
    window.take(0.0)
    assert window.available(29.0) == 0
    assert window.available(31.0) == 1


def test_strangers_on_the_same_budget_are_counted_as_if_they_were_ours() -> None:
    window = Window(10.0)
    slot = window.take(0.0)
    window.sent(slot, 0.0)
    window.answered(slot, 0.01)
    window.learn(3, sent_at=0.0, now=0.01)  # ten less ours would leave nine
    assert window.available(0.01) == 3
    assert window.available(1.2) == 10


def test_our_own_requests_are_not_mistaken_for_strangers() -> None:
    window = Window(10.0)
    slots = use_up(window, 0.0)
    for count, slot in enumerate(slots, 1):
        window.answered(slot, 0.02)
        window.learn(10 - count, sent_at=0.0, now=0.02)
    assert window.used == 10
    window.learn(0, sent_at=0.0, now=0.9)  # old news changes nothing
    assert window.used == 10


def test_a_429_stops_the_group_and_halves_its_rate_until_it_heals() -> None:
    window = Window(10.0)
    until = window.penalise(None, sent_at=1.0, now=1.1)
    assert until == pytest.approx(2.1)
    assert window.available(2.0) == 0
    assert window.earliest(1.2) == until
    assert window.available(2.2) == 5
    assert window.available(2.2 + HEALING_SECONDS * 20) >= 6


def test_ten_429s_of_one_burst_are_one_offence() -> None:
    window = Window(10.0)
    assert window.penalise(None, sent_at=1.0, now=1.1) is not None
    assert [window.penalise(None, sent_at=1.0, now=1.1 + n / 100) for n in range(9)] == [None] * 9
    assert window.ceiling == 5
    assert window.penalties == 10


def test_each_further_offence_stops_longer_and_a_stated_time_is_kept() -> None:
    window = Window(10.0)
    now, lengths = 0.0, []
    for _ in range(8):
        until = window.penalise(None, sent_at=now, now=now)
        assert until is not None
        lengths.append(until - now)
        now = until
    assert lengths == [1, 2, 4, 8, 16, 30, 30, 30]
    assert window.ceiling == 1
    stated = window.penalise(100.0, sent_at=now, now=now)
    assert stated == now + 100.0


def test_a_penalised_window_is_itself_again_after_quiet() -> None:
    window = Window(10.0)
    window.penalise(None, sent_at=0.0, now=0.0)
    for minute in range(1, 20):
        window.available(minute * 60.0)
    assert window.ceiling == 10


def test_the_forecast_for_a_place_in_the_queue_is_never_later_than_what_happens() -> None:
    window = Window(10.0)
    slots = use_up(window, 0.0)
    assert window.earliest(0.1) == 0.1  # any answer may come any moment; nobody is refused for a guess
    for slot in slots:
        window.answered(slot, 0.0)
    assert window.earliest(0.1, ahead=0) == pytest.approx(1.02)
    assert window.earliest(0.1, ahead=9) == pytest.approx(1.02)
    assert window.earliest(0.1, ahead=10) == pytest.approx(2.02)
    assert Window(10.0).earliest(3.0, ahead=9) == 3.0
    assert Window(10.0).earliest(3.0, ahead=10) == 4.0


@dataclass
class Flight:
    slot: Slot
    sent_at: float | None = None
    arrived_at: float | None = None


class Requests(RuleBasedStateMachine):
    """Requests that are taken, delayed, sent, answered, lost or given back in any order, against a server that counts.

    Only the shortest way there and back is given; every single one may take as long as it likes.
    """

    @initialize(rate=st.sampled_from([1.0, 2.0, 5.0, 10.0]), way=st.sampled_from([0.0, 0.001, 0.05, 0.2]))
    def begin(self, rate: float, way: float) -> None:
        self.now = 1000.0
        self.window = Window(rate)
        self.rate = rate
        self.way = way
        self.flights: list[Flight] = []
        self.arrivals: list[float] = []

    def under_way(self, *, sent: bool) -> list[Flight]:
        return [each for each in self.flights if (each.sent_at is not None) == sent]

    @rule(seconds=st.floats(0.0, 1.5))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(count=st.integers(1, 12))
    def take(self, count: int) -> None:
        for _ in range(min(count, self.window.available(self.now))):
            self.flights.append(Flight(self.window.take(self.now)))

    @rule()
    def a_quick_exchange(self) -> None:
        """There are always some that meet no delay; from them the window learns how long the way is."""
        if self.window.available(self.now):
            slot = self.window.take(self.now)
            self.window.sent(slot, self.now)
            self.arrivals.append(self.now + self.way)
            self.now += 2 * self.way
            self.window.answered(slot, self.now)

    @precondition(lambda self: self.under_way(sent=False))
    @rule(data=st.data(), delay=st.floats(0.0, 3.0))
    def send(self, data: st.DataObject, delay: float) -> None:
        flight = data.draw(st.sampled_from(self.under_way(sent=False)))
        self.window.sent(flight.slot, self.now)
        flight.sent_at, flight.arrived_at = self.now, self.now + self.way + delay
        self.arrivals.append(flight.arrived_at)

    @precondition(lambda self: self.under_way(sent=True))
    @rule(data=st.data(), delay=st.floats(0.0, 1.0), is_lost=st.booleans())
    def end(self, data: st.DataObject, delay: float, is_lost: bool) -> None:
        flight = data.draw(st.sampled_from(self.under_way(sent=True)))
        assert flight.arrived_at is not None
        self.now = max(self.now, flight.arrived_at + self.way + delay)
        if not is_lost:
            self.window.answered(flight.slot, self.now)
        self.window.finished(flight.slot, self.now)
        self.flights.remove(flight)

    @precondition(lambda self: self.under_way(sent=False))
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        flight = data.draw(st.sampled_from(self.under_way(sent=False)))
        before = self.window.used
        self.window.finished(flight.slot, self.now)
        self.flights.remove(flight)
        assert self.window.used == before - 1

    @rule(remaining=st.integers(0, 10), age=st.floats(0.0, 1.0))
    def learn(self, remaining: int, age: float) -> None:
        self.window.learn(remaining, self.now - age, self.now)

    @rule(seconds=st.none() | st.floats(0.0, 5.0))
    def refused(self, seconds: float | None) -> None:
        self.window.penalise(seconds, self.now, self.now)
        assert self.window.available(self.now) == 0

    @invariant()
    def slots_are_not_kept_too_long_for_this_test(self) -> None:
        for flight in [each for each in self.flights if self.now - each.slot.held_since > 20]:
            self.window.finished(flight.slot, self.now)
            self.flights.remove(flight)

    @invariant()
    def no_second_is_overfull(self) -> None:
        assert busiest_second([at for at in self.arrivals if at <= self.now][-60:]) <= self.rate

    @invariant()
    def the_forecast_is_honest(self) -> None:
        if self.window.available(self.now):
            assert self.window.earliest(self.now) == self.now
        assert 1 <= self.window.ceiling <= self.window.limit


TestRequests = Requests.TestCase
TestRequests.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
