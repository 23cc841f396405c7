"""Current means proven: every reason why not, and who is believed when two values contradict each other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from upbit_backbone.intake import CONVINCING_OUTLIERS, IMPLAUSIBLY_AHEAD, TimestampGuard
from upbit_backbone.models.enums import DataType
from upbit_backbone.models.request import Topic
from upbit_backbone.models.session import SessionHealth
from upbit_backbone.store.freshness import (
    OUTVOTED_SECONDS,
    SHUFFLE_SECONDS,
    Verdict,
    is_current,
    judge,
    why_not_current,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
BTC = Topic(DataType.TICKER, "KRW-BTC")
LIVENESS = 10.0
OFFSET = 1_790_000_000.0  # the wall clock minus the monotonic one


class Known:
    """Evidence for a value stamped at noon that came at monotonic 100."""

    def __init__(self, health: SessionHealth, *, epoch: int = 1, proven: bool = True, stamp: datetime = NOON) -> None:
        self.topic = BTC
        self.stamp = self.peak = stamp
        self.health = health
        self.epoch = epoch
        self.monotonic = 100.0
        self.proven = proven
        self.late_by = 0.0


def live_pulse() -> SessionHealth:
    health = SessionHealth("ws-1")
    health.connected = True
    health.epoch = 1
    health.heard_at = 100.0
    health.clock_offset = OFFSET
    return health


def test_a_quiet_market_is_current_however_old_its_last_trade() -> None:
    health = live_pulse()
    known = Known(health, stamp=NOON - timedelta(hours=3))
    health.heard_at = 5000.0
    assert is_current(known, 5001.0, OFFSET, LIVENESS)
    assert why_not_current(known, 5001.0, OFFSET, LIVENESS) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda health, known: setattr(health, "connected", False), "not connected"),
        (lambda health, known: setattr(health, "epoch", 2), "snapshot after the reconnection"),
        (lambda health, known: setattr(health, "heard_at", 89.9), "not been heard for 11.1 s"),
        (lambda health, known: setattr(health, "clock_offset", OFFSET - 3600.0), "the machine slept"),
        (lambda health, known: setattr(health, "clock_offset", OFFSET + 2.5), "its clock was set"),
        (lambda health, known: setattr(health, "suspect", True), "silently stalled"),
        (lambda health, known: setattr(health, "mute", frozenset({BTC})), "mute"),
        (lambda health, known: setattr(known, "proven", False), "contradicts"),
    ],
)
def test_each_doubt_has_a_name(change: object, reason: str) -> None:
    health = live_pulse()
    known = Known(health)
    assert is_current(known, 101.0, OFFSET, LIVENESS)
    change(health, known)  # type: ignore[operator]
    assert not is_current(known, 101.0, OFFSET, LIVENESS)
    assert reason in (why_not_current(known, 101.0, OFFSET, LIVENESS) or "")


def test_nothing_received_is_not_current() -> None:
    assert why_not_current(None, 0.0, OFFSET, LIVENESS) == "nothing has been received on the stream"


def test_another_mute_topic_is_no_doubt() -> None:
    health = live_pulse()
    health.mute = frozenset({Topic(DataType.TICKER, "KRW-ETH")})
    assert is_current(Known(health), 101.0, OFFSET, LIVENESS)


def test_a_clock_that_is_merely_adjusted_is_no_doubt() -> None:
    assert is_current(Known(live_pulse()), 101.0, OFFSET + 1.5, LIVENESS)


SECOND = timedelta(seconds=1)

# stamp, epoch, came at, known proven, REST's stamp, verdict: known is stamped NOON in epoch 1 and came at 100
JUDGEMENTS = {
    "newer is taken": (NOON + SECOND, 1, 101, True, None, Verdict.TAKE),
    "equal stamps: the later arrival wins": (NOON, 1, 101, True, None, Verdict.TAKE),
    "a straggler is refused": (NOON - SECOND, 1, 101, True, None, Verdict.REFUSE),
    "older for long: neither is trusted": (NOON - SECOND, 1, 100 + SHUFFLE_SECONDS + 1, True, None, Verdict.DOUBT),
    "older for a minute: the newer was the odd one": (
        NOON - SECOND,
        1,
        100 + OUTVOTED_SECONDS + 1,
        True,
        None,
        Verdict.TAKE_UNPROVEN,
    ),
    "a quiet market's snapshot after a reconnection": (NOON, 2, 500, True, None, Verdict.TAKE),
    "a replayed snapshot after a reconnection": (NOON - SECOND, 2, 500, True, None, Verdict.REFUSE),
    "REST showed newer than this snapshot": (NOON + SECOND, 2, 500, True, NOON + 9 * SECOND, Verdict.TAKE_UNPROVEN),
    "REST agrees with this snapshot": (NOON + SECOND, 2, 500, True, NOON + SECOND, Verdict.TAKE),
    "REST settles a doubt for the older": (NOON - SECOND, 1, 500, False, NOON - SECOND, Verdict.TAKE),
    "newer than a doubted one settles it": (NOON + SECOND, 1, 500, False, None, Verdict.TAKE),
    "newer than a doubted one but older than REST": (
        NOON + SECOND,
        1,
        500,
        False,
        NOON + 9 * SECOND,
        Verdict.TAKE_UNPROVEN,
    ),
}


@pytest.mark.parametrize("case", JUDGEMENTS)
def test_judgement(case: str) -> None:
    stamp, epoch, came, proven, rest, verdict = JUDGEMENTS[case]
    health = live_pulse()
    assert judge(stamp, health, epoch, came, Known(health, proven=proven), rest) is verdict


def test_the_first_value_is_taken_unless_rest_shows_newer() -> None:
    health = live_pulse()
    assert judge(NOON, health, 1, 1.0, None, None) is Verdict.TAKE
    assert judge(NOON, health, 1, 1.0, None, NOON + SECOND / 2) is Verdict.TAKE
    assert judge(NOON, health, 1, 1.0, None, NOON + 5 * SECOND) is Verdict.TAKE_UNPROVEN


def test_a_stamp_from_the_far_future_is_believed_when_all_say_so() -> None:
    horizon = TimestampGuard()
    horizon.wall = NOON
    future = NOON + IMPLAUSIBLY_AHEAD * 2
    assert horizon.allows(NOON)
    assert not horizon.allows(future)
    assert horizon.allows(NOON + SECOND)
    answers = [horizon.allows(future) for _ in range(CONVINCING_OUTLIERS + 1)]
    assert answers == [False] * (CONVINCING_OUTLIERS - 1) + [True, True]
    horizon.wall = NOON + SECOND  # our own clock is wrong, and stays wrong
    assert horizon.allows(future + SECOND)


def test_what_a_clock_far_ahead_lets_through_is_not_let_through_once_it_is_right() -> None:
    horizon = TimestampGuard()
    horizon.wall = NOON + IMPLAUSIBLY_AHEAD * 100
    assert horizon.allows(NOON)
    assert horizon.allows(NOON + SECOND)
    horizon.wall = NOON + 2 * SECOND
    assert not horizon.allows(NOON + IMPLAUSIBLY_AHEAD * 2)
    assert horizon.allows(NOON + 3 * SECOND)
