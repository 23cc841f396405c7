"""pyupbit's `WebSocketManager` and `WebSocketClient` over a subscription: no process, and the line keeps itself up."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from ..._concurrency import Deadline, Flag, wait_event
from ...backbone import subscribe_to_existing
from ...delivery.subscription import Subscription
from ...errors import ClosedError, InvalidRequestError, UnknownSymbolError
from ...exchange.endpoints import MAX_LEVELS
from ...models.enums import DataType, Overflow, StreamType
from ...models.events import ConnectionEvent
from .asking import answer_or_error, backbone, tell_once
from .payloads import stream_message

CONNECTION_CLOSED: Final = "ConnectionClosedError"  # what pyupbit puts among the messages when its line breaks
# pyupbit's queue stops the line when it is full, and the system's buffers take the rest: as much is kept here.
LEAST_WAITING: Final = 40_000
LOOK_SECONDS: Final = 0.25


class WebSocketManager:
    """Live messages of one type ("ticker", "trade", "orderbook", "candle.1m") and several markets, as Upbit's dicts.

    The first `get()` starts it. A broken line is restored by itself; `tell_interruptions=True` puts pyupbit's string
    'ConnectionClosedError' among the messages, as there. Of messages that nobody takes, the oldest beyond
    `max(qsize, 40000)` are lost, with a line in the log. Use it with `with`, `for`, or `terminate()` it; forgotten, it
    never keeps the program from ending.
    """

    daemon = True
    pid: int | None = None  # no process of its own

    def __init__(
        self, type: str, codes: Sequence[str] | str, qsize: int = 1000, *, tell_interruptions: bool = False
    ) -> None:
        self.type = type
        self.codes = codes
        self.alive = False
        self.name = f"WebSocketManager-{type}"
        self._waiting = max(LEAST_WAITING, qsize if isinstance(qsize, int) else 0)
        self._tells = tell_interruptions
        self._lock = threading.Lock()  # guards starting and terminating
        self._subscription: Subscription | None = None
        self._started_at = datetime.now(UTC)
        self._depth = MAX_LEVELS
        self._interruptions: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._ended = Flag()

    def start(self) -> None:
        """Subscribe, unless that was done. Raises pyupbit's UpbitError where Upbit has none of the markets, or streams
        nothing of that type."""
        with self._lock:
            if self._ended.is_set():
                raise ClosedError("this WebSocketManager was terminated; make a new one")
            if self._subscription is None:
                self._subscription = answer_or_error(self._subscribe)
                self.alive = True
                self.pid = os.getpid()

    def _subscribe(self) -> Subscription:
        codes = [self.codes] if isinstance(self.codes, str) else list(self.codes)
        markets, self._depth = _with_depth(codes)
        data_type = _data_type(self.type)
        options: dict[str, Any] = {"overflow": Overflow.DROP_OLDEST, "maxsize": self._waiting}
        if data_type is DataType.ORDERBOOK:
            options["levels"] = self._depth
        if self._tells:
            options["on_event"] = self._heard
        self._started_at = datetime.now(UTC)
        try:
            return subscribe_to_existing(backbone(), markets, data_type, **options)
        except UnknownSymbolError as error:
            known = [each for each in markets if each not in error.symbols]
            if not known:
                raise
            # pyupbit's stream says nothing of them, and goes on with the others.
            tell_once(f"pyupbit.WebSocketManager goes on without {', '.join(error.symbols)}: {error}")
            return subscribe_to_existing(backbone(), known, data_type, **options)

    def _heard(self, event: object) -> None:
        is_news = isinstance(event, ConnectionEvent) and event.is_interruption and event.attempt <= 1
        if is_news:  # and no further attempt of the same outage
            self._interruptions.put(CONNECTION_CLOSED)

    def get(self, timeout: float | None = None) -> Any:
        """The next message. `queue.Empty` after `timeout` seconds; ClosedError once terminated, also for a `get` that
        waits in another thread."""
        if self._subscription is None or self._ended.is_set():
            self.start()
        subscription, deadline = self._subscription, Deadline.after(timeout)
        assert subscription is not None  # noqa: S101 - started, or start has raised
        while True:
            if not self._interruptions.empty():
                return self._interruptions.get_nowait()
            try:
                item = subscription.get(timeout=self._patience(deadline))
            except queue.Empty:
                if deadline.expired:
                    raise
                continue
            if item.stream_type is not StreamType.SNAPSHOT and not self._is_older(item):
                return stream_message(item, self._depth)

    def _patience(self, deadline: Deadline) -> float | None:
        # An interruption is no item and wakes nobody who waits for one.
        return deadline.remaining_or(LOOK_SECONDS) if self._tells else deadline.remaining()

    def _is_older(self, item: Any) -> bool:
        # pyupbit asks for what happens from now on; a subscription begins with what is known already.
        return item.received_at is not None and item.received_at < self._started_at

    def terminate(self) -> None:
        """End it. Idempotent, and at any time."""
        with self._lock:
            self.alive = False
            self._ended.set()
            subscription = self._subscription
        if subscription is not None:
            subscription.close()

    kill = close = terminate

    def is_alive(self) -> bool:
        return self.alive

    @property
    def exitcode(self) -> int | None:
        return 0 if self._ended.is_set() else None

    def join(self, timeout: float | None = None) -> None:
        """Wait until it is terminated, at most `timeout` seconds."""
        wait_event(self._ended, Deadline.after(timeout))

    def __iter__(self) -> Iterator[Any]:
        """Every message from now on, until it is terminated."""
        while True:
            try:
                yield self.get()
            except ClosedError:
                return

    def __enter__(self) -> WebSocketManager:
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()

    def __repr__(self) -> str:
        state = "terminated" if self._ended.is_set() else "alive" if self.alive else "not started"
        return f"<WebSocketManager {self.type} of {len(self.codes)} markets, {state}>"


class WebSocketClient:
    """Puts every message into `queue`, for ever, from within its constructor: the target for a Process or Thread."""

    def __init__(self, type: str, codes: Sequence[str] | str, queue: Any, *, tell_interruptions: bool = False) -> None:
        self.type = type
        self.codes = codes
        self.queue = queue
        self._manager = WebSocketManager(type, codes, tell_interruptions=tell_interruptions)
        self.run()

    def run(self) -> None:
        """Until the backbone is closed, or `queue` refuses."""
        with self._manager as messages:
            for message in messages:
                self.queue.put(message)


def _data_type(said: str) -> DataType:
    try:
        return DataType(said)
    except ValueError:
        words = ", ".join(DataType)
        raise InvalidRequestError(f"type={said!r}: Upbit streams {words}") from None


def _with_depth(codes: list[str]) -> tuple[list[str], int]:
    """The markets of `codes`, and how many levels of a book they ask for: "KRW-BTC.5" is KRW-BTC with five."""
    parts = [each.partition(".") if isinstance(each, str) else (each, "", "") for each in codes]
    depths = [int(depth) for _, _, depth in parts if depth.isdecimal()]
    is_said_of_all = depths and len(depths) == len(parts)
    return [market for market, _, _ in parts], min(max(depths), MAX_LEVELS) if is_said_of_all else MAX_LEVELS
