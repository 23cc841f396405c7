"""Upbit's candle units: how we call them, how Upbit spells them, where their periods start.

Every period starts on the UTC grid: seconds to four hours on multiples of their length, days at 00:00 UTC (09:00 in
Korea), weeks on Monday, months on the 1st, years on 1 January. Upbit streams 1 s to 4 h; days and longer exist in
REST only (`data_type is None`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from ..errors import InvalidRequestError, UnknownTimeframeError, one_line
from ..models.enums import DataType

MINUTE: Final = 60
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
WEEK: Final = 7 * DAY

# Mondays and New Year's Days at once, so both lie on every grid. Nothing of Upbit's is older; arithmetic stops here.
FIRST_MOMENT: Final = datetime(1973, 1, 1, tzinfo=UTC)
LAST_MOMENT: Final = datetime(8773, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Timeframe:
    """One unit. `word` is ours ("1h"), `rest_path` Upbit's in REST ("minutes/60"), `data_type` its stream or None.

    Exactly one of `seconds` (fixed length) and `months` (calendar length) is not zero.
    """

    word: str
    rest_path: str
    data_type: DataType | None
    seconds: int = 0
    months: int = 0

    def floor(self, moment: datetime) -> datetime:
        """Start (UTC) of the period that contains `moment`, which must be aware."""
        moment = _clamped(moment)
        if self.months:
            index = moment.year * 12 + moment.month - 1
            return _first_of_month(index - index % self.months)
        step = timedelta(seconds=self.seconds)
        return FIRST_MOMENT + (moment - FIRST_MOMENT) // step * step

    def ceil(self, moment: datetime) -> datetime:
        """The first period start at or after `moment`."""
        start = self.floor(moment)
        return start if start >= _clamped(moment) else self.next_start(start)

    def shift(self, start: datetime, periods: int) -> datetime:
        """The period start `periods` further on (back where negative); ends of time are not passed."""
        try:
            if self.months:
                return _clamped(_first_of_month(start.year * 12 + start.month - 1 + periods * self.months))
            return _clamped(start + timedelta(seconds=self.seconds * periods))
        except (OverflowError, ValueError):
            return LAST_MOMENT if periods > 0 else FIRST_MOMENT

    def next_start(self, start: datetime) -> datetime:
        """Start of the following period, which is also the exclusive end of this one."""
        return self.shift(start, 1)

    def previous_start(self, start: datetime) -> datetime:
        return self.shift(start, -1)

    def periods(self, start: datetime, end: datetime) -> int:
        """How many periods start in [start, end); 0 where the range is empty."""
        first, stop = self.ceil(start), self.ceil(end)
        if self.months:
            apart = (stop.year - first.year) * 12 + stop.month - first.month
            return max(0, apart // self.months)
        return max(0, (stop - first) // timedelta(seconds=self.seconds))

    def starts(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """Every period start in [start, end), oldest first."""
        current, stop = self.ceil(start), _clamped(end)
        while current < stop:
            yield current
            current = self.next_start(current)

    def __str__(self) -> str:
        return self.word


def _first_of_month(index: int) -> datetime:
    return datetime(index // 12, index % 12 + 1, 1, tzinfo=UTC)


def _clamped(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise InvalidRequestError(f"{moment.isoformat()}: expected an aware datetime; add tzinfo=datetime.UTC")
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        return FIRST_MOMENT if moment.year < 2000 else LAST_MOMENT
    return min(max(moment, FIRST_MOMENT), LAST_MOMENT)


TIMEFRAMES: Final[tuple[Timeframe, ...]] = (
    Timeframe("1s", "seconds", DataType.CANDLE_1S, seconds=1),
    Timeframe("1m", "minutes/1", DataType.CANDLE_1M, seconds=MINUTE),
    Timeframe("3m", "minutes/3", DataType.CANDLE_3M, seconds=3 * MINUTE),
    Timeframe("5m", "minutes/5", DataType.CANDLE_5M, seconds=5 * MINUTE),
    Timeframe("10m", "minutes/10", DataType.CANDLE_10M, seconds=10 * MINUTE),
    Timeframe("15m", "minutes/15", DataType.CANDLE_15M, seconds=15 * MINUTE),
    Timeframe("30m", "minutes/30", DataType.CANDLE_30M, seconds=30 * MINUTE),
    Timeframe("1h", "minutes/60", DataType.CANDLE_60M, seconds=HOUR),
    Timeframe("4h", "minutes/240", DataType.CANDLE_240M, seconds=4 * HOUR),
    Timeframe("1d", "days", None, seconds=DAY),
    Timeframe("1w", "weeks", None, seconds=WEEK),
    Timeframe("1M", "months", None, months=1),
    Timeframe("1y", "years", None, months=12),
)
WORDS: Final = tuple(each.word for each in TIMEFRAMES)


def _spellings() -> dict[str, Timeframe]:
    table: dict[str, Timeframe] = {}
    for each in TIMEFRAMES:
        plural, _, unit = each.rest_path.partition("/")
        table[each.word] = table[each.rest_path] = table[f"{plural[:-1]}{unit}"] = each
        if each.data_type is not None:
            table[each.data_type.value] = table[each.data_type.value.removeprefix("candle.")] = each
        table.setdefault(f"candle.{each.word}", each)  # as Upbit would call a stream of it
    return table


_BY_SPELLING: Final = _spellings()
_BY_DATA_TYPE: Final = {each.data_type: each for each in TIMEFRAMES if each.data_type is not None}


def is_timeframe(word: str) -> bool:
    """Whether `timeframe_of` understands it."""
    return word in _BY_SPELLING


def timeframe_of(word: str | Timeframe) -> Timeframe:
    """The unit called `word`: ours ("1h"), or Upbit's ("60m", "candle.60m", "minutes/60", "minute60", "days").

    Case matters: "1m" is a minute, "1M" a month. Anything else raises UnknownTimeframeError, which lists the words.
    """
    if isinstance(word, Timeframe):
        return word
    found = _BY_SPELLING.get(word) if isinstance(word, str) else None
    if found is None:
        raise UnknownTimeframeError(
            f"timeframe={one_line(repr(word), 40)} does not exist at Upbit; the timeframes are {', '.join(WORDS)} "
            "(1m is a minute, 1M a month; Upbit's own words such as 60m, candle.60m or days are understood too)"
        )
    return found


def timeframe_of_stream(data_type: DataType) -> Timeframe:
    """The unit that `data_type` streams; InvalidRequestError for types that are no candles."""
    found = _BY_DATA_TYPE.get(data_type)
    if found is None:
        candles = ", ".join(each.value for each in _BY_DATA_TYPE)
        raise InvalidRequestError(f"{data_type!s} is no candle stream; the candle streams are {candles}")
    return found
