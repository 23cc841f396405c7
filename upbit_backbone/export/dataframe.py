"""pandas DataFrames from lists of candles, trades and tickers. Needs the extra `pandas`; loaded on first use."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import tzinfo
from typing import Any, Final, Literal

from ..errors import InvalidRequestError
from ..models.market import CandleData, TickerData, TradeData

Numbers = Literal["exact", "float"]

PRICES: Final = ("open_price", "high_price", "low_price", "close_price")
COLUMNS: Final[dict[type[Any], tuple[str, ...]]] = {
    CandleData: ("symbol", "timeframe", *PRICES, "volume", "traded_value", "is_closed", "is_filled", "source"),
    TradeData: ("symbol", "price", "volume", "side", "sequential_id", "is_backfilled", "source"),
    TickerData: (
        *("symbol", "current_price", "change_rate", "change_amount", "opening_price", "high_24h", "low_24h"),
        *("prev_closing_price", "volume_24h", "traded_value_24h", "volume_today", "traded_value_today", "source"),
    ),
}
# What is none of these is a number.
TEXTS: Final = frozenset({"symbol", "timeframe", "side", "source"})
FLAGS: Final = frozenset({"is_closed", "is_filled", "is_backfilled"})
IDS: Final = frozenset({"sequential_id"})


def to_dataframe(
    items: Iterable[Any],
    numbers: Numbers = "exact",
    *,
    tz: str | tzinfo = "UTC",
    kind: type[Any] | None = None,
) -> Any:
    """A DataFrame of candles, trades or tickers (a list, an iterator or a CandleSeries), in the order given.

    The index is `timestamp`, aware, in `tz` ("Asia/Seoul" for Korean time). `numbers="exact"` keeps `Decimal` objects;
    "float" gives float64 columns, fast but rounded. A missing number is None (NaN among floats). Columns and their
    types are always the same for one kind of item, however few rows and whatever is missing: texts are `string`, ids
    `Int64`, flags `bool`; `kind` names it where the list may be empty.
    """
    pandas = _pandas()
    rows = list(items)
    kind = kind or (type(rows[0]) if rows else None)
    columns = _columns_of(kind, rows)
    if numbers not in ("exact", "float"):
        raise InvalidRequestError(f"numbers={numbers!r}: expected 'exact' or 'float'")
    index = pandas.DatetimeIndex(
        [row.timestamp for row in rows], tz="UTC", name="timestamp", dtype="datetime64[us, UTC]"
    )
    data = {name: _column(pandas, name, [getattr(row, name) for row in rows], numbers) for name in columns}
    return pandas.DataFrame(data, index=index.tz_convert(tz), columns=list(columns))


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise ImportError("DataFrames need pandas; install it with: pip install 'upbit-backbone[pandas]'") from error
    return pandas


def _columns_of(kind: type[Any] | None, rows: list[Any]) -> tuple[str, ...]:
    if kind is None:
        return ()
    columns = COLUMNS.get(kind)
    if columns is None or any(type(row) is not kind for row in rows):
        names = ", ".join(each.__name__ for each in COLUMNS)
        raise InvalidRequestError(f"to_dataframe takes a list of one kind of {names}; this one holds {kind.__name__}s")
    return columns


def _column(pandas: Any, name: str, values: list[Any], numbers: Numbers) -> Any:
    if name in TEXTS:
        return pandas.array([value if value is None else str(value) for value in values], dtype="string")
    if name in IDS:
        return pandas.array(values, dtype="Int64")  # plain integers cannot be missing, and floats would round them
    if name in FLAGS:
        return pandas.array(values, dtype="bool")
    if numbers == "float":
        return pandas.array([float("nan") if value is None else float(value) for value in values], dtype="float64")
    return pandas.Series(values, dtype=object).array
