"""Breaks lose nothing that REST still has, repeat nothing, keep the order, and never go unreported."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.clock import ManualClock
from upbit_backbone._concurrency import Deadline
from upbit_backbone.backfill import sequence
from upbit_backbone.backfill.gap_repair import (
    BEHIND_SECONDS,
    HOLD_SECONDS,
    PARKED_ITEMS,
    PATIENCE_SECONDS,
    RESTART_SECONDS,
    STRICT_SECONDS,
    Early,
    GapRepair,
)
from upbit_backbone.backfill.sequence import ConnectionId
from upbit_backbone.errors import BannedError, InvalidRequestError, NetworkError, UnknownSymbolError
from upbit_backbone.exchange.fields import SHUFFLE
from upbit_backbone.models.enums import Audience, DataSource, DataType, Priority, StreamType
from upbit_backbone.models.events import Event, GapEvent
from upbit_backbone.models.market import CandleData, TradeData
from upbit_backbone.models.request import Topic

BTC = Topic(DataType.TRADE, "KRW-BTC")
MINUTES = Topic(DataType.CANDLE_1M, "KRW-BTC")
FOR_EVER = 1e9
BEFORE_MIDNIGHT = datetime(2026, 3, 1, 23, 59, 50, tzinfo=UTC)


def make_trade(number: int, moment: datetime, source: DataSource = DataSource.WEBSOCKET, **more: Any) -> TradeData:
    return TradeData("KRW-BTC", Decimal(number + 1), Decimal(1), None, moment, number, source, **more)


@dataclass
class Exchange:
    """Trades in the exchange's own order, and the REST list made of them."""

    trades: list[TradeData] = field(default_factory=list)
    page_size: int = 500
    today: datetime = BEFORE_MIDNIGHT
    calls: int = 0
    failures: list[Exception] = field(default_factory=list)
    outage: Exception | None = None  # for every page, until it is over
    during_page: Callable[[], None] = lambda: None

    def trade(self, number: int, moment: datetime) -> TradeData:
        made = make_trade(number, moment)
        self.trades.append(made)
        self.today = max(self.today, moment)
        return made

    def page(
        self,
        symbol: str,
        *,
        count: int,
        cursor: int | None = None,
        days_ago: int | None = None,
        deadline: Deadline,
        priority: Priority,
    ) -> Sequence[TradeData]:
        self.calls += 1
        self.during_page()
        if self.outage is not None:
            raise self.outage
        if self.failures:
            raise self.failures.pop(0)
        day = (self.today - timedelta(days=days_ago or 0)).date()
        newest_first = sorted(enumerate(self.trades), key=lambda each: (each[1].timestamp, each[0]), reverse=True)
        of_day = [trade for _, trade in newest_first if trade.timestamp.date() == day]
        if cursor is not None:
            ids = [trade.sequential_id for trade in of_day]
            of_day = of_day[ids.index(cursor) + 1 :] if cursor in ids else []
        return [
            make_trade(trade.sequential_id or 0, trade.timestamp, DataSource.REST)
            for trade in of_day[: min(count, self.page_size)]
        ]


class WaitingError(BaseException):
    """Nothing more is overdue at present."""


class Bench:
    """A repair whose jobs are run by the test, and what it delivered: to most, and to a strict subscriber."""

    def __init__(self, exchange: Exchange | None = None, **options: Any) -> None:
        self.exchange = exchange or Exchange()
        self.clock = ManualClock(BEFORE_MIDNIGHT)
        self.delivered: list[Any] = []
        self.strictly: list[Any] = []
        self.late: list[Any] = []
        self.refused = 0
        self.is_glancing = False
        self.events: list[Event] = []
        self.jobs: list[Callable[[], None]] = []
        self.candles: list[CandleData] = []
        self.after_publish: Callable[[], None] = lambda: None
        self.repair = GapRepair(
            trades_page=self.exchange.page,
            candles_page=self.candles_page,
            publish=self.publish,
            emit=self.events.append,
            run_job=self.run_job,
            refuse=self.refuse,
            clock=self.clock,
            **options,
        )
        self.repair._wake = self  # type: ignore[assignment]  # waiting passes the clock's time
        self.line = ConnectionId("ws-1", 0)

    def enter(self) -> None:
        """Nobody has to be woken."""

    def sleep(self, _: None, seconds: float) -> None:
        if self.is_glancing:
            raise WaitingError
        self.clock.now += seconds

    def notify_all(self) -> None:
        """Nobody waits."""

    def candles_page(self, symbol: str, timeframe: str, *, count: int, to: Any = None, **_: Any) -> list[CandleData]:
        newest_first = sorted(self.candles, key=lambda each: each.timestamp, reverse=True)
        return [each for each in newest_first if to is None or each.timestamp < to][:count]

    def publish(
        self, topic: Topic, items: list[Any], *, to: Audience = Audience.EVERYONE, is_late: bool = False
    ) -> None:
        if to is not Audience.STRICT:
            self.delivered.extend(items)
        if to is not Audience.OTHERS:
            self.strictly.extend(items)
        if is_late:
            self.late.extend(items)
        callback, self.after_publish = self.after_publish, lambda: None
        callback()

    def run_job(self, job: Callable[[], None]) -> None:
        self.jobs.append(job)

    def refuse(self, topic: Topic, count: int) -> None:
        self.refused += count

    def connect(self, topic: Topic = BTC) -> None:
        self.line = ConnectionId("ws-1", self.line.epoch + 1)
        self.repair.subscribed(self.line, [topic])

    def lose(self, topic: Topic = BTC) -> None:
        self.repair.interrupted(self.line, [topic])

    def come(self, *items: Any, topic: Topic = BTC) -> None:
        for item in items:
            due = self.repair.arrived(topic, item, self.line, self.clock.now)
            self.delivered.extend(due)
            if type(due) is not Early:
                self.strictly.extend(due)
        self.repair.work_if_needed()

    def work(self) -> None:
        while self.jobs:
            self.jobs.pop(0)()

    def watch(self) -> None:
        """Nothing happens for as long as live data waits; then the watcher lets it go."""
        self.jobs.remove(self.repair._watch)
        self.repair._watch()

    def glance(self) -> None:
        """The watcher has its turn: whatever has been waited for long enough is let go, and no time passes."""
        before, self.is_glancing = self.is_glancing, True
        with contextlib.suppress(WaitingError):
            self.repair._watch()
        self.is_glancing = before

    @property
    def ids(self) -> list[int | None]:
        return [trade.sequential_id for trade in self.delivered]

    @property
    def gaps(self) -> list[GapEvent]:
        return [event for event in self.events if isinstance(event, GapEvent)]


