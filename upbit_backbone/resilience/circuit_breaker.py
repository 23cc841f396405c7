"""Circuit breaker: when something keeps failing, stop asking for a while. The only module that knows pybreaker.

pybreaker keeps the state (closed, open, half-open) and the count of failures. Its own ways of calling are not used:
`call()` holds a lock during the call, `calling()` lets everybody through when half open, and the reset time is wall
clock. Here only admission and recording are locked, time is monotonic, one probe goes at a time, and *neutral* outcomes
(429, 418, 404, a caller's own short deadline) are recorded as nothing.
"""

from __future__ import annotations

import builtins
import sys
import threading
from collections.abc import Callable
from importlib.util import find_spec, module_from_spec
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, Self, TypeVar

from .._concurrency import SYSTEM_CLOCK, Clock
from ..errors import ChannelUnavailableError, one_line
from ..models.events import BreakerEvent, Event

# One success may be luck.
PROBES_TO_CLOSE: Final = 2
LOST_PROBE_SECONDS: Final = 30.0  # a probe nobody reports on (a dead thread) is given up after this

T = TypeVar("T")


def _lean_pybreaker() -> ModuleType:
    """pybreaker without what it imports wherever that is installed, and we have no use for: redis-py alone takes more
    time than all of ours. A copy of our own, so that whoever uses its storage in Redis finds that in his."""
    spec = find_spec("pybreaker")
    if "pybreaker" in sys.modules or spec is None or spec.loader is None:
        import pybreaker

        return pybreaker

    def import_needed(name: str, *args: Any, **options: Any) -> Any:
        if name.partition(".")[0] in ("redis", "tornado"):
            raise ImportError(name)
        return builtins.__import__(name, *args, **options)

    module = module_from_spec(spec)
    module.__dict__["__builtins__"] = vars(builtins) | {"__import__": import_needed}
    spec.loader.exec_module(module)
    return module


if TYPE_CHECKING:
    import pybreaker
else:
    pybreaker = _lean_pybreaker()

CLOSED, OPEN, HALF_OPEN = pybreaker.STATE_CLOSED, pybreaker.STATE_OPEN, pybreaker.STATE_HALF_OPEN


class Attempt:
    """One admitted call. One of `succeeded` and `failed` should follow; leaving the block without either is neutral."""

    __slots__ = ("_breaker", "_is_settled", "round")

    def __init__(self, breaker: CircuitBreaker, turn: int) -> None:
        self._breaker = breaker
        self.round = turn
        self._is_settled = False

    def succeeded(self) -> None:
        self._settle(self._breaker.record_success)

    def failed(self, error: BaseException) -> None:
        self._settle(lambda turn: self._breaker.record_failure(turn, error))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._settle(self._breaker.record_nothing)

    def _settle(self, record: Callable[[int], None]) -> None:
        if not self._is_settled:
            self._is_settled = True
            record(self.round)


class Elsewhere(Protocol):
    """The breakers of one name in other processes."""

    def open_for(self, name: str) -> float: ...

    def opened(self, name: str, seconds: float) -> object: ...

    def closed(self, name: str) -> object: ...


