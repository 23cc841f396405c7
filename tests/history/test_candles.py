"""CandleHistory against the plain model: exact rows whatever is asked, whatever fails, in few requests."""

from __future__ import annotations

import itertools
import threading
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import lru_cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import upbit_backbone
from tests.support.candle_reference import SYMBOL, ReferenceExchange, brute_force, trade, utc
from upbit_backbone._concurrency import Deadline
from upbit_backbone.errors import (
    ClosedError,
    DownloadCancelledError,
    InvalidRequestError,
    NetworkError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    UnknownSymbolError,
    UnknownTimeframeError,
)
from upbit_backbone.exchange.timeframes import TIMEFRAMES, Timeframe, timeframe_of
from upbit_backbone.history.candles import CandleHistory
from upbit_backbone.history.download import Pace
from upbit_backbone.models.enums import DataSource
from upbit_backbone.models.market import CandleData

NOW = utc(2026, 3, 1, 0, 10, 30)
MINUTE = timeframe_of("1m")


class Bench:
    """A history over a model exchange, closed at the end."""

    def __init__(self, exchange: ReferenceExchange, **settings: int) -> None:
        self.exchange = exchange
        self.history = CandleHistory(exchange.candles_page, exchange_now=exchange.tell_now, **settings)
        self.get = self.history.get

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.history.close(Deadline.after(2.0)) == []

    @property
    def requests(self) -> int:
        return len(self.exchange.calls)


@lru_cache(maxsize=8)
def minutes(count: int, *, step: int = 1, end: datetime = NOW) -> tuple[datetime, ...]:
    """Starts of `count` one-minute candles, every `step` minutes, the last one still forming at `end`."""
    return tuple(MINUTE.shift(MINUTE.floor(end), -index * step) for index in range(count))


