"""10,000 one-minute candles against what Upbit's limit allows, beside pyupbit and ccxt."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
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
FAR_AWAY_SECONDS = 0.1


def run(options: Options) -> list[Figure]:
    """What is timed begins with making the client, so ours includes its market list."""
    count = 4000 if options.quick else 10_000
    pages = -(-count // PAGE)
    figures = []
    for latency in (0.0, FAR_AWAY_SECONDS):
        case = f"{count:,} × 1m" + (f", answers take {latency * 1000:.0f} ms" if latency else "")
        bound, why = _bound(pages, latency)
        figures.append(Figure(case, "bound", bound, "s", note=why))
        for name, fetch in (("upbit_backbone", _ours), ("pyupbit", _pyupbit), ("ccxt", _ccxt)):
            if name != "upbit_backbone" and not options.rivals:
                continue
            with upbit(trades_per_second=5.0, latency=latency) as fake:
                warm_past(fake, count)
                figures.append(_measure(name, fetch, fake, count, bound, case))
    return figures


def _bound(pages: int, latency: float) -> tuple[float, str]:
    """The shortest time there can be, and what sets it.

    The first ten requests may leave at once, then ten a second. Where minutes without trades have no candle, a page
    can only be asked for when the one after it is known; two walks at once save that wait, but make one request more,
    which finds its turn a second later.
    """
    limit = (pages - PER_SECOND) / PER_SECOND
    one_walk, two_walks = pages * latency, pages // PER_SECOND + latency
    if max(limit, one_walk) <= two_walks:
        is_limit = limit >= one_walk
        why = f"{pages} pages, {PER_SECOND} a second" if is_limit else f"{pages} pages one after the other"
        return max(limit, one_walk), why
    return two_walks, f"{pages + 1} pages, {PER_SECOND} a second"


def warm_past(fake: FakeUpbit, count: int) -> None:
    """The simulator makes up each day when it is first asked for; twice as many as rows, for there are holes."""
    connection = http.client.HTTPConnection(fake.rest_url.removeprefix("http://"), timeout=60)
    fake.set_limit("candle", 1000)
    moment = datetime.fromtimestamp(fake.now_ms() / 1000, UTC)
    for _ in range(2 + 2 * count // (24 * 60)):
        connection.request("GET", f"/v1/candles/minutes/1?market={SYMBOL}&count=1&to={moment:%Y-%m-%dT%H:%M:%SZ}")
        connection.getresponse().read()
        moment -= timedelta(days=1)
    connection.close()
    fake.set_limit("candle", PER_SECOND)
    time.sleep(1.1)  # until the server's sliding second has forgotten these
    fake.inject("clear_wire_log")


def _measure(
    name: str, fetch: Callable[[FakeUpbit, int], list[Any]], fake: FakeUpbit, count: int, bound: float, case: str
) -> Figure:
    began = time.monotonic()
    try:
        times = fetch(fake, count)
    except ImportError:
        return absent(case, name, "s", NOT_INSTALLED)
    except Exception as problem:
        return absent(case, name, "s", f"{type(problem).__name__}: {problem}"[:100])
    took = time.monotonic() - began
    asked = fake.requests(group="candle")
    refused = sum(1 for request in asked if request["status"] == 429)
    note = f"{len(asked)} pages, {refused} × 429"
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
