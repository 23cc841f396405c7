"""The WebSocket as Upbit speaks it."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import websocket

from upbit_backbone.simulator import FakeUpbit

Connect = Callable[..., Any]
Get = Callable[..., Any]


def test_every_type_starts_with_one_snapshot_per_code(upbit: FakeUpbit, connect: Connect) -> None:
    stream = connect(upbit)
    types = ["ticker", "trade", "orderbook", "candle.1s", "candle.1m", "candle.240m"]
    stream.ask(*({"type": kind, "codes": ["KRW-BTC", "KRW-ETH"]} for kind in types))
    messages = [stream.read() for _ in range(2 * len(types))]
    assert [(one["type"], one["code"]) for one in messages] == [
        (kind, code) for kind in types for code in ("KRW-BTC", "KRW-ETH")
    ]
    assert {one["stream_type"] for one in messages} == {"SNAPSHOT"}


def test_frames_are_binary_and_nothing_is_said_before_a_request(upbit: FakeUpbit, connect: Connect) -> None:
    stream = connect(upbit)
    stream.ask({"type": "ticker", "codes": ["KRW-BTC"]})
    frame = stream.socket.recv_frame()
    assert frame.opcode == websocket.ABNF.OPCODE_BINARY
    assert json.loads(frame.data)["type"] == "ticker"


def test_a_second_subscription_replaces_the_first(upbit: FakeUpbit, connect: Connect) -> None:
    stream = connect(upbit)
    stream.ask({"type": "trade", "codes": ["KRW-BTC"]})
    stream.read()
    stream.ask({"type": "trade", "codes": ["KRW-ETH"]})
    assert stream.read()["code"] == "KRW-ETH"
    upbit.publish_trade("KRW-BTC")
    expected = upbit.publish_trade("KRW-ETH")
    assert stream.read()["sequential_id"] == expected["sequential_id"]
    assert upbit.subscribed() == {("trade", "KRW-ETH")}


def test_a_trade_is_the_same_on_stream_and_rest(upbit: FakeUpbit, connect: Connect, get: Get) -> None:
    stream = connect(upbit)
    stream.ask(
        {"type": "trade", "codes": ["KRW-BTC"], "is_only_realtime": True}, {"type": "ticker", "codes": ["KRW-BTC"]}
    )
    stream.read_until(lambda one: one["type"] == "ticker")
    made = upbit.publish_trade("KRW-BTC", price=130_500_000, volume="0.12345678", ask_bid="ASK")
    live = stream.read_until(lambda one: one["type"] == "trade")
    rest = get(upbit, "/v1/trades/ticks", market="KRW-BTC").json[0]
    for name in ("trade_price", "trade_volume", "ask_bid", "sequential_id", "prev_closing_price"):
        assert live[name] == rest[name], name
    assert live["trade_timestamp"] == rest["timestamp"] == made["trade_timestamp"]
    assert live["change_price"] == abs(rest["change_price"])
    assert (live["trade_price"], live["trade_volume"]) == (130_500_000, Decimal("0.12345678"))
    ticker = stream.read_until(lambda one: one["type"] == "ticker")
    assert ticker["trade_price"] == get(upbit, "/v1/ticker", markets="KRW-BTC").json[0]["trade_price"] == 130_500_000
    assert ticker["acc_ask_volume"] + ticker["acc_bid_volume"] == ticker["acc_trade_volume"]


def test_book_and_trade_agree(upbit: FakeUpbit, connect: Connect, get: Get) -> None:
    stream = connect(upbit)
    stream.ask({"type": "orderbook", "codes": ["KRW-BTC.5"]})
    assert len(stream.read()["orderbook_units"]) == 5
    upbit.publish_trade("KRW-BTC", price=131_000_000, ask_bid="BID")
    book = stream.read()
    assert (book["code"], book["orderbook_units"][0]["ask_price"]) == ("KRW-BTC", 131_000_000)
    rest = get(upbit, "/v1/orderbook", markets="KRW-BTC", count=5).json[0]
    assert rest["orderbook_units"] == book["orderbook_units"]
    assert rest["timestamp"] == book["timestamp"]


def test_only_snapshot_and_only_realtime(upbit: FakeUpbit, connect: Connect) -> None:
    stream = connect(upbit)
    stream.ask(
        {"type": "trade", "codes": ["KRW-BTC"], "is_only_snapshot": True},
        {"type": "trade", "codes": ["KRW-ETH"], "isOnlyRealtime": True},
    )
    assert stream.read()["stream_type"] == "SNAPSHOT"
    upbit.publish_trade("KRW-BTC")
    upbit.publish_trade("KRW-ETH")
    message = stream.read()
    assert (message["code"], message["stream_type"]) == ("KRW-ETH", "REALTIME")


def test_numbers_are_spelled_by_kind_and_format(upbit: FakeUpbit, connect: Connect) -> None:
    upbit.publish_trade("KRW-BTC", price=131_000_000, volume="0.00079276", ask_bid="BID")
    stream = connect(upbit)
    stream.ask({"type": "trade", "codes": ["KRW-BTC"]}, {"type": "orderbook", "codes": ["KRW-BTC"]})
    trade, book = stream.raw(), stream.raw()
    assert b'"trade_price":131000000.00000000,"trade_volume":0.00079276,' in trade
    assert b'"ask_price":1.31E8,' in book
    stream.ask({"type": "trade", "codes": ["KRW-BTC"]}, {"format": "SIMPLE"})
    assert b'"tp":131000000.00000000,"tv":7.9276E-4,' in stream.raw()
    for keys, price in (({"format": "SIMPLE"}, b'"tp":131000000.0,'), ({}, b'"trade_price":131000000.0,')):
        stream.ask({"type": "ticker", "codes": ["KRW-BTC"]}, keys or {"format": "DEFAULT"})
        assert price in stream.raw()


@pytest.mark.parametrize(("name", "key"), [("JSON_LIST", "type"), ("SIMPLE_LIST", "ty")])
def test_list_formats_wrap_each_object(upbit: FakeUpbit, connect: Connect, name: str, key: str) -> None:
    stream = connect(upbit)
    stream.ask({"type": "ticker", "codes": ["KRW-BTC"]}, {"format": name})
    assert [one[key] for one in stream.read()] == ["ticker"]


def test_short_books_are_padded_with_zeros(connect: Connect) -> None:
    codes = [f"BTC-{name}" for name in ("ETH", "XRP", "SOL", "ADA", "TRX", "LINK", "SUI", "DOT")]
    with FakeUpbit(trades_per_second=0, markets=codes) as upbit:
        stream = connect(upbit)
        stream.ask({"type": "orderbook", "codes": codes})
        books = [stream.read() for _ in codes]
    assert all(len(book["orderbook_units"]) == 30 for book in books)
    padded = [book for book in books if book["orderbook_units"][-1]["ask_price"] == 0]
    assert padded
    assert all(book["orderbook_units"][-1]["ask_size"] == 0 for book in padded)


def test_unknown_lower_case_and_level_less_codes_are_met_with_silence(upbit: FakeUpbit, connect: Connect) -> None:
    stream = connect(upbit)
    stream.ask(
        {"type": "ticker", "codes": ["KRW-NONE", "krw-btc"]},
        {"type": "orderbook", "codes": ["BTC-ETH"], "level": 10},
        {"type": "ticker", "codes": ["KRW-ETH"]},
    )
    assert stream.read()["code"] == "KRW-ETH"


def test_candles_follow_trades_once_a_second(upbit: FakeUpbit, connect: Connect, get: Get) -> None:
    stream = connect(upbit)
    stream.ask({"type": "candle.1m", "codes": ["KRW-BTC"]}, {"type": "candle.1s", "codes": ["KRW-BTC"]})
    stream.read_until(lambda one: one["type"] == "candle.1s")
    made = upbit.publish_trade("KRW-BTC", price=131_500_000)
    upbit.publish_trade("KRW-BTC", price=131_400_000)
    candle = stream.read_until(lambda one: one["type"] == "candle.1m")
    assert candle["stream_type"] == "REALTIME"
    assert candle["timestamp"] >= made["trade_timestamp"]
    row = get(upbit, "/v1/candles/minutes/1", market="KRW-BTC").json[0]
    assert all(candle[name] == row[name] for name in ("opening_price", "high_price", "low_price", "trade_price"))
    assert candle["candle_acc_trade_volume"] == row["candle_acc_trade_volume"]


def test_subscriptions_can_be_listed_and_listing_switches_the_format(upbit: FakeUpbit, connect: Connect) -> None:
    stream = connect(upbit)
    requests = ({"type": "trade", "codes": ["KRW-BTC"]}, {"type": "orderbook", "codes": ["KRW-ETH.5"], "level": 10000})
    stream.ask(*requests, {"format": "SIMPLE"})
    stream.read()
    stream.read()
    stream.ask({"method": "LIST_SUBSCRIPTIONS"})
    assert stream.read() == {
        "method": "LIST_SUBSCRIPTIONS",
        "result": [
            {"type": "trade", "codes": ["KRW-BTC"]},
            {"type": "orderbook", "codes": ["KRW-ETH"], "level": 10000},
        ],
        "ticket": "test",
    }
    upbit.publish_trade("KRW-BTC")
    assert stream.read()["type"] == "trade"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("nonsense", "WRONG_FORMAT"),
        ("{}", "WRONG_FORMAT"),
        ('[{"type":"ticker","codes":["KRW-BTC"]}]', "NO_TICKET"),
        ('[{"ticket":"a"}]', "NO_TYPE"),
        ('[{"ticket":"a"},{"type":"ticker"}]', "NO_CODES"),
        ('[{"ticket":"a"},{"type":"nope","codes":["KRW-BTC"]}]', "INVALID_PARAM"),
    ],
)
def test_an_error_is_told_and_then_the_server_closes(upbit: FakeUpbit, connect: Connect, text: str, name: str) -> None:
    stream = connect(upbit)
    stream.socket.send(text)
    assert stream.read()["error"]["name"] == name
    assert stream.close_code() == 1000


def test_the_text_ping_starts_the_up_messages(connect: Connect) -> None:
    with FakeUpbit(trades_per_second=0, markets=["KRW-BTC"], up_seconds=0.1) as upbit:
        stream = connect(upbit)
        stream.socket.send("PING")
        assert [stream.read() for _ in range(3)] == [{"status": "UP"}] * 3


def test_an_idle_connection_is_dropped_without_a_word_and_pings_prevent_that(connect: Connect) -> None:
    with FakeUpbit(trades_per_second=0, markets=["KRW-BTC"], idle_seconds=1.0) as upbit:
        silent, talking = connect(upbit), connect(upbit)
        while not upbit.wire_log("close"):
            talking.socket.ping()
            assert talking.socket.recv_frame().opcode == websocket.ABNF.OPCODE_PONG
        assert silent.close_code() is None
        assert [row["reason"] for row in upbit.wire_log("close")] == ["idle"]
        assert [row["port"] for row in upbit.sessions()] == [talking.socket.sock.getsockname()[1]]


def test_compression_is_accepted_when_offered(upbit: FakeUpbit) -> None:
    connection = websocket.create_connection(
        upbit.websocket_url, header=["Sec-WebSocket-Extensions: permessage-deflate"], suppress_origin=True, timeout=5
    )
    assert "permessage-deflate" in connection.getheaders()["sec-websocket-extensions"]
    connection.shutdown()


def test_midnight_starts_a_new_day(connect: Connect, get: Get) -> None:
    with FakeUpbit(trades_per_second=0, markets=["KRW-BTC"], start_time="2026-11-20T23:59:30Z") as upbit:
        before = get(upbit, "/v1/ticker", markets="KRW-BTC").json[0]
        upbit.advance_clock(40)
        quiet = get(upbit, "/v1/ticker", markets="KRW-BTC").json[0]
        assert get(upbit, "/v1/trades/ticks", market="KRW-BTC").json == []
        upbit.publish_trade("KRW-BTC", price=131_000_000)
        after = get(upbit, "/v1/ticker", markets="KRW-BTC").json[0]
        days = get(upbit, "/v1/candles/days", market="KRW-BTC", count=2).json
    assert quiet["prev_closing_price"] == quiet["opening_price"] == before["trade_price"]
    assert quiet["acc_trade_volume"] == 0
    assert (after["opening_price"], after["trade_date"]) == (131_000_000, "20261121")
    assert [day["candle_date_time_utc"] for day in days] == ["2026-11-21T00:00:00", "2026-11-20T00:00:00"]
