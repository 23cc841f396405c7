"""A recorded day is served to pyupbit as it is published, and what it answers is what the store says.

Skipped where pyupbit is not installed: it brings a package "tests" that hides ours. `tox -e peers` has it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.sinks.conftest import book, ticker, trade
from upbit_backbone import DataType, OrderbookData, Store, TickerData, TradeData
from upbit_backbone.exchange.timeframes import timeframe_of
from upbit_backbone.history.aggregate import candles_from_trades
from upbit_backbone.models.events import GapEvent
from upbit_backbone.models.readable import KST
from upbit_backbone.sinks import SqliteSink
from upbit_backbone.sinks.base import Batch, Span

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("pyupbit") is None, reason="pyupbit is not installed"),
]

# Long ago: pyupbit asks for what was until now by the machine's clock.
DAY = datetime(2024, 3, 5, tzinfo=UTC)
FIRST, LAST = DAY - timedelta(hours=1), DAY + timedelta(hours=25)
GAP = DAY + timedelta(hours=5), DAY + timedelta(hours=5, minutes=20)
NOON, AFTER = DAY + timedelta(hours=12, seconds=0.5), DAY + timedelta(hours=24, minutes=30, seconds=0.5)
RECORDED, MADE = "KRW-BTC", "KRW-ETH"  # the market whose candles were recorded, and the one that has trades alone
MARKETS = [RECORDED, MADE]
UNITS = {"minute1": "1m", "minute5": "5m", "minute60": "1h", "day": "1d"}

PROGRAM = """
import json, os, multiprocessing, sys, time
import requests, websockets
rest, stream, candles, kinds = json.loads(sys.argv[1])
real_get, real_connect = requests.get, websockets.connect
requests.get = lambda url, **more: real_get(url.replace("https://api.upbit.com", rest), **more)
websockets.connect = lambda uri, **more: real_connect(stream, **more)
import pyupbit


def rows(frame):
    time.sleep(0.2)  # pyupbit keeps no limit between its functions, and gives None for a 429: its programs sleep
    return [] if frame is None else [[str(index), *row] for index, row in zip(frame.index, frame.values.tolist())]


def streamed(kind, names):
    manager = pyupbit.WebSocketManager(kind, names)
    found = [manager.get() for _ in range(6)]
    manager.terminate()
    manager.join()
    return found


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    names = pyupbit.get_tickers("KRW")
    found = {
        "candles": [rows(pyupbit.get_ohlcv(name, interval=unit, count=count)) for name, unit, count in candles],
        "price": pyupbit.get_current_price(names[0]),
        "prices": pyupbit.get_current_price(names),
        "book": pyupbit.get_orderbook(names[0]),
        "streams": [streamed(kind, names) for kind in kinds],
    }
    print(json.dumps({"names": names, **found}))
