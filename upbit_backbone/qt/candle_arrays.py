"""Candle arrays: what a chart draws, as numbers in columns; merged by time, cut to what is visible. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..models.market import CandleData

Floats = NDArray[np.float64]

START, OPEN, HIGH, LOW, CLOSE, VOLUME = range(6)
FEWEST: Final = 256  # rows that room is made for


class Bars(NamedTuple):
    """Bars to be drawn: one for each candle, or for all candles of a pixel column."""

    start: Floats
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats

    def __len__(self) -> int:  # of bars, where a tuple would count its columns
        return len(self.start)


class CandleArrays:
    """Candles of one market and unit, sorted by their start, each start once.

    The numbers are floats, made for drawing; `rows` are the candles themselves, exact. The starts are seconds since
    1970, as charts count time.
    """

    def __init__(self) -> None:
        self.rows: list[CandleData] = []
        self._columns: Floats = np.empty((6, FEWEST))
        self.period = 60.0  # seconds between two candles, as a rule

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def columns(self) -> Floats:
        """START, OPEN, HIGH, LOW, CLOSE and VOLUME of all rows; a view."""
        return self._columns[:, : len(self.rows)]

    def clear(self) -> None:
        self.rows = []

    def merge(self, rows: Sequence[CandleData]) -> None:
        """Take in candles, oldest first: new ones, and others in place of those with the same start."""
        if not rows:
            return
        known, count = self.columns[START], len(self.rows)
        first = rows[0].timestamp.timestamp()
        if not len(known) or first >= known[-1]:
            self._append(rows)
        elif rows[-1].timestamp.timestamp() < known[0]:
            self._replace([*rows, *self.rows], np.concatenate([_columns_of(rows), self.columns], axis=1))
        else:
            self._interleave(rows)
        if len(self.rows) > max(count, 1):
            # The usual distance, whatever holes there are where nobody traded. A few hundred tell it.
            self.period = float(np.median(np.diff(self.columns[START][-FEWEST:])))

    def _append(self, rows: Sequence[CandleData]) -> None:
        if self.rows and self.rows[-1].timestamp == rows[0].timestamp:
            self.rows.pop()
        count = len(self.rows)
        if count + len(rows) > self._columns.shape[1]:
            # Doubled, so that a chart that grows for days is copied a dozen times and not with each candle.
            wider = np.empty((6, max(2 * self._columns.shape[1], count + len(rows))))
            wider[:, :count] = self._columns[:, :count]
            self._columns = wider
        self._columns[:, count : count + len(rows)] = _columns_of(rows)
        self.rows.extend(rows)

    def _interleave(self, rows: Sequence[CandleData]) -> None:
        fresh: list[CandleData] = []
        for row in rows:
            start = row.timestamp.timestamp()
            place = int(np.searchsorted(self.columns[START], start))
            if place < len(self.rows) and self.columns[START][place] == start:
                self.rows[place] = row
                self._columns[:, place] = _columns_of([row])[:, 0]
            else:
                fresh.append(row)
        if fresh:
            columns = np.concatenate([self.columns, _columns_of(fresh)], axis=1)
            order = np.argsort(columns[START], kind="stable")
            everything = [*self.rows, *fresh]
            self._replace([everything[place] for place in order], columns[:, order])

    def _replace(self, rows: list[CandleData], columns: Floats) -> None:
        self.rows, self._columns = rows, np.ascontiguousarray(columns)

    def between(self, left: float, right: float) -> slice:
        """The rows of which something lies between two times: none, or as many as are seen."""
        starts = self.columns[START]
        return slice(
            int(np.searchsorted(starts, left - self.period)), int(np.searchsorted(starts, right + self.period, "right"))
        )

    def bars(self, seen: slice, per_bar: float = 0.0) -> Bars:
        """What is to be drawn of these rows; with `per_bar` seconds in a bar, one for all candles of such a stretch.

        So a chart draws no more bars than it has pixels, however many candles are in sight.
        """
        part = self.columns[:, seen]
        if per_bar <= self.period or part.shape[1] == 0:
            return Bars(*part)
        stretches = np.floor(part[START] / per_bar)
        begins = np.flatnonzero(np.diff(stretches, prepend=stretches[0] - 1))
        ends = np.append(begins[1:], part.shape[1]) - 1
        return Bars(
            part[START][begins],
            part[OPEN][begins],
            np.maximum.reduceat(part[HIGH], begins),
            np.minimum.reduceat(part[LOW], begins),
            part[CLOSE][ends],
            np.maximum.reduceat(part[VOLUME], begins),
        )

    def nearest(self, time: float) -> int | None:
        """The number of the row whose start is nearest; None where there is none."""
        starts = self.columns[START]
        if not len(starts):
            return None
        place = int(np.searchsorted(starts, time))
        if place == 0 or (place < len(starts) and starts[place] - time < time - starts[place - 1]):
            return min(place, len(starts) - 1)
        return place - 1

    def __repr__(self) -> str:
        return f"<CandleArrays {len(self)} candles of {self.period:g} s>"


def _columns_of(rows: Sequence[CandleData]) -> Floats:
    columns = np.empty((6, len(rows)))
    for place, row in enumerate(rows):
        columns[:, place] = (
            row.timestamp.timestamp(),
            row.open_price,
            row.high_price,
            row.low_price,
            row.close_price,
            row.volume,
        )
    return columns
