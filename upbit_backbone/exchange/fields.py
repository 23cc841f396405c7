"""Upbit's three spellings side by side: the one table behind every decoder, and `FIELD_MAPPING` made from it.

REST and WebSocket DEFAULT write full names, SIMPLE abbreviates. None means that this channel does not send the
field. Where a name is the same but means something else, the table has two rows: `change_price` is signed in REST
trades and day candles but absolute on the WebSocket, next to the direction in `change`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from .values import (
    AMOUNT,
    AMOUNTS,
    CHANGE,
    DAY,
    FLAG,
    MOMENT,
    RAISED_FLAGS,
    SIDE,
    SIGNED,
    STREAM_TYPE,
    SYMBOL,
    TEXT,
    UTC_TEXT,
    WHOLE,
    Conversion,
)

# A trade is its market and its `sequential_id`: unique within the market, 16 or 17 digits, and *not* ordered; the same
# id does occur on two markets (113 of 831 ids of one recording). A candle is its market, unit and start: a later
# message about the same start corrects the earlier one. A ticker or an order book is state: the newer by Upbit's time
# counts.
# Trades of one market overtake each other by this much at most, on the stream and in REST lists alike.
SHUFFLE: Final = timedelta(seconds=2)


class Spelling(StrEnum):
    REST = "rest"
    DEFAULT = "default"
    SIMPLE = "simple"


class Use(StrEnum):
    """What a row is for. Only REQUIRED is needed to know what, when and how much: nothing else costs its message."""

    OPTIONAL = "optional"  # a field of the model, None when missing or unreadable
    REQUIRED = "required"  # a field of the model; without it the message is malformed
    DERIVABLE = "derivable"  # a field of the model that can be worked out from helpers when missing
    HELPER = "helper"  # no field of the model; read wherever another field needs it
    FALLBACK = "fallback"  # no field of the model; read only when a derivable field is missing


OPTIONAL, REQUIRED, DERIVABLE, HELPER, FALLBACK = Use


class Field(NamedTuple):
    """One row: the model's field, how it is read, and its name on each channel. `old` are names of years ago."""

    name: str
    how: Conversion
    rest: str | None
    default: str | None
    simple: str | None
    use: Use = OPTIONAL
    old: tuple[str, ...] = ()

    def spelled(self, spelling: Spelling) -> str | None:
        if spelling is Spelling.REST:
            return self.rest
        return self.default if spelling is Spelling.DEFAULT else self.simple


CODE = Field("symbol", SYMBOL, "market", "code", "cd", REQUIRED, old=("market", "mk"))
LISTED = Field("symbol", SYMBOL, "market", None, None, REQUIRED)  # of what only REST tells
STREAM = Field("stream_type", STREAM_TYPE, None, "stream_type", "st")

