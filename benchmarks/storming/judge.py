"""What a client made of the storm, by the simulator's own log. Pure."""

from __future__ import annotations

import bisect
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks.measuring import percentile
from benchmarks.storming.plan import Fault

FRESH_SECONDS = 1.5
"""A message older than that at its arrival does not make a window available."""
MOSTLY_BLOCKED = 0.5
ASKED_EVERY_SECONDS = 0.1
Key = tuple[str, int]
"""A trade: market and sequential id."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One trade as user code got it; times are wall-clock seconds."""

    at: float
    key: Key
    backfilled: bool = False


@dataclass(frozen=True, slots=True)
class Published:
    """One trade as the server published it."""

    at: float
    key: Key


@dataclass(frozen=True, slots=True)
class Admitted:
    """A gap the client reported as not filled."""

    symbol: str
    start: float
    end: float


class Line(NamedTuple):
    """From when to when a client's line was open; wall-clock seconds."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Answer:
    """One `get_*` call. `trade_at` is the last trade its answer knows of; None where that cannot be told."""

    began: float
    took: float
    symbol: str
    problem: str = ""
    trade_at: float | None = None
    marked: bool = False


@dataclass(slots=True)
class Verdict:
    """The figures of one client."""

    availability: float
    best_possible: float
    recoveries: list[tuple[Fault, float]]
    lost: int
    published: int
    duplicated: int
    unreported: int
    backfilled: int
    longest_silence: float = math.nan
    answer_age: float = math.nan  # p99: for how long an answered price had been superseded when it was asked for
    most_stale: float = 0.0
    stale_unmarked: int = 0
    answers: int = 0
    late_answers: int = 0
    problems: Counter[str] = field(default_factory=Counter)

    @property
    def of_best(self) -> float:
        return self.availability / self.best_possible if self.best_possible else math.nan


def judge(
    faults: Sequence[Fault], began: float, seconds: float, published: Sequence[Published],
    arrivals: Sequence[Arrival], admitted: Sequence[Admitted] = (), injected: Sequence[float] = (),
    lines: Sequence[Line] = (),
) -> Verdict:  # fmt: skip
    """`began` is the wall clock at the start of the storm, which lasted `seconds`.

    `injected` tells when each fault had really been done, in seconds from the start, and `lines` when the client's line
    was open, where that is known.
    """
    when = {trade.key: trade.at for trade in published}
    fresh = sorted(
        arrival.at - began
        for arrival in arrivals
        if not arrival.backfilled and arrival.at - when.get(arrival.key, -math.inf) <= FRESH_SECONDS
    )
    availability, best = _windows(faults, fresh, int(seconds))
    seen = Counter(arrival.key for arrival in arrivals)
    lost = _lost(published, seen)
    ends = [max(fault.over, done) for fault, done in zip(faults, injected or [0.0] * len(faults), strict=True)]
    return Verdict(
        availability=availability,
        best_possible=best,
        recoveries=[(fault, _next_after(fresh, end) - end) for fault, end in zip(faults, ends, strict=True)],
        lost=sum(map(len, lost)),
        published=len(published),
        duplicated=sum(count - 1 for count in seen.values()),
        unreported=sum(1 for gap in lost if any(not _is_admitted(trade, admitted) for trade in gap)),
        backfilled=sum(1 for arrival in arrivals if arrival.backfilled),
        longest_silence=_longest_silence(_serving(lines, faults, began), published, arrivals),
        answer_age=_p99(_newest_known(published, arrivals, began, seconds)),
    )


def judge_answers(
    verdict: Verdict, answers: Sequence[Answer], published: Sequence[Published], timeout: float, promised: float,
    unknowable: Sequence[tuple[Line, float]] = (),
) -> None:  # fmt: skip
    """Adds what `get_*` calls got: an answer is stale by the age of the oldest trade it does not know of.

    `unknowable` says when nobody could know for so many seconds that what was shown was old.
    """
    by_symbol: dict[str, list[float]] = {}
    for trade in published:
        by_symbol.setdefault(trade.key[0], []).append(trade.at)
    for times in by_symbol.values():
        times.sort()
    ages: list[float] = []
    for answer in answers:
        verdict.answers += 1
        verdict.late_answers += answer.took > timeout + 0.1
        if answer.problem:
            verdict.problems[answer.problem] += 1
        if answer.trade_at is None:
            continue
        times = by_symbol.get(answer.symbol, [])
        missed = bisect.bisect_right(times, answer.trade_at + 0.0005)
        stale = answer.began - times[missed] if missed < len(times) else 0.0
        if not answer.marked:
            ages.append(max(0.0, stale))
            verdict.most_stale = max(verdict.most_stale, stale)
            verdict.stale_unmarked += stale > promised + max(
                (seconds for span, seconds in unknowable if span.start <= answer.began <= span.end), default=0.0
            )
    verdict.answer_age = _p99(ages)


def _newest_known(
    published: Sequence[Published], arrivals: Sequence[Arrival], began: float, seconds: float
) -> list[float]:
    """Of a client that has nothing but its stream to answer from: asked ten times a second about each market, for how
    long its newest price had been superseded. Nothing is asked of a market before its first trade has arrived."""
    made_at = {trade.key: trade.at for trade in published}
    made: dict[str, list[float]] = {}
    for trade in published:
        made.setdefault(trade.key[0], []).append(trade.at)
    came: dict[str, list[tuple[float, float]]] = {}
    for arrival in arrivals:
        if arrival.key in made_at:
            came.setdefault(arrival.key[0], []).append((arrival.at, made_at[arrival.key]))
    ages: list[float] = []
    for symbol, pairs in came.items():
        times, pairs = sorted(made[symbol]), sorted(pairs)
        newest, place, at = -math.inf, 0, max(began, pairs[0][0])
        while at < began + seconds:
            while place < len(pairs) and pairs[place][0] <= at:
                newest = max(newest, pairs[place][1])
                place += 1
            missed = bisect.bisect_right(times, newest)
            ages.append(max(0.0, at - times[missed]) if missed < len(times) else 0.0)
            at += ASKED_EVERY_SECONDS
    return ages


def _p99(values: list[float]) -> float:
    return percentile(values, 0.99) if values else math.nan


def _serving(lines: Sequence[Line], faults: Sequence[Fault], began: float) -> list[Line]:
    """The parts of `lines` in which the server served."""
    served = list(lines)
    for fault in faults:
        start, end = began + fault.at, began + fault.able_again
        if end > start:
            served = [piece for line in served for piece in (line._replace(end=min(line.end, start)),
                                                             line._replace(start=max(line.start, end)))]  # fmt: skip
            served = [line for line in served if line.end > line.start]
    return served


def _longest_silence(lines: Sequence[Line], published: Sequence[Published], arrivals: Sequence[Arrival]) -> float:
    """The longest time for which an open line that is served gave nothing new, although there was something."""
    if not lines:
        return math.nan
    made = sorted(trade.at for trade in published)
    heard = sorted(arrival.at for arrival in arrivals if not arrival.backfilled)
    longest = 0.0
    for line in lines:
        during = heard[bisect.bisect_left(heard, line.start) : bisect.bisect_right(heard, line.end)]
        for sooner, later in itertools.pairwise([line.start, *during, line.end]):
            place = bisect.bisect_right(made, sooner)
            if place < len(made) and made[place] < later:
                longest = max(longest, later - made[place])
    return longest


def _windows(faults: Sequence[Fault], fresh: Sequence[float], count: int) -> tuple[float, float]:
    """Share of one-second windows with a fresh message, and the share in which there could be one."""
    with_message = {int(at) for at in fresh}
    possible = [number for number in range(count) if _blocked(faults, number) <= MOSTLY_BLOCKED]
    return sum(1 for number in possible if number in with_message) / count, len(possible) / count


def _blocked(faults: Sequence[Fault], window: int) -> float:
    overlaps = (min(fault.able_again, window + 1) - max(fault.at, window) for fault in faults)
    return sum(max(0.0, overlap) for overlap in overlaps)


def _next_after(times: Sequence[float], moment: float) -> float:
    place = bisect.bisect_left(times, moment)
    return times[place] if place < len(times) else math.inf


def _lost(published: Sequence[Published], seen: Counter[Key]) -> list[list[Published]]:
    """Runs of trades that a client never saw, from the first one it saw on each market."""
    gaps: list[list[Published]] = []
    for _, trades in itertools.groupby(sorted(published, key=lambda trade: (trade.key[0], trade.at)), _market):
        watched = itertools.dropwhile(lambda trade: trade.key not in seen, trades)
        for is_lost, run in itertools.groupby(watched, lambda trade: trade.key not in seen):
            if is_lost:
                gaps.append(list(run))
    return gaps


def _market(trade: Published) -> str:
    return trade.key[0]


def _is_admitted(trade: Published, admitted: Sequence[Admitted]) -> bool:
    return any(gap.symbol == trade.key[0] and gap.start - 0.001 <= trade.at <= gap.end + 0.001 for gap in admitted)
