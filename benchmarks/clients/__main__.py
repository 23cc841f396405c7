"""`python -m benchmarks.clients NAME …`: a client in a process of its own, asked on stdin for what it saw.

"start" begins a measurement, "stop" ends it and answers with the count, and with latency percentiles in milliseconds
where ids are the pacer's microseconds. "log" (with `--log`) answers with (wall clock, id) of all that arrived. `--busy`
adds one CPU-bound thread, as a program with a calculation has.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import multiprocessing
import os
import sys
import threading
import time
import traceback
from typing import Any

from benchmarks.children import say, told
from benchmarks.clients import task as tasks
from benchmarks.measuring import percentile, resident_mib


class Witness:
    """Counts what reaches user code, and how late it is."""

    def __init__(self) -> None:
        self.count = 0
        self.late: list[int] = []
        self.is_timing = False
        self.arrivals: list[tuple[float, int]] | None = None

    def seen(self, identity: int) -> None:
        self.count += 1
        if self.arrivals is not None and identity:
            self.arrivals.append((time.time(), identity))
        if self.is_timing and identity:
            self.late.append(time.time_ns() // 1000 - identity)

    def start(self) -> None:
        self.count, self.late, self.is_timing = 0, [], True

    def stop(self) -> dict[str, Any]:
        self.is_timing = False
        late = self.late
        shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1.0}
        return {
            "count": self.count,
            "timed": len(late),
            "resident_mib": resident_mib() if sys.platform == "linux" else None,
            **{name: percentile(late, share) / 1000 for name, share in shares.items() if late},
        }


def _spin() -> None:
    while True:
        sum(number * number for number in range(1000))


def _consume(module: Any, task: tasks.Task, witness: Witness) -> None:
    try:
        module.consume(task, witness.seen)
    except ImportError as problem:
        say(missing=str(problem))
    except Exception:
        traceback.print_exc()  # whoever measures notices that nothing arrives any more


def _obey(witness: Witness, module: Any) -> None:
    for line in told():
        if line == "start":
            witness.start()
            say(started=True)
        elif line == "stop":
            more = module.report() if hasattr(module, "report") else {}
            say(**witness.stop(), **more)
        elif line == "log":
            say(arrivals=list(witness.arrivals or ()))
    for child in multiprocessing.active_children():
        child.terminate()
    os._exit(0)  # a peer's close() may hang; nothing of ours is left to flush


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--log", action="store_true", help="keep the arrival time of every item")
    tasks.add_arguments(parser)
    args = parser.parse_args()
    witness = Witness()
    witness.arrivals = [] if args.log else None
    try:
        module = importlib.import_module(f"benchmarks.clients.{args.name}")
    except ImportError as problem:
        say(missing=str(problem))
        return
    say(ready=True)
    threading.Thread(target=_obey, args=(witness, module), daemon=True).start()
    if args.busy:
        threading.Thread(target=_spin, daemon=True).start()
    # The main thread: asyncio libraries and pyupbit's child process expect it.
    with contextlib.suppress(KeyboardInterrupt):
        _consume(module, tasks.parse(args), witness)
        threading.Event().wait()


if __name__ == "__main__":
    main()
