"""Clocks, deadlines and waits that end by them.

Nobody in this library sleeps: waits are made on events and conditions, in slices short enough that Ctrl-C ends them
on every platform. Imported by everyone through `_concurrency`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from .errors import InvalidRequestError, RequestTimeoutError

# The monotonic clock (on Linux) stands still while a machine sleeps. Where the clocks have parted by more than this
# since something came, its age is a lie.
SLEEP_SECONDS = 2.0

# Lock waits cannot be interrupted on Windows before Python 3.14, so no single wait is longer than this.
WAIT_SLICE_SECONDS = 0.25

T = TypeVar("T")


class Clock(Protocol):
    """What time it is: `monotonic()` for ages and deadlines, `wall()` only for showing to people."""

    def monotonic(self) -> float: ...

    def wall(self) -> datetime: ...


class SystemClock:
    """The machine's clocks."""

    monotonic = staticmethod(time.monotonic)
    wall_seconds = staticmethod(time.time)

    @staticmethod
    def wall() -> datetime:
        return datetime.now(UTC)

    def __repr__(self) -> str:
        return "SystemClock()"


SYSTEM_CLOCK = SystemClock()


def wall_seconds(clock: Clock) -> Callable[[], float]:
    """What `clock.wall()` says, as a number; of the system's clock without the datetime, which costs ten times more."""
    return clock.wall_seconds if isinstance(clock, SystemClock) else lambda: clock.wall().timestamp()


def clock_offset(clock: Clock) -> float:
    """The wall clock minus the monotonic one, in seconds: a constant, but for small corrections, while we are awake."""
    return wall_seconds(clock)() - clock.monotonic()


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
    if future.done():
        return future.result()
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    if not wait_event(done, deadline):
        raise RequestTimeoutError(f"{what}: no answer by the deadline; ask again or give a larger timeout=")
    return future.result()
