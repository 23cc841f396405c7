"""Exchange clock: how far Upbit's clock is from ours, from the Date headers of REST and the stamps of every session.

No single witness is believed beyond what it can know. A Date has a resolution of one second, so an answer only says:
the offset lies between two bounds; many answers together narrow them down. A stamp in a stream can be late by any
amount and never early, so it is a lower bound; that the quickest was no longer on its way than an answer takes makes it
an upper one, too, but only where REST does not contradict: a stream which is late from its start is late, and no
difference of clocks. Where threads wait for a core even the quickest has waited; the fewer there were and the longer
the others waited, the more of that is allowed for.
"""

from __future__ import annotations

import threading
from collections import deque
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache, reduce
from math import inf
from typing import Final, NamedTuple

from .._concurrency import SLEEP_SECONDS, SYSTEM_CLOCK, Clock, clock_offset

SAMPLES: Final = 32
RESOLUTION_SECONDS: Final = 1.0  # a Date header shows whole seconds
# Clocks drift apart by a few milliseconds in this time; whatever is older is forgotten.
MEMORY_SECONDS: Final = 300.0
# What the quickest of each tell is kept: thirty bounds a session, however many messages a second come.
BUCKET_SECONDS: Final = 10.0
STAMP_SECONDS: Final = 0.001  # a stamp shows whole milliseconds
UNREAD_SECONDS: Final = 0.05  # so long may what has come wait for a thread that waits for a core
# The quickest of n that wait evenly, for up to twice the mean, has waited longer than c/n means once in exp(c/2) cases:
# with this one, once in 160,000.
WAITS: Final = 24
FIRST_WAIT_SECONDS: Final = 0.02  # taken for what one waited, until others have shown it


class Bounds(NamedTuple):
    """The offset lies between these two."""

    low: float
    high: float


class Told(NamedTuple):
    """What stamps of one session tell together."""

    low: float  # by the quickest
    way: float  # no stamp that did not wait was longer on its way; inf before anything was answered
    stamps: int = 1  # that were hardly slower than the quickest, and it
    waited: float = 0.0  # for how much longer than the quickest these were on their way, all together

    @property
    def bounds(self) -> Bounds:
        quickest_waited = WAITS * (self.waited + FIRST_WAIT_SECONDS) / self.stamps**2
        return Bounds(self.low, self.low + self.way + STAMP_SECONDS + quickest_waited)


class ClockOffset:
    """Upbit's clock minus one of ours, in seconds. Pure: `received` is what our clock showed, in seconds."""

    def __init__(self) -> None:
        self._dates: deque[Bounds] = deque(maxlen=SAMPLES)
        # By session: the start of a bucket, and what the stamps in it tell.
        self._stamps: dict[str, deque[tuple[float, Told]]] = {}

    def learn_date(self, date: str | None, received: float, elapsed: float) -> None:
        """One answer's Date header; it was written between the request's departure, no more than `elapsed` before
        `received`, and then."""
        moment = _moment(date)
        if moment is None:
            return
        low = moment.timestamp() - received
        # The Date may have been written at any time of the way and shows a second's beginning: so much is the upper
        # bound away.
        self._dates.append(Bounds(low, low + elapsed + RESOLUTION_SECONDS))

    def learn_stamp(self, session: str, stamp: float, received: float, way: float = inf) -> None:
        """News stamped `stamp` came on `session`, and was on its way for `way` seconds at most."""
        told = Told(stamp - received, way)
        buckets = self._stamps.setdefault(session, deque())
        if buckets and received - buckets[-1][0] < BUCKET_SECONDS:
            start, known = buckets[-1]
            buckets[-1] = (start, _together(known, told))
            return
        buckets.append((received, told))
        while received - buckets[0][0] > MEMORY_SECONDS:
            buckets.popleft()
        for silent in [name for name, each in self._stamps.items() if received - each[-1][0] > MEMORY_SECONDS]:
            self.forget_session(silent)

    def forget_session(self, session: str) -> None:
        self._stamps.pop(session, None)

    def bounds(self) -> Bounds | None:
        """None before the first sample."""
        rest = self._told_by_rest()
        spans = [self._told_by(session) for session in self._stamps]
        if rest is not None:
            # A stamp is never early, so sessions that agree on one REST's clock has not reached show that REST's is
            # wrong. A single one may be wrong itself.
            ahead = [span for span in spans if span.low > rest.high]
            # Two at least and more than half: one session may be wrong itself, and several late ones must not outvote
            # REST.
            if len(ahead) < 2 or 2 * len(ahead) <= len(spans):
                return _sharpened(rest, [span for span in spans if rest.low <= span.low <= rest.high])
            spans = ahead
        return _most_agreed(spans) if spans else None

    def estimate(self) -> float | None:
        bounds = self.bounds()
        if bounds is None:
            return None
        return bounds.low if bounds.high == inf else (bounds.low + bounds.high) / 2

    def _told_by_rest(self) -> Bounds | None:
        if not self._dates:
            return None
        lows, highs = zip(*self._dates, strict=True)  # after every answer of REST, so without a generator
        low, high = max(lows), min(highs)
        if low <= high:
            return Bounds(low, high)
        # They contradict each other: a clock was set, or one answer came from a wrong one. The median is of the most.
        middles = sorted((each.low + each.high) / 2 for each in self._dates)
        half = len(middles) // 2
        middle = (middles[half] + middles[~half]) / 2
        return Bounds(middle - RESOLUTION_SECONDS / 2, middle + RESOLUTION_SECONDS / 2)

    def _told_by(self, session: str) -> Bounds:
        return reduce(_together, (told for _, told in self._stamps[session])).bounds


