"""Every payload decodes, and every number in a model is the number on the wire.

Payload folders are named by UPBIT_BACKBONE_PAYLOADS (separated like PATH, searched recursively), beside our own
made-up ones. The first part of a file's name tells its kind: `ticker--…`, `trades-ticks--…`, `session-simple--…`;
`.jsonl` holds one message a line. To run them over your own captures, name the files likewise.

What the wire says is read here a second time, by the standard library and a word list of this module's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.support.samples import payload_files
from upbit_backbone.errors import MalformedDataError
from upbit_backbone.models.enums import DataSource
from upbit_backbone.models.market import CandleData, OrderbookData, TickerData, TradeData
from upbit_backbone.models.session import StreamError, SubscriptionList, UpStatus
from upbit_backbone.unify import rest
from upbit_backbone.unify.stream import StreamDecoder, peek
from upbit_backbone.unify.unifier import DataUnifier

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

LONG_WORDS = {
    "op": "opening_price", "hp": "high_price", "lp": "low_price", "tp": "trade_price", "pcp": "prev_closing_price",
    "cp": "change_price", "scp": "signed_change_price", "cr": "change_rate", "scr": "signed_change_rate",
    "tv": "trade_volume", "atv": "acc_trade_volume", "atv24h": "acc_trade_volume_24h", "atp": "acc_trade_price",
    "atp24h": "acc_trade_price_24h", "aav": "acc_ask_volume", "abv": "acc_bid_volume",
    "h52wp": "highest_52_week_price", "l52wp": "lowest_52_week_price", "tms": "timestamp", "ttms": "trade_timestamp",
    "sid": "sequential_id", "bap": "best_ask_price", "bas": "best_ask_size", "bbp": "best_bid_price",
    "bbs": "best_bid_size", "tas": "total_ask_size", "tbs": "total_bid_size", "lv": "level", "ap": "ask_price",
    "bp": "bid_price", "as": "ask_size", "bs": "bid_size", "catv": "candle_acc_trade_volume",
    "catp": "candle_acc_trade_price", "obu": "orderbook_units", "cd": "code", "mk": "code", "c": "change",
}  # fmt: skip
TICKER = {
    "opening_price": "opening_price", "high_price": "high_24h", "low_price": "low_24h", "trade_price": "current_price",
    "prev_closing_price": "prev_closing_price", "signed_change_price": "change_amount",
    "signed_change_rate": "change_rate", "trade_volume": "last_trade_volume", "acc_trade_volume": "volume_today",
    "acc_trade_volume_24h": "volume_24h", "acc_trade_price": "traded_value_today",
    "acc_trade_price_24h": "traded_value_24h", "acc_ask_volume": "ask_volume_today",
    "acc_bid_volume": "bid_volume_today", "highest_52_week_price": "highest_52_week_price",
    "lowest_52_week_price": "lowest_52_week_price", "timestamp": "timestamp", "trade_timestamp": "trade_timestamp",
}  # fmt: skip
TRADE = {
    "trade_price": "price", "trade_volume": "volume", "prev_closing_price": "prev_closing_price",
    "sequential_id": "sequential_id", "best_ask_price": "best_ask_price", "best_ask_size": "best_ask_size",
    "best_bid_price": "best_bid_price", "best_bid_size": "best_bid_size",
}  # fmt: skip
CANDLE = {
    "opening_price": "open_price", "high_price": "high_price", "low_price": "low_price", "trade_price": "close_price",
    "candle_acc_trade_volume": "volume", "candle_acc_trade_price": "traded_value", "timestamp": "last_trade_at",
    "prev_closing_price": "prev_closing_price", "change_price": "change_amount", "change_rate": "change_rate",
    "converted_trade_price": "converted_close_price",
}  # fmt: skip
BOOK = {
    "total_ask_size": "total_ask_size", "total_bid_size": "total_bid_size", "timestamp": "timestamp", "level": "level",
}  # fmt: skip
ATTRIBUTES = {
    (TickerData, DataSource.REST): TICKER,
    (TickerData, DataSource.WEBSOCKET): TICKER,
    (TradeData, DataSource.REST): TRADE | {"change_price": "change_amount", "timestamp": "timestamp"},
    (TradeData, DataSource.WEBSOCKET): TRADE | {"timestamp": "published_at", "trade_timestamp": "timestamp"},
    (CandleData, DataSource.REST): CANDLE,
    (CandleData, DataSource.WEBSOCKET): CANDLE,
    (OrderbookData, DataSource.REST): BOOK,
    (OrderbookData, DataSource.WEBSOCKET): BOOK,
}  # fmt: skip
QUOTED = re.compile(r"-?\d+(\.\d+)?,?")
TEXTS = {"trade_date", "trade_time", "trade_date_kst", "trade_time_kst", "tdt", "ttm", "delisting_date", "dd"}


def all_files() -> list[Path]:
    return [path for path in payload_files() if path.name != "manifest.json" and not path.name.startswith("headers-")]


def kind_of(path: Path) -> str:
    return path.name.partition("--")[0]


def is_rest(path: Path) -> bool:
    kind = kind_of(path)
    whole = {"ticker", "ticker-all", "trades-ticks", "orderbook", "orderbook-instruments"}
    starts = ("candles-", "market-all", "error-", "orderbook-supported-levels")
    return kind in whole or kind.startswith(starts)


REST_FILES = [path for path in all_files() if is_rest(path)]
STREAM_FILES = [path for path in all_files() if not is_rest(path)]


def frames(path: Path) -> list[bytes]:
    data = path.read_bytes()
    return [line for line in data.splitlines() if line.strip()] if path.suffix == ".jsonl" else [data]


def wire(raw: bytes) -> Any:
    """The payload with every number as the Decimal of its text."""
    return json.loads(raw, parse_float=Decimal, parse_int=Decimal)


def numbers(message: dict[str, Any]) -> Iterator[tuple[str, Decimal]]:
    for key, value in message.items():
        name = LONG_WORDS.get(key, key)
        if isinstance(value, Decimal):
            yield name, value
        elif isinstance(value, str) and QUOTED.fullmatch(value) and name not in TEXTS:
            yield name, Decimal(value.rstrip(","))


def as_people_write(number: Decimal) -> str:
    """No padding zeros, no exponent."""
    text = format(number, "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) if number else "0"


def as_number(value: object) -> Decimal | None:
    """A model's value as the number Upbit would write."""
    if isinstance(value, datetime):
        microseconds = (value - EPOCH) // timedelta(microseconds=1)
        return Decimal(microseconds) / 1000
    return Decimal(value) if isinstance(value, int | Decimal) else None


