"""Rows of history that cannot be read: holes that are told, never a silently shorter answer, never the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.candle_reference import SYMBOL, ReferenceExchange, trade, utc
from upbit_backbone._concurrency import Deadline
from upbit_backbone.backfill.pages import CandleFetch, TradeFetch
from upbit_backbone.backfill.sequence import Gap
from upbit_backbone.errors import MalformedDataError
from upbit_backbone.exchange.timeframes import timeframe_of
from upbit_backbone.history.candles import CandleHistory
from upbit_backbone.history.trades import TradesHistory
from upbit_backbone.models.enums import Priority
from upbit_backbone.models.events import HistoryGapEvent
from upbit_backbone.unify.reader import UnreadRow
from upbit_backbone.unify.rest import Rows, UnreadablePageError

NOW = utc(2026, 3, 1, 0, 10, 30)
MINUTE = timeframe_of("1m")
LAST = MINUTE.floor(NOW)
ERROR = MalformedDataError("candle: [3].trade_price (close_price) is missing", field="[3].trade_price")


def breaking(page: Callable[..., list[Any]], broken: set[datetime]) -> Callable[..., list[Any]]:
    """The pages of an exchange, with the rows at these times unreadable."""

    def asked(*args: Any, **options: Any) -> list[Any]:
        rows = page(*args, **options)
        unread = [
            UnreadRow(None, SYMBOL, place, ERROR, None, row.timestamp)
            for place, row in enumerate(rows)
            if row.timestamp in broken
        ]
        good = Rows((row for row in rows if row.timestamp not in broken), unread)
        if unread and not good:
            raise UnreadablePageError(unread)
        return good

    return asked


class Told:
    """Listens for the holes."""

    def __init__(self) -> None:
        self.events: list[HistoryGapEvent] = []

    def __call__(self, event: Any) -> None:
        self.events.append(event)

    def covers(self, moment: datetime) -> bool:
        return any(each.first and each.last and each.first <= moment <= each.last for each in self.events)


@contextmanager
def candles(starts: list[datetime], broken: set[datetime]) -> Iterator[tuple[CandleHistory, ReferenceExchange, Told]]:
    exchange, told = ReferenceExchange(NOW), Told()
    exchange.serve(MINUTE, starts)
    history = CandleHistory(breaking(exchange.candles_page, broken), exchange_now=exchange.tell_now, emit=told)
    yield history, exchange, told
    assert history.close(Deadline.after(2.0)) == []


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, 699), max_size=60), st.sampled_from([None, 1, 7, 200, 201, 450]))
def test_a_range_with_any_rows_broken_is_all_the_others_and_each_hole_is_told(
    broken: set[int], cut: int | None
) -> None:
    starts = [MINUTE.shift(LAST, -index) for index in range(700)]
    bad = {starts[index] for index in broken}
    start = starts[-1] if cut is None else starts[cut]
    with candles(starts, bad) as (history, exchange, told):
        every = [row for row in exchange.candles(MINUTE) if row.timestamp >= start]
        wanted = [row for row in every if row.timestamp not in bad]
        if wanted:
            assert history.get(SYMBOL, "1m", start=start, timeout=60) == wanted
        else:
            with pytest.raises(MalformedDataError):
                history.get(SYMBOL, "1m", start=start, timeout=60)
        assert all(told.covers(row.timestamp) for row in every if row.timestamp in bad)


def test_a_count_is_exact_in_spite_of_holes_and_they_are_asked_for_again_next_time() -> None:
    starts = [MINUTE.shift(LAST, -index) for index in range(1_000)]
    bad = {starts[5], starts[199], starts[200]}
    with candles(starts, bad) as (history, exchange, told):
        wanted = [row for row in exchange.candles(MINUTE) if row.timestamp not in bad][-600:]
        assert history.get(SYMBOL, "1m", count=600, timeout=60) == wanted
        assert {each.kind for each in told.events} == {"1m"}
        assert "trade_price" in told.events[0].reason
        bad.clear()  # Upbit has mended its answer
        assert history.get(SYMBOL, "1m", count=600, timeout=60) == exchange.candles(MINUTE)[-600:]


def test_a_candle_that_cannot_be_read_is_no_period_without_trades() -> None:
    starts = [MINUTE.shift(LAST, -index) for index in range(30) if index != 10]
    bad = {starts[4]}
    with candles(starts, bad) as (history, _, _told):
        rows = history.get(SYMBOL, "1m", count=25, fill="forward", timeout=60)
    filled = [row.timestamp for row in rows if row.is_filled]
    assert filled == [MINUTE.shift(LAST, -10)]
    assert starts[4] not in {row.timestamp for row in rows}


def test_where_nothing_that_was_asked_for_can_be_read_the_error_says_why() -> None:
    starts = [MINUTE.shift(LAST, -index) for index in range(50)]
    with candles(starts, set(starts)) as (history, _, _told), pytest.raises(MalformedDataError, match=SYMBOL):
        history.get(SYMBOL, "1m", start=starts[-1], timeout=60)
    with candles(starts, {starts[7]}) as (history, _, _told), pytest.raises(MalformedDataError, match="trade_price"):
        history.get(SYMBOL, "1m", start=starts[7], end=starts[6], timeout=60)


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, 1_199), max_size=40))
def test_trades_with_any_rows_broken_are_all_the_others_and_each_hole_is_told(broken: set[int]) -> None:
    trades = [trade(NOW - timedelta(seconds=index), number=10**16 - index) for index in range(1_200)]
    bad = {trades[index].timestamp for index in broken}
    exchange, told = ReferenceExchange(NOW, trades=trades), Told()
    history = TradesHistory(breaking(exchange.trades_page, bad), exchange_now=exchange.tell_now, emit=told)
    since = NOW - timedelta(seconds=1_199)
    got = history.get(SYMBOL, since=since, timeout=60)
    assert {each.sequential_id for each in got} == {t.sequential_id for t in trades if t.timestamp not in bad}
    assert all(told.covers(moment) for moment in bad)


def test_the_newest_trade_that_cannot_be_read_is_an_error_for_who_asks_for_it_alone() -> None:
    trades = [trade(NOW - timedelta(seconds=index), number=10**16 - index) for index in range(3)]
    exchange = ReferenceExchange(NOW, trades=trades)
    history = TradesHistory(breaking(exchange.trades_page, {NOW}), exchange_now=exchange.tell_now)
    with pytest.raises(MalformedDataError, match=SYMBOL):
        history.get(SYMBOL, count=1)


def gap_between(before: Any, first: Any) -> Gap[Any]:
    return Gap(before, first, floor=before.timestamp, ceiling=first.timestamp, opened_at=0.0, parked_since=0.0)


def test_a_repair_of_trades_that_met_rows_it_cannot_read_says_that_it_is_not_whole() -> None:
    trades = [trade(NOW - timedelta(seconds=index), number=10**16 - index) for index in range(10)]
    exchange = ReferenceExchange(NOW, trades=trades)
    fetch = TradeFetch(gap_between(trades[8], trades[1]), 100)
    page = breaking(exchange.trades_page, {trades[4].timestamp})
    until = Deadline.after(5)
    while not fetch.is_done:
        fetch.step(
            lambda count, cursor, days_ago: page(
                SYMBOL, count=count, cursor=cursor, days_ago=days_ago, deadline=until, priority=Priority.NORMAL
            ),
            lambda fresh: 0,
        )
    assert fetch.shortfall == "rows of Upbit's answers that cannot be read: 1"
    assert fetch.missing(trades[8].timestamp, trades[1].timestamp) == (trades[8].timestamp, trades[1].timestamp)


def test_a_repair_of_candles_that_met_rows_it_cannot_read_says_that_it_is_not_whole() -> None:
    starts = [MINUTE.shift(LAST, -index) for index in range(10)]
    exchange = ReferenceExchange(NOW)
    exchange.serve(MINUTE, starts)
    rows = exchange.candles(MINUTE)
    fetch = CandleFetch(gap_between(rows[1], rows[8]), 100)
    page = breaking(exchange.candles_page, {rows[4].timestamp})
    until = Deadline.after(5)
    while not fetch.is_done:
        fetch.step(
            lambda count, to: page(SYMBOL, "1m", count=count, to=to, deadline=until, priority=Priority.NORMAL),
            lambda fresh: 0,
        )
    assert fetch.shortfall == "rows of Upbit's answers that cannot be read: 1"
