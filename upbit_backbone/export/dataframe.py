"""Tables of candles, trades and tickers: the list that `market` gives, data frames of pandas (extra `pandas`) and of
polars where it is installed, and the columns of files.

pandas and polars are loaded on first use.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Literal, TypeVar

from .._language import spoken
from .._lazy import unloadable
from ..errors import InvalidRequestError
from ..models.market import CandleData, TickerData, TradeData
from ..models.readable import table_of

Numbers = Literal["exact", "float"]
Style = Literal["models", "ohlcv"]
Layout = Literal["long", "wide"]

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
    items: Iterable[Any] | Mapping[str, Any],
    numbers: Numbers | None = None,
    *,
    style: Style = "models",
    layout: Layout = "long",
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

    A dict is many markets in one frame: lists by symbol, or what `get_tickers` gives. `layout="long"` puts them one
    below the other, told apart by the column `symbol`; "wide" side by side, one row for each time, the columns named by
    (symbol, field), with NaN where a market has nothing then.
    """
    pandas = load_pandas()
    if layout not in ("long", "wide"):
        raise InvalidRequestError(f"layout={layout!r}: expected 'long' or 'wide'")
    if layout == "wide" or (isinstance(items, Mapping) and style == "ohlcv"):
        lists = _by_symbol(items)
        frames = {
            symbol: to_dataframe(rows, numbers, style=style, tz=tz, kind=kind or _kind_of(lists))
            for symbol, rows in lists.items()
        }
        return _side_by_side(pandas, frames) if layout == "wide" else _one_below_the_other(pandas, frames)
    rows, named, exactness, zone = _table(items, numbers, style, tz, kind)
    data = {
        name: _column(pandas, field, [getattr(row, field) for row in rows], exactness) for name, field in named.items()
    }
    return pandas.DataFrame(data, index=_index(pandas, rows).tz_convert(zone), columns=list(named))


def to_polars(
    items: Iterable[Any] | Mapping[str, Any],
    numbers: Numbers | None = None,
    *,
    style: Style = "models",
    tz: str | None = None,
    kind: type[Any] | None = None,
) -> Any:
    """The same as a polars DataFrame, `timestamp` as its first column; of many markets one below the other.

    `numbers="exact"` gives polars' Decimal columns. Needs polars to be installed.
    """
    try:
        import polars
    except ImportError as error:
        raise ImportError(spoken("to_polars needs polars; install it with: pip install polars")) from error
    except OSError as error:
        raise unloadable("polars", error) from error
    if isinstance(items, Mapping):
        items = [row for rows in _by_symbol(items).values() for row in rows]
    rows, named, exactness, zone = _table(items, numbers, style, tz, kind)
    if style == "ohlcv":
        named = {"symbol": "symbol", **named}
    times = [row.timestamp.astimezone(UTC) for row in rows]
    columns = [polars.Series("timestamp", times, dtype=polars.Datetime("us", "UTC")).dt.convert_time_zone(str(zone))]
    columns += [
        _polars_column(polars, name, field, [getattr(row, field) for row in rows], exactness)
        for name, field in named.items()
    ]
    return polars.DataFrame(columns)


def _table(
    items: Iterable[Any] | Mapping[str, Any],
    numbers: Numbers | None,
    style: Style,
    tz: str | tzinfo | None,
    kind: type[Any] | None,
) -> tuple[list[Any], Mapping[str, str], Numbers, str | tzinfo]:
    """What is to become a frame: the rows, the fields by column, how exact numbers are, and the zone."""
    rows = [row for each in _by_symbol(items).values() for row in each] if isinstance(items, Mapping) else list(items)
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
    return rows, named, numbers, tz or ("Asia/Seoul" if is_chart else "UTC")


def _by_symbol(items: Iterable[Any] | Mapping[str, Any]) -> dict[str, list[Any]]:
    """Lists by market, from such a mapping, from tickers by market, or from one list of several markets."""
    if isinstance(items, Mapping):
        return {symbol: [rows] if type(rows) in COLUMNS else list(rows) for symbol, rows in items.items()}
    lists: dict[str, list[Any]] = {}
    rows: Iterable[Any] = items
    for row in rows:
        lists.setdefault(row.symbol, []).append(row)
    return lists


def _kind_of(lists: Mapping[str, list[Any]]) -> type[Any] | None:
    """What the markets that have any rows have: so that those that have none get the same columns."""
    return next((type(rows[0]) for rows in lists.values() if rows), None)


def _side_by_side(pandas: Any, frames: Mapping[str, Any]) -> Any:
    if not frames:
        raise InvalidRequestError("layout='wide': there is no market in it")
    for symbol, frame in frames.items():
        if not frame.index.is_unique:
            raise InvalidRequestError(f"layout='wide': {symbol} has several rows of the same time; use layout='long'")
    return pandas.concat(frames, axis=1, names=["symbol", "field"]).sort_index()


