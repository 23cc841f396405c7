"""The way back: models as Upbit spells them, from the same table that reads them. Pure.

What a reader makes of it equals what was handed in, but for what is ours (when it came, whence, whether it is closed).
Names that older programs read beside those of the table (`change_price`, dates in parts, Korean time) are there, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from datetime import datetime
from decimal import Decimal
from functools import cache
from itertools import zip_longest
from operator import attrgetter
from typing import Any, Final

import msgspec

from ..exchange.fields import FIELD_TABLE, HELPER, UNITS_KEY, Field, Spelling
from ..exchange.timeframes import timeframe_of
from ..exchange.values import DAY, MOMENT, UTC_TEXT
from ..models.enums import Change, StreamType
from ..models.market import CandleData, OrderbookData, OrderbookUnit, TickerData, TradeData
from ..models.number import ZERO
from ..models.readable import KST

MarketItem = TickerData | TradeData | OrderbookData | CandleData

# As numbers and not as texts, digit by digit. What msgspec does not know is a Decimal that prints plainly when small.
_ENCODE: Final = msgspec.json.Encoder(decimal_format="number", enc_hook=Decimal).encode
_KINDS: Final[dict[type[Any], str]] = {
    TickerData: "ticker",
    TradeData: "trade",
    OrderbookData: "orderbook",
    CandleData: "candle",
}
_NAMES: Final = {kind: {field.name for field in fields(model)} for model, kind in _KINDS.items()}


def encode_frame(item: MarketItem, spelling: Spelling = Spelling.DEFAULT) -> bytes:
    """One frame of the WebSocket, DEFAULT or SIMPLE."""
    return _ENCODE(_trade_frame(item, spelling) if type(item) is TradeData else _message(item, spelling))


def encode_list(items: Iterable[MarketItem], spelling: Spelling = Spelling.REST) -> bytes:
    """An answer of REST's, or a frame of the LIST formats."""
    return _ENCODE([_message(item, spelling) for item in items])


def type_of(item: MarketItem) -> str:
    """The word for what it is on the stream: "trade", "candle.1m"; of a unit Upbit does not stream, ours."""
    if isinstance(item, CandleData):
        return str(timeframe_of(item.timeframe).data_type or f"candle.{item.timeframe}")
    return _KINDS[type(item)]


def _message(item: MarketItem, spelling: Spelling) -> dict[str, Any]:
    message: dict[str, Any] = {}
    if spelling is not Spelling.REST:
        message["ty" if spelling is Spelling.SIMPLE else "type"] = type_of(item)
    keys, plain_values, readers = _plan(_KINDS[type(item)], spelling)
    for key, value, read in zip(keys, plain_values(item), readers, strict=True):
        if read is not None:
            if read is _stream_type:  # REST has none
                _add_beside(item, spelling, message)
            value = read(item)
        if value is not None:
            message[key] = value
    if spelling is Spelling.REST:
        _add_beside(item, spelling, message)
    return message


Reader = Callable[[Any], Any]


def _trade_frame(trade: TradeData, spelling: Spelling) -> msgspec.Struct:
    """As `_message`, in half of its time: a relay writes thousands a second."""
    make, plain_values, computed = _trade_plan(spelling)
    values = list(plain_values(trade))
    for place, read in computed:
        values[place] = read(trade)
    amount, stream_type = trade.change_amount, values.pop()
    if amount is None:
        return make(*values, None, None, stream_type)
    return make(*values, abs(amount), _direction(trade), stream_type)


@cache
def _trade_plan(
    spelling: Spelling,
) -> tuple[Callable[..., msgspec.Struct], Callable[[Any], tuple[Any, ...]], tuple[tuple[int, Reader], ...]]:
    """What leaves out what is None, the values that are written as they are, and by their places those that are not."""
    keys, plain_values, readers = _plan("trade", spelling)
    is_simple = spelling is Spelling.SIMPLE
    names = [*keys[:-1], *(("cp", "c") if is_simple else ("change_price", "change")), keys[-1]]
    frame = msgspec.defstruct(
        "Frame",
        [(name, Any, None) for name in names],
        tag_field="ty" if is_simple else "type",
        tag="trade",
        omit_defaults=True,
    )
    computed = tuple((place, read) for place, read in enumerate(readers) if read is not None)
    return frame, plain_values, computed


