"""Wait until something has happened, and say what it was that never did."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

BUSY_SECONDS = 1.0  # what a machine with much else to do may add to anything

# For what takes a moment on an idle machine. Nobody waits this long for a thing that works: it is what a machine that
# is busy with something else may take, and what a fault costs before it is told.
PATIENCE_SECONDS = 30.0
PAUSE = threading.Event()  # never set: a wait on it is a pause between two looks


def wait_until(
    condition: Callable[[], T], what: str | Callable[[], str] = "it", seconds: float = PATIENCE_SECONDS
) -> T:
    """What `condition` says as soon as that is true; an AssertionError that names `what` after so many seconds."""
    end = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what if isinstance(what, str) else what()}")
        PAUSE.wait(0.005)
    return answer


def promised(seconds: float) -> float:
    """The most that something promised within so many seconds may take here, by a clock on the wall.

    Stretched where more programs want to run than there are processors. The faults that are looked for by such a bound
    cost many times more, or never end; what must be exact is tested with a clock that is moved by hand.
    """
    return (seconds + BUSY_SECONDS) * crowding()


def crowding() -> float:
    """How many programs want each processor: 1.0 where nobody waits for one."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)) if hasattr(os, "getloadavg") else 1.0
