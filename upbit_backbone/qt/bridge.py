"""Bridges: carry what a backbone delivers onto the GUI thread, and blocking questions off it."""

from __future__ import annotations

import logging
import queue
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from decimal import Decimal
from time import monotonic
from typing import Any, Final, TypeVar

from .._concurrency import SharedFuture, spawn_unwaited
from ..backbone import MarketDataBackbone
from ..delivery.subscription import Subscription
from ..errors import InvalidRequestError, UpbitBackboneError
from ..exchange.endpoints import MAX_LEVELS
from ..live.candle_series import CandleSeries
from ..models.enums import DataType
from ..models.events import ConnectionEvent, ConnectionState, Event, MarketChange, MarketEvent, StaleEvent
from ..models.market import OrderbookData
from .binding import IS_PYQT5, EventSignal, QObject, QTimer, Signal, frame_milliseconds, is_connected
from .live import Live, LiveBook, LiveCandles, LiveSubscription, Opening
from .notice import tell, watch_gui_thread
from .question import Question

L = TypeVar("L", bound=Live)

# How often is looked at what is stale: a frozen line shall be seen within a second, most of which goes by until it is
# asked and does not answer. A third of a millisecond with 300 markets.
LOOK_SECONDS: Final = 0.05
EVENTS_PER_FRAME: Final = 200
# A window that stands still for minutes (a dialogue, a debugger) shall not lose a trade; beyond that it is told of in
# an OverflowEvent. 1.1 KB each.
WAITING_ITEMS: Final = 200_000


class Bridge(QObject):  # type: ignore[misc]  # qtpy carries no types
    """What both bridges do: one timer at the screen's rate, questions, and everything closed when Qt deletes it."""

    failed = Signal(object)
    answered = Signal(object)

    delisted: frozenset[str] = frozenset()  # while it was listening

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._arrived: queue.SimpleQueue[Question] = queue.SimpleQueue()
        self._questions: set[Question] = set()
        self._lives: list[Live] = []
        self._openings: list[Opening[Any]] = []
        self._looked_at = float("-inf")
        self._unwatch = watch_gui_thread()
        self._timer = QTimer(self)
        self._timer.setInterval(frame_milliseconds())
        self._timer.timeout.connect(self._turn)
        self._timer.start()
        # What is captured is no part of this object: it is gone when that is called.
        openings, questions, unwatch = self._openings, self._questions, self._unwatch
        self.destroyed.connect(lambda *_: _release(openings, questions, unwatch))

    def cancel(self, tag: object) -> int:
        """Cancel every question under way that was asked with this tag; how many."""
        chosen = [each for each in self._questions if each.tag == tag and not each.is_cancelled]
        for question in chosen:
            question.cancel()
        self._questions.difference_update(chosen)
        return len(chosen)

    def close(self) -> None:
        """End everything that was opened here, and deliver nothing more. Idempotent; returns at once."""
        self._timer.stop()
        _release(self._openings, self._questions, self._unwatch)

    def report(self, error: BaseException, thing: Any = None) -> None:
        """Emit an error as `failed`; where nobody listens for it, say it once where it is seen."""
        if is_connected(self, "failed"):
            self.failed.emit(error)
        elif thing is None or not is_connected(thing, "failed"):
            is_ours = isinstance(error, UpbitBackboneError)
            tell(logging.ERROR, f"{thing or self} failed: {error}", None if is_ours else error)

    def leave(self, thing: Live) -> None:
        """What is closed is nobody's child any more: Qt would keep it for as long as the bridge."""
        if thing in self._lives:
            self._lives.remove(thing)
            self._openings.remove(thing.opening)
            thing.setParent(None)

    def stale_symbols(self, source: Subscription[Any] | CandleSeries) -> frozenset[str]:
        return frozenset()

    def items_came(self, items: list[Any]) -> None:
        pass

    def book_came(self, book: OrderbookData) -> None:
        pass

    def candles_came(self, candles: LiveCandles) -> None:
        pass

    def _ask(
        self,
        market: MarketDataBackbone,
        method: Callable[..., Any],
        args: tuple[Any, ...],
        options: dict[str, Any],
        **handlers: Any,
    ) -> Question:
        question = Question(f"{getattr(method, '__name__', method)}{args!r}", **handlers)
        self._questions.add(question)
        arguments, arrived = question.options_of(method, options), self._arrived
        question.begin(_submitted(market, lambda: method(*args, **arguments)), arrived.put)
        return question

    def _adopt(self, live: Live) -> None:
        self._lives.append(live)
        self._openings.append(live.opening)

    def _turn(self) -> None:
        """One frame: whatever has come goes to whoever is connected."""
        self._give_answers()
        for live in list(self._lives):  # a slot may close one, or open another
            if not live.opening.is_closed:
                live.turn()
        now = monotonic()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            self._look()

    def _look(self) -> None:
        for live in list(self._lives):
            live.look()

    def _give_answers(self) -> None:
        while True:
            try:
                question = self._arrived.get_nowait()
            except queue.Empty:
                return
            self._questions.discard(question)
            if not question.settle():
                continue
            question.deliver(self.failed.emit if is_connected(self, "failed") else None)
            if question.error is None:
                self.answered.emit(question)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'running' if self._timer.isActive() else 'stopped'}, {self._lives}>"


