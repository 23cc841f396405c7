"""Host limiter: who may send next to one host. Shared by every backbone of the process.

`HostLimiter` decides under its one lock and acts outside it. Waiting threads are served by priority, then in order of
arrival; the first of each group watches the clock, the others are woken when their turn comes.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import NamedTuple

from .._concurrency import WAIT_SLICE_SECONDS, Clock, Deadline, Flag, ForkGuard
from ..errors import BannedError, RateLimitError, RequestTimeoutError, UpbitBackboneError
from ..exchange.endpoints import CONNECTS_PER_SECOND, REQUESTS_PER_SECOND
from ..models.enums import Priority, RateGroup
from .ban import CAREFUL_SECONDS, Ban
from .window import Slot, Window

# Who waits for a rate group, and in which order: the urgent first, equals as they came.


class Rates(NamedTuple):
    """What one backbone allows itself per second: requests of each REST group, and WebSocket handshakes."""

    requests: float = REQUESTS_PER_SECOND
    connects: float = CONNECTS_PER_SECOND


class Limits:
    """Whoever shares one host's budget. The most careful decides: it is one and the same for all of them."""

    def __init__(self) -> None:
        # Weakly, so that a backbone nobody closed counts only as long as it lives.
        self._rates: weakref.WeakKeyDictionary[object, Rates] = weakref.WeakKeyDictionary()

    def enter(self, user: object, rates: Rates) -> None:
        self._rates[user] = rates

    def leave(self, user: object) -> None:
        self._rates.pop(user, None)

    def rate(self, group: RateGroup) -> float:
        """What all of them together may send to `group` in a second."""
        every = list(self._rates.values()) or [Rates()]
        is_connect = group is RateGroup.WEBSOCKET_CONNECT
        # The most careful decides: Upbit counts the IP, and whoever set less has a reason that the others share
        # (another program on the same address).
        return min(rates.connects if is_connect else rates.requests for rates in every)

    def all(self) -> list[object]:
        return list(self._rates)

    def __len__(self) -> int:
        return len(self._rates)

    def __repr__(self) -> str:
        return f"<Limits {len(self)}>"


class Urgency:
    """How urgent a request is. Whoever joins it may raise that, also while it waits for its turn."""

    __slots__ = ("priority",)

    def __init__(self, priority: Priority) -> None:
        self.priority = priority

    def raise_to(self, priority: Priority) -> None:
        self.priority = min(self.priority, priority)

    def __repr__(self) -> str:
        return f"<Urgency {self.priority.name}>"


class Waiter:
    """One thread that wants to send. `bell` wakes it; `slot` is its turn, once it has come."""

    __slots__ = ("bell", "group", "number", "slot", "urgency")

    def __init__(self, group: RateGroup, urgency: Urgency, number: int) -> None:
        self.group = group
        self.urgency = urgency
        self.number = number
        self.bell = Flag()
        self.slot: Slot | None = None

    def place(self) -> tuple[Priority, int]:
        return self.urgency.priority, self.number


class WaitQueue:
    """The waiters of one group. No heap: their order changes when one of them becomes more urgent."""

    def __init__(self) -> None:
        self._waiters: set[Waiter] = set()

    def join(self, waiter: Waiter) -> None:
        self._waiters.add(waiter)

    def first(self) -> Waiter | None:
        return min(self._waiters, key=Waiter.place) if self._waiters else None

    def leave(self, waiter: Waiter) -> None:
        self._waiters.discard(waiter)

    def ahead_of(self, waiter: Waiter) -> int:
        place = waiter.place()
        return sum(each.place() < place for each in self._waiters)

    def __iter__(self) -> Iterator[Waiter]:
        return iter(self._waiters)

    def __len__(self) -> int:
        return len(self._waiters)


class LimiterView(NamedTuple):
    """How one group stands at the moment."""

    per_second: float
    available: int
    waiting: int
    granted: int
    penalties: int
    paused_for: float


