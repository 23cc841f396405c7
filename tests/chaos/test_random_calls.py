"""Questions of all kinds behind lines of all kinds: what `max_age` and `realtime` promise holds exactly."""

from __future__ import annotations

import pytest

from tests.chaos import random_calls
from tests.chaos.watched import say
from upbit_backbone import CandleData, OrderbookData, TickerData, TradeData


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_no_answer_is_older_than_it_may_be(seed: int) -> None:
    check(seed, 1_000)


@pytest.mark.endurance
@pytest.mark.parametrize("seed", range(10))
def test_no_answer_of_ten_thousand_is_older_than_it_may_be(seed: int) -> None:
    check(seed, 1_000)


def check(seed: int, calls: int) -> None:
    outcome = random_calls.run(seed, calls)
    say(str(outcome))
    assert not outcome.violations, f"seed {seed}: {outcome.violations[0]}"
    assert outcome.calls - outcome.errors.total() > calls / 2
    assert {type(answer.item) for answer in outcome.answers} == {TickerData, OrderbookData, TradeData, CandleData}
