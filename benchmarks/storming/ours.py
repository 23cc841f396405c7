"""Our client in the storm: a trade stream read in a loop, and threads that keep asking."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks.storming.conductor import MARKETS
from benchmarks.storming.judge import Admitted, Answer, Arrival, Line
from upbit_backbone import DataType, MarketDataBackbone, TickerData
from upbit_backbone.errors import ClosedError, UpbitBackboneError
from upbit_backbone.models.events import ConnectionEvent, ConnectionState, Event, GapEvent
from upbit_backbone.simulator import FakeUpbit

TIMEOUT_SECONDS = 3.0
ASK_INTERVAL_SECONDS = 0.05
ASKERS = 2
FIRST_SESSION = "session-1"


@dataclass(slots=True)
class Seen:
    """Everything that reached user code. Lists only grow; each is written by one thread, `answers` by several."""

    arrivals: list[Arrival] = field(default_factory=list)
    events: list[tuple[float, Event]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    ended: str = ""

    def admitted(self) -> list[Admitted]:
        return [
            Admitted(event.symbol, event.missing_start.timestamp(), event.missing_end.timestamp())
            for _, event in self.events
            if isinstance(event, GapEvent) and event.missing_start is not None and event.missing_end is not None
        ]

    def lines(self) -> list[Line]:
        """When the line that streams the trades, which is our first, was open."""
        lines: list[Line] = []
        since: float | None = None
        for at, event in self.events:
            if not isinstance(event, ConnectionEvent) or event.session != FIRST_SESSION:
                continue
            if event.state is ConnectionState.LIVE:
                since = at
            elif since is not None:
                lines.append(Line(since, at))
                since = None
        return lines if since is None else [*lines, Line(since, self.arrivals[-1].at if self.arrivals else since)]


class Ours:
    """A backbone under observation. `close()` returns how long the backbone took to close."""

    def __init__(self, fake: FakeUpbit, **overrides: Any) -> None:
        self.seen = Seen()
        settings = {"rest_url": fake.rest_url, "websocket_url": fake.websocket_url, "ca_file": fake.ca_file}
        self._market = MarketDataBackbone(on_event=self._note_event, **(settings | overrides))
        self._trades = self._market.subscribe(list(MARKETS), DataType.TRADE)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._read, name="storm-reader")]
        self._threads += [
            threading.Thread(target=self._ask, args=(number,), name=f"storm-asker-{number}") for number in range(ASKERS)
        ]
        for thread in self._threads:
            thread.start()

    def repaired(self, seconds: float) -> bool:
        """Whether REST has filled every gap, or does so within `seconds`: it may have been banned for a while."""
        deadline = time.monotonic() + seconds
        while (gaps := self._market.health().gaps) is not None and gaps.open:
            if time.monotonic() > deadline:
                return False
            self._stop.wait(ASK_INTERVAL_SECONDS)
        return True

    def close(self) -> float:
        self._stop.set()
        for thread in self._threads[1:]:
            thread.join(TIMEOUT_SECONDS + 1)
        began = time.monotonic()
        self._market.close()
        took = time.monotonic() - began
        self._threads[0].join(5)
        return took

    def _note_event(self, event: Event) -> None:
        self.seen.events.append((time.time(), event))

    def _read(self) -> None:
        try:
            for trade in self._trades:
                key = (trade.symbol, trade.sequential_id or 0)
                self.seen.arrivals.append(Arrival(time.time(), key, trade.is_backfilled))
        except UpbitBackboneError as problem:
            self.seen.ended = repr(problem)

    def _ask(self, number: int) -> None:
        questions = itertools.cycle(
            [(symbol, question) for symbol in MARKETS for question in (self._market.get_ticker, self._book)]
        )
        for _ in range(number):
            next(questions)
        while not self._stop.wait(ASK_INTERVAL_SECONDS):
            symbol, question = next(questions)
            self.seen.answers.append(_answer(symbol, question))

    def _book(self, symbol: str, timeout: float) -> Any:
        return self._market.get_orderbook(symbol, timeout=timeout)


def _answer(symbol: str, question: Any) -> Answer:
    began, started = time.time(), time.monotonic()
    try:
        item = question(symbol, timeout=TIMEOUT_SECONDS)
    except ClosedError:
        raise
    except UpbitBackboneError as problem:
        return Answer(began, time.monotonic() - started, symbol, problem=type(problem).__name__)
    took = time.monotonic() - started
    trade_at = item.trade_timestamp.timestamp() if isinstance(item, TickerData) and item.trade_timestamp else None
    return Answer(began, took, symbol, trade_at=trade_at, marked=item.degraded)
