"""One question for Upbit and those who wait for its answer, each under a deadline of his own."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from concurrent.futures import Future
from datetime import datetime
from math import inf
from typing import Final, Generic, TypeVar

from .._concurrency import Deadline, SharedFuture, wait_future
from ..errors import NetworkError, RateLimitError, RequestTimeoutError, UpbitBackboneError
from ..exchange.endpoints import RestCall
from ..models.enums import Priority

T = TypeVar("T")

JOINABLE_SECONDS: Final = 1.0
# Who has at least so much more time than the one who sent the call does not share the end of that one's time.
WORTH_ASKING_SECONDS: Final = 0.1


class DesertedError(NetworkError):
    """Whoever was sending the call was interrupted (Ctrl-C), which is nobody else's business."""


class LatestDeadline(Deadline):
    """Ends when the last of several waiters gives up."""

    __slots__ = ()

    def extend(self, other: Deadline) -> None:
        if other._instant is None or self._instant is None:
            self._instant = None
        else:
            self._instant = max(self._instant, other._instant)


class Job(ABC, Generic[T]):
    """One question for Upbit. `prepare` may wait for company; `seal` names the call once and for all.

    A job that is led is carried out by the thread that asked, which leaves at its own deadline; any other one goes on
    until the last of those who wait for it has given up.
    """

    def __init__(self, priority: Priority, deadline: Deadline) -> None:
        self.priority = priority
        self.future: Future[T] = SharedFuture()
        self.is_led = False
        self.is_queued = False
        self.began_at: float | None = None  # monotonic; when it was taken from the queue
        self.sent_at = inf  # monotonic; when the request left whose answer is being read
        self._own = deadline
        self._latest = LatestDeadline(deadline._instant, deadline._clock)

    @property
    def deadline(self) -> Deadline:
        """When whoever carries it out gives up."""
        return self._own if self.is_led else self._latest

    def join(self, deadline: Deadline) -> None:
        """Somebody else waits for it, too, until `deadline`."""
        self._latest.extend(deadline)

    def is_joinable(self, now: float, max_age: float | None = None) -> bool:
        """Whether others may still wait for it: not for one that hangs, or each would keep it alive for the next; nor
        for one that left longer ago than `max_age`, because its answer tells what was true then."""
        limit = JOINABLE_SECONDS if max_age is None else min(max_age, JOINABLE_SECONDS)
        has_begun_lately = self.began_at is None or now - self.began_at < limit
        return has_begun_lately and not self.future.done()

    def result(self, deadline: Deadline, what: str) -> T:
        """What came of it. An error is raised as a copy, so that no two threads share a traceback."""
        try:
            return wait_future(self.future, deadline, what)
        except UpbitBackboneError as error:
            if not self.future.done():
                raise  # our own timeout, nobody else's
            raise copy.copy(error) from error

    def is_to_be_asked_again(self, error: UpbitBackboneError, deadline: Deadline) -> bool:
        """Whether `error` is the sender's own trouble, and there is time to ask without him."""
        if deadline.remaining_or(WORTH_ASKING_SECONDS) < WORTH_ASKING_SECONDS:
            return False
        ran_out_of_time = self.is_led and isinstance(error, (RequestTimeoutError, RateLimitError))
        return isinstance(error, DesertedError) or (ran_out_of_time and self._is_outlived_by(deadline))

    def _is_outlived_by(self, deadline: Deadline) -> bool:
        own, other = self._own._instant, deadline._instant
        return own is not None and (other is None or other - own > WORTH_ASKING_SECONDS)

    def desert(self) -> None:
        """Its asker was interrupted before anybody else had it in hand: whoever shares it is told to ask again."""
        if not self.is_queued and not self.future.done():
            self.future.set_exception(DesertedError("the call was interrupted; ask again"))

    def prepare(self) -> None:  # most have nothing to wait for
        """Called without a turn in hand, maybe several times."""

    @abstractmethod
    def seal(self) -> RestCall:
        """The call to be made. Called once."""

    @abstractmethod
    def read(self, body: bytes, received_at: datetime) -> T:
        """The answer's meaning; raises MalformedDataError."""
