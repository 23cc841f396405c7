"""The storm: 25 kinds of faults, one each 20 s, over real sockets, seeded.

    python benchmarks/storm.py [--seconds 505] [--seed 7] [--tls] [--rivals] [--verbose]

Ends with exit code 1 when a trade was lost or doubled, a gap unreported, a stale answer unmarked or anything left
behind; all other figures are for the reader.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, the package is not on the path

from benchmarks import machine
from benchmarks.storming.plan import plan
from benchmarks.storming.run import Outcome, run
from benchmarks.storming.show import render


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=505.0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--verbose", action="store_true", help="show our own log lines while it blows")
    parser.add_argument("--rivals", action="store_true", help="pyupbit and ccxt.pro beside us, where installed")
    args = parser.parse_args()
    if not args.verbose:
        logging.getLogger("upbit_backbone").setLevel(logging.ERROR)
    faults = plan(args.seed, args.seconds)
    print(machine.in_words(machine.describe()))
    print(f"seed {args.seed}, {args.seconds:.0f} s, {len(faults)} faults, {'TLS' if args.tls else 'plain'}", flush=True)
    outcome = run(faults, args.seconds, seed=args.seed, tls=args.tls, with_peers=args.rivals)
    print("\n" + render(outcome))
    return 0 if holds(outcome) else 1


def holds(outcome: Outcome) -> bool:
    """The invariants that hold whatever the machine."""
    ours = outcome.ours
    return not (ours.lost or ours.duplicated or ours.unreported or ours.stale_unmarked or outcome.left)


if __name__ == "__main__":
    sys.exit(main())
