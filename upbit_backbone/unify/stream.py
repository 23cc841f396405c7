"""The door for the WebSocket's bytes: one frame in, models and notices out.

Frames of the usual shape take the typed decoders; whatever those refuse (old spellings, quoted numbers, status and
error objects, unknown types) is read again tolerantly, which costs more and decides. Only MalformedDataError and
NoTradesYetError ever leave this module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from .._log import raise_if_users
from ..errors import MalformedDataError, NoTradesYetError, one_line
from ..exchange.fields import Spelling
from ..models.enums import DataSource, DataType
from ..models.market import CandleData, OrderbookData, TickerData, TradeData
from ..models.number import ZERO, plain
from ..models.session import Notice, StreamError, SubscriptionList, UnknownMessage, UpStatus
from .halves import HalfBooks, HalfTickers, HalfTrades
from .reader import Tell, UnreadRow, read_json, shown, tell_nobody
from .typed import REFUSALS, stream_types
from .unifier import DataUnifier

# What can be told of an order book frame without decoding it: enough to know where it belongs and whether it is
# newer.
#
# Only the shape Upbit sends today is recognised (type, market code and timestamp first, level or stream type last);
# anything else is for the decoder, which knows them all.

_BOOK_HEAD = re.compile(
    rb'\{"(?:ty":"orderbook","cd|type":"orderbook","code)":"([A-Z0-9]{2,10}-[A-Z0-9]{1,20})","(?:tms|timestamp)":(\d{13}),'
)
_BOOK_TAIL = re.compile(
    rb'\],"(?:st|stream_type)":"[A-Z]{1,12}"(?:,"(?:lv|level)":([0-9]{1,12}(?:\.[0-9]{1,8})?))?\}\Z'
)
_BOOK_TAIL_BYTES = 80
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class BookHeader(NamedTuple):
    """What a book frame says about itself at its two ends."""

    symbol: str
    timestamp: datetime
    level: Decimal


@lru_cache(maxsize=256)
def _level(text: bytes) -> Decimal:
    return plain(Decimal(text.decode("ascii")))


def book_header(raw: bytes) -> BookHeader | None:
    """Market, exchange time and level of a single book frame; None where the frame is not of the usual shape."""
    head = _BOOK_HEAD.match(raw)
    if head is None:
        return None
    tail = _BOOK_TAIL.search(raw, max(0, len(raw) - _BOOK_TAIL_BYTES))
    if tail is None:
        return None
    level = tail[1]
    # timedelta takes whole milliseconds exactly; fromtimestamp would go through float.
    timestamp = _EPOCH + timedelta(milliseconds=int(head[2]))
    return BookHeader(head[1].decode("ascii"), timestamp, ZERO if level is None else _level(level))


StreamItem = TickerData | TradeData | OrderbookData | CandleData | Notice

_HEAD = re.compile(rb'\{"(?:ty|type)":"([a-z0-9.]{1,16})","(?:cd|code)":"([!#-\[\]-~]{1,40})"')
_DATA_TYPES = {data_type.value.encode(): data_type for data_type in DataType}
_WORDS = frozenset(data_type.value for data_type in DataType)

# The first bytes of a frame with one object.
HEAD_BYTES = 12
BOOK_HEADS = frozenset(head[:HEAD_BYTES] for head in (b'{"ty":"orderbook"', b'{"type":"orderbook"'))
TICKER_HEADS = {b'{"ty":"ticker"'[:HEAD_BYTES]: Spelling.SIMPLE, b'{"type":"ticker"'[:HEAD_BYTES]: Spelling.DEFAULT}
TRADE_HEADS = {b'{"ty":"trade"'[:HEAD_BYTES]: Spelling.SIMPLE, b'{"type":"trade"'[:HEAD_BYTES]: Spelling.DEFAULT}
HALF_HEADS = TICKER_HEADS.keys() | TRADE_HEADS.keys()

# Frames of 2018 have no type; these keys give it away.
_TELLTALES: Mapping[str, frozenset[str]] = {
    DataType.ORDERBOOK: frozenset({"orderbook_units", "obu"}),
    DataType.TRADE: frozenset({"sequential_id", "sid"}),
    DataType.TICKER: frozenset({"acc_trade_price_24h", "atp24h"}),
}


def peek(raw: bytes) -> tuple[DataType, str] | None:
    """Type and market code of a frame with one object, without decoding it; None where they are not at its head."""
    head = _HEAD.match(raw)
    if head is None:
        return None
    data_type = _DATA_TYPES.get(head[1])
    return None if data_type is None else (data_type, head[2].decode("ascii"))


class StreamDecoder:
    """Decodes frames of any format, told apart by themselves. Stateless, safe from any thread."""

    def __init__(self, source: DataSource = DataSource.WEBSOCKET) -> None:
        self._unifier = DataUnifier()
        self._source = source
        # By the first bytes of a frame.
        self._simple = stream_types(Spelling.SIMPLE, source)
        self._default = stream_types(Spelling.DEFAULT, source)
        self._half_books: dict[Spelling, HalfBooks] = {}  # made when the first is read

    def decode(self, raw: bytes, received_at: datetime, tell: Tell = tell_nobody) -> list[StreamItem]:
        """The items of one frame, in its order. What could not be read is told to `tell`: fields, and in a list of
        several whole elements. Raises MalformedDataError or NoTradesYetError where nothing is left."""
        try:
            if raw.startswith(b"["):
                types = self._simple if raw.startswith(b'[{"ty"') else self._default
                builders = types.builders
                return [builders[type(message)](message, received_at) for message in types.decode_list(raw)]
            types = self._simple if raw.startswith(b'{"ty"') else self._default
            message = types.decode_one(raw)
            return [types.builders[type(message)](message, received_at)]
        except REFUSALS as refusal:
            raise_if_users(refusal)
            return self._decode_tolerantly(raw, received_at, tell)

    def half_book(self, raw: bytes, received_at: datetime) -> OrderbookData | None:
        """The order book of a frame, its levels to be made when they are looked at; None where `decode` must tell."""
        spelling = Spelling.SIMPLE if raw.startswith(b'{"ty"') else Spelling.DEFAULT
        if (books := self._half_books.get(spelling)) is None:
            books = self._half_books[spelling] = HalfBooks(spelling, self._source, self._only)
        return books.read(raw, received_at)

    def halves(self, head: bytes) -> HalfTickers | HalfTrades:
        """Who reads frames of one object by half that begin with `head`, one of HALF_HEADS; the rest is made when it is
        looked at. What is not taken `decode` must judge."""
        if head in TICKER_HEADS:
            return HalfTickers(TICKER_HEADS[head], self._source, self._only)
        return HalfTrades(TRADE_HEADS[head], self._source, self._only)

    def _only(self, raw: bytes) -> Any:
        (item,) = self.decode(raw, _EPOCH)
        return item

    def _decode_tolerantly(self, raw: bytes, received_at: datetime, tell: Tell = tell_nobody) -> list[StreamItem]:
        payload = read_json(raw)
        if not isinstance(payload, list):
            return [self._item(payload, received_at, "", tell)]
        items: list[StreamItem] = []
        unread: list[UnreadRow] = []
        for index, element in enumerate(payload):
            try:
                items.append(self._item(element, received_at, f"[{index}].", tell))
            except (MalformedDataError, NoTradesYetError) as error:
                unread.append(UnreadRow(*_type_and_code(element), index, error, element))
        if unread and not items:
            raise unread[0].error
        for row in unread:
            tell(row)
        return items

    def _item(self, message: Any, received_at: datetime, place: str, tell: Tell) -> StreamItem:
        if not isinstance(message, dict):
            raise MalformedDataError(
                f"a stream message is an object, not {shown(message)}", field=place.rstrip(".") or None
            )
        notice = _notice(message)
        if notice is not None:
            return notice
        kind = _kind(message)
        read = self._reader(kind)
        if read is None:
            return UnknownMessage(one_line(kind, 60))
        return read(message, self._source, received_at, place=place, tell=tell)

    def _reader(self, kind: str) -> Callable[..., StreamItem] | None:
        if kind == DataType.TICKER:
            return self._unifier.unify_ticker_data
        if kind == DataType.TRADE:
            return self._unifier.unify_trade_data
        if kind == DataType.ORDERBOOK:
            return self._unifier.unify_orderbook_data
        return self._unifier.unify_candle_data if kind in _WORDS else None


def type_and_code(raw: bytes) -> tuple[str | None, str | None]:
    """What a refused frame of one object says it is about: type and market code, as far as they can be read."""
    try:
        return _type_and_code(read_json(raw))
    except MalformedDataError:
        return None, None


def _type_and_code(message: object) -> tuple[str | None, str | None]:
    if not isinstance(message, dict):
        return None, None
    kind, code = message.get("type", message.get("ty")), message.get("code", message.get("cd"))
    return kind if isinstance(kind, str) else None, code if isinstance(code, str) else None


def _kind(message: dict[str, Any]) -> str:
    kind = message.get("type", message.get("ty"))
    if isinstance(kind, str):
        return kind
    for data_type, keys in _TELLTALES.items():
        if kind is None and not keys.isdisjoint(message):
            return data_type
    raise MalformedDataError("a stream message without a type", field="type")


def _notice(message: dict[str, Any]) -> Notice | None:
    if "error" in message:
        return _stream_error(message["error"])
    method = message.get("method", message.get("mthd"))
    if method is not None:
        return _subscription_list(message) if method == "LIST_SUBSCRIPTIONS" else UnknownMessage(one_line(method, 60))
    if "status" in message and "type" not in message and "ty" not in message:
        return UpStatus() if message["status"] == "UP" else UnknownMessage(one_line(message["status"], 60))
    return None


def _stream_error(error: object) -> StreamError:
    if isinstance(error, dict):
        return StreamError(one_line(error.get("name", "")), one_line(error.get("message", "")))
    return StreamError("", one_line(error))


def _subscription_list(message: dict[str, Any]) -> SubscriptionList:
    entries = message.get("result", message.get("rslt"))
    if not isinstance(entries, list):
        raise MalformedDataError("list of subscriptions: result is not a list", field="result")
    ticket = message.get("ticket", message.get("tckt"))
    return SubscriptionList(
        tuple(_subscription(entry, f"result[{index}]") for index, entry in enumerate(entries)),
        None if ticket is None else one_line(ticket),
    )


def _subscription(entry: object, place: str) -> tuple[str, tuple[str, ...], str | None]:
    if not isinstance(entry, dict):
        raise MalformedDataError(f"list of subscriptions: {place} is not an object", field=place)
    kind = entry.get("type", entry.get("ty"))
    codes = entry.get("codes", entry.get("cds")) or []
    level = entry.get("level", entry.get("lv"))
    if not isinstance(kind, str) or not isinstance(codes, list):
        raise MalformedDataError(f"list of subscriptions: {place} has no type or no codes", field=place)
    return one_line(kind, 60), tuple(one_line(code, 60) for code in codes), None if level is None else str(level)
