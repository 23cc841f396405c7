"""Candles made from trades, from smaller candles, or from tickers, for units that Upbit does not stream. Pure.

Days, weeks, months and years exist in REST only. Their forming candle is kept current from tickers, because a ticker
carries the whole UTC day so far (open, high, low, close, volume): a lost frame costs nothing, nothing can be counted
twice, and the frame after a break is right by itself. Longer periods add the finished days before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Final

from ..errors import InvalidRequestError
from ..exchange.timeframes import TIMEFRAMES, Timeframe, timeframe_of
from ..models.enums import DataSource
from ..models.market import CandleData, TickerData, TradeData
from ..models.number import total
from .closed_candles import SETTLE

ONE_DAY: Final = timeframe_of("1d")


def candles_from_trades(trades: Iterable[TradeData], timeframe: str | Timeframe) -> list[CandleData]:
    """The candles that `trades` of one market (any order) make, oldest first; an id that repeats counts once.

    Trades of one millisecond follow each other by their ids, so that open and close are the same whichever way the
    trades came. All candles are marked closed: whether the last period is over is for the caller to know.
    InvalidRequestError for trades of several markets.
    """
    unit = timeframe_of(timeframe)
    unique: dict[object, TradeData] = {}
    for each in trades:
        # Without an id two equal trades cannot be told apart, so each counts.
        unique.setdefault(object() if each.sequential_id is None else each.sequential_id, each)
    _refuse_a_mixture({each.symbol for each in unique.values()}, "trades")
    # By id only within a millisecond: ids are unique and not in order (docs), but newest first and oldest first must
    # give one open and one close.
    ordered = sorted(unique.values(), key=lambda one: (one.timestamp, one.sequential_id or 0))
    groups = groupby(ordered, lambda one: unit.floor(one.timestamp))
    return [candle_of(list(group), unit.word, start) for start, group in groups]


def candle_of(trades: Sequence[TradeData], label: str, start: datetime, *, is_closed: bool = True) -> CandleData:
    """The candle of these trades of one market, which are in order; `label` is its timeframe."""
    prices = [each.price for each in trades]
    return CandleData(
        symbol=trades[0].symbol,
        timeframe=label,
        open_price=prices[0],
        high_price=max(prices),
        low_price=min(prices),
        close_price=prices[-1],
        volume=total(each.volume for each in trades),
        traded_value=total(each.price * each.volume for each in trades),
        timestamp=start,
        last_trade_at=trades[-1].timestamp,
        source=DataSource.DERIVED,
        is_closed=is_closed,
    )


def resample(candles: Iterable[CandleData], timeframe: str | Timeframe) -> list[CandleData]:
    """Candles of a larger unit, oldest first, from smaller ones of one market (any order).

    A period is closed if every candle in it is; holes stay holes. InvalidRequestError unless the larger periods are
    made of whole smaller ones: 3m gives 15m but not 10m, weeks give neither months nor years, nothing gives smaller.
    """
    unit, parts = timeframe_of(timeframe), sorted(candles, key=attrgetter("timestamp"))
    _refuse_a_mixture({each.symbol for each in parts}, "candles")
    for word in {each.timeframe for each in parts}:
        if not _nests(timeframe_of(word), unit):
            fitting = ", ".join(each.word for each in TIMEFRAMES if _nests(timeframe_of(word), each)) or "none"
            raise InvalidRequestError(
                f"timeframe={unit.word!r} from candles of {word}: its periods are not made of whole ones of these; "
                f"possible are {fitting}"
            )
    groups = groupby(parts, lambda one: unit.floor(one.timestamp))
    return [merged(list(group), unit, start) for start, group in groups]


def _nests(small: Timeframe, large: Timeframe) -> bool:
    """Whether each period of `large` is made of several whole ones of `small`."""
    if small.months:
        return large.months > small.months and large.months % small.months == 0
    # Months and years begin at a midnight: whatever divides a day fits into them, weeks do not.
    if large.months:
        return ONE_DAY.seconds % small.seconds == 0
    return large.seconds > small.seconds and large.seconds % small.seconds == 0


def _refuse_a_mixture(symbols: set[str], what: str) -> None:
    if len(symbols) > 1:
        raise InvalidRequestError(f"{what} of {', '.join(sorted(symbols)[:5])}: expected those of one market")


def merged(parts: Sequence[CandleData], unit: Timeframe, start: datetime) -> CandleData:
    """One candle of `unit` from its parts, oldest first."""
    values = [each.traded_value for each in parts]
    known_values = [value for value in values if value is not None]
    return CandleData(
        symbol=parts[0].symbol,
        timeframe=unit.word,
        open_price=parts[0].open_price,
        high_price=max(each.high_price for each in parts),
        low_price=min(each.low_price for each in parts),
        close_price=parts[-1].close_price,
        volume=total(each.volume for each in parts),
        traded_value=total(known_values) if len(known_values) == len(values) else None,
        timestamp=start,
        last_trade_at=parts[-1].last_trade_at,
        source=DataSource.DERIVED,
        is_closed=all(each.is_closed for each in parts),
        is_filled=all(each.is_filled for each in parts),
    )


def day_of_ticker(ticker: TickerData) -> CandleData | None:
    """The UTC day's candle so far, or None where the ticker does not tell it.

    It does not while nobody has traded since midnight: then its prices are yesterday's.
    """
    traded_at = ticker.trade_timestamp or ticker.timestamp
    # By the last trade and not by the stamp: after midnight a ticker without a trade still shows the day before.
    start = ONE_DAY.floor(traded_at)
    is_of_today = start == ONE_DAY.floor(ticker.timestamp)
    first, high, low = ticker.opening_price, ticker.high_24h, ticker.low_24h
    if not is_of_today or not ticker.volume_today or first is None or high is None or low is None:
        return None
    return CandleData(
        symbol=ticker.symbol,
        timeframe=ONE_DAY.word,
        open_price=first,
        high_price=high,
        low_price=low,
        close_price=ticker.current_price,
        volume=ticker.volume_today,
        traded_value=ticker.traded_value_today,
        timestamp=start,
        last_trade_at=traded_at,
        source=DataSource.DERIVED,
        is_closed=False,
        received_at=ticker.received_at,
    )


class FormingPeriod:
    """The forming candle of a day or longer: the finished days of its period from REST, today from tickers.

    After each midnight the finished days must be fetched again, because the last ticker of a day may have missed its
    last trades; until then the candle is as right as the tickers were.
    """

    def __init__(self, timeframe: Timeframe) -> None:
        self._timeframe = timeframe
        self._days: dict[datetime, CandleData] = {}
        self._seeded_at: datetime | None = None

    @property
    def needs_days(self) -> bool:
        """Whether the period consists of more than today."""
        return self._timeframe != ONE_DAY

    def wants_days(self, now: datetime) -> bool:
        """Whether REST could tell the finished days better than they are known."""
        if not self.needs_days:
            return False
        if self._seeded_at is None:
            return True
        today = max(self._days, default=self._seeded_at)
        # Once for each midnight, and not before the day's last trades are certainly in REST's candle.
        return self._seeded_at < today + SETTLE <= now

    def seed(self, days: Iterable[CandleData], asked_at: datetime) -> None:
        """Day candles from REST, from the start of the period up to today; the last may be forming."""
        for day in days:
            known = self._days.get(day.timestamp)
            # The forming day may have grown by tickers since REST was asked; volume only grows within a day.
            if known is None or day.is_closed or day.volume >= known.volume:
                self._days[day.timestamp] = day
        self._seeded_at = asked_at

    def apply(self, ticker: TickerData) -> CandleData | None:
        """The period's candle after `ticker`; None where it tells nothing new, or the finished days are unknown."""
        today = day_of_ticker(ticker)
        # A ticker from before midnight that came late would turn the day back.
        if today is None or today.timestamp < max(self._days, default=today.timestamp):
            return None
        start = self._timeframe.floor(today.timestamp)
        self._days[today.timestamp] = today
        self._days = {day: candle for day, candle in sorted(self._days.items()) if day >= start}
        if self.needs_days and self._seeded_at is None:
            return None
        return merged(list(self._days.values()), self._timeframe, start)
