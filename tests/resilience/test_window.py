"""The window under every schedule hypothesis can think of: no second ever sees an eleventh request."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from upbit_backbone.resilience.window import HEALING_SECONDS, TRANSIT_SECONDS, Slot, Window


def busiest_second(arrivals: list[float]) -> int:
    """The most arrivals in any window [t, t + 1)."""
    arrivals = sorted(arrivals)
    return max((bisect_left(arrivals, at + 1.0) - index for index, at in enumerate(arrivals)), default=0)


def send_whenever_allowed(window: Window, seconds: float, latency: float, now: float = 1000.0) -> list[float]:
    """One greedy client without any delay of its own; arrival half-way, answer after `latency`."""
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
            arrivals.append(now + min(latency / 2, TRANSIT_SECONDS))
            answers.append((now + latency, slot))
        now = min([at for at, _ in answers] + [max(window.earliest(now), now + 0.001)])
    return arrivals


@pytest.mark.parametrize("latency", [0.0, 0.005, 0.05, 0.2, 1.5])
def test_a_greedy_client_gets_nine_a_second_and_never_eleven(latency: float) -> None:
    arrivals = send_whenever_allowed(Window(10.0), 60.0, latency)
    assert busiest_second(arrivals) <= 10
    assert len(arrivals) / 60.0 >= 9.0


def test_an_idle_window_lets_ten_go_at_once_and_the_eleventh_a_second_later() -> None:
    window = Window(10.0)
    for _ in range(10):
        window.sent(window.take(5.0), 5.0)
    assert window.available(5.0) == 0
    assert 6.0 < window.earliest(5.0) < 6.1


@pytest.mark.parametrize(
    ("rate", "seconds", "most"), [(0.5, 10.0, 5), (1.0, 10.0, 10), (3.0, 10.0, 30), (9.5, 10.0, 95)]
)
def test_other_rates_hold_as_well(rate: float, seconds: float, most: int) -> None:
    arrivals = send_whenever_allowed(Window(rate), seconds, 0.01)
    assert most * 0.85 <= len(arrivals) <= most + max(1, int(rate))
    assert busiest_second(arrivals) <= max(1, round(rate + 0.5))


def test_a_slot_that_waits_for_its_connection_counts_until_it_has_left() -> None:
    window = Window(10.0)
    slots = [window.take(0.0) for _ in range(10)]
    assert window.available(4.0) == 0  # four seconds of dialling
    for slot in slots:
        window.sent(slot, 4.0)
    assert window.available(4.9) == 0
    assert window.available(5.2) == 10


def test_a_slot_given_back_is_free_at_once_and_a_sent_one_cannot_be() -> None:
    window = Window(1.0)
    slot = window.take(0.0)
    window.give_back(slot)
    assert window.available(0.0) == 1
    sent = window.take(0.0)
    window.sent(sent, 0.0)
    window.give_back(sent)
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
    window.learn(3, sent_at=0.0, now=0.01)  # ten less ours would leave nine
    assert window.available(0.01) == 3
    assert window.available(1.2) == 10


def test_our_own_requests_are_not_mistaken_for_strangers() -> None:
    window = Window(10.0)
    for count in range(1, 11):
        window.sent(window.take(0.0), 0.0)
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
    for _ in range(10):
        window.sent(window.take(0.0), 0.0)
    assert window.earliest(0.1, ahead=0) == pytest.approx(1.08)
    assert window.earliest(0.1, ahead=9) == pytest.approx(1.08)
    assert window.earliest(0.1, ahead=10) == pytest.approx(2.08)
    assert Window(10.0).earliest(3.0, ahead=9) == 3.0
    assert Window(10.0).earliest(3.0, ahead=10) == 4.0


@dataclass
class Flight:
    slot: Slot
    sent_at: float | None = None
    arrived_at: float | None = None


class Requests(RuleBasedStateMachine):
    """Requests that are taken, delayed, sent, answered or given back in any order, against a server that counts."""

    @initialize(rate=st.sampled_from([1.0, 2.0, 5.0, 10.0]))
    def begin(self, rate: float) -> None:
        self.now = 1000.0
        self.window = Window(rate)
        self.rate = rate
        self.flights: list[Flight] = []
        self.arrivals: list[float] = []

    @rule(seconds=st.floats(0.0, 1.5))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(count=st.integers(1, 12))
    def take(self, count: int) -> None:
        for _ in range(min(count, self.window.available(self.now))):
            self.flights.append(Flight(self.window.take(self.now)))

    @precondition(lambda self: any(each.sent_at is None for each in self.flights))
    @rule(data=st.data(), transit=st.floats(0.0, TRANSIT_SECONDS))
    def send(self, data: st.DataObject, transit: float) -> None:
        flight = data.draw(st.sampled_from([each for each in self.flights if each.sent_at is None]))
        if self.now - flight.slot.held_since > 29:
            return
        self.window.sent(flight.slot, self.now)
        flight.sent_at, flight.arrived_at = self.now, self.now + transit
        self.arrivals.append(flight.arrived_at)

    @precondition(lambda self: any(each.sent_at is not None for each in self.flights))
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        flight = data.draw(st.sampled_from([each for each in self.flights if each.sent_at is not None]))
        assert flight.arrived_at is not None
        self.now = max(self.now, flight.arrived_at)
        self.window.answered(flight.slot, self.now)
        self.flights.remove(flight)

    @precondition(lambda self: any(each.sent_at is None for each in self.flights))
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        flight = data.draw(st.sampled_from([each for each in self.flights if each.sent_at is None]))
        before = self.window.used
        self.window.give_back(flight.slot)
        self.flights.remove(flight)
        assert self.window.used <= before

    @rule(remaining=st.integers(0, 10), age=st.floats(0.0, 1.0))
    def learn(self, remaining: int, age: float) -> None:
        self.window.learn(remaining, self.now - age, self.now)

    @rule(seconds=st.none() | st.floats(0.0, 5.0))
    def refused(self, seconds: float | None) -> None:
        self.window.penalise(seconds, self.now, self.now)
        assert self.window.available(self.now) == 0

    @invariant()
    def no_second_is_overfull(self) -> None:
        assert busiest_second(self.arrivals[-40:]) <= self.rate

    @invariant()
    def the_forecast_is_honest(self) -> None:
        if self.window.available(self.now):
            assert self.window.earliest(self.now) == self.now
        assert 1 <= self.window.ceiling <= self.window.limit


TestRequests = Requests.TestCase
TestRequests.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
