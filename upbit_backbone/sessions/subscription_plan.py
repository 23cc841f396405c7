"""Subscription plan: what is requested and by whom, what Upbit was told, and what it will not have. Pure.

Upbit answers a message it dislikes with an error object that names no code, and closes. Topics that were sent
without such an answer are trusted; the others of the offending message are suspects. They are halved until
the offender stands alone, and it is left out from then on, so that one bad topic can neither take the others
down nor keep the session in a circle. Which message is meant follows from the order on the wire and from no
clock of ours: on a late line a complaint comes when others have long been sent.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterable
from math import inf
from typing import Final, NamedTuple

from ..exchange.endpoints import MAX_LEVELS
from ..models.request import SubscriptionRequest, Topic

# Subscription registry: reference counts per topic, and the depth that satisfies everybody. No lock, no clock.


class Change(NamedTuple):
    """What a call changed in the union of all requests."""

    added: frozenset[Topic]
    removed: frozenset[Topic]
    deepened: frozenset[Topic]  # or made shallower: the depth to ask for is another


class Registry:
    """Requests by their owner. Which topics are wanted, how often and how deep, is derived from them.

    What is derived is kept only while it is whole: an exception in the middle of a change (Ctrl-C on the thread that
    subscribes) leaves none, and it is counted anew.
    """

    def __init__(self) -> None:
        self._requests: dict[Hashable, tuple[SubscriptionRequest, ...]] = {}
        self._depths: dict[Topic, Counter[int]] | None = {}

    def acquire(self, owner: Hashable, requests: Iterable[SubscriptionRequest]) -> Change:
        """From now on `owner` wants these, each as often as it is named, and nothing else."""
        return self._change(owner, tuple(requests))

    def release(self, owner: Hashable) -> Change:
        """`owner` wants nothing any more."""
        return self._change(owner, ())

    def of(self, owner: Hashable) -> tuple[SubscriptionRequest, ...]:
        """What `owner` wants."""
        return self._requests.get(owner, ())

    def _change(self, owner: Hashable, requests: tuple[SubscriptionRequest, ...]) -> Change:
        depths, before = self._counted(), self._requests.get(owner, ())
        topics = {request.topic for request in (*before, *requests)}
        deepest = {topic: _deepest(depths, topic) for topic in topics}
        # While the change runs nothing derived is believed: see the class.
        self._depths = None
        if requests:
            self._requests[owner] = requests
        else:
            self._requests.pop(owner, None)
        for request in before:
            depths[request.topic][_depth(request)] -= 1
        for request in requests:
            depths.setdefault(request.topic, Counter())[_depth(request)] += 1
        for topic in topics:
            depths[topic] = +depths[topic]  # drops what counts zero
            if not depths[topic]:
                del depths[topic]
        self._depths = depths
        return _change(deepest, {topic: _deepest(depths, topic) for topic in topics})

    def _counted(self) -> dict[Topic, Counter[int]]:
        if self._depths is None:
            depths: dict[Topic, Counter[int]] = {}
            for requests in self._requests.values():
                for request in requests:
                    depths.setdefault(request.topic, Counter())[_depth(request)] += 1
            self._depths = depths
        return self._depths

    def request(self, topic: Topic) -> SubscriptionRequest:
        """The one request that satisfies everybody who wants `topic`, which must be wanted."""
        deepest = max(self._counted()[topic])
        return SubscriptionRequest(topic, None if deepest >= MAX_LEVELS else deepest)

    def added_by(self, requests: Iterable[SubscriptionRequest]) -> int:
        """How many topics nobody wants yet."""
        return len({each.topic for each in requests if each.topic not in self})

    def count(self, topic: Topic) -> int:
        return self._counted().get(topic, Counter()).total()

    def topics(self) -> frozenset[Topic]:
        return frozenset(self._counted())

    def __contains__(self, topic: Topic) -> bool:
        return topic in self._counted()

    def __len__(self) -> int:
        return len(self._counted())

    def __repr__(self) -> str:
        requests = sum(map(len, self._requests.values()))
        return f"<Registry {len(self)} topics for {requests} requests>"


def _deepest(depths: dict[Topic, Counter[int]], topic: Topic) -> int | None:
    return max(depths[topic]) if topic in depths else None


def _change(before: dict[Topic, int | None], after: dict[Topic, int | None]) -> Change:
    return Change(
        added=frozenset(topic for topic in before if before[topic] is None and after[topic] is not None),
        removed=frozenset(topic for topic in before if after[topic] is None and before[topic] is not None),
        deepened=frozenset(
            topic for topic in before if before[topic] is not None and after[topic] not in (None, before[topic])
        ),
    )


def _depth(request: SubscriptionRequest) -> int:
    return MAX_LEVELS if request.depth is None else min(request.depth, MAX_LEVELS)


# Which topics still owe us their first frame: Upbit ignores unknown codes without a word. Pure.


class FirstFrames:
    """Topics reported once when late, and remembered until their first frame comes after all."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._awaited: dict[Topic, float] = {}  # deadlines never fall in order of insertion
        self.missing: set[Topic] = set()

    def expect(self, topics: Iterable[Topic], now: float) -> None:
        """A message that adds `topics` went out."""
        for topic in topics:
            # Taken out first, so that it moves to the end: the order of insertion is the order of deadlines.
            self._awaited.pop(topic, None)
            self._awaited[topic] = now + self._seconds

    def arrived(self, topic: Topic) -> bool:
        """Note the frame; True if the topic had been reported as missing."""
        self._awaited.pop(topic, None)
        was_missing = topic in self.missing
        self.missing.discard(topic)
        return was_missing

    def late(self, now: float) -> frozenset[Topic]:
        """Topics whose deadline has passed and which were not reported before."""
        late = set()
        for topic, deadline in self._awaited.items():
            if deadline > now:
                break
            late.add(topic)
        for topic in late:
            del self._awaited[topic]
        news = frozenset(late - self.missing)
        self.missing |= late
        return news

    def line_lost(self) -> None:
        self._awaited.clear()

    def keep(self, topics: frozenset[Topic]) -> None:
        """Only `topics` are still wanted."""
        self._awaited = {topic: at for topic, at in self._awaited.items() if topic in topics}
        self.missing &= topics

    @property
    def due(self) -> float:
        return next(iter(self._awaited.values()), inf)


