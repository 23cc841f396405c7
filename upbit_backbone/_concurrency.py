"""Threads and shared calls: the only module that creates threads.

A thread is born in `spawn`, named, and buried in `join_all` within one deadline; whoever will not stop is logged by
name. Threads are daemons, so a stuck one never keeps the process from exiting; `at_exit` gives the others a bounded
moment to finish. Whatever was made before a `fork` refuses to work in the child, by `ForkGuard`, instead of waiting
for locks that nobody there will ever release. Clocks, deadlines and waits live in `_deadline`, re-exported here.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, Final, Generic, TypeVar

from ._deadline import (
    SLEEP_SECONDS,
    SYSTEM_CLOCK,
    WAIT_SLICE_SECONDS,
    Clock,
    Deadline,
    SystemClock,
    check_timeout,
    clock_offset,
    wait_event,
    wait_for,
    wait_future,
    wall_seconds,
)
from .errors import ClosedError

# Parts that are made when somebody first needs them, with the modules they need: `Once`.

Part = TypeVar("Part")


class Once(Generic[Part]):
    """What `make` makes, at the first `get`, once, whoever asks at the same time. If it raises, the next `get` tries.

    `made` is what was made, or None; reading it never waits.
    """

    def __init__(self, make: Callable[[], Part]) -> None:
        self._make = make
        # Re-entrant: a signal handler may close, on the very thread that is making.
        self._lock = threading.RLock()
        self.made: Part | None = None

    def get(self) -> Part:
        """The part, from any thread; others wait while one makes it."""
        if (part := self.made) is not None:
            return part
        with self._lock:
            if self.made is None:
                self.made = self._make()
            return self.made

    def settled(self) -> Part | None:
        """What was made, once nobody is making it any more. For whoever closes."""
        with self._lock:
            return self.made

    def __repr__(self) -> str:
        return f"<Once {'not made' if self.made is None else repr(self.made)}>"


__all__ = [
    "SLEEP_SECONDS",
    "SYSTEM_CLOCK",
    "WAIT_SLICE_SECONDS",
    "Clock",
    "Deadline",
    "ForkGuard",
    "SingleFlight",
    "SystemClock",
    "WorkerPool",
    "at_exit",
    "check_timeout",
    "clock_offset",
    "is_own_thread",
    "join_all",
    "spawn",
    "wait_event",
    "wait_for",
    "wait_future",
    "wall_seconds",
]

log = logging.getLogger("upbit_backbone")

EXIT_SECONDS: Final = 0.6  # of the second within which a forgotten backbone lets the process go
IDLE_SECONDS: Final = 10.0

T = TypeVar("T")
K = TypeVar("K")


def spawn(target: Callable[[], object], name: str) -> threading.Thread:
    """Start a named daemon thread. Daemon, so that a forgotten backbone never keeps the process alive."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    _born_here.add(thread)
    thread.start()
    return thread


_born_here: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def is_own_thread() -> bool:
    """Whether the calling thread was born here, so that somebody who closes may be waiting for it."""
    return threading.current_thread() in _born_here


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


_forks = 0


def _count_fork() -> None:
    global _forks, _exit_lock
    _forks += 1
    _exit_lock = threading.Lock()
    _leaving.clear()  # the parent's objects are the parent's to close


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


