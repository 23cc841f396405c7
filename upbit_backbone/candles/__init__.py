"""Candle series at any size: paging and ranges (pure), downloads, live series, live books and trade histories."""