class HostLimiter:
    """Windows of all groups, the ban and the queues of one host."""

    def __init__(self, host: str, clock: Clock, ban: Ban | None = None) -> None:
        self.host = host
        self._clock = clock
        self._guard = ForkGuard(f"rate limiter of {host}")
        self._lock = threading.Lock()  # guards everything below
        self._windows: dict[RateGroup, Window] = {}
        self._queues: dict[RateGroup, WaitQueue] = {}
        self._ban = ban or Ban()
        self._careful: Slot | None = None  # of the handshake that is under way in a ban
        self._users = Limits()
        self._numbers = itertools.count()
        self.bans = 0
        self.granted: dict[RateGroup, int] = {}

    # --- who uses the limiter ---------------------------------------------------------------------------------

    def enter(self, user: object, rates: Rates) -> None:
        with self._lock:
            self._users.enter(user, rates)
            self._apply_rates()

    def leave(self, user: object) -> None:
        if self._guard.is_foreign:
            return
        with self._lock:
            self._users.leave(user)
            self._apply_rates()
            waiters = [waiter for queue in self._queues.values() for waiter in queue]
        for waiter in waiters:
            waiter.bell.set()

    def users(self) -> list[object]:
        with self._lock:
            return self._users.all()

    def _apply_rates(self) -> None:
        # A rate must not jump to its default in the moment between two backbones: what the first one sent still counts.
        if not self._users:
            return  # as they were, until somebody comes
        for group, window in self._windows.items():
            rate = self._users.rate(group)
            if window.per_second != rate:
                window.set_rate(rate)

    def _window(self, group: RateGroup) -> Window:
        window = self._windows.get(group)
        if window is None:
            window = self._windows[group] = Window(self._users.rate(group))
            self._queues[group] = WaitQueue()
        return window

    # --- waiting for a turn --------------------------------------------------------------------------------

    def waiter(self, group: RateGroup, urgency: Urgency) -> Waiter:
        """Somebody who is going to want a turn, to `obtain` it with; it waits for nothing yet."""
        return Waiter(group, urgency, next(self._numbers))

    def obtain(
        self,
        waiter: Waiter,
        deadline: Deadline,
        refusal: Callable[[], UpbitBackboneError | None],
        claim: Callable[[int], float] | None,
    ) -> None:
        """A slot for one request, in `waiter.slot`; RateLimitError (surely too late), BannedError, RequestTimeoutError,
        and what `refusal` has to raise to those who wait. Its urgency may be raised meanwhile.

        Whatever it raises, `give_up` has to follow.
        """
        # Before the lock: in a forked child nobody will ever release it.
        self._guard.check()
        with self._lock:
            if self._is_free(waiter.group):
                self._take(waiter)
            else:
                self._enqueue(waiter, deadline)
        while True:
            if waiter.slot is None:
                self._wait_for_turn(waiter, deadline, refusal)
            # With other processes: 0.0 when the request was counted there, else seconds to wait.
            # Outside the lock: the file may be held by another process, and everybody's turn would wait for that.
            wait = 0.0 if claim is None else claim(self._windows[waiter.group].ceiling)
            if not wait:
                return
            self._step_back(waiter, wait, deadline)

    def obtain_reconnect(self, waiter: Waiter) -> bool:
        """During a ban: a slot for the handshake of a line that broke, if one may be tried; False when there is no ban.

        BannedError while the ban covers handshakes, RateLimitError while another attempt was made a moment ago.
        """
        self._guard.check()
        with self._lock:
            now = self._clock.monotonic()
            left = self._ban.remaining(now)
            if not left:
                return False
            if self._ban.covers_connects:
                raise self.ban_error(left)
            window = self._window(waiter.group)
            # Its request leaves somewhere in its turn: the second until the next begins when that is over.
            is_under_way = self._careful is not None and now < self._careful.free_at
            wait = max(self._ban.connect_wait(now), CAREFUL_SECONDS if is_under_way or not window.available(now) else 0)
            if wait > 0:
                raise RateLimitError(
                    f"{self.host} blocks this IP for another {left:.0f} s (HTTP 418): of lines that broke one tries to "
                    f"connect each second, and the next turn is {wait:.2f} s away",
                    retry_after=wait,
                    group=waiter.group.value,
                )
            # Decided and noted under one lock, so that of several lines that broke at once only one goes.
            self._ban = self._ban.connecting(now)
            self.granted[waiter.group] = self.granted.get(waiter.group, 0) + 1
            waiter.slot = self._careful = Slot(now)
            window.enter(waiter.slot)
            return True

    def forecast(self, group: RateGroup, ahead: int, deadline: Deadline) -> None:
        """Raise what `obtain` would raise at once, with `ahead` others before."""
        self._guard.check()
        with self._lock:
            now = self._clock.monotonic()
            self._refuse_if_banned(now)
            self._refuse_if_too_late(self._window(group), group, ahead, now, deadline)

    def _is_free(self, group: RateGroup) -> bool:
        """The usual case, without waiting: nobody waits and there is room."""
        now = self._clock.monotonic()
        window = self._window(group)
        # Who waits goes first, even where there is room: otherwise a busy thread overtakes the queue again and again.
        return self._queues[group].first() is None and self._ban.admits(now) and window.available(now) > 0

    def _take(self, waiter: Waiter) -> None:
        now, group = self._clock.monotonic(), waiter.group
        self._ban = self._ban.sending(now)
        self.granted[group] = self.granted.get(group, 0) + 1
        # In the waiter's hands before it counts: Ctrl-C in between leaves nothing that nobody gives back.
        waiter.slot = Slot(now)
        self._windows[group].enter(waiter.slot)

    def _enqueue(self, waiter: Waiter, deadline: Deadline) -> None:
        now, group = self._clock.monotonic(), waiter.group
        self._refuse_if_banned(now)
        window = self._window(group)
        queue = self._queues[group]
        self._refuse_if_too_late(window, group, queue.ahead_of(waiter), now, deadline)
        queue.join(waiter)

    def _refuse_if_too_late(self, window: Window, group: RateGroup, ahead: int, now: float, deadline: Deadline) -> None:
        wait = window.earliest(now, ahead) - now
        left = deadline.remaining()
        if left is not None and wait > left:
            raise RateLimitError(
                f"{self.host} allows {window.limit} requests a second for {group.value}; your turn is {wait:.2f} s "
                f"away, your deadline {left:.2f} s: give a larger timeout= or ask less often",
                retry_after=wait,
                group=group.value,
            )

    def _wait_for_turn(
        self, waiter: Waiter, deadline: Deadline, refusal: Callable[[], UpbitBackboneError | None]
    ) -> None:
        while True:
            with self._lock:
                now = self._clock.monotonic()
                # Before looking, not after: a ring in between must make the wait below end at once.
                waiter.bell.clear()
                self._serve(waiter.group, now, waiter)
                if waiter.slot is not None:
                    return
                self._refuse_if_banned(now)
                wait = self._next_look(waiter, now)
            # Outside the lock: it asks others (a breaker, a closed flag), who may take locks of their own.
            if (refused := refusal()) is not None:
                raise refused
            if deadline.expired:
                raise RequestTimeoutError(f"no turn within the rate limit of {waiter.group.value} before the deadline")
            # Nothing is held meanwhile, and an expired deadline was looked at above, after the last chance of a turn.
            waiter.bell.wait(deadline.remaining_or(wait))

    def _next_look(self, waiter: Waiter, now: float) -> float:
        is_first = self._queues[waiter.group].first() is waiter
        # Only the first of a group watches the clock: a hundred waiters would wake a hundred times for each free slot.
        if not is_first or not self._ban.admits(now):
            return WAIT_SLICE_SECONDS
        wait = self._windows[waiter.group].next_change(now) - now
        return min(max(wait, 0.001), WAIT_SLICE_SECONDS)

    def _serve(self, group: RateGroup, now: float, asking: Waiter | None = None) -> None:
        """Give free slots to those whose turn it is, and see to it that the next one watches the clock."""
        window, queue = self._windows[group], self._queues[group]
        while (waiter := queue.first()) is not None and self._ban.admits(now) and window.available(now):
            queue.leave(waiter)
            self._take(waiter)
            waiter.bell.set()
        # It may have become the first just now, and then nobody watches the clock until it looks.
        if waiter is not None and waiter is not asking:
            waiter.bell.set()

    def _step_back(self, waiter: Waiter, wait: float, deadline: Deadline) -> None:
        """Another process was quicker: same place in the queue, after a while."""
        with self._lock:
            now = self._clock.monotonic()
            window = self._windows[waiter.group]
            if waiter.slot is not None:
                window.finished(waiter.slot, now)
            # The whole group and not this waiter alone: the next in the queue would only ask the file in vain, too.
            window.pause(now + wait)
            self._ban = self._ban.withdrawn(now)
            waiter.slot = None
            self._refuse_if_too_late(window, waiter.group, 0, now, deadline)
            self._queues[waiter.group].join(waiter)

    def give_up(self, waiter: Waiter) -> None:
        """The waiter is leaving without sending: its slot, if it just got one, goes to the next."""
        if self._guard.is_foreign:
            return
        with self._lock:
            now = self._clock.monotonic()
            self._window(waiter.group)  # it may have been interrupted before there was one
            self._queues[waiter.group].leave(waiter)
            if waiter.slot is not None:
                self._windows[waiter.group].finished(waiter.slot, now)
                # Its slot may have been the one probe after a ban; unreported, it would keep everybody out for five
                # seconds.
                self._ban = self._ban.withdrawn(now)
            # Also where it had no slot: it may have been the first, who watched the clock for all.
            self._serve(waiter.group, now)

    def _refuse_if_banned(self, now: float) -> None:
        left = self._ban.remaining(now)
        if left:
            raise self.ban_error(left)

    def ban_error(self, left: float) -> BannedError:
        until = self._clock.wall() + timedelta(seconds=left)
        return BannedError(
            f"{self.host} blocks this IP for another {left:.0f} s (HTTP 418); "
            f"nothing is sent before {until:%H:%M:%S} UTC",
            until=until,
            retry_after=left,
        )

    # --- what became of a request --------------------------------------------------------------------------

    def leaving(self) -> None:
        """The last look before a request is written: BannedError if a ban has come since its turn did."""
        self.refuse_if_banned()

    def sent(self, group: RateGroup, slot: Slot) -> None:
        with self._lock:
            self._windows[group].sent(slot, self._clock.monotonic())

    def answered(self, group: RateGroup, slot: Slot) -> None:
        with self._lock:
            self._windows[group].answered(slot, self._clock.monotonic())

    def proves_silence(self, group: RateGroup, slot: Slot, waited: float) -> bool:
        with self._lock:
            return self._windows[group].proves_silence(slot, waited)

    def finished(self, group: RateGroup, slot: Slot, *, is_given_up: bool = False) -> None:
        """The request is over. A slot that was never sent counts for nothing."""
        with self._lock:
            now = self._clock.monotonic()
            self._windows[group].finished(slot, now, is_given_up=is_given_up)
            if slot is self._careful:
                self._careful = None
                self._ban = self._ban.connecting(now)
            # Not sent, so a probe that told nothing: the next request takes its part.
            if slot.sent_at is None:
                self._ban = self._ban.withdrawn(now)
            self._serve(group, now)

    def passed(self, sent_at: float) -> None:
        """Upbit answered, and not with a 418."""
        with self._lock:
            now = self._clock.monotonic()
            was_closed = not self._ban.is_proven_over
            self._ban = self._ban.passed(sent_at)
            if was_closed:
                for group in self._windows:
                    self._serve(group, now)

    def seems_foreign(self, group: RateGroup, remaining: int) -> bool:
        """Whether fewer calls are left than our own count leaves."""
        with self._lock:
            window = self._window(group)
            return window.limit - window.used > remaining

    def learn(self, group: RateGroup, remaining: int, sent_at: float, counted: int = 0) -> None:
        """Upbit's own count. `counted` are the requests that all processes together know of, where they share."""
        with self._lock:
            self._window(group).learn(remaining, sent_at, self._clock.monotonic(), counted)

    def penalise(self, group: RateGroup, seconds: float | None, sent_at: float | None) -> float | None:
        """Seconds for which the group is now stopped; None when it already was."""
        with self._lock:
            now = self._clock.monotonic()
            until = self._window(group).penalise(seconds, now if sent_at is None else sent_at, now)
            return None if until is None else until - now

    def impose_ban(self, seconds: float | None, sent_at: float | None, *, at_connect: bool = False) -> float | None:
        """Seconds for which everything is now stopped; None when it already was."""
        with self._lock:
            now = self._clock.monotonic()
            before = self._ban
            self._ban = before.imposed(seconds, now if sent_at is None else sent_at, now, at_connect=at_connect)
            is_new = self._ban.since != before.since
            self.bans += is_new
            # That handshakes are refused, too, is news worth an event, though it is the same ban.
            is_new |= self._ban.covers_connects and not before.covers_connects
            # Rung after the lock is released: each of them takes it first thing, and hears of the ban at once instead
            # of at the end of its slice.
            waiters = [waiter for queue in self._queues.values() for waiter in queue]
        for waiter in waiters:
            waiter.bell.set()
        return self._ban.remaining(now) if is_new else None

    def hear_of_ban(self, ban: Ban) -> float | None:
        """All processes together know of `ban`. Seconds for which everything is stopped; None when that is no news."""
        with self._lock:
            now = self._clock.monotonic()
            before, left = self._ban, ban.remaining(now)
            is_longer = left > before.remaining(now)
            covers_more = bool(left) and ban.covers_connects and not before.covers_connects
            if left and (is_longer or covers_more or ban.connect_at > before.connect_at):
                # Its probe is another process's: each opens its own door by an answer of its own.
                self._ban = replace(ban, probe_since=None)
            is_new = (is_longer and not before.remaining(now)) or covers_more
            self.bans += is_new
            waiters = [waiter for queue in self._queues.values() for waiter in queue] if is_new else []
        for waiter in waiters:
            waiter.bell.set()
        return left if is_new else None

    def refuse_if_banned(self) -> None:
        """BannedError while a ban is in force."""
        with self._lock:
            self._refuse_if_banned(self._clock.monotonic())

    def banned_for(self) -> float:
        self._guard.check()
        # Without the lock, because every question begins with it: a ban is a value and replaced whole.
        ban = self._ban
        return 0.0 if ban.is_proven_over else ban.remaining(self._clock.monotonic())

    @property
    def ban_covers_connects(self) -> bool:
        """Whether a handshake was refused in the present ban, so that broken lines wait for its end, too."""
        ban = self._ban
        return ban.covers_connects and ban.remaining(self._clock.monotonic()) > 0

    def look(self, group: RateGroup) -> LimiterView:
        with self._lock:
            now = self._clock.monotonic()
            window = self._window(group)
            return LimiterView(
                window.ceiling * window.per_second / window.limit,
                window.available(now) if self._ban.admits(now) else 0,
                len(self._queues[group]),
                self.granted.get(group, 0),
                window.penalties,
                max(window.paused_for(now), self._ban.remaining(now)),
            )

    @property
    def is_idle(self) -> bool:
        """Nobody uses it, and forgetting it would forget nothing."""
        with self._lock:
            now = self._clock.monotonic()
            is_used = self._users or any(window.available(now) < window.limit for window in self._windows.values())
            return not is_used and self._ban.is_proven_over

    def for_child(self) -> HostLimiter:
        """Its like for a forked child: the same ban, nobody's locks. Takes no lock itself."""
        return HostLimiter(self.host, self._clock, self._ban)

    def __repr__(self) -> str:
        left = self._ban.remaining(self._clock.monotonic())
        return f"<HostLimiter {self.host} {'banned for ' + format(left, '.0f') + ' s' if left else 'open'}>"
