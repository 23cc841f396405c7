"""Threads, deadlines and shared calls: the only module that creates threads.

A thread is born in `spawn`, named, and buried in `join_all` within one deadline; whoever will not stop
is logged by name. Nobody in this library sleeps: waits are made on events and conditions, in slices short
enough that Ctrl-C ends them on every platform.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Generic, Protocol, TypeVar

from .errors import InvalidRequestError, RequestTimeoutError

log = logging.getLogger("upbit_backbone")

# Lock waits cannot be interrupted on Windows before Python 3.14, so no single wait is longer than this.
WAIT_SLICE_SECONDS = 0.25

T = TypeVar("T")
K = TypeVar("K")


class Clock(Protocol):
    """What time it is: `monotonic()` for ages and deadlines, `wall()` only for showing to people."""

    def monotonic(self) -> float: ...

    def wall(self) -> datetime: ...


class SystemClock:
    """The machine's clocks."""

    monotonic = staticmethod(time.monotonic)

    @staticmethod
    def wall() -> datetime:
        return datetime.now(UTC)

    def __repr__(self) -> str:
        return "SystemClock()"


SYSTEM_CLOCK = SystemClock()


class Deadline:
    """A fixed instant on the monotonic clock; ends all arithmetic on timeouts.

    `Deadline.after(None)` never expires. Invalid seconds (NaN, negative, not a number) raise InvalidRequestError.
    """

    __slots__ = ("_clock", "_instant")

    def __init__(self, instant: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._instant = instant
        self._clock = clock

    @classmethod
    def after(cls, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> Deadline:
        if seconds is None:
            return cls(None, clock)
        return cls(clock() + check_timeout(seconds), clock)

    def remaining(self) -> float | None:
        """Seconds left, never negative; None where there is no end."""
        if self._instant is None:
            return None
        return max(0.0, self._instant - self._clock())

    def remaining_or(self, limit: float) -> float:
        """Seconds left, but at most `limit`."""
        left = self.remaining()
        return limit if left is None else min(left, limit)

    @property
    def expired(self) -> bool:
        return self._instant is not None and self._clock() >= self._instant

    def sooner(self, seconds: float) -> Deadline:
        """This deadline or `seconds` from now, whichever comes first."""
        instant = self._clock() + seconds
        if self._instant is not None:
            instant = min(instant, self._instant)
        return Deadline(instant, self._clock)

    def fraction(self, part: float) -> Deadline:
        """A deadline after `part` of the time that is left (half of it: 0.5)."""
        left = self.remaining()
        return Deadline(None, self._clock) if left is None else Deadline(self._clock() + left * part, self._clock)

    def __repr__(self) -> str:
        left = self.remaining()
        return "Deadline(never)" if left is None else f"Deadline(in {left:.3f} s)"


def check_timeout(seconds: float, name: str = "timeout") -> float:
    """`seconds` as a finite float >= 0, or InvalidRequestError that says what was given."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or math.isnan(seconds) or seconds < 0:
        raise InvalidRequestError(f"{name}={seconds!r}: expected seconds as a number >= 0, or None for no limit")
    return min(float(seconds), threading.TIMEOUT_MAX)


def wait_for(condition: threading.Condition, predicate: Callable[[], bool], deadline: Deadline) -> bool:
    """`condition.wait_for` that stays interruptible everywhere; the caller holds the condition's lock."""
    while not predicate():
        if deadline.expired:
            return False
        condition.wait(deadline.remaining_or(WAIT_SLICE_SECONDS))
    return True


def wait_event(event: threading.Event, deadline: Deadline) -> bool:
    """Wait for `event` until `deadline`, in interruptible slices; True if it was set."""
    while not event.is_set():
        if deadline.expired:
            return False
        event.wait(deadline.remaining_or(WAIT_SLICE_SECONDS))
    return True


def wait_future(future: Future[T], deadline: Deadline, what: str) -> T:
    """The future's result, or its error; RequestTimeoutError naming `what` when the deadline comes first."""
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    if not wait_event(done, deadline):
        raise RequestTimeoutError(f"{what}: no answer by the deadline; ask again or give a larger timeout=")
    return future.result()


def spawn(target: Callable[[], object], name: str) -> threading.Thread:
    """Start a named daemon thread. Daemon, so that a forgotten backbone never keeps the process alive."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


def join_all(threads: Iterable[threading.Thread], deadline: Deadline) -> list[str]:
    """Join every thread but the calling one; names of those still alive at the deadline, each logged once."""
    stubborn = []
    for thread in threads:
        if thread is threading.current_thread():
            continue
        thread.join(deadline.remaining())
        if thread.is_alive():
            stubborn.append(thread.name)
            log.warning("thread did not stop in time", extra={"thread_name": thread.name})
    return stubborn


class SingleFlight(Generic[K, T]):
    """Equal concurrent calls become one: one leader, one Future, one result or error for everybody.

    The leader runs `start(future)`, which must see to it that the future is completed. Followers wait on the
    same future, each under its own deadline. The key is free again as soon as the future is done.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _flights
        self._flights: dict[K, Future[T]] = {}
        self.merged = itertools.count()

    def join(self, key: K) -> tuple[Future[T], bool]:
        """The flight for `key` and whether the caller is its leader, who must complete the future."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None:
                return flight, False
            flight = Future()
            self._flights[key] = flight
        flight.add_done_callback(lambda _: self._forget(key))
        return flight, True

    def _forget(self, key: K) -> None:
        with self._lock:
            self._flights.pop(key, None)

    def __len__(self) -> int:
        with self._lock:
            return len(self._flights)

    def __repr__(self) -> str:
        return f"<SingleFlight {len(self)} in flight>"
