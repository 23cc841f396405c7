"""Limits between processes: this process's part in what all of a user's processes count together.

Where the count cannot be had (no temporary folder, a read-only one, another user's, a full disk), the limits of this
process still hold; the missing company is logged once.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from .._concurrency import Clock, at_fork, get_logger
from ..errors import RateLimitError, one_line
from ..models.enums import RateGroup
from .ban import Ban
from .count_file import SharedCountFile
from .owners import first_owner
from .shared_count import FREE, Claim, SharedCount
from .window import SECOND

log = get_logger("upbit_backbone.limits")

RETRY_FILE_SECONDS: Final = 10.0  # a file that could not be had is tried again after this

T = TypeVar("T")


class InterProcessLimiter:
    """One process's part in the count of a host, for all of its backbones."""

    def __init__(self, count: SharedCount, clock: Clock) -> None:
        self._count = count
        self.clock = clock
        self._owners = itertools.count(first_owner())
        self._is_left = False
        self._is_reported = False
        self._retry_at = float("-inf")
        self._heard: dict[RateGroup, float] = {}  # the last 429 of each group that this process knows of

    @property
    def trouble(self) -> str | None:
        """Why the count is not shared with all that it should be, in words; None if it is."""
        return self._count.trouble

    def claim(self, group: RateGroup, heed: Callable[[RateGroup, Claim], object]) -> Claimant:
        return Claimant(self, group, next(self._owners), heed)

    def take(self, group: RateGroup, limit: int, owner: int) -> Claim:
        """As the count's; what was heard before is no news."""
        claim = self._trying(lambda: self._count.take(group, limit, owner)) or FREE
        if claim.penalised is None:
            return claim
        is_news = claim.penalised != self._heard.get(group)
        self._heard[group] = claim.penalised
        return claim if is_news else claim._replace(penalised=None)

    def settle(self, group: RateGroup, owner: int, at: int | None, free_at: float | None) -> None:
        self._trying(lambda: self._count.settle(group, owner, at, free_at))
        if self._is_left and not self._count.users:  # it ended after the last one had gone
            self._count.close()

    def holds(self, group: RateGroup, owner: int, at: int | None) -> bool:
        """True also where nobody knows."""
        return self._trying(lambda: self._count.holds(group, owner, at)) is not False

    def counted(self, group: RateGroup) -> int:
        return self._trying(lambda: self._count.counted(group)) or 0

    def pause(self, group: RateGroup, seconds: float) -> None:
        told_at = self._trying(lambda: self._count.pause(group, seconds))
        if told_at is not None:
            self._heard[group] = told_at

    def impose_ban(self, seconds: float | None, sent_at: float | None, *, at_connect: bool) -> Ban | None:
        return self._trying(lambda: self._count.impose_ban(seconds, sent_at, at_connect=at_connect))

    def passed(self, sent_at: float) -> None:
        self._trying(lambda: self._count.passed(sent_at))

    def connecting(self) -> Ban | None:
        return self._trying(self._count.connecting)

    def enter(self, user: object) -> None:
        """`user`, the limiter of a backbone, is going to ask; whoever is forgotten has left."""
        self._count.users.enter(user)
        self._is_left = False

    def leave(self, user: object) -> None:
        """`user` asks no more. The last one lets go of what the count holds."""
        if self._count.users.leave(user):
            self._is_left = True
            self._count.close()

    def leave_to_parent(self) -> None:
        self._count.leave_to_parent()

    def _trying(self, action: Callable[[], T]) -> T | None:
        """The action's result, or None where the file is out of reach."""
        if self._retry_at > self.clock.monotonic():
            return None
        try:
            return action()
        except OSError as theirs:
            self._retry_at = self.clock.monotonic() + RETRY_FILE_SECONDS
            if not self._is_reported:
                self._is_reported = True
                log.warning("limits are not shared with other processes", extra={"why": one_line(theirs)})
            return None

    def __repr__(self) -> str:
        return f"<InterProcessLimiter of {self._count!r}>"


class Claimant:
    """One request's part in the common count."""

    __slots__ = ("_at", "_granted_at", "_group", "_heed", "_limiter", "_owner")

    def __init__(
        self, limiter: InterProcessLimiter, group: RateGroup, owner: int, heed: Callable[[RateGroup, Claim], object]
    ) -> None:
        self._limiter = limiter
        self._group = group
        self._owner = owner
        self._heed = heed
        self._at: int | None = None
        self._granted_at = float("inf")

    def ask(self, limit: int) -> float:
        """0.0 when the request was counted, else seconds to wait; raises what `heed` makes of a ban."""
        claim = self._limiter.take(self._group, limit, self._owner)
        if claim.ban is not None or claim.penalised is not None:
            self._heed(self._group, claim)
        if not claim.wait:
            self._at = claim.at
            self._granted_at = self._limiter.clock.monotonic()
        return claim.wait

    def leaving(self) -> None:
        """Right before the request is written: RateLimitError where it does not count any more, because this process
        stood still for so long that the others took it for dead."""
        has_waited = self._limiter.clock.monotonic() - self._granted_at > SECOND
        if has_waited and not self._limiter.holds(self._group, self._owner, self._at):
            raise RateLimitError(
                f"the turn for {self._group.value} was over before the request could leave: this process stood still",
                retry_after=0.0,
                group=self._group.value,
            )

    def settle(self, free_at: float | None) -> None:
        """It counts until then; None: it was never sent."""
        self._limiter.settle(self._group, self._owner, self._at, free_at)


_registry_lock = threading.Lock()  # guards _limiters
_limiters: dict[tuple[str, ...], InterProcessLimiter] = {}


def inter_process_limiter(
    host: str, clock: Clock, where: tuple[str, ...] = (), make: Callable[[], SharedCount] | None = None
) -> InterProcessLimiter:
    """The one of this process for `host`, with the count that `make` makes for the place `where` (none: the file)."""
    with _registry_lock:
        limiter = _limiters.get((host, *where))
        if limiter is None:
            count = SharedCountFile(host, clock) if make is None else make()
            limiter = _limiters[host, *where] = InterProcessLimiter(count, clock)
        return limiter


def _start_over_in_child() -> None:
    global _registry_lock
    _registry_lock = threading.Lock()
    # Both would be one owner of the file's lock: it belongs to the open file, not to a process.
    for each in list(_limiters.values()):
        each.leave_to_parent()
    _limiters.clear()


at_fork(_start_over_in_child)
