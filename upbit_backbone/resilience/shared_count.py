"""One count for several processes of one machine: a small file under the temporary directory, locked while touched.

Off by default. Times in it are monotonic, which all processes of one machine read alike on Linux, macOS and Windows;
after a restart of the machine old entries lie in the future and are dropped. The file is nobody's secret and holds
nothing but numbers; whatever cannot be read is taken for an empty count.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from .._concurrency import Clock
from .window import CLOCK_MARGIN_SECONDS, SECOND

LOCK_RETRY_SECONDS: Final = 0.002
MAX_FILE_BYTES: Final = 65_536
TRANSIT_SECONDS: Final = 0.1  # a request that is counted is taken to have arrived by then
SPAN_SECONDS: Final = SECOND + CLOCK_MARGIN_SECONDS + TRANSIT_SECONDS

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
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(file: IO[Any]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_UN)


class FileCount:
    """Counts requests to `host` together with every other process that does."""

    def __init__(self, host: str, clock: Clock, directory: Path | None = None) -> None:
        self._clock = clock
        user = os.getuid() if hasattr(os, "getuid") else "user"
        name = f"upbit-backbone-{user}-{re.sub('[^A-Za-z0-9.-]', '_', host)}.limits"
        self._path = (directory or Path(tempfile.gettempdir())) / name

    def take(self, group: str, per_second: float) -> float:
        """Count one request: 0.0 if it may leave now, else seconds after which to ask again."""
        now = self._clock.monotonic()
        with self._opened() as file:
            if file is None:
                return LOCK_RETRY_SECONDS
            state = _read(file)
            banned_until = _number(state.get("banned_until"))
            if now < banned_until <= now + 86_400:
                return banned_until - now
            stamps = [stamp for stamp in _numbers(state.get(group)) if now - SPAN_SECONDS < stamp <= now]
            if len(stamps) >= max(1, int(per_second)):
                return max(LOCK_RETRY_SECONDS, stamps[0] + SPAN_SECONDS - now)
            state[group] = [*stamps, now]
            _write(file, state)
            return 0.0

    def ban(self, seconds: float | None) -> None:
        """Tell the other processes of a ban, where its length is known."""
        if seconds is None:
            return
        with self._opened() as file:
            if file is not None:
                state = _read(file)
                state["banned_until"] = self._clock.monotonic() + seconds
                _write(file, state)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[IO[bytes] | None]:
        """The locked file; None when someone else holds it just now."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        with os.fdopen(os.open(self._path, flags, 0o600), "r+b") as file:
            try:
                _lock(file)
            except OSError:
                yield None
                return
            try:
                yield file
            finally:
                file.flush()
                _unlock(file)

    def __repr__(self) -> str:
        return f"<FileCount {self._path}>"


def _read(file: IO[bytes]) -> dict[str, Any]:
    file.seek(0)
    try:
        state = json.loads(file.read(MAX_FILE_BYTES))
    except (ValueError, RecursionError):
        return {}
    return state if isinstance(state, dict) else {}


def _write(file: IO[bytes], state: dict[str, Any]) -> None:
    file.seek(0)
    file.truncate()
    file.write(json.dumps(state).encode())


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def _numbers(values: object) -> list[float]:
    return [_number(value) for value in values] if isinstance(values, list) else []