"""


def trades_of(symbol: str, rng: random.Random) -> list[TradeData]:
    """One each three seconds or so, none in the gap, and few of one market in the afternoon."""
    found, moment, number = [], FIRST, 0
    while moment < LAST:
        if not GAP[0] <= moment < GAP[1]:
            price, size = Decimal(rng.randrange(90_000, 99_000) * 1000), Decimal(rng.randrange(1, 10**9)).scaleb(-8)
            found.append(trade(number, symbol, price=price, volume=size, timestamp=moment, received_at=None))
        number += 1
        is_quiet = symbol == MADE and moment > NOON + timedelta(hours=1)
        moment += timedelta(milliseconds=rng.randrange(1, 600_000 if is_quiet else 6000))
    return found


def states_of(symbol: str, rng: random.Random) -> Iterator[TickerData | OrderbookData]:
    """A ticker and an order book each ten seconds."""
    for seconds in range(0, 26 * 3600, 10):
        moment, price = FIRST + timedelta(seconds=seconds), Decimal(rng.randrange(90_000, 99_000) * 1000)
        yield ticker(seconds, symbol, current_price=price, timestamp=moment)
        yield replace(book(0, symbol, size=str(1 + seconds)), timestamp=moment)


def gap(symbol: str) -> GapEvent:
    last = GAP[1] - timedelta(milliseconds=1)
    return GapEvent(
        at=GAP[1], symbol=symbol, type=DataType.TRADE, start=GAP[0], end=last, recovered=0, complete=False,
        reason="gone", missing_start=GAP[0], missing_end=last,
    )  # fmt: skip


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Store:
    rng = random.Random(8)
    sink = SqliteSink(tmp_path_factory.mktemp("replayed") / "day.db")
    sink.open()
    for symbol in MARKETS:
        trades, kinds = trades_of(symbol, rng), ["trade", "ticker", "orderbook"]
        items = [*trades, *states_of(symbol, rng)]
        if symbol == RECORDED:
            items += candles_from_trades(trades, "1m")
            kinds.append("candle.1m")
        sink.write(Batch(items, (), tuple(Span(symbol, kind, FIRST, LAST) for kind in kinds)))
        sink.gap(gap(symbol))
    sink.close()
    return Store(sink.path)


def ask_pyupbit(store: Store, folder: Path, since: datetime, candles: list[Any], kinds: list[str]) -> dict[str, Any]:
    """What pyupbit is answered as of `since`, and streams from then on."""
    words = ["--port", "0", "--json", "--start", since.isoformat(), "--speed", "20"]
    command = [sys.executable, "-m", "upbit_backbone.cli", "serve-replay", str(store.path), *words]
    program = folder / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
        stack.callback(server.kill)
        urls = json.loads(server.stdout.readline())
        asked = json.dumps([urls["rest_url"], urls["websocket_url"], candles, kinds])
        ended = subprocess.run([sys.executable, str(program), asked], capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr[-3000:]
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def expected_candles(store: Store, symbol: str, interval: str, count: int, now: datetime) -> list[Any]:
    """What the store has of them as of `now`: as it was recorded, else made of the trades since the gap."""
    unit = timeframe_of(UNITS[interval])
    if (symbol, unit.word) == (RECORDED, "1m"):
        found = [each for each in store.candles(symbol, "1m") if each.last_trade_at <= now]
    else:
        since = unit.ceil(GAP[1])
        found = candles_from_trades(store.trades(symbol, since, now), unit) if since < now else []
    return [
        [
            each.timestamp.astimezone(KST).strftime("%Y-%m-%d %H:%M:%S"),
            *map(float, (each.open_price, each.high_price, each.low_price, each.close_price)),
            *map(float, (each.volume, each.traded_value)),
        ]
        for each in found[-count:]
    ]


@pytest.mark.timeout(300)
@pytest.mark.skipif(os.name == "nt", reason="the program forks")
@pytest.mark.parametrize("now", [NOON, AFTER])
def test_pyupbit_is_answered_from_the_day_that_is_replayed(day: Store, tmp_path: Path, now: datetime) -> None:
    counts = {"minute1": 450, "minute5": 40, "minute60": 6, "day": 3}
    asked = [[name, interval, count] for name in MARKETS for interval, count in counts.items()]
    kinds = ["ticker", "trade", "orderbook"] if now is NOON else ["trade"]
    found = ask_pyupbit(day, tmp_path, now, asked, kinds)
    assert found["names"] == MARKETS
    for (name, interval, count), rows in zip(asked, found["candles"], strict=True):
        assert rows == expected_candles(day, name, interval, count, now), (name, interval)
    latest = {name: day.as_of(name, now) for name in MARKETS}
    prices = {name: float(state.ticker.current_price) for name, state in latest.items()}
    assert (found["price"], found["prices"]) == (prices[RECORDED], prices)
    (best, *_) = found["book"]["orderbook_units"]
    assert best["ask_size"] == float(latest[RECORDED].orderbook.asks[0].size)
    for kind, messages in zip(kinds, found["streams"], strict=True):
        assert {each["type"] for each in messages} == {kind}
        told = {(name, to_moment(each)) for name in MARKETS for each in of_kind(day, kind, name)}
        assert {
            (each["code"], each["timestamp" if kind != "trade" else "trade_timestamp"]) for each in messages
        } <= told


def of_kind(store: Store, kind: str, name: str) -> list[Any]:
    read: Callable[..., list[Any]] = getattr(store, f"{kind}s")
    return read(name, NOON - timedelta(hours=12))


def to_moment(item: Any) -> int:
    return round(item.timestamp.timestamp() * 1000)
