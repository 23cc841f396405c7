"""A caller's words made into a validated `DataRequest`, or an error that says what was expected. Pure.

Nothing that was not checked here reaches a URL or a frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any, TypeVar

from .._arguments import as_whole, whole_number
from .._concurrency import check_timeout
from ..errors import InvalidRequestError, UnknownTimeframeError
from ..exchange.endpoints import MAX_LEVELS
from ..exchange.markets import normalise_symbol
from ..exchange.timeframes import is_timeframe, timeframe_of
from ..models.enums import DataStrategy, DataType, Priority, RequestKind
from ..models.request import DataRequest

E = TypeVar("E", bound=Enum)
NO_LEVEL = Decimal(-1)


def member(kind: type[E], value: object, name: str) -> E:
    """`value` as a member of `kind`; its own value ("ticker") or name ("TICKER") is understood too."""
    if isinstance(value, kind):
        return value
    if isinstance(value, str):
        if value.upper() in kind.__members__:
            return kind[value.upper()]
        for each in kind:
            if each.value == value:
                return each
    allowed = ", ".join(str(each.value) if isinstance(each.value, str) else each.name for each in kind)
    raise InvalidRequestError(f"{name}={value!r}: expected one of {allowed}")


def price_level(value: object) -> Decimal:
    """The grouping of an order book's prices, 0 for none (docs: list-orderbook-levels, KRW markets only)."""
    given = value if isinstance(value, str | Decimal) else as_whole(value)
    try:
        level = Decimal(NO_LEVEL if given is None else given)
    except InvalidOperation:
        level = NO_LEVEL
    if not level.is_finite() or level < 0:
        raise InvalidRequestError(f"level={value!r}: expected a price grouping such as 0, 10000 or Decimal('0.1')")
    return level


def _data_type(value: object) -> DataType:
    """Also by a timeframe's word, ours or Upbit's ("1h", "60m", "minutes/60")."""
    if isinstance(value, DataType):
        return value
    try:
        unit = timeframe_of(value)  # type: ignore[arg-type]
    except UnknownTimeframeError:
        return member(DataType, value, "data_types")
    if unit.data_type is None:
        raise InvalidRequestError(
            f"data_types={value!r}: Upbit streams candles of 1s to 4h; candle_series(symbol, {unit.word!r}) keeps "
            f"these current, and get_candles(symbol, {unit.word!r}) gives those of now"
        )
    return unit.data_type


def data_types(value: object) -> tuple[DataType, ...]:
    """One data type or several, as members, Upbit's words ("ticker", "candle.1m") or timeframes ("1m")."""
    values: Iterable[Any] = (value,) if isinstance(value, str) or not isinstance(value, Iterable) else value
    types = tuple(dict.fromkeys(map(_data_type, values)))
    if not types:
        raise InvalidRequestError(f"data_types: expected at least one of {', '.join(DataType)}, got none")
    return types


def build_request(
    kind: RequestKind,
    symbol: object = None,
    *,
    realtime: object = False,
    priority: object = Priority.NORMAL,
    strategy: object = DataStrategy.AUTO,
    max_age: float | None = None,
    levels: object = MAX_LEVELS,
    level: object = 0,
    **fields: Any,
) -> DataRequest:
    """A validated request about one symbol (or none). Raises InvalidRequestError."""
    if not isinstance(realtime, bool):
        raise InvalidRequestError(f"realtime={realtime!r}: expected True or False")
    return DataRequest(
        kind=kind,
        symbols=() if symbol is None and kind is RequestKind.MARKETS else (normalise_symbol(symbol),),
        realtime=realtime,
        priority=member(Priority, priority, "priority"),
        strategy=member(DataStrategy, strategy, "strategy"),
        max_age=None if max_age is None else check_timeout(max_age, "max_age"),
        levels=whole_number(levels, "levels", low=1, high=MAX_LEVELS),
        level=price_level(level),
        **fields,
    )


# What a caller may add to `explain` because the get_* method takes it, though it does not matter for the way.
IRRELEVANT_OPTIONS = frozenset({"timeout", "fill", "progress", "cancel", "since", "days_ago", "newest_first"})
RELEVANT_OPTIONS = frozenset({"realtime", "priority", "strategy", "max_age", "levels", "level"})
HISTORY_OPTIONS = frozenset({"timeframe", "count", "to", "start", "end", "quote"})
OTHER_WORDS = {"trade": RequestKind.TRADES, "candle": RequestKind.CANDLES, "market": RequestKind.MARKETS}


def described(kind: object, symbol: object, options: dict[str, Any]) -> DataRequest:
    """The request that a `get_*` method with these options would make, for explaining it."""
    word = kind.value if isinstance(kind, Enum) else kind
    allowed = RELEVANT_OPTIONS | HISTORY_OPTIONS | IRRELEVANT_OPTIONS
    for name in options:
        if name not in allowed:
            raise InvalidRequestError(f"{name!r} is no option of a question; there are {', '.join(sorted(allowed))}")
    given = {name: value for name, value in options.items() if name not in IRRELEVANT_OPTIONS}
    if isinstance(word, str) and is_timeframe(word):
        given.setdefault("timeframe", word)
        word = "candle"
    wanted = OTHER_WORDS.get(word) if isinstance(word, str) else None
    wanted = wanted or member(RequestKind, word, "kind")
    if wanted is RequestKind.CANDLES:
        given["timeframe"] = timeframe_of(given.get("timeframe", "1m")).word
    return build_request(wanted, symbol, **given)


def check_callable(name: str, value: object, *, required: bool = False) -> None:
    """Raise InvalidRequestError unless `value` can be called (or is None where that is allowed)."""
    if not callable(value) and (required or value is not None):
        raise InvalidRequestError(f"{name}={value!r}: expected something that can be called")


def cache_key(key: object) -> tuple[Any, ...] | DataRequest:
    """A key of the cache of REST answers: a question, or a kind and what it is about."""
    if isinstance(key, DataRequest):
        return key
    is_key = isinstance(key, tuple) and len(key) > 0 and isinstance(key[0], str)
    try:
        hash(key)
    except TypeError:
        is_key = False
    if not is_key:
        raise InvalidRequestError(f"key={key!r}: expected a DataRequest, or a tuple such as ('ticker', 'KRW-BTC')")
    return key  # type: ignore[return-value]
