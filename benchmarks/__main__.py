"""`python -m benchmarks [names…]`: each benchmark in a process of its own, then where we stand, and one JSON file."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import goals, machine, standing
from benchmarks.children import ROOT
from benchmarks.options import Options
from benchmarks.table import Figure, render, save

NAMES = (
    "hot_ticker", "ingest", "tls", "instructions", "parts", "latency", "full_market", "slow_consumer", "stuck_consumer",
    "backfill", "rest_call", "footprint", "busy_main", "chart_viewer", "workloads", "drop_in", "keeping", "curves",
)  # fmt: skip
RESULTS = ROOT / "benchmarks" / "results"
MARK = "figures: "
BENCHMARK_SECONDS = 1800


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"any of {', '.join(NAMES)}; default: all")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one measurement (default %(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=0.0, help="how long the viewer's memory is watched (default: not)"
    )
    parser.add_argument("--json", type=Path, help="where to write the figures (default: benchmarks/results/…)")
    parser.add_argument("--quick", action="store_true", help="fewer cases, shorter measurements")
    parser.add_argument("--no-rivals", action="store_true", help="only our own figures")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    for name in args.names:
        if name not in NAMES:
            parser.error(f"{name!r} is no benchmark; there are: {', '.join(NAMES)}")
    seconds = min(args.seconds, 1.5) if args.quick else args.seconds
    options = Options(seconds=seconds, quick=args.quick, rivals=not args.no_rivals, minutes=args.minutes)
    if args.child:
        return _be_child(args.names[0], options)
    return _run_all(args.names or NAMES, options, args.json)


def _be_child(name: str, options: Options) -> int:
    figures = importlib.import_module(f"benchmarks.{name}").run(options)
    print(MARK + json.dumps([figure.to_dict() for figure in figures]), flush=True)
    return 0


def _run_all(names: list[str] | tuple[str, ...], options: Options, path: Path | None) -> int:
    about = machine.describe()
    print(machine.in_words(about), flush=True)
    results: dict[str, list[Figure]] = {}
    failures: dict[str, str] = {}
    others = [machine.others_cores()]
    for name in names:
        title = importlib.import_module(f"benchmarks.{name}").TITLE
        began = time.monotonic()
        try:
            results[name] = _in_own_process(name, options)
        except (subprocess.SubprocessError, RuntimeError) as problem:
            failures[name] = str(problem)
            print(f"\n{title}\nfailed: {problem}", flush=True)
        else:
            took = time.monotonic() - began
            print(f"\n{render(f'{title}   [{name}, {took:.0f} s]', results[name])}", flush=True)
        others.append(machine.others_cores())
    target = path or RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    busiest = max(others)
    save(target, about | {"cores_used_by_others": [round(each, 2) for each in others]}, results, failures)
    rows = standing.rows(results)
    print(f"\n{standing.render(rows)}\n\n{standing.summary(rows)}. {_summary(results)}.")
    if reached := goals.rows(results):
        print(f"\n{goals.render(reached)}")
    print(f"{machine.judgement(busiest)} Written to {target}")
    return 1 if failures else 0


def _in_own_process(name: str, options: Options) -> list[Figure]:
    command = [sys.executable, "-m", "benchmarks", name, "--child", "--seconds", str(options.seconds)]
    command += ["--minutes", str(options.minutes)]
    command += ["--quick"] * options.quick + ["--no-rivals"] * (not options.rivals)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, timeout=BENCHMARK_SECONDS, check=False)
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            return [Figure(**each) for each in json.loads(line.removeprefix(MARK))]
    raise RuntimeError(f"{name} gave no figures (exit code {done.returncode})")


def _summary(results: dict[str, list[Figure]]) -> str:
    verdicts = [figure.verdict for figures in results.values() for figure in figures]
    return f"{verdicts.count('ok')} figures reach their target, {verdicts.count('misses')} do not"


if __name__ == "__main__":
    sys.exit(main())
