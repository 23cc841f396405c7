"""pandas DataFrames from lists of candles, trades and tickers. Needs the extra `pandas`; loaded on first use."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import tzinfo
from typing import Any, Final, Literal

from ..errors import InvalidRequestError
from ..models.market import CandleData, TickerData, TradeData

Numbers = Literal["exact", "float"]
Style = Literal["models", "ohlcv"]

PRICES: Final = ("open_price", "high_price", "low_price", "close_price")
COLUMNS: Final[dict[type[Any], tuple[str, ...]]] = {
    CandleData: ("symbol", "timeframe", *PRICES, "volume", "traded_value", "is_closed", "is_filled", "source"),
    TradeData: ("symbol", "price", "volume", "side", "sequential_id", "is_backfilled", "source"),
    TickerData: (
        *("symbol", "current_price", "change_rate", "change_amount", "opening_price", "high_24h", "low_24h"),
        *("prev_closing_price", "volume_24h", "traded_value_24h", "volume_today", "traded_value_today", "source"),
    ),
}
# What charts and indicators expect, and pyupbit gives, with the fields they come from.
OHLCV: Final = dict(
    zip(("open", "high", "low", "close", "volume", "value"), (*PRICES, "volume", "traded_value"), strict=True)
)
# What is none of these is a number.
TEXTS: Final = frozenset({"symbol", "timeframe", "side", "source"})
FLAGS: Final = frozenset({"is_closed", "is_filled", "is_backfilled"})
IDS: Final = frozenset({"sequential_id"})


def to_dataframe(
    items: Iterable[Any],
    numbers: Numbers | None = None,
    *,
    style: Style = "models",
    tz: str | tzinfo | None = None,
    kind: type[Any] | None = None,
) -> Any:
    """A DataFrame of candles, trades or tickers (a list, an iterator or a CandleSeries), in the order given.

    The index is `timestamp`, aware, in `tz` ("Asia/Seoul" for Korean time). `numbers="exact"` keeps `Decimal` objects;
    "float" gives float64 columns, fast but rounded. A missing number is None (NaN among floats). Columns and their
    types are always the same for one kind of item, however few rows and whatever is missing: texts are `string`, ids
    `Int64`, flags `bool`; `kind` names it where the list may be empty.

    `style="ohlcv"` is for charts and indicators: of candles the columns open, high, low, close, volume and value, as
    floats and in Korean time unless `numbers` and `tz` say otherwise. "models" has every field under its own name, as
    exact numbers, in UTC.
    """
    pandas = load_pandas()
    rows = list(items)
    if style not in ("models", "ohlcv"):
        raise InvalidRequestError(f"style={style!r}: expected 'models' or 'ohlcv'")
    is_chart = style == "ohlcv"
    kind = kind or (type(rows[0]) if rows else CandleData if is_chart else None)
    columns = _columns_of(kind, rows)
    if is_chart and kind is not CandleData:
        raise InvalidRequestError(f"style='ohlcv' is for candles, and these are {getattr(kind, '__name__', 'nothing')}")
    numbers = numbers or ("float" if is_chart else "exact")
    if numbers not in ("exact", "float"):
        raise InvalidRequestError(f"numbers={numbers!r}: expected 'exact' or 'float'")
    named = OHLCV if is_chart else {name: name for name in columns}
    data = {
        name: _column(pandas, field, [getattr(row, field) for row in rows], numbers) for name, field in named.items()
    }
    index = _index(pandas, rows).tz_convert(tz or ("Asia/Seoul" if is_chart else "UTC"))
    return pandas.DataFrame(data, index=index, columns=list(named))


def _index(pandas: Any, rows: list[Any]) -> Any:
    unit = "ns" if pandas.__version__.startswith("1.") else "us"  # pandas 1 has nothing but nanoseconds
    return pandas.DatetimeIndex(
        [row.timestamp for row in rows], tz="UTC", name="timestamp", dtype=f"datetime64[{unit}, UTC]"
    )


def load_pandas() -> Any:
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
