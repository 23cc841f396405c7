"""What one REST call costs: plain `requests.Session.get`, our transport alone, and a whole question to the backbone.

One question after the other, about one symbol, and none may be older than its question, so that neither cache nor
stream answers. Limits are lifted on both sides. All take turns, twenty calls each and then a pause: so they meet the
same machine, and our limiter, which remembers the requests of the last second, has no thousand of them to remember.
CPU counts all threads of this process; both are the medians of the turns.

    python -m benchmarks.rest_call WHO REST_URL WEBSOCKET_URL COUNT     # so many, for callgrind (`instructions.py`)
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import requests

from benchmarks.measuring import percentile
from benchmarks.options import Options
from benchmarks.passage import count_here
from benchmarks.servers import upbit
from benchmarks.table import Figure
from upbit_backbone import DataStrategy, MarketDataBackbone
from upbit_backbone._concurrency import Deadline
from upbit_backbone.exchange.endpoints import tickers
from upbit_backbone.wire.rest_transport import RestTransport

TITLE = "REST call (one ticker)"
SYMBOL = "KRW-BTC"
CALLS = 800
TURN, PAUSE_SECONDS = 20, 0.25
NO_LIMIT = 1_000_000
SHARE = 0.6
REFERENCE = "requests.Session.get"
TRANSPORT = "upbit_backbone, transport alone"
OURS = "upbit_backbone"
WHO = (REFERENCE, TRANSPORT, OURS)

Call = Callable[[], object]


def run(options: Options) -> list[Figure]:
    with upbit(rest_limit=NO_LIMIT) as fake, _callers(fake.rest_url, fake.websocket_url) as callers:
        costs = _costs(callers, max(1, options.count(CALLS) // TURN))
    figures = []
    base_wall, base_cpu = costs[REFERENCE]
    for name, (wall, cpu) in costs.items():
        is_ours = name != REFERENCE
        to = REFERENCE if is_ours else ""
        target = SHARE if is_ours else None
        figures.append(Figure("CPU", name, cpu, "µs", cpu / base_cpu if is_ours else None, to, ratio_target=target))
        figures.append(Figure("wall, p50", name, wall, "µs", wall / base_wall if is_ours else None, to))
    return figures


@contextmanager
def _callers(rest_url: str, websocket_url: str) -> Iterator[Mapping[str, Call]]:
    with ExitStack() as stack:
        session = stack.enter_context(requests.Session())
        session.trust_env = False
        url = f"{rest_url}/v1/ticker?markets={SYMBOL}"
        transport = RestTransport(rest_url)
        stack.callback(transport.close)
        market = stack.enter_context(
            MarketDataBackbone(
                rest_url=rest_url, websocket_url=websocket_url, rest_requests_per_second=NO_LIMIT,
                rest_max_age_seconds=1e-6, max_promoted_topics=1,
            )
        )  # fmt: skip
        market.get_markets()
        yield {
            REFERENCE: lambda: session.get(url, timeout=5).json(),
            TRANSPORT: lambda: transport.get(tickers([SYMBOL]), Deadline.after(5)),
            OURS: lambda: market.get_ticker(SYMBOL, strategy=DataStrategy.REST_ONLY),
        }


def _costs(callers: Mapping[str, Call], turns: int) -> dict[str, tuple[float, float]]:
    """Wall and CPU microseconds of a call, each the median of its turns."""
    walls: dict[str, list[float]] = {name: [] for name in callers}
    cpus: dict[str, list[float]] = {name: [] for name in callers}
    for call in callers.values():
        call()
    for _ in range(turns):
        time.sleep(PAUSE_SECONDS)
        for name, call in callers.items():
            used, began = time.process_time(), time.perf_counter()
            for _ in range(TURN):
                call()
            walls[name].append((time.perf_counter() - began) / TURN * 1e6)
            cpus[name].append((time.process_time() - used) / TURN * 1e6)
    return {name: (percentile(walls[name], 0.5), percentile(cpus[name], 0.5)) for name in callers}


def main() -> None:
    who, rest_url, websocket_url, count = sys.argv[1:]
    with _callers(rest_url, websocket_url) as callers:
        call = callers[who]
        for _ in range(TURN):
            call()
        count_here(lambda: deque((call() for _ in range(int(count))), maxlen=0))


if __name__ == "__main__":
    main()
