"""Candle series: history and stream as one object that repairs itself, `CandleSeries`."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from typing import Any, Final, Literal, Protocol, overload

from .._arguments import whole_number
from .._concurrency import (
    SYSTEM_CLOCK,
    WAIT_SLICE_SECONDS,
    Clock,
    Deadline,
    EventCount,
    Flag,
    ForkGuard,
    LoopThread,
    Waitable,
    calls_users,
    get_logger,
    is_interrupting,
)
from .._lazy import loading
from ..errors import ClosedError, InvalidRequestError, UpbitBackboneError
from ..exchange.timeframes import FIRST_MOMENT, Timeframe, timeframe_of
from ..history.aggregate import ONE_DAY, FormingPeriod
from ..history.candles import CandleHistory
from ..models.enums import DataType, Priority
from ..models.events import ConnectionEvent, ConnectionState, Event, GapEvent, OverflowEvent, StaleEvent
from ..models.market import CandleData, TickerData
from ..models.request import Topic
from .bars import CATCH_UP, Bars, BarUpdate

# When a series asks REST again, and what it makes of the answer.

VERIFY_EVERY_SECONDS: Final = 10.0  # closed candles are checked with REST at most this often, in one request
VERIFY_SPREAD_SECONDS: Final = 5.0  # and not by all series in the same second
RETRY_SECONDS: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


def leaves_doubt(event: Event, topic: Topic) -> bool:
    """Whether after `event` something of `topic` may be missing. Pure."""
    if isinstance(event, ConnectionEvent):
        return event.is_recovery
    if isinstance(event, GapEvent):
        return event.symbol == topic.symbol and event.type is topic.data_type and not event.subscription
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


log = get_logger("upbit_backbone")

MAX_SIZE: Final = 100_000
CLOSE_SECONDS: Final = 1.5  # of the two seconds within which whoever closes is done

OnUpdate = Callable[[CandleData, bool], object]


class Feed(Protocol):
    """A subscription: `get` raises queue.Empty when nothing came in time and ClosedError once closed."""

    def get(self, *, timeout: float | None) -> Any: ...

    def close(self) -> object: ...


Subscribe = Callable[[Topic, Callable[[Event], None]], Feed]


class CandleSeries:
    """The newest `size` candles of one market and unit, always as REST would tell them.

    Seeded by REST while it is made (that may raise), then continued by the stream: candles from 1 s to 4 h, tickers
    for days and longer. After a break it asks REST from its last certain candle on; candles that have closed are
    checked with REST once, and corrections are taken over and reported. A market without trades has no candle.
    `load_older` grows it into the past, as a chart that is scrolled back needs it.

    Readable from any thread; every read is a snapshot. `on_update` callbacks run one after the other on the series'
    own thread, in order; an exception in one is logged and counted and hurts nobody else.
    """

    def __init__(
        self,
        symbol: str,
        timeframe: str | Timeframe,
        size: int = 200,
        *,
        history: CandleHistory,
        subscribe: Subscribe,
        exchange_now: Callable[[], datetime],
        on_update: OnUpdate | None = None,
        emit: Callable[[Event], object] = lambda event: None,
        timeout: float | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.symbol = symbol
        self._unit = timeframe_of(timeframe)
        self.timeframe = self._unit.word
        self.topic = Topic(self._unit.data_type or DataType.TICKER, symbol)
        self._history = history
        self._exchange_now = exchange_now
        self._guard = ForkGuard(f"the series {symbol} {self.timeframe}")
        self._lock = threading.Lock()  # guards _bars, _version, _listeners and what _repair says it does
        self._changed = EventCount()
        self._bars = Bars(self._unit, whole_number(size, "size", low=1, high=MAX_SIZE))
        self._version = 0
        self._listeners: list[OnUpdate] = [] if on_update is None else [on_update]
        self._forming = None if self._unit.data_type else FormingPeriod(self._unit)
        self._is_interrupted = False
        self._first_of_all: datetime | None = None  # where the market's candles begin, once that is known
        self._closing = Flag()
        self._repair = Repair(
            symbol,
            self._unit,
            self._bars,
            self._forming,
            history=history,
            lock=self._lock,
            on_change=self._tell,
            cancel=self._closing,
            exchange_now=exchange_now,
            skipped=lambda start, end, recovered: emit(self._receipt(start, end, recovered)),
            clock=clock,
        )
        self.corrections = 0
        self.callback_errors = 0
        self.last_error: UpbitBackboneError | None = None
        self._loop = LoopThread(self._turn, f"upbit-series-{symbol}-{self.timeframe}", is_over=self._closing.is_set)
        self._feed = subscribe(self.topic, self._on_event)  # before the seed, so that nothing falls between
        try:
            # In the caller's own thread: whoever makes a series hears of an unknown market at once, and has rows when
            # this returns.
            self._repair.ask(timeout, Priority.NORMAL)
            if 0 < len(self._bars) < self._bars.size:  # fewer than were asked for: these are all there are
                self._first_of_all = self._bars.rows[0].timestamp
            self._loop.ensure()  # last: the thread must never see a half-made series
        except BaseException:  # no thread to be had, or Ctrl-C: nobody could ever close it
            self._closing.set()
            self._feed.close()
            raise

    # -- reading ----------------------------------------------------------------------------------------------------

    @property
    def candles(self) -> list[CandleData]:
        """A snapshot, oldest first; the last one has `is_closed=False` while it forms."""
        with self._held():
            return self._bars.rows

    @property
    def last(self) -> CandleData | None:
        """The newest candle; None while there is none."""
        with self._held():
            return self._bars.last

    @property
    def size(self) -> int:
        """How many candles it holds at most; see `resize` and `load_older`."""
        return self._bars.size

    @property
    def has_reached_start(self) -> bool:
        """Whether the oldest candle here is the oldest that Upbit has, so that `load_older` brings nothing more."""
        with self._held():
            rows = self._bars.rows
            return self._first_of_all is not None and bool(rows) and rows[0].timestamp <= self._first_of_all

    @property
    def closed(self) -> bool:
        """Whether it has ended, by `close`, with its backbone, or by `last_error`; the rows stay readable."""
        return self._closing.is_set() or self._guard.is_foreign

    @property
    def is_current(self) -> bool:
        """False while the stream is down or a repair is still to come; the rows are then what was known before."""
        in_doubt = self._is_interrupted or self._repair.is_pending
        return not (in_doubt or self._closing.is_set() or self._guard.is_foreign)

    def __len__(self) -> int:
        with self._held():
            return len(self._bars)

    def __iter__(self) -> Iterator[CandleData]:
        return iter(self.candles)

    @overload
    def __getitem__(self, place: int) -> CandleData: ...
    @overload
    def __getitem__(self, place: slice) -> list[CandleData]: ...
    def __getitem__(self, place: int | slice) -> CandleData | list[CandleData]:
        with self._held():
            return self._bars.rows[place]

    def to_dataframe(
        self,
        numbers: Literal["exact", "float"] | None = None,
        *,
        style: Literal["models", "ohlcv"] = "models",
        tz: str | None = None,
    ) -> Any:
        """The snapshot as a pandas DataFrame (extra `pandas`); see `upbit_backbone.export.dataframe.to_dataframe`."""
        with loading():
            from ..export.dataframe import to_dataframe  # pandas belongs to the edge and is loaded only here

        return to_dataframe(self.candles, numbers, style=style, tz=tz, kind=CandleData)

    def on_update(self, callback: OnUpdate) -> OnUpdate:
        """Call `callback(candle, closed)` at each change from now on. Usable as a decorator.

        `closed=True` comes once when a candle ends, and again with the same start if it was corrected afterwards. After
        a break each missed candle comes, up to 10,000 whatever the size; older ones only as one GapEvent (`on_event`
        of the backbone) that says what was skipped.
        """
        with self._held():
            # Replaced whole: the series' own thread walks over it without the lock.
            self._listeners = [*self._listeners, callback]
        return callback

    def wait_update(self, timeout: float | None = None) -> CandleData | None:
        """Wait for the next change; the newest candle after it, None on timeout. ClosedError once closed."""
        deadline = Deadline.after(timeout)
        self._loop.revive()
        with self._held():
            # Noted before the wait begins, so that a change in between ends it at once.
            seen = self._version
        self._changed.wait_for(lambda: self._version != seen or self._closing.is_set(), deadline)
        with self._held():
            if self._closing.is_set():
                raise ClosedError(f"the series {self.symbol} {self.timeframe} is closed")
            return None if self._version == seen else self._bars.last

    # -- changing ---------------------------------------------------------------------------------------------------

    def resize(self, size: int, timeout: float | None = None) -> None:
        """Keep `size` candles from now on. Growing asks REST for the older ones, on the calling thread."""
        size = whole_number(size, "size", low=1, high=MAX_SIZE)
        self._check_open()
        with self._held():
            self._bars.resize(size)
            missing = size - len(self._bars)
        if missing > 0:
            self.load_older(missing, timeout)

    def load_older(self, count: int, timeout: float | None = None) -> list[CandleData]:
        """Grow by the `count` candles before the oldest one, each once; those that came, oldest first.

        Asks REST on the calling thread, for `timeout` seconds at most in all (default: by the number of pages), and
        raises what asking raises; then nothing has changed. Fewer come where the market's candles begin:
        `has_reached_start` is then True, and the next call returns [] without asking. For scrolling back in a chart.
        InvalidRequestError where the series would hold more than 100,000, ClosedError once closed.
        """
        count = whole_number(count, "count", low=1, high=MAX_SIZE)
        self._check_open()
        if self.has_reached_start:
            return []
        with self._held():
            known = len(self._bars)
            if known + count > MAX_SIZE:
                raise InvalidRequestError(f"count={count}: a series holds {MAX_SIZE:,} at most, this one has {known:,}")
            oldest = self._bars.begin_load()
        rows: list[CandleData] = []
        try:
            if oldest is not None:
                # Outside the lock: readers go on meanwhile, and frames are taken in.
                ask = partial(self._history.get, self.symbol, self._unit, timeout=timeout, cancel=self._closing)
                rows = ask(count=count, to=oldest)
                if len(rows) < count:
                    self._first_of_all = rows[0].timestamp if rows else oldest
        finally:
            with self._held():
                self._bars.end_load(rows)
                if rows:
                    self._tell()
        return rows

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise ClosedError(f"the series {self.symbol} {self.timeframe} is closed")

    def close(self, deadline: Deadline | None = None) -> list[str]:
        """End the subscription and the thread; names of threads that did not stop in time. Safe to call again.

        The rows stay readable; waiting calls end with ClosedError.
        """
        if self._guard.is_foreign:
            return []
        # Before the feed is closed, so that its end is not told as an error.
        self._closing.set()
        self._feed.close()
        self._changed.notify_all()
        if is_interrupting():  # a finalizer or a signal handler: it waits for nobody
            return []
        return self._loop.join(deadline or Deadline.after(CLOSE_SECONDS))

    def _held(self) -> threading.Lock:
        """The lock, to be entered; ClosedError in a forked child, where nobody may ever release it."""
        self._guard.check()
        return self._lock

    def __enter__(self) -> CandleSeries:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closing.is_set() else "current" if self.is_current else "being repaired"
        return f"<CandleSeries {self.symbol} {self.timeframe} {len(self)}/{self.size} candles, {state}>"

    # -- on other threads -------------------------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        """From whichever thread reports events: only remembers that something may be missing."""
        self._loop.revive()
        # A first connection that had to wait for its turn is no recovery, but ends the interruption all the same.
        is_live = isinstance(event, ConnectionEvent) and event.state is ConnectionState.LIVE
        if leaves_doubt(event, self.topic) or (is_live and self._is_interrupted):
            self.repair()
        if isinstance(event, ConnectionEvent):  # after repair(), so that it never looks current in between
            self._is_interrupted = event.is_interruption or (self._is_interrupted and not is_live)

    def repair(self) -> None:
        """Ask REST again from the last certain candle on, soon and on the series' own thread."""
        with self._lock:
            self._repair.acquire()

    # -- on the series' own thread ----------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._repair_if_due()
        try:
            # A slice at a time: a candle closes by the clock, too, where no further frame comes.
            item = self._feed.get(timeout=WAIT_SLICE_SECONDS)
        except queue.Empty:
            item = None
        except UpbitBackboneError as error:
            self._end(error)
            return
        self._publish(self._apply(item))

    def _end(self, error: UpbitBackboneError) -> None:
        """The subscription is over: by our close, by the backbone's, or by an error worth telling."""
        if not self._closing.is_set() and not isinstance(error, ClosedError):
            log.error("candle series lost its stream", extra={"symbol": self.symbol, "error": str(error)})
        self.last_error = error
        self._closing.set()
        self._changed.notify_all()

    def _apply(self, item: Any) -> list[BarUpdate]:
        now = self._exchange_now()
        candle = self._candle_of(item)
        with self._lock:
            updates = self._bars.live(candle) if candle is not None else []
            if item is None:  # never while frames still wait: they may be about the candle that seems to be over
                updates += self._bars.tick(now)
            if updates:
                self._tell()
        return updates

    def _candle_of(self, item: Any) -> CandleData | None:
        if self._forming is None:
            is_ours = isinstance(item, CandleData) and item.timeframe == self.timeframe
            return item if is_ours else None
        return self._forming.apply(item) if isinstance(item, TickerData) else None

    def _repair_if_due(self) -> None:
        try:
            updates = self._repair.ask_if_due()
        except UpbitBackboneError as error:
            if not self._closing.is_set():
                self.last_error = error
                log.warning("candle series could not ask REST", extra={"symbol": self.symbol, "error": str(error)})
            return
        if updates is not None:
            self.last_error = None
            self._publish(updates)

    def _receipt(self, start: datetime, end: datetime, recovered: int) -> GapEvent:
        """What of [start, end) is not made up for: too much was missed."""
        return GapEvent(
            at=self._exchange_now(),
            symbol=self.symbol,
            type=self.topic.data_type,
            start=self._unit.previous_start(start),
            end=end,
            recovered=recovered,
            complete=False,
            reason=f"a {self.timeframe} candle series makes up for {CATCH_UP:,} candles at most",
            missing_start=start,
            missing_end=self._unit.previous_start(end),
        )

    def _tell(self) -> None:
        self._version += 1
        self._changed.notify_all()

    @calls_users
    def _publish(self, updates: list[BarUpdate]) -> None:
        for update in updates:
            self.corrections += update.is_correction
            # Outside the lock: a listener may read the series, or close it.
            for listener in self._listeners:
                try:
                    listener(update.candle, update.closed)
                except BaseException:  # SystemExit, too: the other listeners and the next candle come all the same
                    self.callback_errors += 1
                    log.exception("on_update of a candle series failed", extra={"symbol": self.symbol})
