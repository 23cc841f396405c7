"""Group queue: a breaker, a queue and the attempts of each rate group, so that nothing which hangs here delays others.

Every question waits for its turn at the limiter itself, under its own priority, which whoever joins it may raise: there
is no other queue in front. It waits on the thread that asks; a worker's thread is for those that others may outlive. A
`Job` is one question and those who wait for its answer, each under a deadline of his own.
"""

from __future__ import annotations

import copy
import itertools
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .. import errors
from .._concurrency import (
    Clock,
    Deadline,
    EventCount,
    Flag,
    LatestDeadline,
    SharedFuture,
    WorkerPool,
    about_to_wait,
    get_logger,
    wait_event,
    wait_future,
)
from .._lazy import loading
from ..exchange.endpoints import RestCall, parse_remaining
from ..exchange.status import OK, error_for_status, wait_seconds
from ..limits.host_limiter import Urgency
from ..limits.rate_limiter import Permit, RateLimiter
from ..models.enums import Priority, RateGroup
from ..resilience.circuit_breaker import Attempt, CircuitBreaker
from ..unify.rest import Rows, decode_error
from ..wire.rest_transport import RestResponse, Transport

if TYPE_CHECKING:
    from ..models.report import GroupStats
    from ..upstream.shared_answers import SharedAnswer, SharedAnswers, Turn


log = get_logger("upbit_backbone.rest")

T = TypeVar("T")

# Answers take a fraction of this; a call that is older probably hangs, and whoever joins it would hang with it.
JOINABLE_SECONDS: Final = 1.0
# Who has at least so much more time than the one who sent the call does not share the end of that one's time.
WORTH_ASKING_SECONDS: Final = 0.1

# What decodes an answer and takes note of it: every answer goes through this one door.
Door = Callable[[RestCall, bytes, datetime], Rows[Any]]


class AbandonedError(errors.NetworkError):
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
        self.left_at = inf  # monotonic; when the request began to leave whose answer is being read
        # How old an answer of another process may be; None: none is good enough.
        self.shared_age: float | None = None
        self.turn: Turn | None = None  # among those processes
        self.age = 0.0  # of the answer, where it is theirs: seconds since their request left
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
        except errors.UpbitBackboneError as error:
            if not self.done():
                raise  # our own timeout, nobody else's
            # Raising one object in several threads makes them write into one traceback.
            raise copy.copy(error) from error

    def is_to_be_asked_again(self, error: errors.UpbitBackboneError, deadline: Deadline) -> bool:
        """Whether `error` is the sender's own trouble, and there is time to ask without him."""
        # Too late for a round trip: the error that is there says more than the timeout that would follow.
        if deadline.remaining_or(WORTH_ASKING_SECONDS) < WORTH_ASKING_SECONDS:
            return False
        ran_out_of_time = self.is_inline and isinstance(error, (errors.RequestTimeoutError, errors.RateLimitError))
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
        """The call to be made; nothing is added to it from now on. Called again, it is the same."""

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
        shared_age: float | None = None,
    ) -> None:
        super().__init__(priority, deadline)
        self.shared_age = shared_age
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


# A caller in a hurry does not prove that the server is slow; one that waited for this long does, and so does one to
# whom it said nothing at all for longer than it usually takes.
PATIENT_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.1  # doubled each time and spread, so that who failed together does not return together
# These are worth another attempt by the same thread; a 429 as well, once the limiter allows it.
_PASSING: Final = (errors.NetworkError, errors.ServerError, errors.ProtocolError, errors.RateLimitError)
_LASTING: Final = (errors.TlsError, errors.MessageTooBigError, errors.BannedError)


