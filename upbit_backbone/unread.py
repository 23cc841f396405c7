"""What could not be read: counted by name, and told in events, samples of many alike."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from ._concurrency import Clock
from ._log import LogThrottle
from .errors import MalformedDataError, NoTradesYetError, one_line
from .models.events import Event, MalformedEvent, UnreadFieldEvent
from .unify.reader import UnreadField
from .unify.rest import Rows

SAMPLE_BYTES = 200


class UnreadLog:
    """Thread-safe; never raises. `where` is the session's name, or `REST` and the kind of the question."""

    def __init__(self, emit: Callable[[Event], None], clock: Clock, count: Callable[[str], None]) -> None:
        self._emit = emit
        self._clock = clock
        self._count = count  # into the performance report
        self._lock = threading.Lock()  # guards the three below
        self._refused = Counter[str]()
        self._fields = Counter[str]()
        self._samplers: dict[str, LogThrottle] = {}

    def refused(self, where: str, raw: bytes | str, error: Exception) -> None:
        """A whole payload, or a row of one, did not say what, when or how much."""
        count = self._due(self._refused, where, where)
        if count is None:
            return
        reason = one_line(error if isinstance(error, MalformedDataError) else f"{type(error).__name__}: {error}")
        text = raw if isinstance(raw, str) else raw[:SAMPLE_BYTES].decode("utf-8", "replace")
        self._emit(
            MalformedEvent(at=self._clock.wall(), session=where, reason=reason, sample=one_line(text), count=count)
        )

    def field(self, where: str, unread: UnreadField) -> None:
        """A message was taken without one of its fields."""
        name = f"{unread.kind}.{unread.name}"
        self._count(f"unread.{name}")
        count = self._due(self._fields, name, f"field {name}")
        if count is not None:
            at = self._clock.wall()
            self._emit(
                UnreadFieldEvent(at=at, source=where, field=name, key=unread.key, reason=unread.reason, count=count)
            )

    def rows(self, kind: str, rows: Rows[Any]) -> None:
        """What a REST answer held of it. A market that nobody has traded yet is nothing to complain of."""
        where = f"REST {kind}"
        for row in rows.unread:
            if not isinstance(row.error, NoTradesYetError):
                self.refused(where, _shown(row.row), row.error)
        for unread in rows.unread_fields:
            self.field(where, unread)

    def count(self, where: str | None = None) -> int:
        """Refused payloads so far, from one place or from all."""
        with self._lock:
            return self._refused.total() if where is None else self._refused[where]

    def fields(self) -> dict[str, int]:
        """How often each field could not be read."""
        with self._lock:
            return dict(self._fields)

    def _due(self, counts: Counter[str], name: str, sampler: str) -> int | None:
        """Count one more; the total where it is worth an event."""
        with self._lock:
            counts[name] += 1
            is_due = self._samplers.setdefault(sampler, LogThrottle()).is_due(counts[name], self._clock.monotonic())
            return counts[name] if is_due else None

    def __repr__(self) -> str:
        return f"<UnreadLog {self.count()} refused, {len(self.fields())} fields>"


def _shown(row: object) -> str:
    try:
        return repr(row)[:SAMPLE_BYTES]
    except (ValueError, RecursionError):  # an integer of too many digits, or nested too deep
        return f"a {type(row).__name__}"
