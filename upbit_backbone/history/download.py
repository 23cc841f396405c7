"""Download: many pages at once; keeps a few requests under way until one area after the other is known.

The pages run on a shared pool; everything else happens on the thread that consumes the download, so progress
callbacks and cancellation need no locks.
"""

from __future__ import annotations

import copy
import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NoReturn, Protocol

from .._concurrency import SYSTEM_CLOCK, WAIT_SLICE_SECONDS, Clock, Deadline, EventCount, WorkerPool
from ..errors import DownloadCancelledError, RequestTimeoutError, UpbitBackboneError
from ..models.market import CandleData
from ..unify.reader import UnreadRow
from .paging import Area, Page
from .ranges import ResumePoint

PARALLEL_PAGES: Final = 4  # ten requests a second stay possible up to 400 ms round trip
SECONDS_PER_TURN: Final = 0.1  # Upbit's rate: ten a second
# Page after page is the only way that costs no request too many, and one too many may cost a whole second: after a
# burst of ten the next turn is that far away. So a sparse stretch is split only to save more than this.
SPLIT_SECONDS: Final = 0.5
PACE_PAGES: Final = 3  # the first pages also pay for connecting
PACE_FORGETS: Final = 1.002  # slowly, because what is measured includes waiting for a turn
PAGE_SECONDS: Final = 10.0  # no single page may eat the whole download's time
PAGE_ATTEMPTS: Final = 4
FIRST_RETRY_SECONDS: Final = 0.25
LONGEST_RETRY_SECONDS: Final = 30.0  # a longer ban is for the caller to decide about


