"""How long trades take to get here from the simulator, which has written into each when it was sent.

Asked by two lines of JSON: what to listen to, and for how many seconds, and then, once it has said that it hears, to
begin. It answers with the percentiles, in milliseconds, and with what a message cost it.
"""

import json
import sys
import threading
import time

from upbit_backbone import DataType, MarketDataBackbone, Overflow, TradeData

STAMP_BASE = 10**16  # what the simulator adds to its monotonic nanoseconds to have a number for the trade


def main() -> None:
    task = json.loads(sys.stdin.readline())
    delays: list[int] = []
    hears = threading.Event()

    def on_trade(trade: TradeData) -> None:
        delays.append(time.monotonic_ns() + STAMP_BASE - trade.sequential_id)
        hears.set()

    with MarketDataBackbone() as market:
        market.subscribe_realtime(task["symbols"], DataType.TRADE, on_trade, overflow=Overflow.DROP_OLDEST)
        if not hears.wait(30):
            raise SystemExit("no trade came for thirty seconds")
        print(json.dumps({"hears": True}), flush=True)
        sys.stdin.readline()
        delays.clear()
        cpu = time.process_time()
        time.sleep(task["seconds"])
        found, cpu = sorted(delays), time.process_time() - cpu
    shares = {name: found[int(share * (len(found) - 1))] / 1e6 for name, share in (("p50", 0.5), ("p99", 0.99))}
    print(json.dumps(shares | {"count": len(found), "cpu": cpu / task["seconds"]}), flush=True)


if __name__ == "__main__":
    main()