def at(second: float) -> datetime:
    return BEFORE_MIDNIGHT + timedelta(seconds=second)


def broken_stream(outage: range = range(3, 6), kind: type[Bench] | None = None, **options: Any) -> Bench:
    """Trades 0 … 9, one per second; those of `outage` happen while the line is down; 6 is the first to come after."""
    bench = (kind or Bench)(**options)
    trades = [bench.exchange.trade(number, at(number)) for number in range(10)]
    bench.connect()
    bench.come(*trades[: outage.start])
    bench.lose()
    bench.connect()
    bench.come(*trades[outage.stop :])
    return bench


def test_what_was_missed_is_delivered_before_what_came_after_with_a_receipt() -> None:
    bench = broken_stream()
    assert bench.ids == [0, 1, 2]  # the rest is parked
    assert bench.repair.is_repairing(BTC)
    bench.work()
    assert bench.ids == list(range(10))
    assert [trade.is_backfilled for trade in bench.delivered] == [False] * 3 + [True] * 3 + [False] * 4
    assert [trade.source for trade in bench.delivered[3:6]] == [DataSource.REST] * 3
    (gap,) = bench.gaps
    assert (gap.symbol, gap.type, gap.recovered, gap.complete) == ("KRW-BTC", DataType.TRADE, 3, True)
    assert (gap.missing_start, gap.missing_end) == (None, None)
    assert (gap.start, gap.end) == (at(2), at(6))
    assert not bench.repair.is_repairing(BTC)
    bench.come(bench.exchange.trade(10, at(10)))
    assert bench.ids == list(range(11))


def test_the_receipts_of_all_gaps_are_summed_up() -> None:
    bench = broken_stream()
    assert bench.repair.stats().totals == ()
    bench.work()
    (totals,) = bench.repair.stats().totals
    assert (totals.type, totals.filled, totals.incomplete, totals.recovered) == ("trade", 1, 0, 3)
    assert totals.missing_seconds == 0.0
    bench.exchange.outage = InvalidRequestError("never heard of it")
    bench.lose()
    bench.connect()
    bench.come(bench.exchange.trade(20, at(20)))
    bench.work()
    (totals,) = bench.repair.stats().totals
    assert (totals.filled, totals.incomplete, totals.recovered) == (1, 1, 3)
    lost = bench.gaps[-1]
    assert lost.missing_start is not None
    assert lost.missing_end is not None
    assert totals.missing_seconds == (lost.missing_end - lost.missing_start).total_seconds() > 0


def test_over_midnight_both_days_are_asked() -> None:
    bench = Bench(Exchange(page_size=2))
    trades = [bench.exchange.trade(number, at(number * 2)) for number in range(12)]  # midnight lies at 10 s
    bench.connect()
    bench.come(*trades[:2])
    bench.lose()
    bench.connect()
    bench.come(*trades[10:])
    bench.work()
    assert bench.ids == list(range(12))
    assert bench.gaps[0].complete


def test_midnight_passing_before_the_repair_begins() -> None:
    bench = Bench()
    trades = [bench.exchange.trade(number, at(number)) for number in range(10)]
    bench.connect()
    bench.come(*trades[:3])
    bench.lose()
    bench.connect()
    bench.come(*trades[6:])
    bench.exchange.today = at(11)  # the day of all these trades is yesterday now
    bench.work()
    assert bench.ids == list(range(10))
    assert bench.gaps[0].complete


def test_nothing_happened_meanwhile_nothing_is_asked() -> None:
    bench = Bench()
    trades = [bench.exchange.trade(number, at(number)) for number in range(3)]
    bench.connect()
    bench.come(*trades)
    bench.lose()
    bench.connect()
    bench.come(trades[2])  # the snapshot
    bench.come(bench.exchange.trade(3, at(3)))
    assert (bench.ids, bench.exchange.calls, bench.jobs) == ([0, 1, 2, 3], 0, [])


def test_only_one_trade_was_missed_and_the_snapshot_brought_it() -> None:
    bench = broken_stream(outage=range(3, 3))
    bench.work()
    assert bench.ids == list(range(10))
    assert bench.gaps == []


