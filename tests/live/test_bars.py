"""The rows of a series: whatever is cut, late, repeated or corrected, in the end they are what REST says."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.candle_reference import brute_force, candle, trade, utc
from upbit_backbone.exchange.timeframes import Timeframe, timeframe_of
from upbit_backbone.live.bars import Bars, BarUpdate
from upbit_backbone.models.enums import DataSource
from upbit_backbone.models.market import CandleData, TradeData

MINUTE = timeframe_of("1m")
START = utc(2026, 2, 28, 23, 50)


def at(minute: int, second: float = 0) -> datetime:
    return START + timedelta(minutes=minute, seconds=second)


def frame(minute: int, volume: str, price: int = 100) -> CandleData:
    return replace(candle(MINUTE, at(minute), price), volume=Decimal(volume), source=DataSource.WEBSOCKET)


def rest(minute: int, volume: str, price: int = 100, *, closed: bool = True) -> CandleData:
    return replace(frame(minute, volume, price), source=DataSource.REST, is_closed=closed)


def told(updates: list[BarUpdate]) -> list[tuple[int, str, bool]]:
    return [
        ((each.candle.timestamp - START) // timedelta(minutes=1), str(each.candle.volume), each.closed)
        for each in updates
    ]


def seeded() -> Bars:
    bars = Bars(MINUTE, 10)
    bars.take_over([rest(0, "5"), rest(1, "6"), rest(2, "1", closed=False)], bars.certain_until, at(2, 30))
    return bars


def test_a_later_start_closes_the_forming_candle() -> None:
    bars = seeded()
    assert told(bars.live(frame(2, "2"))) == [(2, "2", False)]
    assert told(bars.live(frame(4, "1"))) == [(2, "2", True), (4, "1", False)]


def test_the_clock_closes_it_where_nobody_trades_any_more() -> None:
    bars = seeded()
    assert bars.tick(at(3, 1.9)) == []
    assert told(bars.tick(at(3, 2))) == [(2, "1", True)]
    assert bars.tick(at(3, 3)) == []


def test_the_same_frame_again_changes_nothing() -> None:
    bars = seeded()
    bars.live(frame(2, "2"))
    assert bars.live(frame(2, "2")) == []


def test_a_late_frame_does_not_undo_what_rest_told_already() -> None:
    bars = seeded()
    assert bars.live(frame(2, "0.5")) == []
    assert bars.rows[-1].volume == 1


def test_a_correction_of_a_closed_candle_is_taken_over_reported_and_proved() -> None:
    bars = seeded()
    bars.live(frame(3, "1"))
    updates = bars.live(frame(2, "7"))
    assert told(updates) == [(2, "7", True)]
    assert updates[0].is_correction
    assert bars.wants_proof(at(3, 30))
    updates = bars.take_over([rest(2, "8"), rest(3, "1", closed=False)], bars.certain_until, at(3, 30))
    assert told(updates) == [(2, "8", True)]
    assert updates[0].is_correction
    assert not bars.wants_proof(at(3, 30))


def test_a_frame_that_contradicts_rest_with_less_makes_rest_the_judge() -> None:
    bars = seeded()
    assert bars.live(frame(1, "5.5")) == []
    assert bars.certain_until == at(1)
    assert bars.wants_proof(at(2, 31))
    assert told(bars.take_over([rest(1, "5.5"), rest(2, "1", closed=False)], at(1), at(2, 31))) == [(1, "5.5", True)]


def test_a_hole_filled_by_rest_is_reported_in_order() -> None:
    bars = seeded()
    bars.live(frame(6, "1"))
    answer = [rest(2, "3"), rest(4, "1"), rest(5, "2"), rest(6, "2", closed=False)]
    assert told(bars.take_over(answer, bars.certain_until, at(6, 20))) == [
        (2, "3", True),
        (4, "1", True),
        (5, "2", True),
        (6, "2", False),
    ]


def test_what_rest_does_not_know_for_certain_disappears() -> None:
    bars = seeded()
    bars.live(frame(4, "1"))
    bars.live(frame(5, "1"))
    bars.take_over([rest(2, "1"), rest(5, "1", closed=False)], at(2), at(5, 30))
    assert [row.timestamp for row in bars.rows] == [at(0), at(1), at(2), at(5)]


def test_rest_asked_too_early_is_not_final() -> None:
    bars = seeded()
    bars.live(frame(2, "4"))
    bars.live(frame(3, "1"))
    assert bars.take_over([rest(2, "3"), rest(3, "1", closed=False)], at(2), at(3, 1)) == []
    assert bars.rows[-2].volume == 4
    assert bars.certain_until == at(2)


def test_size_is_kept() -> None:
    bars = seeded()
    for minute in range(3, 40):
        bars.live(frame(minute, "1"))
    assert len(bars.rows) == 10
    bars.resize(3)
    assert [row.timestamp for row in bars.rows] == [at(37), at(38), at(39)]


# -- anything at all ------------------------------------------------------------------------------------------------


def numbers(row: CandleData) -> tuple[object, ...]:
    prices = (row.open_price, row.high_price, row.low_price, row.close_price)
    return (row.timestamp, *prices, row.volume, row.is_closed)


@st.composite
def days(draw: st.DrawFn) -> tuple[Timeframe, list[TradeData], set[int]]:
    """A unit, trades over some minutes around midnight, and the seconds in which the line is cut."""
    unit = timeframe_of(draw(st.sampled_from(["1s", "1m", "3m"])))
    gaps = draw(st.lists(st.sampled_from([0.1, 0.4, 0.9, 2.0, 7.0, 35.0, 80.0]), min_size=1, max_size=60))
    prices = draw(st.lists(st.integers(1, 9), min_size=len(gaps), max_size=len(gaps)))
    trades, moment = [], utc(2026, 2, 28, 23, 57)
    for number, (gap, price) in enumerate(zip(gaps, prices, strict=True)):
        moment += timedelta(seconds=gap)
        trades.append(trade(moment, price, "0.5", number=number + 1))
    cuts = draw(st.lists(st.tuples(st.integers(0, 600), st.integers(1, 150)), max_size=3))
    return unit, trades, {second for start, length in cuts for second in range(start, start + length)}


@settings(max_examples=150, deadline=None)
@given(days(), st.integers(1, 12), st.booleans())
def test_after_any_cuts_the_rows_are_those_of_rest(
    day: tuple[Timeframe, list[TradeData], set[int]], size: int, sends_last_frames: bool
) -> None:
    """Upbit sends a candle once a second if trades changed it; unkindly, perhaps not the end of the one before."""
    unit, trades, cut = day
    begin = utc(2026, 2, 28, 23, 57)
    bars, seen = Bars(unit, size), dict[datetime, CandleData]()
    was_cut = False

    def ask(now: datetime) -> None:
        since = bars.certain_until
        rows = [row for row in brute_force(unit, trades, now) if row.timestamp >= since]
        note(bars.take_over(rows, since, now))

    def note(updates: list[BarUpdate]) -> None:
        for each in updates:
            assert each.candle.is_closed == each.closed
            seen[each.candle.timestamp] = each.candle

    ask(begin)
    last_second = int((trades[-1].timestamp - begin).total_seconds()) + 200
    for second in range(1, last_second):
        now = begin + timedelta(seconds=second)
        if second in cut:
            was_cut = True
        else:
            changed = {
                unit.floor(each.timestamp) for each in trades if now - timedelta(seconds=1) < each.timestamp <= now
            }
            current = brute_force(unit, trades, now)
            frames = [row for row in current if row.timestamp in changed or (was_cut and row is current[-1])]
            for row in frames if sends_last_frames else frames[-1:]:
                note(bars.live(replace(row, source=DataSource.WEBSOCKET)))
            if was_cut:
                ask(now)
                was_cut = False
        note(bars.tick(now))
        if second % 30 == 0 and bars.wants_proof(now):
            ask(now)
        starts = [row.timestamp for row in bars.rows]
        assert starts == sorted(set(starts))
        assert all(row.is_closed for row in bars.rows[:-1])
    if was_cut:
        ask(now)
    expected = brute_force(unit, trades, now)[-size:]
    assert [numbers(row) for row in bars.rows] == [numbers(row) for row in expected]
    assert [numbers(seen[row.timestamp]) for row in bars.rows] == [numbers(row) for row in bars.rows]
