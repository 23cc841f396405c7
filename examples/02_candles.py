"""History: any number of candles, oldest first, exact Decimals, aware UTC times."""

from upbit_backbone import MarketDataBackbone

with MarketDataBackbone() as market:
    candles = market.get_candles("KRW-BTC", "1m", count=400)
    first, last = candles[0], candles[-1]
    print(f"{len(candles)} candles from {first.timestamp:%Y-%m-%d %H:%M} to {last.timestamp:%Y-%m-%d %H:%M} UTC")
    print(f"highest {max(candle.high_price for candle in candles):,}, volume {sum(c.volume for c in candles)}")
    print(f"the last one is {'closed' if last.is_closed else 'still forming'}: close {last.close_price:,}")

    for day in market.get_candles("KRW-BTC", "1d", count=3):
        print(f"{day.timestamp:%Y-%m-%d} (KST {day.timestamp_kst:%d. %H:%M}) close {day.close_price:,}")