# Tickers and trades in the order in which the stream sends them: the typed decoder finds a field at once where it comes
# next, and looks through all of them where it does not.
# fmt: off
FIELD_TABLE: Mapping[str, tuple[Field, ...]] = {
    "ticker": (
        CODE,
        Field("opening_price", AMOUNT, "opening_price", "opening_price", "op"),
        Field("high_24h", AMOUNT, "high_price", "high_price", "hp"),
        Field("low_24h", AMOUNT, "low_price", "low_price", "lp"),
        Field("current_price", AMOUNT, "trade_price", "trade_price", "tp", REQUIRED),
        Field("prev_closing_price", AMOUNT, "prev_closing_price", "prev_closing_price", "pcp"),
        Field("traded_value_today", AMOUNT, "acc_trade_price", "acc_trade_price", "atp"),
        Field("change", CHANGE, "change", "change", "c"),
        Field("absolute_change_amount", AMOUNT, "change_price", "change_price", "cp", FALLBACK),
        Field("change_amount", SIGNED, "signed_change_price", "signed_change_price", "scp", DERIVABLE),
        Field("absolute_change_rate", AMOUNT, "change_rate", "change_rate", "cr", FALLBACK),
        Field("change_rate", SIGNED, "signed_change_rate", "signed_change_rate", "scr", DERIVABLE),
        Field("last_trade_side", SIDE, None, "ask_bid", "ab"),
        Field("last_trade_volume", AMOUNT, "trade_volume", "trade_volume", "tv"),
        Field("volume_today", AMOUNT, "acc_trade_volume", "acc_trade_volume", "atv"),
        Field("trade_date", TEXT, "trade_date", "trade_date", "tdt", FALLBACK),
        Field("trade_time", TEXT, "trade_time", "trade_time", "ttm", FALLBACK),
        Field("trade_timestamp", MOMENT, "trade_timestamp", "trade_timestamp", "ttms", DERIVABLE),
        Field("ask_volume_today", AMOUNT, None, "acc_ask_volume", "aav"),
        Field("bid_volume_today", AMOUNT, None, "acc_bid_volume", "abv"),
        Field("highest_52_week_price", AMOUNT, "highest_52_week_price", "highest_52_week_price", "h52wp"),
        Field("highest_52_week_date", DAY, "highest_52_week_date", "highest_52_week_date", "h52wdt"),
        Field("lowest_52_week_price", AMOUNT, "lowest_52_week_price", "lowest_52_week_price", "l52wp"),
        Field("lowest_52_week_date", DAY, "lowest_52_week_date", "lowest_52_week_date", "l52wdt"),
        Field("market_state", TEXT, None, "market_state", "ms"),
        Field("is_trading_suspended", FLAG, None, "is_trading_suspended", "its"),
        Field("delisting_date", DAY, None, "delisting_date", "dd"),
        Field("market_warning", TEXT, None, "market_warning", "mw"),
        Field("timestamp", MOMENT, "timestamp", "timestamp", "tms", REQUIRED),
        Field("traded_value_24h", AMOUNT, "acc_trade_price_24h", "acc_trade_price_24h", "atp24h"),
        Field("volume_24h", AMOUNT, "acc_trade_volume_24h", "acc_trade_volume_24h", "atv24h"),
        STREAM,
    ),
    "trade": (
        CODE,
        Field("published_at", MOMENT, None, "timestamp", "tms"),
        Field("trade_date", TEXT, "trade_date_utc", "trade_date", "td", FALLBACK),
        Field("trade_time", TEXT, "trade_time_utc", "trade_time", "ttm", FALLBACK),
        Field("timestamp", MOMENT, "timestamp", "trade_timestamp", "ttms", DERIVABLE),
        Field("price", AMOUNT, "trade_price", "trade_price", "tp", REQUIRED),
        Field("volume", AMOUNT, "trade_volume", "trade_volume", "tv", REQUIRED),
        Field("side", SIDE, "ask_bid", "ask_bid", "ab"),
        Field("prev_closing_price", AMOUNT, "prev_closing_price", "prev_closing_price", "pcp"),
        Field("change", CHANGE, None, "change", "c", HELPER),
        Field("absolute_change_amount", AMOUNT, None, "change_price", "cp", HELPER),
        Field("sequential_id", WHOLE, "sequential_id", "sequential_id", "sid"),
        Field("best_ask_price", AMOUNT, None, "best_ask_price", "bap"),
        Field("best_ask_size", AMOUNT, None, "best_ask_size", "bas"),
        Field("best_bid_price", AMOUNT, None, "best_bid_price", "bbp"),
        Field("best_bid_size", AMOUNT, None, "best_bid_size", "bbs"),
        Field("change_amount", SIGNED, "change_price", None, None),
        STREAM,
    ),
    "orderbook": (
        CODE,
        Field("total_ask_size", AMOUNT, "total_ask_size", "total_ask_size", "tas"),
        Field("total_bid_size", AMOUNT, "total_bid_size", "total_bid_size", "tbs"),
        Field("timestamp", MOMENT, "timestamp", "timestamp", "tms", REQUIRED),
        Field("level", AMOUNT, "level", "level", "lv"),
        STREAM,
    ),
    "orderbook_unit": (
        Field("ask_price", AMOUNT, "ask_price", "ask_price", "ap", REQUIRED),
        Field("ask_size", AMOUNT, "ask_size", "ask_size", "as", REQUIRED),
        Field("bid_price", AMOUNT, "bid_price", "bid_price", "bp", REQUIRED),
        Field("bid_size", AMOUNT, "bid_size", "bid_size", "bs", REQUIRED),
    ),
    "candle": (
        CODE,
        Field("open_price", AMOUNT, "opening_price", "opening_price", "op", REQUIRED),
        Field("high_price", AMOUNT, "high_price", "high_price", "hp", REQUIRED),
        Field("low_price", AMOUNT, "low_price", "low_price", "lp", REQUIRED),
        Field("close_price", AMOUNT, "trade_price", "trade_price", "tp", REQUIRED),
        Field("volume", AMOUNT, "candle_acc_trade_volume", "candle_acc_trade_volume", "catv", REQUIRED),
        Field("timestamp", UTC_TEXT, "candle_date_time_utc", "candle_date_time_utc", "cdttmu", REQUIRED),
        Field("traded_value", AMOUNT, "candle_acc_trade_price", "candle_acc_trade_price", "catp"),
        Field("last_trade_at", MOMENT, "timestamp", "timestamp", "tms"),
        Field("prev_closing_price", AMOUNT, "prev_closing_price", None, None),
        Field("change_amount", SIGNED, "change_price", None, None),
        Field("change_rate", SIGNED, "change_rate", None, None),
        Field("converted_close_price", AMOUNT, "converted_trade_price", None, None),
        Field("first_day_of_period", DAY, "first_day_of_period", None, None),
        STREAM,
    ),
    "instrument": (
        LISTED,
        Field("quote_currency", TEXT, "quote_currency", None, None),
        Field("tick_size", AMOUNT, "tick_size", None, None),
        Field("supported_levels", AMOUNTS, "supported_levels", None, None),
    ),
    "market": (
        LISTED,
        Field("korean_name", TEXT, "korean_name", None, None),
        Field("english_name", TEXT, "english_name", None, None),
        Field("warning", FLAG, "market_event.warning", None, None, DERIVABLE),
        Field("cautions", RAISED_FLAGS, "market_event.caution", None, None),
        Field("market_warning", TEXT, "market_warning", None, None),
    ),
}
# fmt: on

