"""One worker of the fleet, a process of its own: it asks for all prices once a second and follows the trades of a few
markets. What it knows it says in lines of JSON: where its trades come from, whenever that changes, and its report,
whenever it is sent a line."""

import json
import sys
import threading
import time
from collections import Counter, defaultdict

from upbit_backbone import DataType, MarketDataBackbone, TradeData, UpbitBackboneError

INTERVAL = 1.0
said = threading.Lock()


def say(**words: object) -> None:
    with said:
        print(json.dumps(words), flush=True)


class Worker:
    def __init__(self, market: MarketDataBackbone, symbols: list[str], traded: list[str]) -> None:
        self.market = market
        self.symbols = symbols
        self.trades: dict[str, list[tuple[int, int]]] = defaultdict(list)  # (number, milliseconds) of each
        self.prices: Counter[str] = Counter()  # by where they came from
        self.errors: Counter[str] = Counter()
        self.slowest = 0.0
        self.source = ""
        self.ended = threading.Event()
        market.subscribe_realtime(traded, DataType.TRADE, self.on_trade)

    def on_trade(self, trade: TradeData) -> None:
        self.trades[trade.symbol].append((trade.sequential_id, round(trade.timestamp.timestamp() * 1000)))
        if trade.source.value in ("relay", "websocket") and trade.source.value != self.source:
            self.source = trade.source.value
            say(source=self.source, at=time.monotonic())

    def poll(self) -> None:
        due = time.monotonic()
        while not self.ended.wait(max(0.0, due - time.monotonic())):
            due += INTERVAL
            began = time.perf_counter()
            try:
                prices = self.market.get_tickers(self.symbols, timeout=5)
            except UpbitBackboneError as error:
                self.errors[type(error).__name__] += 1
                continue
            self.slowest = max(self.slowest, time.perf_counter() - began)
            self.prices.update(price.source.value for price in prices.values())

    def report(self) -> None:
        trades = {symbol: list(found) for symbol, found in self.trades.items()}
        say(trades=trades, prices=self.prices, errors=self.errors, slowest=self.slowest)


def main() -> None:
    task = json.loads(sys.stdin.readline())
    with MarketDataBackbone() as market:
        worker = Worker(market, task["symbols"], task["traded"])
        polling = threading.Thread(target=worker.poll)
        polling.start()
        for _ in sys.stdin:  # its end is ours
            worker.report()
        worker.ended.set()
        polling.join()


if __name__ == "__main__":
    main()
