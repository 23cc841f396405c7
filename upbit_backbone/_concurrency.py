"""Threads and shared calls: the only module that creates threads.

A thread is born in `spawn`, named, and buried in `join_all` within one deadline; whoever will not stop is logged by
name. Threads are daemons, so a stuck one never keeps the process from exiting; `at_exit` gives the others a bounded
moment to finish. Whatever was made before a `fork` refuses to work in the child, by `ForkGuard`, instead of waiting
for locks that nobody there will ever release. Clocks, deadlines and waits live in `_deadline`, re-exported here.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import logging
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from types import CodeType, FrameType
from typing import Any, Final, Generic, TypeVar

from ._deadline import (
    SLEEP_SECONDS,
    SYSTEM_CLOCK,
    WAIT_SLICE_SECONDS,
    Clock,
    Deadline,
    EventCount,
    Flag,
    LatestDeadline,
    SharedFuture,
    SystemClock,
    Waitable,
    about_to_wait,
    check_timeout,
    clock_offset,
    wait_event,
    wait_future,
    wall_seconds,
    watched_waits,
)
from ._fork import ForkGuard, at_fork, notice
from ._log import GuardedLogger, get_logger, is_own_thread, own_threads, raise_if_users
from .errors import ClosedError, NetworkError, ResourceError, one_line

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
        # Waits for whoever makes it: closed while it is being made, a part would live on without anybody who knows of
        # it.
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
    "EventCount",
    "Flag",
    "ForkGuard",
    "GuardedLogger",
    "LatestDeadline",
    "LoopThread",
    "SharedFuture",
    "SingleFlight",
    "SystemClock",
    "Waitable",
    "WorkerPool",
    "about_to_wait",
    "at_exit",
    "at_fork",
    "calls_users",
    "check_timeout",
    "clock_offset",
    "get_logger",
    "is_interrupting",
    "is_own_thread",
    "join_all",
    "notice",
    "raise_if_users",
    "spawn",
    "spawn_unwaited",
    "wait_event",
    "wait_future",
    "wall_seconds",
    "watched_waits",
]

log = get_logger("upbit_backbone")

# A second in all: concurrent.futures' pool with one stuck task kept a process from ever exiting.
EXIT_SECONDS: Final = 0.6  # of the second within which a forgotten backbone lets the process go
IDLE_SECONDS: Final = 10.0
BEGIN_SECONDS: Final = 1.0  # what a crowded machine may take from asking for a thread to its first step

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])
K = TypeVar("K")
F = TypeVar("F", bound=Future[Any])


def spawn(target: Callable[[], object], name: str) -> threading.Thread:
    """Start a named daemon thread. Daemon, so that a forgotten backbone never keeps the process alive.

    ResourceError if the system has no thread to give. Ctrl-C may come at any moment: the thread is then started or not,
    but never half started.
    """
    thread = _new_thread(target, name)
    _start(thread)
    return thread


def spawn_unwaited(target: Callable[[], object], name: str) -> None:
    """As `spawn`, but without waiting for anything: for finalizers and signal handlers.

    They run wherever they interrupt, so perhaps within `Thread.start`, whose lock a second `start` would wait for.
    """
    if sys.is_finalizing():  # then no thread runs any more, and what had to be closed was closed at exit
        return
    try:
        _thread.start_new_thread(_start_here, (_new_thread(target, name), Flag(), []))
    except RuntimeError:
        # From CPython 3.12 on no thread starts once the main thread has ended, which is before `is_finalizing`: a
        # window that goes with the module it was made in comes to that. What is open is closed at exit.
        if threading.main_thread().is_alive():
            raise


def _new_thread(target: Callable[[], object], name: str) -> threading.Thread:
    thread = threading.Thread(target=target, name=name, daemon=True)
    own_threads.add(thread)
    return thread


def _start(thread: threading.Thread) -> None:
    """`Thread.start`, on a thread that no signal reaches.

    `Thread.start` waits on an Event until the new thread says that it runs. A signal's exception in there leaves the
    Event's lock held, and the new thread waits for it for ever. Signals reach the main thread only.
    """
    if sys.is_finalizing():
        raise ResourceError("the interpreter is exiting: no thread runs any more")
    try:
        if threading.current_thread() is not threading.main_thread():
            thread.start()
            return
        is_started, errors = Flag(), []  # type: tuple[Flag, list[Exception]]
        _thread.start_new_thread(_start_here, (thread, is_started, errors))
        is_started.wait()
        if errors:
            raise errors[0]
    except (RuntimeError, MemoryError) as theirs:
        # "can't start new thread", or, once the main thread has ended, "… at interpreter shutdown": CPython 3.12.0 to
        # 3.12.2 say that while other threads of the program still run.
        raise ResourceError(f"no thread could be started ({one_line(theirs) or 'no memory'}); ask again") from theirs


def _start_here(thread: threading.Thread, is_started: Flag, errors: list[Exception]) -> None:
    try:
        thread.start()
    except Exception as error:  # noqa: BLE001 - raised where the thread was asked for
        errors.append(error)
    finally:
        is_started.set()


class LoopThread:
    """A thread of ours that takes one `turn` after the other until `is_over`, and that nothing else can end.

    Whatever a turn raises, BaseException included, is told to `failed` and the next turn follows, later and later
    where turns fail in a row. Should the thread die all the same, between two turns or for want of memory, it is
    logged and a new one takes its place at once; where the system has none to give, at the next `ensure`.
    `at_end` is called once, on the thread, when it is over.
    """

    def __init__(
        self,
        turn: Callable[[], object],
        name: str,
        *,
        is_over: Callable[[], bool],
        failed: Callable[[BaseException], object] | None = None,
        at_end: Callable[[], object] | None = None,
    ) -> None:
        self.name: Final = name
        self._turn = turn
        self._is_over = is_over
        self._failed = failed
        self._at_end = at_end
        self._starting = threading.Lock()  # guards every change of _thread
        # Held by the thread as long as it loops: should two have been started, the older leaves before the newer
        # begins, because turns own sockets.
        self._turns = threading.Lock()
        self._thread: threading.Thread | None = None
        self._failures = 0  # in a row
        self._has_ended = False
        self._guard = ForkGuard(f"the thread {name}")

    def ensure(self) -> None:
        """Have it run: start it, or a new one if it has died. ResourceError if the system has no thread to give."""
        thread = self._thread
        if self._guard.is_foreign:  # its lock may be held for ever there, and its turns are the parent's to take
            return
        if self._is_over() or (thread is not None and thread.is_alive()):
            return
        with self._starting:
            # Looked at again under the lock: two who found it dead would start two, and each owns a socket when it
            # runs.
            if self._thread is thread:
                self._begin_another()

    def revive(self) -> None:
        """Have a new thread go on, if the old one has died and the system has one to give. Raises nothing of ours."""
        if self._thread is not None:
            with contextlib.suppress(RuntimeError):  # none yet: it was told when the old one died
                self.ensure()

    @property
    def thread(self) -> threading.Thread | None:
        """The thread of now; None before the first `ensure`."""
        return self._thread

    @property
    def is_alive(self) -> bool:
        """Whether it runs now."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def is_current(self) -> bool:
        """Whether the calling thread is this one."""
        return threading.current_thread() is self._thread

    def join(self, deadline: Deadline) -> list[str]:
        """Wait for its end, unless the calling thread is this one; its name if it still runs at the deadline."""
        thread = self._thread
        if thread is None:
            return []
        # One that is just being started is not dead: it would begin, and write what waits, after its end was told.
        begins = deadline.sooner(BEGIN_SECONDS)
        while thread.ident is None and not begins.expired:
            Flag().wait(0.001)
        return join_all([thread], deadline) if thread.is_alive() else []

    def _begin_another(self) -> None:
        before, self._thread = self._thread, _new_thread(self._run, self.name)
        try:
            _start(self._thread)
        except RuntimeError:
            self._thread = before  # one that never began would be waited for
            raise

    def _run(self) -> None:
        try:
            with self._turns:
                self._take_turns(threading.current_thread())
                if self.is_current:
                    self._end()
        except BaseException:
            log.critical("a thread broke out of its loop", exc_info=True, extra={"thread_name": self.name})
        if self.is_current and not self._has_ended:
            self._replace()

    def _take_turns(self, me: threading.Thread) -> None:
        # `is me`: who was replaced while it hung leaves after its turn instead of going on beside its successor.
        while self._thread is me and not self._is_over():
            self._take_turn()

    def _take_turn(self) -> None:
        try:
            # BaseException below: SystemExit and KeyboardInterrupt out of a user's logging handler must not end a
            # stream, either.
            self._turn()
            self._failures = 0
        except BaseException as error:  # noqa: BLE001 - whoever knows what failed tells it
            self._failures += 1
            self._tell(error)
            if self._failures > 1:
                # The first failure costs no time; what fails again and again must not take a whole core with it.
                Flag().wait(min(WAIT_SLICE_SECONDS, 0.001 * 2.0 ** min(self._failures, 16)))

    def _tell(self, error: BaseException) -> None:
        try:
            if self._failed is not None:
                self._failed(error)
            else:
                log.error("%s failed and goes on", self.name, exc_info=error)
        except BaseException:
            log.exception("%s cannot even report its failure", self.name)

    def _end(self) -> None:
        self._has_ended = True
        if self._at_end is not None:
            self._at_end()

    def _replace(self) -> None:
        try:
            with self._starting:
                self._begin_another()
        except RuntimeError:
            log.critical("no thread to replace one that died", exc_info=True, extra={"thread_name": self.name})

    def __repr__(self) -> str:
        return f"<LoopThread {self.name} {'running' if self.is_alive else 'not running'}>"


