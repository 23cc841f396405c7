"""One number, five spellings. Upbit writes the same value differently per channel, kind and field.

    tickers              decimal   91200000.0
    trades, candles      padded    106691000.00000000, and 0E-8
    books in DEFAULT     double    1.16539E8
    books in SIMPLE      plain     116539000
    sizes in SIMPLE      short     7.9276E-4
    books by REST        plain     103460000

All functions take an integer in units of 1e-8.
"""

from __future__ import annotations

from functools import lru_cache

_UNIT = 100_000_000


@lru_cache(maxsize=65_536)
def plain(value: int) -> str:
    """The shortest decimal: `131257000`, `0.00412345`, `0`."""
    whole, rest = divmod(abs(value), _UNIT)
    text = f"{whole}.{rest:08d}".rstrip("0").rstrip(".") if rest else str(whole)
    return "-" + text if value < 0 else text


@lru_cache(maxsize=65_536)
def decimal(value: int) -> str:
    """The shortest decimal that has a point: `91200000.0`, `0.00412345`, `0.0`."""
    text = plain(value)
    return text if "." in text else f"{text}.0"


@lru_cache(maxsize=65_536)
def padded(value: int) -> str:
    """Always eight decimals: `131257000.00000000`, `0.00077720`; zero is `0E-8`."""
    if value == 0:
        return "0E-8"
    whole, rest = divmod(abs(value), _UNIT)
    return f"{'-' if value < 0 else ''}{whole}.{rest:08d}"


@lru_cache(maxsize=65_536)
def double(value: int) -> str:
    """As Java prints a double: `1.16539E8`, `100300.0`, `7.9276E-4`."""
    size = abs(value)
    if value == 0:
        return "0.0"
    sign = "-" if value < 0 else ""
    if _UNIT // 1000 <= size < 10_000_000 * _UNIT:
        whole, rest = divmod(size, _UNIT)
        return f"{sign}{whole}.{f'{rest:08d}'.rstrip('0') or '0'}"
    digits = str(size)
    return f"{sign}{digits[0]}.{digits[1:].rstrip('0') or '0'}E{len(digits) - 9}"


@lru_cache(maxsize=65_536)
def short(value: int) -> str:
    """SIMPLE: large values plainly, small ones with an exponent."""
    return double(value) if 0 < abs(value) < _UNIT // 1000 else plain(value)


def turnover(value: int) -> str:
    """A turnover (units of 1e-16) with up to eight decimals, rounded half up."""
    return decimal((value + _UNIT // 2) // _UNIT)


def turnover_padded(value: int) -> str:
    """The same with all eight decimals, as candles have it."""
    return padded((value + _UNIT // 2) // _UNIT)


def rate(change: int, base: int) -> str:
    """change / base with ten decimals, trailing zeros cut, rounded half up."""
    if not base or not change:
        return "0"
    scaled = (abs(change) * 10**10 * 2 + base) // (2 * base)
    whole, rest = divmod(scaled, 10**10)
    text = f"{whole}.{rest:010d}".rstrip("0").rstrip(".")
    return "-" + text if change < 0 and text != "0" else text
