"""What may be called complete, and above all what must not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from upbit_backbone.exchange.fields import SHUFFLE
from upbit_backbone.sinks.base import Span
from upbit_backbone.sinks.watermarks import Watermarks

from .conftest import at, book, candle, ticker, trade

LIVENESS = 10.0


@pytest.fixture
def marks() -> Watermarks:
    return Watermarks(LIVENESS)


def both(first: float, last: float) -> list:
    """The first trade of a market, and so much later two of one moment: what one says alone is not believed."""
    return [trade(0, seconds=first), trade(1, seconds=last), trade(2, seconds=last)]


def settled(topic) -> bool:
    return True


def never(topic) -> bool:
    return False


def test_where_a_topic_begins_is_said_at_once_and_claims_nothing(marks):
    marks.arrived([trade(0, seconds=0.0), trade(1, seconds=0.5)])
    start = at(0) + SHUFFLE
    assert marks.take_begun() == [Span("KRW-BTC", "trade", start, start)]
    assert marks.take_begun() == []
    assert marks.start_of("KRW-BTC", "trade") == start
    assert marks.start_of("KRW-ETH", "trade") is None


def test_a_bound_counts_when_its_topic_is_settled_twice_in_a_row(marks):
    marks.arrived(both(0.0, 30.0))
    assert marks.advance(settled) == []
    assert marks.advance(settled) == [Span("KRW-BTC", "trade", at(2), at(28))]
    assert marks.advance(settled) == []


def test_a_gap_that_is_found_meanwhile_takes_the_bound_back(marks):
    marks.arrived(both(0.0, 30.0))
    marks.advance(settled)
    assert marks.advance(never) == []
    assert marks.advance(settled) == []
    assert marks.advance(settled) != []


def test_a_quiet_market_is_complete_as_far_as_the_others_prove_it(marks):
    marks.arrived([trade(0, seconds=0.0)])
    marks.arrived([trade(each, symbol="KRW-ETH", seconds=100.0) for each in (1, 2)])
    marks.advance(settled)
    spans = {span.symbol: span for span in marks.advance(settled)}
    assert spans["KRW-BTC"].end == at(100) - timedelta(seconds=LIVENESS) - SHUFFLE
    assert "KRW-ETH" not in spans  # its trades may have been overtaken by others until two seconds after it


def test_nothing_is_claimed_before_the_first_item(marks):
    marks.arrived([trade(1, seconds=0.0)])
    marks.advance(settled)
    assert marks.advance(settled) == []


def test_candles_are_complete_before_the_one_that_is_forming(marks):
    marks.arrived([candle(0), candle(1), candle(2)])
    marks.advance(settled)
    assert marks.advance(settled) == [Span("KRW-BTC", "candle.1m", at(0), at(120))]


def test_a_quiet_candle_is_final_once_the_line_has_outlived_its_period(marks):
    marks.arrived([candle(0), *(trade(each, symbol="KRW-ETH", seconds=200.0) for each in (1, 2))])
    marks.advance(settled)
    spans = {span.type: span for span in marks.advance(settled)}
    assert spans["candle.1m"].end == at(180)


def test_a_broken_line_ends_what_is_known_of_states_and_of_nothing_else(marks):
    marks.arrived([*both(0.0, 30.0), ticker(0), ticker(300), ticker(301), book(0), book(300), book(301)])
    marks.advance(settled)
    assert {span.type for span in marks.advance(settled)} == {"trade", "ticker", "orderbook"}
    marks.interrupted()
    marks.arrived([ticker(310)])  # it may have been read before the line broke
    marks.advance(settled)
    marks.arrived([ticker(400), ticker(500), ticker(501), trade(2, seconds=60.0)])
    marks.take_begun()
    marks.advance(settled)
    spans = {span.type: span for span in marks.advance(settled)}
    assert spans["ticker"] == Span("KRW-BTC", "ticker", at(40), at(50))
    assert spans["trade"].start == at(2)


def test_what_was_lost_on_the_way_makes_every_topic_begin_anew(marks):
    marks.arrived(both(0.0, 30.0))
    marks.advance(settled)
    marks.advance(settled)
    marks.lost()
    marks.arrived([trade(2, seconds=40.0)])
    marks.advance(settled)
    marks.arrived([trade(3, seconds=60.0), trade(4, seconds=90.0), trade(5, seconds=90.0)])
    marks.advance(settled)
    assert marks.advance(settled) == [Span("KRW-BTC", "trade", at(62), at(88))]


def test_one_stamp_from_the_future_closes_nothing_that_is_to_come(marks):
    marks.arrived([trade(0, seconds=0.0), trade(1, seconds=86_400.0), trade(2, seconds=30.0), trade(3, seconds=31.0)])
    marks.arrived([trade(4, symbol="KRW-ETH", seconds=0.0)])
    marks.advance(settled)
    spans = {span.symbol: span.end for span in marks.advance(settled)}
    assert spans == {"KRW-BTC": at(29), "KRW-ETH": at(31) - timedelta(seconds=LIVENESS) - SHUFFLE}
