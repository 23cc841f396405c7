"""Rate limiter: Upbit's limits, kept by construction over all threads and all backbones of the process.

    with limiter.permit(RateGroup.TICKER, Priority.NORMAL, deadline) as permit:
        permit.leaving(); ...write the request...; permit.sent()
        ...read the answer...; permit.answered()

A `RateLimiter` belongs to one backbone; behind it stands the `HostLimiter` of the host, which all of them share and
which outlives them, so that making a new backbone does not shake off a ban.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from .._concurrency import SYSTEM_CLOCK, Clock, Deadline, Waitable, at_fork
from .._lazy import loading
from ..errors import ClosedError, UpbitBackboneError
from ..exchange.endpoints import CONNECTS_PER_SECOND, REQUESTS_PER_SECOND, normal_host
from ..models.enums import Priority, RateGroup
from ..models.events import Event, RateLimitEvent
from .ban import Ban
from .host_limiter import HostLimiter, LimiterView, Rates, Urgency, Waiter
from .window import Slot

if TYPE_CHECKING:
    from .between_processes import Claimant, InterProcessLimiter
    from .shared_count import Claim

# What a ban is about, in events.
REST_ALONE: Final = "rest"
EVERYTHING: Final = "all"
OPEN_STREAMS_GO_ON: Final = "open streams go on, and one that breaks tries to connect once a second"
OPEN_STREAMS_WAIT: Final = "open streams go on, and one that breaks waits, because a handshake was refused, too"
# Hosts are kept for the sake of their bans and counts; without a bound a program that talks to ever new addresses
# (tests) would grow.
MAX_KNOWN_HOSTS: Final = 256


class Permit:
    """One turn. Entering the `with` block waits for it; leaving the block without `sent()` gives it back."""

    __slots__ = ("_bans", "_claim", "_clock", "_host_limiter", "_is_given_up", "_obtain", "_waiter", "left_at")

    def __init__(
        self,
        limiter: HostLimiter,
        waiter: Waiter,
        obtain: Callable[[Waiter], object],
        clock: Clock,
        claim: Claimant | None = None,
    ) -> None:
        self._host_limiter = limiter
        self._clock = clock
        # Monotonic, before the first byte, while `sent_at` is after the last: an answer may show what was in between.
        self.left_at: float | None = None
        self._waiter = waiter
        self._obtain = obtain
        self._bans = limiter.bans  # how many there had been before the turn came
        self._claim = claim  # with the other processes
        self._is_given_up = False

    @property
    def _slot(self) -> Slot:
        if self._waiter.slot is None:
            raise RuntimeError("a permit counts from the `with` block on")
        return self._waiter.slot

    @property
    def sent_at(self) -> float | None:
        return self._slot.sent_at

    def leaving(self) -> None:
        """Call right before writing; raises BannedError if a ban has come meanwhile, RateLimitError if the turn is
        over, because this process stood still."""
        # One comparison without a lock, because this is on the way of every request; the lock is taken only if a ban
        # has come.
        if self._host_limiter.bans != self._bans:  # else the turn itself was the answer
            self._host_limiter.leaving()
        if self._claim is not None:
            self._claim.leaving()
        self.left_at = self._clock.monotonic()

    def sent(self) -> None:
        """The request is on its way."""
        self._host_limiter.sent(self._waiter.group, self._slot)

    def answered(self) -> None:
        """An answer began to come. Without this, and without `given_up`, the request is taken to have arrived when the
        block was left."""
        self._host_limiter.answered(self._waiter.group, self._slot)

    def given_up(self) -> None:
        """Nobody waits for the answer any more, but the request may arrive yet: it holds its place until it cannot."""
        self._is_given_up = True

    def proves_silence(self, waited: float) -> bool:
        """Whether `waited` seconds without a word of an answer say something about the server, not about our haste."""
        return self._host_limiter.proves_silence(self._waiter.group, self._slot, waited)

    def __enter__(self) -> Self:
        # Taken here and not before, and into the waiter: Ctrl-C on the way from the taking to the block would otherwise
        # keep the turn from everybody for 30 s.
        try:
            self._obtain(self._waiter)
        except BaseException as error:
            self._host_limiter.give_up(self._waiter)
            # Interrupted, it may have been counted with the other processes, who cannot know that nothing is sent.
            if self._claim is not None and not isinstance(error, UpbitBackboneError):
                self._claim.settle(None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # With a first byte of an answer it has arrived, whatever became of the rest.
        is_given_up = self._is_given_up and self._slot.answered_at is None
        self._host_limiter.finished(self._waiter.group, self._slot, is_given_up=is_given_up)
        if self._claim is not None:
            # The other processes must count it as long as we do.
            self._claim.settle(None if self._slot.sent_at is None else self._slot.free_at)


class RateLimiter:
    """One backbone's way to the limits of `host` (or of a URL's), for REST and for WebSocket connects alike."""

    def __init__(
        self,
        host: str,
        per_second: float = REQUESTS_PER_SECOND,
        *,
        connects_per_second: float = CONNECTS_PER_SECOND,
        clock: Clock = SYSTEM_CLOCK,
        emit: Callable[[Event], object] | None = None,
        between_processes: bool = False,
        shared: Callable[[str], InterProcessLimiter] | None = None,
    ) -> None:
        self._clock = clock
        self._emit = emit
        self._is_closed = False
        host = normal_host(host)
        share = shared or (lambda host: _shared_limits(host, clock))  # with this machine's processes, or further ones
        self._shared = share(host) if between_processes else None
        self._host_limiter = _host_limiter_of(host, clock)
        self._host_limiter.enter(self, Rates(per_second, connects_per_second))
        if self._shared is not None:
            self._shared.enter(self)

    def permit(
        self,
        group: RateGroup,
        urgency: Priority | Urgency,
        deadline: Deadline,
        stop: Waitable | None = None,
        refusal: Callable[[], UpbitBackboneError | None] = lambda: None,
        *,
        is_reconnect: bool = False,
    ) -> Permit:
        """A turn, for a `with` block. Entering it waits at most until `stop` is set or `refusal` has an error to raise;
        an Urgency may be raised meanwhile. Raises

        - RateLimitError(retry_after) at once when the turn would surely come after the deadline,
        - BannedError(until) while Upbit blocks this IP, RequestTimeoutError, ClosedError.

        With `is_reconnect`, for the handshake of a line that was open and broke, a ban is no absolute bar: see `ban`.
        """

        def refused() -> UpbitBackboneError | None:
            if self._is_closed or (stop is not None and stop.is_set()):
                return ClosedError(f"closed while waiting for the rate limit of {group.value}")
            return refusal()

        urgency = urgency if isinstance(urgency, Urgency) else Urgency(urgency)

        def obtain(waiter: Waiter) -> None:
            if is_reconnect and self._shared is not None:
                self._hear_of_ban(self._shared.connecting())
            if not (is_reconnect and host.obtain_reconnect(waiter)):
                host.obtain(waiter, deadline, refused, None if claim is None else claim.ask)

        host = self._host_limiter
        claim = None if self._shared is None else self._shared.claim(group, self._heed)
        return Permit(host, host.waiter(group, urgency), obtain, self._clock, claim)

    def _heed(self, group: RateGroup, claim: Claim) -> None:
        """What other processes of this user were told by Upbit is told to us, too; BannedError where it is a ban."""
        if claim.penalised is not None:
            stopped = self._host_limiter.penalise(group, claim.wait, None)
            reason = "Upbit answered 429 Too Many Requests to another process of this user"
            self._tell_all(group.value, stopped or claim.wait, banned=False, reason=reason)
        if claim.ban is not None:
            self._hear_of_ban(claim.ban)
            self._host_limiter.refuse_if_banned()

    def _hear_of_ban(self, ban: Ban | None) -> None:
        stopped = None if ban is None else self._host_limiter.hear_of_ban(ban)
        if stopped is not None:
            self._tell_of_ban(stopped)

    def forecast(self, group: RateGroup, ahead: int, deadline: Deadline) -> None:
        """RateLimitError or BannedError, as `permit` would raise with `ahead` others before; waits for nothing."""
        self._host_limiter.forecast(group, ahead, deadline)

    @contextmanager
    def handshake(self, deadline: Deadline, *, is_reconnect: bool = False) -> Iterator[None]:
        """A turn to connect in, for a `with` block around the whole of it; raises as `permit` does. Its request leaves
        at any time in it, after a way of unknown length there and back for each step, and counts until it is over."""
        with self.permit(RateGroup.WEBSOCKET_CONNECT, Priority.NORMAL, deadline, is_reconnect=is_reconnect) as permit:
            permit.sent()
            yield

    def learn(self, group: RateGroup, remaining: int, sent_at: float | None = None) -> None:
        """Upbit's own count: `remaining` calls were left after a request sent at `sent_at` (monotonic)."""
        # What others have asked is looked up only where Upbit counts more than we do.
        is_shared = self._shared is not None and self._host_limiter.seems_foreign(group, remaining)
        counted = self._shared.counted(group) if self._shared is not None and is_shared else 0
        self._host_limiter.learn(group, remaining, self._clock.monotonic() if sent_at is None else sent_at, counted)

    def passed(self, sent_at: float) -> None:
        """A request sent at `sent_at` was answered and not refused: after a ban this opens the door again."""
        self._host_limiter.passed(sent_at)
        if self._shared is not None:
            self._shared.passed(sent_at)

    def penalise(self, group: RateGroup, seconds: float | None = None, sent_at: float | None = None) -> None:
        """Upbit said 429: stop the group for what it says, at least for a growing while, then go slower."""
        stopped = self._host_limiter.penalise(group, seconds, sent_at)
        if stopped is not None:
            if self._shared is not None:
                self._shared.pause(group, stopped)
            self._tell_all(group.value, stopped, banned=False, reason="Upbit answered 429 Too Many Requests")

    def ban(
        self,
        until: datetime | None = None,
        *,
        seconds: float | None = None,
        sent_at: float | None = None,
        at_connect: bool = False,
    ) -> None:
        """Upbit said 418: no request leaves for this host, by anyone in this process (and in those that share limits
        with it), before `until`.

        With `at_connect` it said so to a WebSocket handshake: then nobody connects before that, either.
        """
        if until is not None:
            seconds = max(0.0, (until - self._clock.wall()).total_seconds())
        shared = None if self._shared is None else self._shared.impose_ban(seconds, sent_at, at_connect=at_connect)
        stopped = self._host_limiter.impose_ban(seconds, sent_at, at_connect=at_connect)
        if shared is not None:
            self._host_limiter.hear_of_ban(shared)  # which may be longer, as the others have offended before
        if stopped is not None:
            self._tell_of_ban(stopped)

    def _tell_of_ban(self, stopped: float) -> None:
        if self.ban_covers_connects:
            reason = "Upbit answered a WebSocket handshake with 418: this IP is blocked for everything"
            self._tell_all(EVERYTHING, stopped, banned=True, reason=reason)
        else:
            reason = f"Upbit answered 418: this IP is blocked for REST; {OPEN_STREAMS_GO_ON}"
            self._tell_all(REST_ALONE, stopped, banned=True, reason=reason)

    @property
    def ban_covers_connects(self) -> bool:
        """Whether broken lines wait for the end of the present ban; False, too, while there is none."""
        return self._host_limiter.ban_covers_connects

    def ban_in_words(self) -> str | None:
        """What Upbit blocks, for how long, and what that means for streams; None while it blocks nothing."""
        left = self.banned_for()
        if not left:
            return None
        streams = OPEN_STREAMS_WAIT if self.ban_covers_connects else OPEN_STREAMS_GO_ON
        return f"Upbit blocks this IP for {left:.0f} s more: {streams}"

    def trouble(self) -> str | None:
        """Why limits are not kept together with all that they should be, in words; None if they are."""
        return None if self._shared is None else self._shared.trouble

    def banned_for(self) -> float:
        """Seconds for which this host must not be spoken to; 0.0 when it may."""
        return self._host_limiter.banned_for()

    def look(self, group: RateGroup) -> LimiterView:
        return self._host_limiter.look(group)

    @property
    def bans(self) -> int:
        return self._host_limiter.bans

    def close(self) -> None:
        """Threads that wait on behalf of this backbone get ClosedError at once; the others wait on."""
        self._is_closed = True
        self._host_limiter.leave(self)
        if self._shared is not None:
            self._shared.leave(self)

    def _tell_all(self, group: str, seconds: float, *, banned: bool, reason: str) -> None:
        at = self._clock.wall()
        event = RateLimitEvent(at=at, group=group, until=at + timedelta(seconds=seconds), banned=banned, reason=reason)
        for user in self._host_limiter.users():
            if isinstance(user, RateLimiter) and user._emit is not None:
                user._emit(event)

    def __repr__(self) -> str:
        return f"<RateLimiter of {self._host_limiter!r}{' closed' if self._is_closed else ''}>"


def _shared_limits(host: str, clock: Clock) -> InterProcessLimiter:
    with loading():
        from .between_processes import inter_process_limiter

    return inter_process_limiter(host, clock)


_registry_lock = threading.Lock()  # guards _gates
_gates: dict[str, HostLimiter] = {}


def _host_limiter_of(host: str, clock: Clock) -> HostLimiter:
    with _registry_lock:
        if len(_gates) >= MAX_KNOWN_HOSTS:
            _forget_idle()
        return _gates.setdefault(host, HostLimiter(host, clock))


def _forget_idle() -> None:
    for name in [name for name, limiter in _gates.items() if limiter.is_idle]:
        del _gates[name]


def _start_over_in_child() -> None:
    global _registry_lock
    _registry_lock = threading.Lock()
    for name, limiter in list(_gates.items()):
        _gates[name] = limiter.for_child()


at_fork(_start_over_in_child)
