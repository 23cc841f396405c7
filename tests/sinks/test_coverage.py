"""Coverage against a plain reference: every millisecond looked at alone."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.sinks.coverage import (
    NOT_RECORDED,
    TICK,
    Coverage,
    CoverageState,
    Interval,
    KnownGap,
    coverage,
    merged,
)

from .conftest import START

LAST = 40


def moment(tick: int):
    return START + tick * TICK


ticks = st.integers(0, LAST)
spans = st.lists(st.tuples(ticks, ticks).map(lambda two: Interval(moment(min(two)), moment(max(two)))), max_size=6)
gaps = st.lists(
    st.tuples(ticks, ticks, st.integers(0, 1)).map(
        lambda each: KnownGap(moment(min(each[:2])), moment(max(each[:2])), "receipt", each[2])
    ),
    max_size=4,
)


def is_complete(tick: int, known: list[Interval], holes: list[KnownGap]) -> bool:
    here = moment(tick)
    return any(each.start <= here < each.end for each in known) and not any(
        each.start <= here <= each.end for each in holes
    )


@given(spans, gaps)
def test_every_tick_of_the_window_is_in_one_stretch_and_complete_where_a_span_and_no_gap_is(known, holes):
    window = Interval(moment(-3), moment(LAST + 3))
    stretches = coverage(known, holes, window)
    assert [each.start for each in stretches[1:]] == [each.end for each in stretches[:-1]]
    assert (stretches[0].start, stretches[-1].end) == window
    for tick in range(-3, LAST + 3):
        (here,) = [each for each in stretches if each.start <= moment(tick) < each.end]
        assert (here.state is CoverageState.COMPLETE) == is_complete(tick, known, holes)
        told = [gap for gap in holes if gap.start <= moment(tick) <= gap.end]
        if here.state is not CoverageState.COMPLETE:
            assert here.reason == ("receipt" if told else NOT_RECORDED)
        if here.state is CoverageState.PARTIAL:
            assert any(gap.recovered for gap in told)


@given(spans)
def test_merged_stretches_are_in_order_and_apart_and_cover_the_same(known):
    found = merged(known)
    assert all(one.end < other.start for one, other in pairwise(found))
    for tick in range(LAST + 1):
        here = moment(tick)
        assert any(each.start <= here < each.end for each in known) == any(
            each.start <= here < each.end for each in found
        )


def test_without_a_window_it_reaches_from_the_first_to_the_last_that_is_known():
    second = timedelta(seconds=1)
    known = [Interval(START, START + second), Interval(START + 3 * second, START + 4 * second)]
    assert coverage(known, []) == [
        Coverage(start=START, end=START + second, state=CoverageState.COMPLETE),
        Coverage(
            start=START + second, end=START + 3 * second, state=CoverageState.MISSING, reason=NOT_RECORDED
        ),
        Coverage(start=START + 3 * second, end=START + 4 * second, state=CoverageState.COMPLETE),
    ]  # fmt: skip
    assert coverage([], []) == []
