"""Job: one question for Upbit and those who wait for its answer, each under a deadline of his own."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime
from math import inf
from typing import Any, Final, TypeVar

from .._concurrency import Deadline, LatestDeadline, SharedFuture, wait_future
from ..errors import NetworkError, RateLimitError, RequestTimeoutError, UpbitBackboneError
from ..exchange.endpoints import RestCall
from ..limits.host_limiter import Urgency
from ..models.enums import Priority
from ..unify.rest import Rows

T = TypeVar("T")

# Answers take a fraction of this; a call that is older probably hangs, and whoever joins it would hang with it.
JOINABLE_SECONDS: Final = 1.0
# Who has at least so much more time than the one who sent the call does not share the end of that one's time.
WORTH_ASKING_SECONDS: Final = 0.1

# What decodes an answer and takes note of it: every answer goes through this one door.
Door = Callable[[RestCall, bytes, datetime], Rows[Any]]


class AbandonedError(NetworkError):
    """Whoever was sending the call was interrupted (Ctrl-C), which is nobody else's business."""


class Job(ABC, SharedFuture[T]):
    """One question for Upbit, and the future of its answer. `prepare` may wait for company; `seal` names the call once
    and for all.

    An inline job runs on the thread that asked, which leaves at its own deadline; any other one goes on
    until the last of those who wait for it has given up. Whoever joins it makes it as urgent as his own question is.
    """

    market: str | None = None  # the one it is about, where it is one

    def __init__(self, priority: Priority, deadline: Deadline) -> None:
        super().__init__()
        self.urgency = Urgency(priority)
        self.is_inline = False
        self.is_handed_over = False
        self.began_at: float | None = None  # monotonic; when its turn had come
        self.sent_at = inf  # monotonic; when the request left whose answer is being read
        self._own = deadline
        self._latest = LatestDeadline(deadline)

    @property
    def deadline(self) -> Deadline:
        """When whoever carries it out gives up."""
        return self._own if self.is_inline else self._latest

    def join(self, deadline: Deadline, priority: Priority) -> None:
        """Somebody else waits for it, too, until `deadline`. Joiners of one job come one at a time."""
        self._latest.extend(deadline)
        self.urgency.raise_to(priority)

    def is_joinable(self, now: float, max_age: float | None = None) -> bool:
        """Whether others may still wait for it: not for one that hangs, or each would keep it alive for the next; nor
        for one that left longer ago than `max_age`, because its answer tells what was true then."""
        limit = JOINABLE_SECONDS if max_age is None else min(max_age, JOINABLE_SECONDS)
        has_begun_lately = self.began_at is None or now - self.began_at < limit
        return has_begun_lately and not self.done()

    def answer(self, deadline: Deadline, what: str) -> T:
        """What came of it. An error is raised as a copy, so that no two threads share a traceback."""
        try:
            return wait_future(self, deadline, what)
        except UpbitBackboneError as error:
            if not self.done():
                raise  # our own timeout, nobody else's
            # Raising one object in several threads makes them write into one traceback.
            raise copy.copy(error) from error

    def is_to_be_asked_again(self, error: UpbitBackboneError, deadline: Deadline) -> bool:
        """Whether `error` is the sender's own trouble, and there is time to ask without him."""
        # Too late for a round trip: the error that is there says more than the timeout that would follow.
        if deadline.remaining_or(WORTH_ASKING_SECONDS) < WORTH_ASKING_SECONDS:
            return False
        ran_out_of_time = self.is_inline and isinstance(error, (RequestTimeoutError, RateLimitError))
        is_outlived = deadline.outlives(self._own, by=WORTH_ASKING_SECONDS)
        return isinstance(error, AbandonedError) or (ran_out_of_time and is_outlived)

    def abandon(self) -> None:
        """Its asker was interrupted before anybody else had it in hand: whoever shares it is told to ask again."""
        # Where a worker has it, it goes on: only its asker was interrupted.
        if not self.is_handed_over and not self.done():
            self.set_exception(AbandonedError("the call was interrupted; ask again"))

    def prepare(self) -> None:  # most have nothing to wait for
        """Called without a turn in hand, maybe several times."""

    @abstractmethod
    def seal(self) -> RestCall:
        """The call to be made. Called once."""

    @abstractmethod
    def read(self, body: bytes, received_at: datetime) -> T:
        """The answer's meaning; raises MalformedDataError."""


class SingleCall(Job[Rows[Any]]):
    """One fixed call, whose answer goes through the `door`; `keep` is told of it afterwards."""

    def __init__(
        self,
        call: RestCall,
        door: Door,
        keep: Callable[[Rows[Any]], object],
        market: str | None,
        generation: int,
        priority: Priority,
        deadline: Deadline,
    ) -> None:
        super().__init__(priority, deadline)
        self.market = market
        self.generation = generation
        self._call = call
        self._door = door
        self._keep = keep

    def seal(self) -> RestCall:
        return self._call

    def read(self, body: bytes, received_at: datetime) -> Rows[Any]:
        items = self._door(self._call, body, received_at)
        self._keep(items)
        return items
