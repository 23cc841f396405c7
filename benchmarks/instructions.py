"""What a message costs from the socket to user code, in instructions: ours, a script's plain loop, and by hand.

Counted by callgrind (of valgrind) in one thread, where nothing else on the machine changes the count: fit for a busy
machine, and for a test that guards it. It sees neither the kernel nor waiting nor cold caches; `ingest` does. "By hand"
is the limit: frames cut by their lengths and our own decoder, without models, store, order, or a mailbox.

And what a REST question costs, in all threads: to the backbone, by our transport alone, and by `requests.Session.get`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

from benchmarks.children import ROOT
from benchmarks.options import Options
from benchmarks.passage import NOT_COUNTED
from benchmarks.rest_call import NO_LIMIT, REFERENCE, SHARE, WHO
from benchmarks.servers import upbit
from benchmarks.table import LIMIT, Figure, absent
from upbit_backbone.simulator import FakeUpbit
from upbit_backbone.unify.scanner import VARIABLE

TITLE = "instructions a message, one thread (thousands)"
UNIT = "k instructions"
PLAIN = "websocket-client loop + json"
CASES = (
    ("ticker", 20, 400), ("trade", 20, 400), ("orderbook", 10, 100), ("ticker", 1, 400), ("trade", 1, 400),
)  # fmt: skip
QUICK_CASES = 2
BEST_LEVEL_RATIO = 0.35
QUESTIONS = 60
RUN_SECONDS = 300
NEEDED = ("valgrind", "callgrind_control")


class CannotCountError(RuntimeError):
    """Callgrind is there and does not work: a forbidden ptrace, a processor it does not know."""


def why_not() -> str | None:
    """What keeps instructions from being counted here."""
    missing = [tool for tool in NEEDED if shutil.which(tool) is None]
    if missing:
        return f"{missing[0]} is not installed"
    trial = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "true"]
    done = subprocess.run(trial, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    return f"valgrind does not work: {done.stderr[-300:]}" if done.returncode else None


def run(options: Options) -> list[Figure]:
    reason = why_not()
    figures = []
    for kind, per_read, count in CASES[:QUICK_CASES] if options.quick else CASES:
        case = f"{'orderbook, 30 levels' if kind == 'orderbook' else kind}, {per_read} a read"
        if reason is not None:
            figures.append(absent(case, "upbit_backbone", UNIT, reason))
            continue
        ours, plain, hand = (counted(who, kind, per_read, count) for who in ("ours", "plain", "hand"))
        figures += [
            Figure(case, "upbit_backbone", ours / 1000, UNIT, ours / plain, PLAIN),
            Figure(case, PLAIN, plain / 1000, UNIT),
            Figure(case, LIMIT, hand / 1000, UNIT),
        ]
    if reason is None:
        unread = counted("ours", "ticker", 20, 400, "unread")
        figures.append(Figure("ticker, conflated away unread", "upbit_backbone", unread / 1000, UNIT))
        best, plain = counted("ours", "orderbook", 10, 100, "best"), counted("plain", "orderbook", 10, 100)
        case = "orderbook, 30 levels, the best one looked at"
        figures += [
            Figure(case, "upbit_backbone", best / 1000, UNIT, best / plain, PLAIN, ratio_target=BEST_LEVEL_RATIO),
            Figure(case, PLAIN, plain / 1000, UNIT),
        ]
        figures += _questions()
    return figures


def _questions() -> list[Figure]:
    with upbit(rest_limit=NO_LIMIT) as fake:
        found = {who: questions(fake, who) for who in WHO}
    base = found[REFERENCE]
    return [
        Figure("a REST question", who, value / 1000, UNIT, *(() if who == REFERENCE else (value / base, REFERENCE)),
               ratio_target=None if who == REFERENCE else SHARE)
        for who, value in found.items()
    ]  # fmt: skip


def counted(who: str, kind: str, per_read: int, count: int, *more: str, in_python: bool = False) -> float:
    """Instructions a message, with compiled decoding where there is some, unless it shall be `in_python`.
    CannotCountError where callgrind does not work here, RuntimeError where we do not."""
    arguments = ("benchmarks.passage", who, kind, str(per_read), str(count), *more)
    return _collected(*arguments, in_python=in_python) / count


def questions(fake: FakeUpbit, who: str) -> float:
    """Instructions a REST question; raises as `counted`."""
    return _collected("benchmarks.rest_call", who, fake.rest_url, fake.websocket_url, str(QUESTIONS)) / QUESTIONS


def _collected(module: str, *arguments: str, in_python: bool = False) -> int:
    command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--callgrind-out-file=/dev/null", sys.executable]
    command += ["-m", module, *arguments]
    surroundings = os.environ | ({VARIABLE: "0"} if in_python else {})
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, timeout=RUN_SECONDS, check=False, env=surroundings
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode == NOT_COUNTED:
        raise CannotCountError(f"callgrind cannot be switched on here: {done.stderr[-300:]}")
    if done.returncode or found is None:
        raise RuntimeError(f"callgrind gave no count: {done.stderr[-500:]}")
    return int(found[1])
