"""10,000 one-minute candles against what Upbit's limit allows, beside pyupbit and ccxt."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.options import Options
from benchmarks.servers import upbit
from benchmarks.table import NOT_INSTALLED, Figure, absent
from upbit_backbone import MarketDataBackbone
from upbit_backbone.simulator import FakeUpbit

TITLE = "candle backfill"
SYMBOL = "KRW-BTC"
PAGE, PER_SECOND = 200, 10
TIMES_BOUND = 1.1
TIMEOUT_SECONDS = 120.0


def run(options: Options) -> list[Figure]:
    count = 4000 if options.quick else 10_000
    pages = -(-count // PAGE)
    # The first ten requests may leave at once, then ten a second.
    bound = (pages - PER_SECOND) / PER_SECOND
    case = f"{count:,} × 1m"
    figures = [Figure(case, "the limit's bound", bound, "s", note=f"{pages} pages, {PER_SECOND} a second")]
    for name, fetch in (("upbit_backbone", _ours), ("pyupbit", _pyupbit), ("ccxt", _ccxt)):
        if name != "upbit_backbone" and not options.rivals:
            continue
        with upbit(trades_per_second=5.0) as fake:
            figures.append(_measure(name, fetch, fake, count, bound, case))
    return figures


def _measure(
    name: str, fetch: Callable[[FakeUpbit, int], list[Any]], fake: FakeUpbit, count: int, bound: float, case: str
) -> Figure:
    since = fake.counters().get("request", 0)
    began = time.monotonic()
    try:
        times = fetch(fake, count)
    except ImportError:
        return absent(case, name, "s", NOT_INSTALLED)
    except Exception as problem:
        return absent(case, name, "s", f"{type(problem).__name__}: {problem}"[:100])
    took = time.monotonic() - began
    refused = sum(1 for request in fake.requests(group="candle") if request["status"] == 429)
    note = f"{fake.counters().get('request', 0) - since} requests, {refused} × 429"
    unique = len(set(times))
    if unique != count:
        note += f", {unique:,} different candles"
    target = TIMES_BOUND if name == "upbit_backbone" else None
    return Figure(case, name, took, "s", took / bound, "bound", ratio_target=target, note=note)


def _ours(fake: FakeUpbit, count: int) -> list[Any]:
    with MarketDataBackbone(rest_url=fake.rest_url, websocket_url=fake.websocket_url) as market:
        candles = market.get_candles(SYMBOL, "1m", count=count, timeout=TIMEOUT_SECONDS)
    return [candle.timestamp for candle in candles]


def _pyupbit(fake: FakeUpbit, count: int) -> list[Any]:
    from benchmarks.pyupbit_here import pyupbit_at

    frame = pyupbit_at(fake.rest_url).get_ohlcv(SYMBOL, interval="minute1", count=count)
    if frame is None:
        raise RuntimeError("get_ohlcv returned None")
    return list(frame.index)


def _ccxt(fake: FakeUpbit, count: int) -> list[Any]:
    import ccxt

    exchange = ccxt.upbit({"enableRateLimit": True})
    exchange.urls["api"] = {"public": fake.rest_url, "private": fake.rest_url}
    rows: list[list[float]] = []
    until = fake.now_ms()
    while len(rows) < count:
        since = until - PAGE * 60_000
        page = exchange.fetch_ohlcv("BTC/KRW", "1m", since=since, limit=PAGE)
        rows = page + rows
        if not page:
            break
        until = since
    return [row[0] for row in rows][-count:]
