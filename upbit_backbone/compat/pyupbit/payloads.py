"""Our models in Upbit's own words again: the dicts that pyupbit passes on as they come over the wire. Pure.

Numbers are floats, times whole milliseconds, whichever channel the model came by; made from the table that also reads
them, so no key is spelled here a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from ...exchange.endpoints import MAX_LEVELS
from ...exchange.fields import FIELD_TABLE, Spelling
from ...exchange.timeframes import timeframe_of
from ...models.market import KST, CandleData, MarketInfo, OrderbookData, OrderbookUnit, TickerData, TradeData

# Docs: list-trading-pairs.
CAUTIONS: Final = (
    *("PRICE_FLUCTUATIONS", "TRADING_VOLUME_SOARING", "DEPOSIT_AMOUNT_SOARING"),
    *("GLOBAL_PRICE_DIFFERENCES", "CONCENTRATION_OF_SMALL_ACCOUNTS"),
)
# In which order Upbit writes the keys: programs make tables of such rows.
_TICKER_KEYS: Final = (
    *("market", "trade_date", "trade_time", "trade_date_kst", "trade_time_kst", "trade_timestamp", "opening_price"),
    *("high_price", "low_price", "trade_price", "prev_closing_price", "change", "change_price", "change_rate"),
    *("signed_change_price", "signed_change_rate", "trade_volume", "acc_trade_price", "acc_trade_price_24h"),
    *("acc_trade_volume", "acc_trade_volume_24h", "highest_52_week_price", "highest_52_week_date"),
    *("lowest_52_week_price", "lowest_52_week_date", "timestamp"),
)
_BOOK_KEYS: Final = ("market", "timestamp", "total_ask_size", "total_bid_size", "orderbook_units", "level")
_STREAM_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "ticker": (
        *("type", "code", "opening_price", "high_price", "low_price", "trade_price", "prev_closing_price"),
        *("acc_trade_price", "change", "change_price", "signed_change_price", "change_rate", "signed_change_rate"),
        *("ask_bid", "trade_volume", "acc_trade_volume", "trade_date", "trade_time", "trade_timestamp"),
        *("acc_ask_volume", "acc_bid_volume", "highest_52_week_price", "highest_52_week_date"),
        *("lowest_52_week_price", "lowest_52_week_date", "market_state", "is_trading_suspended", "delisting_date"),
        *("market_warning", "timestamp", "acc_trade_price_24h", "acc_trade_volume_24h", "stream_type"),
    ),
    "trade": (
        *("type", "code", "timestamp", "trade_date", "trade_time", "trade_timestamp", "trade_price", "trade_volume"),
        *("ask_bid", "prev_closing_price", "change", "change_price", "sequential_id", "best_ask_price"),
        *("best_ask_size", "best_bid_price", "best_bid_size", "stream_type"),
    ),
    "orderbook": (
        *("type", "code", "timestamp", "total_ask_size", "total_bid_size", "orderbook_units", "stream_type", "level"),
    ),
    "candle": (
        *("type", "code", "candle_date_time_utc", "candle_date_time_kst", "opening_price", "high_price", "low_price"),
        *("trade_price", "candle_acc_trade_volume", "candle_acc_trade_price", "timestamp", "stream_type"),
    ),
}
_REST_UNIT: Final = ("bid_price", "bid_size", "ask_price", "ask_size")
_STREAM_UNIT: Final = ("ask_price", "bid_price", "ask_size", "bid_size")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_NOTHING: Final = OrderbookUnit(Decimal(0), Decimal(0))


def ticker_row(ticker: TickerData) -> dict[str, Any]:
    """A row of REST's ticker, also where the ticker came by stream."""
    row = _written("ticker", Spelling.REST, ticker, _ticker_extras(ticker))
    traded = (ticker.trade_timestamp or ticker.timestamp).astimezone(KST)
    row |= {"trade_date_kst": f"{traded:%Y%m%d}", "trade_time_kst": f"{traded:%H%M%S}"}
    return {key: row[key] for key in _TICKER_KEYS}


def orderbook_row(book: OrderbookData) -> dict[str, Any]:
    """REST's order book: always MAX_LEVELS units, what is missing of a side is 0 at price 0, as Upbit writes it."""
    row = _written("orderbook", Spelling.REST, book, {})
    row |= {"orderbook_units": _units(book, MAX_LEVELS, _REST_UNIT), "level": _plain(book.level)}
    return {key: row[key] for key in _BOOK_KEYS}


