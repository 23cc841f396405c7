"""What the fields mean: signs, times, padding, units and old spellings."""

from __future__ import annotations

import json
import pickle
from dataclasses import FrozenInstanceError, fields
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from upbit_backbone.errors import MalformedDataError, UnknownTimeframeError
from upbit_backbone.exchange.fields import FIELD_TABLE, Spelling, Use
from upbit_backbone.models.enums import Change, DataSource, DataType, Side, StreamType
from upbit_backbone.models.market import CandleData, MarketInfo, OrderbookData, OrderbookUnit, TickerData, TradeData
from upbit_backbone.unify import rest
from upbit_backbone.unify.stream import StreamDecoder, peek
from upbit_backbone.unify.unifier import DataUnifier

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
UNIFIER = DataUnifier()
TICKER_ROW: dict[str, Any] = {"market": "KRW-BTC", "trade_price": 100, "timestamp": 1793697435188}
TRADE_ROW: dict[str, Any] = {"market": "KRW-BTC", "trade_price": 100, "trade_volume": 2}
CANDLE_ROW: dict[str, Any] = {
    "market": "KRW-BTC", "opening_price": 1, "high_price": 3, "low_price": 1, "trade_price": 2,
    "candle_acc_trade_volume": 5,
}  # fmt: skip


def decode(message: object) -> Any:
    (item,) = StreamDecoder().decode(json.dumps(message, separators=(",", ":")).encode(), NOW)
    return item


def trade(**more: Any) -> Any:
    return decode({"ty": "trade", "cd": "KRW-BTC", "tp": 100, "tv": 2, "ttms": 1793697435123, **more})


class TestSigns:
    def test_a_ticker_takes_the_signed_change(self) -> None:
        row = TICKER_ROW | {"change": "FALL", "change_price": 5, "signed_change_price": -5}
        assert UNIFIER.unify_ticker_data(row, DataSource.REST).change_amount == -5

    def test_without_the_signed_change_the_direction_gives_the_sign(self) -> None:
        row = TICKER_ROW | {"change": "FALL", "change_price": 5, "change_rate": Decimal("0.05")}
        ticker = UNIFIER.unify_ticker_data(row, DataSource.REST)
        assert (ticker.change_amount, ticker.change_rate) == (-5, Decimal("-0.05"))
        assert ticker.change is Change.FALL

    def test_without_a_direction_no_sign_is_made_up(self) -> None:
        assert UNIFIER.unify_ticker_data(TICKER_ROW | {"change_price": 5}, DataSource.REST).change_amount is None
        assert trade(cp=5).change_amount is None

    def test_a_streamed_trade_is_absolute_and_a_rest_trade_signed(self) -> None:
        assert trade(c="FALL", cp=5).change_amount == -5
        assert trade(c="RISE", cp=5).change_amount == 5
        row = TRADE_ROW | {"timestamp": 1, "change_price": -5, "ask_bid": "ASK"}
        unified = UNIFIER.unify_trade_data(row, DataSource.REST)
        assert (unified.change_amount, unified.side) == (-5, Side.ASK)

    def test_negating_keeps_every_digit(self) -> None:
        digits = "0.1234567890123456789012345678901234567891"
        raw = f'{{"ty":"trade","cd":"KRW-BTC","tp":1,"tv":1,"ttms":1,"c":"FALL","cp":{digits}}}'.encode()
        (item,) = StreamDecoder().decode(raw, NOW)
        assert str(item.change_amount) == f"-{digits}"  # type: ignore[union-attr]