class MarketBridge(Bridge):
    """Everything of a backbone, for a window. Make it on the GUI thread, with the window as its parent.

    Nothing here blocks: opening, asking and closing happen on other threads, and what they bring is delivered on the
    GUI thread, at most once a frame of the screen. What was opened ends with the bridge, and the bridge with its
    parent; the backbone itself stays open: close it after the event loop (`with MarketDataBackbone() as market:`).

    - `received(item)`: every ticker, trade, candle and book of its subscriptions; of trades each one, of the rest the
      latest of each market and frame. `received_many(list)` is the same in one call a frame, which models take.
    - `candles_changed(LiveCandles)`, `book_changed(OrderbookData)`: a series or a book has changed.
    - `event(Event)`: what happens to the streams and limits (breaks, gaps, delistings; see `models/events.py`).
    - `connection_changed(bool)`: all lines are up, or one of them is not.
    - `stale_changed(frozenset)`: the markets that are shown here and not provably current, whenever these change.
    - `answered(Question)`, `failed(error)`: of questions, and of what could not be opened.
    """

    received = Signal(object)
    received_many = Signal(object)
    candles_changed = Signal(object)
    book_changed = Signal(object)
    if IS_PYQT5:
        _event = Signal(object)
    else:
        event = Signal(object)
    connection_changed = Signal(bool)
    stale_changed = Signal(object)

    def __init__(self, market: MarketDataBackbone, parent: Any = None) -> None:
        """Raises InvalidRequestError for what is no MarketDataBackbone, ClosedError for one that is closed."""
        if not isinstance(market, MarketDataBackbone):
            raise InvalidRequestError(f"market={market!r}: expected a MarketDataBackbone")
        events: deque[Event] = deque()
        listener = market.on_event(events.append)  # before there is anything of Qt's that a closed backbone would leave
        super().__init__(parent)
        if IS_PYQT5:
            self.event = EventSignal(self._event, self)
        self.market = market
        self.is_connected = False
        self.stale: frozenset[str] = frozenset()
        self._events = events
        listening: Opening[Any] = Opening(lambda it: spawn_unwaited(it.close, "upbit-closing-events"))
        self._openings.append(listening)
        listening.put(listener)
        # After the listener, so that no change falls between; from here on events tell.
        self._lines = {each.session: each.state for each in market.health().sessions}

    def subscribe(self, symbols: Any = None, data_types: Any = DataType.TICKER, **options: Any) -> LiveSubscription:
        """Live data, from a moment later on; the arguments are those of `MarketDataBackbone.subscribe`.

        Up to 200,000 trades wait while the window stands still, unless you give `maxsize=`. Returns at once; wrong
        arguments and unknown markets come as `failed`.
        """
        symbols = symbols if isinstance(symbols, str) or not isinstance(symbols, Iterable) else tuple(symbols)
        asked = (symbols,) if isinstance(symbols, str) else symbols if isinstance(symbols, tuple) else ()
        options.setdefault("maxsize", WAITING_ITEMS)
        subscribe, name = self.market.subscribe, ", ".join(map(str, asked[:3])) or str(options.get("quote", ""))
        return self._begin(
            LiveSubscription(self, name, lambda: subscribe(symbols, data_types, **options), frozenset(asked))
        )

    def live_orderbook(self, symbol: str, levels: int = MAX_LEVELS, level: Decimal | int | str = 0) -> LiveBook:
        """The order book of one market, with at most `levels` prices a side, grouped by `level`. Returns at once."""
        subscribe, options = self.market.subscribe, dict[str, Any](levels=levels, level=level)
        return self._begin(
            LiveBook(self, symbol, lambda: subscribe(symbol, DataType.ORDERBOOK, **options), frozenset([symbol]))
        )

    def candle_series(self, symbol: str, timeframe: str = "1m", size: int = 200) -> LiveCandles:
        """The newest `size` candles of one market, kept current and repaired after every break. Returns at once."""
        open_ = self.market.candle_series
        return self._begin(
            LiveCandles(self, symbol, timeframe, lambda heard: open_(symbol, timeframe, size, on_update=heard))
        )

    def ask(
        self,
        method: Callable[..., Any],
        *args: Any,
        then: Callable[[Any], object] | None = None,
        failed: Callable[[Any], object] | None = None,
        tag: object = None,
        context: Any = None,
        **options: Any,
    ) -> Question:
        """Make a blocking call (`market.get_candles`, …) on another thread; `then(answer)` runs on the GUI thread.

        An error goes to `failed(error)`; without one it is emitted as `failed`, and where nobody is connected to that
        either, logged (and printed, if the program has not set logging up). `tag` is yours: `bridge.cancel(tag)` ends
        all questions with it. Nothing is delivered after the question's `cancel()`, nor to a method of a QObject that
        is gone; for a lambda name that object as `context`. Returns at once.
        """
        owner = getattr(method, "__self__", None)
        market = owner if isinstance(owner, MarketDataBackbone) else self.market
        return self._ask(market, method, args, options, then=then, failed=failed, tag=tag, context=context)

    def run(self, call: Callable[[], Any], arrived: Callable[[Future[Any]], object]) -> None:
        _submitted(self.market, call).add_done_callback(arrived)

    def stale_symbols(self, source: Subscription[Any] | CandleSeries) -> frozenset[str]:
        return self.market.stale_symbols(source)

    def items_came(self, items: list[Any]) -> None:
        self.received_many.emit(items)
        if is_connected(self, "received"):
            for item in items:
                self.received.emit(item)

    def book_came(self, book: OrderbookData) -> None:
        self.book_changed.emit(book)

    def candles_came(self, candles: LiveCandles) -> None:
        self.candles_changed.emit(candles)

    def _begin(self, live: L) -> L:
        self._adopt(live)
        live.begin()
        return live

    def _turn(self) -> None:
        for _ in range(min(len(self._events), EVENTS_PER_FRAME)):
            event = self._events.popleft()
            if isinstance(event, ConnectionEvent):
                self._lines[event.session] = event.state
            if isinstance(event, MarketEvent) and event.change in (MarketChange.DELISTED, MarketChange.LISTED):
                is_gone = event.change is MarketChange.DELISTED
                self.delisted = self.delisted | {event.symbol} if is_gone else self.delisted - {event.symbol}
            if isinstance(event, ConnectionEvent | StaleEvent | MarketEvent):
                self._looked_at = float("-inf")  # whatever follows from it is seen in this very frame
            self.event.emit(event)
        super()._turn()

    def _look(self) -> None:
        super()._look()
        stale = frozenset[str]().union(*(live.stale for live in self._lives))
        if stale != self.stale:
            self.stale = stale
            self.stale_changed.emit(stale)
        states = set(self._lines.values()) - {ConnectionState.IDLE, ConnectionState.CLOSED}
        connected = states == {ConnectionState.LIVE}
        if connected is not self.is_connected:
            self.is_connected = connected
            self.connection_changed.emit(connected)


