"""A backbone under observation: all it delivers, all it tells, and the simulator's record to judge it by."""

from __future__ import annotations

import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.support.waiting import PATIENCE_SECONDS, PAUSE, wait_until
from upbit_backbone import DataType, MarketDataBackbone
from upbit_backbone.models.events import ConnectionEvent, ConnectionState, Event, GapEvent
from upbit_backbone.models.market import TradeData
from upbit_backbone.simulator import FakeUpbit

E = TypeVar("E", bound=Event)
T = TypeVar("T")


def say(text: str) -> None:
    """A figure, shown by `pytest -rP` and where a test fails."""
    sys.stdout.write(f"{text}\n")


@dataclass(frozen=True)
class Balance:
    """The trades of one market: how many the server made since our first, and what became of them here."""

    made: int
    lost: int
    doubled: int
    in_order: bool


class Watched:
    """One subscription of `market`, collected item by item, and all events."""

    def __init__(
        self,
        market: MarketDataBackbone,
        upbit: FakeUpbit,
        symbols: Iterable[str] = ("KRW-BTC",),
        kinds: Iterable[DataType | str] = (DataType.TRADE,),
        **options: Any,
    ) -> None:
        self.market = market
        self.upbit = upbit
        self.items: list[Any] = []
        self.events: list[Event] = []
        self.since = mark(upbit)
        market.on_event(self.events.append)
        self.id = market.subscribe_realtime(list(symbols), list(kinds), self.items.append, **options)
        wait_until(lambda: self.items, lambda: f"the first item; {self.reasons()}")

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in list(self.events) if isinstance(event, kind)]

    def connections(self, state: ConnectionState) -> list[ConnectionEvent]:
        return [event for event in self.of(ConnectionEvent) if event.state is state]

    @property
    def breaks(self) -> list[ConnectionEvent]:
        """Lines lost, as opposed to attempts that failed or waited for our own connect limit."""
        events = self.of(ConnectionEvent)
        pairs = itertools.pairwise(events)
        return [event for before, event in pairs
                if (before.state, event.state) == (ConnectionState.LIVE, ConnectionState.WAITING)]  # fmt: skip

    @property
    def malformed(self) -> int:
        return sum(each.malformed for each in self.market.health().sessions)

    @property
    def reconnects(self) -> int:
        return sum(each.reconnects for each in self.market.health().sessions)

    def reasons(self) -> str:
        return " | ".join(f"{event.state}: {event.reason}" for event in self.of(ConnectionEvent))

    def recovers(self, act: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> float:
        """Do it and wait for the first item from a new connection; the seconds from the deed to the item."""
        before = self.reconnects
        act()
        began = time.monotonic()
        wait_until(lambda: self.reconnects > before, lambda: f"a reconnection; {self.reasons()}", seconds)
        self.flows(seconds)
        return time.monotonic() - began

    def flows(self, seconds: float = PATIENCE_SECONDS, more: int = 1) -> None:
        """Wait for new items."""
        had = len(self.items)
        wait_until(lambda: len(self.items) >= had + more, lambda: f"{more} more items; {self.reasons()}", seconds)

    def arrives(self, made: dict[str, Any], after: object = "", symbol: str = "KRW-BTC", seconds: float = 5.0) -> None:
        """Wait for this trade, as `publish_trade` told it, to be the latest."""
        wanted = made["sequential_id"]
        wait_until(
            lambda: [each.sequential_id for each in self.trades(symbol)[-1:]] == [wanted],
            lambda: f"trade {wanted} after {after!s:.80}; {self.reasons()}",
            seconds,
        )

    def trades(self, symbol: str) -> list[TradeData]:
        return [item for item in list(self.items) if isinstance(item, TradeData) and item.symbol == symbol]

    def balance(self, symbol: str = "KRW-BTC", *, patience: float = PATIENCE_SECONDS) -> Balance:
        """Stop the market, wait for what is on its way, and compare with the server's own list."""
        self.upbit.pause()
        try:
            made = [row["sequential_id"] for row in self.upbit.trades(symbol)]
            first = self.trades(symbol)[0].sequential_id
            # The snapshot may have been a trade of history, before the simulator's first live one.
            expected = made[made.index(first) :] if first in made else made

            def ours() -> list[int]:
                ids = [trade.sequential_id for trade in self.trades(symbol) if trade.sequential_id is not None]
                return ids if first in made else ids[1:]

            deadline = time.monotonic() + patience
            while not set(expected) <= set(ours()) and time.monotonic() < deadline:
                PAUSE.wait(0.02)
            got = ours()
        finally:
            self.upbit.resume()
        lost = len(set(expected) - set(got))
        doubled = sum(count - 1 for count in Counter(got).values())
        return Balance(len(expected), lost, doubled, [each for each in got if each in set(expected)] == expected)

    def is_whole(self, *symbols: str) -> bool:
        """Whether every trade came exactly once and in order; says what did not."""
        for symbol in symbols or ("KRW-BTC",):
            balance = self.balance(symbol)
            assert (balance.lost, balance.doubled, balance.in_order) == (0, 0, True), f"{symbol} {balance}"
        return True

    def receipts(self, *symbols: str) -> list[GapEvent]:
        """Every receipt so far, once each of these markets has one: a receipt follows the trades that it is about."""
        wanted = set(symbols or ("KRW-BTC",))
        wait_until(lambda: {gap.symbol for gap in self.of(GapEvent)} >= wanted, lambda: f"receipts; {self.reasons()}")
        return self.of(GapEvent)

    def handshakes(self) -> list[float]:
        """When handshakes arrived at the server since we began."""
        return [entry["t"] for entry in self.upbit.wire_log("handshake", self.since)]

    def messages(self) -> list[dict[str, Any]]:
        return self.upbit.wire_log("message", self.since)


def mark(upbit: FakeUpbit) -> int:
    """Where the wire log is now."""
    log = upbit.wire_log(limit=1)
    return log[-1]["n"] if log else 0


def worst_second(times: list[float]) -> int:
    """The most moments within any one second."""
    return max((sum(start <= each < start + 1.0 for each in times) for start in times), default=0)
