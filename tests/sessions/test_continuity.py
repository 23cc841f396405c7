"""What one topic's stream remembers of itself: enough to tell repeats, and never more than that."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from upbit_backbone.backfill.sequence import MEMORY, MEMORY_TRADES_AT_LEAST, MEMORY_TRADES_AT_MOST, Line, TradeFlow
from upbit_backbone.models.enums import DataSource, StreamType
from upbit_backbone.models.market import TradeData

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
FIRST, SECOND = Line("ws-1", 1), Line("ws-1", 2)


def trade(number: int, second: float, stream_type: StreamType | None = None) -> TradeData:
    moment = NOON + timedelta(seconds=second)
    return TradeData(
        "KRW-BTC", Decimal(1), Decimal(1), None, moment, number, DataSource.WEBSOCKET, stream_type=stream_type
    )


def flow_of(*trades: TradeData) -> TradeFlow:
    flow = TradeFlow()
    flow.subscribed(FIRST, 0.0)
    for each in trades:
        flow.arrived(each, FIRST, 0.0)
    return flow


def test_ids_are_forgotten_by_exchange_time() -> None:
    flow = flow_of(*(trade(number, number) for number in range(1000)))
    assert len(flow._seen) == MEMORY / timedelta(seconds=1)


def test_the_last_ids_of_a_quiet_market_are_never_forgotten() -> None:
    flow = flow_of(*(trade(number, number * 3600) for number in range(500)))
    assert len(flow._seen) == MEMORY_TRADES_AT_LEAST
    assert flow.arrived(trade(499, 499 * 3600), FIRST, 0.0) == ()


def test_the_ids_of_a_raging_market_are_bounded() -> None:
    flow = flow_of(*(trade(number, number / 1e6) for number in range(MEMORY_TRADES_AT_MOST + 500)))
    assert len(flow._seen) == MEMORY_TRADES_AT_MOST


def test_older_than_all_we_remember_may_be_a_repeat_and_is_not_delivered() -> None:
    flow = flow_of(*(trade(number, number) for number in range(1000)))
    assert flow.arrived(trade(10**6, 5.0), FIRST, 0.0) == ()
    assert flow.too_late == 1
    late_but_known_to_be_new = trade(10**6 + 1, 950.5)
    assert flow.arrived(late_but_known_to_be_new, FIRST, 0.0) == (late_but_known_to_be_new,)


def test_a_long_outage_does_not_make_it_forget_what_was_before() -> None:
    flow = flow_of(*(trade(number, number / 10) for number in range(200)))
    flow.interrupted(FIRST)
    flow.subscribed(SECOND, 0.0)
    assert flow.arrived(trade(5000, 7200), SECOND, 0.0) == ()
    assert len(flow._seen) == 201


def test_the_hole_lies_between_the_last_before_and_the_first_behind() -> None:
    flow = flow_of(trade(1, 1), trade(2, 2))
    flow.subscribed(SECOND, 5.0)
    flow.arrived(trade(9, 9, StreamType.SNAPSHOT), SECOND, 6.0)
    hole = flow.hole
    assert hole is not None
    assert (hole.before.sequential_id, hole.first.sequential_id, hole.opened_at) == (2, 9, 6.0)
    assert [each.sequential_id for each in hole.parked] == [9]


def test_frames_of_the_old_line_after_the_new_one_was_subscribed_open_nothing() -> None:
    flow = flow_of(trade(1, 1))
    other_session = Line("ws-2", 1)
    flow.subscribed(other_session, 0.0)
    trailing = trade(2, 2)
    assert flow.arrived(trailing, FIRST, 0.0) == (trailing,)
    assert flow.arrived(trade(2, 2, StreamType.SNAPSHOT), other_session, 0.0) == ()
    following = trade(3, 3)
    assert flow.arrived(following, other_session, 0.0) == (following,)
    assert flow.hole is None