# Upbit's complaints come within 0.2 s of the message; so long after it, by Upbit's own order of reading, none will.
TRIAL_SECONDS: Final = 2.0


class SubscriptionPlan:
    """The requested set of one session and its way to the server."""

    def __init__(self) -> None:
        self._requests: dict[Topic, SubscriptionRequest] = {}
        self._trusted: set[Topic] = set()
        self._held: list[frozenset[Topic]] = []  # suspects that wait for their turn
        self._refused: set[Topic] = set()
        # Messages that may still be complained about, oldest first: when each was sent, and who in it is not trusted.
        self._on_trial: deque[tuple[float, frozenset[Topic]]] = deque()
        self._has_complained = False  # Upbit, on this connection
        self._must_repeat = False
        self.target: frozenset[SubscriptionRequest] = frozenset()  # what the next message has to say
        self.sent: frozenset[SubscriptionRequest] | None = None  # by this connection's latest message
        self.wanted: frozenset[Topic] = frozenset()
        self.streamed: frozenset[Topic] = frozenset()  # by Upbit, on this connection, as far as we told it

    def request(self, requests: frozenset[SubscriptionRequest]) -> None:
        """This is the whole set wanted from now on. A refused topic gets a new chance once it was let go."""
        self._requests = {request.topic: request for request in requests}
        self.wanted = wanted = frozenset(self._requests)
        self._trusted &= wanted
        self._refused &= wanted
        # Suspects nobody wants any more need no trial, and an empty group would cost one.
        self._held = [group & wanted for group in self._held if group & wanted]
        self._aim()

    def line_opened(self) -> None:
        self.sent = None
        self.streamed = frozenset()
        self._on_trial.clear()
        self._has_complained = False
        self._must_repeat = False

    def repeat(self) -> None:
        """Say it again, though nothing changed."""
        self._must_repeat = True

    @property
    def is_due(self) -> bool:
        """Whether something is to be said: never an empty set, which Upbit has no words for."""
        return bool(self.target) and (self._must_repeat or self.target != self.sent)

    def say(self, now: float) -> frozenset[Topic]:
        """The target is being sent; the topics among it that are new on this connection."""
        before = self.streamed
        self.sent = self.target
        self.streamed = frozenset(request.topic for request in self.sent)
        self._must_repeat = False
        self._on_trial.append((now, self.streamed - self._trusted))
        return self.streamed - before

    @property
    def held_back(self) -> frozenset[Topic]:
        """Wanted topics that are not asked for: refused, or suspects that wait for their turn."""
        return self.wanted - {request.topic for request in self.target}

    @property
    def is_on_trial(self) -> bool:
        """Whether some message may still be complained about."""
        return bool(self._on_trial)

    def passed(self, sent_before: float) -> bool:
        """All that was sent before that has been read, and every answer to it is here. True if that ends all trials:
        the next suspects may then have their turn.

        Our own clock proves nothing, because a frozen peer does not complain either, and a late line brings what was
        said before the message. But the server answers in order.
        """
        was_on_trial = self.is_on_trial
        while self._on_trial and self._on_trial[0][0] + TRIAL_SECONDS <= sent_before:
            self._trusted |= self._on_trial.popleft()[1] & self.wanted
        if self._on_trial or not was_on_trial:
            return False
        # One group at a time: together they would only repeat the message that was refused.
        if self._held:
            self._held.pop()
            self._aim()
        return True

    def complaint(self, sent_before: float, *, is_about_topics: bool) -> frozenset[Topic]:
        """Upbit refused a message, one sent before that; the topics that are given up for it, none while suspects
        remain."""
        self._must_repeat = True
        is_first, self._has_complained = not self._has_complained, True
        suspects: set[Topic] = set()
        while self._on_trial and self._on_trial[0][0] < sent_before:
            suspects |= self._on_trial.popleft()[1]
        wanted = sorted(suspects & self.wanted)
        guilty: frozenset[Topic] = frozenset()
        if suspects & self._refused or not (suspects or is_first):
            pass  # sent before we knew better: about a topic that has been found guilty, or a message that was judged
        elif not suspects:  # no topic is new, so none can be singled out
            if is_about_topics:  # one of those it used to accept: all stand trial again, and all had a fair one
                self._trusted.clear()
                self._refused.clear()
        elif len(suspects) == 1:
            guilty = frozenset(wanted)
            self._refused |= guilty
        else:
            # Half of them wait. A last one left is tried alone first: the offender may be among those let go.
            held = frozenset(wanted[(len(wanted) + 1) // 2 :])
            self._held.extend([held] if held else [])
        self._aim()
        return guilty

    def _aim(self) -> None:
        self.target = self._allowed()
        while not self.target and self._held:
            self._held.pop()
            self.target = self._allowed()

    def _allowed(self) -> frozenset[SubscriptionRequest]:
        left_out = self._refused.union(*self._held)
        if not left_out:
            return frozenset(self._requests.values())
        return frozenset(request for topic, request in self._requests.items() if topic not in left_out)