def test_an_old_snapshot_replayed_does_not_hide_the_hole_behind_it() -> None:
    bench = Bench()
    trades = [bench.exchange.trade(number, at(number)) for number in range(10)]
    bench.connect()
    bench.come(*trades[:4])
    bench.lose()
    bench.connect()
    bench.come(trades[1])  # seen, but not the last one seen
    bench.come(*trades[7:])
    bench.work()
    assert bench.ids == list(range(10))


def test_repeats_are_not_delivered_and_counted() -> None:
    bench = Bench()
    trades = [bench.exchange.trade(number, at(number)) for number in range(5)]
    bench.connect()
    bench.come(*trades, trades[1], trades[4])
    assert bench.ids == list(range(5))
    assert bench.repair.counts()["repeated"] == 2


def test_late_ids_are_delivered_as_they_come() -> None:
    bench = Bench()
    moments = {3: 1.0, 1: 1.1, 2: 1.1, 0: 0.9}
    bench.connect()
    bench.come(*(bench.exchange.trade(number, at(second)) for number, second in moments.items()))
    assert bench.ids == [3, 1, 2, 0]


def test_a_second_snapshot_on_the_same_line_is_checked_too() -> None:
    bench = Bench()
    trades = [bench.exchange.trade(number, at(number)) for number in range(6)]
    bench.connect()
    bench.come(*trades[:2])
    bench.repair.subscribed(bench.line, [BTC])  # the full set was sent again
    bench.come(trades[2])  # still from before
    assert bench.ids == [0, 1, 2]
    snapshot = make_trade(5, at(5), stream_type=StreamType.SNAPSHOT)
    bench.come(snapshot)
    bench.work()
    assert bench.ids == list(range(6))


def test_a_line_that_breaks_again_during_the_repair_makes_one_longer_hole() -> None:
    bench = Bench(Exchange(page_size=3))
    trades = [bench.exchange.trade(number, at(number / 10)) for number in range(30)]
    bench.connect()
    bench.come(*trades[:3])
    bench.lose()
    bench.connect()
    bench.come(*trades[8:10])

    def break_again() -> None:
        bench.exchange.during_page = lambda: None
        bench.lose()
        bench.connect()
        bench.come(*trades[20:])

    bench.exchange.during_page = break_again
    bench.work()
    assert bench.ids == list(range(30))
    assert sum(gap.recovered for gap in bench.gaps) == 15
    assert all(gap.complete for gap in bench.gaps)


def test_a_line_that_breaks_while_the_repair_is_being_delivered() -> None:
    bench = Bench()
    trades = [bench.exchange.trade(number, at(number * 3)) for number in range(30)]
    bench.connect()
    bench.come(*trades[:3])
    bench.lose()
    bench.connect()
    bench.come(*trades[8:10])

    def break_again() -> None:
        bench.come(trades[10])
        bench.lose()
        bench.connect()
        bench.come(*trades[20:])

    bench.after_publish = break_again
    bench.work()
    assert bench.ids == list(range(30))
    assert len(bench.gaps) == 2


def test_rest_that_fails_for_a_while_is_asked_again() -> None:
    bench = broken_stream()
    bench.exchange.failures = [NetworkError("refused")] * 7
    bench.work()
    assert bench.ids == list(range(10))
    assert bench.gaps[0].complete


def test_rest_that_stays_down_costs_the_hole_but_not_the_live_trades_nor_the_receipt() -> None:
    bench = broken_stream()
    bench.exchange.outage = NetworkError("refused")
    began = bench.clock.now
    bench.watch()
    assert bench.ids == [0, 1, 2, 6, 7, 8, 9]
    bench.work()
    assert PATIENCE_SECONDS - 5 < bench.clock.now - began < PATIENCE_SECONDS + 5
    assert bench.ids == [0, 1, 2, 6, 7, 8, 9]
    (gap,) = bench.gaps
    assert (gap.start, gap.end, gap.recovered, gap.complete, gap.late) == (at(2), at(6), 0, False, True)
    assert (gap.missing_start, gap.missing_end) == (at(2), at(6))
    assert "refused" in gap.reason


def test_while_the_line_is_down_again_patience_has_no_end() -> None:
    bench = broken_stream()
    bench.lose()
    bench.exchange.failures = [NetworkError("refused")] * 4000
    bench.work()
    assert bench.clock.now - 1000.0 > 2 * PATIENCE_SECONDS
    assert bench.ids == list(range(10))


def test_what_can_never_be_had_is_given_up_at_once() -> None:
    bench = broken_stream()
    bench.exchange.failures = [InvalidRequestError("no such question")]
    bench.work()
    assert bench.ids == [0, 1, 2, 6, 7, 8, 9]
    assert not bench.gaps[0].complete


def test_that_a_market_is_gone_is_not_believed_at_once_because_the_stream_has_just_shown_it() -> None:
    bench = broken_stream()
    bench.exchange.failures = [UnknownSymbolError("delisted")] * 5
    bench.work()
    assert bench.ids == list(range(10))
    gone = broken_stream()
    gone.exchange.outage = UnknownSymbolError("delisted")
    gone.work()
    assert 0 <= BEHIND_SECONDS - (gone.clock.now - 1000.0) < 5
    assert not gone.gaps[0].complete


def test_whatever_breaks_there_is_a_receipt() -> None:
    bench = broken_stream()
    bench.exchange.failures = [ZeroDivisionError("a bug of ours")]
    bench.work()
    assert bench.ids == [0, 1, 2, 6, 7, 8, 9]
    assert "ZeroDivisionError" in bench.gaps[0].reason


