"""What a bridge has opened, on the GUI thread: live subscriptions, an order book, a candle series.

Opening and closing happen on other threads, so that nothing here waits. What cannot be opened because of the network
is tried again until it is closed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from datetime import datetime
from typing import Any, Final, Generic, Protocol, TypeVar

from .._concurrency import spawn_unwaited
from ..delivery.subscription import Subscription
from ..errors import ClosedError, UpbitBackboneError
from ..live.candle_series import CandleSeries
from ..models.market import CandleData, OrderbookData
from .binding import QObject, QTimer, Signal
from .question import Question

T = TypeVar("T")

ITEMS_PER_FRAME: Final = 2000  # what is left waits for the next frame, so that a burst never freezes the window
RETRY_MILLISECONDS: Final = (1_000, 2_000, 5_000, 10_000)
COMPARED_ROWS: Final = 200


class Opening(Generic[T]):
    """Something that is opened on another thread, and may be closed before it is there. Any thread; takes no lock,
    because Qt may delete its owner from within a finalizer."""

    def __init__(self, close: Callable[[T], object]) -> None:
        self._close = close
        self._opened: deque[T] = deque()
        self.is_closed = False

    def put(self, thing: T) -> None:
        """It is there. Closed at once where nobody wants it any more."""
        self._opened.append(thing)
        if self.is_closed:  # looked at after the append: of two that meet here one closes it
            self._close_all()

    @property
    def thing(self) -> T | None:
        """What was opened; None before, and once it is closed."""
        try:
            return self._opened[0]
        except IndexError:
            return None

    def close(self) -> None:
        self.is_closed = True
        self._close_all()

    def _close_all(self) -> None:
        while True:
            try:
                thing = self._opened.popleft()
            except IndexError:
                return
            self._close(thing)


class Owner(Protocol):
    """The bridge, as its live things know it."""

    delisted: frozenset[str]

    def run(self, call: Callable[[], Any], arrived: Callable[[Future[Any]], object]) -> None: ...

    def leave(self, thing: Live) -> None: ...

    def report(self, error: BaseException, thing: Live) -> None: ...

    def ask(self, method: Callable[..., Any], *args: Any, **options: Any) -> Question: ...

    def stale_symbols(self, source: Subscription[Any] | CandleSeries) -> frozenset[str]: ...

    def items_came(self, items: list[Any]) -> None: ...

    def book_came(self, book: OrderbookData) -> None: ...

    def candles_came(self, candles: LiveCandles) -> None: ...


class Live(QObject):  # type: ignore[misc]  # qtpy carries no types
    """Base of what a bridge has opened: opened elsewhere, closed at once, told when it fails or ends.

    `ready()` comes when it is open, `failed(error)` when it could not be opened (it is tried again after errors of the
    network) or was ended by an error, `finished()` when nothing more will come, `stale_changed(frozenset)` when other
    markets of it are not live than before (none: empty, and false). It lives as long as the bridge, or until `close()`.
    """

    ready = Signal()
    failed = Signal(object)
    finished = Signal()
    stale_changed = Signal(object)

    def __init__(self, owner: Any, name: str, open_: Callable[[], Any], close: Callable[[Any], object]) -> None:
        super().__init__(owner)
        self._owner: Owner = owner
        self._name = name
        self._open = open_
        self.opening: Opening[Any] = Opening(close)
        self._errors: deque[BaseException] = deque()
        self._has_begun = False
        self._attempts = 0
        self._retry = QTimer(self)
        self._retry.setSingleShot(True)
        self._retry.timeout.connect(self.begin)
        self.asked: frozenset[str] = frozenset()  # the markets named when it was opened
        self.stale: frozenset[str] = frozenset()
        self._is_stale_told = False

    @property
    def is_ready(self) -> bool:
        """Whether it is open."""
        return self.opening.thing is not None

    @property
    def is_stale(self) -> bool:
        """Whether something it shows is not provably current now; True before it is open and after its end."""
        return bool(self.stale) or not self.is_ready

    def begin(self) -> None:
        """Have it opened on another thread."""
        opening, open_, errors = self.opening, self._open, self._errors  # and not this object, which Qt may delete

        def arrived(future: Future[Any]) -> None:
            try:
                error = future.exception()
            except CancelledError:
                return
            if error is None:
                opening.put(future.result())
            else:
                errors.append(error)

        self._owner.run(open_, arrived)

    def close(self) -> None:
        """End it: nothing of it is delivered from here on. Idempotent; returns at once, from the GUI thread."""
        if self.opening.is_closed:
            return
        self.opening.close()
        self._retry.stop()
        self._owner.leave(self)

    def turn(self) -> None:
        """Deliver what has come since the last frame. Called by the bridge."""
        while self._errors and not self.opening.is_closed:
            self._could_not_open(self._errors.popleft())
        thing = self.opening.thing
        if thing is None:
            return
        if not self._has_begun:
            self._has_begun = True
            self.look()
            self.ready.emit()
        self._deliver(thing)

    def look(self) -> None:
        """Find out what of it is stale. Called by the bridge a few times a second."""
        thing = self.opening.thing
        if thing is not None:
            # What is subscribed goes on without a delisted market, whose last state would look live for ever.
            self._set_stale(self._stale(thing) | (self.asked & self._owner.delisted))

    def _set_stale(self, stale: frozenset[str]) -> None:
        before, self.stale = self.stale, stale
        if before != stale or not self._is_stale_told:
            self._is_stale_told = True  # also where nothing is: whoever listens takes it for stale until he hears
            self.stale_changed.emit(stale)

    def _could_not_open(self, error: BaseException) -> None:
        self._owner.report(error, self)
        self.failed.emit(error)
        if isinstance(error, UpbitBackboneError) and error.retryable and not isinstance(error, ClosedError):
            pause = RETRY_MILLISECONDS[min(self._attempts, len(RETRY_MILLISECONDS) - 1)]
            self._attempts += 1
            self._retry.start(pause)
        else:
            self._end(None)

    def _end(self, error: BaseException | None) -> None:
        """Nothing more will come; `error` is why, where it is worth telling."""
        if self.opening.is_closed:
            return
        if error is not None:
            self._owner.report(error, self)
            self.failed.emit(error)
        self._set_stale(self._symbols())
        self.finished.emit()
        self.close()

    # What differs

    def _deliver(self, thing: Any) -> None:
        raise NotImplementedError

    def _symbols(self) -> frozenset[str]:
        raise NotImplementedError

    def _stale(self, thing: Any) -> frozenset[str]:
        raise NotImplementedError

    def __repr__(self) -> str:
        is_over = self.opening.is_closed
        state = "closed" if is_over else "being opened" if not self.is_ready else "stale" if self.is_stale else "live"
        return f"<{type(self).__name__} {self._name} {state}>"


class LiveSubscription(Live):
    """A subscription on the GUI thread: `received(items)` brings what a frame of the screen has gathered, oldest first.

    Of tickers, books and candles that is the latest of each market, of trades each one.
    """

    received = Signal(object)

    def __init__(
        self, owner: Any, name: str, open_: Callable[[], Subscription[Any]], symbols: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(owner, name, open_, Subscription.close)
        self.asked = symbols
        self.stale = self._symbols()

    @property
    def subscription(self) -> Subscription[Any] | None:
        """The subscription itself, with its `.stats`; None while it is not open."""
        thing: Subscription[Any] | None = self.opening.thing
        return thing

    def _symbols(self) -> frozenset[str]:
        thing = self.subscription
        return self.asked if thing is None else frozenset(topic.symbol for topic in thing.topics)

    def _stale(self, thing: Subscription[Any]) -> frozenset[str]:
        return self._owner.stale_symbols(thing)

    def _deliver(self, thing: Subscription[Any]) -> None:
        try:
            items = thing.mailbox.drain(ITEMS_PER_FRAME)
        except UpbitBackboneError as ended:
            self._end(None if isinstance(ended, ClosedError) else ended)
            return
        if items:
            self._emit(items)

    def _emit(self, items: list[Any]) -> None:
        self.received.emit(items)
        self._owner.items_came(items)


class LiveBook(LiveSubscription):
    """The order book of one market: `changed(OrderbookData)` at most once a frame, `book` the newest or None."""

    changed = Signal(object)

    book: OrderbookData | None = None

    def _emit(self, items: list[Any]) -> None:
        self.book = book = items[-1]
        self.changed.emit(book)
        self._owner.book_came(book)


class LiveCandles(Live):
    """A CandleSeries on the GUI thread.

    `changed(rows, is_whole)` comes at most once a frame: with `is_whole` the rows are all there are and replace what
    was known, else those that are new or different, the older ones of `load_older` among them; oldest first, to be
    merged by their `timestamp`. `older_loaded(rows)` follows when a `load_older` has ended, with [] at the end of
    history.
    """

    changed = Signal(object, bool)
    older_loaded = Signal(object)

    def __init__(self, owner: Any, symbol: str, timeframe: str, open_: Callable[[Any], CandleSeries]) -> None:
        updates: deque[CandleData] = deque()
        super().__init__(
            owner, f"{symbol} {timeframe}", lambda: open_(lambda candle, _: updates.append(candle)), _close_elsewhere
        )
        self.symbol = symbol
        self.timeframe = timeframe
        self.asked = frozenset([symbol])
        self._updates = updates  # filled by the series' own thread
        self._shown: set[datetime] = set()
        self._older: Question | None = None
        self.stale = self._symbols()

    @property
    def series(self) -> CandleSeries | None:
        """The series itself; None while it is not open."""
        thing: CandleSeries | None = self.opening.thing
        return thing

    @property
    def candles(self) -> list[CandleData]:
        """A snapshot, oldest first; [] while it is not open."""
        series = self.series
        return [] if series is None else series.candles

    @property
    def has_reached_start(self) -> bool:
        """Whether the oldest candle here is the oldest that Upbit has."""
        series = self.series
        return series is not None and series.has_reached_start

    @property
    def is_loading(self) -> bool:
        return self._older is not None

    def load_older(self, count: int) -> bool:
        """Have the `count` candles before the oldest one fetched; True if that was begun.

        Not begun while another one is under way, nor at the end of history, nor before the series is open.
        """
        series = self.series
        if series is None or self.is_loading or series.has_reached_start:
            return False
        self._older = self._owner.ask(series.load_older, count, then=self._older_came, failed=self._older_failed)
        return True

    def _older_came(self, rows: Sequence[CandleData]) -> None:
        self._older = None
        if self.opening.is_closed:
            return
        if rows:
            self._show(rows, is_whole=False)
        self.older_loaded.emit(list(rows))

    def _older_failed(self, error: BaseException) -> None:
        self._older = None
        if not self.opening.is_closed:
            self._owner.report(error, self)
            self.failed.emit(error)
            self.older_loaded.emit([])

    def close(self) -> None:
        if self._older is not None:
            self._older.cancel()
        super().close()

    def _symbols(self) -> frozenset[str]:
        return frozenset([self.symbol])

    def _stale(self, thing: CandleSeries) -> frozenset[str]:
        return self._owner.stale_symbols(thing)  # a line that is merely silent leaves the series as it is

    def _deliver(self, thing: CandleSeries) -> None:
        if not self._shown:
            self._updates.clear()
            if rows := thing.candles:
                self._show(rows, is_whole=True)
        elif self._updates:
            # The last state of each: of ten changes of the forming candle a screen shows one.
            latest = {candle.timestamp: candle for candle in _taken(self._updates)}
            has_begun = any(start not in self._shown for start in latest)
            self._show([latest[start] for start in sorted(latest)], is_whole=False)
            if has_begun:
                self._compare(thing)
        if thing.closed:
            self._end(thing.last_error if not isinstance(thing.last_error, ClosedError) else None)

    def _compare(self, thing: CandleSeries) -> None:
        """Once a period: a candle that REST took back is told of by nobody, and those that fell off are forgotten."""
        rows = thing[-COMPARED_ROWS:]
        recent = {start for start in self._shown if start >= rows[0].timestamp}
        if recent - {row.timestamp for row in rows}:
            self._show(thing.candles, is_whole=True)
        elif len(self._shown) > thing.size + COMPARED_ROWS:
            self._shown = {row.timestamp for row in thing}

    def _show(self, rows: Sequence[CandleData], *, is_whole: bool) -> None:
        if is_whole:
            self._shown.clear()
        self._shown.update(row.timestamp for row in rows)
        self.changed.emit(list(rows), is_whole)
        self._owner.candles_came(self)


def _close_elsewhere(series: CandleSeries) -> None:
    """Its thread may be waiting for REST; nobody waits for that here."""
    spawn_unwaited(series.close, f"upbit-closing-{series.symbol}-{series.timeframe}")


def _taken(updates: deque[CandleData]) -> list[CandleData]:
    """What waits now; more may come meanwhile."""
    return [updates.popleft() for _ in range(len(updates))]
