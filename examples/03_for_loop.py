"""Live trades in a for loop. The loop survives disconnects; what was missed in between is filled in."""

import itertools

from upbit_backbone import DataType, MarketDataBackbone

with MarketDataBackbone() as market, market.subscribe(["KRW-BTC", "KRW-ETH"], DataType.TRADE) as trades:
    for trade in itertools.islice(trades, 10):
        filled = " (filled in after a break)" if trade.is_backfilled else ""
        print(f"{trade.timestamp:%H:%M:%S} {trade.symbol} {trade.side} {trade.volume} at {trade.price:,}{filled}")
