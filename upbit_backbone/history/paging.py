"""Paging: which page to ask for next, what is known so far, and where a history begins. Pure.

Upbit answers the newest `count` rows that start before `to`. So a page proves everything from its oldest row up to its
`to`, however many holes lie in between. A short page only hints that nothing older exists: answers are cut short now
and then. A history begins where two answers say so, the later one empty and asked for after the first had come: that
costs one request where a history ends and nothing elsewhere. An `Area` collects such proofs for one stretch of time.
Because proofs may arrive in any order and overlap, several pages can be asked for at once: where candles are dense the
next `to` is computed (200 periods back), where they are sparse the stretch is split and each part is walked on its own.
Guessing wrong costs a request, never a row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Final

from ..exchange.endpoints import MAX_CANDLES
from ..exchange.timeframes import FIRST_MOMENT, LAST_MOMENT, TIMEFRAMES, Timeframe
from ..models.market import CandleData

DENSE: Final = 0.96  # above this share of periods with a candle, 200 periods are as good as 200 rows
SPLIT_PAGES: Final = 8  # a sparse stretch shorter than this is not worth splitting: each split wastes half a page
REACH_PAGES: Final = 48  # how far from the oldest certain row we look for parts to split off; bounds the memory
DENIALS: Final = 3  # rows kept from earlier may be older than what Upbit still serves (seconds: three months)
CLOCK_ROWS: Final = 2  # candles that may have begun while we were counting


@dataclass(frozen=True, slots=True)
class Page:
    """One request: at most `count` rows that start before `to` (None: the newest there are)."""

    to: datetime | None
    count: int

    @property
    def high(self) -> datetime:
        return self.to or LAST_MOMENT


@dataclass(slots=True)
class Segment:
    """Everything that starts in [low, high): `chunks` newest first, rows within a chunk oldest first."""

    low: datetime
    high: datetime
    chunks: list[list[CandleData]] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(map(len, self.chunks))

    def cut_above(self, moment: datetime) -> None:
        """Forget what starts at or after `moment`."""
        self.high = min(self.high, moment)
        while self.chunks:
            newest = self.chunks[0]
            while newest and newest[-1].timestamp >= moment:
                newest.pop()
            if newest:
                return
            self.chunks.pop(0)


@dataclass(frozen=True, slots=True)
class _Gap:
    """Unknown periods [low, high). `is_certain`: `high` is proven, not guessed from a page still under way."""

    low: datetime
    high: datetime
    is_certain: bool
    rows_above: float


class Area:
    """What is known and asked about [low, high) of one market and unit.

    `wanted` limits it to the newest rows (`low` None: as far back as they reach). Not thread-safe: one download,
    one thread.
    """

    def __init__(
        self,
        timeframe: Timeframe,
        low: datetime | None,
        high: datetime | None,
        *,
        now: datetime,
        wanted: int | None = None,
        density: float | None = None,
    ) -> None:
        self._timeframe = timeframe
        self.low = low or FIRST_MOMENT
        self.is_open = high is None or high > now
        self._clip = high or LAST_MOMENT
        # An open end is asked without `to`; where its first page ends can then only be estimated.
        # Not our own "now": a clock that is behind would cut off the newest candles.
        self._high = LAST_MOMENT if self.is_open else self._clip
        self._brim = min(self._clip, timeframe.next_start(timeframe.floor(now))) if self.is_open else self._clip
        self._wanted = wanted
        self._taken = 0
        self._density = density or 1.0
        self._has_learned = density is not None
        self._segments: list[Segment] = []  # newest first, never touching
        self._asked: list[Page] = []
        self._ends: list[datetime] = []  # nothing starts before this, said one answer each, and none has contradicted
        self._confirming: set[Page] = set()  # asked since: an empty answer to one of these is a second opinion
        self._denials: Counter[datetime] = Counter()

    @property
    def density(self) -> float | None:
        """The share of periods that have a candle, as far as known."""
        return self._density if self._has_learned else None

    # -- what is known ----------------------------------------------------------------------------------------------

    @property
    def certain_from(self) -> datetime:
        """Everything from here up to the end is known."""
        top = self._top()
        return top.low if top is not None else self._high

    @property
    def knows_its_end(self) -> bool:
        return self._top() is not None

    def _top(self) -> Segment | None:
        first = self._segments[0] if self._segments else None
        return first if first is not None and first.high >= self._high else None

    @property
    def is_complete(self) -> bool:
        top = self._top()
        if top is None:
            return self.low >= self._brim
        return top.low <= self.low or (self._wanted is not None and self._taken + len(top) >= self._wanted)

    @property
    def rows(self) -> int:
        """Rows that are certainly part of the answer so far."""
        top = self._top()
        have = self._taken + (len(top) if top is not None else 0)
        return have if self._wanted is None else min(have, self._wanted)

    @property
    def settled_periods(self) -> int:
        """Periods of the range about which everything is known, from the newest down."""
        return self._timeframe.periods(max(self.certain_from, self.low), self._brim)

    def add(self, low: datetime, high: datetime, rows: Sequence[CandleData]) -> None:
        """Everything that starts in [low, high) is `rows`, oldest first."""
        # What lies beyond the end is nobody's question: a slow answer may hold nothing but candles that began since.
        low, high = max(min(low, self._clip), self.low), min(high, self._high)
        if low >= high:
            return
        # An open end proves everything up to now, but rows beyond what was asked for are not part of the answer.
        inside = [row for row in rows if low <= row.timestamp < min(high, self._clip)]
        new = Segment(low, high, [inside] if inside else [])
        merged: list[Segment] = []
        for each in sorted([*self._segments, new], key=lambda one: (one.high, one.low), reverse=True):
            above = merged[-1] if merged else None
            if above is None or each.high < above.low:
                merged.append(each)
            elif each.low < above.low:
                each.cut_above(above.low)
                above.low, above.chunks = each.low, above.chunks + each.chunks
        self._segments = merged

    def take(self) -> Iterator[list[CandleData]]:
        """Hand out certain rows not handed out before: chunks newest first, each oldest first within."""
        top = self._top()
        if top is None:
            return
        chunks, top.chunks = top.chunks, []
        for chunk in chunks:
            room = len(chunk) if self._wanted is None else self._wanted - self._taken
            part = chunk[-room:] if room > 0 else []
            self._taken += len(part)
            if part:
                yield part

    @property
    def is_dense(self) -> bool:
        """Whether the pages' ends can be told in advance, as far as known."""
        return self._density >= DENSE

    @property
    def pages_left(self) -> float:
        """About how many pages what is not certain yet will take."""
        if self._wanted is not None:
            return (self._wanted - self.rows) / MAX_CANDLES
        return self._timeframe.periods(self.low, min(self.certain_from, self._brim)) * self._density / MAX_CANDLES

    @property
    def _is_long(self) -> bool:
        """Whether it pays to wait for the first answer before guessing where others end."""
        rows = self._timeframe.periods(self.low, self._brim) if self._wanted is None else self._wanted
        return rows > SPLIT_PAGES * MAX_CANDLES

    # -- what to ask ------------------------------------------------------------------------------------------------

    def asked(self, page: Page) -> None:
        self._asked.append(page)
        # Only what is asked from now on can confirm the supposed beginning.
        if self._ends:
            self._confirming.add(page)

    def failed(self, page: Page) -> None:
        """The page is not under way any more; its stretch is unknown again."""
        self._asked.remove(page)
        self._confirming.discard(page)

    def answered(
        self, page: Page, rows: Sequence[CandleData], holes: Sequence[datetime] = ()
    ) -> tuple[datetime, datetime]:
        """Take in the answer to `page`, oldest first; the bounds of what it proves. `holes` are the starts of rows that
        came as well and cannot be read."""
        self._asked.remove(page)
        starts = [row.timestamp for row in rows[:1]] + list(holes)
        low, high = self._told(page, min(starts), len(rows) + len(holes)) if starts else self._told_nothing(page)
        self._confirming.discard(page)
        if len(rows) > 1:
            spanned = self._timeframe.periods(rows[0].timestamp, min(page.high, self._brim))
            seen = len(rows) / max(len(rows), spanned)
            self._density = (self._density + seen) / 2 if self._has_learned else seen
            self._has_learned = True
        self.add(low, high, rows)
        return low, high

    def _told(self, page: Page, low: datetime, rows: int) -> tuple[datetime, datetime]:
        # A row older than a supposed beginning shows that the answer before was cut.
        self._ends = [end for end in self._ends if end <= low]
        # A hint and no proof: an answer that was cut short once ended downloads at 100 candles of 600.
        if rows < page.count:
            self._ends.append(low)
        return low, page.high

    def _told_nothing(self, page: Page) -> tuple[datetime, datetime]:
        """What an empty answer proves: nothing by itself; the beginning, if an answer before it has said the same."""
        high = page.high
        older = [each.high for each in self._segments if each.low < high and each.chunks]
        if older:  # the answer contradicts what is known
            self._denials[high] += 1
            # Upbit keeps seconds for three months only, so rows that we have may be older than what it still has; but
            # one empty answer may be a hiccup.
            is_meant = self._denials[high] >= DENIALS
            return (min(high, max(older)) if is_meant else high), high
        proof = (high, high)
        # Asked for after the first had come: two answers that were under way together may share one hiccup.
        if self._ends and page in self._confirming:
            proof = (FIRST_MOMENT, min(high, max(self._ends)))
        self._ends.append(high)
        return proof

    def next_page(self, walks: int = 2) -> Page | None:
        """The most useful request that is not under way yet, or None where waiting is better.

        A long stretch is asked for at `walks` places at once, as many as it takes to use the rate and no more: where it
        is sparse, each further one wastes half a page where two meet; where it is dense, each hole wastes a row.
        """
        if self.is_complete:
            return None
        gaps = list(self._gaps())
        for gap in gaps:
            if gap.is_certain:
                return self._page(gap.high, gap)
        guesses = [gap for gap in gaps if gap.low < gap.high]
        if self._ends:
            return None  # where the history seems to end, nothing is guessed about what lies before
        # Until the first answer tells how dense the candles are, each guess may be wrong by pages.
        is_too_soon = self._is_long and len(self._asked) >= (walks if self._has_learned else 1)
        if not guesses or is_too_soon:
            return None
        if self.is_dense:
            return self._page(guesses[0].high, guesses[0])
        return self._split(guesses)

    def _split(self, gaps: list[_Gap]) -> Page | None:
        """Walk the longest sparse stretch from its middle as well."""
        reach = self._back(min(self.certain_from, self._brim), REACH_PAGES * MAX_CANDLES)
        near = [_Gap(max(gap.low, reach), gap.high, gap.is_certain, gap.rows_above) for gap in gaps if gap.high > reach]
        if not near:
            return None
        longest = max(near, key=lambda gap: self._timeframe.periods(gap.low, gap.high))
        rows = self._timeframe.periods(longest.low, longest.high) * self._density
        if self._wanted is not None:
            rows = min(rows, self._wanted - longest.rows_above)
        if rows < SPLIT_PAGES * MAX_CANDLES:
            return None
        return self._page(self._back(longest.high, rows / 2), longest)

    def _page(self, high: datetime, gap: _Gap) -> Page:
        # Without `to` once only: what has begun since would come again and again, and never what lies before it.
        is_open = self.is_open and high >= self._high
        # No more than the gap holds: a chart asked for again costs one small page. An open end gets two more, since
        # candles may begin on the way.
        count = self._timeframe.periods(gap.low, min(high, self._brim)) + (CLOCK_ROWS if is_open else 0)
        if self._wanted is not None:
            count = min(count, self._wanted)
        return Page(None if is_open else high, max(1, min(MAX_CANDLES, count)))

    def _gaps(self) -> Iterator[_Gap]:
        """Unknown stretches from the newest down, as far as the wanted rows are expected to reach."""
        cursor, is_certain, rows_above = self._high, True, float(self._taken)
        holds = [(each.high, each.low, float(len(each)), True) for each in self._segments]
        holds += [(page.high, self._expected_low(page), float(page.count), False) for page in self._asked]
        for high, low, rows, is_proven in sorted(holds, key=lambda hold: hold[0], reverse=True):
            if high < cursor:
                gap = _Gap(high, cursor, is_certain, rows_above)
                yield gap
                rows_above += self._timeframe.periods(gap.low, min(gap.high, self._brim)) * self._density
            rows_above += rows
            if low < cursor:
                cursor, is_certain = low, is_proven
            if self._wanted is not None and rows_above >= self._wanted:
                return
        if cursor > self.low:
            yield _Gap(self.low, cursor, is_certain, rows_above)

    def _expected_low(self, page: Page) -> datetime:
        high = min(page.high, self._brim)
        return max(self.low, self._back(high, page.count))

    def _back(self, moment: datetime, rows: float) -> datetime:
        periods = rows if self.is_dense else rows / self._density
        return self._timeframe.shift(moment, -max(1, int(periods)))

    def __repr__(self) -> str:
        state = "complete" if self.is_complete else f"{len(self._asked)} pages under way"
        return f"<Area {self._timeframe} [{self.low:%F %T}, {self._brim:%F %T}) {self.rows} rows, {state}>"