def _together(one: Told, other: Told) -> Told:
    """What both tell. The quickest may have come while an answer was due, when all that can be said of its way is many
    seconds: but it was no longer on it than one that was slower."""
    if one.way == inf or other.way == inf:
        return max(one, other, key=_telling)
    low = max(one.low, other.low)
    # A stamp that was longer under way than it was said to be tells nothing, unless it merely waited to be read.
    way = min(each.way for each in (one, other) if each.low + each.way >= low - UNREAD_SECONDS)
    near = [each for each in (one, other) if each.low >= low - UNREAD_SECONDS]
    waited = sum(each.waited + each.stamps * (low - each.low) for each in near)
    return Told(low, way, sum(each.stamps for each in near), waited)


def _telling(told: Told) -> tuple[bool, float]:
    """The quicker a stamp was, the more it tells; least of all one that came before anything was answered."""
    return told.way < inf, told.low


def _sharpened(rest: Bounds, spans: list[Bounds]) -> Bounds:
    """REST's bounds with what the quickest session knows better."""
    quickest = max(spans, default=rest)
    return Bounds(quickest.low, min(rest.high, quickest.high))


def _most_agreed(spans: list[Bounds]) -> Bounds:
    """Marzullo's algorithm: where most of the spans overlap; the highest such place, because stamps are never early."""
    low = max((each.low for each in spans), key=lambda at: (sum(span.low <= at <= span.high for span in spans), at))
    return Bounds(low, min(span.high for span in spans if span.low <= low <= span.high))


class ExchangeClock:
    """The one clock by which everything is judged. Thread-safe; `latest` is read without a lock, on every message.

    Kept against the monotonic clock, so that ours may be wrong by any amount and be set at any time. After the machine
    has slept, nothing that was known holds.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # guards the offset and _wall_offset
        self._offset = ClockOffset()
        self._wall_offset = clock_offset(clock)
        # Upbit's clock minus our monotonic one, at most. None: nothing is known.
        self.latest: float | None = None

    def learn_date(self, date: str | None, received: float, elapsed: float) -> None:
        """The Date header of an answer that had come by monotonic `received`, no more than `elapsed` seconds after its
        request left."""
        with self._lock:
            # First, or what comes now would be judged with what was known before the sleep.
            self._notice_sleep()
            self._offset.learn_date(date, received, elapsed)
            self._look()

    def learn_stamp(self, session: str, stamp: datetime, received: float, way: float) -> None:
        """News stamped `stamp` came on `session` at monotonic `received`, no more than `way` seconds after it was
        sent."""
        with self._lock:
            self._notice_sleep()
            self._offset.learn_stamp(session, stamp.timestamp(), received, way)
            self._look()

    def forget_session(self, session: str) -> None:
        """Its line is gone; the next one of that name is another witness."""
        with self._lock:
            self._offset.forget_session(session)
            self._look()

    def _notice_sleep(self) -> None:
        before, self._wall_offset = self._wall_offset, clock_offset(self._clock)
        if abs(self._wall_offset - before) > SLEEP_SECONDS:
            # On Linux the monotonic clock stands still meanwhile, so every difference to it is wrong by the length of
            # the sleep.
            self._offset = ClockOffset()

    def _look(self) -> None:
        bounds = self._offset.bounds()
        # The upper end: Upbit's time "at most" makes ages too large rather than too small, and no old value young.
        self.latest = None if bounds is None or bounds.high == inf else bounds.high

    @property
    def ahead(self) -> float | None:
        """Upbit's clock minus our wall clock in seconds, as well as is known; None before the first sample."""
        with self._lock:
            estimate = self._offset.estimate()
        return None if estimate is None else estimate - clock_offset(self._clock)

    def seconds_since(self, stamp: datetime, now: float) -> float | None:
        """How old what Upbit stamped `stamp` is at monotonic `now`: at most so many seconds, if anything is known."""
        latest = self.latest
        return None if latest is None else max(0.0, now + latest - stamp.timestamp())

    def latest_time(self, now: float) -> datetime | None:
        """What Upbit's clock shows at monotonic `now`, at the latest: whatever is stamped so was made after it."""
        latest = self.latest
        return None if latest is None else datetime.fromtimestamp(now + latest, UTC)

    def __repr__(self) -> str:
        ahead = self.ahead
        return "<ExchangeClock unknown>" if ahead is None else f"<ExchangeClock {ahead:+.3f} s>"


@lru_cache(maxsize=8)  # answers of one second share their date
def _moment(date: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(date or "")
    except (ValueError, TypeError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else None
