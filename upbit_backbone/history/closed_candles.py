"""Closed candles that were seen already: the only place that keeps them.

A closed candle never changes (docs: closed bars re-read unchanged), so a chart asked for again costs one request at
most: for the part that was not closed yet. What is kept are *stretches*: everything that starts in [low, high),
holes included, because "no candle there" is knowledge too.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Final

from ..exchange.timeframes import FIRST_MOMENT, Timeframe
from ..models.market import CandleData

# Upbit stores last ticks up to 54 ms after a period's end (measured); after this long a candle is taken for final.
SETTLE: Final = timedelta(seconds=5)
MAX_ROWS: Final = 50_000  # about 50 MB when full

Stretch = tuple[datetime, datetime, list[CandleData]]
_START: Final = attrgetter("timestamp")


@dataclass(slots=True)
class _Known:
    low: datetime
    high: datetime
    rows: list[CandleData]  # oldest first

    def between(self, low: datetime, high: datetime) -> list[CandleData]:
        return self.rows[bisect_left(self.rows, low, key=_START) : bisect_left(self.rows, high, key=_START)]


def settled_before(timeframe: Timeframe, asked_at: datetime) -> datetime:
    """Candles that start before this moment were final when Upbit was asked at `asked_at`."""
    # By when Upbit was asked, not by when it answered.
    return timeframe.floor(asked_at - SETTLE)


class ClosedCandles:
    """Bounded by rows over everything; the market and unit that was not asked for longest goes first.

    Thread-safe. Rows are immutable and shared.
    """

    def __init__(self, max_rows: int = MAX_ROWS) -> None:
        self._max_rows = max_rows
        self._lock = threading.Lock()  # guards _known and _rows
        self._known: OrderedDict[tuple[str, str], list[_Known]] = OrderedDict()
        self._rows = 0

    def known(self, symbol: str, timeframe: Timeframe, low: datetime, high: datetime) -> list[Stretch]:
        """What is known of [low, high): stretches with their rows, oldest first."""
        key = (symbol, timeframe.word)
        with self._lock:
            stretches = self._known.get(key, [])
            # Asked for is used: the chart that nobody looks at is the one to go.
            if stretches:
                self._known.move_to_end(key)
            return _known_of(stretches, low, high)

    def first(self, symbol: str, timeframe: Timeframe) -> CandleData | None:
        """The oldest candle there is, if that is known: Upbit has said that nothing is before it."""
        with self._lock:
            stretches = self._known.get((symbol, timeframe.word), [])
            oldest = stretches[0] if stretches else None
            return oldest.rows[0] if oldest is not None and oldest.low == FIRST_MOMENT and oldest.rows else None

    def put(self, symbol: str, timeframe: Timeframe, low: datetime, high: datetime, rows: Sequence[CandleData]) -> None:
        """Everything final that starts in [low, high) is `rows`, oldest first. Newer knowledge replaces older."""
        if low >= high:
            return
        new = _Known(low, high, [row for row in rows if low <= row.timestamp < high])
        key = (symbol, timeframe.word)
        with self._lock:
            old = self._known.get(key, [])
            self._rows -= sum(len(each.rows) for each in old)
            # Merged at once, so that a chart that is asked for again finds one stretch and not a hundred.
            merged = _merge(old, new)
            self._known[key] = merged
            self._known.move_to_end(key)
            self._rows += sum(len(each.rows) for each in merged)
            self._make_room()

    def _make_room(self) -> None:
        while self._rows > self._max_rows and len(self._known) > 1:
            _, stretches = self._known.popitem(last=False)
            self._rows -= sum(len(each.rows) for each in stretches)
        for stretches in self._known.values():
            while self._rows > self._max_rows:
                self._drop_oldest(stretches)

    def _drop_oldest(self, stretches: list[_Known]) -> None:
        oldest = stretches[0]
        keep = len(oldest.rows) - (self._rows - self._max_rows)
        if keep <= 0:
            self._rows -= len(oldest.rows)
            del stretches[0]
            return
        self._rows = self._max_rows
        oldest.rows = oldest.rows[-keep:]
        # With its bound: "nothing there" may only be said of what is still known.
        oldest.low = oldest.rows[0].timestamp

    def forget(self, symbol: str | None = None) -> None:
        """Drop what is known of `symbol`, or everything."""
        with self._lock:
            for key in self._charts_of(symbol):
                self._rows -= sum(len(each.rows) for each in self._known.pop(key))

    def _charts_of(self, symbol: str | None) -> list[tuple[str, str]]:
        return [key for key in self._known if symbol in (None, key[0])]

    def doubt(self, symbol: str, timeframe: Timeframe, since: datetime) -> None:
        """Drop what is known of candles that start at or after `since`: Upbit is to be asked again."""
        key = (symbol, timeframe.word)
        with self._lock:
            stretches = self._known.get(key, [])
            self._rows -= sum(len(each.rows) for each in stretches)
            # Cut and not dropped: what lies before the doubt is as certain as it was.
            self._known[key] = [_Known(*each) for each in _known_of(stretches, FIRST_MOMENT, since)]
            self._rows += sum(len(each.rows) for each in self._known[key])

    def __len__(self) -> int:
        return self._rows

    def __repr__(self) -> str:
        return f"<ClosedCandles {self._rows}/{self._max_rows} rows of {len(self._known)} charts>"


def _known_of(stretches: Sequence[_Known], low: datetime, high: datetime) -> list[Stretch]:
    """What these know of [low, high)."""
    found = [(max(low, each.low), min(high, each.high), each) for each in stretches]
    return [(start, end, each.between(start, end)) for start, end, each in found if start < end]


def _merge(old: list[_Known], new: _Known) -> list[_Known]:
    """Disjoint stretches, oldest first; `new` wins where it overlaps, and grows by what touches it."""
    before = [each for each in old if each.high < new.low]
    after = [each for each in old if each.low > new.high]
    touching = [each for each in old if each.high >= new.low and each.low <= new.high]
    if touching:
        # Only the two at the ends can reach beyond the new one.
        first, last = touching[0], touching[-1]
        older = first.between(first.low, new.low) if first.low < new.low else []
        newer = last.between(new.high, last.high) if last.high > new.high else []
        new = _Known(min(first.low, new.low), max(last.high, new.high), older + new.rows + newer)
    return [*before, new, *after]
