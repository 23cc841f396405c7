"""JSON for people, by dataclasses-json: the only module that knows that package, loaded on first use.

Never on the stream: it is 20 to 60 times slower than direct construction. Every Decimal, datetime and date field
gets our own codec by its annotation, because the package would take a Decimal through float and a datetime through
the local time zone.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any


def about_us(default: Any = None) -> Any:
    """A field that tells about our handling, not about the market: left out of equality."""
    return field(default=default, compare=False)


class Jsonable:
    """`to_dict()`, `to_json()`, `from_dict()`, `from_json()`: exact in a round trip."""

    __slots__ = ()
