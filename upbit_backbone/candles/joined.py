"""History with the live candle at its end: what a chart viewer asks for once a second."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from .._concurrency import Clock
from ..models.market import CandleData
from ..models.timeframe import Timeframe, timeframe_of
from ..models.topic import Topic
from .history import CandleHistory

LiveCandle = Callable[[Topic, float], Any]


class JoinedCandles:
    """`CandleHistory.get`, but the forming candle comes from the stream where one is current.

    Then the closed ones are all that is asked of the history, which keeps them: a chart that is drawn every second
    costs one request per period instead of one per drawing. `asked` is told of every question about the present, so
    that a candle that is asked for often can be streamed.
    """

    def __init__(
        self, history: CandleHistory, *, live: LiveCandle, asked: Callable[[Topic], None], clock: Clock
    ) -> None:
        self._history = history
        self._live = live
        self._asked = asked
        self._clock = clock

    def get(self, symbol: str, timeframe: str, *, count: int | None, **options: Any) -> list[CandleData]:
        """As `CandleHistory.get`; see there for the options and errors."""
        unit = timeframe_of(timeframe)
        is_about_now = all(options.get(bound) is None for bound in ("to", "start", "end"))
        if not is_about_now or unit.data_type is None or options.get("fill", "none") != "none":
            return self._history.get(symbol, unit, count=count, **options)
        forming = self._forming(symbol, unit)
        is_joinable = isinstance(count, int) and not isinstance(count, bool) and count > 1
        if forming is None or not is_joinable:
            return self._history.get(symbol, unit, count=count, **options)
        closed = self._history.get(symbol, unit, count=count - 1, **{**options, "to": forming.timestamp})  # type: ignore[operator]
        return [*as_closed(closed), dataclasses.replace(forming, is_closed=False)]

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
