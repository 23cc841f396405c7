"""One rate group's way to Upbit: its own workers, queue and breaker, so that nothing which hangs here delays others.

A question that finds nobody waiting is carried out by the thread that asks it. Behind others it queues for a worker,
who first waits for a turn at the limiter and then takes the most urgent job there is by then. So an urgent question
overtakes whatever is waiting, and a list of symbols can grow until the moment it leaves.
"""

from __future__ import annotations

import itertools
import threading
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, Final

from .._concurrency import Deadline, WorkerPool
from ..errors import ClosedError, NetworkError, UpbitBackboneError, one_line
from ..limits.rate_limiter import Permit
from ..models.enums import Priority
from .attempt import RetryingCaller
from .call import Job

if TYPE_CHECKING:
    from ..models.report import GroupStats

# Who has less time than this leaves his question to a worker, so that whoever joins it is not left behind soon.
LEADING_SECONDS: Final = 2.0


class GroupQueue:
    """The workers of one rate group."""

    def __init__(self, caller: RetryingCaller, *, workers: int, name: str = "upbit-rest") -> None:
        self._caller = caller
        self._workers = workers
        self._pool = WorkerPool(workers, f"{name}-{caller.group.value}")
        self._lock = threading.Lock()  # guards everything below
        self._queue: list[tuple[Priority, int, Job[Any]]] = []
        self._numbers = itertools.count()
        self._led = 0

    def execute(self, job: Job[Any], *, here: bool = True) -> None:
        """See to it that `job`'s future will be completed: where nobody waits for a turn, and the asker is in no hurry,
        at once and on this thread, which saves two changes of threads; else, and with `here=False`, by a worker.

        Raises nothing of ours: errors are in the future. An interruption (Ctrl-C) is the asker's alone: whoever shares
        the job is told to ask again.
        """
        try:
            if not (here and self._lead(job)):
                self._enter(job)
        except UpbitBackboneError as error:
            job.future.set_exception(error)
        except BaseException:
            if self._remove(job):
                job.is_queued = False
            job.desert()
            raise

    def _lead(self, job: Job[Any]) -> bool:
        """Carry `job` out on the calling thread; False, and nothing was done, if others come first."""
        if job.deadline.remaining_or(LEADING_SECONDS) < LEADING_SECONDS:
            return False
        with self._lock:
            if self._queue or self._led >= self._workers or self._caller.stop.is_set():
                return False
            self._led += 1
        try:
            job.is_led = True
            self._refuse_if_broken()
            with self._caller.permit(job) as permit:
                result = self._caller.fetch(job, permit)
        finally:
            with self._lock:
                self._led -= 1
        job.future.set_result(result)
        return True

    def _refuse_if_broken(self) -> None:
        refusal = self._caller.breaker.refusal()
        if refusal is not None:
            raise refusal

    def _enter(self, job: Job[Any]) -> None:
        """Queue `job`. Raises where it is certain that it cannot be served: ClosedError, ChannelUnavailableError
        (breaker open), BannedError, RateLimitError (surely after its deadline), NetworkError (no thread to be had).
        """
        if self._caller.stop.is_set():
            raise ClosedError("the REST channel is closed")
        self._refuse_if_broken()
        with self._lock:
            ahead = sum(1 for priority, _, _ in self._queue if priority <= job.priority)
        self._caller.limiter.forecast(self._caller.group, ahead, job.deadline)
        with self._lock:
            heappush(self._queue, (job.priority, next(self._numbers), job))
            job.is_queued = True
        try:
            self._pool.submit(self._turn)
        except (ClosedError, RuntimeError) as error:
            if not self._remove(job):
                return  # called off by `close` meanwhile
            if isinstance(error, ClosedError):
                raise
            raise NetworkError(f"no thread could be started for the request ({one_line(error)}); ask again") from error

    def _turn(self) -> None:
        """Serve one job; there are as many turns as jobs."""
        while (job := self._most_urgent()) is not None:
            try:
                job.prepare()
                permit = self._caller.permit(job)
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
            result = self._caller.fetch(job, permit)
        except BaseException as error:  # noqa: BLE001  # whatever it is, those who wait must hear of it
            job.future.set_exception(error)
        else:
            job.future.set_result(result)

    @property
    def requests(self) -> int:
        """Made so far. No lock, so that a forked child can look."""
        return self._caller.requests

    def refusal(self) -> UpbitBackboneError | None:
        """Why a question would fail at once (breaker open), or None."""
        return self._caller.breaker.refusal()

    def stats(self) -> GroupStats:
        with self._lock:
            waiting = len(self._queue)
        return self._caller.stats(waiting)

    def stop(self) -> None:
        """Nothing more begins; whoever waits for a turn is called off."""
        self._caller.stop.set()

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
        return f"<GroupQueue {len(self._queue)} waiting, {self._caller!r}>"
