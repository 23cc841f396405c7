"""The storm's result as tables."""

from __future__ import annotations

import math

from benchmarks.measuring import percentile
from benchmarks.storming.judge import Verdict
from benchmarks.storming.plan import BACK_ALONE, BURST, FREEZE, LINE, OUTAGE, POISON, REST, STALL, VISIBLE
from benchmarks.storming.run import Outcome
from benchmarks.table import grid

RECOVERY_TARGETS = {
    VISIBLE: 0.5,
    POISON: 0.5,
    FREEZE: 11.0,
    STALL: 15.0,
    OUTAGE: 2.5,
    REST: 0.5,
    BACK_ALONE: 2.5,
    BURST: 0.5,
    LINE: 2.5,
}
SILENT_SECONDS = 2.5
ANSWER_AGE_SECONDS = 3.0
OF_BEST, CLOSE_SECONDS, ANSWERED_PERCENT = 0.98, 2.0, 99.99


def render(outcome: Outcome) -> str:
    """Three tables: clients side by side, recovery by kind, and every fault of our own."""
    return "\n\n".join((_clients(outcome), _recovery(outcome), _faults(outcome)))


def _clients(outcome: Outcome) -> str:
    verdicts: dict[str, Verdict | str] = {"upbit_backbone": outcome.ours, **outcome.peers}
    rows = [("", *verdicts, "to reach (ours)")]
    for what, show, target in (
        ("available, of 1-s windows", lambda one: f"{one.availability:.3f}", ""),
        ("best possible", lambda one: f"{one.best_possible:.3f}", ""),
        ("available ÷ best possible", lambda one: f"{one.of_best:.3f}", f"≥ {OF_BEST}"),
        ("trades published", lambda one: f"{one.published:,}", ""),
        ("trades lost", lambda one: f"{one.lost:,} ({one.lost / max(one.published, 1):.1%})", "0"),
        ("trades duplicated", lambda one: f"{one.duplicated:,}", "0"),
        ("filled in from REST", lambda one: f"{one.backfilled:,}", ""),
        ("unreported gaps", lambda one: f"{one.unreported}", "0"),
        ("age of an answered price, p99", lambda one: _seconds(one.answer_age), f"≤ {ANSWER_AGE_SECONDS} s"),
        ("longest silence of a live line", lambda one: _seconds(one.longest_silence), f"≤ {SILENT_SECONDS} s"),
    ):
        cells = [verdict if isinstance(verdict, str) else show(verdict) for verdict in verdicts.values()]
        rows.append((what, *cells, target))
    return f"{grid(rows)}\n\n{_questions(outcome)}"


def _questions(outcome: Outcome) -> str:
    ours, wire = outcome.ours, outcome.pressure
    failed = sum(ours.problems.values())
    good = 100 * (1 - (failed + ours.late_answers) / ours.answers) if ours.answers else math.nan
    details = "".join(f", {name} × {count}" for name, count in ours.problems.items())
    rows = [
        ("upbit_backbone", "", "to reach"),
        ("get_* calls", f"{ours.answers:,}", ""),
        ("answered by the deadline", f"{good:.3f} %{details}", f"≥ {ANSWERED_PERCENT} %"),
        ("ended after deadline + 0.1 s", str(ours.late_answers), "0"),
        ("stale and unmarked", f"{ours.stale_unmarked} (most: {ours.most_stale:.1f} s behind)", "0"),
        ("close() took", f"{outcome.close_seconds:.2f} s", f"≤ {CLOSE_SECONDS} s"),
        ("threads and sockets left", ", ".join(outcome.left) or "none", "none"),
        ("events", str(outcome.event_count), ""),
        ("busiest second: requests of a group", str(wire.rest), "≤ 10"),
        ("busiest second: connects", str(wire.connects), "≤ 5"),
        ("busiest second: messages", str(wire.messages), "≤ 5"),
        ("refused for limits (429)", str(wire.refused), "0"),
    ]
    return grid(rows)


def _recovery(outcome: Outcome) -> str:
    names = [name for name, verdict in outcome.peers.items() if isinstance(verdict, Verdict)]
    rows = [("recovery: seconds from able again to fresh data", "n", "p50", "p99 = max", "to reach", *names)]
    for group, target in RECOVERY_TARGETS.items():
        times = _times(outcome.ours, group)
        if not times:
            continue
        peers = [_worst(_times(verdict, group)) for verdict in outcome.peers.values() if isinstance(verdict, Verdict)]
        cells = (group, str(len(times)), _seconds(percentile(times, 0.5)), _worst(times), f"≤ {target}")
        rows.append((*cells, *peers))
    return grid(rows)


def _faults(outcome: Outcome) -> str:
    rows = [("at", "fault", "server away", "first event after", "data after able again")]
    for number, (fault, took) in enumerate(outcome.ours.recoveries):
        away = f"{fault.kind.blocks:.0f} s" if fault.kind.blocks else ""
        noticed = _seconds(outcome.detected[number]) if number in outcome.detected else ""
        rows.append((f"{fault.at:.1f}", fault.kind.name, away, noticed, _seconds(took)))
    return grid(rows)


def _times(verdict: Verdict, group: str) -> list[float]:
    return [took for fault, took in verdict.recoveries if fault.kind.group == group]


def _worst(times: list[float]) -> str:
    return _seconds(max(times, default=math.nan))


def _seconds(value: float) -> str:
    return "never" if math.isinf(value) else "–" if math.isnan(value) else f"{value:.2f} s"
