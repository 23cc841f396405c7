"""Candles, trades and books for other tools: data frames and files."""
