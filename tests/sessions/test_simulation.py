"""The lifecycle under seeded faults in virtual time: 6 hours on every run, 192 more with `tox -e endurance`, thousands
with `tox -e simulate`.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("simulation", Path(__file__).with_name("simulation.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


simulation = _load()


SEEDS = [
    range(3),
    *(pytest.param(range(start, start + 24), marks=pytest.mark.endurance) for start in range(3, 195, 24)),
]


@pytest.mark.timeout(600)  # nothing waits in virtual time: this is computing, and as slow as the machine
@pytest.mark.parametrize("seeds", SEEDS, ids=str)
def test_simulated_hours_of_faults_violate_nothing(seeds: range) -> None:
    for seed in seeds:
        simulation.simulate(seed)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("seed", "hours"), [(0, 3.0), *(pytest.param(seed, 24.0, marks=pytest.mark.endurance) for seed in range(3))]
)
def test_a_quiet_market_of_many_hours_costs_one_connection_and_raises_no_alarm(seed: int, hours: float) -> None:
    judge = simulation.quiet(seed, hours)
    assert judge.connects == 1


@pytest.mark.parametrize("seed", range(5))
def test_an_outage_of_ten_minutes_costs_an_attempt_in_ten_seconds_and_ends_within_eleven(seed: int) -> None:
    judge, tried = simulation.outage(seed, 600.0)
    assert 40 <= tried <= 48
    (recovery,) = judge.recoveries["long outage"]
    assert recovery <= 10.5


def test_the_same_seed_lives_the_same_hour() -> None:
    first, second = simulation.simulate(11), simulation.simulate(11)
    assert (first.connects, first.messages, first.frames) == (second.connects, second.messages, second.frames)


def test_a_failed_invariant_names_the_seed_that_repeats_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(seed: int) -> None:
        raise simulation.Violated(f"seed {seed} at 12.000 s: told so")

    monkeypatch.setattr(simulation, "simulate", fail)
    assert simulation.main(["--hours", "3", "--seed", "40"]) == 1
    assert "--seed 40 --hours 1" in capsys.readouterr().out


def test_the_report_shows_recovery_times(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulation.main(["--hours", "1", "--seed", "3"]) == 0
    assert "0 violations" in capsys.readouterr().out
