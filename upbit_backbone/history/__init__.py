"""The past: candles and trades, paged from REST exactly as asked."""
