"""The way of a message through one thread, from a socket to user code: ours, a script's plain loop, and by hand.

Nothing else runs, so that instructions can be counted (`instructions.py`), which no other work on the machine changes.
The frames are Upbit's in shape and size; stamps and ids go up from one to the next.

    python -m benchmarks.passage ours ticker 20 400 [unread]      # who, what, frames a read, how many
    python -m benchmarks.passage ours orderbook 10 100 best       # of each book the best two levels only
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import websocket

from upbit_backbone._concurrency import SystemClock
from upbit_backbone.backfill.gap_repair import GapRepair
from upbit_backbone.config import BackboneConfig
from upbit_backbone.delivery.event_bus import EventBus
from upbit_backbone.delivery.hub import Hub
from upbit_backbone.exchange.fields import Spelling
from upbit_backbone.intake import Intake
from upbit_backbone.models.enums import DataType, Overflow
from upbit_backbone.models.market import OrderbookData, TickerData
from upbit_backbone.models.request import SubscriptionRequest, Topic
from upbit_backbone.sessions import messages
from upbit_backbone.sessions.gathering import Gathering
from upbit_backbone.sessions.lifecycle import Lifecycle
from upbit_backbone.sessions.ports import Collaborators
from upbit_backbone.sessions.session import Session
from upbit_backbone.simulator.serving.framing import BINARY, header
from upbit_backbone.store.exchange_clock import ExchangeClock
from upbit_backbone.store.live_store import LiveStore
from upbit_backbone.unify.typed import stream_types
from upbit_backbone.wire.websocket_transport import WebSocketConnection

KINDS = ("ticker", "trade", "orderbook")
MARKETS = tuple(f"KRW-M{number:02}" for number in range(20))
FIRST_STAMP = 1_795_974_789_000
WARM_UP = 400  # messages before anything is counted: after which habits are known
NOT_COUNTED = 3  # exit code where callgrind does not obey here

_TICKER = (
    b'{"ty":"ticker","cd":"%s","op":132611000.0,"hp":133724000.0,"lp":132470000.0,"tp":132827000.0,'
    b'"pcp":132580000.0,"atp":905265336.46112,"c":"RISE","cp":247000.0,"scp":247000.0,"cr":0.0018630261,'
    b'"scr":0.0018630261,"ab":"ASK","tv":0.00548108,"atv":6.79528674,"tdt":"20261129","ttm":"175305","ttms":%d,'
    b'"aav":3.80330427,"abv":2.99198247,"h52wp":205974000.0,"h52wdt":"2026-07-12","l52wp":85760000.0,'
    b'"l52wdt":"2026-01-11","ms":"ACTIVE","its":false,"dd":null,"mw":"NONE","tms":%d,"atp24h":1219809674.86753,'
    b'"atv24h":9.16464508,"st":"REALTIME"}'
)
_TRADE = (
    b'{"ty":"trade","cd":"%s","tms":%d,"td":"2026-11-29","ttm":"17:53:05","ttms":%d,"tp":132827000.00000000,'
    b'"tv":0.00548108,"ab":"ASK","pcp":132580000.00000000,"c":"RISE","cp":247000.00000000,"sid":%d0000,'
    b'"bap":132828000,"bas":2.7669E-4,"bbp":132827000,"bbs":0.01185673,"st":"REALTIME"}'
)
_BOOK = b'{"ty":"orderbook","cd":"%s","tms":%d,"tas":0.10592501,"tbs":0.1009245,"obu":[%s],"st":"REALTIME","lv":0}'


_LEVEL = b'{"ap":%d,"bp":%d,"as":%.8f,"bs":%.8f}'
# Of a recorded book's numbers 3 of 100 do not stand in the one before it: of 120, four.
SIZES_CHANGED = 4


class _Book:
    """A market's levels, of which some sizes change from one frame to the next."""

    def __init__(self, depth: int, dice: random.Random) -> None:
        self._dice = dice
        self._levels = [
            [132_828_000 + 1000 * step, 132_827_000 - 1000 * step, self._size(), self._size()] for step in range(depth)
        ]

    def _size(self) -> float:
        return self._dice.uniform(1e-4, 2e-2)

    def next(self) -> bytes:
        for _ in range(SIZES_CHANGED):
            self._dice.choice(self._levels)[self._dice.randrange(2, 4)] = self._size()
        return b",".join(_LEVEL % tuple(level) for level in self._levels)


