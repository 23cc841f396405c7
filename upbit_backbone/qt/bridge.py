"""Carries what a subscription delivers onto the GUI thread, and blocking questions off it."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from .._concurrency import get_logger
from ..backbone import MarketDataBackbone
from ..delivery.subscription import Subscription
from ..errors import ClosedError, UpbitBackboneError

try:
    from qtpy.QtCore import QObject, QTimer, Signal
except ImportError as error:  # qtpy raises a subclass where it finds no Qt
    raise ImportError(
        "upbit_backbone.qt needs a Qt binding and qtpy: python -m pip install 'upbit-backbone[qt]' "
        "/ Qt 바인딩과 qtpy가 필요합니다: python -m pip install 'upbit-backbone[qt]'"
    ) from error

log = get_logger("upbit_backbone.qt")

FRAME_MILLISECONDS = 16  # one screen refresh: drawing more often is seen by nobody
ITEMS_PER_FRAME = 2000  # what is left waits for the next frame, so that a burst never freezes the window


class QtBridge(QObject):  # type: ignore[misc]  # qtpy carries no types
    """Drains one subscription every 16 ms and emits each item as `received(object)` on the GUI thread.

    One timer for all items: a signal per market message would swamp the event loop. `failed(object)` carries errors of
    questions put by `ask`; `finished()` says that the subscription has ended. The bridge closes its subscription when
    it is deleted or when `close()` is called. Make it on the GUI thread.
    """

    received = Signal(object)
    failed = Signal(object)
    finished = Signal()

    def __init__(self, subscription: Subscription, parent: Any = None) -> None:
        super().__init__(parent)
        self._subscription = subscription
        self._has_ended = False
        self._answers: queue.SimpleQueue[tuple[Future[Any], Callable[[Any], object]]] = queue.SimpleQueue()
        self._timer = QTimer(self)
        self._timer.setInterval(FRAME_MILLISECONDS)
        self._timer.timeout.connect(self._drain)
        self._timer.start()
        self.destroyed.connect(lambda *_: subscription.close())

    def ask(
        self,
        method: Callable[..., Any],
        *args: Any,
        then: Callable[[Any], object],
        market: MarketDataBackbone | None = None,
        **options: Any,
    ) -> None:
        """Put a blocking question (`market.get_candles`, …) on a background thread; `then` gets the answer on the GUI
        thread. An error of ours is emitted as `failed` instead."""
        owner = market if market is not None else getattr(method, "__self__", None)
        if not isinstance(owner, MarketDataBackbone):
            raise TypeError(f"ask({method!r}): expected a method of a MarketDataBackbone")
        future = owner.submit(method, *args, **options)
        future.add_done_callback(lambda done: self._answers.put((done, then)))

    def close(self) -> None:
        """Stop emitting and close the subscription. Idempotent."""
        self._timer.stop()
        self._subscription.close()

    def _drain(self) -> None:
        self._give_answers()
        if self._has_ended:
            return
        try:
            items = self._subscription.mailbox.drain(ITEMS_PER_FRAME)
        except UpbitBackboneError as ended:
            self._end(ended)
            return
        for item in items:
            self.received.emit(item)

    def _end(self, ended: UpbitBackboneError) -> None:
        self._has_ended = True  # the timer goes on, for answers that are still to come
        if not isinstance(ended, ClosedError):
            self.failed.emit(ended)
        self.finished.emit()

    def _give_answers(self) -> None:
        while True:
            try:
                future, then = self._answers.get_nowait()
            except queue.Empty:
                return
            error = future.exception()
            if error is None:
                then(future.result())
            else:
                self.failed.emit(error)

    def __repr__(self) -> str:
        return f"<QtBridge {'running' if self._timer.isActive() else 'stopped'} {self._subscription!r}>"