# History start: where the candles of a market begin, found in a handful of requests.
#
# A year has one candle of a year, so one page of the coarsest unit tells the year in which trading began; the next
# finer unit of which that year holds a page or less tells the week, and so on down to the unit that is wanted: four or
# five requests. Fine units may be kept for less long than coarse ones (seconds: three months, docs:
# list-candles-seconds); then the rest is found by halving, about twenty requests. What was found is believed once Upbit
# has nothing before it.

COARSEST: Final = TIMEFRAMES[-1]

# The newest rows, at most so many, that start before a moment (None: now), in any order.
PageBefore = Callable[[Timeframe, int, datetime | None], Sequence[CandleData]]


def first_candle(page: PageBefore, unit: Timeframe) -> CandleData | None:
    """The oldest candle of `unit` there is, None where there is none. Raises what `page` raises."""
    known_empty, first = _down_the_units(page, unit)
    if first is None:
        first = _oldest(page(unit, 1, None) or page(unit, 1, None))  # one empty answer is no proof
        if first is None:
            return None
    elif not (before := page(unit, 1, first.timestamp)):
        return first
    else:  # the coarse units knew less than the fine one
        known_empty, first = FIRST_MOMENT, before[0]
    return _by_halving(page, unit, known_empty, first)


def _down_the_units(page: PageBefore, unit: Timeframe) -> tuple[datetime, CandleData | None]:
    """The oldest candle of `unit` as far as the coarser ones lead to it, and before what they know of nothing."""
    rung = COARSEST
    oldest = _oldest(page(rung, MAX_CANDLES, None))
    while oldest is not None and rung != unit:
        # The beginning lies within this one candle of the coarser unit, whatever it is in the finer.
        low, high = oldest.timestamp, rung.next_start(oldest.timestamp)
        finer = next(each for each in TIMEFRAMES if _leads_on(each, low, high, rung, unit))
        oldest = _oldest(page(finer, MAX_CANDLES, high))
        if oldest is None:
            return low, None
        rung = finer
    return FIRST_MOMENT, oldest


