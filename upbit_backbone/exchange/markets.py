"""Markets: Upbit's codes, other people's where they can be understood without doubt, and the steps of prices. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Context, Decimal, localcontext
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Literal

from ..errors import InvalidRequestError
from ..models.number import plain

CODE = re.compile(r"[A-Z0-9]{2,10}-[A-Z0-9]{1,20}", re.ASCII)
QUOTES = frozenset({"KRW", "BTC", "USDT", "SGD", "IDR", "THB"})
# Money that is hardly ever the thing bought: "BTC-KRW" most likely means KRW-BTC.
FIATS = frozenset({"KRW", "SGD", "IDR", "THB"})


@lru_cache(maxsize=4096)
def _normalise(text: str) -> str:
    base, slash, quote = text.partition("/")
    code = f"{quote}-{base}" if slash else text
    if CODE.fullmatch(code):
        return code
    hint = _hint(text)
    raise InvalidRequestError(f"symbol {text!r}: expected a market code such as 'KRW-BTC' (QUOTE-BASE){hint}")


def swapped(code: str) -> str | None:
    """What a code may mean to somebody who puts the quote last: "BTC-KRW" is KRW-BTC. None where that is unlikely.

    Only a guess. Upbit opens boards in new currencies, and then `USDC-BTC` and `BTC-USDC` are two markets with two
    prices: who exists as it is said is never looked at this way (see `MarketDirectory.meant`).
    """
    first, _, second = code.partition("-")
    is_likely = second in FIATS or (second in QUOTES and first not in QUOTES)
    return f"{second}-{first}" if is_likely else None


def _hint(text: str) -> str:
    upper = text.strip().upper().replace("_", "-").replace(":", "-")
    try:
        return "" if upper == text else f"; did you mean {_normalise(upper)!r}?"
    except InvalidRequestError:
        return ""


def normalise_symbol(symbol: object) -> str:
    """The code that `symbol` says: "KRW-BTC" as it stands, "BTC/KRW" as base and quote.

    Everything else, lower case included, raises InvalidRequestError, with a hint where the meaning can be guessed:
    nothing unvalidated reaches the wire.
    """
    if not isinstance(symbol, str):
        raise InvalidRequestError(f"symbol {symbol!r}: expected a text such as 'KRW-BTC', got {type(symbol).__name__}")
    return _normalise(symbol)


def normalise_symbols(symbols: object, *, limit: int) -> tuple[str, ...]:
    """One code or a collection of codes as a tuple without repetitions, in the order given."""
    if isinstance(symbols, str):
        return (_normalise(symbols),)
    if not isinstance(symbols, Iterable):
        raise InvalidRequestError(f"symbols {symbols!r}: expected a market code or a list of them")
    codes = tuple(dict.fromkeys(normalise_symbol(symbol) for symbol in symbols))
    if not codes:
        raise InvalidRequestError("symbols: expected at least one market code, got none")
    if len(codes) > limit:
        raise InvalidRequestError(f"symbols: {len(codes)} market codes, at most {limit} are allowed at once")
    return codes


def quote_of(symbol: str) -> str:
    """The currency that a market's prices are in."""
    return symbol.partition("-")[0]


def normalise_quote(quote: object) -> str:
    """A quote currency such as "KRW"."""
    if not isinstance(quote, str) or not re.fullmatch(r"[A-Z0-9]{2,10}", quote, re.ASCII):
        raise InvalidRequestError(f"quote {quote!r}: expected a quote currency such as 'KRW', 'BTC' or 'USDT'")
    return quote


# Price grids: in which steps orders may be priced.
#
# Docs: krw-market-info (in force since 2025-07-31), btc-market-info, usdt-market-info. The endpoint of instruments says
# the step at a market's present price, and has the last word there; this table knows every other price.

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