def assert_numbers_are_those_of_the_wire(message: dict[str, Any], item: Any) -> None:
    attributes = ATTRIBUTES[type(item), item.source]
    checked = 0
    for key, text in numbers(message):
        if key not in attributes:
            continue
        value = getattr(item, attributes[key])
        expected = text / 1000 if "timestamp" in key and text >= 10**14 else text
        assert as_number(value) == expected, f"{key}: {value!r} is not {text}"
        if isinstance(value, Decimal):
            assert str(value) == as_people_write(text), f"{key}: {text} prints as {value}"
        checked += 1
    assert checked >= 2
    if isinstance(item, TradeData) and item.source is DataSource.WEBSOCKET:
        amounts = dict(numbers(message))
        assert item.change_amount is not None
        assert item.change_amount.copy_abs() == amounts["change_price"]
        direction = message.get("change", message.get("c"))
        assert (item.change_amount < 0) == (direction == "FALL")
    if isinstance(item, OrderbookData):
        assert_levels_are_those_of_the_wire(message, item)


def assert_levels_are_those_of_the_wire(message: dict[str, Any], book: OrderbookData) -> None:
    units = [
        {LONG_WORDS.get(key, key): value for key, value in unit.items()}
        for unit in message.get("orderbook_units", message.get("obu"))
    ]
    for side, levels in (("ask", book.asks), ("bid", book.bids)):
        expected = [(unit[f"{side}_price"], unit[f"{side}_size"]) for unit in units if unit[f"{side}_price"] != 0]
        assert [(level.price, level.size) for level in levels] == expected
        written = [(as_people_write(price), as_people_write(size)) for price, size in expected]
        assert [(str(level.price), str(level.size)) for level in levels] == written


def decode_rest(path: Path) -> list[Any]:
    kind, body = kind_of(path), path.read_bytes()
    if kind.startswith("candles-"):
        unit = wire(body)[0].get("unit") if kind == "candles-minutes" else None
        word = f"minutes/{unit}" if unit else kind.removeprefix("candles-")
        return rest.decode_candles(body, word, NOW)
    decoders = {
        "ticker": rest.decode_tickers,
        "ticker-all": rest.decode_tickers,
        "trades-ticks": rest.decode_trades,
        "orderbook": rest.decode_orderbooks,
        "orderbook-instruments": rest.decode_instruments,
        "orderbook-supported-levels": rest.decode_instruments,
        "market-all": rest.decode_markets,
        "market-all-details": rest.decode_markets,
    }
    return decoders[kind](body, NOW)


