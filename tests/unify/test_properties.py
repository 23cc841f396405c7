"""Any subset of optional fields, any spelling of any number, on every channel: exact, and the same both ways."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from upbit_backbone.exchange.fields import FIELD_TABLE, UNITS_KEY, Field, Spelling, Use
from upbit_backbone.exchange.values import to_moment
from upbit_backbone.models.enums import Change, DataSource, Side, StreamType
from upbit_backbone.models.market import OrderbookData
from upbit_backbone.unify import rest
from upbit_backbone.unify.stream import StreamDecoder
from upbit_backbone.unify.unifier import DataUnifier

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
UNIFIER = DataUnifier()
DECODER = StreamDecoder()
MODEL_USES = {Use.REQUIRED, Use.DERIVABLE, Use.OPTIONAL}


def as_people_write(number: Decimal) -> str:
    """No padding zeros, no exponent."""
    text = format(number, "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) if number else "0"


digits = st.integers(min_value=0, max_value=10**22)


@st.composite
def spelled_numbers(draw: st.DrawFn, *, signed: bool = False) -> tuple[str, Decimal]:
    """A number as Upbit (or a tool on the way) might write it, and its value."""
    coefficient, places = draw(digits), draw(st.integers(min_value=0, max_value=16))
    sign = "-" if signed and draw(st.booleans()) else ""
    plain = f"{Decimal(coefficient).scaleb(-places):f}"
    mantissa = f"{Decimal(coefficient).scaleb(-max(0, len(str(coefficient)) - 1)):f}"
    power = draw(st.integers(min_value=-10, max_value=12))
    text = sign + draw(
        st.sampled_from(
            [
                plain,
                plain + ("0" if "." in plain else ".0"),
                plain + ("00000000" if "." in plain else ".00000000"),
                f"{mantissa}E{power}",
                f"{mantissa}e{power:+03d}",
                "0E-8",
                "0",
            ]
        )
    )
    return (text if draw(st.integers(0, 9)) else f'"{text}"'), Decimal(text)


stamps = st.integers(min_value=0, max_value=253_402_300_799_999)
days = st.dates(min_value=date(1970, 1, 1))


@st.composite
def spelled_values(draw: st.DrawFn, row: Field) -> tuple[str, Any]:
    """JSON text for one field, and what the model must hold."""
    kind = row.how.name
    if kind in {"amount", "signed"}:
        return draw(spelled_numbers(signed=kind == "signed"))
    if kind == "moment":
        stamp = draw(stamps)
        return draw(st.sampled_from([str(stamp), f'"{stamp}"', f"{stamp}.0"])), to_moment(stamp)
    if kind == "whole":
        number = draw(st.integers(min_value=0, max_value=2**63 - 1))
        return draw(st.sampled_from([str(number), f'"{number}"', f"{number}.000"])), number
    if kind == "day":
        on = draw(days)
        texts = [on.isoformat(), on.strftime("%Y%m%d") if on.year >= 1000 else on.isoformat()]
        return json.dumps(draw(st.sampled_from(texts))), on
    if kind == "utc text":
        start = draw(st.datetimes(min_value=datetime(1970, 1, 1))).replace(microsecond=0)
        return json.dumps(start.isoformat()), start.replace(tzinfo=UTC)
    if kind == "flag":
        value = draw(st.booleans())
        return json.dumps(value), value
    words: dict[str, Any] = {
        "symbol": st.sampled_from(["KRW-BTC", "BTC-ETH", "USDT-1INCH", "THB-XRP"]),
        "change": st.sampled_from(list(Change)),
        "side": st.sampled_from(list(Side)),
        "stream type": st.sampled_from(list(StreamType)),
    }
    text = draw(words.get(kind, st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)))
    return json.dumps(str(text)), text


@st.composite
def messages(draw: st.DrawFn, kind: str, spelling: Spelling) -> tuple[bytes, dict[str, Any]]:
    """One message with any subset of its optional fields, strange fields among them, in any order."""
    parts: dict[str, str] = {}
    expected: dict[str, Any] = {}
    for row in FIELD_TABLE[kind]:
        key = row.spelled(spelling)
        if key is None or row.use not in MODEL_USES:
            continue
        fate = "there" if row.use is not Use.OPTIONAL else draw(st.sampled_from(["there", "there", "null", "missing"]))
        expected[row.name] = None
        if fate == "there":
            parts[key], expected[row.name] = draw(spelled_values(row))
        elif fate == "null":
            parts[key] = "null"
    if spelling is not Spelling.REST:
        word = "candle.1m" if kind == "candle" else kind
        parts["ty" if spelling is Spelling.SIMPLE else "type"] = json.dumps(word)
    if kind == "orderbook":
        parts[UNITS_KEY[spelling]], expected["asks"], expected["bids"] = draw(sides(spelling))
    if draw(st.booleans()):
        parts["a_field_of_tomorrow"] = draw(st.sampled_from(["1", "null", '{"a":[1e5,"x"]}', '"NaN"']))
    keys = draw(st.permutations(sorted(parts)))
    gap = draw(st.sampled_from(["", " ", "\n  "]))
    body = ",".join(f"{gap}{json.dumps(key)}:{gap}{parts[key]}" for key in keys)
    return f"{{{body}}}".encode(), expected


@st.composite
def sides(draw: st.DrawFn, spelling: Spelling) -> tuple[str, list[Any], list[Any]]:
    asks, bids, units = [], [], []
    for _ in range(draw(st.integers(0, 4))):
        numbers = {row.name: draw(spelled_numbers()) for row in FIELD_TABLE["orderbook_unit"]}
        row_text = (f'"{row.spelled(spelling)}":{numbers[row.name][0]}' for row in FIELD_TABLE["orderbook_unit"])
        units.append("{" + ",".join(row_text) + "}")
        if numbers["ask_price"][1]:
            asks.append((numbers["ask_price"][1], numbers["ask_size"][1]))
        if numbers["bid_price"][1]:
            bids.append((numbers["bid_price"][1], numbers["bid_size"][1]))
    return f"[{','.join(units)}]", asks, bids


def assert_equal_to_the_last_digit(item: Any, expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        actual = getattr(item, name)
        if name in {"asks", "bids"}:
            actual = [(unit.price, unit.size) for unit in actual]
        elif name == "level":
            value = value or Decimal(0)
        assert actual == value, name
        assert isinstance(actual, type(value)), name
        if isinstance(value, Decimal):
            assert str(actual) == as_people_write(value)


STREAM_CASES = [
    (kind, spelling)
    for kind in ("ticker", "trade", "orderbook", "candle")
    for spelling in (Spelling.DEFAULT, Spelling.SIMPLE)
]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(STREAM_CASES).flatmap(lambda case: st.tuples(st.just(case[0]), messages(*case))))
def test_stream_messages_are_exact_and_equal_to_what_the_unifier_makes_of_them(
    case: tuple[str, tuple[bytes, dict[str, Any]]],
) -> None:
    kind, (raw, expected) = case
    (item,) = DECODER.decode(raw, NOW)
    assert_equal_to_the_last_digit(item, expected)
    decoded = json.loads(raw, parse_float=Decimal)
    unified = getattr(UNIFIER, f"unify_{kind}_data")(decoded, DataSource.WEBSOCKET, NOW)
    assert unified == item
    assert repr(unified) == repr(item)
    assert [unified] == DECODER.decode(b"[" + raw + b"]", NOW)


REST_CASES = [(kind, Spelling.REST) for kind in ("ticker", "trade", "orderbook", "candle")]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(REST_CASES).flatmap(
        lambda case: st.tuples(st.just(case[0]), st.lists(messages(*case), min_size=1, max_size=3))
    )
)
def test_rest_rows_are_exact_and_equal_to_what_the_unifier_makes_of_them(
    case: tuple[str, list[tuple[bytes, dict[str, Any]]]],
) -> None:
    kind, rows = case
    body = b"[" + b",".join(raw for raw, _ in rows) + b"]"
    items: list[Any] = {
        "ticker": lambda: rest.decode_tickers(body, NOW),
        "trade": lambda: rest.decode_trades(body, NOW),
        "orderbook": lambda: rest.decode_orderbooks(body, NOW),
        "candle": lambda: rest.decode_candles(body, "5m", NOW),
    }[kind]()
    assert len(items) == len(rows)
    more = {"timeframe": "5m"} if kind == "candle" else {}
    for item, (raw, expected) in zip(items, rows, strict=True):
        assert_equal_to_the_last_digit(item, expected)
        decoded = json.loads(raw, parse_float=Decimal)
        unified = getattr(UNIFIER, f"unify_{kind}_data")(decoded, DataSource.REST, NOW, **more)
        assert unified == item
        assert repr(unified) == repr(item)


@settings(max_examples=75, deadline=None)
@given(st.sampled_from(STREAM_CASES).flatmap(lambda case: messages(*case)))
def test_every_decoded_model_is_equal_after_json_and_back(case: tuple[bytes, dict[str, Any]]) -> None:
    (item,) = DECODER.decode(case[0], NOW)
    assert not isinstance(item, OrderbookData) or item.received_at == NOW
    again = type(item).from_json(item.to_json())  # type: ignore[union-attr]
    assert again == item
    assert repr(again) == repr(item)


@settings(max_examples=200, deadline=None)
@given(spelled_numbers(), st.sampled_from(list(Change)))
def test_a_streamed_trade_carries_the_signed_difference_of_its_absolute_one(
    number: tuple[str, Decimal], direction: Change
) -> None:
    text, value = number
    head = '{"ty":"trade","cd":"KRW-BTC","tp":1,"tv":1,"ttms":1,"tms":1,'
    raw = f'{head}"cp":{text},"c":"{direction}"}}'.encode()
    (trade,) = DECODER.decode(raw, NOW)
    expected = value.copy_negate() if direction is Change.FALL and value else value
    assert trade.change_amount == expected  # type: ignore[union-attr]
    assert str(trade.change_amount) == as_people_write(expected)  # type: ignore[union-attr]
