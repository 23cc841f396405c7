"""Models of which a part is made when they come, and the rest when it is looked at.

Nine tenths of what a book costs are its sixty levels, of which most programs look at two; and most tickers are
overtaken before anybody looks. Here each number is read as a float, which proves it sound at a fraction of the cost and
is thrown away; what is given out is exact and made from the text. So what is broken is found when it would be found
without this, and no field of a model ever fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from decimal import Decimal
from operator import itemgetter
from typing import Annotated, Any

import msgspec

from .._log import raise_if_users
from ..exchange.fields import FIELD_TABLE, UNITS_KEY, Spelling
from ..exchange.values import AMOUNT, SIGNED, to_moment, to_symbol
from ..models.enums import DataSource, DataType
from ..models.half_made import NOT_ALONE, Habit, Rest, leave
from ..models.market import OrderbookData, OrderbookUnit, TickerData
from ..models.number import ZERO, plain
from .typed import REFUSALS, FastBuilder, plain_amounts, structure

# What a float does not tell of a number: that it is too long, or nearer to zero than a Decimal of ours goes. Upbit
# writes neither, so that a frame which might hold one is simply read in full.
_LARGEST = 1e90
_EXPONENT = frozenset((b"e", b"E"))
_last = itemgetter(slice(-1, None))
# Sixty digits and more show as ten in a row among each sixth byte, and nothing else does: what stands between two
# numbers takes six bytes at least.
_STRIDE = 6
_TOO_LONG = b"0" * 10
_DIGITS = bytes.maketrans(b"123456789.eE", b"0" * 12)

_PROVEN = {
    AMOUNT: AMOUNT._replace(typed=Annotated[float, msgspec.Meta(ge=0, le=_LARGEST)]),
    SIGNED: SIGNED._replace(typed=Annotated[float, msgspec.Meta(ge=-_LARGEST, le=_LARGEST)]),
}


def _is_provable(raw: bytes, start: int = 0) -> bool:
    """Whether all numbers from `start` on are such that floats prove them."""
    if _TOO_LONG in raw[start::_STRIDE].translate(_DIGITS):
        return False
    if raw.find(b"-", start) < 0:
        return True
    # By the few dashes, most of which stand in dates and names: a pair of bytes is looked for at a tenth of the speed
    # of one, and a pattern at a fortieth.
    parts = raw.split(b"-")
    if _EXPONENT.isdisjoint(map(_last, parts)):
        return True
    return not any(map(_is_small_exponent, parts, parts[1:]))


def _is_small_exponent(before: bytes, after: bytes) -> bool:
    """Whether the dash between these two is that of an exponent of two digits or more."""
    return before[-1:] in _EXPONENT and after[:2].isdigit()


class HalfTickers:
    """Reads the tickers of one WebSocket spelling by half: whose and from when. Stateless, safe from any thread."""

    def __init__(self, spelling: Spelling, source: DataSource, decode: Callable[[bytes], TickerData]) -> None:
        """`decode` reads a whole ticker."""
        computed = ("symbol", "timestamp", "trade_timestamp")
        made = {*computed, "received_at", "source", "degraded"}
        self._left = tuple(field.name for field in fields(TickerData) if field.name not in made)
        builder = FastBuilder("ticker", spelling, TickerData, computed, source=source, left=self._left)
        self._make, self._constants = builder.make, builder.constants
        message = structure("ticker", spelling, DataType.TICKER, replaced=_PROVEN)
        self._decode = msgspec.json.Decoder(message).decode
        self._decode_whole = decode
        keys = {row.name: row.spelled(spelling) for row in FIELD_TABLE["ticker"] if row.how in _PROVEN}
        self._keys = {name: key for name, key in keys.items() if name in self._left and key is not None}
        self._decode_alone: dict[str, Callable[[bytes], Any]] = {}  # each made when it is first looked at

    def read(self, raw: bytes, received_at: datetime | None, habit: Habit) -> TickerData | None:
        """The ticker, sound in all its parts; None where only reading it in full can tell."""
        try:
            message: Any = self._decode(raw)
            if not _is_provable(raw):
                return None
            ticker: TickerData = self._make(
                to_symbol(message.symbol),
                to_moment(message.timestamp),
                to_moment(message.trade_timestamp),
                received_at,
                *self._constants,
            )
        except REFUSALS as refusal:
            raise_if_users(refusal)
            return None
        leave(ticker, rest := _Fields(raw, self))
        habit.take(rest)
        return ticker

    def number(self, raw: bytes, name: str) -> Any:
        """One of its numbers, read past all others; NOT_ALONE where it is left out, or none of the usual."""
        decode = self._decode_alone.get(name)
        if decode is None:
            if name not in self._keys:
                return NOT_ALONE
            lone: Any = msgspec.defstruct(name, [("number", Decimal)], rename={"number": self._keys[name]}, gc=False)
            decode = self._decode_alone[name] = msgspec.json.Decoder(lone).decode
        try:
            number: Any = plain(decode(raw).number)
        except REFUSALS as refusal:
            raise_if_users(refusal)
            return NOT_ALONE
        return number

    def values(self, raw: bytes) -> dict[str, Any]:
        whole = self._decode_whole(raw)
        return {name: getattr(whole, name) for name in self._left}


# Who looks at so many fields is given all others, too: one costs a tenth of what all do.
_ALONE = 3


class _Fields(Rest):
    """The numbers of one ticker, still in its bytes."""

    __slots__ = ("_given", "_raw", "_tickers")

    def __init__(self, raw: bytes, tickers: HalfTickers) -> None:
        self.habit = None
        self._raw = raw
        self._tickers = tickers
        self._given: tuple[tuple[str, Any], ...] = ()

    def alone(self, name: str) -> Any:
        if len(self._given) >= _ALONE:
            return NOT_ALONE
        number = self._tickers.number(self._raw, name)
        if number is not NOT_ALONE:
            self._given += ((name, number),)
        return number

    def values(self) -> dict[str, Any]:
        return self._tickers.values(self._raw) | dict(self._given)


class HalfBooks:
    """Reads the books of one WebSocket spelling by half: without levels. Stateless, safe from any thread."""

    def __init__(self, spelling: Spelling, source: DataSource, decode: Callable[[bytes], OrderbookData]) -> None:
        """`decode` reads a whole book."""
        computed = ("symbol", "timestamp", "level", "total_ask_size", "total_bid_size")
        builder = FastBuilder("orderbook", spelling, OrderbookData, computed, source=source, left=("asks", "bids"))
        self._make, self._others, self._constants = builder.make, builder.others, builder.constants
        unit: Any = structure("orderbook_unit", spelling, replaced=_PROVEN)
        book = structure("orderbook", spelling, DataType.ORDERBOOK, units=(UNITS_KEY[spelling], list[unit]))
        self._decode = msgspec.json.Decoder(book).decode
        self.decode_unit = msgspec.json.Decoder(structure("orderbook_unit", spelling)).decode
        self.decode_whole = decode

    def read(self, raw: bytes, received_at: datetime | None, habit: Habit) -> OrderbookData | None:
        """The book, sound in all its parts; None where only reading it in full can tell."""
        start = raw.find(b"[")
        # With a second list in it the first level might be another's.
        if start < 0 or raw.find(b"[", start + 1) >= 0 or not _is_provable(raw, start):
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
        leave(book, rest := Levels(raw, self))
        habit.take(rest)
        return book


Best = tuple[OrderbookUnit, OrderbookUnit]


class Levels(Rest):
    """The levels of one book, still in its bytes."""

    __slots__ = ("_best", "_books", "_raw")

    def __init__(self, raw: bytes, books: HalfBooks) -> None:
        super().__init__()
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
        book = self._books.decode_whole(self._raw)
        asks, bids = book.asks, book.bids
        if (best := self._best) is not None:  # once seen, a level stays the same object
            asks, bids = (best[0], *asks[1:]), (best[1], *bids[1:])
        return {"asks": asks, "bids": bids}