class TestTimes:
    def test_milliseconds_become_aware_utc_exactly(self) -> None:
        assert trade().timestamp == datetime(2026, 11, 3, 9, 17, 15, 123_000, tzinfo=UTC)
        assert trade().timestamp.tzinfo is UTC

    def test_microseconds_are_told_by_their_size(self) -> None:
        assert trade(tms=1793697435188123).published_at == datetime(2026, 11, 3, 9, 17, 15, 188_123, tzinfo=UTC)

    def test_the_last_moment_of_the_calendar_is_exact_and_the_next_is_malformed(self) -> None:
        last = 253_402_300_799_999_999
        assert trade(ttms=last).timestamp == datetime.max.replace(tzinfo=UTC)
        with pytest.raises(MalformedDataError) as caught:
            trade(ttms=last + 1)
        assert caught.value.field == "ttms"

    @pytest.mark.parametrize(
        ("text", "expected"),
        [("09:17:15", (9, 17, 15)), ("18:17", (18, 17, 0)), ("18", (18, 0, 0)), ("091715", (9, 17, 15))],
    )
    def test_date_and_time_serve_where_the_stamp_is_missing(self, text: str, expected: tuple[int, ...]) -> None:
        item = decode({"ty": "trade", "cd": "KRW-BTC", "tp": 1, "tv": 1, "td": "2026-11-03", "ttm": text})
        assert item.timestamp == datetime(2026, 11, 3, *expected, tzinfo=UTC)

    def test_the_stamp_is_preferred_to_date_and_time(self) -> None:
        assert trade(td="1999-01-01", ttm="00:00").timestamp.year == 2026

    def test_a_trade_without_any_time_is_malformed(self) -> None:
        with pytest.raises(MalformedDataError) as caught:
            UNIFIER.unify_trade_data(TRADE_ROW, DataSource.REST)
        assert caught.value.field == "timestamp"

    def test_the_trade_time_of_a_ticker_comes_from_its_other_format(self) -> None:
        row = TICKER_ROW | {"trade_date": "20261103", "trade_time": "091715"}
        ticker = UNIFIER.unify_ticker_data(row, DataSource.REST)
        assert ticker.trade_timestamp == datetime(2026, 11, 3, 9, 17, 15, tzinfo=UTC)

    @pytest.mark.parametrize("text", ["2026-12-01", "20261201", {"year": 2026, "month": 12, "day": 1}])
    def test_a_delisting_date_is_read_in_every_shape_anyone_described(self, text: object) -> None:
        item = decode({"type": "ticker", "code": "KRW-BTC", "trade_price": 1, "timestamp": 1, "delisting_date": text})
        assert item.delisting_date == date(2026, 12, 1)


UNIT = {"ask_price": 11, "ask_size": 1, "bid_price": 10, "bid_size": 2}


class TestBooks:
    def book(self, *units: dict[str, int], **more: Any) -> OrderbookData:
        message = {"market": "BTC-ETH", "timestamp": 1, "total_ask_size": 1, "total_bid_size": 2}
        (book,) = rest.decode_orderbooks(json.dumps([message | {"orderbook_units": units} | more]).encode(), NOW)
        return book

    def test_padding_is_no_level(self) -> None:
        book = self.book(UNIT, {"ask_price": 0, "ask_size": 0, "bid_price": 9, "bid_size": 1})
        assert book.asks == (OrderbookUnit(Decimal(11), Decimal(1)),)
        assert book.bids == (OrderbookUnit(Decimal(10), Decimal(2)), OrderbookUnit(Decimal(9), Decimal(1)))

    def test_an_empty_side_has_no_best_price_and_no_spread(self) -> None:
        book = self.book({"ask_price": 0, "ask_size": 0, "bid_price": 9, "bid_size": 1})
        assert book.best_ask is None
        assert (book.spread, book.spread_percent, book.mid_price) == (None, None, None)

    def test_a_book_without_units_is_an_empty_book(self) -> None:
        assert self.book().asks == self.book().bids == ()

    def test_the_spread_is_in_per_cent_of_the_best_bid(self) -> None:
        assert self.book(UNIT).spread_percent == 10

    def test_no_level_means_no_grouping(self) -> None:
        assert self.book(UNIT).level == 0
        assert self.book(UNIT, level=10000).level == 10000


