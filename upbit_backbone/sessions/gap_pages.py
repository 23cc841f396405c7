"""Where repairs get their pages from: REST, by two callables, one for trades and one for candles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from .._concurrency import Clock, Deadline
from ..models.enums import DataType, Priority
from ..models.market import CandleData, TradeData
from ..models.topic import Topic
from .continuity import Hole
from .gap_fetch import CandleFetch, Fetch, TradeFetch

PAGE_SECONDS: Final = 5.0


class TradesPage(Protocol):
    """A page of trades, newest first."""

    def __call__(
        self,
        symbol: str,
        *,
        count: int,
        cursor: int | None = None,
        days_ago: int | None = None,
        deadline: Deadline,
        priority: Priority,
    ) -> Sequence[TradeData]: ...


class CandlesPage(Protocol):
    """A page of candles, newest first; `to` is exclusive."""

    def __call__(
        self, symbol: str, timeframe: str, *, count: int, to: Any = None, deadline: Deadline, priority: Priority
    ) -> Sequence[CandleData]: ...


class Pages:
    """Fetches one page at a time, at most `most` items for a hole. For workers' threads: it blocks."""

    def __init__(self, trades_page: TradesPage, candles_page: CandlesPage, *, most: int, clock: Clock) -> None:
        self._trades_page = trades_page
        self._candles_page = candles_page
        self._most = most
        self._clock = clock

    def begin(self, topic: Topic, hole: Hole[Any]) -> Fetch[Any]:
        is_trade = topic.data_type is DataType.TRADE
        return (TradeFetch if is_trade else CandleFetch)(hole, self._most)

    def step(self, topic: Topic, hole: Hole[Any], fetch: Fetch[Any]) -> None:
        """Add the next page to `fetch`. An error of ours changes nothing, and the same page may be asked again."""
        deadline = Deadline.after(PAGE_SECONDS, self._clock.monotonic)
        symbol, urgent = topic.symbol, Priority.HIGH
        if isinstance(fetch, TradeFetch):
            fetch.step(
                lambda count, cursor, days_ago: self._trades_page(
                    symbol, count=count, cursor=cursor, days_ago=days_ago, deadline=deadline, priority=urgent
                )
            )
        elif isinstance(fetch, CandleFetch):
            unit = hole.first.timeframe
            fetch.step(
                lambda count, to: self._candles_page(
                    symbol, unit, count=count, to=to, deadline=deadline, priority=urgent
                )
            )

    def __repr__(self) -> str:
        return f"<Pages of at most {self._most} items>"
