"""Questions that are one call each: equal ones asked at the same time share the call, its result and its error."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import datetime
from typing import Generic, TypeVar

from .._concurrency import Clock, Deadline
from ..errors import UpbitBackboneError
from ..exchange.endpoints import RestCall
from ..models.enums import Priority
from ..store.intelligent_cache import IntelligentCache
from .call import Job
from .group_queue import GroupQueue

Model = TypeVar("Model")


class CallJob(Job[list[Model]]):
    """One fixed call."""

    def __init__(
        self,
        call: RestCall,
        decode: Callable[[bytes, datetime], list[Model]],
        remember: Callable[[Sequence[Model], float], object],
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
        self._remember(items, self.sent_at)
        return items


class CallMerger(Generic[Model]):
    """Where single calls are asked. An answer under way is not shared any more once its kind was invalidated."""

    def __init__(self, kind: str, lane: GroupQueue, cache: IntelligentCache, clock: Clock) -> None:
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
        remember: Callable[[Sequence[Model], float], object],
        symbol: str | None = None,
    ) -> list[Model]:
        """The decoded answer by `deadline`, or the error. A fresh answer is told to `remember` once, with the
        monotonic time at which its request left."""
        while True:
            job = self._share(call, decode, deadline, priority, remember, symbol)
            try:
                items = job.result(deadline, str(call))
            except UpbitBackboneError as error:
                if not job.is_to_be_asked_again(error, deadline):
                    raise
            else:
                return items.copy()  # one for each, so that nobody's sorting is another's surprise

    def _share(
        self,
        call: RestCall,
        decode: Callable[[bytes, datetime], list[Model]],
        deadline: Deadline,
        priority: Priority,
        remember: Callable[[Sequence[Model], float], object],
        symbol: str | None,
    ) -> CallJob[Model]:
        """The equal call that is under way, or a new one."""
        new = CallJob(call, decode, remember, self._cache.generation(), priority, deadline)
        # By its call, not by itself: a future that held its own job would keep the answer until the next full garbage
        # collection.
        new.future.add_done_callback(lambda done: self._landed(call, done))
        try:
            with self._lock:
                job = self._under_way.get(call)
                if job is not None and self._is_joinable(job, symbol):
                    job.join(deadline)
                else:
                    job = self._under_way[call] = new
            if job is new:
                self._lane.execute(job)
            else:
                self._cache.count_merged()
        except BaseException:
            new.desert()
            raise
        return job

    def _is_joinable(self, job: CallJob[Model], symbol: str | None) -> bool:
        is_outdated = self._cache.is_outdated((self._kind, symbol), job.generation)
        return not is_outdated and job.is_joinable(self._clock.monotonic())

    def _landed(self, call: RestCall, future: Future[list[Model]]) -> None:
        with self._lock:
            job = self._under_way.get(call)
            if job is not None and job.future is future:
                del self._under_way[call]