class QtBridge(Bridge):
    """Drains one subscription at the screen's rate and emits each item as `received(object)` on the GUI thread.

    `failed(object)` carries errors of questions put by `ask`; `finished()` says that the subscription has ended. The
    bridge closes its subscription when it is deleted or when `close()` is called. Make it on the GUI thread.
    `MarketBridge` does the same for all of a backbone, and subscribes without blocking.
    """

    received = Signal(object)
    finished = Signal()

    def __init__(self, subscription: Subscription[Any], parent: Any = None) -> None:
        super().__init__(parent)
        self._live = LiveSubscription(self, subscription.id, lambda: subscription)
        self._live.finished.connect(self.finished)
        self._live.opening.put(subscription)
        self._adopt(self._live)

    def ask(
        self,
        method: Callable[..., Any],
        *args: Any,
        then: Callable[[Any], object],
        market: MarketDataBackbone | None = None,
        failed: Callable[[Any], object] | None = None,
        tag: object = None,
        context: Any = None,
        **options: Any,
    ) -> Question:
        """As `MarketBridge.ask`, for a method of a backbone (or with `market=` for any other)."""
        owner = market if market is not None else getattr(method, "__self__", None)
        if not isinstance(owner, MarketDataBackbone):
            raise TypeError(f"ask({method!r}): expected a method of a MarketDataBackbone")
        return self._ask(owner, method, args, options, then=then, failed=failed, tag=tag, context=context)

    def items_came(self, items: list[Any]) -> None:
        for item in items:
            self.received.emit(item)


def _submitted(market: MarketDataBackbone, call: Callable[[], Any]) -> Future[Any]:
    try:
        return market.submit(call)
    except UpbitBackboneError as error:  # closed: told like any other error, on a later frame
        future: Future[Any] = SharedFuture()
        future.set_exception(error)
        return future


def _release(openings: list[Opening[Any]], questions: set[Question], unwatch: Callable[[], None]) -> None:
    for opening in list(openings):
        opening.close()
    for question in list(questions):
        question.cancel()
    questions.clear()
    unwatch()