def error_for_response(response: RestResponse, call: RestCall, now: datetime) -> errors.UpbitBackboneError | None:
    """The error an answer stands for, or None for a good one. `now` tells the end of a ban as a time."""
    if response.status == OK:
        looks_like_html = response.body[:64].lstrip().startswith(b"<")
        message = f"{call.path} answered with a web page instead of data"
        return errors.MaintenanceError(message, status=OK) if looks_like_html else None
    envelope = decode_error(response.body)
    said = envelope[1] if envelope else errors.one_line(response.body[:200].decode("utf-8", "replace").strip())
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
        shared: SharedAnswers | None = None,
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
        self._shared = shared
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
            except errors.UpbitBackboneError as error:
                if not self._is_worth_repeating(error, attempt, job.deadline):
                    raise
                self._pause(error, attempt, job.deadline)
        raise AssertionError("unreachable")

    def _is_worth_repeating(self, error: errors.UpbitBackboneError, attempt: int, deadline: Deadline) -> bool:
        is_passing = isinstance(error, _PASSING) and not isinstance(error, _LASTING) and error.retryable
        left = deadline.remaining_or(float("inf"))
        in_time = left > 0 and (error.retry_after is None or error.retry_after < left)
        return is_passing and in_time and attempt < self._attempts and not self.called_off.is_set()

    def _pause(self, error: errors.UpbitBackboneError, attempt: int, deadline: Deadline) -> None:
        if isinstance(error, errors.RateLimitError):
            return  # the limiter knows how long
        wait = max(error.retry_after or 0.0, RETRY_SECONDS * 2 ** (attempt - 1) * (0.5 + self._random()))
        wait_event(self.called_off, deadline.sooner(wait))

    def _attempt(self, job: Job[T], call: RestCall, permit: Permit) -> T:
        # After the turn, not before: a probe of a half-open breaker must not wait in a queue while all others are
        # refused for it.
        with self.breaker.admit() as attempt:
            started = time.monotonic()
            about_to_wait()
            try:
                response = self._transport.get(call, job.deadline, permit)
            except BaseException as error:
                self._lost(error, permit, attempt, time.monotonic() - started)
                raise
            permit.answered()
            job.left_at = permit.left_at or started
            return self._meaning(job, call, response, permit.sent_at or started, attempt)

    def _lost(self, error: BaseException, permit: Permit, attempt: Attempt, waited: float) -> None:
        """No answer, for whatever reason: what that means for the limits, the measurements and the breaker."""
        is_ours = isinstance(error, errors.UpbitBackboneError)
        if not is_ours or isinstance(error, (errors.RequestTimeoutError, errors.ClosedError)):
            permit.given_up()  # by us; where the server ended it, nothing can arrive any more
        if not isinstance(error, errors.UpbitBackboneError):
            return
        self._count(0, failed=True)
        self._measure(self.group.value, waited, error, 0)
        is_timeout = isinstance(error, errors.RequestTimeoutError)
        is_only_hurry = is_timeout and waited < PATIENT_SECONDS and not permit.proves_silence(waited)
        # What came was too much for us, but it came: a matter of the content, like what cannot be read.
        is_about_content = isinstance(error, errors.MessageTooBigError)
        if isinstance(error, (errors.NetworkError, errors.ProtocolError)) and not (is_only_hurry or is_about_content):
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
        if isinstance(error, errors.BannedError):
            # At once, before any error is raised: what other threads are about to send is stopped by this.
            self.limiter.ban(seconds=error.retry_after, sent_at=sent_at)
            raise error
        # Also a 500 shows that the ban is over: only a 418 says that it is not.
        self.limiter.passed(sent_at)
        if isinstance(error, errors.RateLimitError):
            self.limiter.penalise(self.group, error.retry_after, sent_at)
        if isinstance(error, (errors.ServerError, errors.ProtocolError)):
            attempt.failed(error)
        if error is not None:
            raise error
        attempt.succeeded()  # the channel brought what Upbit said; whether that can be read is no matter of the channel
        try:
            found = job.read(response.body, received_at)
        except errors.MalformedDataError:
            self._count(0, failed=True, requests=0)
            raise
        if job.turn is not None:
            job.turn.tell(response.body, job.left_at)
        return found

    def shared(self, job: Job[T]) -> T | None:
        """What another process has been told, where that is young enough; else None, and `job` has its turn among
        them. Asked again, what was told meanwhile."""
        # Whoever is urgent asks for himself: another's question may be waiting behind many.
        if self._shared is None or job.shared_age is None or job.urgency.priority is Priority.HIGH:
            return None
        call = job.seal()
        if job.turn is None:
            job.turn = self._shared.ask(call, job.shared_age, job.deadline, self.called_off)
        else:
            job.turn.look_here()
        answer, job.turn.answer = job.turn.answer, None
        try:
            return None if answer is None else self._told(job, call, answer)
        except errors.MalformedDataError as error:
            # Upbit is asked, as if there had been none.
            job.age, job.left_at, job.began_at = 0.0, inf, None
            log.warning("what another process left cannot be read", extra={"why": errors.one_line(error)})
            return None

    def _told(self, job: Job[T], call: RestCall, answer: SharedAnswer) -> T:
        """As if it had just come to a request that left when theirs did."""
        job.age = time.monotonic() - answer.left_at
        job.began_at = job.left_at = answer.left_at
        received_at = self._clock.wall()
        response = RestResponse(OK, {}, answer.body, job.age, 0, received_at)
        self._on_response(call, response, received_at)
        return job.read(answer.body, received_at)

    def _count(self, size: int, *, failed: bool, requests: int = 1) -> None:
        with self._lock:
            self.requests += requests
            self._failures += failed
            self._bytes += size

    def refusal(self) -> errors.UpbitBackboneError | None:
        """Why a question would fail at once (breaker open), or None."""
        # The router wants to know before every question; the breaker itself is asked by the attempt that follows.
        return None if self.breaker.is_untroubled else self.breaker.refusal()

    def stats(self, waiting: int = 0) -> GroupStats:
        """How the group stands, with so many `waiting` for something else than a turn."""
        with loading():
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


# Whose question waits where.

# Whose question has less time than this leaves it to a worker, so that whoever joins it is not left behind soon.
INLINE_SECONDS: Final = 2.0
# Threads are born when there is work for them; beyond so many, questions wait on the threads of those who ask.
MOST_WORKERS: Final = 32