def _one_below_the_other(pandas: Any, frames: Mapping[str, Any]) -> Any:
    parts = []
    for symbol, frame in frames.items():
        frame.insert(0, "symbol", pandas.array([symbol] * len(frame), dtype="string"))
        parts.append(frame)
    filled = [part for part in parts if len(part)] or parts[:1]  # what is empty must not say of which types the rest is
    return pandas.concat(filled) if filled else to_dataframe([], style="ohlcv")


def _polars_column(polars: Any, name: str, field: str, values: list[Any], numbers: Numbers) -> Any:
    if field in TEXTS:
        return polars.Series(name, [None if value is None else str(value) for value in values], dtype=polars.String)
    if field in IDS:
        return polars.Series(name, values, dtype=polars.Int64)
    if field in FLAGS:
        return polars.Series(name, values, dtype=polars.Boolean)
    if numbers == "float":
        return polars.Series(name, [None if value is None else float(value) for value in values], dtype=polars.Float64)
    places = max((_places(value) for value in values if value is not None), default=0)
    return polars.Series(name, values, dtype=polars.Decimal(38, places))


def _places(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _index(pandas: Any, rows: list[Any]) -> Any:
    unit = "ns" if pandas.__version__.startswith("1.") else "us"  # pandas 1 has nothing but nanoseconds
    return pandas.DatetimeIndex(
        [row.timestamp for row in rows], tz="UTC", name="timestamp", dtype=f"datetime64[{unit}, UTC]"
    )


def load_pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        what = "DataFrames need pandas; install it with: pip install 'upbit-backbone[pandas]'"
        raise ImportError(spoken(what)) from error
    except OSError as error:
        raise unloadable("pandas", error) from error
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


# Rows: a list of candles or trades that shows itself in a notebook and makes a frame of itself.

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

    def to_dataframe(
        self, numbers: Numbers | None = None, *, style: Style = "models", tz: str | tzinfo | None = None
    ) -> Any:
        """A pandas DataFrame (extra `pandas`); `style="ohlcv"` (of candles) is what charts and indicators expect.

        See `upbit_backbone.export.dataframe.to_dataframe`, also for polars and for many markets in one frame.
        """
        return to_dataframe(self, numbers, style=style, tz=tz, kind=self.kind)

    def __repr__(self) -> str:
        if len(self) <= LONGEST_LINE:
            return list.__repr__(self)
        return f"[{self[0]!r}, … {len(self) - 2:,} more …, {self[-1]!r}]"

    def _repr_html_(self) -> str:
        return table_of(self, SHOWN[self.kind])


# What a file's columns are, and how a cell is written and read again.

_FLAG_WORDS: Final = {"True": True, "False": False}


def columns_of(kind: type[Any]) -> tuple[str, ...]:
    """The file's columns: the time first, then as in a DataFrame."""
    if kind not in COLUMNS:
        names = ", ".join(each.__name__ for each in COLUMNS)
        raise InvalidRequestError(f"files can hold {names}; {kind.__name__} is none of them")
    return ("timestamp", *COLUMNS[kind])


def as_text(value: object) -> str:
    """A cell: numbers as Upbit means them, without exponent; times in ISO 8601 with zone; nothing for None."""
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return str(value)


class Row:
    """A row read from a file: what was written, as attributes. Good for writing again, not for more."""

    def __init__(self, columns: Sequence[str], values: Sequence[Any]) -> None:
        self.__dict__.update(zip(columns, values, strict=True))

    def __getattr__(self, name: str) -> Any:  # for type checkers; what is there is found before
        raise AttributeError(name)


def parsed(columns: Sequence[str], line: bytes) -> Row:
    """The row of one CSV line without its end; ValueError, which says why, where it is none."""
    cells = line.decode("utf-8").split(",")
    if len(cells) != len(columns):
        raise ValueError(f"{len(cells)} cells instead of {len(columns)}")
    return Row(columns, [_value(name, cell) for name, cell in zip(columns, cells, strict=True)])


def _value(name: str, cell: str) -> Any:
    if name == "timestamp":
        moment = datetime.fromisoformat(cell)
        if moment.tzinfo is None:
            raise ValueError(f"{name} without a zone")
        return moment
    if name in FLAGS:
        if cell not in _FLAG_WORDS:
            raise ValueError(f"{name} is neither True nor False")
        return _FLAG_WORDS[cell]
    if name in TEXTS:
        if not cell.isprintable():
            raise ValueError(f"{name} is not a text")
        return cell or None
    if not cell:
        return None
    return int(cell) if name in IDS else _number(name, cell)


def _number(name: str, cell: str) -> Decimal:
    try:
        value = Decimal(cell)
    except InvalidOperation as error:
        raise ValueError(f"{name} is not a number") from error
    if not value.is_finite():
        raise ValueError(f"{name} is not a number")
    return value


def lines_of(file: Iterator[bytes]) -> Iterator[bytes]:
    """Whole lines without their ends; a torn last one is left out."""
    for line in file:
        if not line.endswith(b"\n"):
            return
        yield line.rstrip(b"\r\n")
