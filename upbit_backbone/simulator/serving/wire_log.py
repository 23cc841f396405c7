"""The simulator's own record of what arrived and when: the judge in every test about limits and subscriptions."""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import Any


class WireLog:
    """Bounded, in order of arrival. `t` is the machine's monotonic clock, the one that `time.monotonic()` reads."""

    def __init__(self, size: int) -> None:
        self._entries: deque[dict[str, Any]] = deque(maxlen=size)
        self._serial = 0
        self.counters: Counter[str] = Counter()

    def add(self, kind: str, wall_ms: int, **facts: Any) -> dict[str, Any]:
        """Kinds: connect, disconnect, request, handshake, message, control, close, fault."""
        self._serial += 1
        entry = {"n": self._serial, "t": time.monotonic(), "wall_ms": wall_ms, "kind": kind, **facts}
        self._entries.append(entry)
        self.counters[kind] += 1
        return entry

    def entries(
        self, kind: str | None, since: int | None, where: dict[str, Any] | None, limit: int
    ) -> list[dict[str, Any]]:
        """The newest `limit` entries after serial number `since` whose facts equal `where`, oldest first."""
        found: list[dict[str, Any]] = []
        # From the newest: tests ask for what came since a moment ago, of a log of a hundred thousand.
        for entry in reversed(self._entries):
            if since is not None and entry["n"] <= since:
                break
            if (kind is None or entry["kind"] == kind) and all(entry.get(k) == v for k, v in (where or {}).items()):
                found.append(entry)
                if len(found) >= limit:
                    break
        return found[::-1]

    def clear(self) -> None:
        self._entries.clear()
        self.counters.clear()
