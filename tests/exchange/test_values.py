"""How single values are read; what whole messages make of them is in tests/unify."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.exchange.values import EPOCH, to_moment


@given(st.integers(0, 2**33 * 1000 + 10**9))
def test_a_moment_is_exact_to_the_millisecond(stamp: int) -> None:
    moment = to_moment(stamp)
    assert moment == EPOCH + timedelta(milliseconds=stamp)
    assert moment.tzinfo is UTC


@given(st.integers(0, 2**33 * 1000 - 1))
def test_a_moment_is_what_the_clock_of_the_system_makes_of_it(stamp: int) -> None:
    assert to_moment(stamp) == datetime.fromtimestamp(stamp / 1000, UTC)
