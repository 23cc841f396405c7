"""A study with pandas: what an hour of the day moves, from a month of hours.

python -m pip install ".[pandas]"
"""

from upbit_backbone import MarketDataBackbone
from upbit_backbone.export.dataframe import to_dataframe

with MarketDataBackbone() as market:
    candles = market.get_candles("KRW-BTC", "1h", count=24 * 30)

frame = to_dataframe(candles, style="ohlcv")  # floats, in Korean time
frame["move"] = (frame["close"] / frame["open"] - 1).abs() * 100
by_hour = frame.groupby(frame.index.hour)["move"].agg(["mean", "max", "count"]).round(3)
print(f"{len(frame)} hours from {frame.index[0]} to {frame.index[-1]}")
print(by_hour.sort_values("mean", ascending=False).head(5))