class CircuitBreaker:
    """Opens after `failures` in a row, tries one call after a while, closes after `probes` successes.

    The while is `first_reset_seconds` (default: `reset_seconds`) and doubles up to `reset_seconds` with each call that
    was tried in vain, so that a short trouble costs a short time.
    `emit` gets a BreakerEvent for each change of state, outside the lock. Those of other processes that are open too
    are known by `elsewhere`: while one is, a single failure here opens this one.
    """

    def __init__(
        self,
        name: str,
        *,
        failures: int = 5,
        reset_seconds: float = 5.0,
        first_reset_seconds: float | None = None,
        probes: int = PROBES_TO_CLOSE,
        clock: Clock = SYSTEM_CLOCK,
        emit: Callable[[Event], object] | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.name = name
        self._elsewhere = elsewhere
        self._longest_reset = reset_seconds
        self._first_reset = reset_seconds if first_reset_seconds is None else min(first_reset_seconds, reset_seconds)
        self._probes = probes
        self._clock = clock
        self._emit = emit
        self._lock = threading.Lock()  # guards everything below
        self._changes: list[tuple[str, str]] = []
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=failures, throw_new_error_on_trip=False, listeners=[_Recorder(self._changes)], name=name
        )
        # Closed, and no failure counted, so that there is nothing to ask and nothing to record: true of nearly every
        # call, and saves it two locks and pybreaker's books. Untrue before the first failure is counted; so whatever
        # interrupts us, it is never true by mistake, and reading it needs no lock.
        self.is_untroubled = True
        self._reset_seconds = self._first_reset
        self._round = 0  # grows with every change of state, so that a late outcome changes nothing
        self._opened_at = float("-inf")
        self._probe_since: float | None = None
        self._good_probes = 0
        self._last_error = "no failure yet"

    @property
    def state(self) -> str:
        """closed, open or half-open; an open one whose time is up is still called open until somebody tries."""
        return str(self._breaker.current_state)

    def refusal(self) -> ChannelUnavailableError | None:
        """The error `admit` would raise now, without taking the probe."""
        if self.is_untroubled:
            return None
        with self._lock:
            left = self._refuses_for(self._clock.monotonic())
        return None if left is None else self._error(left)

    def admit(self) -> Attempt:
        """Permission for one call; ChannelUnavailableError(retry_after) at once where there is none."""
        if self.is_untroubled:
            return Attempt(self, self._round)
        with self._lock:
            now = self._clock.monotonic()
            left = self._refuses_for(now)
            if left is None:
                if self.state == OPEN:
                    self._breaker.half_open()
                    self._changed()
                # One probe at a time: pybreaker's `calling()` let all eight of eight waiters through when half open.
                if self.state == HALF_OPEN:
                    self._probe_since = now
            turn, changes = self._round, self._take_changes()
        try:
            self._tell(changes, f"{self._reset_seconds:g} s are over")
        except BaseException:  # Ctrl-C: a probe that never goes must not keep others from trying
            self.record_nothing(turn)
            raise
        if left is not None:
            raise self._error(left)
        return Attempt(self, turn)

    def admit_anyway(self) -> Attempt:
        """For a call that goes whatever we say, because somebody else decides when: its outcome counts all the same."""
        try:
            return self.admit()
        except ChannelUnavailableError:
            with self._lock:
                return Attempt(self, self._round)

    def call(self, func: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """`func(*args, **kwargs)`, if calls are admitted now; ChannelUnavailableError at once if they are not.

        An Exception of its own counts as a failure and comes out as it is; KeyboardInterrupt and the like count as
        nothing. No lock is held meanwhile, so calls of several threads run side by side.
        """
        with self.admit() as attempt:
            try:
                result = func(*args, **kwargs)
            except Exception as error:
                attempt.failed(error)
                raise
            attempt.succeeded()
            return result

    def handle_failure(self, exception: BaseException) -> None:
        """Count a failure that happened elsewhere, as if it had been a call of ours just now."""
        with self._lock:
            turn = self._round
        self.record_failure(turn, exception)

    def attempt_recovery(self) -> bool:
        """Half-open an open breaker whose time is up; whether a call would be admitted now.

        Takes no probe: the next call is the probe. Nothing has to call this, because `admit` does the same by itself.
        """
        with self._lock:
            is_admitting = self._refuses_for(self._clock.monotonic()) is None
            if is_admitting and self.state == OPEN:
                self._breaker.half_open()
                self._changed()
            changes = self._take_changes()
        self._tell(changes, f"{self._reset_seconds:g} s are over")
        return is_admitting

    def record_success(self, turn: int) -> None:
        if self.is_untroubled:
            return
        with self._lock:
            # An outcome of an earlier state: what was under way when the breaker opened must not close it, nor count
            # against what came after.
            if turn == self._round:
                self._probe_since = None
                if self.state == HALF_OPEN:
                    self._good_probes += 1
                if self.state == OPEN:
                    self._breaker.close()  # it went without permission, and it works
                elif self.state == CLOSED or self._good_probes >= self._probes:
                    # pybreaker counts by calls: one that does nothing and succeeds is a success recorded, and takes no
                    # time under its lock.
                    self._breaker.call(bool)
                self._changed()
                self.is_untroubled = self.state == CLOSED
            changes = self._take_changes()
        # After the lock: whoever is told may ask this breaker for its state.
        self._tell(changes, "it works again")

    def record_failure(self, turn: int, error: BaseException) -> None:
        # Before the lock: it asks a server.
        left = 0.0 if self._elsewhere is None or self.state != CLOSED else self._elsewhere.open_for(self.name)
        with self._lock:
            if turn == self._round:
                self.is_untroubled = False
                self._probe_since = None
                self._last_error = one_line(error, 120)
                if self.state != OPEN:
                    self._count_failure()
                if left and self.state == CLOSED:
                    self._open_for(left)
            changes = self._take_changes()
        self._tell(changes, self._last_error)

    def _count_failure(self) -> None:
        was_tried = self.state == HALF_OPEN
        try:
            self._breaker.call(_fail)
        except _CountedError:
            if self._changed():
                self._opened_at = self._clock.monotonic()
                # Only where a try was in vain: failures that were under way when it opened say nothing new.
                longer = min(self._reset_seconds * 2, self._longest_reset)
                self._reset_seconds = longer if was_tried else self._first_reset

    def _open_for(self, seconds: float) -> None:
        """As long as another process's is."""
        self._breaker.open()
        self._changed()
        self._opened_at = self._clock.monotonic()
        self._reset_seconds = min(max(seconds, self._first_reset), self._longest_reset)

    def record_nothing(self, turn: int) -> None:
        if self.is_untroubled:
            return
        with self._lock:
            if turn == self._round:
                self._probe_since = None

    def _refuses_for(self, now: float) -> float | None:
        """Seconds until it is worth asking again, or None where a call may go."""
        if self.state == OPEN:
            left = self._opened_at + self._reset_seconds - now
            return left if left > 0 else None
        if self.state == HALF_OPEN and self._probe_since is not None:
            left = self._probe_since + LOST_PROBE_SECONDS - now
            return min(left, self._reset_seconds) if left > 0 else None
        return None

    def _changed(self) -> bool:
        if not self._changes:
            return False
        self._round += 1
        self._good_probes = 0
        return True

    def _take_changes(self) -> list[tuple[str, str]]:
        changes = list(self._changes)
        self._changes.clear()
        return changes

    def _tell(self, changes: list[tuple[str, str]], reason: str) -> None:
        for old, new in changes:
            if self._elsewhere is not None and new == OPEN:
                self._elsewhere.opened(self.name, self._reset_seconds)
            if self._elsewhere is not None and new == CLOSED:
                self._elsewhere.closed(self.name)
            if self._emit is not None:
                at = self._clock.wall()
                self._emit(BreakerEvent(at=at, breaker=self.name, old=old, new=new, reason=reason))

    def _error(self, left: float) -> ChannelUnavailableError:
        return ChannelUnavailableError(
            f"{self.name} failed again and again (last: {self._last_error}); next attempt in {left:.1f} s",
            retry_after=left,
        )

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.name} {self.state}>"


class _CountedError(Exception):
    """Tells pybreaker of a failure; never leaves this module."""


def _fail() -> NoReturn:
    raise _CountedError


class _Recorder(pybreaker.CircuitBreakerListener):
    """Only notes what happened: a listener that raises would keep pybreaker's circuit closed."""

    def __init__(self, changes: list[tuple[str, str]]) -> None:
        self._changes = changes

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        self._changes.append((old_state.name, new_state.name))