def test_a_hole_too_large_gives_its_newest_part_and_says_so() -> None:
    bench = Bench(Exchange(page_size=10), max_trades=40)
    trades = [bench.exchange.trade(number, at(number)) for number in range(500)]
    bench.connect()
    bench.come(*trades[:10])
    bench.lose()
    bench.connect()
    bench.come(*trades[490:])
    bench.work()
    (gap,) = bench.gaps
    assert not gap.complete
    assert (gap.start, gap.end) == (at(9), at(490))
    oldest_recovered = trades[490 - gap.recovered].timestamp
    assert (gap.missing_start, gap.missing_end) == (at(9), oldest_recovered + SHUFFLE)
    assert "more than 40" in gap.reason
    assert bench.ids[:10] == list(range(10))
    assert bench.ids[10:] == list(range(490 - gap.recovered, 500))
    assert gap.recovered >= 40 - 10


def test_a_rest_that_lags_behind_is_waited_for() -> None:
    bench = broken_stream()
    everything = list(bench.exchange.trades)
    bench.exchange.trades = everything[:5]

    def catch_up() -> None:
        if bench.clock.now > 1001:
            bench.exchange.trades = everything

    bench.exchange.during_page = catch_up
    bench.work()
    assert bench.ids == list(range(10))
    assert bench.gaps[0].complete


def test_a_rest_that_never_catches_up_is_said_to_be_incomplete() -> None:
    bench = broken_stream()
    bench.exchange.trades = bench.exchange.trades[:5]
    bench.work()
    assert bench.ids == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    (gap,) = bench.gaps
    assert not gap.complete
    assert (gap.missing_start, gap.missing_end) == (at(4) - SHUFFLE, at(6))


def test_a_rest_that_fails_in_the_middle_leaves_the_older_part_missing() -> None:
    bench = Bench(Exchange(page_size=10))
    trades = [bench.exchange.trade(number, at(number)) for number in range(100)]
    bench.connect()
    bench.come(*trades[:10])
    bench.lose()
    bench.connect()
    bench.come(*trades[90:])

    def fail_after_three_pages() -> None:
        if bench.exchange.calls > 3:
            bench.exchange.failures = [UnknownSymbolError("delisted")]

    bench.exchange.during_page = fail_after_three_pages
    bench.work()
    assert bench.ids == [*range(10), *range(70, 100)]
    (gap,) = bench.gaps
    assert (gap.start, gap.end, gap.recovered, gap.complete) == (at(9), at(90), 20, False)
    assert (gap.missing_start, gap.missing_end) == (at(9), at(70) + SHUFFLE)


def test_nobody_listens_nothing_is_asked() -> None:
    bench = broken_stream(wanted=lambda topic: False)
    assert bench.jobs == []
    assert bench.ids == [0, 1, 2, 6, 7, 8, 9]


def test_a_topic_left_during_its_repair_gets_nothing_more() -> None:
    bench = broken_stream()
    bench.repair.forget(BTC)
    bench.work()
    assert bench.ids == [0, 1, 2]
    (gap,) = bench.gaps
    assert (gap.missing_start, gap.missing_end, gap.complete) == (at(2), at(9), False)
    assert "nobody" in gap.reason


def test_closing_delivers_what_is_parked_and_tells_what_is_missing() -> None:
    bench = broken_stream()
    bench.repair.close()
    bench.work()
    assert bench.ids == [0, 1, 2, 6, 7, 8, 9]
    (gap,) = bench.gaps
    assert (gap.missing_start, gap.missing_end, gap.recovered, gap.complete) == (at(2), at(9), 0, False)
    assert repr(bench.repair) == "<GapRepair 1 topics, 0 gaps, 0 workers>"


def test_a_trade_sent_twice_is_no_proof_that_nothing_was_missed() -> None:
    bench = Bench()
    trades = [bench.exchange.trade(number, at(number)) for number in range(10)]
    bench.connect()
    bench.come(*trades[:4])
    bench.lose()
    bench.connect()
    bench.come(streamed(trades[3], StreamType.REALTIME), *trades[7:])
    bench.work()
    assert bench.ids == list(range(10))


# Live data does not wait for REST


@pytest.mark.parametrize("hold", [0.0, 0.5, HOLD_SECONDS])
def test_live_data_waits_for_rest_so_long_and_no_longer_whatever_rest_does(hold: float) -> None:
    bench = broken_stream(hold_seconds=hold)
    bench.exchange.outage = NetworkError("down")
    began = bench.clock.now
    bench.watch()
    assert bench.clock.now - began == pytest.approx(hold, abs=0.01)
    bench.come(bench.exchange.trade(10, at(10)))
    assert bench.ids == [0, 1, 2, 6, 7, 8, 9, 10]  # the gap is open, and data trackers
    assert not bench.repair.is_repairing(BTC)
    assert bench.repair.has_gaps(BTC)
    assert bench.repair.stats().late == 1
    bench.exchange.outage = None
    bench.work()
    assert bench.ids == [0, 1, 2, 6, 7, 8, 9, 10, 3, 4, 5]
    assert [trade.sequential_id for trade in bench.late] == [3, 4, 5]
    assert all(trade.is_backfilled for trade in bench.late)
    (gap,) = bench.gaps
    assert (gap.recovered, gap.complete, gap.late, gap.missing_start) == (3, True, True, None)
    assert "late" in gap.reason
    assert bench.repair.stats().open == 0


