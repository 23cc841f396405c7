"""Has the whole line gone mute although the peer still answers pings? Pure.

Silence proves nothing: a quiet market has nothing to say. So silence only ever starts a question to REST. If
REST knows of newer trades, the stream gets a moment more, because those trades may just be on their way; only
silence after that is a stall.
"""

from __future__ import annotations

from math import inf
from typing import Final

PROBE_PATIENCE_SECONDS: Final = 30.0  # an answer later than this is no longer waited for
GRACE_SECONDS: Final = 2.0  # what REST shows already, the stream brings within this time


class SilenceWatch:
    """Silence on all topics of a session at once."""

    def __init__(self, after: float) -> None:
        self._after = after
        self._data_at = inf
        self._next_probe = inf
        self._probe_at: float | None = None
        self._stalled_at = inf
        self._had_stalled = False

    def start(self, now: float) -> None:
        """A subscription went out on a new connection: silence counts from here."""
        self._data_at = now
        self._next_probe = now + self._after
        self._probe_at = None
        self._stalled_at = inf

    def stop(self) -> None:
        self._data_at = self._next_probe = self._stalled_at = inf
        self._probe_at = None

    def heard(self, now: float) -> bool:
        """Data came; True if this ends a stall that had been proven."""
        self._data_at = now
        self._stalled_at = inf
        ended, self._had_stalled = self._had_stalled, False
        return ended

    @property
    def is_silent_at(self) -> float:
        """From when on the line counts as silent if nothing more comes."""
        return self._data_at + self._after

    @property
    def due(self) -> float:
        return min(max(self.is_silent_at, self._next_probe), self._stalled_at)

    def must_probe(self, now: float, *, anything_wanted: bool) -> bool:
        """Whether to ask REST now; the question is then taken as asked. There is none where nothing is wanted."""
        if now < max(self.is_silent_at, self._next_probe):
            return False
        self._next_probe = now + self._after / 2
        is_probing = self._probe_at is not None and now < self._probe_at + PROBE_PATIENCE_SECONDS
        if is_probing or not anything_wanted:
            return False
        self._probe_at = now
        return True

    def answered(self, verdict: bool | None, now: float) -> None:
        """REST's answer: True starts the last moment of grace."""
        asked_at, self._probe_at = self._probe_at, None
        if asked_at is not None and verdict is True and self._data_at < asked_at:
            # Further answers, which may come sooner than the grace ends, must not prolong it.
            self._stalled_at = min(self._stalled_at, now + GRACE_SECONDS)

    def is_stalled(self, now: float) -> bool:
        """Whether the stall is proven now."""
        if now < self._stalled_at:
            return False
        self._stalled_at = inf
        self._had_stalled = True
        return True
