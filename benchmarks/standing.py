"""Where we stand: for each case our figure beside the best peer's and the limit, and how many cases are led. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.table import HANDED, LIMIT, Figure, grid, number

OURS = "upbit_backbone"


@dataclass(frozen=True, slots=True)
class Row:
    """One case. `peers` are those that gave a figure; the best of them comes first."""

    case: str
    unit: str
    ours: float
    peers: tuple[tuple[str, float], ...]
    limit: float | None
    handed: float | None  # the limit with a hand-over to another thread
    at_least: bool

    @property
    def is_led(self) -> bool | None:
        """Whether no peer is better; None where there was none."""
        if not self.peers:
            return None
        best = self.peers[0][1]
        return self.ours >= best if self.at_least else self.ours <= best


def rows(results: Mapping[str, Sequence[Figure]]) -> list[Row]:
    """Of all cases in which something stands beside ours."""
    found = []
    for name, figures in results.items():
        for case in dict.fromkeys(figure.case for figure in figures):
            row = _row(f"{name}: {case}", [figure for figure in figures if figure.case == case])
            if row is not None:
                found.append(row)
    return found


def _row(case: str, figures: Sequence[Figure]) -> Row | None:
    values = {figure.who: figure.value for figure in figures if figure.value is not None}
    at_least = any(figure.at_least for figure in figures)
    # Of our own ways (queue, callback) the better one: a peer has one way, too.
    mine = sorted((value for who, value in values.items() if who.startswith(OURS)), reverse=at_least)
    peers = [(who, value) for who, value in values.items() if not who.startswith(OURS) and who not in (LIMIT, HANDED)]
    if not mine or not (peers or LIMIT in values):
        return None
    peers.sort(key=lambda peer: peer[1], reverse=at_least)
    return Row(case, figures[0].unit, mine[0], tuple(peers), values.get(LIMIT), values.get(HANDED), at_least)


def render(found: Sequence[Row]) -> str:
    """All of them as a table for a terminal."""
    lines = [("case", "ours", "unit", "÷ best peer", "÷ limit", "÷ handed over", "led", "peers, best first")]
    for row in found:
        best = number(row.ours / row.peers[0][1]) if row.peers and row.peers[0][1] else "–"
        limit = number(row.ours / row.limit) if row.limit else "–"
        handed = number(row.ours / row.handed) if row.handed else "–"
        led = {True: "yes", False: "NO", None: "no peer"}[row.is_led]
        peers = "; ".join(f"{who} {number(value)}" for who, value in row.peers)
        lines.append((row.case, number(row.ours), row.unit, best, limit, handed, led, peers))
    return f"Where we stand\n{grid(lines)}"


def summary(found: Sequence[Row]) -> str:
    """How many rows are led."""
    contested = [row for row in found if row.is_led is not None]
    return f"{sum(1 for row in contested if row.is_led)} of {len(contested)} rows with a peer are led"