def test_the_next_live_trade_lets_go_what_has_waited_long_enough_even_if_no_thread_does() -> None:
    bench = broken_stream()
    bench.clock.now += HOLD_SECONDS
    bench.come(bench.exchange.trade(10, at(10)))
    assert bench.ids == [0, 1, 2, 6, 7, 8, 9, 10]
    bench.work()
    assert bench.ids[-3:] == [3, 4, 5]


def test_a_wait_that_is_known_to_be_longer_lets_go_at_once() -> None:
    bench = broken_stream()
    bench.exchange.outage = BannedError("418", retry_after=60.0)
    delivered: list[tuple[float, list[int | None]]] = []

    def page() -> None:
        delivered.append((bench.clock.now, list(bench.ids)))
        if len(delivered) > 1:
            bench.exchange.outage = None

    bench.exchange.during_page = page
    bench.work()
    assert delivered[:2] == [(1000.0, [0, 1, 2]), (1060.0, [0, 1, 2, 6, 7, 8, 9])]
    assert bench.ids[-3:] == [3, 4, 5]


def test_a_line_that_flaps_does_not_prolong_the_wait() -> None:
    bench = broken_stream()
    bench.exchange.outage = NetworkError("down")
    for number in range(10, 18):
        bench.clock.now += 0.4
        bench.lose()
        bench.connect()
        bench.come(bench.exchange.trade(number, at(number)))
        waited = bench.clock.now - 1000.0
        assert bool(bench.ids[3:]) is (waited >= HOLD_SECONDS)


def test_a_flood_is_let_go_before_it_no_longer_fits_into_a_mailbox() -> None:
    bench = broken_stream()
    bench.come(*(bench.exchange.trade(number, at(10)) for number in range(10, PARKED_ITEMS + 50)))
    assert bench.ids[3] == 6
    assert len(bench.ids) > PARKED_ITEMS


def test_whoever_insists_on_order_waits_while_the_others_do_not() -> None:
    bench = broken_stream(strict=lambda topic: True)
    bench.exchange.outage = NetworkError("down")
    bench.clock.now += HOLD_SECONDS
    bench.come(bench.exchange.trade(10, at(10)), bench.exchange.trade(11, at(11)))
    assert bench.ids == [0, 1, 2, 6, 7, 8, 9, 10, 11]
    assert [trade.sequential_id for trade in bench.strictly] == [0, 1, 2]
    bench.exchange.outage = None
    bench.work()
    assert bench.ids == [0, 1, 2, 6, 7, 8, 9, 10, 11, 3, 4, 5]
    assert [trade.sequential_id for trade in bench.strictly] == list(range(12))
    assert bench.gaps[0].late
    bench.come(bench.exchange.trade(12, at(12)))
    assert bench.ids[-1] == bench.strictly[-1].sequential_id == 12


def test_whoever_insists_on_order_does_not_wait_for_ever_either() -> None:
    bench = broken_stream(strict=lambda topic: True)
    bench.exchange.outage = NetworkError("down")
    began = bench.clock.now
    bench.watch()
    assert bench.clock.now - began == pytest.approx(STRICT_SECONDS, abs=0.01)
    assert bench.ids == [trade.sequential_id for trade in bench.strictly] == [0, 1, 2, 6, 7, 8, 9]
    bench.exchange.outage = None
    bench.work()
    assert bench.ids == [trade.sequential_id for trade in bench.strictly]
    assert sorted(bench.ids) == list(range(10))


def test_holes_left_behind_are_filled_in_their_order_each_with_its_receipt() -> None:
    bench = Bench()
    trades = [bench.exchange.trade(number, at(number * 10)) for number in range(30)]
    bench.exchange.outage = NetworkError("down")
    bench.connect()
    bench.come(trades[0])
    for first in range(3, 30, 3):
        bench.lose()
        bench.connect()
        bench.come(trades[first])
        bench.clock.now += HOLD_SECONDS
        bench.come(dataclasses.replace(trades[first], timestamp=at(first * 10)))  # a repeat, after the wait
        bench.glance()
    assert bench.ids == list(range(0, 30, 3))
    bench.exchange.outage = None
    bench.work()
    assert bench.ids[10:] == [number for number in range(27) if number % 3]
    assert [gap.recovered for gap in bench.gaps] == [2] * 9
    assert [gap.start for gap in bench.gaps] == sorted(gap.start for gap in bench.gaps)


def test_a_rest_that_is_empty_for_a_while_is_no_proof_that_nothing_was_missed() -> None:
    bench = broken_stream()
    everything = list(bench.exchange.trades)
    bench.exchange.page_size = 4
    pages = iter([everything, [], []])

    def next_page() -> None:
        bench.exchange.trades = next(pages, everything)

    bench.exchange.during_page = next_page
    bench.work()
    assert bench.ids == list(range(10))
    assert bench.gaps[0].complete


def test_a_snapshot_nobody_can_tell_from_a_repeat_is_counted_and_told() -> None:
    bench = Bench()
    bench.connect()
    bench.come(*(make_trade(number, at(number)) for number in range(300)))
    bench.lose()
    bench.connect()
    bench.come(streamed(make_trade(9999, at(3)), StreamType.SNAPSHOT))
    assert len(bench.ids) == 300
    (gap,) = bench.gaps
    assert (gap.missing_start, gap.missing_end, gap.complete) == (at(3), at(3), False)
    assert bench.refused == bench.repair.counts()["too_late"] == 1


