"""Has one topic gone mute while others flow? Pure.

From time to time somebody is asked which topics have been silent lately. Among those that are usually lively one
is put to REST; if there were trades, and the topic is still silent a moment later, it is mute: reported, no longer
taken for current, and subscribed anew at a gentle pace, which costs the other topics nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

from ..models.topic import Topic
from .silence import GRACE_SECONDS, PROBE_PATIENCE_SECONDS

SENTINELS: Final = 50  # how many topics a question about the whole line names; one REST request answers them all
SCORE_DECAY: Final = 0.9
LIVELY_SCORE: Final = 1.0
RESEND_SECONDS: Final = 60.0  # a mute topic costs at most one repeated subscription per this time


@dataclass(frozen=True, slots=True)
class Question:
    """Which of `topics` had no frame since `since`? `confirms`: REST has seen trades of them since."""

    topics: frozenset[Topic]
    since: float
    confirms: bool


class MuteTopics:
    """Habits and suspicions of single topics; habits survive reconnects."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._next_question = inf
        self._scores: dict[Topic, float] = {}
        self._probed: Topic | None = None
        self._probe_at = -inf
        self._confirm_at = inf
        self._resent_at: dict[Topic, float] = {}
        self.mute: frozenset[Topic] = frozenset()

    def start(self, now: float) -> None:
        """A new connection streams anew: nothing is suspected."""
        self._next_question = now + self._every
        self._probed = None
        self._confirm_at = inf
        self.mute = frozenset()

    def stop(self) -> None:
        self._next_question = self._confirm_at = inf

    def keep(self, topics: frozenset[Topic]) -> None:
        """Only `topics` are still wanted."""
        self.mute &= topics
        self._scores = {topic: score for topic, score in self._scores.items() if topic in topics}
        self._resent_at = {topic: at for topic, at in self._resent_at.items() if topic in topics}

    @property
    def due(self) -> float:
        return min(self._next_question, self._confirm_at)

    def question(self, topics: frozenset[Topic], now: float) -> Question | None:
        """What to ask now, if anything."""
        if now >= self._confirm_at:
            probed, self._probed, self._confirm_at = self._probed, None, inf
            return None if probed is None else Question(frozenset({probed}), self._probe_at, confirms=True)
        if now >= self._next_question:
            self._next_question = now + self._every
            return Question(topics, now - self._every, confirms=False)
        return None

    def found(self, question: Question, silent: frozenset[Topic]) -> frozenset[Topic]:
        """Take in the answer; the topics that are mute no longer."""
        if question.confirms:
            self.mute |= silent
            return frozenset()
        for topic in question.topics:
            score = self._scores.get(topic, 0.0) * SCORE_DECAY
            self._scores[topic] = score if topic in silent else score + 1.0
        awake = (self.mute & question.topics) - silent
        self.mute -= awake
        return awake

    def to_probe(self, silent: frozenset[Topic], now: float) -> frozenset[Topic]:
        """The liveliest of the silent topics to put to REST, if one is worth it."""
        is_probing = self._probed is not None and now < self._probe_at + PROBE_PATIENCE_SECONDS
        lively = [topic for topic in silent if self._is_worth_a_probe(topic, now)]
        if is_probing or not lively:
            return frozenset()
        self._probed = max(lively, key=lambda topic: (self._scores[topic], topic))
        self._probe_at = now
        return frozenset({self._probed})

    def _is_worth_a_probe(self, topic: Topic, now: float) -> bool:
        was_resent_lately = now < self._resent_at.get(topic, -inf) + RESEND_SECONDS
        return self._scores.get(topic, 0.0) >= LIVELY_SCORE and not was_resent_lately

    def answered(self, topics: frozenset[Topic], verdict: bool | None, now: float) -> None:
        if topics != {self._probed} or self._confirm_at < inf:
            return
        if verdict is True:
            self._confirm_at = now + GRACE_SECONDS
        else:
            # Merely quiet: others get their turn first.
            for topic in topics:
                self._scores[topic] = self._scores.get(topic, 0.0) / 2
            self._probed = None

    def may_resend(self, topics: frozenset[Topic], now: float) -> bool:
        """Whether subscribing anew for these mute topics is within reason; if so, it is taken as done."""
        if any(now < self._resent_at.get(topic, -inf) + RESEND_SECONDS for topic in topics):
            return False
        self._resent_at.update(dict.fromkeys(topics, now))
        return True

    def liveliest(self, topics: frozenset[Topic]) -> frozenset[Topic]:
        """The topics that are best asked about when the whole line is silent."""
        return frozenset(sorted(topics, key=lambda topic: (-self._scores.get(topic, 0.0), topic))[:SENTINELS])
