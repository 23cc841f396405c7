"""REST as Upbit answers it."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from upbit_backbone.simulator import FakeUpbit

Get = Callable[..., Any]


def test_the_list_of_pairs_names_them_in_two_languages(upbit: FakeUpbit, get: Get) -> None:
    rows = get(upbit, "/v1/market/all").json
    assert rows[0] == {"market": "KRW-BTC", "korean_name": "비트코인", "english_name": "Bitcoin"}
    assert [row["market"] for row in rows] == upbit.markets()


def test_details_add_the_warnings(upbit: FakeUpbit, get: Get) -> None:
    event = get(upbit, "/v1/market/all", is_details="true").json[0]["market_event"]
    assert set(event) == {"warning", "caution"}
    assert len(event["caution"]) == 5


def test_a_full_venue_has_855_pairs_of_three_quotes(get: Get) -> None:
    with FakeUpbit(trades_per_second=0) as upbit:
        codes = upbit.markets()
    counts = {quote: sum(code.startswith(quote + "-") for code in codes) for quote in ("KRW", "BTC", "USDT")}
    assert counts == {"KRW": 289, "BTC": 328, "USDT": 238}
    assert len(set(codes)) == 855


@pytest.mark.parametrize("path", ["seconds", "minutes/1", "minutes/240", "days", "weeks", "months", "years"])
def test_candles_come_newest_first_and_once_each(upbit: FakeUpbit, get: Get, path: str) -> None:
    rows = get(upbit, f"/v1/candles/{path}", market="KRW-BTC", count=200).json
    starts = [row["candle_date_time_utc"] for row in rows]
    assert starts == sorted(set(starts), reverse=True)
    for row in rows:
        utc, kst = (datetime.fromisoformat(row[f"candle_date_time_{zone}"]) for zone in ("utc", "kst"))
        assert kst - utc == timedelta(hours=9)
        assert row["low_price"] <= min(row["opening_price"], row["trade_price"])
        assert row["high_price"] >= max(row["opening_price"], row["trade_price"])
        assert row["candle_acc_trade_volume"] > 0


def test_the_bound_of_candles_is_exclusive_and_paging_repeats_nothing(upbit: FakeUpbit, get: Get) -> None:
    first = get(upbit, "/v1/candles/minutes/1", market="KRW-BTC", count=50).json
    oldest = first[-1]["candle_date_time_utc"]
    second = get(upbit, "/v1/candles/minutes/1", market="KRW-BTC", count=50, to=oldest + "Z").json
    whole = get(upbit, "/v1/candles/minutes/1", market="KRW-BTC", count=100).json
    assert first + second == whole


@pytest.mark.parametrize(
    "to", ["2026-11-20T05:00:00Z", "2026-11-20T14:00:00+09:00", "2026-11-20T05:00:00", "2026-11-20 05:00:00"]
)
def test_all_spellings_of_a_moment_mean_the_same(upbit: FakeUpbit, get: Get, to: str) -> None:
    row = get(upbit, "/v1/candles/minutes/60", market="KRW-BTC", to=to).json[0]
    assert row["candle_date_time_utc"] == "2026-11-20T04:00:00"


def test_an_offset_that_is_not_encoded_is_refused(upbit: FakeUpbit, get: Get) -> None:
    answer = get(upbit, "/v1/candles/days?market=KRW-BTC&to=2026-11-20T14:00:00+09:00")
    assert (answer.status, answer.json["error"]["name"]) == (400, 400)
    assert answer.json["error"]["message"] == "Invalid parameter. Check the given value!"


@pytest.mark.parametrize("unit", [3, 5, 10, 15, 30, 60, 240])
def test_every_unit_is_the_sum_of_its_minutes(upbit: FakeUpbit, get: Get, unit: int) -> None:
    rows = get(upbit, f"/v1/candles/minutes/{unit}", market="KRW-BTC", count=2, to="2026-11-19T20:00:00Z").json
    for row in rows:
        start = datetime.fromisoformat(row["candle_date_time_utc"])
        end = start + timedelta(minutes=unit)
        minutes: list[Any] = []
        while end > start:
            page = get(upbit, "/v1/candles/minutes/1", market="KRW-BTC", count=200, to=end.isoformat() + "Z").json
            page = [one for one in page if datetime.fromisoformat(one["candle_date_time_utc"]) >= start]
            if not page:
                break
            minutes += page
            end = datetime.fromisoformat(page[-1]["candle_date_time_utc"])
        assert row["candle_acc_trade_volume"] == sum(one["candle_acc_trade_volume"] for one in minutes)
        assert abs(row["candle_acc_trade_price"] - sum(m["candle_acc_trade_price"] for m in minutes)) < Decimal("0.001")
        assert row["high_price"] == max(one["high_price"] for one in minutes)
        assert row["opening_price"] == minutes[-1]["opening_price"]
        assert row["trade_price"] == minutes[0]["trade_price"]


def test_a_day_is_the_sum_of_its_hours_and_a_week_of_its_days(upbit: FakeUpbit, get: Get) -> None:
    day = get(upbit, "/v1/candles/days", market="KRW-ETH", to="2026-11-19T00:00:01Z").json[0]
    hours = get(upbit, "/v1/candles/minutes/60", market="KRW-ETH", count=24, to="2026-11-20T00:00:00Z").json
    hours = [hour for hour in hours if hour["candle_date_time_utc"].startswith("2026-11-19")]
    assert day["candle_acc_trade_volume"] == sum(hour["candle_acc_trade_volume"] for hour in hours)
    week = get(upbit, "/v1/candles/weeks", market="KRW-ETH", to="2026-11-16T00:00:00Z").json[0]
    days = get(upbit, "/v1/candles/days", market="KRW-ETH", count=7, to="2026-11-16T00:00:00Z").json
    assert week["first_day_of_period"] == "2026-11-09"
    assert week["candle_acc_trade_volume"] == sum(one["candle_acc_trade_volume"] for one in days)


def test_minute_candles_are_the_trades_of_their_minute(upbit: FakeUpbit, get: Get) -> None:
    trades = get(upbit, "/v1/trades/ticks", market="KRW-BTC", count=100, to="05:00:00").json
    minute = get(upbit, "/v1/candles/minutes/1", market="KRW-BTC", to="2026-11-20T05:00:00Z").json[0]
    start = minute["candle_date_time_utc"][11:16]
    inside = [trade for trade in trades if trade["trade_time_utc"].startswith(start)]
    assert minute["candle_acc_trade_volume"] == sum(trade["trade_volume"] for trade in inside)
    assert minute["trade_price"] == inside[0]["trade_price"]
    assert minute["timestamp"] == inside[0]["timestamp"]


def test_nobody_traded_in_the_maintenance_window(upbit: FakeUpbit, get: Get) -> None:
    rows = get(upbit, "/v1/candles/minutes/60", market="KRW-BTC", count=24, to="2026-10-26T00:00:00Z").json
    hours = [row["candle_date_time_utc"][11:13] for row in rows if row["candle_date_time_utc"].startswith("2026-10-25")]
    assert set(hours) == {f"{hour:02d}" for hour in range(24)} - {"17", "18", "19"}


def test_a_hundred_thousand_minutes_can_be_had(get: Get, upbit: FakeUpbit) -> None:
    row = get(upbit, "/v1/candles/minutes/1", market="KRW-BTC", to="2026-09-08T00:00:00Z").json[0]
    assert row["candle_date_time_utc"].startswith("2026-09-07T23")
    assert get(upbit, "/v1/candles/minutes/60", market="KRW-BTC", to="2017-09-25T00:00:00Z").json == []


def test_too_many_candles_are_silently_cut(upbit: FakeUpbit, get: Get) -> None:
    assert len(get(upbit, "/v1/candles/minutes/1", market="KRW-BTC", count=1000).json) == 200
    upbit.set_options(candle_count_over_200="error")
    assert get(upbit, "/v1/candles/minutes/1", market="KRW-BTC", count=201).status == 400
    upbit.set_options(candle_count_over_200="truncate")


def test_daily_candles_know_the_close_before_and_the_price_in_won(upbit: FakeUpbit, get: Get) -> None:
    today, before = get(upbit, "/v1/candles/days", market="BTC-ETH", count=2, converting_price_unit="KRW").json
    assert today["prev_closing_price"] == before["trade_price"]
    assert today["change_price"] == today["trade_price"] - before["trade_price"]
    assert today["converted_trade_price"] > 1_000_000


def test_trades_page_by_cursor_within_a_day(upbit: FakeUpbit, get: Get) -> None:
    first = get(upbit, "/v1/trades/ticks", market="KRW-BTC", count=20, days_ago=1).json
    cursor = first[-1]["sequential_id"]
    second = get(upbit, "/v1/trades/ticks", market="KRW-BTC", count=20, days_ago=1, cursor=cursor).json
    assert first + second == get(upbit, "/v1/trades/ticks", market="KRW-BTC", count=40, days_ago=1).json
    assert all(row["trade_date_utc"] == "2026-11-19" for row in first)
    assert all(row["sequential_id"] // 10_000 == row["timestamp"] for row in first)


def test_tickers_agree_with_the_daily_candle(upbit: FakeUpbit, get: Get) -> None:
    ticker = get(upbit, "/v1/ticker", markets="KRW-BTC").json[0]
    day = get(upbit, "/v1/candles/days", market="KRW-BTC").json[0]
    for name in ("opening_price", "high_price", "low_price", "trade_price", "prev_closing_price"):
        assert ticker[name] == day[name], name
    assert ticker["acc_trade_volume"] == day["candle_acc_trade_volume"]
    assert ticker["signed_change_price"] == day["change_price"]
    assert ticker["change_price"] == abs(day["change_price"])


def test_pairs_may_be_asked_for_one_by_one_or_in_a_list(upbit: FakeUpbit, get: Get) -> None:
    listed = get(upbit, "/v1/ticker?markets=KRW-ETH%2CKRW-BTC").json
    repeated = get(upbit, "/v1/ticker?markets=KRW-ETH&markets=KRW-BTC").json
    assert [row["market"] for row in listed] == [row["market"] for row in repeated] == ["KRW-ETH", "KRW-BTC"]


def test_all_tickers_of_a_quote(upbit: FakeUpbit, get: Get) -> None:
    rows = get(upbit, "/v1/ticker/all", quote_currencies="BTC,USDT").json
    assert [row["market"] for row in rows] == ["BTC-ETH", "USDT-BTC"]
    assert get(upbit, "/v1/ticker/all", quote_currencies="EUR").status == 400


def test_books_are_sorted_on_the_grid_and_limited_by_count(upbit: FakeUpbit, get: Get) -> None:
    book = get(upbit, "/v1/orderbook", markets="krw-btc", count=5).json[0]
    asks = [unit["ask_price"] for unit in book["orderbook_units"]]
    bids = [unit["bid_price"] for unit in book["orderbook_units"]]
    assert (book["market"], len(asks), book["level"]) == ("KRW-BTC", 5, 0)
    assert bids == sorted(set(bids), reverse=True)
    assert asks == sorted(set(asks))
    assert bids[0] < asks[0]
    assert all(price % 1000 == 0 for price in asks + bids)
    assert len(get(upbit, "/v1/orderbook", markets="KRW-BTC", count=31).json[0]["orderbook_units"]) == 30


def test_levels_group_won_books_only(upbit: FakeUpbit, get: Get) -> None:
    book = get(upbit, "/v1/orderbook", markets="KRW-BTC", level="10000").json[0]
    assert book["level"] == 10_000
    assert all(unit["ask_price"] % 10_000 == 0 for unit in book["orderbook_units"])
    assert get(upbit, "/v1/orderbook", markets="BTC-ETH", level="10").json == []
    assert get(upbit, "/v1/orderbook", markets="KRW-BTC", level="7").json == []


def test_instruments_tell_tick_and_levels_as_text(upbit: FakeUpbit, get: Get) -> None:
    won, bitcoin = get(upbit, "/v1/orderbook/instruments", markets="KRW-BTC,BTC-ETH").json
    assert won["tick_size"] == "1000"
    assert won["supported_levels"] == ["0", "10000", "100000", "1000000", "10000000", "100000000"]
    assert (bitcoin["tick_size"], bitcoin["supported_levels"]) == ("0.00000001", ["0"])
    assert get(upbit, "/v1/orderbook/supported_levels", markets="BTC-ETH").json == [
        {"market": "BTC-ETH", "supported_levels": [0]}
    ]


@pytest.mark.parametrize(
    ("path", "query", "status", "message"),
    [
        ("/v1/ticker", {}, 400, "Missing request parameter error. Check the required parameters!"),
        ("/v1/ticker", {"markets": "KRW-BTC,KRW-NONE"}, 404, "Code not found"),
        ("/v1/orderbook", {"markets": "KRW-NONE"}, 404, "Code not found"),
        ("/v1/candles/days", {"market": "KRW-NONE"}, 404, "Code not found"),
        (
            "/v1/candles/days",
            {"market": "KRW-BTC", "count": "abc"},
            400,
            "Type mismatch error. Check the parameters type!",
        ),
        ("/v1/candles/minutes/7", {"market": "KRW-BTC"}, 400, "specified unit is not valid."),
        ("/v1/trades/ticks", {"market": "KRW-BTC", "days_ago": 8}, 400, "Invalid parameter. Check the given value!"),
    ],
)
def test_errors_carry_an_integer_name(
    upbit: FakeUpbit, get: Get, path: str, query: dict[str, str], status: int, message: str
) -> None:
    answer = get(upbit, path, **query)
    assert answer.status == status
    assert answer.json == {"error": {"name": status, "message": message}}


def test_an_unknown_path_has_no_route_and_no_budget(upbit: FakeUpbit, get: Get) -> None:
    answer = get(upbit, "/v1/nothing")
    assert answer.json == {"error": {"name": "not_found", "message": "no Route matched with those values"}}
    assert answer.status == 404
    assert "remaining-req" not in answer.headers


def test_answers_are_compressed_when_asked_for(upbit: FakeUpbit, get: Get) -> None:
    plain = get(upbit, "/v1/orderbook", markets="KRW-BTC")
    packed = get(upbit, "/v1/orderbook", {"Accept-Encoding": "gzip"}, markets="KRW-BTC")
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert plain.headers["content-type"] == "application/json;charset=UTF-8"
    assert plain.headers["date"] == "Fri, 20 Nov 2026" + plain.headers["date"][16:]


def test_the_same_seed_gives_the_same_past(get: Get) -> None:
    paths = ["/v1/candles/minutes/1?market=KRW-ETH&count=50", "/v1/trades/ticks?market=BTC-ETH&count=5&days_ago=2"]
    answers = []
    for seed in (7, 7, 8):
        with FakeUpbit(
            seed=seed, trades_per_second=0, markets=["KRW-ETH", "BTC-ETH"], start_time="2026-11-20"
        ) as upbit:
            answers.append([get(upbit, path).body for path in paths])
    assert answers[0] == answers[1]
    assert answers[0] != answers[2]
