"""A poison message harms itself only."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.chaos.watched import Watched, say
from tests.support.waiting import PAUSE, promised, wait_until
from upbit_backbone import MarketDataBackbone
from upbit_backbone.models.events import MalformedEvent, SubscriptionEvent
from upbit_backbone.models.market import CandleData, TradeData
from upbit_backbone.simulator import FakeUpbit

Watch = Callable[..., Watched]
Backbone = Callable[..., MarketDataBackbone]

TRADE = {"ty": "trade", "cd": "KRW-BTC", "tp": 1000.0, "tv": 0.1, "ab": "BID", "pcp": 999.0, "c": "RISE", "cp": 1.0,
         "td": "2026-11-22", "ttm": "00:00:00", "ttms": 1795305600000, "tms": 1795305600001, "sid": 1,
         "st": "REALTIME"}  # fmt: skip
TICKER = {"ty": "ticker", "cd": "KRW-BTC", "tp": 1.0}
NOT_EVEN_JSON = [b"", b"\x00", b"\xff\xfe garbage", b"{", b"[", b'{"ty":"trade"', b"not json", b'{"ty":"trade",}',
                 '{"ty":"trade","cd":"KRW-BTC'.encode("utf-16")]  # fmt: skip
WRONG_SHAPE = [b"[]", b"[1,2,3]", b"42", b'"text"', b"null", b"true", b"{}", b"[[]]", b"[null]", b'{"ty":null}',
               b'{"ty":["trade"]}', b'{"ty":{"a":1}}', b'{"error":null}', b'{"error":[]}', b'{"status":5}']  # fmt: skip
BOMBS = [b"[" * 100_000, b'{"a":' * 50_000, b'{"ty":"trade","cd":"KRW-BTC","tp":' + b"9" * 5_000 + b"}",
         b'{"ty":"trade","cd":"\\ud800"}', b'{"ty":"trade","ty":"ticker","cd":"KRW-BTC"}',
         b'{"ty":"orderbook","cd":"KRW-BTC","obu":' + b"[" * 5_000 + b"}"]  # fmt: skip


def spoilt() -> list[bytes]:
    """A trade and a ticker with every field missing, or of a wrong kind."""
    values: list[Any] = [None, [], {}, "x", True]
    out = []
    for good in (TRADE, TICKER):
        for name in ("cd", "tp", "tv", "ttms", "sid"):
            if name in good:
                out.append(json.dumps({key: value for key, value in good.items() if key != name}).encode())
                out += [json.dumps(good | {name: value}).encode() for value in values]
    numbers = (b"NaN", b"Infinity", b"-Infinity", b"1e999999999", b"-5")
    return out + [json.dumps(TRADE | {"sid": None}).encode().replace(b"1000.0", number) for number in numbers]


@pytest.mark.parametrize(
    "poisons", [NOT_EVEN_JSON, WRONG_SHAPE, BOMBS, spoilt()], ids=["no JSON", "wrong shape", "bombs", "spoilt fields"]
)
@pytest.mark.parametrize("opcode", ["binary", "text"])
def test_the_next_message_after_any_poison_is_delivered(
    watch: Watch, quiet: FakeUpbit, poisons: list[bytes], opcode: str
) -> None:
    seen = watch(quiet, kinds=["trade", "ticker"])
    for poison in poisons:
        if opcode == "text":
            quiet.send_text(poison.decode("utf-8", "replace"))
        else:
            quiet.send_binary(poison)
        trade = quiet.publish_trade("KRW-BTC", price=130_000_000)
        seen.arrives(trade, poison)
    assert seen.is_whole()
    assert (seen.breaks, seen.reconnects) == ([], 0)
    assert seen.malformed > 0
    told = wait_until(lambda: seen.of(MalformedEvent), "a MalformedEvent")
    assert len(told) <= seen.malformed
    assert all(len(event.sample) <= 1000 and event.sample.isprintable() for event in told)


def test_a_frame_of_invalid_text_costs_the_line_but_no_trade(watch: Watch, upbit: FakeUpbit) -> None:
    """RFC 6455: text must be UTF-8; a peer that breaks that is not to be trusted with the next frame."""
    seen = watch(upbit)
    upbit.send_raw(b"\x81\x02\xff\xfe")
    PAUSE.wait(0.5)
    seen.flows()
    say(seen.reasons())
    assert seen.is_whole()


def test_the_unknown_is_no_error(watch: Watch, quiet: FakeUpbit) -> None:
    seen = watch(quiet, kinds=["trade", "ticker"])
    moment = quiet.now_ms()
    good = json.loads(json.dumps(TRADE)) | {"ttms": moment, "tms": moment, "sid": moment * 10_000}
    for odd in ({"ty": "candle.2h", "cd": "KRW-BTC"}, {"ty": "newtype", "x": 1}, good | {"brandnew": {"a": [1]}}):
        quiet.send_json(json.dumps(odd))
    wait_until(
        lambda: [each.sequential_id for each in seen.trades("KRW-BTC")[-1:]] == [good["sid"]],
        "the trade with a field more",
    )
    assert (seen.breaks, seen.reconnects) == ([], 0)


def test_up_is_a_sign_of_life_and_no_datum(watch: Watch, quiet: FakeUpbit) -> None:
    seen = watch(quiet, ping_interval_seconds=30.0)
    had = len(seen.items)
    PAUSE.wait(0.4)
    quiet.send_json('{"status":"UP"}')
    quiet.send_text('{"status":"UP"}')
    trade = quiet.publish_trade("KRW-BTC")
    seen.arrives(trade)
    assert len(seen.items) == had + 1
    assert (seen.malformed, seen.breaks) == (0, [])


@pytest.mark.parametrize("name", ["WRONG_FORMAT", "NO_TICKET", "NO_TYPE", "NO_CODES", "INVALID_PARAM", "INVALID_AUTH"])
def test_an_error_from_upbit_is_told_and_is_no_datum(watch: Watch, quiet: FakeUpbit, name: str) -> None:
    seen = watch(quiet, kinds=["trade", "ticker"])
    had = len(seen.items)
    quiet.send_json(json.dumps({"error": {"name": name, "message": "이유"}}))

    def is_told() -> bool:
        return name in str(seen.of(SubscriptionEvent)) or name in str(seen.market.health().sessions[0].last_error)

    wait_until(is_told, lambda: f"{name} to be told: {seen.events}")
    trade = quiet.publish_trade("KRW-BTC")
    seen.arrives(trade)
    assert all(type(item).__name__ in ("TradeData", "TickerData") for item in seen.items[had:])
    assert seen.is_whole()


def test_all_formats_give_equal_objects(backbone: Backbone, quiet: FakeUpbit) -> None:
    kinds = ["trade", "ticker", "orderbook", "candle.1m"]
    formats = ["DEFAULT", "SIMPLE", "JSON_LIST", "SIMPLE_LIST"]
    seen = [Watched(backbone(quiet, websocket_format=each), quiet, kinds=kinds, overflow="drop_oldest")
            for each in formats]  # fmt: skip
    assert {session["format"] for session in quiet.sessions()} == set(formats)
    trades = [quiet.publish_trade("KRW-BTC", price=131_000_000 + 1_000 * number, volume="0.00000001")
              for number in range(10)]  # fmt: skip

    def settled() -> bool:
        return all({trade["sequential_id"] for trade in trades} <= {one.sequential_id for one in each.trades("KRW-BTC")}
                   for each in seen)  # fmt: skip

    wait_until(settled, "all trades in all formats")
    first = ids(trades)[0]

    def told(each: Watched) -> dict[str, list[Any]]:
        """What was told since the first of these trades, less the moment of sending, which differs by connection."""
        rows: dict[str, list[Any]] = {}
        items = list(each.items)
        begin = next(n for n, one in enumerate(items) if getattr(one, "sequential_id", None) == first)
        for item in items[begin:]:
            rows.setdefault(type(item).__name__, []).append(timeless(item))
        return rows

    def are_equal() -> bool:
        return all(told(each) == told(seen[0]) and len(told(each)) == 4 for each in seen)

    wait_until(
        are_equal, lambda: str({form: told(each) for form, each in zip(formats, seen, strict=True)}), promised(3.0)
    )


def ids(trades: list[dict[str, Any]]) -> list[int]:
    return [trade["sequential_id"] for trade in trades]


def timeless(item: Any) -> Any:
    changes = {name: None for name in ("published_at", "stream_type") if hasattr(item, name)}
    if not isinstance(item, TradeData | CandleData):
        changes["timestamp"] = None
    return dataclasses.replace(item, **changes)


def test_data_for_what_was_left_is_not_delivered(watch: Watch, quiet: FakeUpbit) -> None:
    seen = watch(quiet, kinds=["trade"])
    other: list[Any] = []
    left = seen.market.subscribe_realtime("KRW-ETH", "trade", other.append)
    wait_until(lambda: other, "the first of the other market")
    seen.market.unsubscribe(left)
    had = len(other)
    wait_until(lambda: ("trade", "KRW-ETH") not in quiet.subscribed(), "the wire to follow")
    moment = quiet.now_ms()
    for code in ("KRW-ETH", "KRW-XRP"):
        quiet.send_json(json.dumps(TRADE | {"cd": code, "ttms": moment, "tms": moment, "sid": 7}))
    trade = quiet.publish_trade("KRW-BTC")
    seen.arrives(trade)
    assert len(other) == had
    assert {item.symbol for item in seen.items} == {"KRW-BTC"}
