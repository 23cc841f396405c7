"""One clock for all: Upbit's, as REST's dates and the stamps of every session tell it, and robust to one that lies."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.clock import BEGIN, ManualClock
from upbit_backbone.store.exchange_clock import ClockOffset, ExchangeClock

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
NOON_SECONDS = NOON.timestamp()


def http_date(moment: datetime) -> str:
    return format_datetime(moment.replace(microsecond=0), usegmt=True)


def told_by_rest(*samples: tuple[float, float], into: ClockOffset | None = None) -> ClockOffset:
    """Answers at (seconds on our clock, true offset of the server's clock)."""
    offset = into or ClockOffset()
    for at, true_offset in samples:
        server = datetime.fromtimestamp(at + true_offset, UTC)
        offset.learn_date(http_date(server), at, elapsed=0.0)
    return offset


def rest_at(true_offset: float) -> ClockOffset:
    """REST has told this offset, to within some hundredths of a second."""
    return told_by_rest(*((1000.0 + step * 1.037, true_offset) for step in range(32)))


def streams(offset: ClockOffset, session: str, *, ahead: float, way: float, way_at_most: float) -> None:
    """News of a server whose clock is `ahead` of ours, each `way` seconds under way."""
    for step in range(5):
        received = 1100.0 + step
        offset.learn_stamp(session, received + ahead - way, received, way_at_most)


def test_nothing_is_known_before_the_first_answer() -> None:
    assert ClockOffset().estimate() is None
    assert ClockOffset().bounds() is None


@given(true_offset=st.floats(-3600, 3600), moments=st.lists(st.floats(10_000, 10_100), min_size=1, max_size=30))
def test_the_estimate_by_dates_is_never_off_by_more_than_half_a_second(
    true_offset: float, moments: list[float]
) -> None:
    offset = told_by_rest(*((at, true_offset) for at in sorted(moments)))
    estimate, bounds = offset.estimate(), offset.bounds()
    assert estimate is not None
    assert bounds is not None
    assert abs(estimate - true_offset) <= 0.5 + 1e-3
    assert bounds.low - 1e-3 <= true_offset <= bounds.high + 1e-3


def test_many_answers_tell_more_than_the_resolution_of_one() -> None:
    assert rest_at(2.25).estimate() == pytest.approx(2.25, abs=0.05)


def test_a_clock_that_was_set_is_believed_by_the_majority_and_then_wholly() -> None:
    offset = told_by_rest(*((at * 0.1, 100.0) for at in range(10)), *((at * 0.1, 160.0) for at in range(10, 32)))
    estimate = offset.estimate()
    assert estimate is not None
    assert estimate > 150


@pytest.mark.parametrize("text", [None, "", "soon", "Fri, 99 Foo 2100", "Fri, 20 Nov 2026 12:00:00", "\x00"])
def test_dates_that_are_none_teach_nothing(text: str | None) -> None:
    offset = ClockOffset()
    offset.learn_date(text, 100.0, 0.1)
    assert offset.estimate() is None


def test_a_stream_in_time_sharpens_what_a_single_date_tells() -> None:
    offset = told_by_rest((1000.0, 0.7))
    streams(offset, "session-1", ahead=0.7, way=0.010, way_at_most=0.020)
    bounds = offset.bounds()
    assert bounds is not None
    assert bounds.low == pytest.approx(0.69)
    assert 0.71 <= bounds.high <= 0.74


def test_a_stream_late_from_its_start_is_late_and_no_difference_of_clocks() -> None:
    offset = rest_at(0.0)
    before = offset.bounds()
    streams(offset, "session-1", ahead=0.0, way=40.0, way_at_most=0.020)
    assert offset.bounds() == before


def test_without_rest_the_longest_way_tells_how_late_a_stream_may_be() -> None:
    offset = ClockOffset()
    streams(offset, "session-1", ahead=0.0, way=40.0, way_at_most=41.0)
    bounds = offset.bounds()
    assert bounds is not None
    assert bounds.low == pytest.approx(-40.0)
    assert 1.0 <= bounds.high <= 1.03


@pytest.mark.parametrize("late", [0.0, 30.0])
def test_one_session_whose_stamps_lie_ahead_is_not_believed(late: float) -> None:
    offset = rest_at(0.0)
    streams(offset, "session-1", ahead=0.0, way=0.01 + late, way_at_most=0.02 + late)
    streams(offset, "session-2", ahead=25.0, way=0.01, way_at_most=0.02)
    assert offset.estimate() == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("quicker", [0.0004, 0.02])
def test_a_stamp_that_is_the_quickest_while_an_answer_is_due_does_not_move_the_clock_by_seconds(quicker: float) -> None:
    offset = ClockOffset()
    streams(offset, "session-1", ahead=0.0, way=0.03, way_at_most=0.031)

    offset.learn_stamp("session-1", 1105.0 - 0.03 + quicker, 1105.0, way=5.1)

    bounds = offset.bounds()
    assert bounds is not None
    assert bounds.low == pytest.approx(quicker - 0.03)
    # By how much it was quicker, the others have waited; so may it have.
    assert quicker + 0.001 <= bounds.high <= 0.02 + 6 * quicker


def test_a_stream_that_was_late_before_tells_nothing_of_what_is_quicker_by_seconds() -> None:
    offset = ClockOffset()
    streams(offset, "session-1", ahead=0.0, way=3.0, way_at_most=0.01)

    offset.learn_stamp("session-1", 1115.0, 1115.0, way=5.1)

    bounds = offset.bounds()
    assert bounds is not None
    assert bounds.low == 0.0
    assert 5.1 <= bounds.high <= 5.6


@pytest.mark.parametrize("seed", range(20))
def test_where_every_stamp_has_waited_for_a_core_the_clock_is_not_told_too_early(seed: int) -> None:
    offset, rng = ClockOffset(), random.Random(seed)
    for step in range(300):
        received = 1100.0 + step / 10
        waited = 0.001 + rng.uniform(0.0, 0.03)
        offset.learn_stamp("session-1", int((received - waited) * 1000) / 1000, received, way=0.0005)

        bounds = offset.bounds()

        assert bounds is not None
        assert bounds.low <= 0.0 <= bounds.high, f"after {step + 1} stamps"
    assert bounds.high < 0.005, "the more have come, the less of it is allowed for"


def test_where_hardly_a_stamp_has_waited_the_clock_is_soon_told_to_the_millisecond() -> None:
    offset = ClockOffset()
    for step in range(100):
        received = 1100.0 + step / 10
        offset.learn_stamp("session-1", received - 0.010 - step % 10 / 10_000, received, way=0.015)
    bounds = offset.bounds()
    assert bounds is not None
    assert 0.005 <= bounds.high <= 0.0075


def test_sessions_that_agree_show_that_rests_clock_is_behind() -> None:
    offset = rest_at(-30.0)
    for number in range(3):
        streams(offset, f"session-{number}", ahead=0.0, way=0.01, way_at_most=0.02)
    assert offset.estimate() == pytest.approx(0.0, abs=0.1)


def test_without_rest_most_of_the_sessions_are_believed() -> None:
    offset = ClockOffset()
    streams(offset, "session-1", ahead=25.0, way=0.01, way_at_most=0.02)
    streams(offset, "session-2", ahead=0.0, way=0.01, way_at_most=0.02)
    streams(offset, "session-3", ahead=0.0, way=0.02, way_at_most=0.03)
    assert offset.estimate() == pytest.approx(0.0, abs=0.05)


def test_a_session_that_has_gone_is_forgotten_after_five_minutes() -> None:
    offset = ClockOffset()
    streams(offset, "session-1", ahead=25.0, way=0.01, way_at_most=0.02)
    for second in range(0, 400, 5):
        offset.learn_stamp("session-2", 1110.0 + second, 1110.0 + second, 0.02)
    bounds = offset.bounds()
    assert bounds is not None
    assert bounds.high < 1.0


def our_clock(wrong_by: float = 0.0) -> ManualClock:
    clock = ManualClock(NOON + timedelta(seconds=BEGIN))
    clock.wall_ahead = wrong_by
    return clock


def stamps_come(clock: ExchangeClock, ours: ManualClock, upbits_now: datetime) -> None:
    """So many that none is thought to have waited."""
    for _ in range(10):
        clock.learn_stamp("session-1", upbits_now, ours.now, 0.01)


@pytest.mark.parametrize("wrong_by", [0.0, 3600.0, -86_400.0])
def test_ages_are_told_by_upbits_clock_however_wrong_ours_is(wrong_by: float) -> None:
    ours = our_clock(wrong_by)
    clock = ExchangeClock(ours)
    assert clock.seconds_since(NOON, ours.now) is None
    upbits_now = NOON + timedelta(seconds=ours.now + 0.5)
    clock.learn_date(http_date(upbits_now), ours.now, elapsed=0.0)
    stamps_come(clock, ours, upbits_now)
    ahead = clock.ahead
    assert ahead == pytest.approx(0.5 - wrong_by, abs=0.02)
    age = clock.seconds_since(upbits_now - timedelta(seconds=7), ours.now)
    assert age == pytest.approx(7.0, abs=0.02)
    bound = clock.latest_time(ours.now)
    assert bound is not None
    assert upbits_now <= bound <= upbits_now + timedelta(seconds=0.02)


def test_our_clock_may_be_corrected_while_we_measure() -> None:
    ours = our_clock()
    clock = ExchangeClock(ours)
    stamps_come(clock, ours, NOON + timedelta(seconds=ours.now))
    ours.wall_ahead = 1.5  # set by the system's own time service
    assert clock.seconds_since(NOON, ours.now) == pytest.approx(ours.now, abs=0.02)


def test_after_the_machine_slept_nothing_that_was_known_holds() -> None:
    ours = our_clock()
    clock = ExchangeClock(ours)
    stamps_come(clock, ours, NOON + timedelta(seconds=ours.now))
    ours.wall_ahead = 3600.0  # the monotonic clock stood still for an hour
    upbits_now = NOON + timedelta(seconds=ours.now + 3600.0)
    stamps_come(clock, ours, upbits_now)
    assert clock.seconds_since(upbits_now, ours.now) == pytest.approx(0.0, abs=0.02)


def test_what_a_thread_waited_for_a_core_after_an_answer_had_come_counts_as_its_way() -> None:
    ours = our_clock()
    clock = ExchangeClock(ours)
    written_at, asked_at = NOON + timedelta(seconds=ours.now), ours.now - 0.1
    ours.now += 2.0  # before anybody looks
    clock.learn_date(http_date(written_at), ours.now, ours.now - asked_at)
    bound = clock.latest_time(ours.now)
    assert bound is not None
    assert bound >= NOON + timedelta(seconds=ours.now)
