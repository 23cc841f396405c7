"""From typed messages to models: one builder for each kind, the same for every spelling.

A builder refuses what it does not fully understand; the tolerant reader then has the last word.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any

from ..models.market import CandleData, OrderbookData, TickerData, TradeData
from .fields import Spelling
from .mould import Mould, RefusedError, levels_of, unpadded
from .values import PAST_INT64, ZERO, are_sane, to_moment, to_signed, to_symbol, to_utc

Build = Callable[[Any, datetime | None], Any]


def ticker_builder(spelling: Spelling) -> Build:
    mould = Mould("ticker", spelling, TickerData, ("symbol", "timestamp", "trade_timestamp"))
    make, plain, constants, check = mould.make, mould.plain, mould.constants, mould.check

    def build(message: Any, received_at: datetime | None) -> Any:
        check(message)
        return make(
            to_symbol(message.symbol),
            to_moment(message.timestamp),
            to_moment(message.trade_timestamp),
            received_at,
            *plain(message),
            *constants,
        )

    return build


def trade_builder(spelling: Spelling) -> Build:
    is_rest = spelling is Spelling.REST
    computed = ("symbol", "timestamp") if is_rest else ("symbol", "timestamp", "published_at", "change_amount")
    mould = Mould("trade", spelling, TradeData, computed)
    make, plain, constants, check = mould.make, mould.plain, mould.constants, mould.check

    def build(message: Any, received_at: datetime | None) -> Any:
        check(message)
        if message.sequential_id is not None and not 0 <= message.sequential_id < PAST_INT64:
            raise RefusedError
        moments: tuple[Any, ...] = (to_symbol(message.symbol), to_moment(message.timestamp))
        if not is_rest:
            published = None if message.published_at is None else to_moment(message.published_at)
            moments += (published, to_signed(message.absolute_change_amount, message.change))
        return make(*moments, received_at, *plain(message), *constants)

    return build


def candle_builder(spelling: Spelling, timeframe: str) -> Build:
    mould = _candle_mould(spelling)
    make, plain, constants, check = mould.make, mould.plain, mould.constants, mould.check

    def build(message: Any, received_at: datetime | None) -> Any:
        check(message)
        last = message.last_trade_at
        return make(
            to_symbol(message.symbol),
            to_utc(message.timestamp),
            None if last is None else to_moment(last),
            timeframe,
            received_at,
            *plain(message),
            *constants,
        )

    return build


@cache
def _candle_mould(spelling: Spelling) -> Mould:
    return Mould("candle", spelling, CandleData, ("symbol", "timestamp", "last_trade_at", "timeframe"))


def orderbook_builder(spelling: Spelling) -> Build:
    mould = Mould("orderbook", spelling, OrderbookData, ("symbol", "timestamp", "level", "asks", "bids"))
    make, plain, constants = mould.make, mould.plain, mould.constants

    def build(message: Any, received_at: datetime | None) -> Any:
        units = message.units
        ask_prices = [unit.ask_price for unit in units]
        ask_sizes = [unit.ask_size for unit in units]
        bid_prices = [unit.bid_price for unit in units]
        bid_sizes = [unit.bid_size for unit in units]
        level = message.level or ZERO
        amounts = [*ask_prices, *ask_sizes, *bid_prices, *bid_sizes, message.total_ask_size, message.total_bid_size]
        smallest = min(amounts)
        if smallest < ZERO or level < ZERO or not are_sane([level, *amounts]):
            raise RefusedError
        if not smallest:
            ask_prices, ask_sizes = unpadded(ask_prices, ask_sizes)
            bid_prices, bid_sizes = unpadded(bid_prices, bid_sizes)
        return make(
            to_symbol(message.symbol),
            to_moment(message.timestamp),
            level,
            levels_of(ask_prices, ask_sizes),
            levels_of(bid_prices, bid_sizes),
            received_at,
            *plain(message),
            *constants,
        )

    return build
