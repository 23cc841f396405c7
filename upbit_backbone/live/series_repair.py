"""Series repair: when a series asks REST again, and what it makes of the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Final

from .._concurrency import Clock, Waitable
from ..errors import UpbitBackboneError
from ..exchange.timeframes import FIRST_MOMENT, Timeframe
from ..history.aggregate import ONE_DAY, FormingPeriod
from ..history.candles import CandleHistory
from ..models.enums import Priority
from ..models.events import ConnectionEvent, Event, GapEvent, OverflowEvent, StaleEvent
from ..models.market import CandleData
from ..models.topic import Topic
from .bars import CATCH_UP, Bars, BarUpdate

VERIFY_EVERY_SECONDS: Final = 10.0  # closed candles are checked with REST at most this often, in one request
VERIFY_SPREAD_SECONDS: Final = 5.0  # and not by all series in the same second
RETRY_SECONDS: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


def leaves_doubt(event: Event, topic: Topic) -> bool:
    """Whether after `event` something of `topic` may be missing. Pure."""
    if isinstance(event, ConnectionEvent):
        return event.is_recovery
    if isinstance(event, GapEvent):
        return event.symbol == topic.symbol and event.type is topic.data_type
    if isinstance(event, StaleEvent):
        return topic.symbol in event.symbols and not event.stale
    return isinstance(event, OverflowEvent)


class Repair:
    """Keeps `bars` as REST would tell them: after a break, and once for each candle that has closed.

    `lock` belongs to the owner of the bars and guards them and all that is kept here; it is never held while asking.
    `on_change` is called with it whenever the bars have changed. `want` is for whoever holds it, the rest for the
    series' own thread.
    """

    def __init__(
        self,
        symbol: str,
        unit: Timeframe,
        bars: Bars,
        forming: FormingPeriod | None,
        *,
        history: CandleHistory,
        lock: AbstractContextManager[Any],
        on_change: Callable[[], None],
        cancel: Waitable,
        exchange_now: Callable[[], datetime],
        skipped: Callable[[datetime, datetime, int], object],
        clock: Clock,
    ) -> None:
        self._symbol = symbol
        self._unit = unit
        self._bars = bars
        self._forming = forming
        self._history = history
        self._lock = lock
        self._on_change = on_change
        self._cancel = cancel
        self._exchange_now = exchange_now
        self._skipped = skipped
        self._clock = clock
        self._spread = VERIFY_EVERY_SECONDS + hash((symbol, unit.word)) % 1000 / 1000 * VERIFY_SPREAD_SECONDS
        self._is_wanted = False
        self._is_running = False
        self._failures = 0
        self._not_before = float("-inf")
        self._proved_at = float("-inf")

    @property
    def is_pending(self) -> bool:
        """Whether something may be missing until REST has answered. A mere check of closed candles is no doubt."""
        return self._is_wanted or self._is_running

    def acquire(self) -> None:
        """Something may be missing: ask from the last certain candle on, as soon as possible."""
        self._is_wanted = True
        self._not_before = float("-inf")

    def ask_if_due(self) -> list[BarUpdate] | None:
        """What REST changed; None where it was not time to ask. Raises what asking raised, and tries again later."""
        with self._lock:
            is_due, is_wanted = self._look()
            if not is_due:
                return None
            # What is reported from now on needs another repair.
            self._is_wanted, self._is_running = False, is_wanted
        try:
            updates = self.ask(None, Priority.NORMAL if is_wanted else Priority.LOW)
        except UpbitBackboneError as error:
            self._failed(error, was_wanted=is_wanted)
            raise
        self._is_running = False
        return updates

    def _look(self) -> tuple[bool, bool]:
        """Whether to ask now, and whether because something may be missing."""
        clock_now, now = self._clock.monotonic(), self._exchange_now()
        wants_proof = self._bars.wants_proof(now) and clock_now >= self._proved_at + self._spread
        wants_days = self._forming is not None and self._forming.wants_days(now)
        is_wanted = self._is_wanted or wants_days
        return (is_wanted or wants_proof) and clock_now >= self._not_before, is_wanted

    def _failed(self, error: UpbitBackboneError, *, was_wanted: bool) -> None:
        pause = error.retry_after or RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)]
        with self._lock:
            # What failed is still to be done, and `is_current` stays False until it is.
            self._is_wanted = self._is_wanted or was_wanted
            self._is_running = False
            self._failures += 1
            self._not_before = self._clock.monotonic() + pause

    def ask(self, timeout: float | None, priority: Priority) -> list[BarUpdate]:
        """Fetch everything that is not certain from REST and take it over. Raises what the history raises."""
        # Before the request leaves, because it decides what of the answer is final.
        asked_at = self._exchange_now()
        rows, since = self._fetch(asked_at, timeout, priority)
        days = self._fetch_days(asked_at, timeout, priority)
        with self._lock:
            if self._forming is not None:
                self._forming.seed(days, asked_at)
            updates = self._bars.take_over(rows, since, asked_at)
            # Under the lock of the bars: the next look must not see the rows without the time of their proof.
            self._failures, self._proved_at = 0, self._clock.monotonic()
            if updates:
                self._on_change()
        return updates

    def _fetch(
        self, asked_at: datetime, timeout: float | None, priority: Priority
    ) -> tuple[Sequence[CandleData], datetime]:
        with self._lock:
            since, size = self._bars.certain_until, self._bars.size
        is_seed = since == FIRST_MOMENT
        if not is_seed:
            self._history.kept.doubt(self._symbol, self._unit, since)  # a correction must not be hidden by what we kept
        # Each missed candle is reported, even those that the series is too short to hold.
        most = size if is_seed else max(size, CATCH_UP)
        is_far_behind = self._unit.periods(since, asked_at) >= most
        bounds: dict[str, Any] = {"count": most} if is_far_behind else {"start": since}
        rows = self._history.get(
            self._symbol, self._unit, **bounds, timeout=timeout, priority=priority, cancel=self._cancel
        )
        if is_far_behind and not is_seed and len(rows) >= most and rows[0].timestamp > since:
            self._skipped(since, rows[0].timestamp, len(rows))
            # What lies before was reported as skipped; taken for certain, it is not asked for again with every repair.
            since = rows[0].timestamp
            with self._lock:
                self._bars.certain_until = since
        return rows, since

    def _fetch_days(self, asked_at: datetime, timeout: float | None, priority: Priority) -> list[CandleData]:
        if self._forming is None or not self._forming.needs_days:
            return []
        start = self._unit.floor(asked_at)
        return self._history.get(
            self._symbol, ONE_DAY, start=start, timeout=timeout, priority=priority, cancel=self._cancel
        )

    def __repr__(self) -> str:
        state = "pending" if self.is_pending else "none needed"
        return f"<Repair of {self._symbol} {self._unit}: {state}, {self._failures} failures>"
