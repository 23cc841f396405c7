"""Numbers that print as people write them: `106691000` and `0.00001234`, whatever spelling came over the wire.

Upbit spells one value in several ways (`91200000.0`, `106691000.00000000`, `1.16539E8`), and a Decimal remembers the
spelling it was made from. Value, equality and hash stay what they are; only padding zeros and exponents go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow, Subnormal
from typing import Final

ZERO: Final = Decimal(0)

_DIGITS: Final = 100  # nothing longer is a price, and arithmetic and printing can still bear this much
_SMALLEST: Final = -6  # Decimal itself writes what is smaller with an exponent

# One call in C does it all. `clamp` keeps the exponent from rising above Emax - prec + 1, which is 0 here, so zeros are
# cut off behind the point only; and a number for `SmallDecimal` counts as subnormal. (Measured: 50 ns a number, less
# than the exact sum that used to prove a message's numbers sane.)
_PLAIN: Final = Context(
    prec=_DIGITS,
    Emax=_DIGITS - 1,
    Emin=_SMALLEST,
    clamp=1,
    traps=[Inexact, InvalidOperation, Overflow, Subnormal],
)
_SMALL: Final = Context(
    prec=_DIGITS,
    Emax=_DIGITS - 1,
    Emin=-_DIGITS,
    clamp=1,
    traps=[Inexact, InvalidOperation, Overflow, Subnormal],
)

strip = _PLAIN.normalize  # Subnormal where a SmallDecimal is due
is_small = _PLAIN.is_subnormal


class SmallDecimal(Decimal):
    """A number below 0.000001, such as a price on a BTC market. Decimal prints it as `1.2E-7` in any spelling, so only
    a type of its own can say `0.00000012`. Arithmetic gives ordinary Decimals."""

    __slots__ = ()

    def __str__(self) -> str:
        return Decimal.__format__(self, "f")

    def __repr__(self) -> str:
        return f"Decimal('{self}')"

    def __format__(self, spec: str, context: Context | None = None, /) -> str:
        return Decimal.__format__(self, spec if spec[-1:].isalpha() or spec.endswith("%") else f"{spec}f")


def encoded(value: object) -> str:
    """For msgspec's `enc_hook`: it writes a Decimal as a text, but knows no class of its own that is one."""
    if isinstance(value, SmallDecimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be encoded")


def plain(number: Decimal) -> Decimal:
    """The same number, printing plainly. ArithmeticError or ValueError where it is not finite, or absurdly long."""
    try:
        result = strip(number)
    except Subnormal:
        return SmallDecimal(_SMALL.normalize(number))
    if not result.is_finite():
        raise ValueError("is not a finite number")
    return result or ZERO  # of the two zeros, the one without a sign


def strip_each(numbers: Sequence[Decimal]) -> tuple[list[Decimal], bool]:
    """Many at a time, stripped of their padding. True: several are small, and left for `spell_each`.
    Unlike with `plain`, NaN and infinities pass, and so does the sign of a zero."""
    stripped: list[Decimal] = []
    rest = iter(numbers)
    try:
        stripped.extend(map(strip, rest))
    except Subnormal:
        # `extend` keeps what came before the error. Most often that one is alone, a rest of an order in a book; to find
        # it again among all would cost 3 µs.
        stripped.append(SmallDecimal(_SMALL.normalize(numbers[len(stripped)])))
        try:
            stripped.extend(map(strip, rest))
        except Subnormal:
            stripped.append(_SMALL.normalize(numbers[len(stripped)]))
            stripped.extend(map(_SMALL.normalize, rest))
            return stripped, True
    return stripped, False


def spell_each(stripped: Sequence[Decimal]) -> list[Decimal]:
    """What `strip_each` gave, all of it printing plainly."""
    # Looking at each by `plain` would cost three times as much where many are small.
    return [SmallDecimal(number) if is_small(number) else number for number in stripped]


def total(numbers: Iterable[Decimal]) -> Decimal:
    """Their sum: 0.5 and 0.5 are 1, not 1.0."""
    return plain(sum(numbers, ZERO))
