"""Where the instructions of a message go, part by part: what keeps our figures from the limit. Repeats to a hundredth.

Two views of the same passage (`passage.py`). Callgrind says which share of all instructions lies in functions of C,
each with all it calls: that needs valgrind, and a Python whose functions have names. The interpreter says how many of
its own steps a message takes in which folder of ours; what it spends between two steps of C is theirs.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from benchmarks import passage
from benchmarks.children import ROOT
from benchmarks.instructions import RUN_SECONDS, why_not
from benchmarks.options import Options
from benchmarks.table import Figure, absent

TITLE = "where the instructions of a message go"
CASES = (
    ("ticker", 20, 400, ""), ("ticker", 1, 400, ""), ("ticker", 20, 400, "unread"), ("trade", 20, 400, ""),
    ("orderbook", 10, 100, ""),
)  # fmt: skip
QUICK_CASES = 2
SHARE, STEPS = "% of instructions", "steps"
# Function of C, with all it calls -> what it is for.
FUNCTIONS = {
    "scan": "compiled decoding: a frame proven, what is wanted made",
    "sides": "… a book's levels found or made",
    "JSONDecoder_decode": "msgspec's decoder, numbers included",
    "ms_decode_decimal": "… of it, exact numbers",
    "ctx_mpd_qreduce": "numbers stripped of their padding",
    "datetime_add": "moments",
    "attrgetter_vectorcall": "fields taken out of messages",
    "_Py_Dealloc": "memory given back",
}
PACKAGE = "upbit_backbone"
MOST_PARTS = 9


def run(options: Options) -> list[Figure]:
    figures = []
    for kind, per_read, count, how in CASES[:QUICK_CASES] if options.quick else CASES:
        case = f"{kind}, {per_read} a read{', unread' if how else ''}"
        figures += _in_c(case, kind, per_read, count, how)
        steps = interpreter_steps(kind, per_read, count, how)
        figures.append(Figure(case, "the interpreter, all its steps", sum(steps.values()), STEPS))
        figures += [Figure(case, f"… in {part}", value, STEPS) for part, value in steps.most_common(MOST_PARTS)]
    return figures


def interpreter_steps(kind: str, per_read: int, count: int, how: str) -> Counter[str]:
    """Steps of the interpreter (bytecodes) a message, by our folders."""
    way, close = passage.ours(kind, how or "all")
    some = passage.reads(kind, per_read, passage.WARM_UP + count)
    warm = passage.WARM_UP // per_read
    way(some[:warm])
    found = Counter[CodeType]()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            found[frame.f_code] += 1
        return trace

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # CPython 3.12 looks here, when tracing begins, whether anybody wants steps
    sys.settrace(trace)
    try:
        way(some[warm:])
    finally:
        sys.settrace(before)
    close()
    steps = Counter[str]()
    for code, number in found.items():
        steps[_folder(code)] += number
    return Counter({part: number / count for part, number in steps.items()})


def _folder(code: CodeType) -> str:
    if code.co_filename.startswith("<"):
        return "generated code"
    parts = Path(code.co_filename).parts
    if PACKAGE not in parts:
        return "the loop that reads" if "benchmarks" in parts else "the standard library"
    inner = parts[len(parts) - parts[::-1].index(PACKAGE) :]
    return f"{inner[0]}/" if len(inner) > 1 else inner[0]


def _in_c(case: str, kind: str, per_read: int, count: int, how: str) -> list[Figure]:
    reason = why_not()
    if reason is not None:
        return [absent(case, "functions of C", SHARE, reason)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}", sys.executable]
        command += ["-m", "benchmarks.passage", "ours", kind, str(per_read), str(count), *filter(None, [how])]
        subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=RUN_SECONDS, check=True)
        command = ["callgrind_annotate", "--inclusive=yes", "--threshold=100", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS, check=True)
    whole, functions = inclusive(done.stdout)
    figures = [Figure(case, "all", whole / count / 1000, "k instructions")]
    for name, words in FUNCTIONS.items():
        if name in functions:
            figures.append(Figure(case, words, 100 * functions[name] / whole, SHARE))
    return figures


_LINE = re.compile(r"\s*([\d,]+) \([^)]*\)\s+(.*)")


def inclusive(listing: str) -> tuple[int, dict[str, int]]:
    """All instructions, and those of each function with what it calls, in a listing of callgrind_annotate."""
    whole, functions = 0, {}
    for line in listing.splitlines():
        if (found := _LINE.match(line)) is None:
            continue
        number, where = int(found[1].replace(",", "")), found[2]
        if where.startswith("PROGRAM TOTALS"):
            whole = number
            continue
        # file:function [object]; a mark behind the name is a call of it from within itself, which the first one holds.
        name = where.split(" [")[0].rpartition(":")[2]
        if "'" not in name:
            functions[name] = max(functions.get(name, 0), number)
    return whole, functions
