"""Objects kept current: a candle series and an order book that repair themselves."""
