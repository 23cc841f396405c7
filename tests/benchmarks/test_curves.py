"""The picture of the curves holds each of them, in both languages."""

from __future__ import annotations

from pathlib import Path

from benchmarks import curves
from benchmarks.table import LIMIT, Figure

PNG = b"\x89PNG"
FIGURES = [
    Figure("rate; ticker; 10", "upbit_backbone", 600.0, curves.CPU),
    Figure("rate; ticker; 20000", "upbit_backbone", 17.0, curves.CPU),
    Figure("rate; ticker; 10", LIMIT, 120.0, curves.CPU),
    Figure("levels; so many asked for; 30", "upbit_backbone", 60.0, curves.CPU),
    Figure("latency over rate; trades, p50; 10", "upbit_backbone", 0.2, curves.LATENCY),
    Figure("latency over rate; trades, p99; 10", "upbit_backbone", None, curves.LATENCY),
]


def test_figures_become_a_picture(tmp_path: Path) -> None:
    target = tmp_path / "curves.png"
    curves.draw([figure.to_dict() for figure in FIGURES], target)
    assert target.read_bytes().startswith(PNG)


def test_every_curve_has_korean_words() -> None:
    for figure in FIGURES:
        curve, line, _ = figure.case.split("; ")
        name = line if figure.who == curves.OURS else f"{line}, {figure.who}"
        assert {curve, name, figure.unit} <= curves.KOREAN.keys()
