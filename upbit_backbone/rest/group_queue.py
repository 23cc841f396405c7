"""Group queue: a breaker and a queue for each rate group, so that nothing which hangs here delays others.

Every question waits for its turn at the limiter itself, under its own priority, which whoever joins it may raise: there
is no other queue in front. It waits on the thread that asks; a worker's thread is for those that others may outlive.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .._concurrency import Deadline, EventCount, WorkerPool
from ..errors import ClosedError, NetworkError, RequestTimeoutError, UpbitBackboneError, one_line
from ..models.enums import Priority, RateGroup
from .attempt import RetryingCaller
from .call import Job

if TYPE_CHECKING:
    from ..models.report import GroupStats

T = TypeVar("T")

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
        except UpbitBackboneError as error:
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
            raise NetworkError(f"no thread could be started for the request ({one_line(error)}); ask again") from error
        future.add_done_callback(called_off)  # by `close`, before it began

    def _run(self, job: Job[T]) -> T:
        while True:
            self._wait_for_place(job)
            # Before the turn is taken, which must not be held while a batch waits for company.
            job.prepare()
            with self.permit(job) as permit:
                try:
                    # Others of its market may have had their turn first; then this one goes back unused.
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
                raise RequestTimeoutError(f"{job.market}: its earlier requests still hang; ask again")
        finally:
            with self._places:
                self._waiting.discard(job)
        if self.called_off.is_set():
            raise ClosedError("the REST channel was closed")

    def _has_place(self, job: Job[Any]) -> bool:
        if job.market is None or job.urgency.priority is Priority.HIGH:
            return True
        return sum(each.market == job.market for each in tuple(self._under_way)) < self._per_market

    def _take_place(self, job: Job[Any]) -> bool:
        with self._places:
            if not self._has_place(job):
                return False
            self._under_way.add(job)
            return True

    def _leave_place(self, job: Job[Any]) -> None:
        with self._places:
            self._under_way.discard(job)
        # After the lock, and all of them: places are counted by market, and the first in line may want another.
        self._place_left.notify_all()

    def stats(self, waiting: int = 0) -> GroupStats:
        return super().stats(waiting + len(self._waiting))

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
