"""Parts that are made when somebody first needs them, with the modules they need: `Once`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

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
