"""Order books into a queue.Queue that another thread reads, as programs with a worker thread do it."""

import queue
import threading

from upbit_backbone import DataType, MarketDataBackbone, OrderbookData


def work(books: "queue.Queue[OrderbookData]") -> None:
    for _ in range(5):
        try:
            book = books.get(timeout=10)
        except queue.Empty:
            print("no change for ten seconds")
            return
        if book.best_bid and book.best_ask:  # a side may be empty
            bid, ask = book.best_bid.price, book.best_ask.price
            print(f"{book.symbol} {bid:,} / {ask:,}, spread {book.spread_percent:.4f} %")


with MarketDataBackbone() as market, market.subscribe("KRW-BTC", DataType.ORDERBOOK) as subscription:
    worker = threading.Thread(target=work, args=(subscription.queue,))
    worker.start()
    worker.join()
    print(subscription.stats)
