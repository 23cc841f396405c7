"""Order books whose levels are made when they are looked at.

Of a book's cost nine tenths are its sixty levels, of which most programs look at two. Here each number is read as a
float, which proves all of them sane for a sixth of that cost and is thrown away; what is given out is exact and made
from the text, the best two levels apart from the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

import msgspec

from .._log import raise_if_users
from ..exchange.fields import UNITS_KEY, Spelling
from ..exchange.values import AMOUNT, to_moment, to_symbol
from ..models.enums import DataSource, DataType
from ..models.half_made import leave
from ..models.market import OrderbookData, OrderbookUnit
from ..models.number import ZERO
from .typed import REFUSALS, FastBuilder, plain_amounts, structure

# What a float does not tell of a number: that it is too long, or nearer to zero than a Decimal of ours goes. Upbit
# writes neither, so that a frame which might hold one is simply read in full.
_LARGEST = 1e90
_SMALL_EXPONENT = re.compile(rb"[eE]-\d\d")
# Sixty digits and more show as ten in a row among each sixth byte, and nothing else does: what stands between two
# numbers of a level takes six bytes at least.
_STRIDE = 6
_TOO_LONG = b"0" * 10
_DIGITS = bytes.maketrans(b"123456789.eE", b"0" * 12)

_AMOUNT = AMOUNT._replace(typed=Annotated[float, msgspec.Meta(ge=0, le=_LARGEST)])


def _tells_all(raw: bytes) -> bool:
    """Whether the levels' numbers are such that floats prove them, and the first bracket opens the only list."""
    start = raw.find(b"[")
    if start < 0 or raw.find(b"[", start + 1) >= 0 or _TOO_LONG in raw[start::_STRIDE].translate(_DIGITS):
        return False
    return raw.find(b"-", start) < 0 or _SMALL_EXPONENT.search(raw, start) is None


class HalfBooks:
    """Reads the books of one WebSocket spelling by half. Stateless, safe from any thread."""

    def __init__(self, spelling: Spelling, source: DataSource, decode: Callable[[bytes], OrderbookData]) -> None:
        """`decode` reads a whole book."""
        computed = ("symbol", "timestamp", "level", "total_ask_size", "total_bid_size")
        builder = FastBuilder("orderbook", spelling, OrderbookData, computed, source=source, left=("asks", "bids"))
        self._make, self._others, self._constants = builder.make, builder.others, builder.constants
        unit: Any = structure("orderbook_unit", spelling, replaced={AMOUNT: _AMOUNT})
        book = structure("orderbook", spelling, DataType.ORDERBOOK, units=(UNITS_KEY[spelling], list[unit]))
        self._decode = msgspec.json.Decoder(book).decode
        self.decode_unit = msgspec.json.Decoder(structure("orderbook_unit", spelling)).decode
        self.decode_book = decode

    def read(self, raw: bytes, received_at: datetime | None) -> OrderbookData | None:
        """The book, sound in all its parts; None where only reading it in full can tell."""
        if not _tells_all(raw):
            return None
        try:
            message: Any = self._decode(raw)
            amounts = plain_amounts((message.level, message.total_ask_size, message.total_bid_size))
            level, total_ask_size, total_bid_size = amounts
            book: OrderbookData = self._make(
                to_symbol(message.symbol),
                to_moment(message.timestamp),
                level or ZERO,
                total_ask_size,
                total_bid_size,
                received_at,
                *self._others(message),
                *self._constants,
            )
        except REFUSALS as refusal:
            raise_if_users(refusal)
            return None
        leave(book, Levels(raw, self))
        return book


Best = tuple[OrderbookUnit, OrderbookUnit]


class Levels:
    """The levels of one book, still in its bytes."""

    __slots__ = ("_best", "_books", "_raw")

    def __init__(self, raw: bytes, books: HalfBooks) -> None:
        self._raw = raw
        self._books = books
        self._best: Best | None = None

    def best(self) -> Best | None:
        """The best ask and the best bid; None where only the whole book tells, as one with an empty side does."""
        if self._best is None:
            start = self._raw.index(b"[") + 1
            try:
                unit: Any = self._books.decode_unit(self._raw[start : self._raw.index(b"}", start) + 1])
                ask, ask_size, bid, bid_size = plain_amounts(
                    (unit.ask_price, unit.ask_size, unit.bid_price, unit.bid_size)
                )
            except REFUSALS as refusal:  # an object or a brace within the first level
                raise_if_users(refusal)
                return None
            if not (ask and bid):
                return None  # padding: that side is empty, or begins further down
            self._best = OrderbookUnit(ask, ask_size), OrderbookUnit(bid, bid_size)
        return self._best

    def values(self) -> dict[str, Any]:
        book = self._books.decode_book(self._raw)
        asks, bids = book.asks, book.bids
        if (best := self._best) is not None:  # once seen, a level stays the same object
            asks, bids = (best[0], *asks[1:]), (best[1], *bids[1:])
        return {"asks": asks, "bids": bids}
