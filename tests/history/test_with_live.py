"""A chart that is drawn every second: exact, and hardly a request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest

from tests.support.candle_reference import SYMBOL, ReferenceExchange, candle, utc
from upbit_backbone._concurrency import SYSTEM_CLOCK, Deadline
from upbit_backbone.exchange.timeframes import timeframe_of
from upbit_backbone.history.candles import CandleHistory, CandlesWithLive
from upbit_backbone.store.intelligent_cache import IntelligentCache

MINUTE = timeframe_of("1m")
START = utc(2026, 11, 22, 12, 0)


@pytest.fixture
def scene() -> Iterator[SimpleNamespace]:
    """An exchange with a trade each second, a viewer of its chart, and a stream that gives the forming candle."""
    exchange = ReferenceExchange(START + timedelta(minutes=10))
    exchange.serve(MINUTE, [START + timedelta(minutes=number) for number in range(-60, 30)])
    history = CandleHistory(exchange.candles_page, exchange_now=exchange.tell_now)
    made = SimpleNamespace(exchange=exchange, is_live=True, asked=[], cache=IntelligentCache())
    made.charts = CandlesWithLive(
        history,
        live=lambda topic, now: replace(exchange.candles(MINUTE)[-1], is_closed=False) if made.is_live else None,
        asked=made.asked.append,
        exchange_now=exchange.tell_now,
        cache=made.cache,
        max_age=60.0,
        clock=SYSTEM_CLOCK,
    )
    yield made
    assert history.close(Deadline.after(5)) == []


def look(scene: SimpleNamespace, count: int = 20) -> None:
    rows = scene.charts.get(SYMBOL, "1m", count=count)
    expected = scene.exchange.candles(MINUTE)[-count:]
    assert [(row.timestamp, row.close_price) for row in rows] == [(row.timestamp, row.close_price) for row in expected]
    assert [row.is_closed for row in rows] == [True] * (count - 1) + [False]


def calls_of_a_minute(scene: SimpleNamespace, first_look: float) -> int:
    """Requests of one look a second, from a period's start on, and each look exact."""
    scene.exchange.calls.clear()
    for second in range(60):
        scene.exchange.now = START + timedelta(minutes=11, seconds=second + first_look)
        look(scene)
    return len(scene.exchange.calls)


@pytest.mark.parametrize("first_look", [0.0, 0.3, 0.999])
def test_a_chart_drawn_each_second_costs_three_requests_a_minute(scene: SimpleNamespace, first_look: float) -> None:
    look(scene)
    assert calls_of_a_minute(scene, first_look) <= 3


def test_a_candle_that_changes_just_after_its_end_is_shown_right_within_two_seconds(scene: SimpleNamespace) -> None:
    look(scene)
    end = START + timedelta(minutes=11)
    scene.exchange.now = end + timedelta(seconds=0.02)
    look(scene)
    late = candle(MINUTE, START + timedelta(minutes=10), 777)
    ready = scene.exchange._ready["1m"]
    ready[[row.timestamp for row in ready].index(late.timestamp)] = late
    scene.exchange.now = end + timedelta(seconds=1.02)
    assert scene.charts.get(SYMBOL, "1m", count=2)[0].close_price == late.close_price


def test_more_candles_than_were_told_are_asked_for(scene: SimpleNamespace) -> None:
    scene.exchange.now = START + timedelta(minutes=11, seconds=1.5)
    look(scene, 5)
    asked = len(scene.exchange.calls)
    look(scene, 3)
    assert len(scene.exchange.calls) == asked
    look(scene, 30)
    assert len(scene.exchange.calls) > asked


def test_each_question_about_the_present_counts_and_without_a_stream_rest_tells_all(scene: SimpleNamespace) -> None:
    scene.is_live = False
    rows = scene.charts.get(SYMBOL, "1m", count=20)
    assert [row.timestamp for row in rows] == [row.timestamp for row in scene.exchange.candles(MINUTE)[-20:]]
    assert [topic.symbol for topic in scene.asked] == [SYMBOL]
    scene.charts.get(SYMBOL, "1m", count=20, to=START)
    assert len(scene.asked) == 1


def test_until_it_streams_a_chart_told_a_moment_ago_is_told_again_within_its_period(scene: SimpleNamespace) -> None:
    scene.is_live = False
    scene.exchange.now = START + timedelta(minutes=10, seconds=30)
    first = scene.charts.get(SYMBOL, "1m", count=20)
    asked = len(scene.exchange.calls)
    first.clear()  # everybody has a list of his own
    assert len(scene.charts.get(SYMBOL, "1m", count=20)) == 20
    assert scene.charts.get(SYMBOL, "1m", count=5)[-1].timestamp == START + timedelta(minutes=10)
    assert len(scene.exchange.calls) == asked
    scene.exchange.now += timedelta(seconds=30)
    assert scene.charts.get(SYMBOL, "1m", count=5)[-1].timestamp == START + timedelta(minutes=11)
    assert len(scene.exchange.calls) == asked + 1


def test_what_was_told_is_forgotten_with_the_cache_and_not_told_to_who_watches_the_download(
    scene: SimpleNamespace,
) -> None:
    scene.is_live = False
    scene.charts.get(SYMBOL, "1m", count=5)
    asked = len(scene.exchange.calls)
    steps: list[tuple[int, int | None]] = []
    scene.charts.get(SYMBOL, "1m", count=5, progress=lambda done, total: steps.append((done, total)))
    assert steps
    assert len(scene.exchange.calls) == asked + 1
    scene.cache.invalidate_cache(SYMBOL)
    scene.charts.get(SYMBOL, "1m", count=5)
    assert len(scene.exchange.calls) == asked + 2
