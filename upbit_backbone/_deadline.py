"""Clocks, deadlines and waits that end by them.

Nobody in this library sleeps: waits are made on events and conditions, in slices short enough that Ctrl-C ends them
on every platform. Imported by everyone through `_concurrency`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from _thread import RLock
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from ._arguments import as_real
from ._log import get_logger, raise_if_users
from .errors import InvalidRequestError, RequestTimeoutError

log = get_logger("upbit_backbone")

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
        if self._instant is None:
            return limit
        return max(0.0, min(self._instant - self._clock(), limit))

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

    def outlives(self, other: Deadline, by: float = 0.0) -> bool:
        """Whether this one ends more than `by` seconds after `other`."""
        if other._instant is None:
            return False
        return self._instant is None or self._instant - other._instant > by

    def __repr__(self) -> str:
        left = self.remaining()
        return "Deadline(never)" if left is None else f"Deadline(in {left:.3f} s)"


class LatestDeadline(Deadline):
    """Ends when the last of several waiters gives up; it begins as the first one's and grows by `extend`."""

    __slots__ = ()

    def __init__(self, first: Deadline) -> None:
        super().__init__(first._instant, first._clock)

    def extend(self, other: Deadline) -> None:
        if other.outlives(self):
            self._instant = other._instant


def check_timeout(seconds: float, name: str = "timeout") -> float:
    """`seconds` as a finite float >= 0, or InvalidRequestError that says what was given."""
    number = as_real(seconds)
    if number is None or not number >= 0:  # nor NaN
        raise InvalidRequestError(f"{name}={seconds!r}: expected seconds as a number >= 0, or None for no limit")
    return min(number, threading.TIMEOUT_MAX)


class Waitable(Protocol):
    """A `Flag`, or a `threading.Event` of the user's."""

    def is_set(self) -> bool: ...

    def wait(self, timeout: float | None = None) -> bool: ...


# Threads that had better not wait, such as a GUI's, each with whom to tell when one of them is about to.
watched_waits: dict[int, Callable[[], object]] = {}


def about_to_wait() -> None:
    """Called by whoever is about to wait on the calling thread: for another thread, or for an answer of Upbit's."""
    if watched_waits and (tell := watched_waits.get(threading.get_ident())) is not None:
        tell()


class EventCount:
    """Where threads wait until a state has changed that some lock beside it guards.

    `threading.Condition` does this, too, but in Python code: an exception that comes from anywhere (Ctrl-C, a signal
    handler that raises) may leave its lock held, or have `wait` return without it. Here nothing is held while waiting,
    and telling takes no lock at all, so that finalizers and signal handlers may do it.

    A waiter is entered first, then looks at the state, then sleeps; whoever changes the state does so first and tells
    afterwards. So no change goes unnoticed. A word that is lost with an interrupted waiter costs the others one slice.
    """

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: deque[threading.Lock] = deque()

    def notify(self, count: int = 1) -> None:
        """Wake at most so many of the threads that wait, the longest waiting first. Takes no lock."""
        waiting = self.waiting
        while waiting and count > 0:
            count -= 1
            try:
                waiter = waiting.popleft()
            except IndexError:  # somebody else has woken it
                return
            waiter.release()

    def notify_all(self) -> None:
        """Wake every thread that waits now. Takes no lock."""
        self.notify(len(self.waiting))

    def enter(self) -> threading.Lock:
        """A new waiter, to `sleep` with. Entered under the state's lock, it misses nothing that comes after."""
        waiter = threading.Lock()
        waiter.acquire()
        self.waiting.append(waiter)
        return waiter

    def sleep(self, waiter: threading.Lock, seconds: float) -> None:
        """Until somebody tells, or for so many seconds. The caller holds no lock, and looks at the state himself."""
        is_woken = False
        try:
            is_woken = waiter.acquire(timeout=seconds if seconds > 0.0 else 0.0)
        finally:
            if not is_woken:  # whoever wakes it takes it out
                with contextlib.suppress(ValueError):
                    self.waiting.remove(waiter)

    def wait_for(self, ready: Callable[[], object], deadline: Deadline) -> bool:
        """Whether `ready()` came true by the deadline. The caller holds no lock; `ready` takes the one it needs."""
        while not ready():
            if deadline.expired:
                return False
            self.wait_once(ready, deadline)
        return True

    def wait_once(self, ready: Callable[[], object], deadline: Deadline) -> None:
        """As one turn of `wait_for`, for who has just looked, and looks again: woken for nothing it returns, too."""
        about_to_wait()
        waiter = self.enter()
        self.sleep(waiter, 0.0 if ready() else deadline.remaining_or(WAIT_SLICE_SECONDS))

    def __repr__(self) -> str:
        return f"<EventCount, {len(self.waiting)} wait>"


