"""The door for REST's bytes: one answer in, a list of models out, in Upbit's order (newest first where it matters).

A row that cannot be read costs only itself: it is in the answer's `unread`, and the others are given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, TypeVar

from .._log import raise_if_users
from ..errors import MalformedDataError, NoTradesYetError, UpbitBackboneError, one_line
from ..exchange import endpoints
from ..exchange.timeframes import timeframe_of
from ..exchange.values import moment, utc_text
from ..models.enums import DataSource
from ..models.events import HistoryGapEvent
from ..models.market import CandleData, Instrument, MarketInfo, OrderbookData, TickerData, TradeData
from .reader import Tell, UnreadField, UnreadRow, read_json, shown
from .typed import REFUSALS, Build, rest_builder, rest_candle_builder, rest_decoder
from .unifier import DataUnifier

_UNIFIER = DataUnifier()
_LONGEST_ERROR = 64 * 1024
Model = TypeVar("Model")


class Rows(list[Model]):
    """The models of one answer, and what could not be read of it: rows that are missing among them (`unread`), and
    fields that are None in their model (`unread_fields`)."""

    __slots__ = ("unread", "unread_fields")

    def __init__(
        self,
        models: Iterable[Model] = (),
        unread: Iterable[UnreadRow] = (),
        unread_fields: Iterable[UnreadField] = (),
    ) -> None:
        super().__init__(models)
        self.unread = tuple(unread)
        self.unread_fields = tuple(unread_fields)

    def copy(self) -> Rows[Model]:
        return Rows(self, self.unread, self.unread_fields)


class UnreadablePageError(MalformedDataError):
    """A page of history came, and not one of its rows can be read; they are in `unread`."""

    def __init__(self, unread: Sequence[UnreadRow]) -> None:
        super().__init__(str(unread[0].error), field=getattr(unread[0].error, "field", None))
        self.unread = tuple(unread)


def unread_of(rows: object) -> tuple[UnreadRow, ...]:
    """What could not be read among `rows`; nothing where they are an ordinary list."""
    return rows.unread if isinstance(rows, Rows) else ()


def error_of(row: UnreadRow, symbol: str) -> UpbitBackboneError:
    """For whoever asked for this very row."""
    if not isinstance(row.error, MalformedDataError):
        return row.error
    return MalformedDataError(f"{symbol}: Upbit's answer cannot be read: {row.error}", field=row.error.field)


def decode_tickers(body: bytes, received_at: datetime | None = None) -> Rows[TickerData]:
    # Nothing from the typed decoders means refused or empty; the tolerant reader tells which, and of what is refused
    # only the rows that are broken.
    return _typed("ticker", body, received_at, rest_builder("ticker")) or _rows(
        _UNIFIER.unify_ticker_data, body, received_at
    )


def decode_trades(body: bytes, received_at: datetime | None = None) -> Rows[TradeData]:
    """Newest first."""
    return _typed("trade", body, received_at, rest_builder("trade")) or _rows(
        _UNIFIER.unify_trade_data, body, received_at
    )


def decode_orderbooks(body: bytes, received_at: datetime | None = None) -> Rows[OrderbookData]:
    return _typed("orderbook", body, received_at, rest_builder("orderbook")) or _rows(
        _UNIFIER.unify_orderbook_data, body, received_at
    )


def decode_candles(body: bytes, timeframe: str, received_at: datetime | None = None) -> Rows[CandleData]:
    """Newest first. `timeframe` is our word for the unit that was asked for ("1m", "1d"). Whether the newest candle is
    still forming cannot be told from the answer alone: `is_closed` is left at True."""
    return _typed("candle", body, received_at, rest_candle_builder(timeframe_of(timeframe).word)) or _rows(
        _UNIFIER.unify_candle_data, body, received_at, timeframe=timeframe
    )


def decode_markets(body: bytes, received_at: datetime | None = None) -> Rows[MarketInfo]:
    """All rows, with or without details. Asked too rarely to deserve typed decoders."""
    return _rows(_UNIFIER.unify_market_data, body, received_at)


def decode_instruments(body: bytes, received_at: datetime | None = None) -> Rows[Instrument]:
    """Order book policies, also from the older `supported_levels` endpoint."""
    return _rows(_UNIFIER.unify_instrument_data, body, received_at)


def _candle_decoder(word: str) -> Callable[[bytes, datetime | None], Rows[Any]]:
    return lambda body, received_at: decode_candles(body, word, received_at)


_DECODERS: Final[Mapping[endpoints.Endpoint, Callable[[bytes, datetime | None], Rows[Any]]]] = MappingProxyType(
    {
        endpoints.MARKETS: decode_markets,
        endpoints.TICKERS: decode_tickers,
        endpoints.TICKERS_OF_QUOTES: decode_tickers,
        endpoints.ORDERBOOKS: decode_orderbooks,
        endpoints.INSTRUMENTS: decode_instruments,
        endpoints.TRADES: decode_trades,
        **{endpoint: _candle_decoder(word) for word, endpoint in endpoints.CANDLES.items()},
    }
)


def decode_answer(call: endpoints.RestCall, body: bytes, received_at: datetime | None = None) -> Rows[Any]:
    """The models that the answer to `call` holds, in Upbit's order."""
    return _DECODERS[call.endpoint](body, received_at)


