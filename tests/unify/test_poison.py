"""Whatever bytes arrive: models, notices or MalformedDataError, nothing else; and both ways of reading agree."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.samples import OWN, our_messages
from upbit_backbone.errors import MalformedDataError, NoTradesYetError
from upbit_backbone.exchange.fields import FIELD_TABLE, Spelling, Use
from upbit_backbone.models.enums import DataSource
from upbit_backbone.models.market import OrderbookData, TickerData, TradeData
from upbit_backbone.models.session import StreamError, SubscriptionList, UnknownMessage, UpStatus
from upbit_backbone.unify import rest
from upbit_backbone.unify.stream import StreamDecoder, peek
from upbit_backbone.unify.unifier import DataUnifier

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DECODER = StreamDecoder()
UNIFIER = DataUnifier()

TRADE = {
    "type": "trade", "code": "KRW-BTC", "timestamp": 1793697435188, "trade_timestamp": 1793697435123,
    "trade_price": 122345000, "trade_volume": 1, "ask_bid": "BID", "change": "RISE", "change_price": 5,
    "sequential_id": 17936974351230000, "prev_closing_price": 122344995, "stream_type": "REALTIME",
}  # fmt: skip


def as_bytes(message: object) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def decode(raw: bytes) -> Any:
    (item,) = DECODER.decode(raw, NOW)
    return item


def outcome(read: Callable[[], Any]) -> Any:
    """What came out; every complaint of ours counts as the same."""
    try:
        return read()
    except (MalformedDataError, NoTradesYetError):
        return MalformedDataError


def tolerantly(raw: bytes) -> Any:
    return DECODER._decode_tolerantly(raw, NOW)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"null",
        b"17",
        b'"text"',
        b"{}",
        b"[[]]",
        b"[1]",
        b"{",
        b'{"type":"trade"',
        b'{"type":null}',
        b'{"type":["trade"]}',
        b'{"type":"trade","code":"KRW-BTC","trade_price":NaN}',
        b'{"type":"trade","code":"KRW-BTC","trade_price":Infinity}',
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf{}",
        b'{"type":"\xff"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"type":"trade","code":"KRW-BTC","trade_price":' + b"9" * 5_000 + b"}",
        b'{"type":"trade","code":"KRW-BTC","trade_price":1e99999999999999999999}',
        b'{"type":"' + b"x" * 100_000,
        "<html>점검 중입니다</html>".encode(),
    ],
    ids=lambda raw: repr(raw[:30]),
)
def test_what_is_no_message_is_a_malformed_data_error(raw: bytes) -> None:
    with pytest.raises(MalformedDataError) as caught:
        DECODER.decode(raw, NOW)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


BAD_NUMBERS = [
    '"NaN"', '"-Infinity"', '"sNaN"', "1e999", "-1e999", "1e-999", '"1e999"', "-1", "true", "[]",
    "{}", '"x"', '""',
    '","', '"1,,"', "1" + "0" * 200, "0." + "0" * 200 + "1",
]  # fmt: skip


@pytest.mark.parametrize("key", ["trade_price", "trade_volume"])
def test_a_number_that_is_none_names_its_field(key: str) -> None:
    for bad in BAD_NUMBERS:
        raw = as_bytes(TRADE | {key: "HERE"}).replace(b'"HERE"', bad.encode())
        with pytest.raises(MalformedDataError, match=key) as caught:
            DECODER.decode(raw, NOW)
        assert caught.value.field == key, bad


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        ("trade_price", None),
        ("code", None),
        ("code", ""),
        ("code", "KRW BTC"),
        ("code", "KRW-\nBTC"),
        ("code", "K" * 41),
        ("code", 5),
        ("code", "\ud800"),
        ("trade_timestamp", -1),
        ("trade_timestamp", 1.5),
        ("trade_timestamp", 10**18),
        ("trade_timestamp", "soon"),
    ],
)
def test_a_wrong_value_names_its_field(key: str, bad: object) -> None:
    with pytest.raises(MalformedDataError) as caught:
        DECODER.decode(as_bytes(TRADE | {key: bad}), NOW)
    assert caught.value.field == key


@pytest.mark.parametrize("kind", ["ticker", "trade", "orderbook", "candle"])
@pytest.mark.parametrize("spelling", [Spelling.DEFAULT, Spelling.SIMPLE])
def test_a_required_field_that_is_missing_is_named(kind: str, spelling: Spelling) -> None:
    prefix = f"{kind}-{spelling}--"
    raw = next(path for path in sorted((OWN / "ws").iterdir()) if path.name.startswith(prefix)).read_bytes()
    message = json.loads(raw.splitlines()[0])
    assert "type" in message or "ty" in message
    for row in FIELD_TABLE[kind]:
        if row.use is Use.REQUIRED:
            key = row.spelled(spelling)
            with pytest.raises(MalformedDataError) as caught:
                DECODER.decode(as_bytes({name: value for name, value in message.items() if name != key}), NOW)
            assert caught.value.field == key


def test_a_level_that_is_broken_is_named_by_its_place() -> None:
    unit = {"ask_price": 2, "bid_price": 1, "ask_size": 1, "bid_size": 1}
    book = {
        "type": "orderbook", "code": "KRW-BTC", "timestamp": 1, "total_ask_size": 1, "total_bid_size": 1,
    }  # fmt: skip
    for units, field in (
        ([unit, unit | {"bid_size": "x"}], "orderbook_units[1].bid_size"),
        ([unit | {"ask_price": -1}], "orderbook_units[0].ask_price"),
        ([unit, 5], "orderbook_units[1]"),
        ("units", "orderbook_units"),
        (None, "orderbook_units"),
    ):
        with pytest.raises(MalformedDataError) as caught:
            DECODER.decode(as_bytes(book | {"orderbook_units": units}), NOW)
        assert caught.value.field == field


def test_in_a_list_the_bad_element_is_named_by_its_place() -> None:
    told: list[Any] = []
    (good,) = DECODER.decode(as_bytes([TRADE, TRADE | {"trade_price": None}]), NOW, told.append)
    assert good == decode(as_bytes(TRADE))
    (row,) = told
    assert (row.kind, row.symbol, row.place, row.error.field) == ("trade", "KRW-BTC", 1, "[1].trade_price")
    answer = rest.decode_tickers(
        b'[{"market":"KRW-BTC","timestamp":1},{"market":"KRW-A","timestamp":1,"trade_price":2}]'
    )
    assert [ticker.symbol for ticker in answer] == ["KRW-A"]
    (row,) = answer.unread
    assert (row.symbol, row.place, row.error.field) == ("KRW-BTC", 0, "[0].trade_price")


def test_where_nothing_of_a_list_can_be_read_the_first_complaint_is_raised() -> None:
    with pytest.raises(MalformedDataError) as caught:
        DECODER.decode(as_bytes([TRADE | {"trade_price": None}, 5]), NOW)
    assert caught.value.field == "[0].trade_price"


def test_a_poisonous_message_harms_nothing_after_it() -> None:
    good = as_bytes(TRADE)
    before = decode(good)
    for raw in (good[:-1], b"[" * 50_000, as_bytes(TRADE | {"trade_price": "NaN"}), b"\xff"):
        with pytest.raises(MalformedDataError):
            DECODER.decode(raw, NOW)
        assert decode(good) == before


def test_of_equal_keys_the_last_one_counts_as_everywhere_in_json() -> None:
    raw = as_bytes(TRADE).replace(b'"trade_volume":1', b'"trade_volume":1,"trade_volume":2')
    assert decode(raw).volume == 2
    assert tolerantly(raw) == DECODER.decode(raw, NOW)


def test_words_and_types_of_tomorrow_are_no_errors() -> None:
    for key, field in (("stream_type", "stream_type"), ("ask_bid", "side")):
        assert getattr(decode(as_bytes(TRADE | {key: "REPLAY"})), field) == "REPLAY"
    assert decode(b'{"type":"candle.2m","code":"KRW-BTC"}') == UnknownMessage("candle.2m")
    assert decode(b'{"ty":"options\\n"}') == UnknownMessage("options\\u000a")
    assert decode(b'{"method":"SOMETHING_ELSE"}') == UnknownMessage("SOMETHING_ELSE")
    assert decode(b'{"status":"DOWN"}') == UnknownMessage("DOWN")
    assert isinstance(decode(as_bytes(TRADE | {"new_field": {"deep": [1, {"er": None}]}})), TradeData)


def test_notices_are_read_in_any_spelling() -> None:
    assert decode(b'{"status":"UP"}') == UpStatus()
    assert decode(b'{"error":{"message":"m","name":"NO_CODES"}}') == StreamError("NO_CODES", "m")
    assert decode(b'{"error":{"name":429}}') == StreamError("429", "")
    assert decode(b'{"error":"odd\\nly"}') == StreamError("", "odd\\u000aly")
    long = b'{"mthd":"LIST_SUBSCRIPTIONS","rslt":[{"ty":"orderbook","cds":["KRW-BTC.5"],"lv":1E4}],"tckt":7}'
    assert decode(long) == SubscriptionList((("orderbook", ("KRW-BTC.5",), "1E+4"),), "7")
    with pytest.raises(MalformedDataError):
        DECODER.decode(b'{"method":"LIST_SUBSCRIPTIONS","result":[5]}', NOW)
    with pytest.raises(MalformedDataError):
        DECODER.decode(b'{"method":"LIST_SUBSCRIPTIONS"}', NOW)


def mutants(seed: int, count: int, messages: list[bytes]) -> Iterator[bytes]:
    """Valid messages with some bytes changed, removed, repeated or taken from another message."""
    rng = random.Random(seed)
    spice = [
        b"null",
        b"-1",
        b"1e999",
        b'"NaN"',
        b"[]",
        b"{}",
        b'"',
        b"\xff",
        b"\\ud800",
        b",",
        b"}",
        b"0",
        b"true",
        b":",
    ]
    for _ in range(count):
        raw = rng.choice(messages)
        for _ in range(rng.randint(1, 3)):
            start = rng.randrange(len(raw) + 1)
            stop = min(len(raw), start + rng.randint(0, 6))
            donor = rng.choice(messages)
            at = rng.randrange(len(donor))
            graft = rng.choice(
                (b"", rng.choice(spice), bytes([rng.randrange(256)]), donor[at : at + rng.randint(1, 40)])
            )
            raw = raw[:start] + graft + raw[stop:]
        yield raw


@pytest.mark.parametrize("count", [3_000, pytest.param(81_000, marks=pytest.mark.endurance)])
def test_broken_stream_messages_raise_nothing_else(count: int) -> None:
    seed = random.randrange(2**32)
    messages = [raw for raw in our_messages() if len(raw) < 700]
    for raw in mutants(seed, count, messages):
        try:
            result = outcome(lambda raw=raw: DECODER.decode(raw, NOW))  # type: ignore[misc]
            assert result is MalformedDataError or isinstance(result, list)
            peek(raw)
        except BaseException as problem:
            problem.add_note(f"seed {seed}: {raw!r}")
            raise


@pytest.mark.parametrize("count", [1_500, pytest.param(26_500, marks=pytest.mark.endurance)])
def test_broken_rest_answers_raise_nothing_else(count: int) -> None:
    seed = random.randrange(2**32)
    bodies = [path.read_bytes() for path in sorted((OWN / "rest").iterdir())]
    reads: list[Callable[[bytes, datetime], Any]] = [
        rest.decode_tickers,
        rest.decode_trades,
        rest.decode_orderbooks,
        lambda body, at: rest.decode_candles(body, "5m", at),
        rest.decode_markets,
        rest.decode_instruments,
    ]
    for number, raw in enumerate(mutants(seed, count, bodies)):
        read = reads[number % len(reads)]
        try:
            result = outcome(lambda read=read, raw=raw: read(raw, NOW))  # type: ignore[misc]
            assert result is MalformedDataError or isinstance(result, list)
            rest.decode_error(raw)
        except BaseException as problem:
            problem.add_note(f"seed {seed}: {raw!r}")
            raise


POISON_VALUES: list[Any] = [
    None, True, 0, -1, 1, 2.5, 10**30, 10**18, [], {}, "", "x", "NaN", "1.5", "-1", "2026-11-03", "20261103", "0917",
    "09:17", "REALTIME", "FALL", "KRW-ETH", {"year": 2026, "month": 11, "day": 3}, {"year": 1, "month": 13, "day": 3},
]  # fmt: skip


def test_both_ways_of_reading_agree_whatever_value_stands_in_whatever_field() -> None:
    messages = [message for message in map(json.loads, our_messages()) if isinstance(message, dict)]
    one_of_each_shape = {(message.get("type", message.get("ty")), *message): message for message in messages}
    for message in one_of_each_shape.values():
        for key in message:
            for value in POISON_VALUES:
                changed = as_bytes(message | {key: value})
                fast = outcome(lambda changed=changed: DECODER.decode(changed, NOW))  # type: ignore[misc]
                slow = outcome(lambda changed=changed: tolerantly(changed))  # type: ignore[misc]
                assert fast == slow, changed
                assert repr(fast) == repr(slow)


def test_users_of_the_unifier_are_told_that_floats_are_not_exact() -> None:
    with pytest.raises(MalformedDataError, match="parse_float=Decimal"):
        UNIFIER.unify_trade_data(TRADE | {"trade_price": 1.5}, DataSource.WEBSOCKET)


@pytest.mark.parametrize("raw", [None, 5, "text", [], b"bytes"])
def test_the_unifier_refuses_what_is_no_object(raw: Any) -> None:
    for unify in (
        UNIFIER.unify_ticker_data,
        UNIFIER.unify_trade_data,
        UNIFIER.unify_orderbook_data,
        UNIFIER.unify_market_data,
    ):
        for source in (DataSource.REST, DataSource.WEBSOCKET):
            with pytest.raises(MalformedDataError):
                unify(raw, source)  # type: ignore[operator]
    if raw != []:
        with pytest.raises(MalformedDataError):
            UNIFIER.unify_candle_data(raw, DataSource.REST)


def test_complaints_about_monstrous_values_stay_short() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for monster in (10**10_000, "x" * 1_000_000, deep, b"x" * 10_000):
        with pytest.raises(MalformedDataError) as caught:
            UNIFIER.unify_ticker_data({"market": "KRW-BTC", "trade_price": monster, "timestamp": 1}, DataSource.REST)
        assert len(str(caught.value)) < 300
    while deep:  # take it apart by hand: freeing it in one go would recurse
        deep = deep.pop()


def test_books_and_tickers_are_what_their_names_say() -> None:
    kinds = {type(item) for raw in our_messages() for item in DECODER.decode(raw, NOW)}
    assert {TickerData, TradeData, OrderbookData} <= kinds
