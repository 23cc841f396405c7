"""What one topic's stream remembers of itself: enough to tell repeats, and never more than that."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from upbit_backbone.backfill.sequence import (
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


def test_older_than_all_we_remember_may_be_a_repeat_and_is_not_delivered() -> None:
    tracker = flow_of(*(trade(number, number) for number in range(1000)))
    assert tracker.arrived(trade(10**6, 5.0), FIRST, 0.0) == ()
    assert tracker.too_late == 1
    late_but_known_to_be_new = trade(10**6 + 1, 950.5)
    assert tracker.arrived(late_but_known_to_be_new, FIRST, 0.0) == (late_but_known_to_be_new,)


def test_a_long_outage_does_not_make_it_forget_what_was_before() -> None:
    tracker = flow_of(*(trade(number, number / 10) for number in range(200)))
    tracker.interrupted(FIRST)
    tracker.subscribed(SECOND, 0.0)
    assert tracker.arrived(trade(5000, 7200), SECOND, 0.0) == ()
    assert len(tracker._seen) == 201


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
