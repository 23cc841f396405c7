"""LiveOrderbook: current or an error, never silently old, never silently crossed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from decimal import Decimal

import pytest

from tests.support.candle_reference import SYMBOL, utc
from upbit_backbone.errors import ClosedError, InvalidRequestError, MalformedDataError, StaleDataError
from upbit_backbone.live.orderbook import LiveOrderbook, book_faults
from upbit_backbone.models.enums import DataSource
from upbit_backbone.models.market import OrderbookData, OrderbookUnit

Levels = list[tuple[str, str]]


def book(asks: Levels, bids: Levels) -> OrderbookData:
    units = [tuple(OrderbookUnit(Decimal(price), Decimal(size)) for price, size in side) for side in (asks, bids)]
    totals = [sum((unit.size for unit in side), Decimal(0)) for side in units]
    return OrderbookData(SYMBOL, *units, *totals, timestamp=utc(2026, 3, 1), source=DataSource.WEBSOCKET)


SANE = book([("101", "1"), ("102", "3")], [("100", "2"), ("99", "4")])


class Stream:
    """What the book gets passed in."""

    def __init__(self, book: OrderbookData | None = SANE) -> None:
        self.book = book
        self.is_current = True
        self.callback: Callable[[OrderbookData], None] | None = None
        self.closed = 0

    def open(self, **arguments: int) -> LiveOrderbook:
        return LiveOrderbook(
            SYMBOL,
            current=lambda: self.book if self.is_current else None,
            last_known=lambda: self.book,
            subscribe=self.subscribe,
            **arguments,
        )

    def subscribe(self, callback: Callable[[OrderbookData], None]) -> Stream:
        self.callback = callback
        return self

    def close(self) -> None:
        self.closed += 1

    def send(self, book: OrderbookData) -> None:
        self.book = book
        assert self.callback is not None
        self.callback(book)


def test_it_answers_the_usual_questions() -> None:
    live = Stream().open()
    assert (live.best_ask, live.best_bid) == (SANE.asks[0], SANE.bids[0])
    assert (live.mid, live.spread, live.spread_percent) == (Decimal("100.5"), Decimal(1), Decimal(1))
    assert live.depth(1) == (SANE.asks[:1], SANE.bids[:1])
    assert [unit.size for unit in live.cumulative().asks] == [Decimal(1), Decimal(4)]
    assert [unit.size for unit in live.cumulative(1).bids] == [Decimal(2)]
    assert live.imbalance() == (Decimal(6) - 4) / 10
    assert live.imbalance(1) == Decimal(1) / 3
    assert repr(live) == "<LiveOrderbook KRW-BTC 30 levels, current>"


def test_an_empty_side_is_none_not_an_error() -> None:
    live = Stream(book([], [])).open()
    assert (live.best_ask, live.best_bid, live.mid, live.spread, live.imbalance()) == (None,) * 5


def test_a_book_that_is_not_current_raises_with_the_last_known_one() -> None:
    stream = Stream()
    live = stream.open()
    stream.is_current = False
    with pytest.raises(StaleDataError) as caught:
        _ = live.best_ask
    assert caught.value.last_known is SANE
    assert not live.is_current
    stream.book = None
    with pytest.raises(StaleDataError, match="none was ever seen"):
        live.depth()


@pytest.mark.parametrize(
    ("asks", "bids", "fault"),
    [
        ([("100", "1")], [("100", "1")], "crossed"),
        ([("102", "1"), ("101", "1")], [("99", "1")], "asks are not strictly ascending"),
        ([("102", "1")], [("99", "1"), ("99", "1")], "bids are not strictly descending"),
        ([("102", "0")], [("99", "1")], "no price or no size"),
    ],
)
def test_a_book_that_cannot_be_true_raises_what_is_wrong(asks: Levels, bids: Levels, fault: str) -> None:
    live = Stream(book(asks, bids)).open()
    with pytest.raises(MalformedDataError, match=fault):
        _ = live.mid
    assert fault in live.faults[0]
    assert book_faults(SANE) == ()


def test_waiting_ends_with_the_change_or_with_none() -> None:
    stream = Stream()
    live = stream.open()
    assert live.wait_change(timeout=0.01) is None
    newer = book([("105", "1")], [("104", "1")])
    timer = threading.Timer(0.05, stream.send, [newer])
    timer.start()
    assert live.wait_change(timeout=5.0) is newer
    timer.join()


def test_closing_ends_waiting_and_reading() -> None:
    stream = Stream()
    with stream.open() as live:
        timer = threading.Timer(0.05, live.close)
        timer.start()
        with pytest.raises(ClosedError):
            live.wait_change(timeout=5.0)
        timer.join()
    with pytest.raises(ClosedError):
        _ = live.book
    assert stream.closed == 2
    assert "closed" in repr(live)


@pytest.mark.parametrize("levels", [0, 31, True, "5"])
def test_levels_are_checked(levels: int) -> None:
    with pytest.raises(InvalidRequestError, match="from 1 to 30"):
        Stream().open(levels=levels)
