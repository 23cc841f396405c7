"""One rate group's way to Upbit: its own workers, queue and breaker, so that nothing which hangs here delays others.

A worker first waits for a turn at the limiter and then takes the most urgent job there is by then. So an urgent
question overtakes whatever is waiting, and a list of symbols can grow until the moment it leaves.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime
from heapq import heapify, heappop, heappush
from typing import Any, Final, Generic, Protocol, TypeVar

from .._concurrency import Clock, Deadline, WorkerPool, wait_event
from ..errors import (
    BannedError,
    ClosedError,
    MalformedDataError,
    MessageTooBigError,
    NetworkError,
    ProtocolError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    TlsError,
    UpbitBackboneError,
)
from ..models.enums import Priority, RateGroup
from ..resilience.circuit_breaker import Attempt, CircuitBreaker
from ..resilience.rate_limiter import Permit, RateLimiter
from ..wire.endpoints import RestCall, parse_remaining
from ..wire.rest_transport import RestResponse
from .rest_verdict import judge

T = TypeVar("T")

# A caller in a hurry does not prove that the server is slow; one that waited for this long does.
PATIENT_SECONDS: Final = 1.0
JOINABLE_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.1
# These are worth another attempt by the same worker; a 429 as well, once the limiter allows it.
_PASSING: Final = (NetworkError, ServerError, ProtocolError, RateLimitError)
_LASTING: Final = (TlsError, MessageTooBigError, BannedError)


class LatestDeadline(Deadline):
    """Ends when the last of several waiters gives up."""

    __slots__ = ()

    def extend(self, other: Deadline) -> None:
        if other._instant is None or self._instant is None:
            self._instant = None
        else:
            self._instant = max(self._instant, other._instant)


class Job(Generic[T]):
    """One question for Upbit. `prepare` may wait for company; `seal` names the call once and for all."""

    def __init__(self, priority: Priority, deadline: Deadline) -> None:
        self.priority = priority
        self.deadline = LatestDeadline(deadline._instant, deadline._clock)
        self.future: Future[T] = Future()
        self.is_queued = False
        self.began_at: float | None = None  # monotonic; when it was taken from the queue

    def is_joinable(self, now: float) -> bool:
        """Whether others may still wait for it: not for one that hangs, or each would keep it alive for the next."""
        return self.began_at is None or now - self.began_at < JOINABLE_SECONDS

    def prepare(self) -> None:
        """Called without a turn in hand, maybe several times."""

    def seal(self) -> RestCall:
        """The call to be made. Called once."""
        raise NotImplementedError

    def read(self, body: bytes, received_at: datetime) -> T:
        """The answer's meaning; raises MalformedDataError."""
        raise NotImplementedError


class Transport(Protocol):
    """What a lane needs of `RestTransport`."""

    def get(self, call: RestCall, deadline: Deadline, departure: Permit | None = None) -> RestResponse: ...

    def close(self) -> None: ...


