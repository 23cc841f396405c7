"""Market codes: Upbit's spelling, and other people's where it can be understood without doubt."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from ..errors import InvalidRequestError

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