class TestCandles:
    def unify(self, **more: Any) -> CandleData:
        return UNIFIER.unify_candle_data(CANDLE_ROW | more, DataSource.REST)

    @pytest.mark.parametrize("data_type", [each for each in DataType if each.is_candle])
    def test_a_stream_says_its_unit_and_that_it_is_forming(self, data_type: DataType) -> None:
        message = CANDLE_ROW | {
            "type": data_type.value,
            "code": "KRW-BTC",
            "candle_date_time_utc": "2026-11-03T08:00:00",
        }
        candle = decode(message)
        words = {"60m": "1h", "240m": "4h"}
        unit = data_type.value.removeprefix("candle.")
        assert candle.timeframe == words.get(unit, unit)
        assert not candle.is_closed
        assert UNIFIER.unify_candle_data(message, DataSource.WEBSOCKET, NOW) == candle

    @pytest.mark.parametrize(
        ("more", "expected"),
        [
            ({"unit": 5}, "5m"),
            ({"unit": 60}, "1h"),
            ({}, "1s"),
            ({"prev_closing_price": 2}, "1d"),
            ({"first_day_of_period": "2026-11-02"}, "1w"),
            ({"first_day_of_period": "2026-11-02", "timestamp": 1794182399999}, "1w"),
            ({"first_day_of_period": "2026-11-01", "candle_date_time_utc": "2026-11-01T00:00:00"}, "1M"),
            (
                {
                    "first_day_of_period": "2026-01-01",
                    "candle_date_time_utc": "2026-01-01T00:00:00",
                    "timestamp": 1793697435123,
                },
                "1y",
            ),
        ],
    )
    def test_without_being_told_the_unit_shows_in_the_row(self, more: dict[str, Any], expected: str) -> None:
        assert self.unify(**({"candle_date_time_utc": "2026-11-02T00:00:00"} | more)).timeframe == expected

    def test_a_list_keeps_its_order_and_names_the_bad_row(self) -> None:
        rows = [CANDLE_ROW | {"candle_date_time_utc": f"2026-11-03T09:0{minute}:00", "unit": 1} for minute in (2, 1, 0)]
        candles = UNIFIER.unify_candle_data(rows, DataSource.REST, NOW)
        assert [candle.timestamp.minute for candle in candles] == [2, 1, 0]
        with pytest.raises(MalformedDataError) as caught:
            UNIFIER.unify_candle_data([*rows, rows[0] | {"low_price": None}], DataSource.REST)
        assert caught.value.field == "[3].low_price"

    def test_a_timeframe_may_be_spelled_in_any_known_way_and_no_other(self) -> None:
        body = json.dumps([CANDLE_ROW | {"candle_date_time_utc": "2026-11-03T09:00:00"}]).encode()
        assert {rest.decode_candles(body, word)[0].timeframe for word in ("1h", "60m", "minutes/60")} == {"1h"}
        with pytest.raises(UnknownTimeframeError):
            rest.decode_candles(body, "7m")

    def test_a_row_of_a_minute_unit_that_does_not_exist_is_malformed(self) -> None:
        for unit in (7, "x", 1.5, [], -1):
            with pytest.raises(MalformedDataError):
                self.unify(candle_date_time_utc="2026-11-03T09:00:00", unit=unit)


