"""Upbit's price grids: in which steps orders may be priced. Pure.

Docs: krw-market-info (in force since 2025-07-31), btc-market-info, usdt-market-info. The endpoint of instruments says
the step at a market's present price, and has the last word there; this table knows every other price.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Context, Decimal, localcontext
from types import MappingProxyType
from typing import Final, Literal

from ..errors import InvalidRequestError
from ..models.number import plain
from .symbols import quote_of

Direction = Literal["down", "up", "nearest"]
Steps = tuple[tuple[Decimal, Decimal], ...]
_LONG: Final = Context(prec=200)
DIRECTIONS: Final = ("down", "up", "nearest")


def _steps(*rows: tuple[str, str]) -> Steps:
    return tuple((Decimal(least), Decimal(step)) for least, step in rows)


# From this price on, this step; the dearest first.
_KRW: Final = _steps(
    *(("1000000", "1000"), ("500000", "500"), ("100000", "100"), ("50000", "50"), ("10000", "10"), ("5000", "5")),
    *(("1000", "1"), ("100", "1"), ("10", "0.1"), ("1", "0.01"), ("0.1", "0.001"), ("0.01", "0.0001")),
    *(("0.001", "0.00001"), ("0.0001", "0.000001"), ("0.00001", "0.0000001"), ("0", "0.00000001")),
)
_USDT: Final = _steps(
    *(("10", "0.01"), ("1", "0.001"), ("0.1", "0.0001"), ("0.01", "0.00001"), ("0.001", "0.000001")),
    *(("0.0001", "0.0000001"), ("0", "0.00000001")),
)
_BY_QUOTE: Final[Mapping[str, Steps]] = MappingProxyType(
    {"KRW": _KRW, "USDT": _USDT, "BTC": _steps(("0", "0.00000001"))}
)
# Docs: changelog of 2025-03-21. Coins that stand for a dollar move by half a won.
_HALF_WON: Final = tuple(
    (least, Decimal("0.5") if Decimal(1000) <= least < Decimal(10_000) else step) for least, step in _KRW
)
_EXCEPTIONS: Final[Mapping[str, Steps]] = MappingProxyType({"KRW-USDT": _HALF_WON, "KRW-USDC": _HALF_WON})


def step_at(symbol: str, price: Decimal) -> tuple[Decimal, Decimal] | None:
    """Where the band of `price` begins, and the step within; None for a quote currency whose grid we do not know."""
    steps = _EXCEPTIONS.get(symbol) or _BY_QUOTE.get(quote_of(symbol))
    if steps is None:
        return None
    return next((least, step) for least, step in steps if price >= least)


def rounded(price: Decimal, step: Decimal, direction: Direction) -> Decimal:
    """The multiple of `step` next to `price`; half a step counts as up. Exact, whatever the numbers' length."""
    with localcontext(_LONG):
        whole, rest = divmod(price, step)
        half_or_more = rest * 2 >= step
        goes_up = rest != 0 and (direction == "up" or (direction == "nearest" and half_or_more))
        return plain((whole + 1) * step if goes_up else whole * step)


def checked_direction(direction: object) -> Direction:
    if direction not in DIRECTIONS:
        raise InvalidRequestError(f"direction={direction!r}: expected 'down', 'up' or 'nearest'")
    return direction


def checked_price(price: object) -> Decimal:
    """A price that may be rounded, from any kind of number; a float counts as what it prints."""
    try:
        number = Decimal(str(price))
    except ArithmeticError:
        number = Decimal(-1)
    if isinstance(price, bool) or not number.is_finite() or number < 0:
        raise InvalidRequestError(f"price={price!r}: expected a number that is not negative")
    return number
