"""All that answers questions about the past, made together: `Past`."""

from __future__ import annotations

from typing import NamedTuple

from .history import CandleHistory
from .joined import JoinedCandles
from .trades_history import TradesHistory


class Past(NamedTuple):
    history: CandleHistory
    candles: JoinedCandles  # the same with the live candle at its end
    trades: TradesHistory
