"""History with the live candle at its end: what a chart viewer asks for once a second."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from .._concurrency import Clock
from ..models.market import CandleData
from ..models.timeframe import Timeframe, timeframe_of
from ..models.topic import Topic
from .history import CandleHistory
from .ranges import DEFAULT_COUNT

LiveCandle = Callable[[Topic, float], Any]


class JoinedCandles:
    """`CandleHistory.get`, but the forming candle comes from the stream where one is current.

    Then the closed ones are all that is asked of the history, which keeps them: a chart that is drawn every second
    costs one request per period instead of one per drawing. `asked` is told of every question about the present, so
    that a candle that is asked for often can be streamed.
    """

    def __init__(
        self,
        history: CandleHistory,
        *,
        live: LiveCandle,
        asked: Callable[[Topic], None],
        exchange_now: Callable[[], datetime],
        clock: Clock,
    ) -> None:
        self._history = history
        self._live = live
        self._asked = asked
        self._exchange_now = exchange_now
        self._clock = clock

    def get(self, symbol: str, timeframe: str, *, count: int | None, **options: Any) -> list[CandleData]:
        """As `CandleHistory.get`; see there for the options and errors. The arguments are known to be good."""
        unit = timeframe_of(timeframe)
        is_about_now = all(options.get(bound) is None for bound in ("to", "start", "end"))
        is_plain = options.get("fill", "none") == "none"
        forming = self._forming(symbol, unit) if is_about_now and is_plain else None
        if forming is None:
            return self._history.get(symbol, unit, count=count, **options)
        closed_count = (DEFAULT_COUNT if count is None else count) - 1
        closed = []
        if closed_count:
            closed = self._history.get(symbol, unit, count=closed_count, **{**options, "to": forming.timestamp})
        is_over = unit.next_start(forming.timestamp) <= self._exchange_now()  # nobody has traded since
        return [*as_closed(closed), dataclasses.replace(forming, is_closed=is_over)]

    def _forming(self, symbol: str, unit: Timeframe) -> CandleData | None:
        """The live candle, if it is provably current; asking counts."""
        if unit.data_type is None:
            return None
        topic = Topic(unit.data_type, symbol)
        self._asked(topic)
        candle = self._live(topic, self._clock.monotonic())
        return candle if isinstance(candle, CandleData) else None

    def __repr__(self) -> str:
        return f"<JoinedCandles {self._history!r}>"


def as_closed(candles: Sequence[CandleData]) -> list[CandleData]:
    """The same rows, all closed: a later candle exists. Rows that say so already stay as they are."""
    return [candle if candle.is_closed else dataclasses.replace(candle, is_closed=True) for candle in candles]
