"""Colours of a market: Korean (red is up, blue is down) and international (green is up, red is down).

Chosen to be read on a light and on a dark background alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Final

from ..models.enums import Side
from .binding import QColor


@dataclass(frozen=True, slots=True)
class ColourScheme:
    """Colours as "#rrggbb". `stale` is for whatever is not provably current now: nothing that is old looks live."""

    name: str
    up: str
    down: str
    flat: str = "#808080"
    stale: str = "#9a9a9a"

    def of_change(self, change: Decimal | float | None) -> QColor:
        """The colour of a change: of its sign alone."""
        return _colour(self.flat if not change else self.up if change > 0 else self.down)

    def of_stale(self) -> QColor:
        return _colour(self.stale)

    def of_side(self, side: Side | str | None) -> QColor:
        """The colour of a trade: of a buyer who took an offer, or of a seller who met a bid."""
        return _colour(self.up if side == Side.BID else self.down if side == Side.ASK else self.flat)


_read = cache(QColor)  # the text is read once, where each cell that is painted asks


def _colour(name: str) -> QColor:
    return QColor(_read(name))  # the caller's own: colours can be changed


KOREAN: Final = ColourScheme("korean", up="#e0433f", down="#2f78e4")
INTERNATIONAL: Final = ColourScheme("international", up="#1fa672", down="#e5484d")
SCHEMES: Final = {scheme.name: scheme for scheme in (KOREAN, INTERNATIONAL)}
