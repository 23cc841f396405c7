"""What is written as Upbit writes it is read again as what it was."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from tests.sinks.conftest import at, book, candle, ticker, trade
from upbit_backbone.exchange.endpoints import candles, orderbooks, tickers, trades
from upbit_backbone.exchange.fields import Spelling
from upbit_backbone.models.enums import Change, StreamType
from upbit_backbone.models.market import CandleData, TradeData
from upbit_backbone.models.number import plain
from upbit_backbone.unify import writer
from upbit_backbone.unify.rest import decode_answer
from upbit_backbone.unify.stream import StreamDecoder, book_header, peek
from upbit_backbone.unify.writer import encode_frame, encode_list, type_of

ITEMS = [
    trade(1, change_amount=plain(trade(1).price - 106_700_000), best_ask_price=trade(2).price, published_at=at(0.2)),
    trade(2, stream_type=StreamType.SNAPSHOT, change_amount=plain(trade(1).price * 0)),
    ticker(3, trade_timestamp=at(0.25), last_trade_volume=plain(trade(1).volume), stream_type=StreamType.SNAPSHOT),
    replace(ticker(4, change="NEW WORD"), change_amount=None, trade_timestamp=at(0.31)),
    book(5),
    replace(book(6), timestamp=at(0.600001), bids=(), level=plain(trade(1).volume)),
    candle(7, last_trade_at=at(450)),
]


def as_streamed(item):
    """What the stream leaves out, or tells of everything."""
    item = replace(item, stream_type=item.stream_type or StreamType.REALTIME)
    if isinstance(item, TradeData) and item.change_amount == 0:
        return replace(item, change_amount=plain(abs(item.change_amount)))
    return item


@pytest.mark.parametrize("spelling", [Spelling.DEFAULT, Spelling.SIMPLE])
@pytest.mark.parametrize("item", ITEMS, ids=type_of)
def test_a_frame_is_read_as_what_it_was_made_of(item, spelling):
    frame = encode_frame(item, spelling)
    (again,) = StreamDecoder().decode(frame, at(9))
    expected = as_streamed(item)
    if expected.__class__ is type(again) and getattr(expected, "change_amount", 0) is None:
        again = replace(again, change_amount=None, change_rate=expected.change_rate)
    assert again == expected
    assert again.received_at == at(9)


@pytest.mark.parametrize("spelling", [Spelling.DEFAULT, Spelling.SIMPLE])
@pytest.mark.parametrize(
    "changes",
    [{}, {"change_amount": None}, {"change_amount": plain(Decimal("-2E-7"))}, {"published_at": None, "side": None}],
)
def test_the_short_way_of_a_trade_writes_what_the_table_says(spelling, changes):
    for item in (each for each in ITEMS if isinstance(each, TradeData)):
        changed = replace(item, **changes)
        assert encode_frame(changed, spelling) == writer._ENCODE(writer._message(changed, spelling))


@pytest.mark.parametrize("spelling", [Spelling.DEFAULT, Spelling.SIMPLE])
def test_the_head_of_a_frame_tells_what_it_is_without_decoding(spelling):
    for item in ITEMS:
        found = peek(encode_frame(item, spelling))
        assert found is not None
        assert (found[0].value, found[1]) == (type_of(item), item.symbol)
    header = book_header(encode_frame(book(5), spelling))
    assert header is not None
    assert (header.symbol, header.timestamp, header.level) == ("KRW-BTC", at(0.5), 0)


def test_an_answer_of_rest_is_read_as_what_it_was_made_of():
    asked = {
        "trade": trades("KRW-BTC", 10),
        "ticker": tickers(["KRW-BTC"]),
        "orderbook": orderbooks(["KRW-BTC"]),
        "candle.1m": candles("1m", "KRW-BTC", 10),
    }
    for item in ITEMS:
        (again,) = decode_answer(asked[type_of(item)], encode_list([item]))
        kept = {name: getattr(again, name) for name in ("source", "stream_type", "received_at")}
        for name in ("best_ask_price", "published_at", "last_trade_side", "is_trading_suspended"):
            kept |= {name: getattr(again, name)} if hasattr(again, name) else {}
        if isinstance(item, CandleData):
            kept["is_closed"] = again.is_closed
        if getattr(item, "change_amount", 0) is None:
            kept["change_amount"] = again.change_amount
        assert again == replace(item, **kept)


def test_a_fall_is_a_fall_on_the_stream():
    falling = trade(1, change_amount=-plain(trade(1).volume))
    frame = encode_frame(falling)
    assert b'"change":"FALL"' in frame
    assert str(Change.FALL) == "FALL"
    (again,) = StreamDecoder().decode(frame, at(1))
    assert again.change_amount == falling.change_amount