class Flag:
    """`threading.Event` by other means: the same methods, but `set` takes no lock (see EventCount)."""

    __slots__ = ("_changed", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._changed = EventCount()

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        """From any thread, also from a finalizer or a signal handler."""
        self._is_set = True
        self._changed.notify_all()

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Until it is set, or `timeout` seconds are over; True if it was set. Ctrl-C gets through on every platform."""
        return self._changed.wait_for(self.is_set, Deadline.after(timeout))

    def __repr__(self) -> str:
        return f"<Flag {'set' if self._is_set else 'not set'}>"


class _FutureCondition(RLock):  # type: ignore[misc]  # final in the type hints only
    """What a Future needs of a `threading.Condition`, entered and left in C like the lock that it is.

    `with future._condition:` is what all methods of a Future do, on the threads of whoever asks. If Ctrl-C left that
    lock held, the worker that brings the result would wait for it for ever.
    """

    def __init__(self) -> None:
        self._changed = EventCount()
        self._told = 0  # how often

    def wait(self, timeout: float | None = None) -> bool:
        """As `Condition.wait`; the caller holds the lock once."""
        told, deadline = self._told, Deadline.after(None if timeout is None else max(0.0, timeout))
        try:
            self.release()
            # Counted and looked at in slices: a word may be lost with a worker that breaks while it tells.
            return self._changed.wait_for(lambda: self._told != told, deadline)
        finally:
            self.acquire()

    def notify_all(self) -> None:
        self._told += 1
        self._changed.notify_all()

    notify = notify_all


class SharedFuture(Future[T]):
    """A `Future` whose waiters may be interrupted at any moment without harm to whoever completes it."""

    def __init__(self) -> None:
        super().__init__()
        self._condition = _FutureCondition()  # type: ignore[assignment]  # all that a Future needs of one

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """As of any Future; of one that is done already it is called here and now."""
        with self._condition:
            if not self.done():
                self._done_callbacks.append(fn)  # type: ignore[attr-defined]  # the base class's own
                return
        self._tell_all([fn])

    def tell(self) -> None:
        """Tell whoever waits that it is done, once more: where telling was broken off, some have not heard of it."""
        with self._condition:
            self._condition.notify_all()
        self._invoke_callbacks()

    def _invoke_callbacks(self) -> None:
        callbacks: list[Callable[[Future[T]], object]] = self._done_callbacks  # type: ignore[attr-defined]
        # Out of the list before it is called, and so called once, however often telling begins anew.
        self._tell_all(callbacks.pop(0) for _ in range(len(callbacks)))

    def _tell_all(self, callbacks: Iterable[Callable[[Future[T]], object]]) -> None:
        # As the base class does it, which logs whatever comes out of one and goes on. An alarm of the user's that goes
        # off in one is no error of it: it reaches him once all were called.
        alarm: Exception | None = None
        for callback in callbacks:
            try:
                try:
                    callback(self)
                except Exception as error:
                    raise_if_users(error)
                    log.exception("a callback of %r failed", self)
            except Exception as theirs:  # noqa: BLE001
                alarm = theirs
        if alarm is not None:
            raise alarm


def wait_event(event: Waitable, deadline: Deadline) -> bool:
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
    done = Flag()
    future.add_done_callback(lambda _: done.set())
    if not wait_event(done, deadline):
        raise RequestTimeoutError(f"{what}: no answer by the deadline; ask again or give a larger timeout=")
    return future.result()
