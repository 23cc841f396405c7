"""From typed messages to models: one builder for each kind, the same for every spelling.

A builder refuses what it does not fully understand; the tolerant reader then has the last word.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields, make_dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache
from itertools import repeat
from operator import attrgetter
from typing import Any

from ..exchange.fields import FIELD_MAPPING, Spelling, Use
from ..exchange.values import AMOUNT, PAST_INT64, SIGNED, ZERO, are_sane, to_moment, to_signed, to_symbol, to_utc
from ..models.enums import DataSource
from ..models.jsonable import Jsonable
from ..models.market import CandleData, OrderbookData, OrderbookUnit, TickerData, TradeData

# Construction at speed: frozen, slotted models filled without going through their own `__init__`.


class RefusedError(ValueError):
    """The typed decoders do not take this message; the tolerant reader shall look at it."""


class FastBuilder:
    """Makes one model from typed messages of one spelling.

    A frozen dataclass costs 0.15 µs a field to construct, because its own `__init__` must go round its own
    frozenness. `make` fills a mutable twin with the same slots instead and then changes its class: five times faster.

    `computed` are the fields the builder works out and hands to `make` first, followed by `received_at`, the values
    of `plain(message)` and `constants` (what this channel does not send).
    """

    def __init__(self, kind: str, spelling: Spelling, model: type[Any], computed: Sequence[str]) -> None:
        sent = {row.name: row for row in FIELD_MAPPING[kind] if row.spelled(spelling)}
        computed = (*computed, "received_at")
        plain = [field.name for field in fields(model) if field.name in sent and field.name not in computed]
        constant = [field for field in fields(model) if field.name not in {*plain, *computed}]
        source = DataSource.REST if spelling is Spelling.REST else DataSource.WEBSOCKET
        preset = {"source": source} | ({} if spelling is Spelling.REST else {"is_closed": False})
        self.plain = attrgetter(*plain)
        self.constants = tuple(
            preset.get(field.name, None if field.default is MISSING else field.default) for field in constant
        )
        names = [*computed, *plain, *(field.name for field in constant)]
        self._model = model
        self._twin: Callable[..., Any] = make_dataclass(
            f"{model.__name__}Draft", names, bases=(Jsonable,), slots=True, eq=False, repr=False
        )
        read = [row for row in sent.values() if row.use is not Use.FALLBACK]
        self._amounts = attrgetter(*(row.name for row in read if row.how is AMOUNT))
        self._signed = [row.name for row in read if row.how is SIGNED]

    def make(self, *values: Any) -> Any:
        draft = self._twin(*values)
        draft.__class__ = self._model
        return draft

    def check(self, message: Any) -> None:
        """Refuses NaN, infinities, absurd sizes and negative amounts (msgspec takes "NaN" for a Decimal)."""
        amounts = [amount for amount in self._amounts(message) if amount is not None]
        if min(amounts) < ZERO:
            raise RefusedError
        for name in self._signed:
            value = getattr(message, name)
            if value is not None:
                amounts.append(value.copy_abs())
        if not are_sane(amounts):
            raise RefusedError


def unpadded(prices: list[Decimal], sizes: list[Decimal]) -> tuple[list[Decimal], list[Decimal]]:
    return [price for price in prices if price], [size for price, size in zip(prices, sizes, strict=True) if price]


_new = object.__new__
_set_price = OrderbookUnit.__dict__["price"].__set__
_set_size = OrderbookUnit.__dict__["size"].__set__


def levels_of(prices: list[Decimal], sizes: list[Decimal]) -> tuple[OrderbookUnit, ...]:
    """The units of one side. Sixty of them in a book are worth filling column by column, without leaving C."""
    units = tuple(map(_new, repeat(OrderbookUnit, len(prices))))
    deque(map(_set_price, units, prices), maxlen=0)
    deque(map(_set_size, units, sizes), maxlen=0)
    return units


Build = Callable[[Any, datetime | None], Any]


def ticker_builder(spelling: Spelling) -> Build:
    mould = FastBuilder("ticker", spelling, TickerData, ("symbol", "timestamp", "trade_timestamp"))
    make, plain, constants, check = mould.make, mould.plain, mould.constants, mould.check

    def build(message: Any, received_at: datetime | None) -> Any:
        check(message)
        return make(
            to_symbol(message.symbol),
            to_moment(message.timestamp),
            to_moment(message.trade_timestamp),
            received_at,
            *plain(message),
            *constants,
        )

    return build


def trade_builder(spelling: Spelling) -> Build:
    is_rest = spelling is Spelling.REST
    computed = ("symbol", "timestamp") if is_rest else ("symbol", "timestamp", "published_at", "change_amount")
    mould = FastBuilder("trade", spelling, TradeData, computed)
    make, plain, constants, check = mould.make, mould.plain, mould.constants, mould.check

    def build(message: Any, received_at: datetime | None) -> Any:
        check(message)
        if message.sequential_id is not None and not 0 <= message.sequential_id < PAST_INT64:
            raise RefusedError
        moments: tuple[Any, ...] = (to_symbol(message.symbol), to_moment(message.timestamp))
        if not is_rest:
            published = None if message.published_at is None else to_moment(message.published_at)
            moments += (published, to_signed(message.absolute_change_amount, message.change))
        return make(*moments, received_at, *plain(message), *constants)

    return build


def candle_builder(spelling: Spelling, timeframe: str) -> Build:
    mould = _candle_builder_of(spelling)
    make, plain, constants, check = mould.make, mould.plain, mould.constants, mould.check

    def build(message: Any, received_at: datetime | None) -> Any:
        check(message)
        last = message.last_trade_at
        return make(
            to_symbol(message.symbol),
            to_utc(message.timestamp),
            None if last is None else to_moment(last),
            timeframe,
            received_at,
            *plain(message),
            *constants,
        )

    return build


@cache
def _candle_builder_of(spelling: Spelling) -> FastBuilder:
    return FastBuilder("candle", spelling, CandleData, ("symbol", "timestamp", "last_trade_at", "timeframe"))


def orderbook_builder(spelling: Spelling) -> Build:
    mould = FastBuilder("orderbook", spelling, OrderbookData, ("symbol", "timestamp", "level", "asks", "bids"))
    make, plain, constants = mould.make, mould.plain, mould.constants

    def build(message: Any, received_at: datetime | None) -> Any:
        units = message.units
        ask_prices = [unit.ask_price for unit in units]
        ask_sizes = [unit.ask_size for unit in units]
        bid_prices = [unit.bid_price for unit in units]
        bid_sizes = [unit.bid_size for unit in units]
        level = message.level or ZERO
        amounts = [*ask_prices, *ask_sizes, *bid_prices, *bid_sizes, message.total_ask_size, message.total_bid_size]
        smallest = min(amounts)
        if smallest < ZERO or level < ZERO or not are_sane([level, *amounts]):
            raise RefusedError
        if not smallest:
            ask_prices, ask_sizes = unpadded(ask_prices, ask_sizes)
            bid_prices, bid_sizes = unpadded(bid_prices, bid_sizes)
        return make(
            to_symbol(message.symbol),
            to_moment(message.timestamp),
            level,
            levels_of(ask_prices, ask_sizes),
            levels_of(bid_prices, bid_sizes),
            received_at,
            *plain(message),
            *constants,
        )

    return build
