"""Figures and how they are shown: one table, and the same as JSON."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

NOT_INSTALLED = "not installed"
LIMIT = "by hand (limit)"
HANDED = "by hand, handed over (limit)"  # to a thread of its own, which nothing that its consumer does can block


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value. `ratio` is `value` ÷ that of `ratio_to`, from the same run.

    `target` and `ratio_target` are upper bounds to reach; None where there is none. A figure without a value says in
    `note` why.
    """

    case: str
    who: str
    value: float | None
    unit: str
    ratio: float | None = None
    ratio_to: str = ""
    target: float | None = None
    ratio_target: float | None = None
    at_least: bool = False  # the targets are lower bounds instead
    note: str = ""

    @property
    def verdict(self) -> str:
        """ "ok" or "misses" where there is a target, else nothing."""
        pairs = [(self.value, self.target), (self.ratio, self.ratio_target)]
        judged = [(value, target) for value, target in pairs if value is not None and target is not None]
        if not judged:
            return ""
        met = all(value >= target if self.at_least else value <= target for value, target in judged)
        return "ok" if met else "misses"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def absent(case: str, who: str, unit: str, why: str = NOT_INSTALLED) -> Figure:
    """A figure that could not be measured."""
    return Figure(case, who, None, unit, note=why)


def number(value: float | None) -> str:
    """Three significant digits, thousands separated."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def render(title: str, figures: Iterable[Figure]) -> str:
    """The figures of one benchmark as a table for a terminal."""
    rows = [("case", "who", "value", "unit", "ratio", "to reach", "", "note")]
    rows += [_row(figure) for figure in figures]
    return f"{title}\n{grid(rows)}"


def grid(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns with a line under the head."""
    widths = [max(_width(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(_pad(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)


def _row(figure: Figure) -> tuple[str, ...]:
    sign = "≥" if figure.at_least else "≤"
    targets = []
    if figure.target is not None:
        targets.append(f"{sign} {number(figure.target)}")
    if figure.ratio_target is not None:
        targets.append(f"{sign} {number(figure.ratio_target)} ×")
    ratio = "" if figure.ratio is None else f"{number(figure.ratio)} × {figure.ratio_to}"
    to_reach = " and ".join(targets)
    return (figure.case, figure.who, number(figure.value), figure.unit, ratio, to_reach, figure.verdict, figure.note)


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def save(path: Path, machine: dict[str, Any], results: dict[str, list[Figure]], failures: dict[str, str]) -> None:
    """Everything as JSON, for comparison with an earlier run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "machine": machine,
        "results": {name: [figure.to_dict() for figure in figures] for name, figures in results.items()},
        "failures": failures,
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
