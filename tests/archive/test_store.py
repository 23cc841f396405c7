from __future__ import annotations

from datetime import date, timedelta

import pytest

from tests.sinks.conftest import START, at, book, candle, ticker, trade
from tests.sinks.test_sqlite import gap, span
from tests.support.english import english_words
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.models.events import GapEvent
from upbit_backbone.sinks.base import Batch, Span
from upbit_backbone.sinks.coverage import NOT_RECORDED

MIDNIGHT = START.replace(hour=0)


def test_the_market_is_told_as_it_was(make_store):
    store = make_store(Batch([trade(1), trade(5), ticker(2), ticker(6), book(3), book(7)]))
    state = store.as_of("KRW-BTC", at(0.55))
    assert (state.trade, state.ticker, state.orderbook) == (trade(5), ticker(2), book(3))
    assert store.as_of("KRW-BTC", at(0.5)).trade == trade(5)
    assert store.as_of("KRW-BTC", at(-1)).trade is None
    with pytest.raises(InvalidRequestError, match="no time zone"):
        store.as_of("KRW-BTC", at(1).replace(tzinfo=None))


def test_the_quality_of_a_day_counts_rows_and_seconds_and_names_the_holes(make_store):
    spans = (Span("KRW-BTC", "trade", MIDNIGHT - timedelta(days=1), at(0)), span(60, 120))
    store = make_store(Batch([trade(1), trade(2), candle(0)], spans=spans), gap(70, 79.999))
    (found,) = store.quality(date(2026, 1, 31))
    assert found == store.quality(at(5))[0]
    assert found == store.quality("2026-01-31")[0]
    assert found == store.quality("2026-02-01 08:59+09:00")[0]
    with pytest.raises(InvalidRequestError, match="expected a UTC day such as '2026-01-31'"):
        store.quality("January")
    with pytest.raises(InvalidRequestError, match="no time zone"):
        store.quality("2026-01-31T09:00")
    assert (found.symbol, found.type, found.rows) == ("KRW-BTC", "trade", 2)
    assert found.complete_seconds == 3 * 3600 + 60 - 10
    assert found.complete_seconds + found.missing_seconds == 24 * 3600
    assert [each.reason for each in found.holes if each.seconds == pytest.approx(10)] == ["gone"]
    assert 0.12 < found.share < 0.13


def test_a_gap_of_which_something_came_back_is_partial(make_store):
    told: GapEvent = gap(3, 4, recovered=7)
    store = make_store(Batch(spans=(span(0, 10),)), told)
    assert [each.state.value for each in store.coverage("KRW-BTC")] == ["complete", "partial", "complete"]


def test_coverage_of_a_window_has_no_hole_and_of_nothing_is_empty(make_store):
    store = make_store(Batch(spans=(span(10, 20),)))
    stretches = store.coverage("KRW-BTC", "trade", at(0), at(30))
    assert [(each.start, each.end) for each in stretches] == [(at(0), at(10)), (at(10), at(20)), (at(20), at(30))]
    assert store.coverage("KRW-BTC", "1m") == []
    assert store.coverage("KRW-ETH") == []
    assert store.reached() == at(20)
    with pytest.raises(InvalidRequestError, match="end must come after"):
        store.coverage("KRW-BTC", "trade", at(3), at(2))


def test_what_is_missing_is_told_in_the_readers_language_and_stays_english_for_programs(make_store, monkeypatch):
    store = make_store(Batch([trade(1)], spans=(span(0, 10), span(20, 30))))
    _, hole, _ = store.coverage("KRW-BTC")
    (quality,) = store.quality("2026-01-31")
    assert "KST: missing (nobody recorded then" in str(hole)
    assert "1 rows" in str(quality)
    monkeypatch.setenv("UPBIT_BACKBONE_LANGUAGE", "ko")
    assert str(hole).isascii() is False
    assert english_words(str(hole)) == []
    assert english_words(str(quality), ["KRW-BTC", "trade"]) == []
    assert (hole.state.value, hole.reason) == ("missing", NOT_RECORDED)
    assert type(hole).from_json(hole.to_json()) == hole