def decode_error(body: bytes) -> tuple[str | int, str] | None:
    """Name and message of Upbit's error envelope; None when the body is anything else. Never raises."""
    # An error page of a proxy in front of Upbit can be of any size, and is no envelope.
    if len(body) > _LONGEST_ERROR:
        return None
    try:
        payload = read_json(body)
    except MalformedDataError:
        return None
    error = payload.get("error") if isinstance(payload, dict) else None
    if not isinstance(error, dict):
        return None
    name = error.get("name")
    # Upbit writes the status as a number, or a word: both are names.
    known_name: str | int = name if isinstance(name, int) else one_line(name or "", 100)
    return known_name, one_line(error.get("message") or "")


def _typed(kind: str, body: bytes, received_at: datetime | None, build: Build) -> Rows[Any]:
    """What the typed decoders make of the answer; nothing where they refuse."""
    try:
        return Rows(build(message, received_at) for message in rest_decoder(kind)(body))
    # One odd row refuses the whole answer here. That is rare, and the price of one pass in C for all others.
    except REFUSALS as refusal:
        raise_if_users(refusal)
        return Rows()


def _rows(unify: Callable[..., Model], body: bytes, received_at: datetime | None, **more: Any) -> Rows[Model]:
    payload = read_json(body)
    if not isinstance(payload, list):
        raise MalformedDataError(f"an answer is a list, not {shown(payload)}")
    models: list[Model] = []
    unread: list[UnreadRow] = []
    fields: list[UnreadField] = []
    tell: Tell = fields.append  # type: ignore[assignment]  # of single rows only fields are told
    for index, row in enumerate(payload):
        try:
            if not isinstance(row, dict):  # a list of lists would pass for a list of candles
                raise MalformedDataError(f"[{index}] is not an object", field=f"[{index}]")
            models.append(unify(row, DataSource.REST, received_at, place=f"[{index}].", tell=tell, **more))
        except (MalformedDataError, NoTradesYetError) as error:
            unread.append(UnreadRow(None, _symbol_in(row), index, error, row, _time_in(row)))
    return Rows(models, unread, fields)


def _time_in(row: object) -> datetime | None:
    """When a candle starts, or a trade happened, in a row that cannot be read otherwise."""
    if not isinstance(row, dict):
        return None
    try:
        # Of candles the start, which tells what is missing; `timestamp` is their last trade there.
        start = row.get("candle_date_time_utc")
        return moment(row.get("timestamp")) if start is None else utc_text(start)
    except (ValueError, ArithmeticError):
        return None


def _symbol_in(row: object) -> str | None:
    code = row.get("market") if isinstance(row, dict) else None
    return code if isinstance(code, str) else None


# Rows of history that came and cannot be read: holes that are told, never a silently shorter answer.


def rows_of(error: UnreadablePageError) -> Rows[Model]:
    """The page that `error` is about: nothing but holes. Raises it where they do not even tell when they are."""
    # A hole without a time cannot be told nor asked for again.
    if any(row.at is None for row in error.unread):
        raise error
    return Rows((), error.unread)


def holes_in(rows: Sequence[object]) -> list[datetime]:
    """When the unreadable ones among `rows` are, oldest first, as far as they tell."""
    return sorted({row.at for row in unread_of(rows) if row.at is not None})


def history_gap(symbol: str, kind: str, unread: Sequence[UnreadRow], now: datetime) -> HistoryGapEvent:
    """The event for the unreadable rows of one page; `kind` is "trade" or our word for the timeframe."""
    times = sorted(row.at for row in unread if row.at is not None)
    return HistoryGapEvent(
        at=now,
        symbol=symbol,
        kind=kind,
        count=len(unread),
        first=times[0] if times else None,
        last=times[-1] if times else None,
        reason=one_line(unread[0].error),
    )


def nothing_left(symbol: str, unread: Sequence[UnreadRow]) -> MalformedDataError:
    """The error where all that was asked for cannot be read."""
    return MalformedDataError(f"{symbol}: nothing of Upbit's answer can be read: {unread[0].error}")