def _leads_on(each: Timeframe, low: datetime, high: datetime, above: Timeframe, target: Timeframe) -> bool:
    """Whether `each` lies between the two units and [low, high) is a page of it at most."""
    is_between = TIMEFRAMES.index(target) <= TIMEFRAMES.index(each) < TIMEFRAMES.index(above)
    return is_between and each.periods(low, high) <= MAX_CANDLES


def _by_halving(page: PageBefore, unit: Timeframe, known_empty: datetime, first: CandleData) -> CandleData:
    """The oldest candle, which starts at or after `known_empty` and not after `first`."""
    while True:
        low = known_empty
        while (periods := unit.periods(low, first.timestamp)) > MAX_CANDLES:
            middle = unit.shift(unit.ceil(low), periods // 2)
            found = page(unit, 1, middle)
            if found:
                first = found[0]
            else:
                low = middle
        rows = page(unit, MAX_CANDLES, first.timestamp)
        first = _oldest(rows) or first
        # An empty answer on the way may have been a hiccup, so what is below the end of the way is asked for at last,
        # and a short or empty answer to that once more: one wrong answer on the way and one here are then found out.
        # (Two in a row about the same thing are not to be told from the truth without asking for ever.)
        if len(rows) < MAX_CANDLES and not page(unit, 1, first.timestamp):
            return first


def _oldest(rows: Sequence[CandleData]) -> CandleData | None:
    return min(rows, key=attrgetter("timestamp"), default=None)
