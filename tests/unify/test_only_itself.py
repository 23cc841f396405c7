"""A field costs at most itself, a row costs only itself: for every row of the field table, on REST and stream."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upbit_backbone.errors import MalformedDataError, NoTradesYetError
from upbit_backbone.exchange.fields import FIELD_TABLE, Field, Spelling, Use
from upbit_backbone.models.enums import Change, Side, StreamType
from upbit_backbone.unify import rest
from upbit_backbone.unify.stream import StreamDecoder

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DECODER = StreamDecoder()
WORDS = {"change": Change, "side": Side, "stream type": StreamType}

REST_DECODERS: dict[str, Callable[[bytes], rest.Rows[Any]]] = {
    "ticker": lambda body: rest.decode_tickers(body, NOW),
    "trade": lambda body: rest.decode_trades(body, NOW),
    "orderbook": lambda body: rest.decode_orderbooks(body, NOW),
    "candle": lambda body: rest.decode_candles(body, "1d", NOW),
    "instrument": lambda body: rest.decode_instruments(body, NOW),
    "market": lambda body: rest.decode_markets(body, NOW),
}
ROWS: dict[str, dict[str, Any]] = {
    "ticker": {
        "market": "KRW-BTC", "trade_price": 3, "timestamp": 1793697435188, "signed_change_rate": 1,
        "signed_change_price": 1, "change": "RISE", "change_price": 1, "change_rate": 1, "high_price": 4,
        "low_price": 2, "opening_price": 2, "prev_closing_price": 2, "trade_volume": 5, "acc_trade_price": 6,
        "acc_trade_price_24h": 7, "acc_trade_volume": 8, "acc_trade_volume_24h": 9, "highest_52_week_price": 9,
        "highest_52_week_date": "2026-01-20", "lowest_52_week_price": 1, "lowest_52_week_date": "2026-02-20",
        "trade_timestamp": 1793697435123, "trade_date": "20261103", "trade_time": "091715",
    },
    "trade": {
        "market": "KRW-BTC", "trade_price": 3, "trade_volume": 1, "timestamp": 1793697435188, "ask_bid": "BID",
        "sequential_id": 17936974351230000, "prev_closing_price": 2, "change_price": 1,
        "trade_date_utc": "2026-11-03", "trade_time_utc": "09:17:15",
    },
    "orderbook": {
        "market": "KRW-BTC", "timestamp": 1793697435188, "total_ask_size": 3, "total_bid_size": 4, "level": 0,
        "orderbook_units": [{"ask_price": 4, "ask_size": 1, "bid_price": 3, "bid_size": 2}],
    },
    "candle": {
        "market": "KRW-BTC", "candle_date_time_utc": "2026-11-03T00:00:00", "opening_price": 1, "high_price": 4,
        "low_price": 1, "trade_price": 3, "candle_acc_trade_volume": 5, "candle_acc_trade_price": 15,
        "timestamp": 1793697435188, "prev_closing_price": 2, "change_price": 1, "change_rate": 1,
        "converted_trade_price": 3, "first_day_of_period": "2026-11-02",
    },
    "instrument": {"market": "KRW-BTC", "quote_currency": "KRW", "tick_size": "1000", "supported_levels": ["0", "10"]},
    "market": {
        "market": "KRW-BTC", "korean_name": "비트코인", "english_name": "Bitcoin", "market_warning": "NONE",
        "market_event": {"warning": True, "caution": {"PRICE_FLUCTUATIONS": True}},
    },
}  # fmt: skip

# No JSON of these is any field of Upbit's: an object where a number was, a date written anew, a number of no size.
JUNK: list[Any] = [
    {"level": 2}, {}, [], [1], True, "x\ud800", -1.5, 1e308, "", "NaN", "-Infinity", "1.2.2026", {"a": {"b": []}},
]  # fmt: skip


def stream_message(kind: str, spelling: Spelling) -> dict[str, Any]:
    """A whole message, made of the row that REST would send and the words of the table."""
    message: dict[str, Any] = {
        "ty" if spelling is Spelling.SIMPLE else "type": "candle.1m" if kind == "candle" else kind
    }
    for row in FIELD_TABLE[kind]:
        key = row.spelled(spelling)
        if key is not None:
            message[key] = ROWS[kind].get(row.rest or "", EXAMPLES[row.how.name])
    if kind == "orderbook":
        units = [{row.spelled(spelling): 3 for row in FIELD_TABLE["orderbook_unit"]}]
        message["obu" if spelling is Spelling.SIMPLE else "orderbook_units"] = units
    return message


EXAMPLES: dict[str, Any] = {
    "symbol": "KRW-BTC", "amount": 3, "signed": 1, "whole": 7, "moment": 1793697435188, "day": "2026-11-03",
    "utc text": "2026-11-03T00:00:00", "text": "ACTIVE", "flag": False, "change": "RISE", "side": "ASK",
    "stream type": "REALTIME",
}  # fmt: skip


def cases() -> list[Any]:
    """Each row of the table on each channel that sends it."""
    return [
        pytest.param(kind, spelling, row, id=f"{kind}-{spelling}-{row.name}")
        for kind, rows in FIELD_TABLE.items()
        for row in rows
        for spelling in Spelling
        if row.spelled(spelling) is not None and kind != "orderbook_unit"
    ]


def put(message: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    outer, dot, inner = key.partition(".")
    return message | {outer: message[outer] | {inner: value} if dot else value}


def read(kind: str, spelling: Spelling, messages: list[dict[str, Any]]) -> tuple[list[Any], list[Any], list[Any]]:
    """Models, unread rows, unread fields, through the door that such bytes come by."""
    raw = json.dumps(messages, separators=(",", ":")).encode()
    if spelling is Spelling.REST:
        answer = REST_DECODERS[kind](raw)
        return list(answer), list(answer.unread), list(answer.unread_fields)
    told: list[Any] = []
    items = DECODER.decode(raw, NOW, told.append)
    is_row = [hasattr(each, "error") for each in told]
    return (
        list(items),
        [each for each, is_one in zip(told, is_row, strict=True) if is_one],
        [each for each, is_one in zip(told, is_row, strict=True) if not is_one],
    )


def good_message(kind: str, spelling: Spelling) -> dict[str, Any]:
    return ROWS[kind] if spelling is Spelling.REST else stream_message(kind, spelling)


def is_unreadable(row: Field, value: Any) -> bool:
    try:
        row.how.tolerant(value)
    except (ValueError, TypeError, ArithmeticError):
        return True
    return False


@pytest.mark.parametrize(("kind", "spelling", "row"), cases())
def test_junk_in_a_field_costs_the_field_or_where_it_is_needed_its_row_and_is_told_by_name(
    kind: str, spelling: Spelling, row: Field
) -> None:
    good = good_message(kind, spelling)
    (whole,), _, _ = read(kind, spelling, [good])
    key = row.spelled(spelling) or ""
    junk = [value for value in JUNK if is_unreadable(row, as_decoded(value))]
    assert len(junk) >= 3
    for value in junk:
        models, unread_rows, unread_fields = read(kind, spelling, [good, put(good, key, value), good])
        assert models[0] == models[-1] == whole
        if row.use is Use.REQUIRED:
            assert len(models) == 2
            (refused,) = unread_rows
            assert isinstance(refused.error, MalformedDataError)
            assert (refused.place, refused.error.field) == (1, f"[1].{key}")
            continue
        assert not unread_rows
        model = models[1]
        if row.use is Use.OPTIONAL:
            assert getattr(model, row.name) in (None, 0) if row.name == "level" else getattr(model, row.name) is None
        for field in fields(model):
            if field.name != row.name and row.use is Use.OPTIONAL and not is_made_of(field.name, row):
                assert getattr(model, field.name) == getattr(whole, field.name), field.name
        is_read = row.use is not Use.FALLBACK  # a fallback is looked at only where it is needed
        assert [(each.kind, each.name) for each in unread_fields] == ([(kind, row.name)] if is_read else [])
        assert all(each.key == f"[1].{key}" for each in unread_fields)


def as_decoded(value: Any) -> Any:
    return json.loads(json.dumps(value), parse_float=Decimal)


def is_made_of(name: str, row: Field) -> bool:
    """Whether a model's field is worked out from this row as well."""
    return name == "change_amount" and row.name in ("change", "absolute_change_amount")


