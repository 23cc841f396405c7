"""The door for REST's bytes: one answer in, a list of models out, in Upbit's order (newest first where it matters)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from ..errors import MalformedDataError, one_line
from ..exchange.timeframes import timeframe_of
from ..models.enums import DataSource
from ..models.market import CandleData, MarketInfo, OrderbookData, OrderbookInstrument, TickerData, TradeData
from .builders import Build
from .reader import read_json, shown
from .typed import REFUSALS, rest_builder, rest_candle_builder, rest_decoder
from .unifier import DataUnifier

_UNIFIER = DataUnifier()
_LONGEST_ERROR = 64 * 1024
Model = TypeVar("Model")


def decode_tickers(body: bytes, received_at: datetime | None = None) -> list[TickerData]:
    return _typed("ticker", body, received_at, rest_builder("ticker")) or _rows(
        _UNIFIER.unify_ticker_data, body, received_at
    )


def decode_trades(body: bytes, received_at: datetime | None = None) -> list[TradeData]:
    """Newest first."""
    return _typed("trade", body, received_at, rest_builder("trade")) or _rows(
        _UNIFIER.unify_trade_data, body, received_at
    )


def decode_orderbooks(body: bytes, received_at: datetime | None = None) -> list[OrderbookData]:
    return _typed("orderbook", body, received_at, rest_builder("orderbook")) or _rows(
        _UNIFIER.unify_orderbook_data, body, received_at
    )


def decode_candles(body: bytes, timeframe: str, received_at: datetime | None = None) -> list[CandleData]:
    """Newest first. `timeframe` is our word for the unit that was asked for ("1m", "1d"). Whether the newest candle is
    still forming cannot be told from the answer alone: `is_closed` is left at True."""
    return _typed("candle", body, received_at, rest_candle_builder(timeframe_of(timeframe).word)) or _rows(
        _UNIFIER.unify_candle_data, body, received_at, timeframe=timeframe
    )


def decode_markets(body: bytes, received_at: datetime | None = None) -> list[MarketInfo]:
    """All rows, with or without details. Asked too rarely to deserve typed decoders."""
    return _rows(_UNIFIER.unify_market_data, body, received_at)


def decode_instruments(body: bytes, received_at: datetime | None = None) -> list[OrderbookInstrument]:
    """Order book policies, also from the older `supported_levels` endpoint."""
    return _rows(_UNIFIER.unify_instrument_data, body, received_at)


def decode_error(body: bytes) -> tuple[str | int, str] | None:
    """Name and message of Upbit's error envelope; None when the body is anything else. Never raises."""
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
    known_name: str | int = name if isinstance(name, int) else one_line(name or "", 100)
    return known_name, one_line(error.get("message") or "")


def _typed(kind: str, body: bytes, received_at: datetime | None, build: Build) -> list[Any]:
    """What the typed decoders make of the answer; an empty list where they refuse."""
    try:
        return [build(message, received_at) for message in rest_decoder(kind)(body)]
    except REFUSALS:
        return []


def _rows(unify: Callable[..., Model], body: bytes, received_at: datetime | None, **more: Any) -> list[Model]:
    payload = read_json(body)
    if not isinstance(payload, list):
        raise MalformedDataError(f"an answer is a list, not {shown(payload)}")
    return [unify(row, DataSource.REST, received_at, place=f"[{index}].", **more) for index, row in enumerate(payload)]
