"""The market itself: listings, prices, trades, candles and books. No sockets; the time is passed in."""
