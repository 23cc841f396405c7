"""Stall detectors: a stream, or a single topic, that says nothing although the market trades, or says it late. Pure."""

from __future__ import annotations

from math import inf
from typing import Final

from msgspec import Struct

from ..models.request import Topic

# Has the whole line gone mute although the peer still answers pings? Pure.
#
# Silence proves nothing: a quiet market has nothing to say. So silence only ever starts a question to REST. If
# REST knows of newer trades, the stream gets a moment more, because those trades may just be on their way; only
# silence after that is a stall.
#
# While REST does not say (a ban, an outage), the stream itself is asked: its subscription is sent again, which Upbit
# answers with a snapshot of each topic. Whatever comes then shows a line that moves; nothing at all is a stall, too.

PROBE_PATIENCE_SECONDS: Final = 30.0  # an answer later than this is no longer waited for
GRACE_SECONDS: Final = 2.0  # what REST shows already, the stream brings within this time
# Between two lines given up for no other reason than that they did not answer: should Upbit ever leave out snapshots of
# what is subscribed already, a quiet market costs one connection a minute while REST is away, and not five.
UNANSWERED_SECONDS: Final = 60.0
SILENT: Final = "silent although there were trades"
UNANSWERED: Final = (
    "silent, and no snapshot came when it was subscribed again; REST cannot say whether there were trades"
)
UNUSUAL: Final = "silent, unlike before, and while Upbit blocks this IP nobody can be asked whether there were trades"
UNUSUAL_ALONE: Final = "silent, unlike before and unlike other topics, and REST cannot say whether there were trades"


class StreamStallDetector:
    """Silence on all topics of a session at once."""

    def __init__(self, after: float) -> None:
        self._after = after
        self._data_at = inf
        self._news_at = -inf
        self._next_probe = inf
        self._probe_at: float | None = None
        self._stalled_at = inf
        self._is_to_answer = False
        self._unanswered_at = inf
        self._given_up_at = -inf
        self._had_stalled = False

    def start(self, now: float) -> None:
        """A subscription went out on a new connection: silence counts from here."""
        self._data_at = now
        self._next_probe = now + self._after
        self._probe_at = None
        self._stalled_at = self._unanswered_at = inf
        self._is_to_answer = False

    def stop(self) -> None:
        self._data_at = self._next_probe = self._stalled_at = self._unanswered_at = inf
        self._probe_at = None
        self._is_to_answer = False

    def heard(self, news_at: float) -> bool:
        """Data came, the latest news in it at `news_at`; True if this ends a stall that was proven or suspected."""
        # An answer is an answer: the snapshot of a quiet market has nothing new in it.
        self._unanswered_at = inf
        # What is said again, or stamped anew without a trade, is no sign of life: a stuck server can repeat its last
        # frame for ever.
        if news_at <= self._news_at:
            return False
        self._data_at = self._news_at = news_at
        self._stalled_at = inf
        ended, self._had_stalled = self._had_stalled, False
        return ended

    @property
    def is_silent_at(self) -> float:
        """From when on the line counts as silent if nothing more comes."""
        return self._data_at + self._after

    @property
    def due(self) -> float:
        return min(max(self.is_silent_at, self._next_probe), self._stalled_at, self._unanswered_at)

    def must_probe(self, now: float, *, anything_wanted: bool) -> bool:
        """Whether to ask REST now; the question is then taken as asked. There is none where nothing is wanted."""
        if now < max(self.is_silent_at, self._next_probe):
            return False
        # Also where no question follows, or a quiet night would look every turn.
        self._next_probe = now + self._after / 2
        is_probing = self._probe_at is not None and now < self._probe_at + PROBE_PATIENCE_SECONDS
        if is_probing or not anything_wanted:
            return False
        self._probe_at = now
        return True

    def answered(self, verdict: bool | None, now: float) -> bool:
        """REST's answer: True starts the last moment of grace. Whether, for want of one, the stream is to be asked."""
        asked_at, self._probe_at = self._probe_at, None
        # Data that came after the question proves the line by itself: REST's answer is about what was.
        if asked_at is None or self._data_at >= asked_at:
            return False
        if verdict is True:
            # Further answers, which may come sooner than the grace ends, must not prolong it.
            self._stalled_at = min(self._stalled_at, now + GRACE_SECONDS)
        self._is_to_answer = verdict is None and now >= self._given_up_at + UNANSWERED_SECONDS
        return self._is_to_answer

    def subscribed_again(self, now: float) -> None:
        """The subscription went out once more; if that was a question to the stream, its time to answer begins."""
        # Counted from here and not from the request: a message may have to wait for its turn.
        if self._is_to_answer:
            self._is_to_answer = False
            self._unanswered_at = min(self._unanswered_at, now + GRACE_SECONDS)

    def suspect(self) -> None:
        """Nobody can be asked, and this silence is unusual: the next news ends a suspicion."""
        self._had_stalled = True

    def stall(self, now: float) -> str | None:
        """Why the line counts as stalled from now on; None while it does not."""
        if now >= self._stalled_at:
            why = SILENT
        elif now >= self._unanswered_at:
            why = UNANSWERED
            self._given_up_at = now
        else:
            return None
        self._stalled_at = self._unanswered_at = inf
        self._had_stalled = True
        return why


