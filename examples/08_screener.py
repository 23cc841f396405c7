"""A screener over every KRW market: by change and turnover, from one request; then closer, within the limits."""

from decimal import Decimal

from upbit_backbone import MarketDataBackbone, Priority

HOURS = 24

with MarketDataBackbone() as market:
    tickers = market.get_tickers(quote="KRW").values()
    busiest = sorted(tickers, key=lambda ticker: ticker.traded_value_24h or Decimal(0), reverse=True)[:10]
    print(f"{len(tickers)} markets; the busiest:")
    for ticker in busiest:
        # Upbit allows ten candle requests a second: the library keeps to that, whoever else asks.
        candles = market.get_candles(ticker.symbol, "1h", count=HOURS, priority=Priority.LOW)
        average = sum((candle.close_price for candle in candles), Decimal(0)) / len(candles)
        above = (ticker.current_price / average - 1) * 100
        print(
            f"{ticker.symbol:<12}{ticker.current_price:>16,} {ticker.change_percent:>+8.2f} % {above:>+8.2f} % of a day"
        )
