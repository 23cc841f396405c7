"""Clients that were written for the real Upbit work here, unmodified but for the address.

Skipped where they are not installed (`pip install pyupbit ccxt`). Their packages patch themselves in at import time,
so each runs in a process of its own.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from upbit_backbone.simulator import FakeUpbit

ROOT = Path(__file__).resolve().parents[2]

PYUPBIT = """
import os, re, sys, multiprocessing
import requests, websockets
REST, WS = os.environ["UPBIT_BACKBONE_REST_URL"], os.environ["UPBIT_BACKBONE_WEBSOCKET_URL"]
real_get, real_connect = requests.get, websockets.connect
requests.get = lambda url, **more: real_get(url.replace("https://api.upbit.com", REST), **more)
websockets.connect = lambda uri, **more: real_connect(WS, **more)
import pyupbit

if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    assert "KRW-BTC" in pyupbit.get_tickers("KRW")
    for interval in ("minute1", "minute60", "day", "week", "month"):
        frame = pyupbit.get_ohlcv("KRW-BTC", interval=interval, count=30)
        assert len(frame) == 30 and frame.index.is_monotonic_increasing, interval
    assert len(pyupbit.get_ohlcv("KRW-BTC", interval="minute1", count=450)) == 450
    assert pyupbit.get_current_price("KRW-BTC") > 0
    assert set(pyupbit.get_current_price(["KRW-BTC", "KRW-ETH"])) == {"KRW-BTC", "KRW-ETH"}
    book = pyupbit.get_orderbook("KRW-BTC")
    assert len(book["orderbook_units"]) == 30
    for kind in ("ticker", "trade", "orderbook"):
        manager = pyupbit.WebSocketManager(kind, ["KRW-BTC", "KRW-ETH"])
        message = manager.get()
        assert message["type"] == kind and message["code"] in ("KRW-BTC", "KRW-ETH"), message
        manager.terminate()
        manager.join()
    print("fine")
"""

CCXT = """
import asyncio, os
import ccxt.pro
REST, WS = os.environ["UPBIT_BACKBONE_REST_URL"], os.environ["UPBIT_BACKBONE_WEBSOCKET_URL"]

async def main():
    upbit = ccxt.pro.upbit()
    upbit.urls["api"] = {"public": REST, "private": REST, "ws": WS}
    try:
        markets = await upbit.load_markets()
        assert "BTC/KRW" in markets and "ETH/BTC" in markets
        ticker = await upbit.fetch_ticker("BTC/KRW")
        assert ticker["last"] > 0
        assert len(await upbit.fetch_ohlcv("BTC/KRW", "1m", limit=100)) == 100
        assert len(await upbit.fetch_ohlcv("BTC/KRW", "1d", limit=20)) == 20
        assert len(await upbit.fetch_trades("BTC/KRW", limit=50)) == 50
        book = await upbit.fetch_order_book("BTC/KRW")
        assert book["bids"][0][0] < book["asks"][0][0]
        live = await asyncio.wait_for(upbit.watch_ticker("BTC/KRW"), 10)
        assert live["symbol"] == "BTC/KRW"
        live_book = await asyncio.wait_for(upbit.watch_order_book("BTC/KRW"), 10)
        assert live_book["bids"][0][0] < live_book["asks"][0][0]
        trades = await asyncio.wait_for(upbit.watch_trades("BTC/KRW"), 10)
        assert trades[0]["symbol"] == "BTC/KRW"
    finally:
        await upbit.close()
    print("fine")

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the script forks")
@pytest.mark.parametrize(("package", "script"), [("pyupbit", PYUPBIT), ("ccxt", CCXT)])
def test_a_client_of_the_real_upbit_works_here(package: str, script: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    (tmp_path / "script.py").write_text(script)
    # Noon, because Upbit's list of trades starts anew at midnight UTC.
    with FakeUpbit(trades_per_second=100, markets=60, start_time="2026-11-20T12:00:00Z") as upbit:
        environment = os.environ | upbit.environment() | {"PYTHONPATH": str(ROOT)}
        ended = subprocess.run(
            [sys.executable, str(tmp_path / "script.py")], env=environment, capture_output=True, text=True, timeout=100
        )
    assert ended.stdout.strip() == "fine", ended.stderr[-3000:]
