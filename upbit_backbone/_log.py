"""The guarded logger: a line that cannot be written is told on stderr, and never raised into what is going on. And when
the next of many alike is worth telling.

Logging handlers and filters are the user's code. One that raises must not end a thread of ours, nor leave undone what
comes after the line that was to be written.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
import traceback
import weakref
from types import CodeType, FrameType
from typing import Any

# Threads born in `_concurrency.spawn`. Here, because the logger has to know whose thread it is on.
own_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def is_own_thread() -> bool:
    """Whether the calling thread is one of ours, so that somebody who closes may be waiting for it."""
    return threading.current_thread() in own_threads


# As libraries do: nothing appears on stderr unless the program sets logging up. (logging's last resort would.)
logging.getLogger("upbit_backbone").addHandler(logging.NullHandler())


def raise_if_users(error: BaseException) -> None:
    """Raise what of `error`, which the calling function has caught, is none of our trouble and must reach the user: on
    a thread of his, Ctrl-C and an exit, and whatever a signal handler of his raised.

    Handlers run on the main thread, wherever that happens to be. What takes any Exception for bad data, a bad line or a
    bad listener would swallow the alarm that somebody has set to end a call of ours.
    """
    if not isinstance(error, Exception) and not is_own_thread():
        raise error
    if threading.current_thread() is not threading.main_thread():
        return
    raised = _raised_by_handler(error, {sys._getframe(1)}, _signal_handlers(), set())
    if raised is not None:
        raise raised


def _raised_by_handler(
    error: BaseException | None, frames: set[FrameType], handlers: set[CodeType], seen: set[int]
) -> BaseException | None:
    """`error` or what it was made of, if a handler raised it below one of these frames."""
    trace = None if error is None else error.__traceback__
    # One that was being handled when we were called is a context of what came since, and nobody's any more: its
    # traceback begins above us.
    if error is None or trace is None or trace.tb_frame not in frames or id(error) in seen:
        return None
    seen.add(id(error))
    below: list[FrameType] = []
    while (trace := trace.tb_next) is not None:
        below.append(trace.tb_frame)
    # The innermost first: urllib3 gives its own errors the traceback of what they wrap.
    for source in (error.__cause__, error.__context__):
        if (raised := _raised_by_handler(source, frames.union(below), handlers, seen)) is not None:
            return raised
    return error if any(frame.f_code in handlers for frame in below) else None


def _signal_handlers() -> set[CodeType]:
    """The code of the handlers that are installed now."""
    found = set()
    for number in signal.valid_signals():
        handler: Any = signal.getsignal(number)
        if not callable(handler):  # ignored, or left to the system
            continue
        handler = getattr(handler, "func", handler)  # a functools.partial
        for each in (handler, type(handler).__call__):  # a function or a method; an object to be called
            if isinstance(code := getattr(each, "__code__", None), CodeType):
                found.add(code)
    return found


class GuardedLogger:
    """A `logging.Logger` whose methods never raise what a handler or filter raised.

    Such an error is printed to stderr, as `logging.Handler.handleError` does it (and, like there, not at all where
    `logging.raiseExceptions` is off); the first of them, then every tenfold count. On a thread of the user's only
    `Exception` is held back: a KeyboardInterrupt, or a SystemExit out of a signal handler, is meant for his program.
    """

    __slots__ = ("_logger", "lost")

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self.lost = 0  # lines that no handler took to the end

    def debug(self, message: str, *args: object, **options: Any) -> None:
        self.log(logging.DEBUG, message, *args, **options)

    def info(self, message: str, *args: object, **options: Any) -> None:
        self.log(logging.INFO, message, *args, **options)

    def warning(self, message: str, *args: object, **options: Any) -> None:
        self.log(logging.WARNING, message, *args, **options)

    def error(self, message: str, *args: object, **options: Any) -> None:
        self.log(logging.ERROR, message, *args, **options)

    def exception(self, message: str, *args: object, **options: Any) -> None:
        """An error with the traceback of the exception being handled."""
        self.log(logging.ERROR, message, *args, exc_info=True, **options)

    def critical(self, message: str, *args: object, **options: Any) -> None:
        self.log(logging.CRITICAL, message, *args, **options)

    def log(self, level: int, message: str, *args: object, **options: Any) -> None:
        """Write a line; `options` are those of `logging.Logger.log`."""
        try:
            if self._logger.isEnabledFor(level):
                self._logger.log(level, message, *args, stacklevel=_frames_to_caller(), **options)
        except BaseException as error:  # noqa: BLE001 - whatever a handler of the user's raises is told, and no more
            raise_if_users(error)
            self._tell(error, message)

    def _tell(self, error: BaseException, message: str) -> None:
        self.lost += 1
        is_worth_a_line = str(self.lost).strip("0") == "1"  # 1, 10, 100, …
        if not (is_worth_a_line and logging.raiseExceptions and sys.stderr is not None):
            return
        with contextlib.suppress(Exception):  # a broken stderr: there is nowhere left to tell it
            lines = traceback.format_exception(error)
            sys.stderr.write(f"{self._logger.name}: a logging handler raised; {self.lost} lines were lost, now: ")
            sys.stderr.write(f"{message}\n{''.join(lines)}")

    def is_shown(self, level: int) -> bool:
        """Whether the program's own logging does something with a line of that level, or has switched it off on
        purpose. (The library's own handler does nothing.)"""
        logger: logging.Logger | None = self._logger
        if not self._logger.isEnabledFor(level):
            return True
        while logger is not None:
            if any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers):
                return True
            logger = logger.parent if logger.propagate else None
        return False

    @property
    def name(self) -> str:
        return self._logger.name

    def __repr__(self) -> str:
        return f"<GuardedLogger {self.name}, {self.lost} lines lost>"


def get_logger(name: str) -> GuardedLogger:
    """The guarded logger of that name; `logging.getLogger(name)` is the one to configure."""
    return GuardedLogger(logging.getLogger(name))


def _frames_to_caller() -> int:
    """How far up the caller is, so that a record names its line and not ours."""
    depth, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename == __file__:
        depth, frame = depth + 1, frame.f_back
    return depth


REPORT_EVERY_SECONDS = 10.0  # where many alike are to be told


class LogThrottle:
    """Says yes to the first, then to every tenfold count, and otherwise at most once per interval."""

    __slots__ = ("_interval", "_last", "_next_count")

    def __init__(self, interval: float = REPORT_EVERY_SECONDS) -> None:
        self._interval = interval
        self._last = float("-inf")
        self._next_count = 1

    def is_due(self, count: int, now: float) -> bool:
        """Whether to report, `count` being the total so far and `now` monotonic."""
        is_milestone = count >= self._next_count
        is_time = now - self._last >= self._interval
        if not (is_milestone or is_time):
            return False
        # Tenfold steps: the first loss is told at once, a million of them in seven reports.
        while self._next_count <= count:
            self._next_count *= 10
        self._last = now
        return True
