"""Questions that are one call each: equal ones asked at the same time share the call, its result and its error."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import datetime
from typing import Generic, TypeVar

from .._concurrency import Clock, Deadline, wait_future
from ..errors import UpbitBackboneError
from ..models.enums import Priority
from ..store.intelligent_cache import IntelligentCache
from ..wire.endpoints import RestCall
from .rest_lane import Job, RestLane

Model = TypeVar("Model")
T = TypeVar("T")


def shared_result(future: Future[T], deadline: Deadline, what: str) -> T:
    """The result that several threads wait for; an error is raised as a copy, so that no two share a traceback."""
    try:
        return wait_future(future, deadline, what)
    except UpbitBackboneError as error:
        if not future.done():
            raise  # our own timeout, nobody else's
        raise copy.copy(error) from error


class CallJob(Job[list[Model]]):
    """One fixed call."""

    def __init__(
        self,
        call: RestCall,
        decode: Callable[[bytes, datetime], list[Model]],
        remember: Callable[[Sequence[Model]], object],
        generation: int,
        priority: Priority,
        deadline: Deadline,
    ) -> None:
        super().__init__(priority, deadline)
        self.call = call
        self.generation = generation
        self._decode = decode
        self._remember = remember

    def seal(self) -> RestCall:
        return self.call

    def read(self, body: bytes, received_at: datetime) -> list[Model]:
        items = self._decode(body, received_at)
        self._remember(items)
        return items


class CallDesk(Generic[Model]):
    """Where single calls are asked. An answer under way is not shared any more once its kind was invalidated."""

    def __init__(self, kind: str, lane: RestLane, cache: IntelligentCache, clock: Clock) -> None:
        self._kind = kind
        self._clock = clock
        self._lane = lane
        self._cache = cache
        self._lock = threading.Lock()  # guards _under_way
        self._under_way: dict[RestCall, CallJob[Model]] = {}

    def ask(
        self,
        call: RestCall,
        decode: Callable[[bytes, datetime], list[Model]],
        deadline: Deadline,
        priority: Priority,
        remember: Callable[[Sequence[Model]], object],
        symbol: str | None = None,
    ) -> list[Model]:
        """The decoded answer by `deadline`, or the error. A fresh answer is told to `remember` once."""
        generation = self._cache.generation()
        with self._lock:
            job = self._under_way.get(call)
            is_shared = (
                job is not None
                and job.is_joinable(self._clock.monotonic())
                and not self._cache.is_outdated((self._kind, symbol), job.generation)
            )
            if job is not None and is_shared:
                job.deadline.extend(deadline)
            else:
                job = CallJob(call, decode, remember, generation, priority, deadline)
                self._under_way[call] = job
        if is_shared:
            self._cache.count_merged()
        else:
            self._start(job)
        items = shared_result(job.future, deadline, str(call))
        return list(items)  # one for each, so that nobody's sorting is another's surprise

    def _start(self, job: CallJob[Model]) -> None:
        # By its call, not by itself: a future that held its own job would keep the answer until the next full
        # garbage collection.
        call = job.call
        job.future.add_done_callback(lambda done: self._landed(call, done))
        try:
            self._lane.submit(job)
        except Exception as error:
            job.future.set_exception(error)
            raise

    def _landed(self, call: RestCall, future: Future[list[Model]]) -> None:
        with self._lock:
            job = self._under_way.get(call)
            if job is not None and job.future is future:
                del self._under_way[call]