# Has one topic gone mute while others flow? Pure.
#
# From time to time somebody is asked which topics have been silent lately. If one of them is usually lively, or every
# third time anyhow, some are put to REST: the liveliest, and those whose turn it is, so that nobody is left out. Where
# there were trades, and the topic is still silent a moment later, it is mute: reported, no longer taken for current,
# and subscribed anew at a gentle pace, which costs the other topics nothing.
#
# While REST does not say, the stream is asked for its snapshots, as above, but not more often than that. A topic that
# was lively and still says nothing is doubted: it may be mute, and nobody can vouch for its value.

SENTINELS: Final = 50  # how many topics a question about the whole line names; one REST request answers them all
PATROL: Final = 100  # how many silent topics one question to REST names; quiet ones are asked about in turn
PATROL_EVERY: Final = 3  # in rounds; a lively one that falls silent is asked about at once
SCORE_DECAY: Final = 0.9  # a round; in seven of them half a habit is forgotten
LIVELY_SCORE: Final = 1.0  # something came in the last round, or in a few of the rounds before
ALWAYS_LIVELY_SCORE: Final = 5.0  # from seven rounds with something in each; in the long run, from every other one
RESEND_SECONDS: Final = 60.0  # a mute topic costs at most one repeated subscription per this time


class Question(Struct, frozen=True):
    """Which of `topics` had no frame since `since`? `confirms`: REST has seen trades of them since."""

    topics: frozenset[Topic]
    since: float
    confirms: bool


