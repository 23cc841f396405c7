"""A short storm over real sockets: nothing lost, doubled, hidden or left behind."""

from __future__ import annotations

import sys

import pytest

from benchmarks.storming.conductor import CONNECT_LIMIT, MESSAGE_LIMIT, REST_LIMIT
from benchmarks.storming.plan import BY_NAME, VISIBLE, Fault, burst_of
from benchmarks.storming.run import Outcome, run
from benchmarks.storming.show import render

pytestmark = pytest.mark.endurance

SECONDS = 42.0
SILENT_SECONDS = 2.5
AT_LEAST_AVAILABLE = 0.8
RECOVERED_SECONDS = 8.0
# Watchful settings, so that a freeze is found in two seconds instead of ten.
SETTINGS = {"ping_interval_seconds": 1.0, "pong_timeout_seconds": 1.0, "liveness_seconds": 3.0}
FAULTS = (
    Fault(2.0, BY_NAME["close 1001"]),
    Fault(5.0, BY_NAME["REST bans, FIN"].without_rest_for(5.0)),
    Fault(9.0, BY_NAME["RST"]),
    Fault(11.0, BY_NAME["garbage messages"]),
    Fault(12.0, BY_NAME["unknown words and nulls, FIN"]),
    Fault(13.0, burst_of(5_000)),
    Fault(16.0, BY_NAME["reserved opcode"]),
    Fault(19.0, BY_NAME["accepted, then closed"].lasting(2.0)),
    Fault(24.0, BY_NAME["REST hangs, RST"].without_rest_for(3.0)),
    Fault(30.0, BY_NAME["freeze"].lasting(4.0)),
    Fault(38.0, BY_NAME["FIN"]),
)


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return run(FAULTS, SECONDS, seed=11, stale_seconds=15.5, **SETTINGS)  # however busy the machine


def test_no_trade_is_lost_or_doubled(outcome: Outcome) -> None:
    sys.stdout.write(render(outcome))  # shown when something below fails
    assert outcome.ours.published > 300
    assert (outcome.ours.lost, outcome.ours.duplicated) == (0, 0)


def test_no_gap_goes_unreported(outcome: Outcome) -> None:
    assert outcome.ours.unreported == 0


def test_the_stream_comes_back_after_every_fault(outcome: Outcome) -> None:
    assert outcome.reader_ended == ""
    assert outcome.ours.of_best >= AT_LEAST_AVAILABLE
    for fault, took in outcome.ours.recoveries:
        assert took <= RECOVERED_SECONDS, fault.kind.name


def test_a_line_that_is_open_is_not_silent_whatever_rest_does(outcome: Outcome) -> None:
    assert outcome.ours.longest_silence <= SILENT_SECONDS


def test_every_visible_fault_is_told(outcome: Outcome) -> None:
    told = {outcome.faults[number].kind.name for number in outcome.detected}
    assert {fault.kind.name for fault in FAULTS if fault.kind.group == VISIBLE} <= told


def test_every_question_ends_by_its_deadline_and_nothing_stale_passes_for_current(outcome: Outcome) -> None:
    assert outcome.ours.answers > 100
    assert outcome.ours.late_answers == 0
    assert outcome.ours.stale_unmarked == 0
    assert not outcome.ours.problems


def test_upbits_limits_hold_on_the_wire(outcome: Outcome) -> None:
    wire = outcome.pressure
    assert (wire.rest <= REST_LIMIT, wire.connects <= CONNECT_LIMIT, wire.messages <= MESSAGE_LIMIT) == (True,) * 3
    assert wire.refused == 0


def test_closing_is_quick_and_leaves_nothing(outcome: Outcome) -> None:
    assert outcome.close_seconds <= 2.5
    assert outcome.left == []