class ForkGuard:
    """Knows whether the process forked since it was made. Asked before any lock is taken."""

    __slots__ = ("_born", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._born = _forks

    @property
    def is_foreign(self) -> bool:
        return self._born != _forks

    def check(self) -> None:
        """ClosedError in a forked child, where the threads and locks of the parent do not work."""
        if self._born != _forks:
            raise ClosedError(f"{self._what} was made before fork(); make a new one in the child process")

    def __repr__(self) -> str:
        return f"<ForkGuard of {self._what}{', foreign' if self.is_foreign else ''}>"


_exit_lock = threading.Lock()  # guards _leaving
_leaving: dict[int, weakref.WeakMethod[Callable[[Deadline], object]]] = {}


def at_exit(close: Callable[[Deadline], object]) -> None:
    """Call the bound method `close(deadline)` when the interpreter exits, if its object still lives by then.

    All of them together get EXIT_SECONDS; nothing that happens there is logged, because nobody is left to read it.
    """
    reference = weakref.WeakMethod(close)
    with _exit_lock:
        _leaving[id(close.__self__)] = reference  # type: ignore[attr-defined]  # WeakMethod has checked it
        for key in [key for key, each in _leaving.items() if each() is None]:
            del _leaving[key]


def _leave() -> None:
    log.setLevel(logging.CRITICAL + 1)
    deadline = Deadline.after(EXIT_SECONDS)
    with _exit_lock:
        closers = [reference() for reference in reversed(_leaving.values())]
        _leaving.clear()
    for close in closers:
        if close is not None:
            with contextlib.suppress(Exception, KeyboardInterrupt):  # nobody is left to be told
                close(deadline)


atexit.register(_leave)


class SingleFlight(Generic[K, T]):
    """Equal concurrent calls become one: one leader, one Future, one result or error for everybody.

    The leader sees to it that the future is completed. Followers wait on the same future, each under its own
    deadline. The key is free again as soon as the future is done. `merged` counts the calls that cost nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _flights and merged
        self._flights: dict[K, Future[T]] = {}
        self.merged = 0

    def join(self, key: K) -> tuple[Future[T], bool]:
        """The flight for `key` and whether the caller is its leader, who must complete the future."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None:
                self.merged += 1
                return flight, False
            flight = self._flights[key] = Future()
        flight.add_done_callback(lambda done: self._forget(key, done))
        return flight, True

    def forget(self, key: K) -> None:
        """From now on nobody joins the present flight for `key`; those aboard still get its result."""
        with self._lock:
            self._flights.pop(key, None)

    def _forget(self, key: K, flight: Future[T]) -> None:
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]

    def __len__(self) -> int:
        with self._lock:
            return len(self._flights)

    def __repr__(self) -> str:
        return f"<SingleFlight {len(self)} in flight>"


class WorkerPool:
    """At most `size` daemon threads that run what is submitted, first come, first served.

    Threads start when there is work and no idle one, and end after `idle_seconds` without work. After `close`
    everything not yet begun fails with ClosedError; what is running is waited for until the deadline and then left
    behind, which a daemon thread allows.
    """

    def __init__(self, size: int, name: str, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self._size = size
        self._name = name
        self._idle_seconds = idle_seconds
        self._guard = ForkGuard(f"worker pool {name}")
        self._wakeup = threading.Condition()  # guards everything below
        self._jobs: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._born = 0
        self._is_closed = False

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Run `job` on a worker; its result or error in a Future. Cancelling works until it begins."""
        self._guard.check()
        future: Future[T] = Future()
        with self._wakeup:
            if self._is_closed:
                raise ClosedError(f"{self._name} is closed")
            self._jobs.append((future, job))
            if len(self._jobs) > self._idle and len(self._threads) < self._size:
                self._hire()
            else:
                self._wakeup.notify()
        return future

    def _hire(self) -> None:
        self._born += 1
        try:
            thread = spawn(self._work, f"{self._name}-{self._born}")
        except RuntimeError:  # "can't start new thread": whoever works already will come to it
            if not self._threads:
                self._jobs.pop()
                raise
        else:
            self._threads.add(thread)

    def _work(self) -> None:
        while True:
            with self._wakeup:
                taken = self._next_job()
            if taken is None:
                return
            self._run(*taken)
            del taken  # an idle worker must not keep the last job's result alive

    def _next_job(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        self._idle += 1
        has_work = self._wakeup.wait_for(lambda: self._jobs or self._is_closed, self._idle_seconds)
        self._idle -= 1
        if has_work and self._jobs:
            return self._jobs.popleft()
        self._threads.discard(threading.current_thread())
        return None

    @staticmethod
    def _run(future: Future[Any], job: Callable[[], Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = job()
        except BaseException as error:  # noqa: BLE001  # whatever it is, it belongs to whoever waits
            future.set_exception(error)
        else:
            future.set_result(result)

    def close(self, deadline: Deadline) -> list[str]:
        """Stop by `deadline`; names of the workers that are still busy then. Safe to call again, from anywhere."""
        if self._guard.is_foreign:
            return []
        with self._wakeup:
            self._is_closed = True
            abandoned, threads = list(self._jobs), list(self._threads)
            self._jobs.clear()
            self._wakeup.notify_all()
        for future, _ in abandoned:
            if future.set_running_or_notify_cancel():
                future.set_exception(ClosedError(f"{self._name} was closed before this began"))
        return join_all(threads, deadline)

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{len(self._jobs)} waiting"
        return f"<WorkerPool {self._name} {len(self._threads)}/{self._size} threads, {state}>"
