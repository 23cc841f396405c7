"""What one stream is about."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from .enums import DataType

ZERO = Decimal(0)


class Topic(NamedTuple):
    """One thing Upbit can stream: a type, a market and, for order books, the price grouping.

    Depth is no part of it: books are subscribed at the greatest depth anyone requests and trimmed on delivery,
    because Upbit's frames carry the market code without the depth suffix.
    """

    data_type: DataType
    symbol: str
    level: Decimal = ZERO

    def __str__(self) -> str:
        level = f"@{self.level}" if self.level else ""
        return f"{self.data_type.value}:{self.symbol}{level}"


@dataclass(frozen=True, slots=True)
class SubscriptionRequest:
    """A topic somebody wants, with the depth that satisfies everybody who wants it (None: 30, Upbit's default)."""

    topic: Topic
    depth: int | None = None
