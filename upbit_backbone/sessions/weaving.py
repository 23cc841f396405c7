"""Puts what REST gave among what the stream gave, in order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TypeVar

T = TypeVar("T")

Placed = tuple[tuple[datetime, int], T]


def weave(missing: Sequence[Placed[T]], parked: Iterable[Placed[T]]) -> list[T]:
    """Each missing item before the first parked one that is later; the parked ones keep the order they came in."""
    woven: list[T] = []
    position = 0
    for order, item in parked:
        while position < len(missing) and missing[position][0] < order:
            woven.append(missing[position][1])
            position += 1
        woven.append(item)
    woven.extend(item for _, item in missing[position:])
    return woven
