"""Lateness: what to do about a session that brings everything, but too late. Pure.

A line that is too slow for what is subscribed, or a machine too busy to read it, falls ever further behind while every
frame on it looks like life. First it is told, and its load is shed. Where that does not help, only a new connection
does: it leaves behind what has piled up on the way. Each one costs a gap, so they come ever less often.
"""

from __future__ import annotations

from math import inf
from typing import Final

TELL_SECONDS: Final = 3.0  # a hiccup ends by itself
CALM_SECONDS: Final = 2.0
# How long shedding, and then each reconnection, may take to help. A backlog of that many seconds is drained by then, or
# grows on.
FIRST_PATIENCE_SECONDS: Final = 10.0
LONGEST_PATIENCE_SECONDS: Final = 300.0
FORGOTTEN_AFTER_SECONDS: Final = 300.0


class LatenessWatch:
    """One session's, across its connections."""

    def __init__(self) -> None:
        self._is_late = False
        self._since = -inf
        self._seen_at = -inf  # when something came late last
        self._reconnect_at = inf
        self._patience = FIRST_PATIENCE_SECONDS
        self.is_told = False

    def opened(self, now: float) -> None:
        """A new connection: whether it is late is to be seen."""
        self._is_late, self._since, self._reconnect_at = False, now, inf

    def look(self, is_late: bool, now: float, *, is_evidence: bool = True) -> bool:
        """Take note of how the session is now; whether that changes what is due. Where it merely counts as late still,
        because nothing has come that shows otherwise, that is no evidence of it."""
        if is_late and is_evidence:
            self._seen_at = now
        if is_late == self._is_late:
            return is_late and not self.is_told and now >= self._since + TELL_SECONDS
        if is_late and not self.is_told and now - self._since > FORGOTTEN_AFTER_SECONDS:
            self._patience = FIRST_PATIENCE_SECONDS
        self._is_late, self._since = is_late, now
        self._reconnect_at = now + self._patience if is_late and self.is_told else inf
        return True

    @property
    def due(self) -> float:
        if self._is_late:
            if self.is_told:
                return self._reconnect_at
            return self._since + TELL_SECONDS if self._has_lasted else inf
        return self._since + CALM_SECONDS if self.is_told else inf

    @property
    def _has_lasted(self) -> bool:
        return self._seen_at >= self._since + TELL_SECONDS

    def must_tell(self, now: float) -> bool:
        """Whether it has been late for long enough to say so; it is then taken as said."""
        if self.is_told or not self._is_late or not self._has_lasted:
            return False
        self.is_told = True
        self._reconnect_at = now + self._patience
        return True

    def is_beyond_help(self, now: float) -> bool:
        """Whether a new connection is all that is left; it is then taken as made."""
        if not self.is_told or not self._is_late or now < self._reconnect_at:
            return False
        self._reconnect_at = inf
        # Each new connection costs a gap, and may not help at all: the line itself is narrow.
        self._patience = min(2 * self._patience, LONGEST_PATIENCE_SECONDS)
        return True

    def has_caught_up(self, now: float) -> bool:
        """Whether it has been in time for long enough to say so; it is then taken as said."""
        if not self.is_told or self._is_late or now < self._since + CALM_SECONDS:
            return False
        self.is_told = False
        return True
