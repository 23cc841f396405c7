"""The public methods that faults strike in, and what must be right after each of them."""

from __future__ import annotations

import itertools
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tests.support.waiting import wait_until
from upbit_backbone import DataType, MarketDataBackbone, Subscription
from upbit_backbone._concurrency import Deadline
from upbit_backbone.models.request import Topic
from upbit_backbone.rest.batching import Batcher
from upbit_backbone.rest.client import RestClient
from upbit_backbone.rest.group_queue import Job

# The bounded run takes so many places of each method, evenly spread from a random start; the long one takes them all.
SEED = int(os.environ.get("UPBIT_BACKBONE_FAULT_SEED", str(random.SystemRandom().randrange(2**32))))
WAIT_SECONDS = 30.0
STRIKES_IN_A_ROW = 4  # a call may send two requests of one group, and a second has ten turns


class Closable(Protocol):
    def close(self) -> object: ...


Opened = TypeVar("Opened", bound=Closable)

# What a method has opened and not yet closed: a `close` that had not begun when it was interrupted changes nothing.
HELD: list[Closable] = []
_numbers = itertools.count()


def hold(opened: Opened) -> Opened:
    HELD.append(opened)
    return opened


def subscribe(market: MarketDataBackbone) -> None:
    hold(market.subscribe("KRW-ETH", [DataType.TICKER, DataType.TRADE])).close()


def subscribe_with_callback(market: MarketDataBackbone) -> None:
    sid = market.subscribe_realtime("KRW-XRP", "trade", callback=id, on_event=id)
    hold(found(market, sid))
    market.unsubscribe(sid)


def found(market: MarketDataBackbone, sid: str) -> Subscription:
    subscription = market._parts.hub._subscriptions[sid]()
    assert subscription is not None
    return subscription


def follow_a_quote(market: MarketDataBackbone) -> None:
    with hold(market.subscribe(None, "trade", quote="KRW", timeout=WAIT_SECONDS)) as trades:
        trades.get()


def subscribe_since(market: MarketDataBackbone) -> None:
    since = datetime.now(UTC) - timedelta(seconds=1)
    hold(market.subscribe("KRW-XRP", "trade", since=since)).close()


def read(market: MarketDataBackbone) -> None:
    with hold(market.subscribe("KRW-BTC", "trade")) as trades:
        trades.get(timeout=WAIT_SECONDS)
        trades.queue.drain()
        assert trades.stats.received > 0


def ask(market: MarketDataBackbone) -> None:
    market.get_ticker("KRW-BTC")
    market.get_orderbook("KRW-XRP", max_age=0, timeout=5)


def ask_for_many(market: MarketDataBackbone) -> None:
    market.get_tickers(["KRW-BTC", "KRW-XRP"], max_age=0, timeout=5)


def ask_for_the_past(market: MarketDataBackbone) -> None:
    market.get_candles("KRW-BTC", "1m", count=3, timeout=5)
    market.get_trades("KRW-BTC", count=3, timeout=5)


def walk_the_past(market: MarketDataBackbone) -> None:
    for _ in zip(range(2), market.iter_trades("KRW-XRP", count=3, timeout=5), strict=False):
        pass
    list(market.iter_candles("KRW-ETH", "1m", count=2, timeout=5))


def follow_candles(market: MarketDataBackbone) -> None:
    with hold(market.candle_series("KRW-ETH", "1m", 3, on_update=print_nothing, timeout=5)) as series:
        assert series.last is not None


def follow_book(market: MarketDataBackbone) -> None:
    with hold(market.live_orderbook("KRW-ETH", timeout=5)) as book:
        assert book.book.best_ask is not None


def look(market: MarketDataBackbone) -> None:
    str(market.health())
    market.performance()
    market.explain("ticker", "KRW-BTC")
    repr(market)


def listen(market: MarketDataBackbone) -> None:
    hold(market.on_event(id)).close()


def watch(market: MarketDataBackbone) -> None:
    market.alert(id)()


def cache(market: MarketDataBackbone) -> None:
    market.cache_data(("ticker", "KRW-BTC"), 1, ttl=60)
    market.get_cached_data(("ticker", "KRW-BTC"))
    market.invalidate_cache()


