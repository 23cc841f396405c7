"""Limits between processes: the link from one process's limiter to the count it keeps with the others.

Where the file cannot be had (no temporary directory, no rights, a full disk) the limits of this process still hold;
the missing company is logged once.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, TypeVar

from .._concurrency import Clock, Deadline, Flag, get_logger
from ..errors import one_line
from ..models.enums import RateGroup
from .window import CLOCK_MARGIN_SECONDS, SECOND

# One count for several processes of one machine: a small file under the temporary directory, locked while touched.
#
# Off by default. Times in it are monotonic, which all processes of one machine read alike on Linux, macOS and
# Windows; after a restart of the machine old entries lie in the future and are dropped. The file is nobody's secret and
# holds nothing but numbers; whatever cannot be read is taken for an empty count.

# Held for one read and one write of a small file; whoever cannot have it looks again instead of blocking in the kernel,
# where no deadline reaches him.
LOCK_RETRY_SECONDS: Final = 0.002
# Who settles and cannot have the lock for so long leaves it at that: his request counts as held, and comes back by
# itself.
LOCK_PATIENCE_SECONDS: Final = 0.25
MAX_FILE_BYTES: Final = 262_144  # what is longer is none of ours; cut off it is no JSON, and counts as empty
SPAN_SECONDS: Final = SECOND + CLOCK_MARGIN_SECONDS
HELD_SECONDS: Final = 10.0  # a request nobody settles (its process died) counts for so long
LOOK_AGAIN_SECONDS: Final = 0.05  # a request under way may be settled any moment

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    def _lock(file: IO[Any]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]

    def _unlock(file: IO[Any]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined, unused-ignore]

else:

    def _lock(file: IO[Any]) -> None:
        # flock and not a lock file: the kernel lets go of it when its owner dies.
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(file: IO[Any]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_UN)


class Claim(NamedTuple):
    """0.0: the request is counted and may leave. Else seconds after which to ask again, or until the ban is over."""

    wait: float
    is_banned: bool = False


class SharedCountFile:
    """Counts requests to `host` together with every other process that does. OSError where the file cannot be had."""

    def __init__(self, host: str, clock: Clock, directory: Path | None = None) -> None:
        self._clock = clock
        user = os.getuid() if hasattr(os, "getuid") else "user"
        name = f"upbit-backbone-{user}-{re.sub('[^A-Za-z0-9.-]', '_', host)}.limits"
        self._name = name
        self._directory = directory

    @property
    def _path(self) -> Path:
        # Asked for with each use: without a temporary folder the limits of this process still hold, and may get one.
        return (self._directory or Path(tempfile.gettempdir())) / self._name

    def take(self, group: str, per_second: float, ticket: str) -> Claim:
        """Count one request, to be settled by the name `ticket`."""
        # Without patience: whoever takes waits for his turn anyway, and asks again from there with an eye on his
        # deadline.
        with self._opened(0.0) as file:
            if file is None:
                return Claim(LOCK_RETRY_SECONDS)
            now = self._clock.monotonic()
            state = _read(file)
            banned_until = _number(state.get("banned_until"))
            # A time further ahead was written before the machine started anew, when its monotonic clock stood higher.
            if now < banned_until <= now + 86_400:
                return Claim(banned_until - now, is_banned=True)
            # Likewise, and what a dead process never settled falls out here.
            entries = _held(_entries(state, group), now)
            if len(entries) >= max(1, int(per_second)):
                return Claim(min(max(LOCK_RETRY_SECONDS, min(entries.values()) - now), LOOK_AGAIN_SECONDS))
            state[group] = {**entries, ticket: now + HELD_SECONDS}
            _write(file, state)
            return Claim(0.0)

    def settle(self, group: str, ticket: str, arrived_within: float | None) -> None:
        """The request arrived so many seconds from now at the latest; None: it was never sent."""
        with self._opened(LOCK_PATIENCE_SECONDS) as file:
            if file is None:
                return  # it counts as held then, and comes back by itself
            state = _read(file)
            entries = _entries(state, group)
            entries.pop(ticket, None)
            if arrived_within is not None:
                entries[ticket] = self._clock.monotonic() + arrived_within + SPAN_SECONDS
            state[group] = entries
            _write(file, state)

    def ban(self, seconds: float | None) -> None:
        """Tell the other processes of a ban, where its length is known."""
        if seconds is None:
            return
        with self._opened(LOCK_PATIENCE_SECONDS) as file:
            if file is not None:
                state = _read(file)
                state["banned_until"] = self._clock.monotonic() + seconds
                _write(file, state)

    @contextlib.contextmanager
    def _opened(self, patience: float) -> Iterator[IO[bytes] | None]:
        """The locked file; None when someone else holds it for longer than `patience`."""
        # The temporary directory is everybody's: a link put there under our name must not make us write elsewhere, and
        # a child program has no use for the descriptor.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        with os.fdopen(os.open(self._path, flags, 0o600), "r+b") as file:
            if not _locked(file, Deadline.after(patience)):
                yield None
                return
            try:
                yield file
            finally:
                # Before the lock is given up, or the next one reads the old count.
                file.flush()
                _unlock(file)

    def __repr__(self) -> str:
        return f"<SharedCountFile {self._name}>"


def _read(file: IO[bytes]) -> dict[str, Any]:
    file.seek(0)
    try:
        state = json.loads(file.read(MAX_FILE_BYTES))
    except (ValueError, RecursionError):
        # Taken for empty rather than refused: each process still keeps the limit for itself, so the worst is a 429.
        return {}
    return state if isinstance(state, dict) else {}


def _write(file: IO[bytes], state: dict[str, Any]) -> None:
    file.seek(0)
    file.truncate()
    file.write(json.dumps(state).encode())


def _locked(file: IO[Any], deadline: Deadline) -> bool:
    while True:
        try:
            _lock(file)
        except OSError:
            if deadline.expired:
                return False
            Flag().wait(LOCK_RETRY_SECONDS)
        else:
            return True


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def _entries(state: dict[str, Any], group: str) -> dict[str, float]:
    entries = state.get(group)
    return {name: _number(end) for name, end in entries.items()} if isinstance(entries, dict) else {}


def _held(entries: dict[str, float], now: float) -> dict[str, float]:
    return {name: end for name, end in entries.items() if now < end <= now + HELD_SECONDS}


T = TypeVar("T")
log = get_logger("upbit_backbone.limits")


class InterProcessLimiter:
    """Makes claims on a `SharedCountFile`."""

    def __init__(self, count: SharedCountFile) -> None:
        self._count = count
        self._numbers = itertools.count()
        self._is_reported = False

    def claim(self, group: RateGroup, on_ban: Callable[[float], object]) -> Claimant:
        return Claimant(self, group.value, f"{os.getpid()}-{id(self):x}-{next(self._numbers)}", on_ban)

    def ban(self, seconds: float | None) -> None:
        self.reporting(lambda: self._count.ban(seconds))

    def ask(self, group: str, per_second: float, ticket: str, on_ban: Callable[[float], object]) -> float:
        claim = self.reporting(lambda: self._count.take(group, per_second, ticket))
        if claim is None:
            return 0.0
        if claim.is_banned:
            on_ban(claim.wait)
        return claim.wait

    def settle(self, group: str, ticket: str, arrived_within: float | None) -> None:
        self.reporting(lambda: self._count.settle(group, ticket, arrived_within))

    def reporting(self, action: Callable[[], T]) -> T | None:
        """The action's result, or None where the file is out of reach."""
        try:
            return action()
        except OSError as theirs:
            if not self._is_reported:
                self._is_reported = True
                log.warning("limits are not shared with other processes", extra={"why": one_line(theirs)})
            return None


class Claimant:
    """One request's part in the common count."""

    __slots__ = ("_claims", "_group", "_on_ban", "_ticket")

    def __init__(self, claims: InterProcessLimiter, group: str, ticket: str, on_ban: Callable[[float], object]) -> None:
        self._claims = claims
        self._group = group
        self._ticket = ticket
        self._on_ban = on_ban

    def ask(self, per_second: float) -> float:
        """0.0 when the request was counted, else seconds to wait."""
        return self._claims.ask(self._group, per_second, self._ticket, self._on_ban)

    def settle(self, arrived_within: float | None) -> None:
        self._claims.settle(self._group, self._ticket, arrived_within)
