"""Upbit's facts and nowhere else: endpoints, rate groups, field spellings, timeframes, stream vocabulary."""
