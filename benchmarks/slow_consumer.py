"""A consumer that sleeps beside one that does not: the slow one must hurt only itself."""

from __future__ import annotations

import threading
import time

from benchmarks.measuring import percentile, resident_mib
from benchmarks.options import Options
from benchmarks.servers import Stream, paced, some_markets
from benchmarks.table import Figure
from upbit_backbone import DataType, MarketDataBackbone, TradeData

TITLE = "slow consumer beside fast consumer, 1,000 trades/s"
RATE = 1000.0
SLOW_SECONDS = 0.05
START_SECONDS = 15.0
SETTLE_SECONDS = 1.0
TIMES_BASELINE = 2.0


def run(options: Options) -> list[Figure]:
    with paced() as stream:
        alone, _, _ = _measure(stream, options.seconds, with_slow=False)
        beside, slow, grown = _measure(stream, options.seconds, with_slow=True)
    base, with_slow = percentile(alone, 0.99), percentile(beside, 0.99)
    return [
        Figure("fast consumer alone, p99", "upbit_backbone", base, "ms"),
        Figure("beside a slow one, p99", "upbit_backbone", with_slow, "ms", with_slow / base, "alone",
               ratio_target=TIMES_BASELINE),
        Figure("fast consumer alone, p50", "upbit_backbone", percentile(alone, 0.5), "ms"),
        Figure("beside a slow one, p50", "upbit_backbone", percentile(beside, 0.5), "ms"),
        Figure("slow consumer: delivered", "upbit_backbone", slow["delivered"], "trades",
               note=f"received {slow['received']}, dropped {slow['dropped']}, pending {slow['pending']}"),
        Figure("memory grown by", "upbit_backbone", grown, "MiB"),
    ]  # fmt: skip


def _measure(stream: Stream, seconds: float, *, with_slow: bool) -> tuple[list[float], dict[str, int], float]:
    late: list[float] = []
    symbols = list(some_markets(stream.fake))

    def fast(trade: TradeData) -> None:
        late.append((time.time_ns() // 1000 - (trade.sequential_id or 0)) / 1000)

    def slow(trade: TradeData) -> None:
        stop.wait(SLOW_SECONDS)

    stop = threading.Event()
    with MarketDataBackbone(rest_url=stream.rest_url, websocket_url=stream.websocket_url) as market:
        market.subscribe_realtime(symbols, [DataType.TRADE], callback=fast)
        slow_one = market.subscribe(symbols, DataType.TRADE, maxsize=1000)
        drain = threading.Thread(target=lambda: [slow(trade) for trade in slow_one], daemon=True)
        if with_slow:
            drain.start()
        else:
            slow_one.close()
        deadline = time.monotonic() + START_SECONDS
        while stream.counters()["pieces"] < len(symbols) and time.monotonic() < deadline:
            time.sleep(0.1)
        stream.rate(RATE)
        time.sleep(SETTLE_SECONDS)
        late.clear()
        before = resident_mib()
        time.sleep(seconds)
        grown = resident_mib() - before
        seen = list(late)
        stream.rate(0)
        counters = slow_one.stats
        slow_one.close()
        stop.set()
        if with_slow:
            drain.join(5)
    facts = {name: getattr(counters, name) for name in ("received", "delivered", "dropped", "pending")}
    return seen, facts, grown