def submit(market: MarketDataBackbone) -> None:
    assert market.submit(len, "abc").result(WAIT_SECONDS) == 3


def record(market: MarketDataBackbone) -> None:
    path = Path(tempfile.gettempdir()) / f"faults-{os.getpid()}-{next(_numbers)}.rec"
    try:
        hold(market.record(path)).close()
    finally:
        path.unlink(missing_ok=True)


def print_nothing(*_: object) -> None:
    """A callback."""


METHODS: list[Callable[[MarketDataBackbone], None]] = [
    subscribe,
    subscribe_with_callback,
    follow_a_quote,
    subscribe_since,
    read,
    ask,
    ask_for_many,
    ask_for_the_past,
    walk_the_past,
    follow_candles,
    follow_book,
    look,
    listen,
    watch,
    cache,
    submit,
    record,
]


def left_of(market: MarketDataBackbone, kept: frozenset[Topic]) -> dict[str, object]:
    """What tables of ours still say of calls that are over; nothing, once all is well."""
    parts = market._parts
    limiter = parts.limiter._host_limiter
    wanted = parts.sessions.topics() - set(parts.promotions._since)
    slots = [slot for window in limiter._windows.values() for slot in tuple(window._slots) if slot.sent_at is None]
    found: dict[str, object] = {
        "topics asked for": wanted - kept,
        "topics of the hub": parts.hub.topics - kept,
        "topics lost": kept - parts.hub.topics,
        "routes": set(parts.hub._routes) - kept,
        "subscriptions": len(parts.hub._subscriptions) - 1,
        "listeners": parts.events._listening,
        "turns not used": len(slots),
        "who wait for a turn": [waiter for queue in limiter._queues.values() for waiter in queue],
        "questions under way": questions_of(parts.rest),
        "a recorder": parts._recorder,
    }
    return {name: what for name, what in found.items() if what}


def questions_of(rest: RestClient) -> list[object]:
    """Those without an answer: a table may hold others, whose taking out was interrupted, until it is looked at."""
    batchers: list[Batcher[object]] = [rest._tickers, rest._quotes, *rest._books.values()]  # type: ignore[list-item]
    found: list[Job[Any]] = list(rest._calls._flights.values())
    for queue in rest._queues.values():
        found += [*queue._under_way, *queue._waiting]
    for batcher in batchers:
        found += [*batcher._under_way.values(), *batcher._away]
    return [each for each in found if not each.done()]


def check(market: MarketDataBackbone, kept: frozenset[Topic], where: str) -> None:
    """No table of ours says anything that another one, or nobody any more, knows of."""
    while HELD:
        HELD.pop().close()
    wait_until(
        lambda: not left_of(market, kept),
        lambda: f"nothing to be left after {where} (seed {SEED}): {left_of(market, kept)}",
    )


def answer_now_and_then(market: MarketDataBackbone, method: Callable[[MarketDataBackbone], None], struck: int) -> None:
    """After every few strikes a whole call.

    A request that was sent, and whose answer nobody waited for, may arrive yet: it keeps its place in the rate limit
    for 20 s, or until a later one is answered. Ten such in a row, and the next call is rightly refused.
    """
    if struck % STRIKES_IN_A_ROW == 0:
        method(market)


@contextmanager
def streaming(market: MarketDataBackbone, method: Callable[[MarketDataBackbone], None]) -> Iterator[Subscription]:
    """A subscription that goes on through all that happens; at the end all still answers, streams and closes."""
    HELD.clear()
    with market.subscribe("KRW-BTC", "trade") as trades:
        trades.get(timeout=WAIT_SECONDS)
        for _ in range(2):  # what is loaded, learnt and promoted at the first use
            method(market)
        check(market, trades.topics, "no fault at all")
        yield trades
        method(market)  # it answers
        trades.queue.drain()
        assert trades.get(timeout=WAIT_SECONDS)  # it streams
        with market.subscribe("KRW-ETH", "trade") as others:
            assert others.get(timeout=WAIT_SECONDS).symbol == "KRW-ETH"
    assert market._parts.close(Deadline.after(2.0)) == []  # and it closes
