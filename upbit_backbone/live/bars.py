"""Bars: the rows of a live series and what changes them. Pure: told the time, knows no thread.

Whose word counts: a forming candle is what the stream said last, except that a frame with less volume than REST has
already told is late and ignored. A candle that is over is final once REST has told it at least `SETTLE` after its
end; a frame that contradicts it later is taken over if it brings volume, and in any case REST is asked again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Final

from ..exchange.timeframes import FIRST_MOMENT, Timeframe
from ..history.closed_candles import settled_before
from ..models.enums import DataSource
from ..models.market import CandleData

# Upbit evaluates streamed candles once a second (docs: websocket-candle), so a last frame may come this late.
CLOSE_GRACE: Final = timedelta(seconds=2)

CATCH_UP: Final = 10_000  # candles that are made up for after a break, whatever the size; fifty requests

_START: Final = attrgetter("timestamp")
# Without the traded value: no trade changes it alone, but its last digits may be rounded differently per channel.
_NUMBERS: Final = attrgetter("open_price", "high_price", "low_price", "close_price", "volume")


@dataclass(frozen=True, slots=True)
class BarUpdate:
    """A candle as it is now. `is_correction`: it had been reported as closed before, with other numbers."""

    candle: CandleData
    closed: bool
    is_correction: bool = False


class Bars:
    """The newest `size` candles, oldest first, each start once. Not thread-safe: its owner locks.

    Everything that starts before `certain_until` is final by REST. What is not is kept beyond `size`, too, lest REST's
    word on it look like news of a candle that nobody has reported yet.
    """

    def __init__(self, timeframe: Timeframe, size: int) -> None:
        self._timeframe = timeframe
        self.size = size
        self.loads = 0  # of older rows, under way
        self._kept: list[CandleData] = []
        self.certain_until = FIRST_MOMENT

    def __len__(self) -> int:
        return min(len(self._kept), self.size)

    @property
    def rows(self) -> list[CandleData]:
        """A copy."""
        return self._kept[-self.size :]

    @property
    def last(self) -> CandleData | None:
        return self._kept[-1] if self._kept else None

    def resize(self, size: int) -> None:
        self.size = size
        self._trim()

    def prepend(self, rows: Sequence[CandleData]) -> None:
        """Older rows from REST, oldest first; those not older than what is known are ignored."""
        first = self._kept[0].timestamp if self._kept else None
        self._kept = [row for row in rows if first is None or row.timestamp < first] + self._kept
        self._trim()

    def begin_load(self) -> datetime | None:
        """Older rows will be asked for: the start of the candle they come before. Ends with `end_load`."""
        self.loads += 1
        return self.rows[0].timestamp if self._kept else None

    def end_load(self, rows: Sequence[CandleData]) -> None:
        """What came of it, oldest first: the size grows by that much."""
        self.prepend(rows)
        self.loads -= 1
        self.size = max(self.size, len(self._kept)) if rows else self.size
        self._trim()

    def live(self, candle: CandleData) -> list[BarUpdate]:
        """A frame from the stream."""
        last = self._kept[-1] if self._kept else None
        if last is None or candle.timestamp > last.timestamp:
            # Told before the new one, so that whoever draws gets each candle's end before the next one's beginning.
            updates = self._close_last()
            self._kept.append(replace(candle, is_closed=False))
            self._trim()
            return [*updates, BarUpdate(self._kept[-1], closed=False)]
        if candle.timestamp == last.timestamp and not last.is_closed:
            # Less volume than REST has told: a frame that was under way when REST was asked.
            if not _is_later(candle, last):
                return []
            self._kept[-1] = replace(candle, is_closed=False)
            return [BarUpdate(self._kept[-1], closed=False)] if _differ(candle, last) else []
        return self._late(replace(candle, is_closed=True))

    def _late(self, candle: CandleData) -> list[BarUpdate]:
        """A frame about a candle that is over."""
        index = bisect_left(self._kept, candle.timestamp, key=_START)
        known = self._kept[index] if self._kept[index].timestamp == candle.timestamp else None
        is_out_of_sight = known is None and index == 0
        # Older than all that is kept: nobody can say whether it is news.
        if is_out_of_sight or (known is not None and not _differ(candle, known)):
            return []
        # A frame contradicts what was taken for final: from here on REST is asked again.
        self.certain_until = min(self.certain_until, candle.timestamp)
        if known is None:
            self._kept.insert(index, candle)
        elif _is_later(candle, known):
            self._kept[index] = candle
        else:
            return []
        self._trim()
        return [BarUpdate(candle, closed=True, is_correction=True)]

    def tick(self, now: datetime) -> list[BarUpdate]:
        """Close the forming candle if its period is over and no later one came."""
        last = self._kept[-1] if self._kept else None
        # With a grace, because Upbit evaluates a streamed candle once a second: closed at once, its last frame would be
        # a correction.
        is_over = last is not None and self._timeframe.next_start(last.timestamp) + CLOSE_GRACE <= now
        return self._close_last() if is_over else []

    def _close_last(self) -> list[BarUpdate]:
        if not self._kept or self._kept[-1].is_closed:
            return []
        self._kept[-1] = replace(self._kept[-1], is_closed=True)
        return [BarUpdate(self._kept[-1], closed=True)]

    def wants_proof(self, now: datetime) -> bool:
        """Whether a candle is over for long enough that REST's word would be final, and has not been asked."""
        settled = settled_before(self._timeframe, now)
        index = bisect_left(self._kept, self.certain_until, key=_START)
        return index < len(self._kept) and self._kept[index].timestamp < settled

    def take_over(self, rows: Sequence[CandleData], since: datetime, asked_at: datetime) -> list[BarUpdate]:
        """REST's answer, asked at `asked_at`, for everything that starts at or after `since`; oldest first.

        Reports what became different, in order: missed candles, corrections, the end of the forming one.
        """
        # By when REST was asked and not by when it answered: what ended in between was not final yet.
        settled = settled_before(self._timeframe, asked_at)
        known = {row.timestamp: row for row in self._kept if row.timestamp >= since}
        told = {row.timestamp: row for row in rows if row.timestamp >= since}
        kept = [row for row in self._kept if row.timestamp < since]
        newest = max([*known, *told], default=None)
        updates: list[BarUpdate] = []
        for start in sorted(known.keys() | told.keys()):
            row = _decide(known.get(start), told.get(start), is_final=start < settled)
            if row is None:
                continue  # REST knows of no such candle, and its word is final
            # A later candle closes the one before it.
            is_closed = row.is_closed or start != newest
            row = row if row.is_closed == is_closed else replace(row, is_closed=is_closed)
            updates += _update(known.get(start), row)
            kept.append(row)
        self._kept = kept
        # Only where the answer begins at what was certain: otherwise a stretch in between was never asked for.
        self.certain_until = max(self.certain_until, settled) if since <= self.certain_until else self.certain_until
        self._trim()
        return updates

    def _trim(self) -> None:
        surplus = len(self._kept) - self.size
        # Not while older ones are on their way: a candle that fell off meanwhile would be a hole before it.
        if surplus > 0 and not self.loads:
            # Uncertain candles stay although there is no room: forgotten, they would come back from REST as news.
            certain = bisect_left(self._kept, self.certain_until, key=_START)
            self._kept = self._kept[max(min(surplus, certain), surplus - CATCH_UP) :]


def _decide(known: CandleData | None, told: CandleData | None, *, is_final: bool) -> CandleData | None:
    """The candle to keep: REST's where its word is final, otherwise the later state of the two."""
    if is_final or known is None:
        return told
    if told is None:
        return known
    return told if told.volume >= known.volume else known


def _update(known: CandleData | None, row: CandleData) -> list[BarUpdate]:
    if known is None:
        return [BarUpdate(row, row.is_closed)]
    is_different, is_newly_closed = _differ(known, row), row.is_closed and not known.is_closed
    if not is_different and not is_newly_closed:
        return []
    return [BarUpdate(row, row.is_closed, is_correction=known.is_closed and is_different)]


def _is_later(candle: CandleData, known: CandleData) -> bool:
    """Volume only grows while a candle forms; with a stream against itself, the last word counts."""
    return known.source is not DataSource.REST or candle.volume >= known.volume


def _differ(one: CandleData, other: CandleData) -> bool:
    return bool(_NUMBERS(one) != _NUMBERS(other))
