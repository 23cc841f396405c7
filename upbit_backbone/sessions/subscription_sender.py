"""Subscription sender: the full set on one connection, at the right time, and what Upbit says to it. Pure."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final

from ..errors import BannedError, RateLimitError, one_line
from ..exchange.endpoints import MESSAGES_PER_MINUTE, MESSAGES_PER_SECOND
from ..exchange.status import (
    DEFAULT_BAN_SECONDS,
    DEFAULT_LIMITED_SECONDS,
    RefusedRequestError,
    error_for_word,
)
from ..exchange.stream import list_message, listed_topics, subscription_message
from ..models.session import StreamError, SubscriptionList
from .keep_alive import KeepAlive
from .messages import SendPing, SendText, TellSubscribed
from .session_state import SessionState
from .subscription_plan import TRIAL_SECONDS

# How often we may speak: subscription messages within Upbit's limits, pongs within reason.

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


# What is said.

MESSAGE_GROUP: Final = "websocket-message"
# Counted anew from each message: an audit costs one of a minute's hundred, so a burst of changes gets one for all.
AUDIT_AFTER_SECONDS: Final = 1.0


class SubscriptionSender:
    """Makes the request true on one connection."""

    def __init__(self, shared: SessionState, keep_alive: KeepAlive, now: float) -> None:
        self._shared = shared
        self._keep_alive = keep_alive
        self._pacer = MessagePacer()
        # During a ban nothing is sent, on a line that came back no more than on any other.
        self._pacer.hold_until(shared.reconnect_policy.banned_until)
        self._idle_at = inf
        self._audit_at = inf
        self._audits = False
        self._trial_ends = inf
        self.begin(now)

    def begin(self, now: float) -> None:
        self._shared.plan.line_opened()
        self.reconsider(now)
        # The first message of a connection waits for no burst to merge: what was wanted meanwhile is in it already, and
        # the gap grows with every moment.
        self._pacer.hurry()
        self.speak(now)

    @property
    def due(self) -> float:
        return min(self._pacer.due, self._shared.first_frames.due, self._idle_at, self._audit_at, self._trial_ends)

    def is_idle(self, now: float) -> bool:
        return now >= self._idle_at

    def reconsider(self, now: float) -> None:
        """After any change: speak soon, or be silent because nothing is left to say, or get ready to rest."""
        plan = self._shared.plan
        if plan.is_due:
            self._pacer.want(now)
        else:
            self._pacer.forget()
        # Upbit has no words for an empty subscription: a connection that nobody wants anything of keeps streaming until
        # it is closed.
        if plan.target:
            self._idle_at = inf
        elif self._idle_at == inf:
            self._idle_at = now + self._shared.config.idle_connection_seconds

    def ping(self, payload: bytes, now: float) -> None:
        """Send this ping, and note that from now on what arrives may be of before it."""
        health = self._shared.health
        self._shared.effects.append(SendPing(payload))
        if health.proven_at is not None and (unread := self._keep_alive.give_up(health.proven_at)) is not None:
            self.passed(unread, now)
        health.unanswered_since = self._keep_alive.unanswered_since

    def passed(self, sent_before: float, now: float) -> None:
        """All that was sent before that has been read, and what there was to say to it is here."""
        self._pacer.read(sent_before, now)
        if self._shared.plan.passed(sent_before):
            self.reconsider(now)

    def repeat(self, now: float) -> None:
        self._shared.plan.repeat()
        self.reconsider(now)

    def hold_until(self, instant: float) -> None:
        self._pacer.hold_until(instant)

    def tick(self, now: float) -> None:
        self.reconsider(now)
        self.speak(now)
        self._end_trial(now)
        self._report_late_topics(now)
        self._audit(now)

    def speak(self, now: float) -> None:
        if now < self._pacer.due:
            return
        shared, plan = self._shared, self._shared.plan
        # Before `say`, which sets it.
        is_first = plan.sent is None
        if not is_first:
            # Upbit's answers do not say what they answer. What comes before this ping's pong is of an earlier message,
            # however late the line is: a snapshot of it must not pass for one of ours, nor a complaint.
            self.ping(self._keep_alive.ping_at_once(now), now)
        added = plan.say(now)
        self._trial_ends = now + TRIAL_SECONDS
        # Before the message: when it was asked is noted by who is told, and what is noted after it has been sent is too
        # late where the thread waits for a core in between: the round trip would be too short, and a frame asked for
        # before a call would pass for one asked for after it.
        shared.effects.append(TellSubscribed(shared.health.epoch, plan.streamed))
        self._send(subscription_message(self._ticket(), plan.target, shared.config.websocket_format), now)
        shared.first_frames.expect(added, now)
        # Only the first message of a connection: later ones change what is streamed, and silence that has begun goes on
        # counting.
        if is_first:
            shared.stream_stalls.start(now)
            shared.topic_stalls.start(now)
        else:
            shared.stream_stalls.subscribed_again(now)
        if shared.config.audit_subscriptions:
            self._audit_at = now + AUDIT_AFTER_SECONDS

    def complained(self, error: StreamError, now: float) -> None:
        """Upbit answered the latest message with an error; it closes the connection a moment later."""
        meaning = error_for_word(error.name, error.message)
        reason = one_line(meaning)
        if isinstance(meaning, BannedError):
            self._limited(DEFAULT_BAN_SECONDS, reason, now, banned=True)
        elif isinstance(meaning, RateLimitError):
            self._limited(DEFAULT_LIMITED_SECONDS, reason, now, banned=False)
        else:
            shared = self._shared
            shared.status.last_error = reason
            guilty = shared.plan.complaint(
                shared.health.unanswered_since, is_about_topics=isinstance(meaning, RefusedRequestError)
            )
            # Upbit closes a moment after it has complained: what was awaited will not come on this line, and is no news
            # about the topics.
            shared.first_frames.line_lost()
            if guilty:
                shared.emit(shared.status.topics(guilty, f"refused by Upbit: {reason}"))
        self.reconsider(now)

    def _limited(self, seconds: float, reason: str, now: float, *, banned: bool) -> None:
        shared = self._shared
        self._pacer.hold_until(now + seconds)
        # It was not taken, so it has to be said again.
        shared.plan.repeat()
        shared.emit(shared.status.limited(MESSAGE_GROUP, seconds, reason, banned=banned))
        if banned:
            shared.reconnect_policy.ban(now + seconds)

    def _end_trial(self, now: float) -> None:
        """Its pong will show that all complaints are here: on a quiet line nothing else would for a while."""
        if now < self._trial_ends:
            return
        self._trial_ends = inf
        if self._shared.plan.is_on_trial:
            self.ping(self._keep_alive.ping_at_once(now), now)

    def _report_late_topics(self, now: float) -> None:
        late = self._shared.first_frames.late(now)
        if late:
            seconds = self._shared.config.first_frame_seconds
            reason = f"no first frame within {seconds:g} s; it is requested on, but Upbit may not know it"
            self._shared.emit(self._shared.status.topics(late, reason))

    def _audit(self, now: float) -> None:
        if now < self._audit_at:
            return
        is_settled = not self._shared.plan.is_due
        if is_settled and now >= self._pacer.allowed_at:
            self._audit_at = inf
            self._audits = True
            self._send(list_message(self._ticket(), self._shared.config.websocket_format), now)
        else:
            self._audit_at = max(self._pacer.allowed_at, now + AUDIT_AFTER_SECONDS)

    def audited(self, listed: SubscriptionList, now: float) -> None:
        """Compare what Upbit says it streams with what we told it; a difference is reported and repaired."""
        plan = self._shared.plan
        # A list asked for before the latest change differs from it for good reason.
        is_outdated = not self._audits or plan.is_due
        self._audits = False
        if is_outdated:
            return
        difference = listed_topics(listed) ^ plan.streamed
        if difference:
            reason = "Upbit's list of subscriptions differs from ours; subscribing again"
            self._shared.emit(self._shared.status.topics(difference, reason))
            self.repeat(now)

    def _send(self, text: str, now: float) -> None:
        self._pacer.sent(now)
        self._shared.status.messages_sent += 1
        self._shared.effects.append(SendText(text))

    def _ticket(self) -> str:
        return f"{self._shared.health.epoch}-{int(self._shared.random() * 2**48):012x}"
