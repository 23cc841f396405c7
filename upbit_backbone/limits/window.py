"""Sliding window: how many requests a rate group may send now, decided purely: no lock, no clock, no thread.

Upbit counts requests when they *arrive*, we only know when they left and when their answers came. A slot therefore
stays taken until its request has certainly been in Upbit's count for a second: so neither bursts nor slow connections,
jitter, nor a server that wakes up from a pause ever find an eleventh request in one second.
"""

from __future__ import annotations

from collections import deque
from typing import Final

SECOND: Final = 1.0
CLOCK_MARGIN_SECONDS: Final = 0.02  # two clocks, rounding, the server's own scheduling
HELD_SECONDS: Final = 30.0  # a slot that nobody settles (a dead thread) comes back after this
# A request that was given up on may still be delivered: what was written lies in the buffers of the way and of a server
# that stands still, also when our end was closed long ago. An answer to a later one shows that it stands no more, and
# that it works off what had piled up; without one, nothing is kept for longer than servers do.
UNDELIVERED_SECONDS: Final = 20.0
WOKEN_SECONDS: Final = 1.0  # a server that answers again has come to what lay before within this
# What leaves now has a way to go as well, and no answer is quicker than the way there and back, wherever the longer
# part of it lies: so the quickest of enough of them may be taken off. Only two thirds of it, because the way may become
# shorter than any before (by two thirds at once) just when a full second of requests is under way.
SAMPLES: Final = 64
ENOUGH_SAMPLES: Final = 16  # of fewer, even the quickest may have waited somewhere
# With half of it, a user 100 ms away lost one turn in fourteen.
KNOWN_PART_OF_ROUND_TRIP: Final = 2 / 3

# After a 429 the group is stopped, each time twice as long, and allowed half as much; both heal step by step.
FIRST_PENALTY_SECONDS: Final = 1.0
LONGEST_PENALTY_SECONDS: Final = 30.0
HEALING_SECONDS: Final = 5.0  # without an offence, for one request a second more; doubled by each further offence


class Slot:
    """The right to send one request. `free_at` is when it stops counting; `sent_at` is None until it left."""

    __slots__ = ("answered_at", "free_at", "held_since", "is_given_up", "is_settled", "sent_at")

    def __init__(self, now: float) -> None:
        self.held_since = now
        self.sent_at: float | None = None
        self.answered_at: float | None = None
        self.is_settled = False
        self.is_given_up = False
        self.free_at = now + HELD_SECONDS