# Where code of the user's is called, with no lock of ours held.
_user_calls: set[CodeType] = set()
_EDGES = frozenset({"cli", "compat", "qt", "simulator"})  # parts of the package that use it as anybody does


def calls_users(function: Function) -> Function:
    """Mark a function that calls code of the user's while no lock is held: what is called may wait."""
    _user_calls.add(function.__code__)
    return function


def is_interrupting() -> bool:
    """Whether the calling code interrupts a thread in the middle of something of ours: a finalizer, a weakref callback
    or a signal handler.

    What it interrupts may hold any lock, so it must not wait: not for a lock, nor for a thread that may want one.
    Nobody can know which code runs there, but all of it is on the stack: below the caller's own frames there are ours.
    """
    frame = sys._getframe(1)
    is_finalizer = False
    while frame is not None and _is_ours(frame) and not is_finalizer:  # the method that was called
        # A finalizer of ours was called by nobody: whatever of ours is below it is what it interrupts.
        is_finalizer = frame.f_code.co_name == "__del__"
        frame = frame.f_back  # type: ignore[assignment]
    while frame is not None and not _is_ours(frame):
        frame = frame.f_back  # type: ignore[assignment]
    return frame is not None and frame.f_code not in _user_calls


def _is_ours(frame: FrameType) -> bool:
    package, _, rest = frame.f_globals.get("__name__", "").partition(".")
    return package == "upbit_backbone" and rest.partition(".")[0] not in _EDGES


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


