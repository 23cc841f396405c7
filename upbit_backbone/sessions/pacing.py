"""Pacing: how often we may speak; subscription messages within Upbit's limits, pongs within reason. Pure."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final

from ..exchange.rates import MESSAGES_PER_MINUTE, MESSAGES_PER_SECOND

MERGE_SECONDS: Final = 0.02  # changes of one burst travel together
# Two a second with room for bursts; the more of a minute's hundred are spent, the slower, so that the last of them is
# there when a line needs it.
SPACING_SECONDS: Final = 0.5
CROWDED_SPACING_SECONDS: Final = 0.8
CROWDED_PER_MINUTE: Final = 40
# Two messages may arrive closer together than they were sent, so our windows are longer and our counts lower than what
# Upbit allows a connection.
SHORT_WINDOW: Final = (MESSAGES_PER_SECOND - 1, 1.25)
LONG_WINDOW: Final = (MESSAGES_PER_MINUTE - 4, 62.0)
# What is stuck on its way arrives all at once. Until a pong shows that a message was read, it may arrive at any moment;
# so long after it was sent it counts as read at the latest.
UNREAD_SECONDS: Final = 10.0
ARRIVALS: Final = (MESSAGES_PER_SECOND - 1, 1.0)

PONG_SPACING_SECONDS: Final = 0.1


class MessagePacer:
    """When the next message of one connection may go out."""

    def __init__(self) -> None:
        self._sent: deque[float] = deque(maxlen=LONG_WINDOW[0])
        self._unread: deque[float] = deque()  # when they were sent
        self._read: deque[float] = deque(maxlen=ARRIVALS[0])  # by when they had been read, at the latest
        self._not_before = -inf
        self._wanted_since: float | None = None

    def want(self, now: float) -> None:
        """Something is to be said; the merge window starts with the first such call."""
        if self._wanted_since is None:
            self._wanted_since = now

    def hurry(self) -> None:
        """What is to be said needs no merging: it is a restored set, not one call of many."""
        if self._wanted_since is not None:
            self._wanted_since -= MERGE_SECONDS

    def forget(self) -> None:
        """Nothing is to be said any more."""
        self._wanted_since = None

    def hold_until(self, instant: float) -> None:
        """Upbit complained, or bans us: nothing before `instant`."""
        self._not_before = max(self._not_before, instant)

    def sent(self, now: float) -> None:
        while self._unread and self._unread[0] + UNREAD_SECONDS <= now:
            self._read.append(self._unread.popleft() + UNREAD_SECONDS)
        self._sent.append(now)
        self._unread.append(now)
        self._wanted_since = None

    def read(self, sent_by: float, now: float) -> None:
        """Upbit has read what was sent by then."""
        while self._unread and self._unread[0] <= sent_by:
            self._unread.popleft()
            self._read.append(now)

    @property
    def due(self) -> float:
        """When to speak; never (inf) if there is nothing to say."""
        if self._wanted_since is None:
            return inf
        return max(self._wanted_since + MERGE_SECONDS, self.allowed_at)

    @property
    def allowed_at(self) -> float:
        """When the next message would be within all limits."""
        if not self._sent:
            return self._not_before
        last = self._sent[-1]
        spacing = CROWDED_SPACING_SECONDS if self._is_crowded(last) else SPACING_SECONDS
        by_count = map(self._window_free_at, (SHORT_WINDOW, LONG_WINDOW))
        return max(self._not_before, last + spacing, self._arrivals_free_at, *by_count)

    @property
    def _arrivals_free_at(self) -> float:
        """When few enough messages may be arriving, should nothing more be heard of them."""
        count, seconds = ARRIVALS
        arrived = sorted([*self._read, *(sent_at + UNREAD_SECONDS for sent_at in self._unread)])
        return -inf if len(arrived) < count else arrived[-count] + seconds

    def _is_crowded(self, now: float) -> bool:
        if len(self._sent) < CROWDED_PER_MINUTE:
            return False
        return self._sent[-CROWDED_PER_MINUTE] > now - LONG_WINDOW[1]

    def _window_free_at(self, window: tuple[int, float]) -> float:
        count, seconds = window
        return -inf if len(self._sent) < count else self._sent[-count] + seconds


class PongPacer:
    """Answers the newest ping, at most ten times a second: RFC 6455 asks for no more, and a flood gets none."""

    def __init__(self) -> None:
        self._last = -inf
        self._owed: bytes | None = None

    def pinged(self, payload: bytes) -> None:
        self._owed = payload

    @property
    def due(self) -> float:
        return inf if self._owed is None else self._last + PONG_SPACING_SECONDS

    def take(self, now: float) -> bytes | None:
        """The pong to send now, if one is due."""
        if self._owed is None or now < self.due:
            return None
        payload, self._owed, self._last = self._owed, None, now
        return payload