# No thread to be had


class NoThreads(Bench):
    """So many attempts to find a worker fail."""

    def __init__(self, failures: int, **options: Any) -> None:
        self.refusals = failures
        super().__init__(**options)

    def run_job(self, job: Callable[[], None]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise RuntimeError("can't start new thread")
        super().run_job(job)


@pytest.mark.parametrize("failures", range(1, 8))
def test_a_thread_that_cannot_be_started_is_tried_again_and_the_stream_goes_on(failures: int) -> None:
    bench = broken_stream(kind=NoThreads, failures=failures)
    for number in range(10, 30):
        bench.clock.now += RESTART_SECONDS
        bench.come(bench.exchange.trade(number, at(number)))
    assert bench.ids[3] == 6  # let go by the stream's own thread
    bench.work()
    assert sorted(bench.ids) == list(range(30))
    assert bench.gaps[0].complete
    assert repr(bench.repair) == "<GapRepair 1 topics, 0 gaps, 0 workers>"


def test_work_nobody_does_is_known() -> None:
    bench = broken_stream(kind=NoThreads, failures=10**6)
    bench.clock.now += 7.0
    bench.come(bench.exchange.trade(10, at(10)))
    stats = bench.repair.stats()
    assert (stats.open, stats.late, stats.unattended, stats.oldest) == (1, 1, 7.0, 7.0)
    assert "can't start new thread" in (stats.problem or "")


def test_a_worker_that_dies_leaves_its_work_to_the_next() -> None:
    bench = broken_stream()
    bench.exchange.during_page = lambda: sys.exit()
    with pytest.raises(SystemExit):
        bench.work()
    bench.exchange.during_page = lambda: None
    bench.clock.now += 1.0
    bench.jobs.clear()
    bench.come(bench.exchange.trade(10, at(10)))
    bench.work()
    assert bench.ids == list(range(11))


# Against brute force


def streamed(trade: TradeData, stream_type: StreamType) -> TradeData:
    return dataclasses.replace(trade, stream_type=stream_type)


@given(
    seed=st.integers(0, 2**32),
    count=st.integers(5, 120),
    page_size=st.sampled_from([1, 2, 3, 7, 500]),
    pace=st.sampled_from([0.0, 0.001, 0.05, 0.4]),
    shuffled=st.booleans(),
    hold=st.sampled_from([0.0, 0.5, HOLD_SECONDS, FOR_EVER]),
)
@settings(max_examples=400, deadline=None)
def test_every_trade_once_and_in_order(
    seed: int, count: int, page_size: int, pace: float, shuffled: bool, hold: float
) -> None:
    """Random histories, outages, repeats, page sizes, failures and midnights; the exchange's own list is the truth.

    However long live data waits, the strict subscriber sees everything in order, and the others lose nothing for it.
    """
    rng = random.Random(seed)
    exchange = Exchange(page_size=page_size)
    bench = Bench(exchange, hold_seconds=hold, strict_seconds=FOR_EVER, strict=lambda topic: True)
    moment = BEFORE_MIDNIGHT + timedelta(seconds=rng.uniform(-30, 12))
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    ids = rng.sample(range(1, 10**6), count)
    history = []
    for number in ids:
        moment += timedelta(milliseconds=int(rng.expovariate(1) * pace * 1000))
        history.append(make_trade(number, moment))
    published = list(history)
    if shuffled:
        jitter = {trade.sequential_id: rng.uniform(0, SHUFFLE.total_seconds() * 0.9) for trade in history}
        published[1:] = sorted(
            history[1:],
            key=lambda trade: trade.timestamp + timedelta(seconds=jitter[trade.sequential_id]),
        )
    waiting = iter(published)
    happened: list[TradeData] = []
    known_ids: set[int | None] = set()
    sent: list[TradeData] = []
    is_up = False

    def happen() -> TradeData | None:
        trade = next(waiting, None)
        if trade is not None:
            happened.append(trade)
            known_ids.add(trade.sequential_id)
            exchange.trades = [each for each in history if each.sequential_id in known_ids]
            exchange.today = max(exchange.today, trade.timestamp)
        return trade

    def connect() -> None:
        nonlocal is_up
        is_up = True
        bench.connect()
        if happened and rng.random() < 0.8:
            come(happened[-1], StreamType.SNAPSHOT)

    def come(trade: TradeData, stream_type: StreamType = StreamType.REALTIME) -> None:
        sent.append(trade)
        bench.come(streamed(trade, stream_type))

    def live_on(steps: int) -> None:
        nonlocal is_up
        for _ in range(steps):
            chance = rng.random()
            if is_up and chance < 0.1:
                bench.lose()
                is_up = False
            elif not is_up and chance < 0.4:
                connect()
            elif is_up and sent and chance < 0.2:
                bench.come(streamed(rng.choice(sent[-5:]), StreamType.REALTIME))  # the server repeats itself
            elif (trade := happen()) is not None and is_up:
                come(trade)

    def meanwhile() -> None:
        live_on(rng.choice([0, 0, 0, 1, 3]))
        exchange.failures = [NetworkError("reset", retry_after=rng.choice([None, 3.0]))] if rng.random() < 0.1 else []
        bench.clock.now += rng.choice([0.0, 0.0, 0.2, 1.0])
        if rng.random() < 0.3:
            bench.glance()

    exchange.during_page = meanwhile
    connect()
    come(happen() or history[0])  # with shuffling, nothing may precede what the stream began with
    while len(happened) < count:
        live_on(5)
        bench.after_publish = meanwhile if rng.random() < 0.5 else bench.after_publish
        if rng.random() < 0.3:
            bench.work()
    if not is_up:
        connect()
    exchange.during_page = lambda: None
    last = make_trade(10**6 + 1, history[-1].timestamp + SHUFFLE * 2)
    exchange.trades.append(last)
    exchange.today = max(exchange.today, last.timestamp)
    happened.append(last)
    come(last)  # a gap shows when the next unknown trade comes
    bench.work()
    bench.work()

    assert sorted(bench.ids) == sorted(each.sequential_id for each in happened)
    assert all(gap.complete for gap in bench.gaps)
    live = [trade.sequential_id for trade in bench.delivered if not trade.is_backfilled]
    assert live == [trade.sequential_id for trade in bench.strictly if not trade.is_backfilled]
    in_order = [trade.sequential_id for trade in bench.strictly]
    assert sorted(in_order) == sorted(bench.ids)
    if hold == FOR_EVER:
        assert bench.ids == in_order
        assert bench.late == []
    if shuffled:
        latest = BEFORE_MIDNIGHT - timedelta(days=1)
        for trade in bench.strictly:
            assert trade.timestamp >= latest - SHUFFLE * 2
            latest = max(latest, trade.timestamp)
    else:
        assert in_order == [each.sequential_id for each in happened]


@pytest.mark.parametrize("seed", range(60))
def test_with_far_too_little_memory_nothing_comes_twice_and_nothing_is_withheld_in_silence(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequence, "MEMORY_TRADES_AT_MOST", 70)
    monkeypatch.setattr(sequence, "GAP_TRADES_AT_MOST", 30)
    monkeypatch.setattr(sequence, "LATE_GAPS_AT_MOST", 3)
    rng = random.Random(seed)
    is_strict = rng.random() < 0.5
    bench = Bench(hold_seconds=rng.choice([0.0, 1.0, FOR_EVER]), strict=lambda topic: is_strict)
    moment, is_up = 0.0, True
    bench.connect()
    for number in range(900):
        moment += rng.choice((0.0, 0.0, 0.0, 0.02, 0.3))
        trade = bench.exchange.trade(number, at(moment))
        chance = rng.random()
        if number and chance < 0.02:
            (bench.lose if is_up else bench.connect)()
            is_up = not is_up
            if is_up and rng.random() < 0.8:
                bench.come(streamed(trade, StreamType.SNAPSHOT))
                continue
        if is_up:
            bench.come(streamed(trade, StreamType.REALTIME))
        bench.clock.now += 0.05
        bench.exchange.outage = None if chance < 0.7 else NetworkError("down", retry_after=rng.choice([None, 9.0]))
        if rng.random() < 0.05:
            bench.glance()
        if rng.random() < 0.02 and bench.exchange.outage is None:
            bench.work()
    if not is_up:
        bench.connect()
    bench.come(streamed(bench.exchange.trade(900, at(moment + 5.0)), StreamType.SNAPSHOT))
    bench.exchange.outage = None
    bench.work()
    told = [(gap.missing_start, gap.missing_end) for gap in bench.gaps if gap.missing_start and gap.missing_end]
    for got in (bench.delivered, bench.strictly):
        ids = [trade.sequential_id for trade in got]
        assert len(ids) == len(set(ids))
        withheld = [trade for trade in bench.exchange.trades if trade.sequential_id not in set(ids)]
        assert all(any(low <= trade.timestamp <= high for low, high in told) for trade in withheld)


@pytest.mark.parametrize("seed", range(40))
def test_what_is_missing_in_the_end_lies_within_the_bounds_told(seed: int) -> None:
    """REST breaks off at some page, or lags, or there is more than it may be asked for."""
    rng = random.Random(seed)
    trouble = rng.choice(["breaks off", "lags", "too much", "nothing"])
    bench = Bench(
        Exchange(page_size=rng.randint(3, 30)), max_trades=rng.randint(20, 60) if trouble == "too much" else 500
    )
    moment, trades = 0.0, []
    for number in range(200):
        moment += rng.choice((0.0, 0.1, 1.0, 30.0))
        trades.append(bench.exchange.trade(number, at(moment)))
    lost = range(rng.randint(1, 60), rng.randint(100, 199))
    bench.connect()
    bench.come(*trades[: lost.start])
    bench.lose()
    bench.connect()
    bench.come(*trades[lost.stop :])
    if trouble == "lags":
        bench.exchange.trades = trades[: rng.randint(lost.start, lost.stop)]
    pages = rng.randint(0, 8)

    def break_off() -> None:
        if trouble == "breaks off" and bench.exchange.calls > pages:
            bench.exchange.failures = [UnknownSymbolError("delisted")]

    bench.exchange.during_page = break_off
    bench.work()

    missing = [trade for trade in trades if trade.sequential_id not in set(bench.ids)]
    assert len(bench.ids) == len(set(bench.ids))
    (gap,) = bench.gaps
    assert gap.recovered == len(lost) - len(missing)
    assert not (missing and gap.complete)
    if gap.missing_start is None or gap.missing_end is None:
        assert gap.complete
        return
    assert all(gap.missing_start <= trade.timestamp <= gap.missing_end for trade in missing)
    assert gap.start <= gap.missing_start <= gap.missing_end <= gap.end


# Candles


def candle(minute: int, close: int, source: DataSource = DataSource.WEBSOCKET) -> CandleData:
    start = at(minute * 60) - timedelta(seconds=50)
    return CandleData("KRW-BTC", "1m", *[Decimal(close)] * 5, start, source)


def test_candles_missed_and_corrected_come_before_the_live_one() -> None:
    bench = Bench()
    bench.candles = [candle(minute, 100 + minute, DataSource.REST) for minute in range(8)]
    bench.connect(MINUTES)
    bench.come(candle(0, 100), candle(1, 99), topic=MINUTES)  # 1 was still forming
    bench.lose(MINUTES)
    bench.connect(MINUTES)
    bench.come(candle(5, 1), candle(5, 2), topic=MINUTES)
    bench.work()
    shown = [(each.timestamp, int(each.close_price)) for each in bench.delivered]
    expected = [(0, 100), (1, 99), (1, 101), (2, 102), (3, 103), (4, 104), (5, 1), (5, 2)]
    assert shown == [(candle(minute, 0).timestamp, close) for minute, close in expected]
    (gap,) = bench.gaps
    assert (gap.type, gap.recovered, gap.complete) == (DataType.CANDLE_1M, 4, True)


def test_more_candles_than_may_be_asked_for_leave_the_older_ones_missing() -> None:
    bench = Bench(max_trades=300)
    bench.candles = [candle(minute, 100 + minute, DataSource.REST) for minute in range(1000)]
    bench.connect(MINUTES)
    bench.come(candle(0, 100), topic=MINUTES)
    bench.lose(MINUTES)
    bench.connect(MINUTES)
    bench.come(candle(999, 100), topic=MINUTES)
    bench.work()
    (gap,) = bench.gaps
    assert (gap.recovered, gap.complete) == (400, False)
    assert (gap.missing_start, gap.missing_end) == (bench.candles[0].timestamp, bench.candles[599].timestamp)


def test_a_market_without_trades_has_no_candles_to_recover() -> None:
    bench = Bench()
    bench.candles = [candle(1, 5, DataSource.REST), candle(9, 6, DataSource.REST)]
    bench.connect(MINUTES)
    bench.come(candle(1, 5), topic=MINUTES)
    bench.lose(MINUTES)
    bench.connect(MINUTES)
    bench.come(candle(9, 6), topic=MINUTES)
    bench.work()
    assert len(bench.delivered) == 2
    assert bench.gaps == []


def test_the_same_candle_after_a_break_needs_no_repair() -> None:
    bench = Bench()
    bench.connect(MINUTES)
    bench.come(candle(1, 5), topic=MINUTES)
    bench.lose(MINUTES)
    bench.connect(MINUTES)
    bench.come(candle(0, 9), topic=MINUTES)  # old state replayed
    bench.come(candle(1, 6), candle(0, 8), topic=MINUTES)  # then a correction on the running line
    assert [int(each.close_price) for each in bench.delivered] == [5, 6, 8]
    assert bench.jobs == []


@given(seed=st.integers(0, 2**32), hold=st.sampled_from([0.0, 0.5, FOR_EVER]))
@settings(max_examples=150, deadline=None)
def test_whatever_breaks_the_last_word_on_every_candle_is_rests(seed: int, hold: float) -> None:
    rng = random.Random(seed)
    bench = Bench(hold_seconds=hold, strict_seconds=FOR_EVER, strict=lambda topic: True)
    final: dict[datetime, CandleData] = {}
    minute, forming = 0, candle(0, 1)
    is_up = True
    bench.connect(MINUTES)
    bench.come(forming, topic=MINUTES)
    for step in range(2, 120):
        chance = rng.random()
        if chance < 0.4:
            minute += rng.choice([1, 1, 1, 4])
        forming = candle(minute, step)
        final[forming.timestamp] = forming
        bench.candles = [candle_from_rest(each) for each in final.values()]
        if chance > 0.9:
            is_up = not is_up
            (bench.connect if is_up else bench.lose)(MINUTES)
        if is_up:
            bench.come(forming, topic=MINUTES)
        bench.clock.now += rng.choice([0.0, 0.3])
        if rng.random() < 0.3:
            bench.glance()
        if rng.random() < 0.2:
            bench.work()
    if not is_up:
        bench.connect(MINUTES)
        bench.come(forming, topic=MINUTES)
    bench.work()
    truth = {candle(0, 1).timestamp: Decimal(1)} | {start: each.close_price for start, each in final.items()}
    assert {each.timestamp: each.close_price for each in bench.delivered} == truth
    assert {each.timestamp: each.close_price for each in bench.strictly} == truth
    starts = [each.timestamp for each in bench.strictly]
    assert starts == sorted(starts)
    assert all(each.is_backfilled for each in bench.late)


def candle_from_rest(each: CandleData) -> CandleData:
    return CandleData("KRW-BTC", "1m", *[each.close_price] * 5, each.timestamp, DataSource.REST)


@pytest.mark.parametrize("pause", [0.0, 30.0])
def test_retry_after_is_obeyed(pause: float) -> None:
    bench = broken_stream()
    bench.exchange.failures = [NetworkError("slow down", retry_after=pause)]
    bench.work()
    assert bench.clock.now - 1000.0 >= pause
    assert sorted(bench.ids) == list(range(10))
