"""The market model without any socket."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upbit_backbone.simulator.engine.clock import Clock
from upbit_backbone.simulator.engine.exchange import Exchange
from upbit_backbone.simulator.engine.history import DAY_MS, aggregate
from upbit_backbone.simulator.engine.listing import listings
from upbit_backbone.simulator.engine.ticks import UNIT, TickGrid
from upbit_backbone.simulator.payloads import moments, spelling
from upbit_backbone.simulator.serving.connection import Connection
from upbit_backbone.simulator.serving.context import Context
from upbit_backbone.simulator.serving.options import Options
from upbit_backbone.simulator.serving.rest_candles import make_days, unmade_days

amounts = st.integers(min_value=-(10**19), max_value=10**19)


@given(amounts)
def test_every_spelling_means_the_same_number(value: int) -> None:
    exact = Decimal(value) / UNIT
    for spell in (spelling.plain, spelling.decimal, spelling.padded, spelling.double, spelling.short):
        assert Decimal(spell(value)) == exact
        json.loads(spell(value))


@pytest.mark.parametrize(
    ("value", "double", "short", "padded"),
    [
        (116_539_000 * UNIT, "1.16539E8", "116539000", "116539000.00000000"),
        (100_300 * UNIT, "100300.0", "100300", "100300.00000000"),
        (79_276, "7.9276E-4", "7.9276E-4", "0.00079276"),
        (50_000, "5.0E-4", "5.0E-4", "0.00050000"),
        (0, "0.0", "0", "0E-8"),
    ],
)
def test_spellings_as_they_were_recorded(value: int, double: str, short: str, padded: str) -> None:
    assert (spelling.double(value), spelling.short(value), spelling.padded(value)) == (double, short, padded)


@pytest.mark.parametrize(
    ("code", "price", "tick"),
    [
        ("KRW-BTC", "131000000", "1000"), ("KRW-ETH", "999999", "500"), ("KRW-SOL", "230000", "100"),
        ("KRW-X", "4999", "1"), ("KRW-X", "5000", "5"), ("KRW-X", "99.9", "0.1"), ("KRW-X", "0.0138", "0.0001"),
        ("KRW-USDT", "1450", "0.5"), ("BTC-ETH", "0.04", "0.00000001"), ("USDT-BTC", "90000", "0.01"),
        ("USDT-X", "0.5", "0.0001"),
    ],
)  # fmt: skip
def test_tick_sizes(code: str, price: str, tick: str) -> None:
    assert TickGrid(code).tick(int(Decimal(price) * UNIT)) == int(Decimal(tick) * UNIT)


@given(st.sampled_from(["KRW-BTC", "KRW-USDT", "BTC-ETH", "USDT-BTC"]), st.integers(1, 10**17))
def test_one_tick_up_and_down_again(code: str, price: int) -> None:
    grid = TickGrid(code)
    on_grid = grid.round(price)
    assert grid.round(grid.up(on_grid)) == grid.up(on_grid)
    assert grid.down(grid.up(on_grid)) == on_grid


@settings(max_examples=50)
@given(st.integers(1, 855))
def test_any_number_of_pairs_can_be_had(count: int) -> None:
    rows = listings(1, count)
    assert len({row.code for row in rows}) == count


def test_all_prices_are_on_the_grid_and_time_goes_forward() -> None:
    exchange = Exchange(3, 60, Clock("2026-11-20T12:00:00Z"), 0.0)
    day = exchange.clock.now_ms() // DAY_MS
    for market in exchange.markets.values():
        trades = market.history.trades(day - 1) + market.history.trades(day)
        for _ in range(30):
            trades.append(exchange.publish(market.code)[1])
        assert [trade.ms for trade in trades] == sorted(trade.ms for trade in trades)
        assert len({trade.id for trade in trades}) == len(trades)
        assert all(market.grid.round(trade.price) == trade.price for trade in trades), market.code
        assert all(trade.volume > 0 for trade in trades)


def test_books_never_cross_while_trades_come_in() -> None:
    exchange = Exchange(4, ["KRW-BTC", "KRW-SHIB", "BTC-SHIB", "KRW-USDT"], Clock("2026-11-20T12:00:00Z"), 0.0)
    for market in exchange.markets.values():
        for number in range(300):
            _, trade = exchange.publish(market.code)
            market.book.flicker(trade.ms)
            market.book.show(trade.ms + number)
            view = market.book.view()
            assert view is not None
            asks, bids = ([level for level in side if level[0]] for side in (view.asks, view.bids))
            assert 0 < bids[0][0] < asks[0][0], market.code
            assert asks == sorted(asks)
            assert bids == sorted(bids, reverse=True)
            assert trade.price == (asks[0][0] if trade.is_bid else bids[0][0])


def test_retained_trades_are_bounded_and_candles_keep_what_was_forgotten() -> None:
    exchange = Exchange(1, ["KRW-BTC"], Clock("2026-11-20T12:00:00Z"), 0.0, retained_trades=10)
    market = exchange.markets["KRW-BTC"]
    before = market.ticker(exchange.clock.now_ms()).volume
    for _ in range(100):
        exchange.publish("KRW-BTC", volume=UNIT)
    assert len(market.live) == 10
    today = market.day_candle(exchange.clock.now_ms() // DAY_MS)
    assert today is not None
    assert today.volume == before + 100 * UNIT == market.ticker(exchange.clock.now_ms()).volume


@pytest.mark.parametrize("code", ["KRW-BTC", "KRW-SHIB", "BTC-ETH"])
def test_the_candle_of_a_past_day_is_made_of_its_trades(code: str) -> None:
    market = Exchange(1, [code], Clock("2026-11-20T12:00:00Z"), 0.0).markets[code]
    today = market.start_ms // DAY_MS
    for day in (today - 1, today - 50, *range(today - 130, today - 100)):
        assert [market.history.day(day)] == aggregate(market.history.trades(day), DAY_MS)


def test_the_stretch_of_a_tick_ends_where_the_next_tick_begins() -> None:
    for code in ("KRW-BTC", "KRW-USDT", "USDT-BTC", "BTC-ETH"):
        grid = TickGrid(code)
        for power in range(2, 17):
            for price in (10**power - 1, 10**power, 5 * 10**power, 5 * 10**power + 1):
                tick, low, high = grid.stretch(price)
                assert low <= price < high
                assert tick == grid.tick(low) == grid.tick(price) == grid.tick(high - 1)


def test_a_loop_goes_on_while_days_are_made() -> None:
    market = Exchange(1, ["BTC-ETH"], Clock("2026-11-20T12:00:00Z"), 0.0).markets["BTC-ETH"]
    days = unmade_days(market, market.start_ms, 2, "month")
    assert 31 < len(days) <= 63

    async def turns_meanwhile() -> int:
        making, turns = asyncio.create_task(make_days(market, days)), 0
        while not making.done():
            await asyncio.sleep(0)
            turns += 1
        return turns

    assert asyncio.run(turns_meanwhile()) >= len(days)
    assert unmade_days(market, market.start_ms, 2, "month") == []


def test_nothing_is_written_to_a_line_once_a_write_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    async def write_after_a_reset() -> None:
        made: list[Connection] = []
        context = Context(Options(markets=["KRW-BTC"]))

        def connection() -> Connection:
            made.append(Connection(context, "rest", lambda connection, request: None, set()))
            return made[0]

        loop = asyncio.get_running_loop()
        async with await loop.create_server(connection, "127.0.0.1", 0) as server:
            client = socket.create_connection(server.sockets[0].getsockname())
            while not (made and made[0].is_open):
                await asyncio.sleep(0)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            # In one turn of the loop, which hears of the end in the next: so the frames of one step are sent.
            for _ in range(20):
                made[0].write(b"frame")
            while made[0].is_open:
                await asyncio.sleep(0)

    asyncio.run(write_after_a_reset())
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


def test_the_same_seed_makes_the_same_trades_from_start_to_now() -> None:
    made = []
    for seed in (1, 1, 2):
        exchange = Exchange(seed, 30, Clock("2026-11-20T12:00:00Z"), 0.0)
        made.append([exchange.publish(code)[1][1:4] for code in list(exchange.markets) * 5])
    assert made[0] == made[1] != made[2]


def test_the_date_header_ignores_the_locale() -> None:
    assert moments.http_date(1_795_151_640_365) == "Fri, 20 Nov 2026 05:14:00 GMT"
