"""An alert: told once when a price is reached, by every trade, so that not even a price of a millisecond is missed."""

import threading
from decimal import Decimal

from upbit_backbone import DataType, MarketDataBackbone, TradeData

reached = threading.Event()

with MarketDataBackbone() as market:
    ticker = market.get_ticker("KRW-BTC")
    level = market.round_price("KRW-BTC", ticker.current_price * Decimal("0.5"))  # yours would be further away

    def watch(trade: TradeData) -> None:
        if trade.price >= level and not reached.is_set():
            print(f"{trade.symbol} has reached {level:,}: {trade.price:,} at {trade.timestamp_kst:%H:%M:%S}")
            reached.set()

    subscription = market.subscribe_realtime("KRW-BTC", DataType.TRADE, callback=watch)
    if not reached.wait(timeout=10):
        print("nothing moved for ten seconds")
    market.unsubscribe(subscription)