def payloads(kind: str, count: int, depth: int = 30) -> Iterator[bytes]:
    """Messages of one kind over twenty markets."""
    dice = random.Random(7)
    books = [_Book(depth, dice) for _ in MARKETS]
    for number in range(count):
        market = number % len(MARKETS)
        code, stamp = MARKETS[market].encode(), FIRST_STAMP + number
        if kind == "ticker":
            yield _TICKER % (code, stamp - 1, stamp)
        elif kind == "trade":
            yield _TRADE % (code, stamp, stamp - 1, stamp)
        else:
            yield _BOOK % (code, stamp, books[market].next())


class SteadyClock(SystemClock):
    """At each look a tenth of a millisecond later, so that timers are due as they are in life and not as often as a
    counted process is slow. Written in C, as the system's are, and as cheap."""

    monotonic = itertools.count(1000.0, 1e-4).__next__
    wall_seconds = itertools.count(1.8e9, 1e-4).__next__
    wall = map(datetime.fromtimestamp, itertools.count(1.8e9, 1e-4), itertools.repeat(UTC)).__next__


class Passage:
    """Our own way, put together as the assembly does it, over one end of a pair of sockets."""

    def __init__(self, kind: str, overflow: Overflow) -> None:
        clock = SteadyClock()
        exchange_clock = ExchangeClock(clock)
        config = BackboneConfig(rest_url="http://127.0.0.1:9", websocket_url="ws://127.0.0.1:9/websocket/v1")
        hub = Hub(EventBus(), clock=clock.monotonic)
        repair = GapRepair(
            trades_page=_never, candles_page=_never, publish=hub.publish, emit=_never, run_job=_never,
            wanted=hub.is_wanted, strict=hub.is_strict,
        )  # fmt: skip
        store = LiveStore(config.liveness_seconds, clock=clock, exchange_clock=exchange_clock)
        intake = Intake(store, hub, repair=repair, clock=clock, exchange_clock=exchange_clock)
        topics = frozenset(Topic(DataType(kind), symbol) for symbol in MARKETS)
        self.items = hub.subscribe(topics, overflow=overflow)
        lifecycle = Lifecycle(
            "session-1", config, random=random.Random(7).random, wall=clock.wall, next_epoch=lambda: 1
        )
        wanted = frozenset(map(SubscriptionRequest, topics))
        lifecycle.handle(messages.SubscriptionsChanged(wanted), clock.monotonic())
        lifecycle.handle(messages.Opened(), clock.monotonic())
        intake.subscribed(lifecycle.health, 1, topics)
        self.peer, mine = socket.socketpair()
        mine.setblocking(False)
        others = Collaborators(
            clock=clock, dial=_never, sink=intake, emit=_never, turn_to_connect=_never, refused=_never, probe=_never,
            run_job=_never, silent_topics=None, malformed=intake.malformed, connect_seconds=1.0,
            gathering=Gathering(0.0),
        )  # fmt: skip
        self._session = Session(lifecycle, others, requests=lambda session: wanted, retire=_never)
        self._session._socket.take(WebSocketConnection(mine, "127.0.0.1", {}))

    def turn(self) -> None:
        """What a session's thread does when something has come."""
        self._session._loop._take_turn()

    def close(self) -> None:
        self.items.close()
        self._session._socket.release()
        self.peer.close()


def _never(*_: Any, **__: Any) -> Any:
    return None


