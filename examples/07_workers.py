"""Several workers on one queue of yours, and a clean end: the mark after the last item is handed on by each of them."""

import queue
import threading
from typing import Any

from upbit_backbone import DataType, MarketDataBackbone

ENOUGH = 12
trades: "queue.Queue[Any]" = queue.Queue(maxsize=10_000)
counted = threading.Semaphore(0)


def work(number: int) -> None:
    done = 0
    while (trade := trades.get()) is not None:
        done += 1
        print(f"worker {number}: {trade.symbol} {trade.price:,}")
        counted.release()
    trades.put(None)  # for the next worker
    print(f"worker {number} ends after {done} trades")


workers = [threading.Thread(target=work, args=(number,)) for number in range(3)]
for worker in workers:
    worker.start()
with MarketDataBackbone() as market:
    market.subscribe(["KRW-BTC", "KRW-ETH"], DataType.TRADE, queue=trades, end=None)
    for _ in range(ENOUGH):
        if not counted.acquire(timeout=10):
            print("nothing moved for ten seconds")
            break
for worker in workers:  # leaving the block has closed the subscription, and so put the mark
    worker.join()
