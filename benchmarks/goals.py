"""The goals row by row: before, now, the best peer, the limit by hand, what is to be reached, and whether it is. Pure.

A limit is shown by `python -m benchmarks parts`, which anybody can run again. As the table of benchmarks/README.md:

    python -m benchmarks.goals NOW.json [BEFORE.json]       # what `python -m benchmarks --json FILE` wrote, twice
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.table import HANDED, LIMIT, Figure, grid, number

OURS = "upbit_backbone"
PLAIN = "websocket-client loop + json"
HEAD = ("row", "before", "now", "best peer", "limit by hand", "to reach", "")
Results = Mapping[str, Sequence[Figure]]


@dataclass(frozen=True, slots=True)
class Goal:
    """One row: at most `most`, or `times` what `of` needs (a peer's name; the best of them where empty).

    `peers` is the case that the peers' figures stand under, where it is another one.
    """

    words: str
    benchmark: str
    case: str
    unit: str
    most: float | None = None
    times: float | None = None
    of: str = ""
    peers: str = ""
    at_least: bool = False
    who: tuple[str, ...] = (OURS, f"{OURS}, queue", f"{OURS}, callback")  # the better of them counts

    @property
    def target(self) -> str:
        sign = "≥" if self.at_least else "≤"
        if self.times is not None:
            return f"{sign} {self.times:g} × {self.of or 'the best peer'}"
        return f"{sign} {self.most:g} {self.unit}".rstrip()


BEST = "the best one looked at"
BOOK = "orderbook, 30 levels, 10,000/s"
BUSY, IDLE, FREE = (
    "10,000/s beside a busy thread",
    "1,000/s idle",
    "10,000/s beside a busy thread, free-threaded Python",
)
GOALS = (
    Goal("ticker at 10,000/s, CPU", "ingest", "ticker, 10,000/s", "µs", most=12),
    Goal("ticker, conflated away unread", "ingest", "ticker, conflated away unread", "µs", most=6),
    Goal("trade at 10,000/s", "ingest", "trade, 10,000/s", "µs", times=0.75),
    Goal("book of 30 levels, every level read, 10,000/s", "ingest", BOOK, "µs", times=0.75),
    Goal("… top of the book only", "ingest", f"{BOOK}, {BEST}", "µs", times=0.35, peers=BOOK),
    *(
        Goal(f"{kind} at 2,000/s", "ingest", f"{kind}, 2,000/s", "µs", times=1.0, of=PLAIN)
        for kind in ("ticker", "trade", "orderbook, 30 levels")
    ),
    Goal("full market, 3,000/s: read", "full_market", "CPU, every item read", "% of a core", most=20),
    Goal("full market, 3,000/s: unread", "full_market", "CPU, conflated, nobody reads", "% of a core", most=10),
    Goal("full market, 3,000/s: p99", "full_market", "p99, trades", "ms", most=10),
    Goal("latency at 1,000/s, p50", "latency", f"{IDLE}, p50", "ms", most=0.10),
    Goal("latency at 1,000/s, p99", "latency", f"{IDLE}, p99", "ms", most=0.22),
    Goal("10,000/s beside a computing thread, p50", "latency", f"{BUSY}, p50", "ms", most=5),
    Goal("10,000/s beside a computing thread, p99", "latency", f"{BUSY}, p99", "ms", most=12),
    Goal("… with a free-threaded Python, p99", "latency", f"{FREE}, p99", "ms", most=12),
    Goal("main thread computes, 1,000/s, p50", "busy_main", "main thread computes, p50", "ms", most=5),
    Goal("main thread computes, 1,000/s, p99", "busy_main", "main thread computes, p99", "ms", most=12),
    Goal("ticker at 10,000/s over TLS, seen", "tls", "ticker, 10,000/s over TLS, seen", "%", most=97, at_least=True),
    Goal("a REST question, CPU", "rest_call", "CPU", "µs", times=0.6, of="requests.Session.get", who=(OURS,)),
    Goal("10,000 candles, answers take 100 ms", "backfill", "10,000 × 1m, answers take 100 ms", "s", times=1.05,
         of="bound"),
    Goal("a chart viewer's requests in its first 12 s", "workloads", "chart viewer: requests per 1,000 questions", "",
         times=0.05, of="plain client"),
)  # fmt: skip


def rows(now: Results, before: Results | None = None) -> list[tuple[str, ...]]:
    """Of all goals of which something was measured in `now`."""
    return [_row(goal, now, before or {}) for goal in GOALS if _values(goal.case, goal.benchmark, now)]


def _row(goal: Goal, now: Results, before: Results) -> tuple[str, ...]:
    values = _values(goal.peers or goal.case, goal.benchmark, now)
    ours, was = _ours(goal, now), _ours(goal, before)
    peers = {
        who: value
        for who, value in values.items()
        if value is not None and not who.startswith(OURS) and who not in (LIMIT, HANDED, "bound")
    }
    best = (max if goal.at_least else min)(peers, key=lambda who: peers[who], default=None)
    base = values.get(goal.of) if goal.of else None if best is None else peers[best]
    bound = goal.most if goal.times is None else None if base is None else goal.times * base
    shown = number(ours)
    if goal.times is not None and ours is not None and base:
        shown += f" ({ours / base:.2f} ×)"
    peer = "–" if best is None else f"{best} {number(peers[best])}"
    limit = values.get(LIMIT, values.get("bound"))
    handed = values.get(HANDED)
    verdict = _verdict(goal, ours, bound, limit, handed)
    if (share := _share_seen(goal, now)) is not None:
        verdict += f"; {share}"
    return goal.words, number(was), shown, peer, _limits(limit, handed), goal.target, verdict


def _limits(limit: float | None, handed: float | None) -> str:
    return number(limit) if handed is None else f"{number(limit)}; handed over {number(handed)}"


def _share_seen(goal: Goal, now: Results) -> str | None:
    """What a figure of ours says of itself where we fell behind."""
    notes = [figure.note for figure in now.get(goal.benchmark, ()) if figure.case == goal.case and figure.who == OURS]
    return next((note for note in notes if note.startswith("saw ")), None)


def _verdict(goal: Goal, ours: float | None, bound: float | None, limit: float | None, handed: float | None) -> str:
    if ours is None:
        return "not available here"
    if bound is None:
        return "nothing to compare with"
    is_met = ours >= bound if goal.at_least else ours <= bound
    if is_met:
        return "met"
    if not limit or goal.at_least:
        return "missed"
    return f"missed; {ours / limit:.1f} × the limit" + (f", {ours / handed:.1f} × handed over" if handed else "")


def _values(case: str, benchmark: str, results: Results) -> dict[str, float | None]:
    figures = [figure for figure in results.get(benchmark, ()) if figure.case == case]
    found: dict[str, float | None] = {}
    for figure in figures:
        found.setdefault(figure.who, figure.value)
    return found


def _ours(goal: Goal, results: Results) -> float | None:
    values = _values(goal.case, goal.benchmark, results)
    mine = [value for who in goal.who if (value := values.get(who)) is not None]
    return (max if goal.at_least else min)(mine, default=None)


def render(found: Sequence[Sequence[str]]) -> str:
    """As a table for a terminal."""
    return f"The goals\n{grid([HEAD, *found])}"


def markdown(found: Sequence[Sequence[str]]) -> str:
    """As a table of a README."""
    lines = [HEAD, ("---",) * len(HEAD), *found]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def read(path: Path) -> dict[str, list[Figure]]:
    """The figures of a file that `python -m benchmarks --json` wrote."""
    results: dict[str, list[dict[str, Any]]] = json.loads(path.read_text(encoding="utf-8"))["results"]
    return {name: [Figure(**each) for each in figures] for name, figures in results.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.goals", description="The goals as a table.")
    parser.add_argument("now", type=Path)
    parser.add_argument("before", type=Path, nargs="?")
    args = parser.parse_args()
    print(markdown(rows(read(args.now), None if args.before is None else read(args.before))))


if __name__ == "__main__":
    main()