@pytest.mark.parametrize(("kind", "spelling", "row"), cases())
def test_a_word_nobody_knew_is_kept_as_text(kind: str, spelling: Spelling, row: Field) -> None:
    if row.how.name not in WORDS:
        assert row.how.name not in ("change", "side", "stream type")
        return
    message = put(good_message(kind, spelling), row.spelled(spelling) or "", "UPPER")
    (model,), unread_rows, unread_fields = read(kind, spelling, [message])
    assert not unread_rows
    assert not unread_fields
    if row.use is Use.OPTIONAL:
        assert getattr(model, row.name) == "UPPER"
        assert type(model).from_json(model.to_json()) == model


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_of_a_list_with_any_rows_broken_exactly_the_others_are_given(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(REST_DECODERS)))
    spellings = [Spelling.REST] if kind in ("instrument", "market") else list(Spelling)
    spelling = data.draw(st.sampled_from(spellings))
    good = good_message(kind, spelling)
    required = [row.spelled(spelling) for row in FIELD_TABLE[kind] if row.use is Use.REQUIRED]
    breakages: list[Any] = [None, 5, "row", []]
    breakages += [put(good, key or "", {}) for key in required]
    breakages += [{name: value for name, value in good.items() if name != key} for key in required]
    rows = data.draw(st.lists(st.sampled_from([good, *breakages]), min_size=1, max_size=8))
    broken = [place for place, row in enumerate(rows) if row is not good]
    if len(broken) == len(rows) and spelling is not Spelling.REST:
        with pytest.raises(MalformedDataError):
            read(kind, spelling, rows)
        return
    models, unread_rows, _ = read(kind, spelling, rows)
    (whole,), _, _ = read(kind, spelling, [good])
    assert models == [whole] * (len(rows) - len(broken))
    assert [each.place for each in unread_rows] == broken


@pytest.mark.parametrize("spelling", Spelling)
def test_a_market_without_a_trade_yet_has_an_error_of_its_own(spelling: Spelling) -> None:
    good = good_message("ticker", spelling)
    key = "tp" if spelling is Spelling.SIMPLE else "trade_price"
    models, (row,), _ = read("ticker", spelling, [good, good | {key: None}])
    assert len(models) == 1
    assert isinstance(row.error, NoTradesYetError)
    assert row.symbol == row.error.symbol == "KRW-BTC"
    assert row.error.retryable


def test_instruments_of_the_regions_say_no_levels_and_their_markets_warn_by_a_word() -> None:
    (instrument,) = rest.decode_instruments(b'[{"market":"SGD-BTC","quote_currency":"SGD","tick_size":"1"}]')
    assert (instrument.tick_size, instrument.supported_levels) == (1, None)
    markets = rest.decode_markets(
        b'[{"market":"IDR-A","market_warning":"CAUTION"},{"market":"IDR-B","market_warning":"NONE"},'
        b'{"market":"IDR-C","market_warning":"ODD"},{"market":"IDR-D"}]'
    )
    assert [market.warning for market in markets] == [True, False, None, None]
    assert markets[2].market_warning == "ODD"
