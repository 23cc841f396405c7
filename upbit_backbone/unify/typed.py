"""The fast decoders: bytes of the usual shape become models in one typed pass, made from the same table.

msgspec reads each number from its text straight into a Decimal and refuses what does not fit; its message objects
carry our field names, so one builder for each kind serves every spelling. What decoder or builder refuses is not yet
wrong: the tolerant reader has the last word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, make_dataclass
from dataclasses import field as empty_slot
from datetime import datetime
from decimal import Decimal, Subnormal
from functools import cache
from itertools import repeat
from operator import attrgetter
from types import MappingProxyType
from typing import Any

import msgspec

from ..exchange.fields import FIELD_TABLE, UNITS_KEY, Spelling, Use
from ..exchange.timeframes import TIMEFRAMES
from ..exchange.values import AMOUNT, PAST_INT64, SIGNED, Conversion, to_moment, to_signed, to_symbol, to_utc
from ..models.enums import DataSource, DataType
from ..models.market import CandleData, OrderbookData, OrderbookUnit, TickerData, TradeData, UnspelledUnit
from ..models.number import ZERO, is_small, plain, spell_each, strip, strip_each

# Construction at speed: frozen, slotted models filled without going through their own `__init__`.


class RefusedError(ValueError):
    """The typed decoders do not take this message; the tolerant reader shall look at it."""


class FastBuilder:
    """Makes one model from typed messages of one spelling.

    A frozen dataclass costs 0.15 µs a field to construct, because its own `__init__` must go round its own
    frozenness. `make` fills a mutable twin with the same slots instead and then changes its class: five times faster.

    `computed` are the fields the builder works out and hands to `make` first, followed by `received_at`, the values
    of `numbers(message)`, those of `others(message)` and `constants` (what this channel does not send). `helpers` are
    numbers that the builder needs for its own work; they come last of the numbers and are not for `make`. `left` are
    fields that stay empty (see `models/half_made.py`).
    """

    def __init__(
        self,
        kind: str,
        spelling: Spelling,
        model: type[Any],
        computed: Sequence[str],
        helpers: Sequence[str] = (),
        source: DataSource = DataSource.WEBSOCKET,
        left: Sequence[str] = (),
    ) -> None:
        sent = {row.name: row for row in FIELD_TABLE[kind] if row.spelled(spelling) and row.use is not Use.FALLBACK}
        computed = (*computed, "received_at")
        elsewhere = {*computed, *left}
        read = [sent[field.name] for field in fields(model) if field.name in sent and field.name not in elsewhere]
        signed = [row.name for row in read if row.how is SIGNED]
        amounts = [row.name for row in read if row.how is AMOUNT]
        others = [row.name for row in read if row.how not in (SIGNED, AMOUNT)]
        constant = [field for field in fields(model) if field.name not in {*signed, *amounts, *others, *elsewhere}]
        source = DataSource.REST if spelling is Spelling.REST else source
        preset = {"source": source} | ({} if spelling is Spelling.REST else {"is_closed": False})
        self.others = _getter(others)
        self.constants = tuple(
            preset.get(field.name, None if field.default is MISSING else field.default) for field in constant
        )
        names = [*computed, *signed, *amounts, *others, *(field.name for field in constant)]
        empty = [(name, Any, empty_slot(init=False)) for name in left]
        self.model = model
        # With a docstring, or its signature is worked out for one, which takes as long as all else.
        self.twin: Callable[..., Any] = make_dataclass(
            f"{model.__name__}Draft",
            [*names, *empty],
            bases=model.__bases__,
            namespace={"__doc__": model.__doc__},
            slots=True,
            eq=False,
            repr=False,
        )
        self._numbers = _getter([*signed, *amounts, *helpers])
        self._signed = len(signed)

    def make(self, *values: Any) -> Any:
        draft = self.twin(*values)
        draft.__class__ = self.model
        return draft

    def numbers(self, message: Any) -> list[Any]:
        """The message's numbers in their plain spelling, checked as `plain_amounts` does."""
        values = self._numbers(message)
        # Nearly every message has all its numbers and none that is small: then they go through in two sweeps in C,
        # which for a ticker costs half of what looking at signed numbers and amounts apart does.
        try:
            numbers = list(map(strip, values))
        except (Subnormal, TypeError):
            return self._one_by_one(values)
        count = self._signed
        if any(map(_is_signed, numbers[count:])) or not all(map(_is_finite, numbers)):
            raise RefusedError
        if not all(numbers[:count]):
            numbers[:count] = [number or ZERO for number in numbers[:count]]  # of the two zeros, the one without a sign
        return numbers

    def _one_by_one(self, values: tuple[Any, ...]) -> list[Any]:
        count = self._signed
        return [None if value is None else plain(value) for value in values[:count]] + plain_amounts(values[count:])


