"""Models of which a part is made when they come, and the rest when it is looked at.

Nine tenths of what a book costs are its sixty levels, of which most programs look at two; and most tickers are
overtaken before anybody looks. Here each number is read as a float, which proves it sound at a fraction of the cost and
is thrown away; what is given out is exact and made from the text. So what is broken is found when it would be found
without this, and no field of a model ever fails.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import fields
from datetime import datetime
from decimal import Decimal
from operator import itemgetter
from typing import Annotated, Any

import msgspec

from .._log import raise_if_users
from ..exchange.fields import FIELD_TABLE, UNITS_KEY, Spelling
from ..exchange.values import (
    AMOUNT,
    LAST_DIRECT_MILLISECOND,
    MOMENT,
    PAST_INT64,
    SIGNED,
    WHOLE,
    Conversion,
    to_moment,
    to_symbol,
)
from ..models.enums import DataSource, DataType
from ..models.half_made import NOT_ALONE, Habit, Rest, leave
from ..models.market import OrderbookData, OrderbookUnit, TickerData, TradeData
from ..models.number import ZERO, plain
from .scanner import UNIT_FIELDS, Before, key_of, scanner_of
from .typed import REFUSALS, draft_of, level_of, plain_amounts, structure

# What a float does not tell of a number: that it is too long, or nearer to zero than a Decimal of ours goes. Upbit
# writes neither, so that a frame which might hold one is simply read in full.
_LARGEST = 1e90
_NEAREST = 1e-90
_EXPONENT = frozenset((b"e", b"E"))
_last = itemgetter(slice(-1, None))
# Sixty digits and more show as ten in a row among each sixth byte, and nothing else does: what stands between two
# numbers takes six bytes at least.
_STRIDE = 6
_TOO_LONG = b"0" * 10
_DIGITS = bytes.maketrans(b"123456789.eE", b"0" * 12)

_ZERO_OR_MORE = AMOUNT._replace(typed=Annotated[float, msgspec.Meta(ge=0, le=_LARGEST)])
_PROVEN_UNIT: Mapping[Conversion | str, Conversion] = {AMOUNT: _ZERO_OR_MORE}
# Of single numbers those that are not zero prove by themselves that they are far enough from it, in C.
_PROVEN: Mapping[Conversion | str, Conversion] = {
    AMOUNT: AMOUNT._replace(typed=Annotated[float, msgspec.Meta(ge=_NEAREST, le=_LARGEST)]),
    SIGNED: SIGNED._replace(typed=Annotated[float, msgspec.Meta(ge=-_LARGEST, le=_LARGEST)]),
    # Whole numbers and moments that need no second look.
    WHOLE: WHOLE._replace(typed=Annotated[int, msgspec.Meta(ge=0, le=PAST_INT64 - 1)]),
    MOMENT: MOMENT._replace(typed=Annotated[int, msgspec.Meta(ge=0, le=LAST_DIRECT_MILLISECOND - 1)]),
}
_NUMBERS = (AMOUNT, SIGNED)


def _are_short(raw: bytes, start: int = 0) -> bool:
    """Whether no number from `start` on is longer than a float proves."""
    return raw[start::_STRIDE].translate(_DIGITS).find(_TOO_LONG) < 0


def _are_far_from_zero(raw: bytes, start: int = 0) -> bool:
    """Whether no number from `start` on has an exponent of two digits or more below zero."""
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


class _Halves:
    """Reads what the half-made of one kind and spelling were left without. Stateless, safe from any thread."""

    def __init__(
        self, kind: str, spelling: Spelling, model: Any, made: Container[str], decode: Callable[[bytes], Any]
    ) -> None:
        """`made` are the fields of the model that are made at once; `decode` reads the whole."""
        self._left = tuple(field.name for field in fields(model) if field.name not in made)
        self._decode_whole = decode
        self._scanner = scanner_of(kind, spelling, made)
        self._scan = None if self._scanner is None else self._scanner.scan
        keys = {row.name: row.spelled(spelling) for row in FIELD_TABLE[kind] if row.how in _NUMBERS}
        self._keys = {name: key for name, key in keys.items() if name in self._left and key is not None}
        self._scanned_keys = {name: key_of(key) for name, key in self._keys.items()}
        self._decode_alone: dict[str, Callable[[bytes], Any]] = {}  # each made when it is first looked at

    def number(self, raw: bytes, name: str, is_scanned: bool) -> Any:
        """One of its numbers, read past all others; NOT_ALONE where it is left out, or none of the usual. `is_scanned`:
        the frame was read by compiled code."""
        if is_scanned and self._scanner is not None:
            key = self._scanned_keys.get(name)
            number = None if key is None else self._scanner.number(raw, key)
            return NOT_ALONE if number is None else number
        decode = self._decode_alone.get(name)
        if decode is None:
            if name not in self._keys:
                return NOT_ALONE
            lone: Any = msgspec.defstruct(name, [("number", Decimal)], rename={"number": self._keys[name]}, gc=False)
            decode = self._decode_alone[name] = msgspec.json.Decoder(lone).decode
        try:
            return plain(decode(raw).number)
        except REFUSALS as refusal:
            raise_if_users(refusal)
            return NOT_ALONE

    def values(self, raw: bytes) -> dict[str, Any]:
        whole = self._decode_whole(raw)
        return {name: getattr(whole, name) for name in self._left}


class HalfTickers(_Halves):
    """Reads the tickers of one WebSocket spelling by half: whose and from when."""

    def __init__(self, spelling: Spelling, source: DataSource, decode: Callable[[bytes], TickerData]) -> None:
        made = ("symbol", "timestamp", "trade_timestamp", "received_at", "source", "degraded")
        super().__init__("ticker", spelling, TickerData, made, decode)
        self._source = source
        self._draft = draft_of(TickerData)
        message = structure("ticker", spelling, DataType.TICKER, replaced=_PROVEN)
        self._decode = msgspec.json.Decoder(message).decode

    def read(self, raw: bytes, received_at: datetime | None, habit: Habit) -> TickerData | None:
        """The ticker, sound in all its parts; None where only reading it in full can tell."""
        try:
            found = scanned = None if self._scan is None else self._scan(raw)
            if found is None and (found := self._proven(raw)) is None:
                return None
        except REFUSALS as refusal:
            raise_if_users(refusal)
            return None
        ticker: Any = self._draft()
        ticker.symbol, ticker.trade_timestamp, ticker.timestamp = found
        ticker.received_at = received_at
        ticker.source = self._source
        ticker.degraded = False
        leave(ticker, rest := _Fields(raw, self, scanned is not None))
        ticker.__class__ = TickerData
        if habit.is_wanted:
            habit.take(rest)
        return ticker  # type: ignore[no-any-return]

    def _proven(self, raw: bytes) -> tuple[Any, ...] | None:
        message: Any = self._decode(raw)
        is_even = not message.change_amount or not message.change_rate
        is_near_zero = is_even or abs(message.change_amount) < _NEAREST or abs(message.change_rate) < _NEAREST
        if not _are_short(raw) or (is_near_zero and not _are_far_from_zero(raw)):
            return None
        return to_symbol(message.symbol), to_moment(message.trade_timestamp), to_moment(message.timestamp)


class HalfTrades(_Halves):
    """Reads the trades of one WebSocket spelling by half: what, for how much, when and by whom. Left are the best
    prices, the change since yesterday, and when Upbit sent it."""

    def __init__(self, spelling: Spelling, source: DataSource, decode: Callable[[bytes], TradeData]) -> None:
        made = (
            "symbol", "price", "volume", "side", "timestamp", "sequential_id", "source", "stream_type",
            "is_backfilled", "received_at", "degraded",
        )  # fmt: skip
        super().__init__("trade", spelling, TradeData, made, decode)
        self._source = source
        self._draft = draft_of(TradeData)
        message = structure(
            "trade", spelling, DataType.TRADE,
            replaced={**_PROVEN, "price": AMOUNT, "volume": AMOUNT, "absolute_change_amount": _ZERO_OR_MORE},
        )  # fmt: skip
        self._decode = msgspec.json.Decoder(message).decode

    def read(self, raw: bytes, received_at: datetime | None, habit: Habit) -> TradeData | None:
        """The trade, sound in all its parts; None where only reading it in full can tell."""
        try:
            found = scanned = None if self._scan is None else self._scan(raw)
            if found is None and (found := self._proven(raw)) is None:
                return None
        except REFUSALS as refusal:
            raise_if_users(refusal)
            return None
        trade: Any = self._draft()
        (
            trade.symbol, trade.timestamp, trade.price, trade.volume, trade.side, trade.sequential_id, trade.stream_type
        ) = found  # fmt: skip
        trade.received_at = received_at
        trade.source = self._source
        trade.is_backfilled = trade.degraded = False
        leave(trade, rest := _Fields(raw, self, scanned is not None))
        trade.__class__ = TradeData
        if habit.is_wanted:
            habit.take(rest)
        return trade  # type: ignore[no-any-return]

    def _proven(self, raw: bytes) -> tuple[Any, ...] | None:
        message: Any = self._decode(raw)
        is_near_zero = (message.absolute_change_amount or 0.0) < _NEAREST
        if not _are_short(raw) or (is_near_zero and not _are_far_from_zero(raw)):
            return None
        price, volume = plain(message.price), plain(message.volume)
        if price.is_signed() or volume.is_signed():
            return None
        symbol, stamp = to_symbol(message.symbol), to_moment(message.timestamp)
        return symbol, stamp, price, volume, message.side, message.sequential_id, message.stream_type


# Who looks at so many fields is given all others, too: one costs a tenth of what all do.
_ALONE = 3


class _Fields(Rest):
    """The numbers of one message, still in its bytes."""

    raw: bytes
    halves: _Halves
    is_scanned: bool
    given: tuple[tuple[str, Any], ...] = ()

    def alone(self, name: str) -> Any:
        if len(self.given) >= _ALONE:
            return NOT_ALONE
        number = self.halves.number(self.raw, name, self.is_scanned)
        if number is not NOT_ALONE:
            self.given += ((name, number),)
        return number

    def values(self) -> dict[str, Any]:
        return self.halves.values(self.raw) | dict(self.given)


_NUMERIC = b"0123456789.E+-"
_AROUND_NUMBERS = b'{}":_abcdefghijklmnopqrstuvwxyz'

# Of so many markets the levels are kept: Upbit has 855, and nobody's stream shall fill our memory.
_MOST_MARKETS = 2_000


class _KnownLevels(dict[tuple[str, str], OrderbookUnit | None]):
    """The levels of one market's books, by the texts of price and size; None for padding, whose price is zero.

    Of the numbers in recorded books 97 of 100 stand in the book before, too: to find a level takes a twentieth of
    making it, and models that cannot change may share it.
    """

    __slots__ = ()

    def __missing__(self, texts: tuple[str, str]) -> OrderbookUnit | None:
        price, size = texts
        level = self[texts] = level_of(plain(Decimal(price)), plain(Decimal(size)))
        return level


Sides = tuple[tuple[OrderbookUnit, ...], tuple[OrderbookUnit, ...]]


class HalfBooks:
    """Reads the books of one WebSocket spelling by half: without levels. Safe from any thread."""

    def __init__(self, spelling: Spelling, source: DataSource, decode: Callable[[bytes], OrderbookData]) -> None:
        """`decode` reads a whole book."""
        made = ("symbol", "total_ask_size", "total_bid_size", "timestamp", "level", "stream_type")
        self.scanner = scanner_of("orderbook", spelling, made)
        self._source = source
        self._draft = draft_of(OrderbookData)
        unit: Any = structure("orderbook_unit", spelling, replaced=_PROVEN_UNIT)
        book = structure("orderbook", spelling, DataType.ORDERBOOK, units=(UNITS_KEY[spelling], list[unit]))
        self._decode = msgspec.json.Decoder(book).decode
        self._decode_unit = msgspec.json.Decoder(structure("orderbook_unit", spelling)).decode
        self.decode_whole = decode
        keys = {row.name: row.spelled(spelling) for row in FIELD_TABLE["orderbook_unit"]}
        # A level with its numbers taken out.
        self._level_shape = b"{" + b",".join(f'"{keys[name]}":'.encode() for name in UNIT_FIELDS) + b"},"
        # By market, of books that were looked at wholly: in Python, and by compiled code.
        self._known: dict[str, _KnownLevels] = {}
        self._before: dict[str, Before] = {}

    def read(self, raw: bytes, received_at: datetime | None) -> OrderbookData | None:
        """The book, sound in all its parts; None where only reading it in full can tell."""
        try:
            found = scanned = None if self.scanner is None else self.scanner.scan(raw)
            if found is None and (found := self._proven(raw)) is None:
                return None
        except REFUSALS as refusal:
            raise_if_users(refusal)
            return None
        book: Any = self._draft()
        book.symbol, book.total_ask_size, book.total_bid_size, book.timestamp, level, book.stream_type = found
        book.level = level or ZERO
        book.received_at = received_at
        book.source = self._source
        book.degraded = False
        leave(book, Levels(raw, book.symbol, self, scanned is not None))
        book.__class__ = OrderbookData
        return book  # type: ignore[no-any-return]

    def _proven(self, raw: bytes) -> tuple[Any, ...] | None:
        start = raw.find(b"[")
        # With a second list in it the first level might be another's.
        if start < 0 or raw.find(b"[", start + 1) >= 0:
            return None
        if not (_are_short(raw, start) and _are_far_from_zero(raw, start)):
            return None
        message: Any = self._decode(raw)
        amounts = plain_amounts((message.total_ask_size, message.total_bid_size, message.level))
        total_ask_size, total_bid_size, level = amounts
        symbol, stamp = to_symbol(message.symbol), to_moment(message.timestamp)
        return symbol, total_ask_size, total_bid_size, stamp, level, message.stream_type

    def first(self, raw: bytes, is_scanned: bool) -> tuple[Decimal, ...] | None:
        """Prices of ask and bid of the first level, then the sizes; None where only the whole book tells."""
        if is_scanned and self.scanner is not None:
            return self.scanner.first(raw)
        start = raw.index(b"[") + 1
        try:
            unit: Any = self._decode_unit(raw[start : raw.index(b"}", start) + 1])
            return tuple(plain_amounts((unit.ask_price, unit.bid_price, unit.ask_size, unit.bid_size)))
        except REFUSALS as refusal:  # an object or a brace within the first level
            raise_if_users(refusal)
            return None

    def sides(self, symbol: str, raw: bytes, is_scanned: bool) -> Sides | None:
        """Asks and bids of a frame that `read` has proven; None where its levels are not written as Upbit does."""
        if is_scanned and self.scanner is not None:
            found = self.scanner.sides(raw, self._before.get(symbol), level_of)
            if found is None:
                return None
            if len(self._before) >= _MOST_MARKETS:
                self._before.clear()
            asks, bids, self._before[symbol] = found
            return asks, bids
        known = self._known.get(symbol)
        if known is None:
            if len(self._known) >= _MOST_MARKETS:
                self._known.clear()
            known = self._known[symbol] = _KnownLevels()
        start = raw.index(b"[") + 1
        levels = raw[start : raw.index(b"]", start)]
        shape = levels.translate(None, _NUMERIC) + b","
        if shape != self._level_shape * (len(shape) // len(self._level_shape)):
            return None
        texts = levels.translate(None, _AROUND_NUMBERS).decode("ascii").split(",")
        ask_prices, bid_prices, ask_sizes, bid_sizes = texts[0::4], texts[1::4], texts[2::4], texts[3::4]
        asks = tuple(filter(None, map(known.__getitem__, zip(ask_prices, ask_sizes, strict=True))))
        bids = tuple(filter(None, map(known.__getitem__, zip(bid_prices, bid_sizes, strict=True))))
        if len(known) > len(texts):  # twice as many as are in this book: those of it suffice
            present = zip(ask_prices + bid_prices, ask_sizes + bid_sizes, strict=True)
            self._known[symbol] = _KnownLevels({level: known[level] for level in present})
        return asks, bids


Best = tuple[OrderbookUnit, OrderbookUnit]


class Levels(Rest):
    """The levels of one book, still in its bytes."""

    raw: bytes
    symbol: str
    books: HalfBooks
    is_scanned: bool
    first: Best | None = None  # the best ask and bid, once they were looked at

    def best(self) -> Best | None:
        """The best ask and the best bid; None where only the whole book tells, as one with an empty side does."""
        if self.first is None:
            numbers = self.books.first(self.raw, self.is_scanned)
            if numbers is None:
                return None
            ask_price, bid_price, ask_size, bid_size = numbers
            ask, bid = level_of(ask_price, ask_size), level_of(bid_price, bid_size)
            if ask is None or bid is None:
                return None  # padding: that side is empty, or begins further down
            self.first = ask, bid
        return self.first

    def values(self) -> dict[str, Any]:
        if (sides := self.books.sides(self.symbol, self.raw, self.is_scanned)) is not None:
            asks, bids = sides
        else:
            book = self.books.decode_whole(self.raw)
            asks, bids = book.asks, book.bids
        if (best := self.first) is not None:  # once seen, a level stays the same object
            asks, bids = (best[0], *asks[1:]), (best[1], *bids[1:])
        return {"asks": asks, "bids": bids}