class TestOthers:
    def test_markets_carry_their_raised_cautions(self) -> None:
        event = {"warning": True, "caution": {"PRICE_FLUCTUATIONS": True, "TRADING_VOLUME_SOARING": False}}
        market = UNIFIER.unify_market_data({"market": "KRW-BTC", "market_event": event}, DataSource.REST)
        assert (market.warning, market.cautions) == (True, ("PRICE_FLUCTUATIONS",))
        assert (market.quote, market.base) == ("KRW", "BTC")

    def test_markets_without_details_leave_the_warning_open(self) -> None:
        (market,) = rest.decode_markets(b'[{"market":"KRW-BTC","korean_name":"x","english_name":"y"}]')
        assert market == MarketInfo("KRW-BTC", "x", "y", DataSource.REST)

    def test_levels_offered_are_exact(self) -> None:
        body = b'[{"market":"KRW-XRP","quote_currency":"KRW","tick_size":"0.1","supported_levels":["0","0.5"]}]'
        (instrument,) = rest.decode_instruments(body)
        assert (instrument.tick_size, instrument.supported_levels) == (Decimal("0.1"), (Decimal(0), Decimal("0.5")))

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            (b'{"error":{"name":404,"message":"Code not found"}}', (404, "Code not found")),
            (b'{"error":{"name":"not_found","message":"x\\ny"}}', ("not_found", "x\\u000ay")),
            (b'{"error":{}}', ("", "")),
            (b'{"error":"text"}', None),
            (b"Too many API requests.", None),
            (b"<html>", None),
            (b"[]", None),
            (b"\xff", None),
            (b"", None),
            (b'{"error":{"message":"' + b"x" * 100_000 + b'"}}', None),
        ],
    )
    def test_an_error_envelope_is_found_or_not_but_never_raises(self, body: bytes, expected: object) -> None:
        assert rest.decode_error(body) == expected

    def test_an_empty_answer_is_an_empty_list(self) -> None:
        assert rest.decode_tickers(b"[]") == rest.decode_trades(b" [ ] ") == rest.decode_candles(b"[]", "1d") == []

    @pytest.mark.parametrize(
        ("raw", "expected"),
        [
            (b'{"ty":"orderbook","cd":"KRW-BTC","tms":1}', (DataType.ORDERBOOK, "KRW-BTC")),
            (b'{"type":"candle.240m","code":"BTC-1INCH","x":1}', (DataType.CANDLE_240M, "BTC-1INCH")),
            (b'{"type":"nonsense","code":"KRW-BTC"}', None),
            (b'{"cd":"KRW-BTC","ty":"trade"}', None),
            (b'[{"ty":"trade","cd":"KRW-BTC"}]', None),
            (b'{"ty":"trade","cd":"\\u004bRW-BTC"}', None),
            (b'{"status":"UP"}', None),
            (b"", None),
        ],
    )
    def test_peek_looks_at_the_head_only(self, raw: bytes, expected: object) -> None:
        assert peek(raw) == expected


class TestModelsMadeFast:
    """The decoders fill models without calling `__init__`; nobody may notice."""

    ITEM = trade(sid=1, ab="BID", st="REALTIME", tms=1793697435188)

    def test_they_are_what_the_constructor_makes(self) -> None:
        values = {field.name: getattr(self.ITEM, field.name) for field in fields(TradeData)}
        assert TradeData(**values) == self.ITEM
        assert repr(TradeData(**values)) == repr(self.ITEM)
        assert type(self.ITEM) is TradeData

    def test_they_are_frozen(self) -> None:
        with pytest.raises(FrozenInstanceError):
            self.ITEM.price = Decimal(1)
        with pytest.raises(FrozenInstanceError):
            del self.ITEM.price

    def test_they_pickle_and_hash(self) -> None:
        assert pickle.loads(pickle.dumps(self.ITEM)) == self.ITEM  # noqa: S301
        assert len({self.ITEM, pickle.loads(pickle.dumps(self.ITEM))}) == 1  # noqa: S301

    def test_they_share_the_text_of_the_symbol(self) -> None:
        assert trade().symbol is trade().symbol

    def test_words_are_members(self) -> None:
        assert self.ITEM.side is Side.BID
        assert self.ITEM.stream_type is StreamType.REALTIME
        assert self.ITEM.source is DataSource.WEBSOCKET


MODELS = {
    "ticker": TickerData,
    "trade": TradeData,
    "orderbook": OrderbookData,
    "candle": CandleData,
    "market": MarketInfo,
}
OURS = {"source", "received_at", "degraded", "is_backfilled", "is_closed", "is_filled", "timeframe", "asks", "bids"}


class TestTable:
    @pytest.mark.parametrize("kind", MODELS)
    def test_every_field_of_a_model_has_a_row_or_is_our_own(self, kind: str) -> None:
        rows = {row.name for row in FIELD_TABLE[kind] if row.use not in {Use.HELPER, Use.FALLBACK}}
        names = {field.name for field in fields(MODELS[kind])}
        assert rows == names - OURS - ({"timestamp"} if kind == "market" else set())

    @pytest.mark.parametrize("kind", FIELD_TABLE)
    @pytest.mark.parametrize("spelling", Spelling)
    def test_no_name_means_two_things_on_one_channel(self, kind: str, spelling: Spelling) -> None:
        names = [row.spelled(spelling) for row in FIELD_TABLE[kind] if row.spelled(spelling)]
        assert len(names) == len(set(names))
