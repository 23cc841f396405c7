"""What one topic's stream remembers of itself: enough to tell repeats, and never more than that."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.backfill.sequence import (
    LATE_GAPS_AT_MOST,
    MEMORY,
    MEMORY_TRADES_AT_LEAST,
    MEMORY_TRADES_AT_MOST,
    ConnectionId,
    TradeSequenceTracker,
)
from upbit_backbone.models.enums import DataSource, StreamType
from upbit_backbone.models.market import TradeData

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
FIRST, SECOND = ConnectionId("ws-1", 1), ConnectionId("ws-1", 2)


def trade(number: int, second: float, stream_type: StreamType | None = None) -> TradeData:
    moment = NOON + timedelta(seconds=second)
    return TradeData(
        "KRW-BTC", Decimal(1), Decimal(1), None, moment, number, DataSource.WEBSOCKET, stream_type=stream_type
    )


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["trade"] * 8 + ["subscribed", "interrupted", "filled"]),
            st.sampled_from([FIRST, FIRST, FIRST, SECOND]),
            st.integers(0, 40),  # its id
            st.integers(0, 3),  # it is so much older than the newest
            st.sampled_from([StreamType.REALTIME] * 3 + [StreamType.SNAPSHOT]),
        ),
        max_size=60,
    )
)
def test_the_short_way_of_nearly_every_trade_says_what_the_long_one_says(
    events: list[tuple[str, ConnectionId, int, int, StreamType]],
) -> None:
    before = [trade(1000 + number, 0.0) for number in range(MEMORY_TRADES_AT_LEAST)]
    short, long = flow_of(*before), flow_of(*before)
    for turn, (what, line, number, older, stream_type) in enumerate(events):
        if what == "trade":
            # Two hours each, so that with every new id the oldest one is forgotten.
            item = trade(number, 7200.0 * (turn - older), stream_type)
            due = (item,) if short.follows(item, line) else short.arrived(item, line, 0.0)
            assert due == long.arrived(item, line, 0.0)
        for tracker in (short, long):
            if what == "subscribed":
                tracker.subscribed(line, 0.0)
            elif what == "interrupted":
                tracker.interrupted(line)
            elif what == "filled" and (gap := tracker.gap) is not None:
                tracker.fill(gap, [])
                tracker.resume(gap)
        for name in ("last", "duplicates", "too_late", "_seen", "_order", "_line", "_expected", "_is_resubscribed"):
            assert getattr(short, name) == getattr(long, name), name
        assert (short.gap is None) is (long.gap is None)
        assert short.take_doubted() is long.take_doubted()


def flow_of(*trades: TradeData) -> TradeSequenceTracker:
    tracker = TradeSequenceTracker()
    tracker.subscribed(FIRST, 0.0)
    for each in trades:
        tracker.arrived(each, FIRST, 0.0)
    return tracker


def test_ids_are_forgotten_by_exchange_time() -> None:
    tracker = flow_of(*(trade(number, number) for number in range(1000)))
    assert len(tracker._seen) == MEMORY / timedelta(seconds=1)


def test_the_last_ids_of_a_quiet_market_are_never_forgotten() -> None:
    tracker = flow_of(*(trade(number, number * 3600) for number in range(500)))
    assert len(tracker._seen) == MEMORY_TRADES_AT_LEAST
    assert tracker.arrived(trade(499, 499 * 3600), FIRST, 0.0) == ()


def test_the_ids_of_a_raging_market_are_bounded() -> None:
    tracker = flow_of(*(trade(number, number / 1e6) for number in range(MEMORY_TRADES_AT_MOST + 500)))
    assert len(tracker._seen) == MEMORY_TRADES_AT_MOST


@pytest.mark.parametrize("line", [FIRST, SECOND])
def test_a_snapshot_older_than_all_we_remember_may_be_a_repeat_and_is_not_delivered(line: ConnectionId) -> None:
    tracker = flow_of(*(trade(number, number) for number in range(1000)))
    tracker.subscribed(line, 0.0)
    assert tracker.arrived(trade(10**6, 5.0, StreamType.SNAPSHOT), line, 0.0) == ()
    assert tracker.too_late == 1
    assert tracker.take_doubted()
    assert not tracker.take_doubted()


def test_on_a_running_line_what_is_not_remembered_is_news_however_old_it_looks() -> None:
    tracker = flow_of(*(trade(number, number) for number in range(1000)))
    for stamp in (5.0, 950.5):
        late = trade(10**6 + int(stamp), stamp, StreamType.REALTIME)
        assert tracker.arrived(late, FIRST, 0.0) == (late,)
    assert tracker.too_late == 0


@pytest.mark.parametrize("moments", [0, 1, 37], ids=["one moment", "two moments", "a few"])
def test_however_many_trades_come_at_the_same_moment_all_are_delivered(moments: int) -> None:
    count = MEMORY_TRADES_AT_MOST + 5_000
    burst = [trade(number, number % (moments + 1) / 1e3, StreamType.REALTIME) for number in range(count)]
    tracker = TradeSequenceTracker()
    tracker.subscribed(FIRST, 0.0)
    assert sum(len(tracker.arrived(each, FIRST, 0.0)) for each in burst) == count
    assert len(tracker._seen) == MEMORY_TRADES_AT_MOST


def test_what_is_forgotten_while_a_hole_is_open_does_not_come_twice() -> None:
    tracker = flow_of(*(trade(number, number / 10) for number in range(200)))
    tracker.interrupted(FIRST)
    tracker.subscribed(SECOND, 0.0)
    assert tracker.arrived(trade(5000, 7200), SECOND, 0.0) == ()
    assert len(tracker._seen) == MEMORY_TRADES_AT_LEAST
    gap = tracker.gap
    assert gap is not None
    rest = [trade(number, number / 10) for number in reversed(range(205))]
    merged, _, recovered = tracker.fill(gap, rest)
    assert [each.sequential_id for each in merged] == [200, 201, 202, 203, 204, 5000]
    assert recovered == 5


def test_more_late_holes_than_are_kept_apart_become_one() -> None:
    tracker, number = flow_of(trade(0, 0.0)), 1
    lines = [ConnectionId("ws-1", epoch) for epoch in range(1, LATE_GAPS_AT_MOST + 4)]
    for line in lines[1:]:
        tracker.subscribed(line, 0.0)
        number += 2  # every other trade is missed
        tracker.arrived(trade(number, number), line, 0.0)
        assert tracker.gap is not None
        tracker.let_go(tracker.gap)
    assert len(tracker.late) == LATE_GAPS_AT_MOST
    everything = [trade(each, each) for each in reversed(range(number + 1))]
    recovered = [sum(tracker.fill(gap, everything)[2] for gap in list(tracker.late))]
    assert recovered == [number // 2 + 1]


def test_the_hole_lies_between_the_last_before_and_the_first_behind() -> None:
    tracker = flow_of(trade(1, 1), trade(2, 2))
    tracker.subscribed(SECOND, 5.0)
    tracker.arrived(trade(9, 9, StreamType.SNAPSHOT), SECOND, 6.0)
    gap = tracker.gap
    assert gap is not None
    assert (gap.before.sequential_id, gap.first.sequential_id, gap.opened_at) == (2, 9, 6.0)
    assert [each.sequential_id for each in gap.parked] == [9]


def test_frames_of_the_old_line_after_the_new_one_was_subscribed_open_nothing() -> None:
    tracker = flow_of(trade(1, 1))
    other_session = ConnectionId("ws-2", 1)
    tracker.subscribed(other_session, 0.0)
    trailing = trade(2, 2)
    assert tracker.arrived(trailing, FIRST, 0.0) == (trailing,)
    assert tracker.arrived(trade(2, 2, StreamType.SNAPSHOT), other_session, 0.0) == ()
    following = trade(3, 3)
    assert tracker.arrived(following, other_session, 0.0) == (following,)
    assert tracker.gap is None