UNITS_KEY: Mapping[Spelling, str] = {
    Spelling.REST: "orderbook_units",
    Spelling.DEFAULT: "orderbook_units",
    Spelling.SIMPLE: "obu",
}

_CHANNEL_NAMES: Mapping[str, Spelling] = {
    "REST_API": Spelling.REST,
    "WEBSOCKET_DEFAULT": Spelling.DEFAULT,
    "WEBSOCKET_SIMPLE": Spelling.SIMPLE,
}


def _mapping(kind: str) -> Mapping[str, Mapping[str, str]]:
    """By channel, each wire name of `kind` and the model's field that its value becomes."""
    rows = [row for row in FIELD_TABLE[kind] if row.use not in (HELPER, FALLBACK)]
    return {
        name: {key: row.name for row in rows if (key := row.spelled(spelling)) is not None}
        for name, spelling in _CHANNEL_NAMES.items()
    }


FIELD_MAPPINGS: Mapping[str, Mapping[str, Mapping[str, str]]] = {kind: _mapping(kind) for kind in FIELD_TABLE}
"""`FIELD_MAPPINGS["trade"]["WEBSOCKET_SIMPLE"]["tp"] == "price"`: by kind, channel and wire name."""
FIELD_MAPPING: Mapping[str, Mapping[str, str]] = FIELD_MAPPINGS["ticker"]
"""The ticker's: `FIELD_MAPPING["REST_API"]["trade_price"] == "current_price"`."""