class Window:
    """One rate group: at most `per_second` requests arrive in any second.

    Every method is told the monotonic time, which never runs backwards.
    """

    def __init__(self, per_second: float) -> None:
        self._slots: list[Slot] = []
        self._first_end = float("inf")  # no slot ends before
        self._has_given_up = False  # on a request that may arrive yet
        self._round_trip_times: deque[float] = deque(maxlen=SAMPLES)
        self._known = 0.0
        self._ceiling = 0
        self._paused_until = 0.0
        self._offences = 0
        self._offended_at = float("-inf")
        self._healed_at = float("-inf")
        self.penalties = 0
        self.set_rate(per_second)

    def set_rate(self, per_second: float) -> None:
        self.per_second = per_second
        self.limit = max(1, int(per_second))
        self.span = max(SECOND, self.limit / per_second) + CLOCK_MARGIN_SECONDS
        self._ceiling = self.limit

    def available(self, now: float) -> int:
        """Requests that may leave at once."""
        self._heal(now)
        self._forget(now)
        if now < self._paused_until:
            return 0
        return max(0, self._ceiling - len(self._slots))

    def take(self, now: float) -> Slot:
        """A slot; the caller has looked at `available`."""
        slot = Slot(now)
        self.enter(slot)
        return slot

    def enter(self, slot: Slot) -> None:
        """As `take`, of a slot that somebody holds already, who can give it back whatever happens in here."""
        self._slots.append(slot)
        # So that `available`, asked by every request, looks through the slots only when one of them can have ended.
        self._first_end = min(self._first_end, slot.free_at)

    def sent(self, slot: Slot, now: float) -> None:
        """The request left; it counts until its answer, and a second more."""
        slot.sent_at = now

    def arrived(self, slot: Slot, by: float) -> None:
        """The request was in Upbit's count at `by` at the latest."""
        if slot.sent_at is not None:
            slot.is_settled = True
            slot.free_at = by + self.span
            self._first_end = min(self._first_end, slot.free_at)

    def answered(self, slot: Slot, now: float) -> None:
        """An answer began to come, so the request had arrived before. What it teaches about the way holds for all."""
        # Only the first word of an answer counts: how long a large body takes says nothing about the way.
        if slot.sent_at is None or slot.answered_at is not None:
            return
        slot.answered_at = now
        self._round_trip_times.append(now - slot.sent_at)
        known = self._known_way()
        is_news, self._known = known != self._known, known
        # Those answered before the way was known kept their places longer than they need to.
        for each in self._slots if is_news else (slot,):
            if each.sent_at is not None and each.answered_at is not None:
                self.arrived(each, max(each.sent_at, each.answered_at - known))
        for each in self._slots if self._has_given_up else ():
            # Answered later than it was sent, so the server works again and comes to those before it: a dozen impatient
            # threads at a server that stood still for eight seconds were 82 requests in the second it woke.
            if each.is_given_up and each.sent_at is not None and each.sent_at <= slot.sent_at:
                each.is_given_up = False
                self.arrived(each, now + WOKEN_SECONDS)
        self._has_given_up = self._has_given_up and any(each.is_given_up for each in self._slots)

    def proves_silence(self, slot: Slot, waited: float) -> bool:
        """Whether `waited` seconds without a word of an answer say something about the server: more than twice what its
        quickest answers take."""
        quickest = min(self._round_trip_times, default=0.0)
        return slot.answered_at is None and waited > 2 * quickest

    def _known_way(self) -> float:
        """Seconds that the ways of any two requests have in common."""
        return (
            min(self._round_trip_times) * KNOWN_PART_OF_ROUND_TRIP
            if len(self._round_trip_times) >= ENOUGH_SAMPLES
            else 0.0
        )

    def finished(self, slot: Slot, now: float, *, is_given_up: bool = False) -> None:
        """The request is over, one way or the other: without an answer it may have arrived just now, or, given up on,
        may do so yet; not sent, it is as if the slot had never been taken."""
        if slot.sent_at is None:
            if slot in self._slots:
                self._slots.remove(slot)
        elif not slot.is_settled:
            slot.is_given_up = is_given_up
            self._has_given_up = self._has_given_up or is_given_up
            self.arrived(slot, now + UNDELIVERED_SECONDS if is_given_up else now)

    def learn(self, remaining: int, sent_at: float, now: float, counted: int = 0) -> None:
        """Upbit says `remaining` calls were left when a request sent at `sent_at` came in.

        Where that is less than our own count leaves (or the `counted` of several processes), someone else spends the
        same budget; his requests are counted as if they were ours.
        """
        self._forget(now)
        # Upbit's count is of one second of its own; what it said half a second ago may be about the one before.
        is_old_news = now - sent_at > SECOND / 2
        foreign_requests = self.limit - max(len(self._slots), counted) - remaining
        if is_old_news or foreign_requests <= 0:
            return
        # By the header a stranger may have spent at most the whole budget: a count that makes no sense must not stop
        # the group.
        for _ in range(min(foreign_requests, self.limit)):
            stranger = self.take(now)
            stranger.sent_at = sent_at
            self.arrived(stranger, now)

    def penalise(self, seconds: float | None, sent_at: float, now: float) -> float | None:
        """A 429 for a request sent at `sent_at`: until when the group stops.

        None when it was already stopped for its sake: ten refusals of one burst are one offence.
        """
        self.penalties += 1
        # It left before we knew of the last refusal, so it is no disobedience; equal, because both may be within one
        # tick of the clock, 15.6 ms on Windows before Python 3.13.
        if sent_at <= self._offended_at:
            return None
        self._offences += 1
        self._offended_at = now
        penalty = min(FIRST_PENALTY_SECONDS * 2 ** (self._offences - 1), LONGEST_PENALTY_SECONDS)
        # Slower even after the pause: pausing alone runs into the same limit a second later, if somebody else spends
        # the budget.
        self._ceiling = max(1, self._ceiling // 2)
        self._paused_until = max(self._paused_until, now + max(penalty, seconds or 0.0))
        return self._paused_until

    def pause(self, until: float) -> None:
        """Send nothing before `until`, without any blame."""
        self._paused_until = max(self._paused_until, until)

    def paused_for(self, now: float) -> float:
        return max(0.0, self._paused_until - now)

    def earliest(self, now: float, ahead: int = 0) -> float:
        """The earliest time at which, after `ahead` others, one more request can leave: never too late a guess."""
        free = self.available(now)
        start = max(now, self._paused_until)
        if start == now and ahead < free:
            return now
        # A request under way may be answered any moment, and one that was not sent yet be given back.
        ends = sorted(slot.free_at if slot.is_settled else now for slot in self._slots)
        spare = max(0, self._ceiling - len(ends))
        # Optimistic on purpose: who is refused for being too late is refused for certain, and a wait that ends sooner
        # than foreseen hurts nobody.
        times = [start] * spare + [max(start, end) for end in ends[max(0, len(ends) - self._ceiling) :]]
        rounds, place = divmod(ahead, self._ceiling)
        return times[place] + rounds * SECOND

    def next_change(self, now: float) -> float:
        """When to look again, if nothing happens before."""
        ends = [slot.free_at for slot in self._slots if slot.free_at > now]
        return max(now, self._paused_until) if self.paused_for(now) or not ends else min(ends)

    @property
    def used(self) -> int:
        return len(self._slots)

    @property
    def ceiling(self) -> int:
        return self._ceiling

    def _forget(self, now: float) -> None:
        if self._first_end <= now:
            self._slots = [slot for slot in self._slots if slot.free_at > now]
            self._first_end = min([slot.free_at for slot in self._slots], default=float("inf"))

    def _heal(self, now: float) -> None:
        """One step back to normal for each quiet stretch, longer the more often there was trouble."""
        if not self._offences:
            return
        patience = HEALING_SECONDS * 2 ** min(self._offences - 1, 4)
        # From the end of the pause: the time in which nothing was sent proves nothing about what is allowed.
        if now - max(self._offended_at, self._paused_until, self._healed_at) < patience:
            return
        self._healed_at = now
        self._ceiling += 1
        if self._ceiling >= self.limit:
            self._ceiling = self.limit
            self._offences = 0