@cache
def _plan(
    kind: str, spelling: Spelling
) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]], tuple[Reader | None, ...]]:
    """Under which keys to write what, in order; worked out once, because a relay writes thousands a second.

    The values that are written as they are come all at once, by one call in C; the others have a reader each.
    """
    # Whoever looks at the first bytes of a frame finds the market there, and of a book the time.
    rows = sorted(FIELD_TABLE[kind], key=lambda row: _rank(kind, row))
    plan: dict[str, tuple[str, Reader | None]] = {}
    for row in rows:
        key = row.spelled(spelling)
        if key is None or row.use is HELPER or key in plan:
            continue
        read = _reader(row)
        if read is None and row.name in _NAMES[kind]:
            plan[key] = row.name, None
        elif read is not None:
            plan[key] = "symbol", read
    names, readers = zip(*plan.values(), strict=True)
    return tuple(plan), attrgetter(*names), readers


def _rank(kind: str, row: Field) -> int:
    if row.name == "symbol":
        return 0
    if kind == "orderbook" and row.name in ("timestamp", "level"):
        return 1 if row.name == "timestamp" else 4
    return 3 if row.name == "stream_type" else 2


def _reader(row: Field) -> Reader | None:
    """What reads the value of one field off an item, and gives None where there is nothing to write; None for a field
    that is written as it is."""
    if row.name == "stream_type":
        return _stream_type
    read = _FALLBACKS.get(row.name)
    write = _WRITERS.get(row.how)
    if write is None:
        return read

    def read_and_write(item: Any) -> Any:
        value = getattr(item, row.name, None) if read is None else read(item)
        return None if value is None else write(value)

    return read_and_write


def _stream_type(item: Any) -> StreamType:
    return item.stream_type or StreamType.REALTIME  # what REST brought was streamed all the same


def to_stamp(moment: datetime) -> int:
    """Milliseconds since 1970, as Upbit writes them; microseconds where there is more to say, which it does as well."""
    microseconds = round(moment.timestamp() * 1e6)  # exact: it has fewer digits than a float until the year 2255
    return microseconds if microseconds % 1000 else microseconds // 1000


def _absolute(name: str) -> Callable[[Any], Any]:
    def read(item: Any) -> Any:
        value = getattr(item, name, None)
        return None if value is None else abs(value)

    return read


# Of date and time apart: a third of what `strftime` takes, and a relay writes two of each trade.
def _trade_date(item: Any) -> str:
    if isinstance(item, TickerData):
        return (item.trade_timestamp or item.timestamp).date().isoformat().replace("-", "")
    return str(item.timestamp.date().isoformat())


def _trade_time(item: Any) -> str:
    if isinstance(item, TickerData):
        return (item.trade_timestamp or item.timestamp).time().isoformat("seconds").replace(":", "")
    return str(item.timestamp.time().isoformat("seconds"))


_WRITERS: Final[dict[Any, Callable[[Any], Any]]] = {
    MOMENT: to_stamp,
    UTC_TEXT: lambda moment: moment.isoformat()[:19],
    DAY: lambda day: day.isoformat(),
}
# What is worked out of other fields, where the model has it under no name of its own.
_FALLBACKS: Final[dict[str, Callable[[Any], Any]]] = {
    "absolute_change_amount": _absolute("change_amount"),
    "absolute_change_rate": _absolute("change_rate"),
    "trade_date": _trade_date,
    "trade_time": _trade_time,
}


def _add_beside(item: MarketItem, spelling: Spelling, message: dict[str, Any]) -> None:
    """What the table does not have as one field of the model: units, the direction of a change, Korean time."""
    is_simple = spelling is Spelling.SIMPLE
    if isinstance(item, OrderbookData):
        names = [row.spelled(spelling) for row in FIELD_TABLE["orderbook_unit"]]
        message[UNITS_KEY[spelling]] = [dict(zip(names, numbers, strict=True)) for numbers in _units(item)]
    elif isinstance(item, TradeData) and spelling is not Spelling.REST and item.change_amount is not None:
        message["cp" if is_simple else "change_price"] = abs(item.change_amount)
        message["c" if is_simple else "change"] = _direction(item)
    elif isinstance(item, CandleData):
        kst = item.timestamp.astimezone(KST).isoformat()[:19]
        message["cdttmk" if is_simple else "candle_date_time_kst"] = kst
        unit = timeframe_of(item.timeframe)
        if spelling is Spelling.REST and unit.rest_path.startswith("minutes/"):
            message["unit"] = int(unit.rest_path.partition("/")[2])


def _direction(trade: TradeData) -> Change:
    amount = trade.change_amount or ZERO
    return Change.FALL if amount < 0 else Change.RISE if amount else Change.EVEN


_PADDING: Final = OrderbookUnit(ZERO, ZERO)


def _units(book: OrderbookData) -> Iterator[tuple[Any, ...]]:
    # Upbit pads the shorter side of a book with zeros.
    for ask, bid in zip_longest(book.asks, book.bids, fillvalue=_PADDING):
        yield ask.price, ask.size, bid.price, bid.size
