"""`get_ticker` on a symbol that is streamed, from 1 and 32 threads, beside one REST call."""

from __future__ import annotations

import threading
import time

import requests

from benchmarks.measuring import percentile, time_calls
from benchmarks.options import Options
from benchmarks.servers import upbit
from benchmarks.table import Figure
from upbit_backbone import DataSource, DataType, MarketDataBackbone

TITLE = "hot get_ticker (µs per call)"
SYMBOL = "KRW-BTC"
CALLS = 100_000
THREADS = 32
REST_CALLS = 200
WAIT_SECONDS = 10.0
P50_MICROSECONDS, P99_MICROSECONDS, FEWER = 3.0, 20.0, 500.0


def run(options: Options) -> list[Figure]:
    with (
        upbit(rest_limit=100_000) as fake,
        MarketDataBackbone(rest_url=fake.rest_url, websocket_url=fake.websocket_url) as market,
        market.subscribe(SYMBOL, DataType.TICKER),
    ):
        _await_live(market)
        alone = [spent / 1000 for spent in time_calls(lambda: market.get_ticker(SYMBOL), options.count(CALLS))]
        rest = _rest(fake.rest_url, options.count(REST_CALLS))
        rate_one = _rate(market, 1, options)
        rate_many, together = _many(market, options)
    p50, p99 = percentile(alone, 0.5), percentile(alone, 0.99)
    return [
        Figure("1 thread, p50", "upbit_backbone", p50, "µs", p50 / rest, "requests.Session.get", P50_MICROSECONDS,
               1 / FEWER),
        Figure("1 thread, p99", "upbit_backbone", p99, "µs", target=P99_MICROSECONDS),
        Figure("REST call, p50", "requests.Session.get", rest, "µs"),
        Figure("32 threads, p50", "upbit_backbone", percentile(together, 0.5), "µs"),
        Figure("32 threads, p99", "upbit_backbone", percentile(together, 0.99), "µs",
               note="a thread that waits for the GIL waits up to 5 ms × threads"),
        Figure("1 thread, calls/s", "upbit_backbone", rate_one, "1/s"),
        Figure("32 threads, calls/s in all", "upbit_backbone", rate_many, "1/s", rate_many / rate_one, "1 thread",
               ratio_target=0.7, at_least=True, note="no lock convoy: the sum stays what one thread reaches"),
    ]  # fmt: skip


def _await_live(market: MarketDataBackbone) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while market.get_ticker(SYMBOL).source is not DataSource.WEBSOCKET:
        if time.monotonic() > deadline:
            raise RuntimeError("the ticker never became live")
        time.sleep(0.05)


def _rest(rest_url: str, calls: int) -> float:
    with requests.Session() as session:
        session.trust_env = False
        url = f"{rest_url}/v1/ticker?markets={SYMBOL}"
        return percentile(time_calls(lambda: session.get(url, timeout=5).json(), calls), 0.5) / 1000


def _rate(market: MarketDataBackbone, threads: int, options: Options) -> float:
    """Calls a second, all threads together."""
    counts = [0] * threads
    stop = threading.Event()

    def ask(number: int) -> None:
        count = 0
        while not stop.is_set():
            for _ in range(100):
                market.get_ticker(SYMBOL)
            count += 100
        counts[number] = count

    workers = [threading.Thread(target=ask, args=(number,)) for number in range(threads)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    time.sleep(options.seconds / 2)
    stop.set()
    for worker in workers:
        worker.join()
    return sum(counts) / (time.perf_counter() - began)


def _many(market: MarketDataBackbone, options: Options) -> tuple[float, list[float]]:
    """Calls a second and microseconds per call from 32 threads."""
    rate = _rate(market, THREADS, options)
    spent: list[list[int]] = [[] for _ in range(THREADS)]

    def ask(number: int) -> None:
        clock = time.perf_counter_ns
        for _ in range(options.count(CALLS) // THREADS):
            began = clock()
            market.get_ticker(SYMBOL)
            spent[number].append(clock() - began)

    workers = [threading.Thread(target=ask, args=(number,)) for number in range(THREADS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return rate, [value / 1000 for values in spent for value in values]
