"""What one REST call costs: plain `requests.Session.get`, our transport alone, and a whole question to the backbone.

One question after the other, about one symbol, and none may be older than its question, so that neither cache nor
stream answers; limits are lifted on both sides. CPU counts all threads of this process.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import requests

from benchmarks.measuring import percentile, time_calls
from benchmarks.options import Options
from benchmarks.servers import upbit
from benchmarks.table import Figure
from upbit_backbone import DataStrategy, MarketDataBackbone
from upbit_backbone._concurrency import Deadline
from upbit_backbone.wire.endpoints import tickers
from upbit_backbone.wire.rest_transport import RestTransport

TITLE = "REST call (one ticker)"
SYMBOL = "KRW-BTC"
CALLS = 1000
NO_LIMIT = 1_000_000
SHARE = 0.6
REFERENCE = "requests.Session.get"


def run(options: Options) -> list[Figure]:
    calls = options.count(CALLS)
    costs: dict[str, tuple[float, float]] = {}
    with upbit(rest_limit=NO_LIMIT) as fake:
        with requests.Session() as session:
            session.trust_env = False
            url = f"{fake.rest_url}/v1/ticker?markets={SYMBOL}"
            costs[REFERENCE] = _cost(lambda: session.get(url, timeout=5).json(), calls)
        transport = RestTransport(fake.rest_url)
        costs["upbit_backbone, transport alone"] = _cost(
            lambda: transport.get(tickers([SYMBOL]), Deadline.after(5)), calls
        )
        transport.close()
        for words, window in (("no merging window", 1e-6), ("default merging window", None)):
            overrides = {} if window is None else {"merge_window_seconds": window}
            with MarketDataBackbone(
                rest_url=fake.rest_url, websocket_url=fake.websocket_url, rest_requests_per_second=NO_LIMIT,
                rest_max_age_seconds=1e-6, max_promoted_topics=1, **overrides,
            ) as market:  # fmt: skip
                market.get_markets()
                ask = market.get_ticker
                costs[f"upbit_backbone, {words}"] = _cost(
                    lambda ask=ask: ask(SYMBOL, strategy=DataStrategy.REST_ONLY), calls
                )
    figures = []
    base_wall, base_cpu = costs[REFERENCE]
    for name, (wall, cpu) in costs.items():
        is_ours = name != REFERENCE
        to = REFERENCE if is_ours else ""
        target = SHARE if is_ours else None
        figures.append(Figure("CPU", name, cpu, "µs", cpu / base_cpu if is_ours else None, to, ratio_target=target))
        figures.append(Figure("wall, p50", name, wall, "µs", wall / base_wall if is_ours else None, to))
    return figures


def _cost(call: Callable[[], object], calls: int) -> tuple[float, float]:
    """Median wall and mean CPU microseconds of a call."""
    for _ in range(20):
        call()
    used = time.process_time()
    spent = time_calls(call, calls)
    used = time.process_time() - used
    return percentile(spent, 0.5) / 1000, used / calls * 1e6
