"""What models work out of what Upbit said."""

from __future__ import annotations

import copy
import csv
import dataclasses
import io
import json
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from upbit_backbone import CandleData, DataSource, DataUnifier, OrderbookData, OrderbookUnit
from upbit_backbone.models.number import SmallDecimal
from upbit_backbone.unify.stream import StreamDecoder

DAY = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize("k", [0.3, "0.3", Decimal("0.3")])
def test_a_breakout_target_is_exact_for_any_kind_of_number(k: float | str | Decimal) -> None:
    prices = (Decimal(100), Decimal("110.1"), Decimal(90), Decimal(101))
    candle = CandleData("KRW-BTC", "1d", *prices, Decimal(1), DAY, DataSource.REST)
    assert candle.breakout_target(k) == Decimal("107.03")
    assert str(candle.breakout_target(k)) == "107.03"


SMALL_BOOK = (
    b'{"type":"orderbook","code":"BTC-XYZ","timestamp":1795151640365,"total_ask_size":6.5,"total_bid_size":4E-7,'
    b'"orderbook_units":[{"ask_price":4.2E-7,"bid_price":0.00000041,"ask_size":2.50,"bid_size":1000.00000000},'
    b'{"ask_price":0.00000100,"bid_price":0.000000400,"ask_size":3,"bid_size":1E-7}],"level":0,"stream_type":"REALTIME"}'
)


def small_book() -> OrderbookData:
    """Just decoded: nobody has looked at its levels, whose prices are below 0.000001."""
    (book,) = StreamDecoder().decode(SMALL_BOOK, DAY)
    assert isinstance(book, OrderbookData)
    return book


LOOKS: list[tuple[Callable[[Any], object], object]] = [
    (lambda level: str(level.price), "0.00000042"),
    (lambda level: repr(level.size), "Decimal('2.5')"),
    (lambda level: type(level.price), SmallDecimal),
    (lambda level: level.__class__, OrderbookUnit),
    (lambda level: isinstance(level, OrderbookUnit), True),
    (str, "2.5 at 0.00000042"),
    (repr, "<OrderbookUnit 2.5 at 0.00000042>"),
    (lambda level: f"{level}", "2.5 at 0.00000042"),
    (hash, hash(OrderbookUnit(Decimal("4.2E-7"), Decimal("2.5")))),
    (lambda level: level == OrderbookUnit(Decimal("4.2E-7"), Decimal("2.5")), True),
    (lambda level: OrderbookUnit(Decimal("4.2E-7"), Decimal("2.5")) == level, True),
    (lambda level: level != OrderbookUnit(Decimal("4.3E-7"), Decimal("2.5")), True),
    (lambda level: level == small_book().asks[0], True),
    (lambda level: level in {small_book().asks[0]}, True),
    (lambda level: level == "something else", False),
    (lambda level: json.loads(level.to_json()), {"price": "0.00000042", "size": "2.5"}),
    (lambda level: level.to_dict(), {"price": "0.00000042", "size": "2.5"}),
    (lambda level: [str(each) for each in dataclasses.astuple(level)], ["0.00000042", "2.5"]),
    (lambda level: repr(dataclasses.replace(level, size=Decimal(1))), "<OrderbookUnit 1 at 0.00000042>"),
    (lambda level: repr(pickle.loads(pickle.dumps(level))), "<OrderbookUnit 2.5 at 0.00000042>"),  # noqa: S301
    (lambda level: type(pickle.loads(pickle.dumps(level, 0))), OrderbookUnit),  # noqa: S301
    (lambda level: (type(copy.copy(level)), copy.copy(level) == level), (OrderbookUnit, True)),
    (lambda level: (type(copy.deepcopy(level)), copy.deepcopy(level) == level), (OrderbookUnit, True)),
]


@pytest.mark.parametrize(("look", "seen"), LOOKS)
def test_a_level_of_tiny_prices_is_what_any_level_is_whatever_is_asked_of_it_first(
    look: Callable[[Any], object], seen: object
) -> None:
    level = small_book().asks[0]
    assert look(level) == seen
    assert (level.price, type(level)) == (Decimal("0.00000042"), OrderbookUnit)


def test_a_level_of_tiny_prices_is_as_frozen_as_any() -> None:
    level = small_book().asks[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        level.price = Decimal(1)  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del level.size
    assert str(level.price) == "0.00000042"


def test_a_book_of_tiny_prices_is_written_plainly_everywhere() -> None:
    book = small_book()
    assert repr(book) == repr(small_book())
    page = io.StringIO()
    csv.writer(page).writerow([each for level in (*book.asks, *book.bids) for each in (level.price, level.size)])
    assert page.getvalue().strip() == "0.00000042,2.5,0.000001,3,0.00000041,1000,0.0000004,0.0000001"
    assert str(book.total_bid_size) == "0.0000004"
    assert str(book.spread) == "0.00000001"
    text = small_book().to_json()
    assert "E-" not in text
    assert OrderbookData.from_json(text) == book
    assert (hash(small_book()), small_book()) == (hash(book), book)


def test_the_fast_and_the_tolerant_reader_agree_on_tiny_prices() -> None:
    raw = json.loads(SMALL_BOOK, parse_float=Decimal)
    assert DataUnifier().unify_orderbook_data(raw, DataSource.WEBSOCKET) == small_book()