class CancelToken(Protocol):
    """Anything with `is_set()`, such as a threading.Event."""

    def is_set(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """A page's rows, oldest first, the exchange's time just before it was asked for, and how long it took. `unread` are
    rows that cannot be read, `holes` their starts, oldest first."""

    rows: list[CandleData]
    asked_at: datetime
    seconds: float
    unread: Sequence[UnreadRow] = ()
    holes: Sequence[datetime] = ()


@dataclass(order=True, slots=True)
class _Retry:
    due: float
    number: int
    area: Area = field(compare=False)
    page: Page = field(compare=False)
    attempt: int = field(compare=False)


Fetch = Callable[[Page, Deadline], Answer]
Keep = Callable[[datetime, datetime, Answer], None]


class Pace:
    """How long Upbit takes for a page, told by the fastest of late, since the others may have waited for their turn.

    Shared by the downloads of one history without a lock: a value lost between two threads does no harm.
    """

    def __init__(self) -> None:
        self._fastest = float("inf")
        self._pages = 0

    def learn(self, seconds: float) -> None:
        self._fastest = min(seconds, self._fastest * PACE_FORGETS)
        self._pages += 1

    def walks(self, pages: float, *, is_dense: bool) -> int:
        """How many of so many `pages` must be under way at once to use the rate; 1 until that is known."""
        if self._pages < PACE_PAGES or pages <= 0:
            return 1
        seconds = pages * SECONDS_PER_TURN + (0.0 if is_dense else SPLIT_SECONDS)
        return min(PARALLEL_PAGES, math.ceil(pages * self._fastest / seconds))


class Download:
    """The pages of some areas, in the order of the areas.

    `fetch` runs on the pool, `keep` and `on_page` on the consuming thread. `look_ahead` areas are worked on together,
    so that the last page of one does not hold up the first of the next.
    """

    def __init__(
        self,
        areas: Iterator[Area],
        *,
        fetch: Fetch,
        keep: Keep,
        pool: WorkerPool,
        pace: Pace,
        deadline: Deadline,
        cancel: CancelToken | None = None,
        urgency: int = 1,
        look_ahead: int = 2,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._areas = areas
        self._fetch = fetch
        self._keep = keep
        self._pool = pool
        self._pace = pace
        self._deadline = deadline
        self._cancel = cancel
        self._urgency = urgency
        self._look_ahead = look_ahead
        self._clock = clock
        self._active: deque[Area] = deque()
        # And not a queue.SimpleQueue, which is C and lets no greenlet run while it waits.
        self._inbox: deque[tuple[Area, Page, int, Future[Answer]]] = deque()
        self._arrivals = EventCount()
        self._under_way: set[Future[Answer]] = set()
        self._retries: list[_Retry] = []
        self._numbers = itertools.count()

    def run(self) -> Iterator[tuple[Area, bool]]:
        """The area at work whenever something about it was learned; (area, True) once, when it is complete.

        Raises the first error that retrying did not cure; `DownloadCancelledError` when cancelled.
        """
        try:
            while self._open_areas():
                area = self._active[0]
                if area.is_complete:
                    self._active.popleft()
                    yield area, True
                    continue
                # Once a slice at least, also while no page comes.
                check(self._deadline, self._cancel)
                self._ask()
                if self._settle_one():
                    yield area, False
        finally:
            # Whatever ended the consumer (an error, `break`, Ctrl-C): pages nobody reads would go on taking turns.
            for future in self._under_way:
                future.cancel()

    def _open_areas(self) -> bool:
        while len(self._active) < self._look_ahead:
            area = next(self._areas, None)
            if area is None:
                break
            self._active.append(area)
        return bool(self._active)

    def _ask(self) -> None:
        while self._retries and self._retries[0].due <= self._clock.monotonic():
            retry = heapq.heappop(self._retries)
            self._submit(retry.area, retry.page, retry.attempt)
        for place, area in enumerate(self._active):
            walks = self._pace.walks(area.pages_left, is_dense=area.is_dense)
            # What is to come out first goes first; looking ahead only fills turns that would be lost.
            most = PARALLEL_PAGES if place == 0 else walks
            while len(self._under_way) + len(self._retries) < most:
                page = area.next_page(walks)
                if page is None:
                    break
                area.asked(page)
                self._submit(area, page, 1)

    def _submit(self, area: Area, page: Page, attempt: int) -> None:
        future = self._pool.submit(lambda: self._fetch(page, self._deadline.sooner(PAGE_SECONDS)), self._urgency)
        self._under_way.add(future)
        inbox, arrivals = self._inbox, self._arrivals  # the callback must not keep the download alive

        # Of whatever page comes first: one that hangs must not hold up those behind it.
        def came(done: Future[Answer]) -> None:
            inbox.append((area, page, attempt, done))
            arrivals.notify()

        future.add_done_callback(came)

    def _settle_one(self) -> bool:
        """Wait a slice for a page; whether one came."""
        # In slices, because a cancel token is anything with `is_set()` and cannot wake us.
        patience = self._deadline.remaining_or(WAIT_SLICE_SECONDS)
        if self._retries:
            patience = min(patience, max(0.0, self._retries[0].due - self._clock.monotonic()))
        if not self._arrivals.wait_for(lambda: self._inbox, Deadline.after(patience)):
            return False
        area, page, attempt, future = self._inbox.popleft()
        self._under_way.discard(future)
        error = future.exception()
        if error is not None:
            self._retry_or_raise(area, page, attempt, error)
            return False
        answer = future.result()
        self._pace.learn(answer.seconds)
        low, high = area.answered(page, answer.rows, answer.holes)
        # With the bounds that the area has proven, which are not those that were asked for.
        self._keep(low, high, answer)
        return True

    def _retry_or_raise(self, area: Area, page: Page, attempt: int, error: BaseException) -> None:
        if not isinstance(error, UpbitBackboneError) or not error.retryable or attempt >= PAGE_ATTEMPTS:
            raise error
        pause = FIRST_RETRY_SECONDS * 2**attempt if error.retry_after is None else error.retry_after
        left = self._deadline.remaining()
        # Raised at once: whoever has less time than the pause would wait for an error that is there already.
        is_too_long = pause > LONGEST_RETRY_SECONDS or (left is not None and pause >= left)
        if is_too_long:
            raise error
        # Queued and not slept through: the other pages go on meanwhile.
        due = self._clock.monotonic() + pause
        heapq.heappush(self._retries, _Retry(due, next(self._numbers), area, page, attempt + 1))


def check(deadline: Deadline, cancel: CancelToken | None) -> None:
    """Raise where the download was cancelled or its time is up."""
    if cancel is not None and cancel.is_set():
        raise DownloadCancelledError("the download was cancelled; .partial has what came, .resume asks for the rest")
    if deadline.expired:
        raise RequestTimeoutError(
            "the download did not end by its deadline; .partial has what came, .resume asks for the rest, "
            "and a larger timeout= allows more"
        )


def copied(error: UpbitBackboneError) -> UpbitBackboneError:
    """A copy to write on: the original may be shared with other callers who asked the same."""
    return copy.copy(error)


def raise_with_rest(error: UpbitBackboneError, partial: list[CandleData], resume: ResumePoint) -> NoReturn:
    """Raise a copy of `error` that carries what was fetched and the question for the rest."""
    carrying = copied(error)
    carrying.partial, carrying.resume = partial, resume
    raise carrying from error
