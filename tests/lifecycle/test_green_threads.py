"""Under the monkey patches of gevent and eventlet, as Flask-SocketIO, locust and `gunicorn -k gevent` apply them.

Each is a program of its own, because what is patched stays so. In all of them a greenlet counts beside the program:
whatever of ours waits must let it run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from textwrap import dedent

import pytest

from upbit_backbone.simulator import FakeUpbit

pytestmark = pytest.mark.slow

PATCHES = {
    "all": "from gevent import monkey, spawn, sleep; monkey.patch_all()",
    "all but queue": "from gevent import monkey, spawn, sleep; monkey.patch_all(queue=False)",
}

PROGRAM = """
import logging, queue, sys, tempfile, threading, time
from upbit_backbone import DataSource, MarketDataBackbone, RequestTimeoutError
import upbit_backbone as ub

beats = 0
def beat():
    global beats
    while True:
        beats += 1
        sleep(0.001)
spawn(beat)

def sleep_until(condition):
    while not condition():
        sleep(0.01)

events, prices, own = [], [], queue.Queue()
market = MarketDataBackbone(on_event=events.append, timeout_seconds=30)
assert market.get_ticker("KRW-BTC").current_price > 0
tickers = market.subscribe("KRW-BTC", "ticker")
assert tickers.get(timeout=30).symbol == "KRW-BTC"
assert isinstance(tickers.queue, queue.Queue) and tickers.queue.qsize() >= 0 and not tickers.queue.full()
market.subscribe_realtime("KRW-BTC", ["ticker", "orderbook"], callback=prices.append)
market.subscribe("KRW-BTC", "trade", queue=own)
assert own.get(timeout=30).price > 0
sleep_until(lambda: prices and events)
sleep_until(lambda: market.get_ticker("KRW-BTC").source is DataSource.WEBSOCKET)
assert len(market.get_candles("KRW-BTC", "1m", count=600)) == 600
assert len(market.get_trades("KRW-BTC", count=300)) == 300
assert market.get_tickers(quote="KRW") and market.get_orderbook("KRW-ETH").asks
series = market.candle_series("KRW-BTC", "1m", size=5)
assert series.wait_update(timeout=30)
book = market.live_orderbook("KRW-BTC")
assert book.wait_change(timeout=30)
assert market.submit(market.get_ticker, "KRW-ETH").result(timeout=30).symbol == "KRW-ETH"
asked = [spawn(lambda: prices.append(market.get_ticker("KRW-XRP", realtime=True))) for _ in range(20)]
[each.join() for each in asked]
try:
    market.subscribe("KRW-XRP", "candle.1s").queue.get(timeout=0)
except queue.Empty:
    pass
before = beats
try:
    market.submit(lambda: sleep(30)).result(timeout=0.2)
except TimeoutError:
    pass
assert beats > before, "nobody else ran while we waited"
assert market.health().sessions and ub.get_ticker("KRW-BTC").current_price > 0
done = []
spawn(lambda: done.append(list(tickers)))  # a loop over it ends with it
sleep(0.05)
market.close()
sleep_until(lambda: done)
print("ALL OF IT", flush=True)
"""


def ran(program: str, upbit: FakeUpbit) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program],
        env=os.environ | upbit.environment(),
        capture_output=True,
        text=True,
        timeout=110,
    )


def needs(package: str) -> None:
    """Looked for and not loaded: eventlet warns at every fork of a process that has it."""
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


# Each patch and each kind of line once; the pairs that are left bring nothing of their own, and take six seconds each.
@pytest.mark.parametrize(
    ("patch", "tls"),
    [
        ("all", True),
        ("all but queue", False),
        pytest.param("all", False, marks=pytest.mark.endurance),
        pytest.param("all but queue", True, marks=pytest.mark.endurance),
    ],
)
def test_under_gevent_all_of_it_works(patch: str, tls: bool) -> None:
    needs("gevent")
    with FakeUpbit(seed=15, markets=["KRW-BTC", "KRW-ETH", "KRW-XRP"], tls=tls) as upbit:
        ended = ran(f"{PATCHES[patch]}\n{dedent(PROGRAM)}", upbit)
    assert "ALL OF IT" in ended.stdout, ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr
    assert ended.returncode == 0


def test_under_eventlet_construction_is_refused_in_one_sentence() -> None:
    needs("eventlet")
    program = """
    import eventlet
    import upbit_backbone
    upbit_backbone.MarketDataBackbone().close()  # merely installed and imported it is nobody's trouble
    eventlet.monkey_patch()
    try:
        upbit_backbone.MarketDataBackbone()
    except upbit_backbone.InvalidRequestError as error:
        print(error)
    """
    with FakeUpbit(seed=15, markets=["KRW-BTC"]) as upbit:
        ended = ran(dedent(program), upbit)
    assert ended.stdout.startswith("eventlet.monkey_patch() is active"), ended.stderr
    assert "use gevent" in ended.stdout
