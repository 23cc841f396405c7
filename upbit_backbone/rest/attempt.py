"""Retrying caller: breaker, transport, what the answer means, and another attempt where that may help."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .._concurrency import Clock, Deadline, Flag, wait_event
from ..errors import (
    BannedError,
    ClosedError,
    MaintenanceError,
    MalformedDataError,
    MessageTooBigError,
    NetworkError,
    ProtocolError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    TlsError,
    UpbitBackboneError,
    one_line,
)
from ..exchange.endpoints import RestCall
from ..exchange.rates import parse_remaining
from ..exchange.status import OK, error_for_status, wait_seconds
from ..limits.rate_limiter import Permit, RateLimiter
from ..models.enums import RateGroup
from ..resilience.circuit_breaker import Attempt, CircuitBreaker
from ..unify.rest import decode_error
from ..wire.rest_transport import RestResponse, Transport
from .call import Job

if TYPE_CHECKING:
    from ..models.report import GroupStats

T = TypeVar("T")

# A caller in a hurry does not prove that the server is slow; one that waited for this long does, and so does one to
# whom it said nothing at all for longer than it usually takes.
PATIENT_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.1
# These are worth another attempt by the same thread; a 429 as well, once the limiter allows it.
_PASSING: Final = (NetworkError, ServerError, ProtocolError, RateLimitError)
_LASTING: Final = (TlsError, MessageTooBigError, BannedError)


def error_for_response(response: RestResponse, call: RestCall, now: datetime) -> UpbitBackboneError | None:
    """The error an answer stands for, or None for a good one. `now` tells the end of a ban as a time."""
    if response.status == OK:
        looks_like_html = response.body[:64].lstrip().startswith(b"<")
        message = f"{call.path} answered with a web page instead of data"
        return MaintenanceError(message, status=OK) if looks_like_html else None
    envelope = decode_error(response.body)
    said = envelope[1] if envelope else one_line(response.body[:200].decode("utf-8", "replace").strip())
    wait = wait_seconds(response.headers, response.body)
    message = f"{call.path} answered {response.status}"
    return error_for_status(response.status, message, said=said, wait=wait, now=now, call=call)


# (rate group, seconds, error or None, bytes on the wire) of every call, whatever came of it
Measure = Callable[[str, float, BaseException | None, int], object]
# Every answer in whatever status, and when it came
Heard = Callable[[RestCall, RestResponse, datetime], object]


class RetryingCaller:
    """Makes the calls of one rate group, on whatever thread wants one; `called_off` ends what waits in between."""

    def __init__(
        self,
        group: RateGroup,
        *,
        transport: Transport,
        limiter: RateLimiter,
        breaker: CircuitBreaker,
        attempts: int,
        clock: Clock,
        random: Callable[[], float],
        on_response: Heard,
        measure: Measure = lambda *_: None,
    ) -> None:
        self.group = group
        self.limiter = limiter
        self.breaker = breaker
        self.called_off = Flag()
        self._transport = transport
        self._attempts = attempts
        self._clock = clock
        self._random = random
        self._on_response = on_response
        self._measure = measure
        self._lock = threading.Lock()  # guards the counts
        self.requests = 0
        self._failures = 0
        self._bytes = 0

    def permit(self, job: Job[Any]) -> Permit:
        """A turn for `job`; see `RateLimiter.permit`."""
        return self.limiter.permit(self.group, job.urgency, job.deadline, self.called_off, self.breaker.refusal)

    def fetch(self, job: Job[T], permit: Permit) -> T:
        """The answer to `job`, for which a turn has come; one of our errors by its deadline."""
        job.began_at = self._clock.monotonic()
        # Once, before the first attempt: a batch that grew between two attempts would have members who never were in
        # its answer.
        call = job.seal()
        for attempt in itertools.count(1):
            try:
                if attempt == 1:
                    # The first attempt uses the turn for which the job has waited; each further one takes its own, so
                    # that retries count, too.
                    return self._attempt(job, call, permit)
                with self.permit(job) as another:
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
        return is_passing and in_time and attempt < self._attempts and not self.called_off.is_set()

    def _pause(self, error: UpbitBackboneError, attempt: int, deadline: Deadline) -> None:
        if isinstance(error, RateLimitError):
            return  # the limiter knows how long
        wait = max(error.retry_after or 0.0, RETRY_SECONDS * 2 ** (attempt - 1) * (0.5 + self._random()))
        wait_event(self.called_off, deadline.sooner(wait))

    def _attempt(self, job: Job[T], call: RestCall, permit: Permit) -> T:
        # After the turn, not before: a probe of a half-open breaker must not wait in a queue while all others are
        # refused for it.
        with self.breaker.admit() as attempt:
            started = time.monotonic()
            try:
                response = self._transport.get(call, job.deadline, permit)
            except BaseException as error:
                self._lost(error, permit, attempt, time.monotonic() - started)
                raise
            permit.answered()
            return self._meaning(job, call, response, permit.sent_at or started, attempt)

    def _lost(self, error: BaseException, permit: Permit, attempt: Attempt, waited: float) -> None:
        """No answer, for whatever reason: what that means for the limits, the measurements and the breaker."""
        is_ours = isinstance(error, UpbitBackboneError)
        if not is_ours or isinstance(error, (RequestTimeoutError, ClosedError)):
            permit.given_up()  # by us; where the server ended it, nothing can arrive any more
        if not isinstance(error, UpbitBackboneError):
            return
        self._count(0, failed=True)
        self._measure(self.group.value, waited, error, 0)
        is_timeout = isinstance(error, RequestTimeoutError)
        is_only_hurry = is_timeout and waited < PATIENT_SECONDS and not permit.proves_silence(waited)
        # What came was too much for us, but it came: a matter of the content, like what cannot be read.
        is_about_content = isinstance(error, MessageTooBigError)
        if isinstance(error, (NetworkError, ProtocolError)) and not (is_only_hurry or is_about_content):
            attempt.failed(error)

    def _meaning(self, job: Job[T], call: RestCall, response: RestResponse, sent_at: float, attempt: Attempt) -> T:
        received_at = response.received_at or self._clock.wall()
        # Before it is judged: a recording must hold the errors as well.
        self._on_response(call, response, received_at)
        remaining = parse_remaining(response.headers.get("remaining-req"))
        if remaining is not None and remaining.group is not None:
            self.limiter.learn(remaining.group, remaining.per_second, sent_at)
        error = error_for_response(response, call, received_at)
        self._count(response.wire_bytes, failed=error is not None)
        self._measure(self.group.value, response.elapsed, error, response.wire_bytes)
        if isinstance(error, BannedError):
            # At once, before any error is raised: what other threads are about to send is stopped by this.
            self.limiter.ban(seconds=error.retry_after, sent_at=sent_at)
            raise error
        # Also a 500 shows that the ban is over: only a 418 says that it is not.
        self.limiter.passed(sent_at)
        if isinstance(error, RateLimitError):
            self.limiter.penalise(self.group, error.retry_after, sent_at)
        if isinstance(error, (ServerError, ProtocolError)):
            attempt.failed(error)
        if error is not None:
            raise error
        attempt.succeeded()  # the channel brought what Upbit said; whether that can be read is no matter of the channel
        job.sent_at = sent_at
        try:
            return job.read(response.body, received_at)
        except MalformedDataError:
            self._count(0, failed=True, requests=0)
            raise

    def _count(self, size: int, *, failed: bool, requests: int = 1) -> None:
        with self._lock:
            self.requests += requests
            self._failures += failed
            self._bytes += size

    def refusal(self) -> UpbitBackboneError | None:
        """Why a question would fail at once (breaker open), or None."""
        # The router wants to know before every question; the breaker itself is asked by the attempt that follows.
        return None if self.breaker.is_untroubled else self.breaker.refusal()

    def stats(self, waiting: int = 0) -> GroupStats:
        """How the group stands, with so many `waiting` for something else than a turn."""
        from ..models.report import GroupStats

        view = self.limiter.look(self.group)
        return GroupStats(
            group=self.group.value,
            limit_per_second=view.per_second,
            available=float(view.available),
            waiting=view.waiting + waiting,
            granted=view.granted,
            limited_429=view.penalties,
            banned_418=self.limiter.bans,
            paused_for=view.paused_for,
            breaker=self.breaker.state,
            requests=self.requests,
            failures=self._failures,
            bytes=self._bytes,
        )

    def __repr__(self) -> str:
        return f"<RetryingCaller {self.group.value} {self.requests} requests, breaker {self.breaker.state}>"