class GroupQueue(RetryingCaller):
    """Carries questions out: the most urgent first, and of one market at most `per_market` at a time.

    The bound keeps a market whose requests hang from taking the others' turns, sockets and threads. It does not hold
    for urgent questions, which are few and must not wait for what hangs.
    """

    def __init__(self, group: RateGroup, *, per_market: int, **calling: Any) -> None:
        """`calling` is what a RetryingCaller is made with."""
        super().__init__(group, **calling)
        self._per_market = per_market
        self._pool = WorkerPool(MOST_WORKERS, f"upbit-rest-{group.value}")
        self._places = threading.Lock()  # guards the two below
        self._place_left = EventCount()
        self._under_way: set[Job[Any]] = set()
        self._waiting: set[Job[Any]] = set()  # for a place, not yet for a turn

    def execute(self, job: Job[Any], *, here: bool = True) -> None:
        """See to it that `job` will be completed: run inline where the asker is in no hurry, which saves two changes of
        threads; else, and with `here=False`, by a worker.

        Raises nothing of ours: errors are in the job. An interruption (Ctrl-C) is the asker's alone: whoever shares
        the job is told to ask again.
        """
        # An inline job ends with its asker's time; one that has little of it would leave those who join behind.
        is_in_a_hurry = job.deadline.remaining_or(INLINE_SECONDS) < INLINE_SECONDS
        try:
            if (here and not is_in_a_hurry) or not self._pool.has_room:
                job.is_inline = True
                # On the asker's own thread: a lone question changed threads twice before, and beside a computing thread
                # each change may cost milliseconds.
                job.set_result(self._run(job))
            else:
                self._hand_over(job)
        except errors.UpbitBackboneError as error:
            job.set_exception(error)
        except BaseException:
            # Ctrl-C belongs to the thread that asked; those who joined have done nothing to deserve it.
            job.abandon()
            raise

    def _hand_over(self, job: Job[Any]) -> None:
        def work() -> None:
            try:
                job.set_result(self._run(job))
            except BaseException as error:  # noqa: BLE001  # whatever it is, those who wait must hear of it
                job.set_exception(error)

        def called_off(done: Any) -> None:
            if (error := done.exception()) is not None:
                job.set_exception(error)

        try:
            future = self._pool.submit(work)
            job.is_handed_over = True
        except RuntimeError as error:
            raise errors.NetworkError(
                f"no thread could be started for the request ({errors.one_line(error)}); ask again"
            ) from error
        future.add_done_callback(called_off)  # by `close`, before it began

    def _run(self, job: Job[T]) -> T:
        try:
            return self._carry_out(job)
        finally:
            if job.turn is not None:
                job.turn.leave()

    def _carry_out(self, job: Job[T]) -> T:
        while True:
            self._wait_for_place(job)
            # Before the turn is taken, which must not be held while a batch waits for company.
            job.prepare()
            if job.turn is None and (found := self.shared(job)) is not None:
                return found
            with self.permit(job) as permit:
                # While many waited for one limit, the first of them may have been told what all want to know; then this
                # one goes back unused.
                if job.turn is not None and (found := self.shared(job)) is not None:
                    return found
                try:
                    # Others of its market may have had their turn first; then it does as well.
                    if self._take_place(job):
                        return self.fetch(job, permit)
                finally:
                    self._leave_place(job)

    def _wait_for_place(self, job: Job[Any]) -> None:
        if self._has_place(job):
            return
        try:
            with self._places:
                self._waiting.add(job)
            # In slices: whoever makes the job more urgent meanwhile does not know of this wait.
            if not self._place_left.wait_for(lambda: self.called_off.is_set() or self._has_place(job), job.deadline):
                raise errors.RequestTimeoutError(f"{job.market}: its earlier requests still hang; ask again")
        finally:
            with self._places:
                self._waiting.discard(job)
        if self.called_off.is_set():
            raise errors.ClosedError("the REST channel was closed")

    def _has_place(self, job: Job[Any]) -> bool:
        if job.market is None or job.urgency.priority is Priority.HIGH:
            return True
        return sum(each.market == job.market for each in tuple(self._under_way) if not each.done()) < self._per_market

    def _take_place(self, job: Job[Any]) -> bool:
        with self._places:
            if not self._has_place(job):
                return False
            # Ctrl-C may have come on the way to `_leave_place`: a job that is done keeps no place.
            self._under_way = self._not_done() | {job}
            return True

    def _not_done(self) -> set[Job[Any]]:
        return {each for each in self._under_way if not each.done()}

    def _leave_place(self, job: Job[Any]) -> None:
        with self._places:
            self._under_way.discard(job)
        # After the lock, and all of them: places are counted by market, and the first in line may want another.
        self._place_left.notify_all()

    def stats(self, waiting: int = 0) -> GroupStats:
        return super().stats(waiting + sum(not job.done() for job in tuple(self._waiting)))

    def stop(self) -> None:
        """Nothing more begins; whoever waits for a turn or a place is called off."""
        self.called_off.set()
        self._place_left.notify_all()

    def close(self, deadline: Deadline) -> list[str]:
        """Names of the workers that are still busy at the deadline. Everything that waits ends with ClosedError."""
        self.stop()
        return self._pool.close(deadline)

    def __repr__(self) -> str:
        return f"<GroupQueue {self.group.value} {self.requests} requests, breaker {self.breaker.state}>"
