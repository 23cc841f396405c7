"""Topics that are streamed because they are asked often, without anybody having subscribed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from ..models.topic import Topic, Wish


class Promotions:
    """Turns frequent questions into subscriptions and unused ones back. `want` and `unwant` only edit a wish, so a
    promotion never delays the question that caused it."""

    def __init__(
        self,
        want: Callable[[Iterable[Wish]], None],
        unwant: Callable[[Iterable[Wish]], None],
        *,
        limit: int,
        demote_after: float,
    ) -> None:
        self._want = want
        self._unwant = unwant
        self._limit = limit
        self._demote_after = demote_after
        self._lock = threading.Lock()  # guards _since
        self._since: dict[Topic, float] = {}

    def has_room(self) -> bool:
        return len(self._since) < self._limit

    def __contains__(self, topic: Topic) -> bool:
        return topic in self._since

    def promote(self, topics: Iterable[Topic], now: float) -> None:
        """Stream `topics` from now on, as far as the limit allows; those already streamed stay."""
        with self._lock:
            room = self._limit - len(self._since)
            fresh = [topic for topic in dict.fromkeys(topics) if topic not in self._since][: max(0, room)]
            self._since.update((topic, now) for topic in fresh)
        if fresh:
            self._want([Wish(topic) for topic in fresh])

    def demote_unused(self, last_asked: Callable[[Topic], float | None], now: float) -> Sequence[Topic]:
        """Stop streaming what nobody asked for lately; returns what was dropped."""
        with self._lock:
            unused = [
                topic
                for topic, since in self._since.items()
                if now - max(since, last_asked(topic) or since) > self._demote_after
            ]
            for topic in unused:
                del self._since[topic]
        if unused:
            self._unwant([Wish(topic) for topic in unused])
        return unused

    def __len__(self) -> int:
        return len(self._since)

    def __repr__(self) -> str:
        return f"<Promotions {len(self._since)} of at most {self._limit}>"