def unify(message: dict[str, Any], source: DataSource, like: Any) -> Any:
    unifier = DataUnifier()
    if isinstance(like, CandleData):
        return unifier.unify_candle_data(message, source, NOW, timeframe=like.timeframe)
    name = {TickerData: "ticker", TradeData: "trade", OrderbookData: "orderbook"}.get(type(like), "market")
    return getattr(unifier, f"unify_{name}_data")(message, source, NOW)


@pytest.mark.parametrize("path", STREAM_FILES, ids=lambda path: path.stem)
def test_every_stream_message_becomes_its_model_with_the_numbers_of_the_wire(path: Path) -> None:
    decoder = StreamDecoder()
    for raw in frames(path):
        payload = wire(raw)
        messages = payload if isinstance(payload, list) else [payload]
        items = decoder.decode(raw, NOW)
        assert len(items) == len(messages)
        for message, item in zip(messages, items, strict=True):
            if not isinstance(item, TickerData | TradeData | OrderbookData | CandleData):
                continue
            assert item.symbol == message.get("code", message.get("cd", message.get("market", message.get("mk"))))
            assert item.source is DataSource.WEBSOCKET
            assert item.received_at == NOW
            assert_numbers_are_those_of_the_wire(message, item)
            assert unify(message, DataSource.WEBSOCKET, item) == item


def test_data_files_hold_nothing_but_data_and_notices_files_nothing_but_notices() -> None:
    for path in STREAM_FILES:
        kind = kind_of(path).partition("-")[0]
        expected = {
            "ticker": TickerData, "trade": TradeData, "orderbook": OrderbookData, "candle": CandleData,
            "error": StreamError, "status": UpStatus, "list": SubscriptionList,
        }.get(kind)  # fmt: skip
        items = [item for raw in frames(path) for item in StreamDecoder().decode(raw, NOW)]
        assert expected is None or {type(item) for item in items} == {expected}, path


def test_peek_tells_type_and_market_as_decoding_does_or_nothing() -> None:
    for path in STREAM_FILES:
        for raw in frames(path):
            seen = peek(raw)
            if seen is not None:
                (item,) = StreamDecoder().decode(raw, NOW)
                assert item.symbol == seen[1], path
                is_candle = isinstance(item, CandleData)
                assert seen[0].is_candle == is_candle
                assert is_candle or type(item).__name__.lower() == f"{seen[0].value}data"


@pytest.mark.parametrize("path", [path for path in REST_FILES if "error-" not in path.name], ids=lambda path: path.stem)
def test_every_rest_answer_becomes_its_models_in_order_with_the_numbers_of_the_wire(path: Path) -> None:
    rows = wire(path.read_bytes())
    items = decode_rest(path)
    assert [item.symbol for item in items] == [row["market"] for row in rows]
    assert all(item.source is DataSource.REST and item.received_at == NOW for item in items)
    for row, item in zip(rows, items, strict=True):
        if (type(item), DataSource.REST) in ATTRIBUTES:
            assert_numbers_are_those_of_the_wire(row, item)
            assert unify(row, DataSource.REST, item) == item


@pytest.mark.parametrize("path", [path for path in REST_FILES if "error-" in path.name], ids=lambda path: path.stem)
def test_every_error_answer_gives_its_name_and_message_and_is_no_data(path: Path) -> None:
    body = path.read_bytes()
    envelope = json.loads(body)["error"]
    assert rest.decode_error(body) == (envelope["name"], envelope["message"])
    with pytest.raises(MalformedDataError):
        rest.decode_tickers(body, NOW)


def test_every_model_survives_a_round_trip_through_json() -> None:
    for path in all_files():
        if is_rest(path):
            items = [] if "error-" in path.name else decode_rest(path)
        else:
            items = [item for raw in frames(path) for item in StreamDecoder().decode(raw, NOW)]
        for item in items[:5]:
            if hasattr(item, "to_json"):
                again = type(item).from_json(item.to_json())
                assert again == item, path
                assert repr(again) == repr(item)
