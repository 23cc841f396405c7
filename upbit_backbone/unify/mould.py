"""Construction at speed: frozen, slotted models filled without going through their own `__init__`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields, make_dataclass
from decimal import Decimal
from itertools import repeat
from operator import attrgetter
from typing import Any

from ..models.enums import DataSource
from ..models.jsonable import Jsonable
from ..models.market import OrderbookUnit
from .fields import FIELD_MAPPING, Spelling, Use
from .values import AMOUNT, SIGNED, ZERO, are_sane


class RefusedError(ValueError):
    """The typed decoders do not take this message; the tolerant reader shall look at it."""


class Mould:
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
