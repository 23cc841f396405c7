"""What tells one datum of Upbit's from another, and how far their order can be trusted. Pure.

A trade is its market and its `sequential_id`: unique within the market, 16 or 17 digits, and *not* ordered; the same
id does occur on two markets (113 of 831 ids of one recording). A candle is its market, unit and start: a later message
about the same start corrects the earlier one. A ticker or an order book is state: the newer by Upbit's time counts.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

# Trades of one market overtake each other by this much at most, on the stream and in REST lists alike.
SHUFFLE: Final = timedelta(seconds=2)