def market_row(market: MarketInfo, *, details: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"market": market.symbol, "korean_name": market.korean_name}
    row["english_name"] = market.english_name
    if not details:
        return row
    if market.market_warning is not None:  # a region, which has the older field instead
        return row | {"market_warning": market.market_warning}
    raised = market.cautions or ()
    caution = {name: name in raised for name in dict.fromkeys((*CAUTIONS, *raised))}
    return row | {"market_event": {"warning": bool(market.warning), "caution": caution}}


def stream_message(
    item: TickerData | TradeData | OrderbookData | CandleData, depth: int = MAX_LEVELS
) -> dict[str, Any]:
    """A message of the WebSocket in the format DEFAULT; an order book has `depth` units."""
    extras: dict[str, Any] = {}
    more: dict[str, Any] = {}
    if isinstance(item, TickerData):
        kind = word = "ticker"
        extras = _ticker_extras(item)
    elif isinstance(item, TradeData):
        kind = word = "trade"
        extras = _trade_extras(item)
    elif isinstance(item, OrderbookData):
        kind = word = "orderbook"
        more = {"orderbook_units": _units(item, depth, _STREAM_UNIT), "level": _plain(item.level)}
    else:
        kind, word = "candle", str(timeframe_of(item.timeframe).data_type)
        more = {
            "candle_date_time_utc": f"{item.timestamp:%Y-%m-%dT%H:%M:%S}",
            "candle_date_time_kst": f"{item.timestamp_kst:%Y-%m-%dT%H:%M:%S}",
        }
    message = {"type": word, **_written(kind, Spelling.DEFAULT, item, extras), **more}
    return {key: message[key] for key in _STREAM_KEYS[kind]}


def _written(kind: str, spelling: Spelling, model: Any, extras: Mapping[str, Any]) -> dict[str, Any]:
    """By wire name, every field of `kind` that `spelling` has, from the model or, where that lacks it, `extras`."""
    written: dict[str, Any] = {}
    for field in FIELD_TABLE[kind]:
        key = field.spelled(spelling)
        if key is not None:
            written[key] = _value(extras[field.name] if field.name in extras else getattr(model, field.name))
    return written


_WRITERS: Final[Mapping[type[Any], Callable[[Any], Any]]] = {
    datetime: lambda moment: (moment - _EPOCH) // _MILLISECOND,
    date: lambda day: day.isoformat(),
    bool: lambda flag: flag,
    int: lambda number: number,
    type(None): lambda nothing: None,
}


def _value(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, str):
        return str(value)  # of an enum its word
    return _WRITERS[type(value)](value)


def _plain(level: Decimal) -> float | int:
    return int(level) if level == int(level) else float(level)


def _units(book: OrderbookData, depth: int, order: tuple[str, ...]) -> list[dict[str, float]]:
    asks = (*book.asks, *[_NOTHING] * (depth - len(book.asks)))[:depth]
    bids = (*book.bids, *[_NOTHING] * (depth - len(book.bids)))[:depth]
    units = []
    for ask, bid in zip(asks, bids, strict=True):
        unit = {"ask_price": ask.price, "ask_size": ask.size, "bid_price": bid.price, "bid_size": bid.size}
        units.append({key: float(unit[key]) for key in order})
    return units


def _ticker_extras(ticker: TickerData) -> dict[str, Any]:
    traded = (ticker.trade_timestamp or ticker.timestamp).astimezone(UTC)
    return {
        "change": ticker.change or _direction(ticker.change_amount),
        "absolute_change_amount": None if ticker.change_amount is None else abs(ticker.change_amount),
        "absolute_change_rate": None if ticker.change_rate is None else abs(ticker.change_rate),
        "trade_timestamp": traded,
        "trade_date": f"{traded:%Y%m%d}",
        "trade_time": f"{traded:%H%M%S}",
    }


def _trade_extras(trade: TradeData) -> dict[str, Any]:
    return {
        "change": _direction(trade.change_amount),
        "absolute_change_amount": None if trade.change_amount is None else abs(trade.change_amount),
        "published_at": trade.published_at or trade.timestamp,
        # What a break had cost and REST brought counts as what it would have been.
        "stream_type": trade.stream_type or "REALTIME",
        "trade_date": f"{trade.timestamp:%Y-%m-%d}",
        "trade_time": f"{trade.timestamp:%H:%M:%S}",
    }


def _direction(change: Decimal | None) -> str | None:
    if change is None:
        return None
    return "EVEN" if not change else "RISE" if change > 0 else "FALL"