class RestLane:
    """The workers of one rate group."""

    def __init__(
        self,
        group: RateGroup,
        *,
        transport: Transport,
        limiter: RateLimiter,
        breaker: CircuitBreaker,
        workers: int,
        attempts: int,
        clock: Clock,
        random: Callable[[], float],
        on_response: Callable[[RestResponse, datetime], object],
        name: str = "upbit-rest",
    ) -> None:
        self.group = group
        self.breaker = breaker
        self._transport = transport
        self._limiter = limiter
        self._attempts = attempts
        self._clock = clock
        self._random = random
        self._on_response = on_response
        self._stop = threading.Event()
        self._pool = WorkerPool(workers, f"{name}-{group.value}")
        self._lock = threading.Lock()  # guards everything below
        self._queue: list[tuple[Priority, int, Job[Any]]] = []
        self._numbers = itertools.count()
        self.requests = 0
        self.failures = 0
        self.bytes = 0

    def submit(self, job: Job[Any]) -> None:
        """Queue `job`; its future will be completed. Raises at once where it is certain that it cannot be served:
        ClosedError, ChannelUnavailableError (breaker open), BannedError, RateLimitError (surely after its deadline).
        Ctrl-C in the middle of it is the asker's alone: whoever shares the job is told to ask again.
        """
        try:
            self._enter(job)
        except Exception:
            raise
        except BaseException:
            if self._remove(job) or not job.is_queued:
                job.future.set_exception(NetworkError("the call was interrupted before it was sent; ask again"))
            raise

    def _enter(self, job: Job[Any]) -> None:
        if self._stop.is_set():
            raise ClosedError("the REST channel is closed")
        refusal = self.breaker.refusal()
        if refusal is not None:
            raise refusal
        with self._lock:
            ahead = sum(1 for priority, _, _ in self._queue if priority <= job.priority)
        self._limiter.forecast(self.group, ahead, job.deadline)
        with self._lock:
            heappush(self._queue, (job.priority, next(self._numbers), job))
            job.is_queued = True
        try:
            self._pool.submit(self._turn)
        except (ClosedError, RuntimeError):
            self._remove(job)
            raise

    def _turn(self) -> None:
        """Serve one job; there are as many turns as jobs."""
        while (job := self._most_urgent()) is not None:
            try:
                job.prepare()
                permit = self._limiter.permit(self.group, job.priority, job.deadline, self._stop)
            except UpbitBackboneError as error:
                if self._remove(job):
                    job.future.set_exception(error)
                    return
                continue  # another worker serves it already
            with permit:
                taken = self._take()
                if taken is not None:
                    self._serve(taken, permit)
            return

    def _most_urgent(self) -> Job[Any] | None:
        with self._lock:
            return self._queue[0][2] if self._queue else None

    def _take(self) -> Job[Any] | None:
        with self._lock:
            return heappop(self._queue)[2] if self._queue else None

    def _remove(self, job: Job[Any]) -> bool:
        with self._lock:
            rest = [entry for entry in self._queue if entry[2] is not job]
            was_there = len(rest) < len(self._queue)
            self._queue = rest
            heapify(self._queue)
            return was_there

    def _serve(self, job: Job[Any], permit: Permit) -> None:
        try:
            result = self._fetch(job, permit)
        except BaseException as error:  # noqa: BLE001  # whatever it is, those who wait must hear of it
            job.future.set_exception(error)
        else:
            job.future.set_result(result)

    def _fetch(self, job: Job[T], permit: Permit) -> T:
        job.began_at = self._clock.monotonic()
        call = job.seal()
        for attempt in itertools.count(1):
            try:
                if attempt == 1:
                    return self._attempt(job, call, permit)
                with self._limiter.permit(self.group, job.priority, job.deadline, self._stop) as another:
                    return self._attempt(job, call, another)
            except UpbitBackboneError as error:
                if not self._is_worth_repeating(error, attempt, job.deadline):
                    raise
                self._pause(error, attempt, job.deadline)
        raise AssertionError("unreachable")

    def _is_worth_repeating(self, error: UpbitBackboneError, attempt: int, deadline: Deadline) -> bool:
        is_passing = isinstance(error, _PASSING) and not isinstance(error, _LASTING) and error.retryable
        left = deadline.remaining_or(float("inf"))
        in_time = left > 0 and (error.retry_after is None or error.retry_after < left)
        return is_passing and in_time and attempt < self._attempts and not self._stop.is_set()

    def _pause(self, error: UpbitBackboneError, attempt: int, deadline: Deadline) -> None:
        if isinstance(error, RateLimitError):
            return  # the limiter knows how long
        wait = max(error.retry_after or 0.0, RETRY_SECONDS * 2 ** (attempt - 1) * (0.5 + self._random()))
        wait_event(self._stop, deadline.sooner(wait))

    def _attempt(self, job: Job[T], call: RestCall, permit: Permit) -> T:
        with self.breaker.admit() as attempt:
            started = time.monotonic()
            try:
                response = self._transport.get(call, job.deadline, permit)
            except UpbitBackboneError as error:
                self._count(0, failed=True)
                is_only_hurry = isinstance(error, RequestTimeoutError) and time.monotonic() - started < PATIENT_SECONDS
                if isinstance(error, (NetworkError, ProtocolError)) and not is_only_hurry:
                    attempt.failed(error)
                raise
            permit.answered()
            return self._meaning(job, call, response, permit.sent_at or started, attempt)

    def _meaning(self, job: Job[T], call: RestCall, response: RestResponse, sent_at: float, attempt: Attempt) -> T:
        received_at = response.received_at or self._clock.wall()
        self._on_response(response, received_at)
        remaining = parse_remaining(response.headers.get("remaining-req"))
        if remaining is not None and remaining.group is not None:
            self._limiter.learn(remaining.group, remaining.per_second, sent_at)
        error = judge(response, call, received_at)
        self._count(response.wire_bytes, failed=error is not None)
        if isinstance(error, BannedError):
            self._limiter.ban(seconds=error.retry_after, sent_at=sent_at)
            raise error
        self._limiter.passed(sent_at)
        if isinstance(error, RateLimitError):
            self._limiter.penalise(self.group, error.retry_after, sent_at)
        if isinstance(error, (ServerError, ProtocolError)):
            attempt.failed(error)
        if error is not None:
            raise error
        try:
            meaning = job.read(response.body, received_at)
        except MalformedDataError as malformed:
            self._count(0, failed=True, requests=0)
            attempt.failed(malformed)
            raise
        attempt.succeeded()
        return meaning

    def _count(self, size: int, *, failed: bool, requests: int = 1) -> None:
        with self._lock:
            self.requests += requests
            self.failures += failed
            self.bytes += size

    @property
    def waiting(self) -> int:
        with self._lock:
            return len(self._queue)

    def stop(self) -> None:
        """Nothing more begins; whoever waits for a turn is called off."""
        self._stop.set()

    def close(self, deadline: Deadline) -> list[str]:
        """Names of the workers that are still busy at the deadline. Everything queued ends with ClosedError."""
        self.stop()
        self._fail_queued()
        stubborn = self._pool.close(deadline)
        self._fail_queued()  # whoever was just submitting while the pool closed
        return stubborn

    def _fail_queued(self) -> None:
        with self._lock:
            jobs = [entry[2] for entry in self._queue]
            self._queue.clear()
        for job in jobs:
            job.future.set_exception(ClosedError("the REST channel was closed"))

    def __repr__(self) -> str:
        return f"<RestLane {self.group.value} {len(self._queue)} waiting, breaker {self.breaker.state}>"
