"""Live prices to a callback. It runs on a thread of its own: a slow or failing callback hurts only itself."""

import threading

from upbit_backbone import DataType, MarketDataBackbone, TickerData

seen = threading.Semaphore(0)


def show(ticker: TickerData) -> None:
    print(f"{ticker.symbol} {ticker.current_price:,} from {ticker.source}")
    seen.release()


with MarketDataBackbone() as market:
    subscription = market.subscribe_realtime(["KRW-BTC", "KRW-ETH", "KRW-XRP"], [DataType.TICKER], callback=show)
    for _ in range(5):
        if not seen.acquire(timeout=10):
            print("nothing moved for ten seconds")
            break
    market.unsubscribe(subscription)  # after this line returns, `show` is not called again
