"""Rows: a list of candles or trades that shows itself in a notebook and makes a frame of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..models.market import CandleData, TradeData
from ..models.readable import table_of

if TYPE_CHECKING:
    from datetime import tzinfo

T = TypeVar("T", CandleData, TradeData)

SHOWN: dict[type[Any], tuple[str, ...]] = {
    CandleData: ("timestamp", "open_price", "high_price", "low_price", "close_price", "volume"),
    TradeData: ("timestamp", "price", "volume", "side", "sequential_id"),
}
LONGEST_LINE = 3  # a longer list tells its first, its last and how many


class Rows(list[T]):
    """An ordinary list in every respect, and more: `.to_dataframe()`, a table in notebooks, a short `repr`."""

    kind: type[T]

    @classmethod
    def of(cls, kind: type[T], rows: list[T]) -> Rows[T]:
        """`rows`, which are of one kind, however few."""
        made = cls(rows)
        made.kind = kind
        return made

    def to_dataframe(self, numbers: Literal["exact", "float"] = "exact", *, tz: str | tzinfo = "UTC") -> Any:
        """A pandas DataFrame (extra `pandas`); see `upbit_backbone.export.dataframe.to_dataframe`."""
        from ..export.dataframe import to_dataframe  # pandas belongs to the edge and is loaded only here

        return to_dataframe(self, numbers, tz=tz, kind=self.kind)

    def __repr__(self) -> str:
        if len(self) <= LONGEST_LINE:
            return list.__repr__(self)
        return f"[{self[0]!r}, … {len(self) - 2:,} more …, {self[-1]!r}]"

    def _repr_html_(self) -> str:
        return table_of(self, SHOWN[self.kind])
