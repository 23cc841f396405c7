"""The fast decoders: bytes of the usual shape become models in one typed pass, made from the same table.

msgspec reads each number from its text straight into a Decimal and refuses what does not fit; its message objects
carry our field names, so one builder serves every spelling. What is refused here is not yet wrong: the tolerant
reader has the last word.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec

from ..exchange.fields import FIELD_TABLE, UNITS_KEY, Spelling, Use
from ..exchange.timeframes import TIMEFRAMES
from ..models.enums import DataType
from .builders import Build, candle_builder, orderbook_builder, ticker_builder, trade_builder

# What decoders and builders raise for anything unusual: msgspec's own errors and UnicodeDecodeError are ValueErrors,
# those of decimal ArithmeticErrors.
REFUSALS = (ValueError, ArithmeticError, RecursionError)


def structure(kind: str, spelling: Spelling, tag: str | None = None, **more: Any) -> type[msgspec.Struct]:
    """The message of one kind in one spelling, with our field names. `more` are further fields: name=(key, type)."""
    columns: list[Any] = []
    keys: dict[str, str] = {}
    for row in FIELD_TABLE[kind]:
        key = row.spelled(spelling)
        if key is None or row.use is Use.FALLBACK:
            continue
        keys[row.name] = key
        is_insisted_on = row.use in (Use.REQUIRED, Use.DERIVABLE)
        columns.append((row.name, row.how.typed) if is_insisted_on else (row.name, row.how.typed | None, None))
    for name, (key, kind_of_field) in more.items():
        keys[name] = key
        columns.append((name, kind_of_field))
    tag_field = None if tag is None else ("ty" if spelling is Spelling.SIMPLE else "type")
    return msgspec.defstruct(
        f"{kind}_{spelling}",
        columns,
        rename=keys,
        tag_field=tag_field,
        tag=None if tag is None else str(tag),
        kw_only=True,
        gc=False,
    )


def _orderbook_structure(spelling: Spelling, tag: str | None = None) -> type[msgspec.Struct]:
    unit = structure("orderbook_unit", spelling)
    return structure("orderbook", spelling, tag, units=(UNITS_KEY[spelling], list[unit]))  # type: ignore[valid-type]


class StreamTypes:
    """The typed decoders of one WebSocket spelling: for a frame, for a list frame, and who builds from what."""

    def __init__(self, spelling: Spelling) -> None:
        self.builders: dict[type[msgspec.Struct], Build] = {
            structure("ticker", spelling, DataType.TICKER): ticker_builder(spelling),
            structure("trade", spelling, DataType.TRADE): trade_builder(spelling),
            _orderbook_structure(spelling, DataType.ORDERBOOK): orderbook_builder(spelling),
        } | {
            structure("candle", spelling, timeframe.data_type): candle_builder(spelling, timeframe.word)
            for timeframe in TIMEFRAMES
            if timeframe.data_type is not None
        }
        union: Any = _union(tuple(self.builders))
        self.decode_one = msgspec.json.Decoder(union).decode
        self.decode_list = msgspec.json.Decoder(list[union]).decode


def _union(types: tuple[Any, ...]) -> Any:
    union = types[0]
    for member in types[1:]:
        union = union | member
    return union


@cache
def stream_types(spelling: Spelling) -> StreamTypes:
    """Made on first use: 24 message types cost some milliseconds that an import should not."""
    return StreamTypes(spelling)


@cache
def rest_decoder(kind: str) -> Callable[[bytes], list[Any]]:
    message = _orderbook_structure(Spelling.REST) if kind == "orderbook" else structure(kind, Spelling.REST)
    return msgspec.json.Decoder(list[message]).decode  # type: ignore[valid-type]


@cache
def rest_builder(kind: str) -> Build:
    builders = {"ticker": ticker_builder, "trade": trade_builder, "orderbook": orderbook_builder}
    return builders[kind](Spelling.REST)


def rest_candle_builder(timeframe: str) -> Build:
    return candle_builder(Spelling.REST, timeframe)