def draft_of(model: type[Any]) -> type[Any]:
    """A class with the model's slots, whose objects can be filled by plain assignment; given the model's class once
    they are, they are models like any. Half of what `FastBuilder.make` costs, where few fields are filled."""
    return type(f"{model.__name__}Draft", model.__bases__, {"__slots__": model.__slots__})


def _getter(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """attrgetter, giving a tuple for any number of names."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda message: tuple(getattr(message, name) for name in names)


def plain_amounts(values: Sequence[Decimal | None]) -> list[Any]:
    """All of them in their plain spelling, checked as `stripped_amounts` does."""
    amounts, has_small = stripped_amounts(values)
    return spell_each(amounts) if has_small else amounts


def stripped_amounts(values: Sequence[Decimal | None]) -> tuple[list[Any], bool]:
    """The amounts of a message as `strip_each` leaves them. Refuses NaN, infinities (msgspec takes "NaN" for a
    Decimal), absurd sizes and negative amounts. None where the message left a number out."""
    try:
        amounts, has_small = strip_each(values)  # type: ignore[arg-type]  # None is rare, and found out
    except TypeError:
        plainly = [value if value is None else plain(value) for value in values]
        given, has_small = [amount for amount in plainly if amount is not None], False
    else:
        plainly = given = amounts  # type: ignore[assignment]
    if any(map(_is_signed, given)) or not all(map(_is_finite, given)):
        raise RefusedError
    return plainly, has_small


_is_signed, _is_finite = Decimal.is_signed, Decimal.is_finite


def unpadded(prices: list[Decimal], sizes: list[Decimal]) -> tuple[list[Decimal], list[Decimal]]:
    return [price for price in prices if price], [size for price, size in zip(prices, sizes, strict=True) if price]


_new = object.__new__
_set_price = OrderbookUnit.__dict__["price"].__set__
_set_size = OrderbookUnit.__dict__["size"].__set__


def level_of(price: Decimal, size: Decimal) -> OrderbookUnit | None:
    """One level; None where it is padding."""
    if not price:
        return None
    level: OrderbookUnit = _new(OrderbookUnit)
    _set_price(level, price)
    _set_size(level, size)
    return level


def levels_of(prices: list[Decimal], sizes: list[Decimal], has_small: bool) -> tuple[OrderbookUnit, ...]:
    """The units of one side. Sixty of them in a book are worth filling column by column, without leaving C."""
    kind = OrderbookUnit
    if has_small and any(map(is_small, prices)):  # then most are, as prices lie side by side
        kind = UnspelledUnit
    elif has_small:
        sizes = spell_each(sizes)
    units = tuple(map(_new, repeat(kind, len(prices))))
    # `any` of what is always None walks a map to its end, and 0.3 µs sooner than a deque of length 0 does: what a book
    # pays for this is what stripping its numbers costs more than proving them sane did.
    any(map(_set_price, units, prices))
    any(map(_set_size, units, sizes))
    return units


Build = Callable[[Any, datetime | None], Any]


def ticker_builder(spelling: Spelling, source: DataSource = DataSource.WEBSOCKET) -> Build:
    builder = FastBuilder("ticker", spelling, TickerData, ("symbol", "timestamp", "trade_timestamp"), source=source)
    make, numbers, others, constants = builder.make, builder.numbers, builder.others, builder.constants

    def build(message: Any, received_at: datetime | None) -> Any:
        return make(
            to_symbol(message.symbol),
            to_moment(message.timestamp),
            to_moment(message.trade_timestamp),
            received_at,
            *numbers(message),
            *others(message),
            *constants,
        )

    return build


def trade_builder(spelling: Spelling, source: DataSource = DataSource.WEBSOCKET) -> Build:
    is_rest = spelling is Spelling.REST
    computed = ("symbol", "timestamp") if is_rest else ("symbol", "timestamp", "published_at", "change_amount")
    helpers = () if is_rest else ("absolute_change_amount",)
    builder = FastBuilder("trade", spelling, TradeData, computed, helpers, source)
    make, numbers, others, constants = builder.make, builder.numbers, builder.others, builder.constants

    def build(message: Any, received_at: datetime | None) -> Any:
        # An id past 64 bits would be taken here and refused there: both readers must agree.
        if message.sequential_id is not None and not 0 <= message.sequential_id < PAST_INT64:
            raise RefusedError
        amounts = numbers(message)
        computed: tuple[Any, ...] = (to_symbol(message.symbol), to_moment(message.timestamp))
        if not is_rest:
            published = None if message.published_at is None else to_moment(message.published_at)
            computed += (published, to_signed(amounts.pop(), message.change))
        return make(*computed, received_at, *amounts, *others(message), *constants)

    return build


def candle_builder(spelling: Spelling, timeframe: str, source: DataSource = DataSource.WEBSOCKET) -> Build:
    builder = _candle_builder_of(spelling, source)
    make, numbers, others, constants = builder.make, builder.numbers, builder.others, builder.constants

    def build(message: Any, received_at: datetime | None) -> Any:
        last = message.last_trade_at
        return make(
            to_symbol(message.symbol),
            to_utc(message.timestamp),
            None if last is None else to_moment(last),
            timeframe,
            received_at,
            *numbers(message),
            *others(message),
            *constants,
        )

    return build


@cache
def _candle_builder_of(spelling: Spelling, source: DataSource) -> FastBuilder:
    computed = ("symbol", "timestamp", "last_trade_at", "timeframe")
    return FastBuilder("candle", spelling, CandleData, computed, source=source)


def orderbook_builder(spelling: Spelling, source: DataSource = DataSource.WEBSOCKET) -> Build:
    computed = ("symbol", "timestamp", "level", "asks", "bids", "total_ask_size", "total_bid_size")
    builder = FastBuilder("orderbook", spelling, OrderbookData, computed, source=source)
    make, others, constants = builder.make, builder.others, builder.constants

    def build(message: Any, received_at: datetime | None) -> Any:
        units = message.units
        # One list for all, since checking is cheapest in one go; made by comprehensions, which generators are not.
        columns = [unit.ask_price for unit in units]
        columns += [unit.ask_size for unit in units]
        columns += [unit.bid_price for unit in units]
        columns += [unit.bid_size for unit in units]
        columns += (message.level, message.total_ask_size, message.total_bid_size)
        amounts, has_small = stripped_amounts(columns)
        total_bid_size, total_ask_size, level = amounts.pop(), amounts.pop(), amounts.pop()
        if has_small:
            total_bid_size, total_ask_size, level = spell_each((total_bid_size, total_ask_size, level))
        depth = len(units)
        ask_prices, ask_sizes = amounts[:depth], amounts[depth : 2 * depth]
        bid_prices, bid_sizes = amounts[2 * depth : 3 * depth], amounts[3 * depth :]
        if not all(amounts):
            ask_prices, ask_sizes = unpadded(ask_prices, ask_sizes)
            bid_prices, bid_sizes = unpadded(bid_prices, bid_sizes)
        return make(
            to_symbol(message.symbol),
            to_moment(message.timestamp),
            level or ZERO,
            levels_of(ask_prices, ask_sizes, has_small),
            levels_of(bid_prices, bid_sizes, has_small),
            total_ask_size,
            total_bid_size,
            received_at,
            *others(message),
            *constants,
        )

    return build


# From bytes to those messages.

NOTHING: Mapping[Any, Any] = MappingProxyType({})

# What decoders and builders raise for anything unusual: UnicodeDecodeError is a ValueError, and so are msgspec's own
# since 0.21; those of decimal are ArithmeticErrors.
REFUSALS = (ValueError, ArithmeticError, RecursionError, msgspec.MsgspecError)


def structure(
    kind: str,
    spelling: Spelling,
    tag: str | None = None,
    *,
    replaced: Mapping[Conversion | str, Conversion] = NOTHING,
    **more: Any,
) -> type[msgspec.Struct]:
    """The message of one kind in one spelling, with our field names. `more` are further fields: name=(key, type);
    conversions and fields named in `replaced` are read otherwise."""
    columns: list[Any] = []
    keys: dict[str, str] = {}
    for row in FIELD_TABLE[kind]:
        key = row.spelled(spelling)
        if key is None or row.use is Use.FALLBACK:
            continue
        keys[row.name] = key
        # A derivable field that is missing is for the tolerant reader, who knows how to work it out.
        is_insisted_on = row.use in (Use.REQUIRED, Use.DERIVABLE)
        typed = replaced.get(row.name, replaced.get(row.how, row.how)).typed
        columns.append((row.name, typed) if is_insisted_on else (row.name, typed | None, None))
    for name, (key, kind_of_field) in more.items():
        keys[name] = key
        columns.append((name, kind_of_field))
    # With the tag msgspec chooses the type by itself, in C, before it has seen any other field.
    tag_field = None if tag is None else ("ty" if spelling is Spelling.SIMPLE else "type")
    return msgspec.defstruct(
        f"{kind}_{spelling}",
        columns,
        rename=keys,
        tag_field=tag_field,
        tag=None if tag is None else str(tag),
        kw_only=True,
        # They live for a microsecond and hold no cycles: the collector need not walk them.
        gc=False,
    )


def _orderbook_structure(spelling: Spelling, tag: str | None = None) -> type[msgspec.Struct]:
    unit = structure("orderbook_unit", spelling)
    return structure("orderbook", spelling, tag, units=(UNITS_KEY[spelling], list[unit]))  # type: ignore[valid-type]


class StreamTypes:
    """The typed decoders of one WebSocket spelling: for a frame, for a list frame, and who builds from what."""

    def __init__(self, spelling: Spelling, source: DataSource) -> None:
        self.builders: dict[type[msgspec.Struct], Build] = {
            structure("ticker", spelling, DataType.TICKER): ticker_builder(spelling, source),
            structure("trade", spelling, DataType.TRADE): trade_builder(spelling, source),
            _orderbook_structure(spelling, DataType.ORDERBOOK): orderbook_builder(spelling, source),
        } | {
            structure("candle", spelling, timeframe.data_type): candle_builder(spelling, timeframe.word, source)
            for timeframe in TIMEFRAMES
            if timeframe.data_type is not None
        }
        union: Any = _union(tuple(self.builders))
        self.decode_one = msgspec.json.Decoder(union).decode
        self.decode_list = msgspec.json.Decoder(list[union]).decode


def _union(types: tuple[Any, ...]) -> Any:
    union = types[0]
    for member in types[1:]:
        union = union | member
    return union


@cache
def stream_types(spelling: Spelling, source: DataSource = DataSource.WEBSOCKET) -> StreamTypes:
    """Made on first use: 24 message types cost some milliseconds that an import should not."""
    return StreamTypes(spelling, source)


@cache
def rest_decoder(kind: str) -> Callable[[bytes], list[Any]]:
    message = _orderbook_structure(Spelling.REST) if kind == "orderbook" else structure(kind, Spelling.REST)
    return msgspec.json.Decoder(list[message]).decode  # type: ignore[valid-type]


@cache
def rest_builder(kind: str) -> Build:
    builders = {"ticker": ticker_builder, "trade": trade_builder, "orderbook": orderbook_builder}
    return builders[kind](Spelling.REST)


def rest_candle_builder(timeframe: str) -> Build:
    return candle_builder(Spelling.REST, timeframe)
