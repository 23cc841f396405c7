"""Has a stream gone mute although the peer still answers pings? Decides whom to ask, and when. Pure.

Silence proves nothing: a quiet market has nothing to say. So silence only ever starts a question to REST, and
only its answer ("there were trades") makes a stall.
"""

from __future__ import annotations

from math import inf
from typing import Final

from ..models.topic import Topic

SENTINELS: Final = 5  # how many topics a question about the whole line names, the liveliest first
PROBE_PATIENCE_SECONDS: Final = 30.0  # an answer later than this is no longer waited for
SCORE_DECAY: Final = 0.9
RESEND_SECONDS: Final = 60.0  # one mute topic costs at most one repeated subscription per this time


class SilenceWatch:
    """Watches one session's topics; survives reconnects, because habits do."""

    def __init__(self, after: float) -> None:
        self._after = after
        self._data_at = inf
        self._next_probe = inf
        self._next_question = inf
        self._probe: frozenset[Topic] | None = None
        self._probe_at = inf
        self._probes_whole_line = False
        self._stalled = False
        self._activity: dict[Topic, float] = {}
        self._resent_at: dict[Topic, float] = {}
        self.mute: frozenset[Topic] = frozenset()  # single topics that are proven mute

    def start(self, now: float) -> None:
        """A subscription went out on a new connection: silence counts from here."""
        self._data_at = now
        self._next_probe = self._next_question = now + self._after
        self._probe = None
        self.mute = frozenset()

    def stop(self) -> None:
        self._data_at = self._next_probe = self._next_question = inf
        self._probe = None

    def heard(self, now: float) -> bool:
        """Data came; True if this ends a stall that had been proven."""
        self._data_at = now
        ends_stall, self._stalled = self._stalled, False
        return ends_stall

    @property
    def due(self) -> float:
        return min(self._next_question, self._probe_due)

    @property
    def _probe_due(self) -> float:
        return max(self._data_at + self._after, self._next_probe)

    def probe_whole_line(self, topics: frozenset[Topic], now: float) -> frozenset[Topic] | None:
        """The topics to ask REST about, if the whole line has been silent for long enough."""
        if now < self._probe_due or not topics:
            return None
        self._next_probe = now + self._after
        if self._is_probing(now):
            return None
        liveliest = sorted(topics, key=lambda topic: (-self._activity.get(topic, 0.0), topic))[:SENTINELS]
        return self._start_probe(frozenset(liveliest), now, whole_line=True)

    def question(self, now: float) -> float | None:
        """Since when to ask for silent topics, if it is time to ask."""
        if now < self._next_question:
            return None
        self._next_question = now + self._after
        return now - self._after

    def silent(self, silent: frozenset[Topic], topics: frozenset[Topic], now: float) -> frozenset[Topic] | None:
        """Learn from the answer who is lively; the one silent topic to ask REST about, if any."""
        for topic in topics:
            score = self._activity.get(topic, 0.0) * SCORE_DECAY
            self._activity[topic] = score if topic in silent else score + 1.0
        self._activity = {topic: score for topic, score in self._activity.items() if topic in topics}
        whole_line_is_silent = now >= self._probe_due
        candidates = [topic for topic in silent & topics if self._is_worth_a_probe(topic, now)]
        if not candidates or whole_line_is_silent or self._is_probing(now):
            return None
        liveliest = max(candidates, key=lambda topic: (self._activity[topic], topic))
        return self._start_probe(frozenset({liveliest}), now, whole_line=False)

    def awake(self, silent: frozenset[Topic]) -> frozenset[Topic]:
        """Mute topics that are no longer silent; they are forgiven."""
        awake = self.mute - silent
        self.mute -= awake
        return awake

    def answered(self, topics: frozenset[Topic], verdict: bool | None) -> bool:
        """Whether the answer proves the whole line stalled. A proven single topic shows up in `mute`."""
        if topics != self._probe:
            return False
        self._probe = None
        if self._probes_whole_line:
            self._stalled = verdict is True and self._data_at < self._probe_at
            return self._stalled
        if verdict is True:
            self.mute |= topics
        else:
            for topic in topics:
                self._activity[topic] = self._activity.get(topic, 0.0) / 2
        return False

    def may_resend(self, topics: frozenset[Topic], now: float) -> bool:
        """Whether asking Upbit anew for a mute topic is within reason."""
        if any(now < self._resent_at.get(topic, -inf) + RESEND_SECONDS for topic in topics):
            return False
        self._resent_at.update(dict.fromkeys(topics, now))
        return True

    def keep(self, topics: frozenset[Topic]) -> None:
        """Only `topics` are still wanted."""
        self.mute &= topics
        self._resent_at = {topic: at for topic, at in self._resent_at.items() if topic in topics}

    def _is_worth_a_probe(self, topic: Topic, now: float) -> bool:
        is_usually_lively = self._activity[topic] >= 1.0
        was_tried_lately = now < self._resent_at.get(topic, -inf) + RESEND_SECONDS
        return is_usually_lively and not was_tried_lately

    def _is_probing(self, now: float) -> bool:
        return self._probe is not None and now < self._probe_at + PROBE_PATIENCE_SECONDS

    def _start_probe(self, topics: frozenset[Topic], now: float, *, whole_line: bool) -> frozenset[Topic]:
        self._probe, self._probe_at, self._probes_whole_line = topics, now, whole_line
        return topics
