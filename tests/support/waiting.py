"""Wait until something has happened, and say what it was that never did."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

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
