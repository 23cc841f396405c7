"""Coverage: which stretches of Upbit's time are complete, which are not, and why. Pure arithmetic on intervals.

What was written as complete (`Span`) makes *spans*, what a `GapEvent` said is missing makes *gaps*; a stretch is
complete where a span and no gap is. Times are half open: from `start` on, before `end`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from .._language import spoken, word
from ..models.readable import Readable, moment

# Gaps tell their first and last moment, and nothing of Upbit's is finer than a millisecond.
TICK: Final = timedelta(milliseconds=1)


class CoverageState(StrEnum):
    """COMPLETE: everything Upbit published is there. PARTIAL: something is, and something is missing. MISSING: nothing
    is known to be there."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    MISSING = "missing"


class Interval(NamedTuple):
    """From `start` on and before `end`."""

    start: datetime
    end: datetime


class KnownGap(NamedTuple):
    """What a receipt said: missing from `start` to `end`, both inclusive, although `recovered` items came back."""

    start: datetime
    end: datetime
    reason: str
    recovered: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Coverage(Readable):
    """One stretch of one topic's past, from `start` (inclusive) to `end` (exclusive), in Upbit's time (aware UTC).

    `state` and `reason` stay English for programs; `str()` is for people, in their language.
    """

    start: datetime
    end: datetime
    state: CoverageState
    reason: str = ""

    @property
    def seconds(self) -> float:
        return (self.end - self.start).total_seconds()

    def _line(self) -> str:
        why = f" ({spoken(self.reason)})" if self.reason else ""
        return f"{moment(self.start)} – {moment(self.end)}: {word(self.state)}{why}"


NOT_RECORDED: Final = "nobody recorded then, or a line was interrupted"


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """The same stretches, in order, those that touch as one."""
    found: list[Interval] = []
    for each in sorted(intervals):
        if found and each.start <= found[-1].end:
            found[-1] = Interval(found[-1].start, max(found[-1].end, each.end))
        else:
            found.append(each)
    return found


def without(intervals: Iterable[Interval], holes: Iterable[Interval]) -> list[Interval]:
    """What is left of `intervals`, which are in order and apart, where none of `holes` is."""
    left = list(intervals)
    for hole in holes:
        pieces = []
        for each in left:
            if hole.end <= each.start or each.end <= hole.start:
                pieces.append(each)
                continue
            if each.start < hole.start:
                pieces.append(Interval(each.start, hole.start))
            if hole.end < each.end:
                pieces.append(Interval(hole.end, each.end))
        left = pieces
    return left


def complete(spans: Iterable[Interval], gaps: Iterable[KnownGap]) -> list[Interval]:
    """Where everything is there."""
    return without(merged(spans), [Interval(gap.start, gap.end + TICK) for gap in gaps])


def coverage(spans: Iterable[Interval], gaps: Sequence[KnownGap], window: Interval | None = None) -> list[Coverage]:
    """Every stretch of `window` (default: from the first span to the end of the last), in order, without a hole."""
    known = merged(spans)
    if window is None:
        if not known:
            return []
        window = Interval(known[0].start, known[-1].end)
    whole = [piece for each in complete(known, gaps) if (piece := _within(each, window)) is not None]
    stretches = [Coverage(start=each.start, end=each.end, state=CoverageState.COMPLETE) for each in whole]
    for hole in without([window], whole):
        stretches += _explained(hole, gaps)
    return sorted((each for each in stretches if each.start < each.end), key=lambda each: each.start)


def _within(interval: Interval, window: Interval) -> Interval | None:
    start, end = max(interval.start, window.start), min(interval.end, window.end)
    return Interval(start, end) if start < end else None


def _explained(hole: Interval, gaps: Iterable[KnownGap]) -> list[Coverage]:
    """The parts of a hole: those a receipt explains, and the rest, for which nobody was there."""
    explained = []
    rest = [hole]
    for gap in sorted(gaps):
        for piece in rest:
            told = _within(Interval(gap.start, gap.end + TICK), piece)
            if told is not None:
                state = CoverageState.PARTIAL if gap.recovered else CoverageState.MISSING
                explained.append(Coverage(start=told.start, end=told.end, state=state, reason=gap.reason))
        rest = without(rest, [Interval(gap.start, gap.end + TICK)])
    return explained + [
        Coverage(start=each.start, end=each.end, state=CoverageState.MISSING, reason=NOT_RECORDED) for each in rest
    ]
