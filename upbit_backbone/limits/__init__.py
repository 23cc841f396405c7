"""Upbit's rate limits and bans, kept over all threads, backbones and processes."""
