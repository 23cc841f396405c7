from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import pytest

from tests.sinks.conftest import START, at, book, candle, ticker, trade
from tests.sinks.test_sqlite import gap, span
from tests.support.english import english_words
from upbit_backbone.archive import Unfilled
from upbit_backbone.archive.store import NOT_KEPT, TOO_RECENT
from upbit_backbone.errors import InvalidRequestError, UnknownSymbolError
from upbit_backbone.models.events import GapEvent
from upbit_backbone.models.market import TradeData
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


class Upbit:
    """What a fill asks, with these trades at Upbit."""

    def __init__(self, *trades: TradeData) -> None:
        self.trades = trades

    def iter_trades(self, symbol: str, **_: object) -> tuple[TradeData, ...]:
        if symbol == "KRW-GONE":
            raise UnknownSymbolError("Upbit has no market KRW-GONE")
        return self.trades

    def iter_candles(self, *_: object, **__: object) -> tuple[()]:
        return ()

    def health(self) -> SimpleNamespace:
        return SimpleNamespace(clock_offset=None)


def test_a_fill_says_what_it_left_and_why(make_store):
    now = datetime.now(UTC).replace(microsecond=0)
    recent, old = now - timedelta(hours=1), now - timedelta(days=20)
    spans = [
        *(Span("KRW-BTC", "trade", old, old + timedelta(hours=1)), Span("KRW-BTC", "trade", recent, now)),
        *(Span("KRW-GONE", "trade", recent, now), Span("KRW-ETH", "trade", recent, recent + timedelta(minutes=1))),
    ]
    store = make_store(Batch(spans=tuple(spans)))
    report = store.fill(Upbit(trade(1, timestamp=now + timedelta(seconds=1))))
    found = {(each.symbol, each.start): each for each in report.left}
    kept = found["KRW-BTC", old + timedelta(hours=1)]
    assert (kept.reason, kept.end < recent) == (NOT_KEPT, True)
    assert (found["KRW-BTC", now].reason, found["KRW-BTC", now].end) == (TOO_RECENT, None)
    assert "no market KRW-GONE" in found["KRW-GONE", now].reason
    assert len(found) == 3  # what KRW-ETH lacked is there up to now
    assert (report.closed, report.open) == (2, 2)
    later = store.fill(Upbit(trade(1, timestamp=now + timedelta(seconds=30))), "KRW-BTC")
    assert [each.reason for each in later.left] == [NOT_KEPT]


def test_what_a_fill_left_is_told_in_the_readers_language(monkeypatch):
    left = Unfilled(symbol="KRW-BTC", type="trade", start=at(0), end=None, reason=TOO_RECENT)
    assert str(left) == f"KRW-BTC trade, from 2026-01-31 12:00:00 KST: {TOO_RECENT}"
    monkeypatch.setenv("UPBIT_BACKBONE_LANGUAGE", "ko")
    assert english_words(str(left), ["KRW-BTC", "trade"]) == []
    assert Unfilled.from_json(left.to_json()) == left
