"""Notices: what the author of a window has to see, whether his program has set logging up or not."""

from __future__ import annotations

import linecache
import logging
import sys
import threading
from collections import Counter
from collections.abc import Callable
from types import FrameType

from .._concurrency import get_logger, watched_waits

log = get_logger("upbit_backbone.qt")

# What waits for a moment only, or on purpose: starting a thread, and ending something.
_MAY_WAIT = frozenset({"_start", "close", "__exit__", "__del__"})

_told: set[tuple[str, int]] = set()
_watchers: Counter[int] = Counter()


def tell(level: int, message: str, error: BaseException | None = None) -> None:
    """Log it, and print it on stderr where no handler would show it: a window has no other place for it."""
    log.log(level, message, exc_info=error)
    if not log.is_shown(level) and sys.stderr is not None:
        sys.stderr.write(f"upbit_backbone.qt: {message}\n")


def watch_gui_thread() -> Callable[[], None]:
    """From now on a line that blocks the calling thread is told, once each; call what is returned to end that."""
    thread = threading.get_ident()
    _watchers[thread] += 1
    watched_waits[thread] = _tell_wait

    def unwatch() -> None:
        _watchers[thread] -= 1
        if _watchers[thread] <= 0:
            watched_waits.pop(thread, None)

    return unwatch


def _tell_wait() -> None:
    frame, method, passed = _caller()
    if frame is None or passed & _MAY_WAIT:
        return
    place = (frame.f_code.co_filename, frame.f_lineno)
    if place in _told:
        return
    _told.add(place)
    line = linecache.getline(*place).strip()
    tell(
        logging.WARNING,
        f"{place[0]}:{place[1]}: {line or method}: {method}() waits for an answer on the GUI thread, and the window is "
        "frozen meanwhile; put it to bridge.ask(…), or open it with the bridge's own methods",
    )


def _caller() -> tuple[FrameType | None, str, set[str]]:
    """The line of the program that called us, the method it called, and the names of all functions since.

    Not just the first line that is not ours: between ours there are those of http.client and the like. But a window's
    own slot is called by the bridge, so the bridge ends the search.
    """
    frame: FrameType | None = sys._getframe(2)
    caller, method = None, ""
    passed: set[str] = set()
    while frame is not None:
        package, _, part = frame.f_globals.get("__name__", "").partition(".")
        if package == "upbit_backbone" and part.startswith("qt."):
            break
        if package == "upbit_backbone":
            method = frame.f_code.co_name
            passed.add(method)
            caller = frame.f_back
        frame = frame.f_back
    return caller, method, passed
