"""Live order book: current whenever it is read, or it says that it is not: `LiveOrderbook`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import accumulate, pairwise
from typing import NamedTuple, Protocol
from weakref import ref

from .._arguments import whole_number
from .._concurrency import Deadline, EventCount, ForkGuard
from ..errors import ClosedError, MalformedDataError, StaleDataError
from ..exchange.endpoints import MAX_LEVELS
from ..models.market import OrderbookData, OrderbookUnit


class Depth(NamedTuple):
    """Price levels of both sides, best first."""

    asks: tuple[OrderbookUnit, ...]
    bids: tuple[OrderbookUnit, ...]


class Closable(Protocol):
    @property
    def closed(self) -> bool: ...

    def close(self) -> object: ...


OnBook = Callable[[OrderbookData], None]


def book_faults(book: OrderbookData) -> tuple[str, ...]:
    """What is wrong with a book in words; empty for a sane one. Pure."""
    faults = []
    # A crossed book cannot be true; its spread would be negative.
    if book.asks and book.bids and book.bids[0].price >= book.asks[0].price:
        faults.append(f"crossed: best bid {book.bids[0].price} is not below best ask {book.asks[0].price}")
    if any(lower.price >= upper.price for lower, upper in pairwise(book.asks)):
        faults.append("asks are not strictly ascending")
    if any(upper.price <= lower.price for upper, lower in pairwise(book.bids)):
        faults.append("bids are not strictly descending")
    if any(unit.price <= 0 or unit.size <= 0 for unit in (*book.asks, *book.bids)):
        faults.append("a level has no price or no size")
    return tuple(faults)


def cumulated(units: Sequence[OrderbookUnit]) -> tuple[OrderbookUnit, ...]:
    """The same levels, each with the size of all levels up to it. Pure."""
    return tuple(map(OrderbookUnit, (unit.price for unit in units), accumulate(unit.size for unit in units)))


class LiveOrderbook:
    """The book of one market, kept by the stream.

    Every read is of a book that is provably current (its stream was heard lately and no stall is suspected; a quiet
    book may be old and current). Otherwise it raises StaleDataError, whose `last_known` is the newest book ever seen;
    a crossed or unsorted book raises MalformedDataError. Readable from any thread.

    Collaborators: `current()` gives the book only while it is current, `last_known()` whatever there is, and
    `subscribe(callback)` calls back with each new book until the subscription it returns is closed. `is_closing()`
    tells that the stream is being ended on purpose: then a book is not stale but closed.
    """

    def __init__(
        self,
        symbol: str,
        *,
        current: Callable[[], OrderbookData | None],
        last_known: Callable[[], OrderbookData | None],
        subscribe: Callable[[OnBook], Closable],
        levels: int = MAX_LEVELS,
        is_closing: Callable[[], bool] = lambda: False,
    ) -> None:
        self.symbol = symbol
        self._levels = whole_number(levels, "levels", low=1, high=MAX_LEVELS)
        self._current = current
        self._last_known = last_known
        self._guard = ForkGuard(f"the order book of {symbol}")
        self._is_closing = is_closing
        self._changed = EventCount()
        self._version = 0  # written by the subscription's thread only
        self._is_closed = False
        # Last, because the first book may come before this returns.
        # Through a weak reference, or the stream would keep alive a book that nobody can read any more.
        this = ref(self)

        def on_book(book: OrderbookData) -> None:
            kept = this()
            if kept is not None:
                kept._on_book(book)

        self._subscription = subscribe(on_book)

    # -- reading ----------------------------------------------------------------------------------------------------

    @property
    def book(self) -> OrderbookData:
        """The current book; StaleDataError where there is none, MalformedDataError where it cannot be true."""
        self._guard.check()
        if self._is_over():
            raise ClosedError(f"the order book of {self.symbol} is closed")
        # Asked anew at each read: what was current a moment ago need not be, and no copy here could know.
        book = self._current()
        if book is None:
            last_known = self._last_known()
            known = "none was ever seen" if last_known is None else f"the last is of {last_known.timestamp}"
            raise StaleDataError(f"no current order book of {self.symbol}: {known}", last_known=last_known)
        faults = book_faults(book)
        if faults:
            raise MalformedDataError(f"order book of {self.symbol}: {'; '.join(faults)}", field="orderbook_units")
        return book

    @property
    def is_current(self) -> bool:
        """Whether reading would succeed now."""
        return not self._is_over() and self._current() is not None and not self.faults

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong with the newest book, in words."""
        book = self._last_known()
        return () if book is None else book_faults(book)

    @property
    def best_ask(self) -> OrderbookUnit | None:
        """The cheapest offer; None while nobody sells."""
        return self.book.best_ask

    @property
    def best_bid(self) -> OrderbookUnit | None:
        """The highest bid; None while nobody buys."""
        return self.book.best_bid

    @property
    def mid(self) -> Decimal | None:
        """Halfway between best ask and best bid; None while a side is empty. Raises as `book`."""
        return self.book.mid_price

    @property
    def spread(self) -> Decimal | None:
        """Best ask minus best bid; None while a side is empty."""
        return self.book.spread

    @property
    def spread_percent(self) -> Decimal | None:
        """Spread in per cent of the best bid; None while a side is empty."""
        return self.book.spread_percent

    def depth(self, levels: int | None = None) -> Depth:
        """The best `levels` of each side (all that are subscribed by default); fewer where the book has fewer."""
        return _cut(
            self.book, self._levels if levels is None else whole_number(levels, "levels", low=1, high=self._levels)
        )

    def cumulative(self, levels: int | None = None) -> Depth:
        """As `depth`, each level with the size of all levels up to it."""
        asks, bids = self.depth(levels)
        return Depth(cumulated(asks), cumulated(bids))

    def imbalance(self, levels: int | None = None) -> Decimal | None:
        """(bids - asks) / (bids + asks) by size over the best `levels`: 1 only buyers, -1 only sellers, None empty."""
        asks, bids = self.depth(levels)
        ask_size = sum((unit.size for unit in asks), Decimal(0))
        bid_size = sum((unit.size for unit in bids), Decimal(0))
        total = ask_size + bid_size
        return (bid_size - ask_size) / total if total else None

    def wait_change(self, timeout: float | None = None) -> OrderbookData | None:
        """Wait for the next change and read; None on timeout. ClosedError once closed, otherwise raises as `book`."""
        self._guard.check()
        deadline = Deadline.after(timeout)
        # A number and not the book: the same book may come again, and another may come and go while nobody looks.
        seen = self._version
        has_changed = self._changed.wait_for(lambda: self._is_over() or self._version != seen, deadline)
        return self.book if has_changed else None

    # -- keeping ----------------------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        """Closed by us or, through the subscription, by the backbone; nobody tells of the latter, so waits look."""
        return self._is_closed or self._is_closing() or self._subscription.closed

    def _on_book(self, book: OrderbookData) -> None:
        self._version += 1
        self._changed.notify_all()

    def close(self) -> None:
        """End the subscription; waiting calls end with ClosedError. Safe to call again."""
        if self._guard.is_foreign:
            return
        self._is_closed = True
        self._changed.notify_all()
        self._subscription.close()

    def __del__(self) -> None:
        # Nobody can read it any more, nor close it. (Not there if subscribing failed.)
        if getattr(self, "_subscription", None) is not None and not self._is_closed and not sys.is_finalizing():
            self.close()

    def __enter__(self) -> LiveOrderbook:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._is_over() else "current" if self.is_current else "not current"
        return f"<LiveOrderbook {self.symbol} {self._levels} levels, {state}>"


def _cut(book: OrderbookData, levels: int) -> Depth:
    return Depth(book.asks[:levels], book.bids[:levels])