Way = Callable[[list[bytes]], int]
"""Takes what comes in one read each; how many items user code has looked at."""


def _looks_at_all(item: Any) -> bool:
    if type(item) is TickerData:
        return item.current_price is not None
    if type(item) is OrderbookData:
        return item.asks is not None
    return item.price is not None and item.volume is not None and item.side is not None


def _looks_at_best(item: Any) -> bool:
    return item.best_ask is not None and item.best_bid is not None


LOOKS: dict[str, Callable[[Any], bool] | None] = {"all": _looks_at_all, "best": _looks_at_best, "unread": None}


def ours(kind: str, how: str = "all") -> tuple[Way, Callable[[], None]]:
    look = LOOKS[how]
    passage = Passage(kind, Overflow.CONFLATE if look is None else Overflow.DROP_OLDEST)
    queue = passage.items.queue

    def way(reads: list[bytes]) -> int:
        seen = 0
        for read in reads:
            passage.peer.sendall(read)
            passage.turn()
            if look is not None:
                seen += sum(map(look, queue.drain()))  # type: ignore[attr-defined]  # a Mailbox
        return seen

    return way, passage.close


def plain() -> tuple[Way, Callable[[], None]]:
    """websocket-client and json in a plain receiving loop."""
    peer, mine = socket.socketpair()
    connection = websocket.WebSocket(enable_multithread=False)
    connection.sock, connection.connected = mine, True

    def way(reads: list[bytes]) -> int:
        seen = 0
        for read in reads:
            peer.sendall(read)
            for _ in range(read.count(b'{"ty":')):
                seen += json.loads(connection.recv())["tms"] > 0
        return seen

    return way, lambda: (connection.shutdown(), peer.close())[1]


def by_hand() -> tuple[Way, Callable[[], None]]:
    """The least that gives typed, exact messages: frames cut by their lengths, our own decoder, nothing kept."""
    peer, mine = socket.socketpair()
    decode = stream_types(Spelling.SIMPLE).decode_one

    def way(reads: list[bytes]) -> int:
        seen = 0
        for read in reads:
            peer.sendall(read)
            for payload in cut(mine.recv(len(read), socket.MSG_WAITALL)):
                seen += decode(payload).timestamp > 0
        return seen

    return way, lambda: (mine.close(), peer.close())[1]


def cut(data: bytes) -> Iterator[bytes]:
    """The payloads of whole frames below 64 KiB."""
    position = 0
    while position < len(data):
        length, start = data[position + 1], position + 2
        if length == 126:
            length, start = data[position + 2] << 8 | data[position + 3], position + 4
        yield data[start : start + length]
        position = start + length


def reads(kind: str, per_read: int, count: int) -> list[bytes]:
    """What comes in one read each."""
    frames = [header(len(payload), BINARY) + payload for payload in payloads(kind, count)]
    return [b"".join(frames[at : at + per_read]) for at in range(0, count, per_read)]


def count_here(run: Callable[[], object]) -> None:
    """With callgrind counting this process, and nothing before or after; where it cannot be told to, the process ends
    with NOT_COUNTED."""
    control = shutil.which("callgrind_control") or "callgrind_control"
    try:
        for switch in ("on", "off"):
            subprocess.run([control, "-i", switch, str(os.getpid())], check=True, stdout=subprocess.DEVNULL)
            if switch == "on":
                run()
    except (OSError, subprocess.CalledProcessError) as problem:
        print(problem, file=sys.stderr)
        sys.exit(NOT_COUNTED)


def main() -> None:
    who, kind, per_read, count, *more = sys.argv[1:]
    way, close = {"ours": lambda: ours(kind, *more), "plain": plain, "hand": by_hand}[who]()
    some = reads(kind, int(per_read), WARM_UP + int(count))
    warm = WARM_UP // int(per_read)
    way(some[:warm])
    gc.disable()
    count_here(lambda: way(some[warm:]))
    close()


if __name__ == "__main__":
    main()