class TopicStallDetector:
    """Habits and suspicions of single topics; habits survive reconnects."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._next_question = inf
        self._scores: dict[Topic, float] = {}
        self._probed: frozenset[Topic] = frozenset()
        self._probe_at = -inf
        self._patrol_at = inf
        self._asked_at: dict[Topic, float] = {}
        self._confirm_at = inf
        self._resent_at: dict[Topic, float] = {}
        self._asked_stream_at = -inf
        self._is_guess = False  # what is to be confirmed is that they are silent; whether there were trades nobody says
        self.mute: frozenset[Topic] = frozenset()
        self.doubted: frozenset[Topic] = frozenset()  # those of them of which that is all that is known

    def start(self, now: float) -> None:
        """A new connection streams anew: nothing is suspected."""
        self._next_question = now + self._every
        self._patrol_at = now + PATROL_EVERY * self._every
        self._probed = frozenset()
        self._confirm_at = inf
        self.mute = self.doubted = frozenset()

    def stop(self) -> None:
        self._next_question = self._confirm_at = inf

    def keep(self, topics: frozenset[Topic]) -> None:
        """Only `topics` are still wanted."""
        self.mute &= topics
        self.doubted &= topics
        self._scores = {topic: score for topic, score in self._scores.items() if topic in topics}
        self._asked_at = {topic: at for topic, at in self._asked_at.items() if topic in topics}
        self._resent_at = {topic: at for topic, at in self._resent_at.items() if topic in topics}

    @property
    def proven(self) -> frozenset[Topic]:
        """The mute topics of which REST has seen trades."""
        return self.mute - self.doubted

    @property
    def due(self) -> float:
        return min(self._next_question, self._confirm_at)

    def question(self, topics: frozenset[Topic], now: float) -> Question | None:
        """What to ask now, if anything."""
        if now >= self._confirm_at:
            probed, self._probed, self._confirm_at = self._probed & topics, frozenset(), inf
            return Question(probed, self._probe_at, confirms=True) if probed else None
        if now >= self._next_question:
            self._next_question = now + self._every
            return Question(topics, now - self._every, confirms=False)
        return None

    def found(self, question: Question, silent: frozenset[Topic]) -> frozenset[Topic]:
        """Take in the answer; the topics that are mute no longer."""
        # No habits are learned from it: it is about suspects, all of them chosen for their silence.
        if question.confirms:
            self.doubted = self.doubted | (silent - self.mute) if self._is_guess else self.doubted - silent
            self.mute |= silent
            return frozenset()
        for topic in question.topics:
            score = self._score(topic) * SCORE_DECAY
            self._scores[topic] = score if topic in silent else score + 1.0
        awake = (self.mute & question.topics) - silent
        self.mute -= awake
        self.doubted -= awake
        return awake

    def to_probe(self, silent: frozenset[Topic], now: float) -> frozenset[Topic]:
        """The silent topics to put to REST, if that is worth it now."""
        is_probing = bool(self._probed) and now < self._probe_at + PROBE_PATIENCE_SECONDS
        # Those in doubt once more: REST may be back.
        candidates = [topic for topic in silent - self.proven if not self._was_resent_lately(topic, now)]
        liveliest = max(candidates, key=lambda topic: (self._score(topic), topic), default=None)
        is_lively = liveliest is not None and self._score(liveliest) >= LIVELY_SCORE
        if is_probing or liveliest is None or not (is_lively or now >= self._patrol_at):
            return frozenset()
        in_turn = sorted(candidates, key=lambda topic: (self._asked_at.get(topic, -inf), topic))
        self._patrol_at = now + PATROL_EVERY * self._every
        self._probed = frozenset([liveliest, *in_turn[: PATROL - 1]])
        self._probe_at = now
        self._asked_at.update(dict.fromkeys(self._probed, now))
        return self._probed

    def _score(self, topic: Topic) -> float:
        return self._scores.get(topic, 0.0)

    def _was_resent_lately(self, topic: Topic, now: float) -> bool:
        return now < self._resent_at.get(topic, -inf) + RESEND_SECONDS

    def answered(self, topics: frozenset[Topic], behind: frozenset[Topic] | None, now: float) -> frozenset[Topic]:
        """REST's answer about the topics put to it; those it knows more of get a last moment of grace, and so do those
        that were lively if it does not say. The topics that were doubted without reason."""
        # The answer to an earlier question, from before a reconnect or a change of topics.
        if topics != self._probed or self._confirm_at < inf:
            return frozenset()
        self._is_guess = behind is None
        lively = frozenset(topic for topic in topics if self._score(topic) >= ALWAYS_LIVELY_SCORE * SCORE_DECAY)
        self._probed = lively if behind is None else behind & topics
        if self._probed:
            self._confirm_at = now + GRACE_SECONDS
        if behind is None:
            for topic in topics:
                self._scores[topic] = self._score(topic) / SCORE_DECAY  # nothing was learned about its habits
            return frozenset()
        for topic in topics - self._probed:
            self._scores[topic] = self._score(topic) / 2  # merely quiet: others get their turn first
        cleared = self.doubted & topics - self._probed
        self.mute -= cleared
        self.doubted -= cleared
        return cleared

    def may_resend(self, topics: frozenset[Topic], now: float) -> bool:
        """Whether subscribing anew for these mute topics is within reason; if so, it is taken as done."""
        if any(self._was_resent_lately(topic, now) for topic in topics):
            return False
        self._resent_at.update(dict.fromkeys(topics, now))
        return True

    def is_unusual(self, topics: frozenset[Topic]) -> bool:
        """Whether silence of all `topics` is, because one of them was lively."""
        return any(self._score(topic) >= ALWAYS_LIVELY_SCORE for topic in topics)

    def may_ask_stream(self, now: float) -> bool:
        """Whether subscribing anew is within reason because REST does not say; if so, it is taken as done."""
        # Apart from `may_resend`: a topic whose state nobody knows is put to REST as soon as REST is back.
        if now < self._asked_stream_at + RESEND_SECONDS:
            return False
        self._asked_stream_at = now
        return True

    def liveliest(self, topics: frozenset[Topic]) -> frozenset[Topic]:
        """The topics that are best asked about when the whole line is silent."""
        return frozenset(sorted(topics, key=lambda topic: (-self._score(topic), topic))[:SENTINELS])


# Lateness: what to do about a session that brings everything, but too late. Pure.
#
# A line that is too slow for what is subscribed, or a machine too busy to read it, falls ever further behind while
# every frame on it looks like life. First it is told, and its load is shed. Where that does not help, only a new
# connection does: it leaves behind what has piled up on the way. Each one costs a gap, so they come ever less often.

TELL_SECONDS: Final = 3.0  # a hiccup ends by itself
CALM_SECONDS: Final = 2.0
# How long shedding, and then each reconnection, may take to help. A backlog of that many seconds is drained by then, or
# grows on.
FIRST_PATIENCE_SECONDS: Final = 10.0
LONGEST_PATIENCE_SECONDS: Final = 300.0  # a line that is narrow for good costs a gap no oftener than this
FORGOTTEN_AFTER_SECONDS: Final = 300.0  # in time for so long: what comes now is another trouble, and starts over
# Where it is our own reading that lags (50,000 trades in a moment, a busy machine), a new connection is no faster, and
# throws away what lies here already: 10,693 trades, once. But whoever never keeps up must not fall behind for ever.
LONGEST_BACKLOG_SECONDS: Final = 60.0


class LatenessWatch:
    """One session's, across its connections."""

    def __init__(self) -> None:
        self.is_late = False  # as it was looked at last
        self._since = -inf
        self._seen_at = -inf  # when something came late last
        self._reconnect_at = inf
        self._patience = FIRST_PATIENCE_SECONDS
        self.is_told = False

    def opened(self, now: float) -> None:
        """A new connection: whether it is late is to be seen."""
        self.is_late, self._since, self._reconnect_at = False, now, inf

    def look(self, is_late: bool, now: float, *, is_evidence: bool = True) -> bool:
        """Take note of how the session is now; whether that changes what is due. Where it merely counts as late still,
        because nothing has come that shows otherwise, that is no evidence of it."""
        if is_late and is_evidence:
            self._seen_at = now
        if is_late == self.is_late:
            return is_late and not self.is_told and now >= self._since + TELL_SECONDS
        if is_late and not self.is_told and now - self._since > FORGOTTEN_AFTER_SECONDS:
            self._patience = FIRST_PATIENCE_SECONDS
        self.is_late, self._since = is_late, now
        self._reconnect_at = now + self._patience if is_late and self.is_told else inf
        return True

    @property
    def due(self) -> float:
        if self.is_late:
            if self.is_told:
                return self._reconnect_at
            return self._since + TELL_SECONDS if self._has_lasted else inf
        return self._since + CALM_SECONDS if self.is_told else inf

    @property
    def _has_lasted(self) -> bool:
        return self._seen_at >= self._since + TELL_SECONDS

    def must_tell(self, now: float) -> bool:
        """Whether it has been late for long enough to say so; it is then taken as said."""
        if self.is_told or not self.is_late or not self._has_lasted:
            return False
        self.is_told = True
        self._reconnect_at = now + self._patience
        return True

    def is_beyond_help(self, now: float, *, has_backlog: bool = False) -> bool:
        """Whether a new connection is all that is left; it is then taken as made. It is not, for a while, where more
        lies ready than is read at a time."""
        if not self.is_told or not self.is_late or now < self._reconnect_at:
            return False
        if has_backlog and now < self._since + LONGEST_BACKLOG_SECONDS:
            self._reconnect_at = now + CALM_SECONDS
            return False
        self._reconnect_at = inf
        # Each new connection costs a gap, and may not help at all: the line itself is narrow.
        self._patience = min(2 * self._patience, LONGEST_PATIENCE_SECONDS)
        return True

    def has_caught_up(self, now: float) -> bool:
        """Whether it has been in time for long enough to say so; it is then taken as said."""
        if not self.is_told or self.is_late or now < self._since + CALM_SECONDS:
            return False
        self.is_told = False
        return True