def holes(count: int, keep: int) -> list[datetime]:
    """`count` minutes of which about `keep` of ten have a candle, in an irregular but fixed pattern."""
    starts = minutes(count)
    return [start for index, start in enumerate(starts) if (index * 7919 + index // 13 * 31) % 10 < keep]


def bench(starts: Iterable[datetime], unit: Timeframe = MINUTE, **settings: int) -> Bench:
    exchange = ReferenceExchange(NOW)
    exchange.serve(unit, starts)
    return Bench(exchange, **settings)


@pytest.fixture
def dense() -> Iterator[Bench]:
    with bench(minutes(10_400)) as ready:
        yield ready


# -- the usual questions --------------------------------------------------------------------------------------------


def test_the_newest_candles_come_oldest_first_with_the_forming_one_marked(dense: Bench) -> None:
    rows = dense.get(SYMBOL, "1m", count=3)
    assert [row.timestamp for row in rows] == sorted(minutes(3))
    assert [row.is_closed for row in rows] == [True, True, False]
    assert dense.requests == 1


def test_without_bounds_one_page_comes(dense: Bench) -> None:
    assert len(dense.get(SYMBOL, "1m")) == 200
    assert dense.requests == 1


def test_ten_thousand_come_exactly_in_as_many_requests_as_needed(dense: Bench) -> None:
    rows = dense.get(SYMBOL, "1m", count=10_000)
    assert rows == dense.exchange.candles(MINUTE)[-10_000:]
    assert dense.requests == 50


@pytest.mark.parametrize("keep", [9, 7, 5, 2, 1])
def test_holes_cost_neither_request_nor_row_where_answers_are_quick(keep: int) -> None:
    with bench(holes(10_000 * 11 // keep, keep)) as sparse:
        rows = sparse.get(SYMBOL, "1m", count=10_000)
        assert rows == sparse.exchange.candles(MINUTE)[-10_000:]
        assert sparse.requests == 50


@pytest.mark.parametrize(("keep", "most"), [(10, 20), (9, 24), (2, 24)])
def test_where_answers_are_slow_pages_are_under_way_together_for_few_requests_more(keep: int, most: int) -> None:
    with bench(minutes(4_400) if keep == 10 else holes(4_000 * 11 // keep, keep)) as slow:
        slow.exchange.latency = 0.2
        rows = slow.get(SYMBOL, "1m", count=4_000)
        assert rows == slow.exchange.candles(MINUTE)[-4_000:]
        assert slow.requests <= most
        assert slow.exchange.most_at_once >= 2


@pytest.mark.parametrize(
    ("seconds", "pages", "sparse", "dense"),
    [
        (0.01, 50, 1, 1),
        (0.09, 50, 1, 1),
        (0.105, 50, 1, 2),  # one request too many would cost more than waiting for each page
        (0.105, 500, 2, 2),
        (0.2, 50, 2, 2),
        (0.3, 50, 3, 3),
        (0.2, 3, 1, 2),
        (5.0, 50, 4, 4),
        (0.2, 0, 1, 1),
    ],
)
def test_as_many_pages_go_together_as_use_the_rate_and_no_more(
    seconds: float, pages: int, sparse: int, dense: int
) -> None:
    pace = Pace()
    assert pace.walks(pages, is_dense=False) == 1  # nothing is known yet
    for _ in range(5):
        pace.learn(seconds)
    assert pace.walks(pages, is_dense=False) == sparse
    assert pace.walks(pages, is_dense=True) == dense


def test_the_same_chart_again_costs_one_request_at_most(dense: Bench) -> None:
    first = dense.get(SYMBOL, "1m", count=2_000)
    before = dense.requests
    assert dense.get(SYMBOL, "1m", count=2_000) == first
    assert dense.requests == before + 1
    dense.exchange.now += timedelta(minutes=7)
    assert dense.get(SYMBOL, "1m", count=2_000, to=NOW) == dense.exchange.candles(MINUTE)[-2_000:]
    assert dense.requests <= before + 2


def test_a_closed_range_again_costs_nothing(dense: Bench) -> None:
    start, end = NOW - timedelta(hours=20), NOW - timedelta(hours=10)
    first = dense.get(SYMBOL, "1m", start=start, end=end)
    assert len(first) == 600
    before = dense.requests
    assert dense.get(SYMBOL, "1m", start=start, end=end) == first
    assert dense.get(SYMBOL, "1m", start=start + timedelta(hours=3), end=end) == first[180:]
    assert dense.requests == before


def test_what_is_kept_is_bounded() -> None:
    with bench(minutes(3_000), max_kept_rows=500) as small:
        small.get(SYMBOL, "1m", count=3_000)
        assert len(small.history.kept) <= 500
        assert small.get(SYMBOL, "1m", count=3_000) == small.exchange.candles(MINUTE)


def test_a_young_market_gives_what_it_has() -> None:
    with bench(minutes(5)) as young:
        assert len(young.get(SYMBOL, "1m", count=1_000)) == 5
        assert young.requests <= 5


def test_a_market_without_candles_gives_an_empty_list() -> None:
    with bench([]) as silent:
        assert silent.get(SYMBOL, "1m", count=1_000) == []
        assert silent.get(SYMBOL, "1m", start=NOW - timedelta(days=1)) == []
        assert silent.get(SYMBOL, "1m", start=NOW - timedelta(days=1), fill="forward") == []


def test_a_candle_is_closed_only_if_its_period_was_over_when_asked() -> None:
    exchange = ReferenceExchange(utc(2026, 3, 1, 0, 0, 59))
    exchange.serve(MINUTE, minutes(15))
    with Bench(exchange) as edge:
        assert edge.get(SYMBOL, "1m", count=1)[0].is_closed is False
        exchange.now = utc(2026, 3, 1, 0, 1, 0)
        assert [row.is_closed for row in edge.get(SYMBOL, "1m", count=2)] == [True, False]


# -- absence proves nothing ------------------------------------------------------------------------------------------


def cut_pages(exchange: ReferenceExchange, cut: Callable[[int, int], int]) -> None:
    """The exchange gives only `cut(number of the call, rows)` of a page's rows, the newest.

    Pages are asked for from several threads, so the numbers meet them in any order. What follows a cut is no other
    number's victim: a short answer and an empty one behind it are how Upbit says that there is nothing older.
    """
    whole = exchange.candles_page
    numbers = itertools.count(1)
    behind_a_cut: set[object] = set()
    harmless = 13  # none of the rules below cuts a page for having this number

    def page(*args: object, **options: object) -> list[CandleData]:
        rows = whole(*args, **options)
        number = harmless if options["to"] in behind_a_cut else next(numbers)
        kept = rows[: cut(number, len(rows))]
        behind_a_cut.discard(options["to"])
        if len(kept) < len(rows):
            behind_a_cut.add(kept[-1].timestamp if kept else options["to"])
        return kept

    exchange.candles_page = page


CUTS: dict[str, Callable[[int, int], int]] = {
    "every page holds half": lambda number, rows: min(rows, 100),
    "every third page is short": lambda number, rows: rows // 3 if number % 3 == 0 else rows,
    "every page is one row": lambda number, rows: min(rows, 1),
    "every third page is empty": lambda number, rows: 0 if number % 3 == 0 else rows,
    "the first page is empty": lambda number, rows: 0 if number == 1 else rows,
    "every fifth page is half, every seventh empty": lambda number, rows: (
        0 if number % 7 == 0 else rows // 2 if number % 5 == 0 else rows
    ),
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("keep", [10, 5])
def test_a_page_that_is_cut_short_ends_nothing(cut: Callable[[int, int], int], keep: int) -> None:
    starts = minutes(900) if keep == 10 else holes(1_800, keep)
    exchange = ReferenceExchange(NOW)
    exchange.serve(MINUTE, starts)
    cut_pages(exchange, cut)
    count = 150 if cut(3, 200) == 1 else 600  # a request for each row
    with Bench(exchange) as ready:
        every = exchange.candles(MINUTE)
        assert ready.get(SYMBOL, "1m", count=count, timeout=60) == every[-count:]
        ready.history.kept.forget()
        longer = count + 100
        start = every[-longer].timestamp
        assert ready.get(SYMBOL, "1m", start=start, timeout=60) == every[-longer:]
        ready.history.kept.forget()
        assert list(ready.history.iter(SYMBOL, "1m", start=start)) == every[-longer:]
        ready.history.kept.forget()
        assert list(ready.history.iter(SYMBOL, "1m", count=count, newest_first=True)) == every[-count:][::-1]


@pytest.mark.parametrize("rows", [0, 5, 199, 200, 350, 400])
def test_the_end_of_a_history_costs_one_request(rows: int) -> None:
    with bench(minutes(rows)) as young:
        assert len(young.get(SYMBOL, "1m", count=450)) == rows
        assert young.requests <= 4  # three pages are asked for at once, since so many rows are wanted


# -- bounds ---------------------------------------------------------------------------------------------------------


def test_ranges_are_half_open_on_period_starts(dense: Bench) -> None:
    rows = dense.get(SYMBOL, "1m", start=utc(2026, 2, 28, 23, 58), end=utc(2026, 3, 1, 0, 2))
    assert [f"{row.timestamp:%H:%M}" for row in rows] == ["23:58", "23:59", "00:00", "00:01"]
    rows = dense.get(SYMBOL, "1m", start=utc(2026, 2, 28, 23, 58, 1), end=utc(2026, 3, 1, 0, 2, 1))
    assert [f"{row.timestamp:%H:%M}" for row in rows] == ["23:59", "00:00", "00:01", "00:02"]


def test_to_is_exclusive_and_may_come_in_any_zone(dense: Bench) -> None:
    kst = timezone(timedelta(hours=9))
    rows = dense.get(SYMBOL, "1m", count=2, to=datetime(2026, 3, 1, 9, 0, tzinfo=kst))
    assert [f"{row.timestamp:%H:%M}" for row in rows] == ["23:58", "23:59"]


def test_the_future_is_empty_not_an_error(dense: Bench) -> None:
    assert dense.get(SYMBOL, "1m", start=NOW + timedelta(hours=1)) == []
    assert dense.get(SYMBOL, "1m", start=NOW + timedelta(hours=1), end=NOW + timedelta(hours=2), fill="forward") == []
    assert list(dense.history.iter(SYMBOL, "1m", start=NOW + timedelta(hours=1))) == []
    assert dense.requests == 0
    rows = dense.get(SYMBOL, "1m", start=NOW - timedelta(minutes=2), end=NOW + timedelta(days=400))
    assert [row.is_closed for row in rows] == [True, True, False][-len(rows) :]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"start": NOW, "end": NOW}, "half-open"),
        ({"start": NOW, "end": NOW - timedelta(days=1)}, "half-open"),
        ({"start": NOW + timedelta(days=2), "end": NOW + timedelta(days=1)}, "half-open"),
        ({"start": NOW, "count": 5}, "count= and start= do not go together; allowed are"),
        ({"start": NOW, "to": NOW}, "do not go together"),
        ({"end": NOW}, "do not go together|allowed are"),
        ({"end": NOW, "count": 1}, "do not go together"),
        ({"count": 0}, "from 1 to 1,000,000"),
        ({"count": 1_000_001}, "iter_candles"),
        ({"count": 1.5}, "whole number"),
        ({"count": True}, "whole number"),
        ({"count": 5, "to": datetime(2026, 3, 1)}, r"no time zone.*replace\(tzinfo="),
        ({"start": datetime(2026, 3, 1)}, "no time zone"),
        ({"start": "2026-03-01"}, "no time zone"),
        ({"start": "yesterday"}, "expected a time with its zone"),
        ({"count": 5, "fill": "back"}, "'none' or 'forward'"),
        ({"start": utc(2000, 1, 1)}, "iter_candles"),
        ({"timeout": -1}, "timeout"),
    ],
)
def test_wrong_questions_say_what_is_allowed_and_ask_nothing(
    dense: Bench, arguments: dict[str, object], says: str
) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        dense.get(SYMBOL, "1m", **arguments)
    assert dense.requests == 0


def test_the_zone_that_a_naive_time_is_told_to_name_is_there_to_be_named(dense: Bench) -> None:
    with pytest.raises(InvalidRequestError, match=r"upbit_backbone\.KST"):
        dense.get(SYMBOL, "1m", count=2, to=datetime(2026, 3, 1, 9, 0))
    rows = dense.get(SYMBOL, "1m", count=2, to=datetime(2026, 3, 1, 9, 0, tzinfo=upbit_backbone.KST))
    assert [f"{row.timestamp:%H:%M}" for row in rows] == ["23:58", "23:59"]


def test_an_unknown_unit_is_named_with_those_that_exist(dense: Bench) -> None:
    with pytest.raises(UnknownTimeframeError, match="1m, 3m"):
        dense.get(SYMBOL, "2m")


# -- filling --------------------------------------------------------------------------------------------------------


def test_filled_candles_carry_the_close_before_them_and_say_so() -> None:
    with bench(minutes(4, step=3)) as sparse:
        plain = sparse.get(SYMBOL, "1m", count=4)
        rows = sparse.get(SYMBOL, "1m", start=plain[1].timestamp - timedelta(minutes=1), fill="forward")
    assert [row.timestamp for row in rows] == sorted(minutes(8))
    made_up = [row for row in rows if row.is_filled]
    assert [row for row in rows if not row.is_filled] == plain[1:]
    assert all(row.source is DataSource.DERIVED and row.volume == 0 and row.is_closed for row in made_up)
    assert rows[0].close_price == rows[0].open_price == plain[0].close_price


def test_with_filling_a_count_counts_periods() -> None:
    with bench(minutes(500, step=7)) as sparse:
        rows = sparse.get(SYMBOL, "1m", count=1_000, fill="forward")
        assert [row.timestamp for row in rows] == sorted(minutes(1_000))
        assert list(sparse.history.iter(SYMBOL, "1m", start=rows[0].timestamp, fill="forward")) == rows


def test_nothing_is_made_up_before_the_first_trade() -> None:
    with bench(minutes(3)) as young:
        assert young.get(SYMBOL, "1m", count=50, fill="forward") == young.exchange.candles(MINUTE)


def test_the_forming_period_is_filled_but_not_closed() -> None:
    with bench(minutes(3, end=NOW - timedelta(minutes=2))) as quiet:
        rows = quiet.get(SYMBOL, "1m", count=4, fill="forward")
    assert [(row.is_filled, row.is_closed) for row in rows[1:]] == [(False, True), (True, True), (True, False)]


class Ticking(ReferenceExchange):
    """Each page takes `seconds` of the exchange's time."""

    def __init__(self, now: datetime, seconds: float) -> None:
        super().__init__(now)
        self._pace = timedelta(seconds=seconds)
        self._tick = threading.Lock()  # guards now

    def _begin(self, kind: str, to: datetime | None, count: int) -> None:
        super()._begin(kind, to, count)
        with self._tick:
            self.now += self._pace


@pytest.mark.parametrize("seconds", [0.0, 0.4, 7.0, 61.0])
def test_a_download_that_takes_time_makes_up_no_candle_and_leaves_one_unfinished_at_most(seconds: float) -> None:
    second = timeframe_of("1s")
    exchange = Ticking(NOW, seconds)
    exchange.serve(second, [second.shift(NOW, index) for index in range(-4_000, 1_000)])
    with Bench(exchange) as moving:
        rows = moving.get(SYMBOL, "1s", count=3_000, fill="forward", timeout=60)
        assert [row.timestamp for row in rows] == [second.shift(NOW, index) for index in range(-2_999, 1)]
        assert not any(row.is_filled for row in rows)
        assert all(row.is_closed for row in rows[:-1])
        asked_at = exchange.now
        walked = list(moving.history.iter(SYMBOL, "1s", start=asked_at - timedelta(seconds=2_000), fill="forward"))
        assert not any(row.is_filled for row in walked)
        assert walked[-1].timestamp == asked_at
        assert all(row.is_closed for row in walked[:-1])


@pytest.mark.parametrize("failing", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("walks", [False, True])
def test_what_came_and_the_rest_are_the_whole_filled_answer(failing: int, walks: bool) -> None:
    with bench(holes(1_900, 3)) as sparse:
        start, end = NOW - timedelta(minutes=1_500, seconds=30), NOW - timedelta(minutes=1)
        bounds = {"start": MINUTE.floor(start), "end": MINUTE.floor(end), "fill": "forward"}
        whole = sparse.get(SYMBOL, "1m", **bounds)
        sparse.history.kept.forget()
        sparse.exchange.faults[sparse.requests + failing] = UnknownSymbolError("gone for a moment")
        got: list[CandleData] = []
        try:
            if walks:
                got.extend(sparse.history.iter(SYMBOL, "1m", **bounds))
            else:
                got = sparse.get(SYMBOL, "1m", **bounds)
        except UnknownSymbolError as error:
            rest = sparse.get(**error.resume.arguments())
            got = got + rest if walks else rest + list(error.partial)
        assert got == whole


def test_a_price_before_the_range_that_cannot_be_had_loses_nothing_of_the_range() -> None:
    early, late = minutes(1, end=NOW - timedelta(minutes=900)), minutes(150)
    with bench([*early, *late]) as sparse:
        bounds = {"start": MINUTE.floor(NOW) - timedelta(minutes=199), "end": MINUTE.floor(NOW), "fill": "forward"}
        whole = sparse.get(SYMBOL, "1m", **bounds)
        assert len(whole) == 199
        sparse.history.kept.forget()
        refused = sparse.exchange.candles_page

        def page(*args: object, count: int, **options: object) -> list[CandleData]:
            if count == 1:
                raise UnknownSymbolError("gone for a moment")
            return refused(*args, count=min(count, 149), **options)

        source = sparse.history._source
        sparse.history._source = replace(source, candles_page=page)
        try:
            got = sparse.get(SYMBOL, "1m", **bounds)
        except UnknownSymbolError as error:
            sparse.history._source = source
            got = [*sparse.get(**error.resume.arguments()), *error.partial]
        assert got == whole


# -- iterating ------------------------------------------------------------------------------------------------------


def test_a_range_is_walked_oldest_first(dense: Bench) -> None:
    start = NOW - timedelta(minutes=10_000)
    seen: list[tuple[int, int | None]] = []
    rows = list(dense.history.iter(SYMBOL, "1m", start=start, progress=lambda *done: seen.append(done)))
    assert rows == dense.exchange.candles(MINUTE)[-10_000:]
    assert dense.requests <= 52
    assert seen[-1][0] == seen[-1][1]


def test_newest_first_gives_rows_as_they_arrive(dense: Bench) -> None:
    walk = dense.history.iter(SYMBOL, "1m", count=10_000, newest_first=True)
    assert next(walk).timestamp == MINUTE.floor(NOW)
    assert dense.requests <= 8
    rest = list(walk)
    assert rest[::-1] == dense.exchange.candles(MINUTE)[-10_000:-1]


def test_an_iterator_left_early_leaves_nothing_running(dense: Bench) -> None:
    for _ in dense.history.iter(SYMBOL, "1m", start=NOW - timedelta(minutes=9_000)):
        break
    assert dense.requests <= 40


def test_counts_are_iterated_oldest_first_too(dense: Bench) -> None:
    assert list(dense.history.iter(SYMBOL, "1m", count=450)) == dense.exchange.candles(MINUTE)[-450:]


def test_filling_newest_first_is_refused_at_once(dense: Bench) -> None:
    with pytest.raises(InvalidRequestError, match="newest_first"):
        dense.history.iter(SYMBOL, "1m", count=5, fill="forward", newest_first=True)


@pytest.mark.endurance
@pytest.mark.parametrize("newest_first", [False, True])
def test_a_hundred_thousand_rows_pass_in_flat_memory(newest_first: bool) -> None:
    with bench(minutes(101_000), max_kept_rows=2_000) as long:
        rows = long.history.iter(SYMBOL, "1m", start=NOW - timedelta(minutes=100_000), newest_first=newest_first)
        tracemalloc.start()
        peaks = []
        for number, _ in enumerate(rows):
            if number % 20_000 == 0:
                peaks.append(tracemalloc.get_traced_memory()[1])
                tracemalloc.reset_peak()
        tracemalloc.stop()
    assert number >= 99_999
    assert max(peaks[2:]) < 1.5 * peaks[1] + 1_000_000


# -- trouble --------------------------------------------------------------------------------------------------------


def test_trouble_in_the_middle_is_retried_and_costs_no_row(dense: Bench) -> None:
    dense.exchange.faults = {
        7: RateLimitError("429", retry_after=0.05),
        13: NetworkError("connection reset"),
        14: ServerError("500", retry_after=0.0),
    }
    assert dense.get(SYMBOL, "1m", count=10_000) == dense.exchange.candles(MINUTE)[-10_000:]


@pytest.mark.parametrize("question", [{"count": 5_000}, {"start": NOW - timedelta(minutes=5_000)}])
def test_an_error_carries_what_came_and_the_question_for_the_rest(dense: Bench, question: dict[str, object]) -> None:
    shared = UnknownSymbolError("gone")
    dense.exchange.faults = {12: shared}
    with pytest.raises(UnknownSymbolError) as caught:
        dense.get(SYMBOL, "1m", **question)
    error = caught.value
    assert error.__cause__ is shared
    assert shared.resume is None
    assert 0 < len(error.partial) < 5_000
    rest = dense.get(**error.resume.arguments())
    assert [*rest, *error.partial] == dense.exchange.candles(MINUTE)[-5_000:]
    assert dense.requests <= 12 + 20


def test_a_first_page_that_fails_leaves_the_whole_question_as_the_rest(dense: Bench) -> None:
    dense.exchange.faults = {1: UnknownSymbolError("gone")}
    with pytest.raises(UnknownSymbolError) as caught:
        dense.get(SYMBOL, "1m", count=7)
    assert caught.value.partial == []
    assert caught.value.resume.arguments() == {"symbol": SYMBOL, "timeframe": "1m", "count": 7}


def test_an_interrupted_walk_resumes_after_the_last_row_it_gave(dense: Bench) -> None:
    dense.exchange.faults = {25: UnknownSymbolError("gone")}
    rows: list[CandleData] = []
    with pytest.raises(UnknownSymbolError) as caught:
        rows.extend(dense.history.iter(SYMBOL, "1m", start=NOW - timedelta(minutes=8_000)))
    rows.extend(dense.history.iter(**caught.value.resume.arguments()))
    assert rows == dense.exchange.candles(MINUTE)[-8_000:]


def test_cancelling_ends_the_download_and_keeps_what_came(dense: Bench) -> None:
    cancel = threading.Event()

    def stop_at_half(done: int, total: int | None) -> None:
        if done >= (total or 0) // 2:
            cancel.set()

    with pytest.raises(DownloadCancelledError) as caught:
        dense.get(SYMBOL, "1m", count=10_000, progress=stop_at_half, cancel=cancel)
    assert 4_000 < len(caught.value.partial) < 7_000
    rest = dense.get(**caught.value.resume.arguments())
    assert [*rest, *caught.value.partial] == dense.exchange.candles(MINUTE)[-10_000:]


def test_a_deadline_is_kept_and_loses_nothing(dense: Bench) -> None:
    dense.exchange.latency = 0.1
    with pytest.raises(RequestTimeoutError, match="larger timeout=") as caught:
        dense.get(SYMBOL, "1m", count=10_000, timeout=0.35)
    assert caught.value.partial == dense.exchange.candles(MINUTE)[-len(caught.value.partial) :]


def test_progress_tells_rows_of_a_count_up_to_all_of_them(dense: Bench) -> None:
    seen: list[tuple[int, int | None]] = []
    dense.get(SYMBOL, "1m", count=1_000, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (1_000, 1_000)


def test_a_page_that_was_not_asked_for_is_an_error_not_a_loop() -> None:
    exchange = ReferenceExchange(NOW)
    exchange.serve(MINUTE, minutes(1_000))

    def deaf(symbol: str, timeframe: str, *, count: int, to: datetime | None, **rest: object) -> list[CandleData]:
        return exchange.candles_page(symbol, timeframe, count=count, to=None, **rest)

    history = CandleHistory(deaf, exchange_now=exchange.tell_now)
    with pytest.raises(Exception, match="came for to="):
        history.get(SYMBOL, "1m", count=1_000, timeout=3.0)
    assert history.close(Deadline.after(2.0)) == []


def test_after_close_it_says_so() -> None:
    with bench(minutes(5)) as ready:
        ready.history.close(Deadline.after(1.0))
        assert "closed" in repr(ready.history)
        with pytest.raises(ClosedError):
            ready.get(SYMBOL, "1m")


# -- anything at all ------------------------------------------------------------------------------------------------

EDGES = [utc(2024, 2, 29), utc(2025, 12, 29), utc(2026, 1, 1), utc(2026, 3, 1), utc(2026, 3, 2)]


@st.composite
def markets(draw: st.DrawFn) -> tuple[Timeframe, ReferenceExchange]:
    """A unit and a market whose trades lie in bursts with holes around a midnight, month end or New Year."""
    unit = draw(st.sampled_from(TIMEFRAMES))
    edge = draw(st.sampled_from(EDGES))
    now = edge + timedelta(milliseconds=draw(st.integers(-90_000_000, 90_000_000)))
    newest = unit.floor(now)
    gaps = draw(st.lists(st.sampled_from([1, 1, 1, 1, 2, 3, 9, 40]), max_size=12))
    runs = draw(st.lists(st.integers(1, 150), min_size=len(gaps), max_size=len(gaps)))
    index, trades = draw(st.integers(0, 3)), []
    for gap, run in zip(gaps, runs, strict=True):
        for _ in range(run):
            start = unit.shift(newest, -index)
            at = start + timedelta(milliseconds=(index * 37) % 900)
            if at <= now:
                trades.append(trade(at, 100 + index % 17, "0.25", number=10**9 - index))
            index += 1
        index += gap
    return unit, ReferenceExchange(now, trades=trades)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(markets(), st.data())
def test_any_question_gets_what_brute_force_gives(
    market: tuple[Timeframe, ReferenceExchange], data: st.DataObject
) -> None:
    unit, exchange = market
    everything = brute_force(unit, exchange.trades, exchange.now)
    offsets = st.integers(-1_200, 3)
    jitter = timedelta(milliseconds=data.draw(st.sampled_from([0, 1, 500, 1_000])))
    cuts = data.draw(st.dictionaries(st.integers(1, 12), st.integers(1, 199), max_size=6))
    cut_pages(exchange, lambda number, rows: min(rows, cuts.get(number, rows)))
    with Bench(exchange, max_kept_rows=data.draw(st.sampled_from([10, 100_000]))) as ready:
        for _ in range(data.draw(st.integers(1, 3))):
            for _ in range(data.draw(st.integers(0, 2))):
                number = len(exchange.calls) + data.draw(st.integers(1, 6))
                exchange.faults[number] = NetworkError("cut", retry_after=0.0)
            if data.draw(st.booleans()):
                count = data.draw(st.integers(1, 900))
                to = data.draw(st.none() | offsets.map(lambda by: unit.shift(unit.floor(exchange.now), by) + jitter))
                got = ready.get(SYMBOL, unit, count=count, to=to)
                expected = [row for row in everything if to is None or row.timestamp < to][-count:]
            else:
                start = unit.shift(unit.floor(exchange.now), data.draw(offsets)) + jitter
                length = data.draw(st.integers(1, 1_200))
                end = data.draw(st.sampled_from([None, unit.shift(unit.floor(start), length) + jitter]))
                if end is not None and end <= start:
                    continue
                got = ready.get(SYMBOL, unit, start=start, end=end)
                if data.draw(st.booleans()):
                    assert list(ready.history.iter(SYMBOL, unit, start=start, end=end)) == got
                expected = [row for row in everything if start <= row.timestamp and (not end or row.timestamp < end)]
            assert got == expected
            assert [row.is_closed for row in got] == [row.is_closed for row in expected]
            exchange.faults.clear()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(markets(), st.data())
def test_while_time_goes_on_between_slow_pages_no_row_is_made_up_doubled_or_left_out(
    market: tuple[Timeframe, ReferenceExchange], data: st.DataObject
) -> None:
    """Between two pages periods end and others begin, with trades or without."""
    unit, exchange = market
    length = unit.next_start(exchange.now) - unit.floor(exchange.now)
    later = data.draw(st.sets(st.integers(1, 400), max_size=40))
    exchange.trades += [trade(exchange.now + length * by / 20, 120 + by % 9, "0.5", 10**9 + by) for by in later]
    steps = itertools.cycle(data.draw(st.lists(st.integers(0, 2_500), min_size=1, max_size=5)))
    instants, moving = [exchange.now], threading.Lock()

    def time_goes_on() -> None:
        with moving:  # pages may be under way together
            exchange.now += length * next(steps) / 1_000
            instants.append(exchange.now)

    exchange.rate = time_goes_on
    before = {row.timestamp for row in brute_force(unit, exchange.trades, exchange.now)}
    count, fill = data.draw(st.integers(1, 900)), data.draw(st.sampled_from(["none", "forward"]))
    with Bench(exchange) as ready:
        got = ready.get(SYMBOL, unit, count=count, fill=fill)
    ever = {at: {row.timestamp: spelled(row) for row in brute_force(unit, exchange.trades, at)} for at in instants}
    final = ever[instants[-1]]
    starts = [row.timestamp for row in got]
    assert starts == sorted(set(starts))
    assert len(got) == count or (len(got) < count and (not starts or starts[0] == min(final)))
    assert not before or starts[-1] >= max(before)
    assert all(row.is_closed for row in got[:-1]), "only the last row may be unfinished"
    for row in got:
        if row.timestamp not in final:
            assert (fill, row.volume) == ("forward", 0), f"{row.timestamp}: nobody traded"
        elif row.is_closed:
            assert spelled(row) == final[row.timestamp]
        else:
            # Of the period that is under way, as it was at some page; where nobody had traded by then, made up.
            then = [rows.get(row.timestamp) for rows in ever.values()]
            assert (None if row.is_filled else spelled(row)) in then
    if got:
        assert set(starts) >= {start for start in final if starts[0] <= start <= starts[-1]}
    if fill == "forward":
        assert all(unit.next_start(one) == other for one, other in itertools.pairwise(starts))


def test_a_page_so_slow_that_it_holds_newer_candles_only_is_not_asked_for_again() -> None:
    second, began = timeframe_of("1s"), NOW
    exchange = ReferenceExchange(began, trades=[trade(began + timedelta(seconds=by)) for by in range(-30, 60)])

    def five_seconds_pass() -> None:
        exchange.now += timedelta(seconds=5)

    exchange.rate = five_seconds_pass
    with Bench(exchange) as slow:
        (row,) = slow.get(SYMBOL, second, count=1, fill="forward")
    assert row.timestamp == began
    assert slow.requests == 2


def spelled(row: CandleData) -> tuple[object, ...]:
    return row.open_price, row.high_price, row.low_price, row.close_price, row.volume, row.traded_value