def _start_over_in_child() -> None:
    global _exit_lock
    # The parent may have held it in another thread just then; that thread does not exist here.
    _exit_lock = threading.Lock()
    _leaving.clear()  # the parent's objects are the parent's to close
    own_threads.clear()  # a thread of the child's may get the number of one that only the parent has


at_fork(_start_over_in_child)


_exit_lock = threading.Lock()  # guards _leaving
_leaving: dict[int, weakref.WeakMethod[Callable[[Deadline], object]]] = {}


def at_exit(close: Callable[[Deadline], object]) -> None:
    """Call the bound method `close(deadline)` when the interpreter exits, if its object still lives by then.

    All of them together get EXIT_SECONDS; nothing that happens there is logged, because nobody is left to read it.
    """
    reference = weakref.WeakMethod(close)
    notice()
    with _exit_lock:
        _leaving[id(close.__self__)] = reference  # type: ignore[attr-defined]  # WeakMethod has checked it
        _forget_gone()


def _forget_gone() -> None:
    for key in [key for key, each in _leaving.items() if each() is None]:
        del _leaving[key]


def _leave() -> None:
    # Logging while the interpreter shuts down is not safe (CPython issue 129536).
    logging.getLogger(log.name).setLevel(logging.CRITICAL + 1)
    notice()
    deadline = Deadline.after(EXIT_SECONDS)
    with _exit_lock:
        # The youngest first, as contexts are left; taken out under the lock and called outside it, because closing may
        # register or forget others.
        closers = [reference() for reference in reversed(_leaving.values())]
        _leaving.clear()
    for close in closers:
        if close is not None:
            with contextlib.suppress(Exception, KeyboardInterrupt):  # nobody is left to be told
                close(deadline)


atexit.register(_leave)


