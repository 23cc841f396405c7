"""Years of faults in minutes: the real lifecycle against a simulated Upbit under a virtual clock.

    python tests/sessions/simulation.py --hours 10000      (also: tox -e simulate -- --hours 10000)
    python tests/sessions/simulation.py --seed 4711 --hours 1      repeats what a failure printed

Each seed is one simulated hour of its own. A violated invariant ends with the seed that shows it again.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import defaultdict
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.sessions.simulated.faults import FAULTS, change_requests, refuse_for
from tests.sessions.simulated.judge import Judge, Violated, percentile
from tests.sessions.simulated.world import World
from upbit_backbone.errors import NetworkError
from upbit_backbone.models.events import ConnectionState
from upbit_backbone.sessions import messages as on

HOUR = 3600.0
PROGRESS_HOURS = 500
CALM_SECONDS = 200.0  # at the end of each hour, so that everything must be well


def simulate(seed: int, seconds: float = HOUR) -> Judge:
    """One world with seeded faults; raises Violated."""
    world = World(seed)
    rng = random.Random(f"faults {seed}")
    mean_pause = rng.choice((2.0, 20.0, 20.0, 100.0, 300.0))
    kinds, weights = list(FAULTS), list(FAULTS.values())
    try:
        change_requests(world)
        while world.now < seconds - CALM_SECONDS:
            world.run(world.now + rng.expovariate(1 / mean_pause))
            rng.choices(kinds, weights)[0](world)
        world.run(max(world.now, world.must_be_ok_at) + CALM_SECONDS)
        while world.now < world.must_be_ok_at:  # the first trade after a stall may come only now
            world.run(world.must_be_ok_at)
        world.judge.check(world.is_ok(), f"not well after {CALM_SECONDS} s of calm: {world.lifecycle!r}", world.now)
        _end(world)
    except Violated:
        raise
    except Exception as error:
        raise Violated(f"seed {seed} at {world.now:.3f} s: {type(error).__name__}: {error}") from error
    return world.judge


def _end(world: World) -> None:
    """CLOSED is terminal: whatever comes late leads to nothing."""
    world.dialling, world.busy_until = False, 0.0
    world.perform(on.CloseRequested())
    late: list[on.Input] = [
        on.Tick(), on.Opened(), on.Received(b"\x82\x01x"), on.ConnectionLost("late"), on.CloseRequested(),
        on.SubscriptionsChanged(frozenset()), on.ReconnectRequested("late"), on.ClockJumped(9.0),
    ]  # fmt: skip
    for happened in late:
        world.judge.check(world.lifecycle.handle(happened, world.now) == [], f"{happened} after close", world.now)
    world.judge.check(world.lifecycle.state is ConnectionState.CLOSED, "closed is not closed", world.now)


def quiet(seed: int, hours: float) -> Judge:
    """Nothing goes wrong, and hardly anybody trades: nothing may happen."""
    world = World(seed, trade_rate=0.003, rest_fails=0.0)
    change_requests(world)
    world.run(hours * HOUR)
    world.judge.check(world.judge.connects == 1, f"{world.judge.connects} connects in quiet hours", world.now)
    return world.judge


def outage(seed: int, seconds: float) -> tuple[Judge, int]:
    """Upbit cannot be reached for so long; the judge, and how often it was tried after the first two minutes."""
    world = World(seed, trade_rate=1.0, rest_fails=0.0)
    change_requests(world)
    world.run(100.0)
    refuse_for(world, seconds, lambda: NetworkError("cannot resolve api.upbit.com"), "outage")
    world.run(100.0 + 120.0)
    before = world.judge.connects
    world.run(100.0 + seconds)
    tried = world.judge.connects - before
    world.run(world.now + CALM_SECONDS)
    world.judge.check(world.is_ok(), f"not well after an outage of {seconds:g} s", world.now)
    return world.judge, tried


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=int, default=200, help="simulated hours, one seed each")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    recoveries: dict[str, list[float]] = defaultdict(list)
    connects = messages = looks = 0
    worst = 0.0
    for seed in range(options.seed, options.seed + options.hours):
        try:
            judge = simulate(seed)
        except Violated as violation:
            print(f"VIOLATED  {violation}\nrepeat with: --seed {seed} --hours 1")  # noqa: T201
            return 1
        connects, messages = connects + judge.connects, messages + judge.messages
        looks, worst = looks + judge.looks, max(worst, judge.stale_seconds)
        for kind, times in judge.recoveries.items():
            recoveries[kind].extend(times)
        done = seed - options.seed + 1
        if done % PROGRESS_HOURS == 0:
            took = time.perf_counter() - started
            print(f"{done} of {options.hours} simulated hours in {took:.0f} s", file=sys.stderr)  # noqa: T201
    print(f"{looks} prices shown as current, stale and unmarked 0 (the worst was superseded {worst:.2f} s before)")  # noqa: T201
    _report(recoveries, options.hours, connects, messages, time.perf_counter() - started)
    return 0


def _report(recoveries: dict[str, list[float]], hours: int, connects: int, messages: int, took: float) -> None:
    lines = [f"{hours} simulated hours in {took:.0f} s: {connects} connects, {messages} messages, 0 violations"]
    lines.append(f"{'recovery from':24}{'count':>8}{'p50':>9}{'p99':>9}{'max':>9}")
    for kind, times in sorted(recoveries.items()):
        p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
        lines.append(f"{kind:24}{len(times):8}{p50:9.3f}{p99:9.3f}{max(times):9.3f}")
    print("\n".join(lines))  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
