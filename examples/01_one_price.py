"""One price, one line. The answer says where it came from and when Upbit said it.

Against another server: UPBIT_BACKBONE_URL=http://127.0.0.1:8765 python examples/01_one_price.py
"""

from upbit_backbone import MarketDataBackbone

with MarketDataBackbone() as market:
    ticker = market.get_ticker("KRW-BTC")
    print(f"{ticker.symbol} {ticker.current_price:,} ({ticker.change_percent:+.2f} %)")
    print(f"from {ticker.source}, Upbit's time {ticker.timestamp:%Y-%m-%d %H:%M:%S} UTC")
    print("next time:", market.explain("ticker", "KRW-BTC"))