class SingleFlight(Generic[K, F]):
    """Equal concurrent calls become one: one leader, one Future, one result or error for everybody.

    The leader sees to it that the future is completed. Followers wait on the same future, each under its own
    deadline. The key is free again as soon as the future is done. `merged` counts the calls that cost nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _flights and merged
        self._flights: dict[K, F] = {}
        self.merged = 0

    def join(
        self,
        key: K,
        start: Callable[[], F] = SharedFuture,  # type: ignore[assignment]  # where nothing more is needed
        may_join: Callable[[F], bool] = lambda flight: True,
    ) -> tuple[F, bool]:
        """The flight for `key` and whether the caller is its leader, who must complete it.

        `start` makes a new one where none is under way, or `may_join` (asked under the lock) says no to the one that
        is: whoever waits for that one still gets its result.
        """
        made: list[F] = []
        try:
            with self._lock:
                flight = self._flights.get(key)
                # One that is done is no flight any more, though whoever was to take it out was interrupted.
                if flight is not None and not flight.done() and may_join(flight):
                    self.merged += 1
                    return flight, False
                made.append(start())
                flight = self._flights[key] = made[0]
            # Outside the lock: of a flight that is done already the callback runs here and now, and takes it.
            flight.add_done_callback(lambda done: self._forget(key, done))
        except BaseException:
            for each in made:  # Ctrl-C, before the caller could know that he leads: nobody would complete it
                self._forget(key, each)
                if not each.done():
                    each.set_exception(NetworkError("the call was interrupted; ask again"))
            raise
        return flight, True

    def _forget(self, key: K, flight: Future[Any]) -> None:
        with self._lock:
            # Another may have begun under this key since: who may not join the old flight starts one beside it.
            if self._flights.get(key) is flight:
                del self._flights[key]

    def __len__(self) -> int:
        with self._lock:
            return len(self._flights)

    def __repr__(self) -> str:
        return f"<SingleFlight {len(self)} in flight>"


class WorkerPool:
    """At most `size` daemon threads that run what is submitted: by urgency, equals as they came.

    For what is most urgent (0) there may be twice as many threads, so that it waits for nothing less urgent that hangs.

    Threads start when there is work and no idle one, and end after `idle_seconds` without work. After `close`
    everything not yet begun fails with ClosedError; what is running is waited for until the deadline and then left
    behind, which a daemon thread allows.
    """

    def __init__(self, size: int, name: str, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self._size = size
        self._name = name
        self._idle_seconds = idle_seconds
        self._guard = ForkGuard(f"worker pool {name}")
        self._lock = threading.Lock()  # guards every change of _threads, and that _is_closed is looked at with it
        self._wakeup = EventCount()  # who waits there is idle
        # One queue for each urgency, changed under the lock and looked at without it.
        self._jobs: tuple[deque[tuple[Future[Any], Callable[[], Any]]], ...] = (deque(), deque(), deque())
        self._taken: dict[threading.Thread, tuple[Future[Any], Callable[[], Any]]] = {}
        self._threads: set[threading.Thread] = set()
        self._born = 0
        self._is_closed = False

    @property
    def is_own_thread(self) -> bool:
        """Whether whoever asks is run by this pool."""
        return threading.current_thread() in self._threads

    @property
    def has_room(self) -> bool:
        """Whether what is submitted now begins at once."""
        return len(self._wakeup.waiting) > self._count() or len(self._threads) < self._size

    def _count(self) -> int:
        return sum(map(len, self._jobs))

    def submit(self, job: Callable[[], T], urgency: int = 1) -> Future[T]:
        """Run `job` on a worker; its result or error in a Future. Cancelling works until it begins. `urgency` is 0, 1
        or 2; 0 comes first.

        ClosedError after `close`, RuntimeError if there is no worker and the system has no thread to give.
        """
        self._guard.check()
        future: Future[T] = SharedFuture()
        entry = (future, job)
        try:
            with self._lock:
                if self._is_closed:
                    raise ClosedError(f"{self._name} is closed")
                self._jobs[urgency].append(entry)
            # After the entry and outside its lock: a worker on its way out looks at the queues once more under that
            # lock, so one of the two sees the job.
            self._hire(self._size * 2 if urgency == 0 else self._size)
        except BaseException:
            # Whoever asked gets an exception instead of the Future: what nobody can wait for is not begun.
            with self._lock, contextlib.suppress(ValueError):  # a worker has it already
                self._jobs[urgency].remove(entry)
            future.cancel()
            raise
        return future

    def _hire(self, size: int) -> None:
        """Wake an idle worker; start one where more jobs wait than workers are idle, and there may be more."""
        # Read before the notify, which takes one of them off.
        idle = len(self._wakeup.waiting)
        self._wakeup.notify()
        if self._count() <= idle:
            return
        with self._lock:
            self._threads = set(filter(threading.Thread.is_alive, self._threads))
            if self._is_closed or len(self._threads) >= size:
                return
            self._born += 1
            thread = _new_thread(self._work, f"{self._name}-{self._born}")
            self._threads.add(thread)
            try:
                _start(thread)
            except RuntimeError:  # "can't start new thread": whoever works already will come to it
                self._threads.discard(thread)
                if not self._threads:
                    raise

    def _work(self) -> None:
        try:
            self._take_jobs(threading.current_thread())
        except BaseException as error:
            log.critical("a worker broke down", exc_info=True, extra={"thread_name": threading.current_thread().name})
            # Broken while it lay down to wait, it would be counted among the idle for ever, and nobody hired for it.
            self._wakeup.notify_all()
            self._give_up(threading.current_thread(), error)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())
            if self._count() and not self._is_closed:
                self._hire(self._size)

    def _take_jobs(self, me: threading.Thread) -> None:
        with self._lock:
            self._threads.add(me)  # an interrupted `_hire` may have taken it for dead
        while (taken := self._next_job(me)) is not None:
            self._run(*taken)
            self._taken.pop(me)
            taken = None  # an idle worker must not keep the last job's result alive

    def _next_job(self, me: threading.Thread) -> tuple[Future[Any], Callable[[], Any]] | None:
        deadline = Deadline.after(self._idle_seconds)
        while True:
            self._wakeup.wait_for(lambda: any(self._jobs) or self._is_closed, deadline)
            with self._lock:  # under it, so that no `submit` counts on a worker that is about to go
                if (taken := self._take(me)) is not None:
                    return taken
                if self._is_closed or deadline.expired:
                    self._threads.discard(me)
                    return None

    def _take(self, me: threading.Thread) -> tuple[Future[Any], Callable[[], Any]] | None:
        """The next job, if there is one. Called with the lock held."""
        for queue in self._jobs:
            if queue:
                # Noted before it leaves the queue: whatever breaks the worker in between, somebody knows of the job.
                self._taken[me] = entry = queue[0]
                queue.popleft()
                return entry
        return None

    def _give_up(self, me: threading.Thread, error: BaseException) -> None:
        """The worker ends with `error`: so does the job that it had, and whoever waits for it hears of that."""
        future, _ = self._taken.pop(me, (None, None))
        if future is None:
            return
        with self._lock:
            is_waiting = any(future is each for queue in self._jobs for each, _ in queue)
        if is_waiting:  # another worker comes to it
            return
        if not future.done():
            future.set_exception(error)
        elif isinstance(future, SharedFuture):
            future.tell()  # it may have been broken off in the middle of telling

    @staticmethod
    def _run(future: Future[Any], job: Callable[[], Any]) -> None:
        try:
            if not future.set_running_or_notify_cancel():
                return
            result = job()
        except BaseException as error:  # noqa: BLE001  # whatever it is, it belongs to whoever waits
            future.set_exception(error)
        else:
            future.set_result(result)

    def close(self, deadline: Deadline) -> list[str]:
        """Stop by `deadline`; names of the workers that are still busy then. Safe to call again, from anywhere."""
        if self._guard.is_foreign:
            return []
        with self._lock:
            self._is_closed = True
            abandoned, threads = [entry for queue in self._jobs for entry in queue], list(self._threads)
            for queue in self._jobs:
                queue.clear()
        # After the lock, and before the futures: what their callbacks do must not keep a worker from hearing of the
        # end.
        self._wakeup.notify_all()
        # Outside the lock: completing a future runs the callbacks of whoever waits for it.
        for future, _ in abandoned:
            if future.set_running_or_notify_cancel():
                future.set_exception(ClosedError(f"{self._name} was closed before this began"))
        return join_all([thread for thread in threads if thread.is_alive()], deadline)

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{self._count()} waiting"
        return f"<WorkerPool {self._name} {len(self._threads)}/{self._size} threads, {state}>"
