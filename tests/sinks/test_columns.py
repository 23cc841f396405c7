from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.errors import InvalidRequestError, MalformedDataError
from upbit_backbone.models.enums import DataType
from upbit_backbone.models.events import GapEvent
from upbit_backbone.models.number import plain
from upbit_backbone.sinks.base import Batch, Span
from upbit_backbone.sinks.columns import (
    TABLES,
    candle_type,
    from_micros,
    table_of,
    to_micros,
    type_word,
)

from .conftest import at, book, candle, ticker, trade

ITEMS = [trade(1), candle(2), ticker(3), book(4)]
GAP = GapEvent(
    at=at(9), symbol="KRW-BTC", type=DataType.TRADE, start=at(1), end=at(8), recovered=3, complete=False,
    reason="REST could not give them", missing_start=at(2), missing_end=at(7),
)  # fmt: skip


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: type(item).__name__)
def test_a_row_gives_back_the_item_that_it_was_made_of(item):
    table = table_of(item)
    (row,) = table.rows([item])
    again = table.item(row)
    assert again == item
    assert again.received_at == item.received_at
    assert repr(again) == repr(item)
    assert {type(value) for value in row} <= {str, int, type(None)}


@given(st.decimals(allow_nan=False, allow_infinity=False, places=16, min_value=0, max_value=10**15))
def test_any_number_comes_back_exactly_and_prints_as_it_did(number):
    item = trade(1, price=plain(number))
    again = table_of(item).item(table_of(item).rows([item])[0])
    assert again.price == number
    assert str(again.price) == str(item.price)


@given(st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(9000, 1, 1), timezones=st.just(UTC)))
def test_any_time_comes_back_to_the_microsecond(moment):
    assert from_micros(to_micros(moment)) == moment


def test_a_word_that_upbit_invents_stays_the_text_it_is():
    item = trade(1, side="NEITHER")
    assert table_of(item).item(table_of(item).rows([item])[0]).side == "NEITHER"


def test_every_field_of_every_model_has_a_column_but_the_mark_of_how_it_was_answered():
    for table, item in zip(TABLES, (trade(1), candle(1), ticker(1), book(1)), strict=True):
        assert set(table.names) == set(type(item).__dataclass_fields__) - {"degraded"}


def test_what_is_no_market_data_is_refused_by_name():
    with pytest.raises(InvalidRequestError, match="int cannot be kept"):
        table_of(7)


def test_the_words_of_coverage_are_those_of_subscribing():
    assert [type_word(item) for item in ITEMS] == ["trade", "candle.1m", "ticker", "orderbook"]
    assert (candle_type("1h"), candle_type("1d")) == ("candle.60m", "candle.1d")
    assert type_word(replace(candle(1), timeframe="4h")) == "candle.240m"


def test_a_batch_survives_its_way_through_a_file():
    batch = Batch(ITEMS, (GAP,), (Span("KRW-BTC", "trade", at(1), at(2), is_fill=True),))
    line = batch.encode()
    assert b"\n" not in line
    again = Batch.decode(line)
    assert list(again.items) == ITEMS
    assert (again.gaps, again.spans) == (batch.gaps, batch.spans)


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_torn_batch_is_told_from_a_whole_one(cut):
    line = Batch(ITEMS).encode()
    for damaged in (line[:-cut], line[:cut], b"{}", b'{"rows":{"trades":[[1]]},"gaps":[],"spans":[]}'):
        with pytest.raises(MalformedDataError):
            Batch.decode(damaged)


def test_decimals_of_a_book_are_exact_texts():
    assert table_of(book(1)).rows([book(1)])[0][1] == '[["101","2.5"],["101.5","0.00000001"]]'
    assert Decimal("0.00000001") == table_of(book(1)).item(table_of(book(1)).rows([book(1)])[0]).asks[1].size
