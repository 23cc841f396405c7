"""`close()` returns within two seconds, whatever is going on, and leaves nothing behind.

That no thread and no socket is left is checked after every test by the fixture in tests/conftest.py.
"""

from __future__ import annotations

import gc
import itertools
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from tests.lifecycle.lives import MARKETS, backbone_of
from tests.support.threads import Call
from tests.support.waiting import promised, wait_until
from upbit_backbone import (
    ClosedError,
    ConnectionEvent,
    ConnectionState,
    DataStrategy,
    DataType,
    MarketDataBackbone,
    Subscription,
    UpbitBackboneError,
)
from upbit_backbone.simulator import FakeUpbit

CLOSE_SECONDS = 2.0
ENDLESS = {"times": None}

NOT_ON_WINDOWS = pytest.mark.skipif(os.name == "nt", reason="refuses where others swallow")


def seconds_to_close(market: MarketDataBackbone) -> float:
    started = time.monotonic()
    market.close()
    took = time.monotonic() - started
    assert market.closed
    return took


# Subscriptions of the test under way: one that nobody holds ends.
held: list[Subscription] = []


@pytest.fixture(autouse=True)
def let_go() -> Iterator[None]:
    yield
    held.clear()


def live(market: MarketDataBackbone) -> MarketDataBackbone:
    """With a stream that has delivered."""
    held.append(market.subscribe("KRW-BTC", DataType.TRADE))
    held[-1].get(timeout=10)
    return market


def our_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("upbit-")]


def request(market: MarketDataBackbone) -> None:
    """A subscription that nobody reads."""
    held.append(market.subscribe(["KRW-BTC", "KRW-ETH"], [DataType.TRADE, DataType.ORDERBOOK]))


def session_state(market: MarketDataBackbone) -> ConnectionState | None:
    return next((session.state for session in market.health().sessions), None)


# Each brings a backbone into one state, at the simulator that it is given.
State = Callable[[FakeUpbit, MarketDataBackbone], object]


def untouched(upbit: FakeUpbit, market: MarketDataBackbone) -> None:
    pass


def after_a_question(upbit: FakeUpbit, market: MarketDataBackbone) -> None:
    market.get_ticker("KRW-BTC")


def while_live(upbit: FakeUpbit, market: MarketDataBackbone) -> None:
    live(market)


def while_the_handshake_is(mode: str) -> State:
    def prepare(upbit: FakeUpbit, market: MarketDataBackbone) -> None:
        upbit.handshake_fault(mode, times=None, interval=0.3)
        request(market)
        wait_until(lambda: upbit.wire_log("handshake", limit=1) or session_state(market), "an attempt")

    return prepare


def when_frozen(upbit: FakeUpbit, market: MarketDataBackbone) -> None:
    live(market)
    upbit.freeze()


def in_the_middle_of_a_frame(upbit: FakeUpbit, market: MarketDataBackbone) -> None:
    live(market)
    upbit.send_half_frame()


def while_a_candle_download_runs(upbit: FakeUpbit, market: MarketDataBackbone) -> Call:
    upbit.rest_fault("/v1/candles*", "latency", latency=0.3, times=None)
    seen = len(upbit.requests("/v1/candles/minutes/1"))
    download = Call(lambda: market.get_candles("KRW-BTC", "1m", count=50_000, timeout=60))
    wait_until(lambda: len(upbit.requests("/v1/candles/minutes/1")) > seen, "the first page")
    return download


def while_a_question_hangs(upbit: FakeUpbit, market: MarketDataBackbone) -> Call:
    market.get_markets()
    upbit.rest_fault("/v1/ticker*", "hang", times=None)
    seen = len(upbit.requests("/v1/ticker"))
    question = Call(lambda: market.get_ticker("KRW-ETH", timeout=60))
    wait_until(lambda: len(upbit.requests("/v1/ticker")) > seen, "the question")
    return question


def while_an_answer_drips(upbit: FakeUpbit, market: MarketDataBackbone) -> Call:
    market.get_markets()
    upbit.rest_fault("/v1/orderbook*", "drip", interval=0.2, times=None)
    seen = len(upbit.requests("/v1/orderbook"))
    question = Call(lambda: market.get_orderbook("KRW-ETH", timeout=60))
    wait_until(lambda: len(upbit.requests("/v1/orderbook")) > seen, "the question")
    return question


def while_a_gap_is_repaired(upbit: FakeUpbit, market: MarketDataBackbone) -> None:
    live(market)
    upbit.rest_fault("/v1/trades*", "hang", times=None)
    seen = len(upbit.requests("/v1/trades/ticks"))
    upbit.handshake_fault("status", status=503)
    upbit.close_sessions(1001)
    upbit.publish_trade("KRW-BTC")
    wait_until(lambda: len(upbit.requests("/v1/trades/ticks")) > seen, "the repair")


def while_waiting_for_the_stream(upbit: FakeUpbit, market: MarketDataBackbone) -> Call:
    market.get_markets()
    upbit.mute()
    upbit.rest_fault("/v1/ticker*", "hang", times=None)
    question = Call(lambda: market.get_ticker("KRW-ETH", realtime=True, timeout=60))
    wait_until(lambda: ("ticker", "KRW-ETH") in upbit.subscribed(), "the subscription")
    return question


def in_a_crash_loop(upbit: FakeUpbit, market: MarketDataBackbone) -> None:
    upbit.handshake_fault("close_after_101", times=None)
    request(market)
    wait_until(lambda: session_state(market) is ConnectionState.WAITING, "waiting for the next attempt")


STATES: dict[str, State] = {
    "untouched": untouched,
    "after a question": after_a_question,
    "live": while_live,
    "silent handshake": while_the_handshake_is("silence"),
    "dripping handshake": while_the_handshake_is("drip"),
    "flooding handshake": while_the_handshake_is("flood"),
    "unavailable": while_the_handshake_is("status"),
    "crash loop": in_a_crash_loop,
    "frozen": when_frozen,
    "half a frame": in_the_middle_of_a_frame,
    "downloading candles": while_a_candle_download_runs,
    "question hanging": while_a_question_hangs,
    "answer dripping": while_an_answer_drips,
    "repairing a gap": while_a_gap_is_repaired,
    "waiting for the stream": while_waiting_for_the_stream,
}


@pytest.mark.parametrize("name", STATES)
def test_closes_in_time_in_every_state(name: str, upbit: FakeUpbit, market: MarketDataBackbone) -> None:
    blocked = STATES[name](upbit, market)
    assert seconds_to_close(market) <= promised(CLOSE_SECONDS)
    if isinstance(blocked, Call):
        assert isinstance(blocked.outcome(), ClosedError)
    assert seconds_to_close(market) <= promised(0.2), "closing again costs nothing"


@pytest.mark.parametrize("instead", ["refuse", "silence", pytest.param("blackhole", marks=NOT_ON_WINDOWS)])
def test_closes_in_time_while_the_server_is_away(instead: str, fresh_upbit: FakeUpbit) -> None:
    market = backbone_of(fresh_upbit)
    live(market)
    fresh_upbit.refuse(60, "all", instead=instead)
    wait_until(lambda: session_state(market) in (ConnectionState.CONNECTING, ConnectionState.WAITING), "the loss")
    question = Call(lambda: market.get_ticker("KRW-XRP", timeout=60))
    assert seconds_to_close(market) <= promised(CLOSE_SECONDS)
    assert isinstance(question.outcome(), UpbitBackboneError)


def test_closes_in_time_while_waiting_to_try_again(fresh_upbit: FakeUpbit) -> None:
    market = backbone_of(fresh_upbit)
    live(market)
    fresh_upbit.refuse(60)
    wait_until(lambda: session_state(market) is ConnectionState.WAITING, "waiting for the next attempt")
    assert seconds_to_close(market) <= promised(CLOSE_SECONDS)


def test_closes_in_time_while_banned(fresh_upbit: FakeUpbit) -> None:
    market = backbone_of(fresh_upbit)
    live(market)
    fresh_upbit.ban(60)
    fresh_upbit.close_sessions(1001)
    with pytest.raises(UpbitBackboneError):
        market.get_orderbook("KRW-ETH", timeout=0.5)
    question = Call(lambda: market.get_orderbook("KRW-ETH", timeout=60))
    assert seconds_to_close(market) <= promised(CLOSE_SECONDS)
    assert isinstance(question.outcome(), UpbitBackboneError)


def test_closes_in_time_when_the_server_no_longer_reads() -> None:
    """The peer's window is shut, so that a subscription message gets stuck half-way."""
    with FakeUpbit(trades_per_second=0, receive_buffer=1024) as upbit:
        market = backbone_of(upbit)
        held.append(market.subscribe("KRW-BTC", DataType.TICKER))
        held[-1].get(timeout=10)
        symbols = upbit.markets()
        upbit.freeze()
        kinds = (DataType.TRADE, DataType.ORDERBOOK, DataType.TICKER, DataType.CANDLE_1S, DataType.CANDLE_1M)
        held.extend(market.subscribe(symbols, kind) for kind in kinds)
        assert seconds_to_close(market) <= promised(CLOSE_SECONDS)


# ── who waits, and who calls ─────────────────────────────────────────────────────────────────────────────────────────


def iterate(market: MarketDataBackbone) -> list[object]:
    return list(market.subscribe("KRW-BTC", DataType.TRADE))


def read_the_queue(market: MarketDataBackbone) -> None:
    items = market.subscribe("KRW-BTC", DataType.TRADE).queue
    while True:
        items.get()


def get_without_end(market: MarketDataBackbone) -> None:
    subscription = market.subscribe("KRW-BTC", DataType.TRADE)
    while True:
        subscription.get(timeout=None)


def wait_for_updates(market: MarketDataBackbone) -> None:
    series = market.candle_series("KRW-BTC", "1m", size=10)
    while True:
        series.wait_update()


def wait_for_changes(market: MarketDataBackbone) -> None:
    book = market.live_orderbook("KRW-BTC")
    while True:
        book.wait_change()


WAITS: dict[str, tuple[Callable[[MarketDataBackbone], object], type]] = {
    "for loop": (iterate, list),
    "queue.get()": (read_the_queue, ClosedError),
    "get()": (get_without_end, ClosedError),
    "wait_update()": (wait_for_updates, ClosedError),
    "wait_change()": (wait_for_changes, ClosedError),
}


@pytest.mark.parametrize("flows", [True, False], ids=["flowing", "quiet"])
@pytest.mark.parametrize("name", WAITS)
def test_whoever_waits_is_let_go(name: str, flows: bool, upbit: FakeUpbit, market: MarketDataBackbone) -> None:
    wait, expected = WAITS[name]
    waiting = Call(lambda: wait(market))
    wait_until(
        lambda: any(row["codes"] for session in upbit.sessions() for row in session["subscriptions"]), "a stream"
    )
    if not flows:
        upbit.pause()
    market.close()
    assert isinstance(waiting.outcome(), expected)


def test_a_pending_future_gets_its_error(upbit: FakeUpbit, market: MarketDataBackbone) -> None:
    market.get_markets()
    upbit.rest_fault("/v1/ticker*", "hang", times=None)
    only = DataStrategy.REST_ONLY
    futures = [market.submit(market.get_ticker, symbol, strategy=only, timeout=60) for symbol in MARKETS * 8]
    assert seconds_to_close(market) <= promised(CLOSE_SECONDS)
    assert {type(future.exception(timeout=2)) for future in futures} == {ClosedError}


def test_closing_waits_for_a_slow_callback_but_not_for_ever(upbit: FakeUpbit, market: MarketDataBackbone) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(item: object) -> None:
        entered.set()
        leave.wait(30)

    market.subscribe_realtime("KRW-BTC", DataType.TRADE, callback=slow)
    assert entered.wait(10)
    took = seconds_to_close(market)
    leave.set()
    assert took <= promised(CLOSE_SECONDS)


def test_a_slow_listener_and_a_slow_callback_share_the_two_seconds(
    upbit: FakeUpbit, market: MarketDataBackbone
) -> None:
    entered, leave = threading.Semaphore(0), threading.Event()

    def slow(item: object) -> None:
        entered.release()
        leave.wait(30)

    market.on_event(slow)
    for symbol in ("KRW-BTC", "KRW-ETH", "KRW-XRP"):
        market.subscribe_realtime(symbol, DataType.TRADE, callback=slow, on_event=slow)
    for _ in range(4):
        assert entered.acquire(timeout=10)
    took = seconds_to_close(market)
    leave.set()
    assert took <= promised(CLOSE_SECONDS)


def test_eight_threads_close_at_once(upbit: FakeUpbit, market: MarketDataBackbone) -> None:
    live(market)
    together = threading.Barrier(8)

    def close() -> float:
        together.wait(10)
        return seconds_to_close(market)

    closing = [Call(close) for _ in range(8)]
    assert max(each.outcome(5) for each in closing) <= promised(CLOSE_SECONDS)  # type: ignore[type-var]


class Closer:
    """A callback that closes the backbone it was called by, once, and remembers how long that took."""

    def __init__(self, market: MarketDataBackbone) -> None:
        self._market = market
        self._first = itertools.count()
        self.took: queue.SimpleQueue[float] = queue.SimpleQueue()

    def __call__(self, *_: object) -> None:
        if next(self._first) == 0:
            self.took.put(seconds_to_close(self._market))


def by_callback(market: MarketDataBackbone, closer: Closer) -> None:
    market.subscribe_realtime("KRW-BTC", DataType.TRADE, callback=closer)


def by_on_event(market: MarketDataBackbone, closer: Closer) -> None:
    market.on_event(closer)
    request(market)


def by_the_subscriptions_on_event(market: MarketDataBackbone, closer: Closer) -> None:
    market.subscribe_realtime("KRW-BTC", DataType.TRADE, callback=lambda item: None, on_event=closer)


def by_on_error(market: MarketDataBackbone, closer: Closer) -> None:
    market.subscribe_realtime("KRW-BTC", DataType.TRADE, callback=lambda item: 1 / 0, on_error=closer)


def by_on_update(market: MarketDataBackbone, closer: Closer) -> None:
    market.candle_series("KRW-BTC", "1s", size=5, on_update=closer)


def by_alert(market: MarketDataBackbone, closer: Closer) -> None:
    market.alert(closer)
    request(market)


def by_submitted_job(market: MarketDataBackbone, closer: Closer) -> None:
    market.submit(closer)


INSIDE = (by_callback, by_on_event, by_the_subscriptions_on_event, by_on_error, by_on_update, by_submitted_job)


@pytest.mark.parametrize("arrange", INSIDE)
def test_closing_inside_its_own_callbacks(
    arrange: Callable[[MarketDataBackbone, Closer], None], upbit: FakeUpbit, market: MarketDataBackbone
) -> None:
    closer = Closer(market)
    arrange(market, closer)
    assert closer.took.get(timeout=10) <= promised(CLOSE_SECONDS)
    wait_until(lambda: not our_threads(), "every thread to end", promised(3.0))


def test_closing_from_a_callback_and_from_outside_at_once(upbit: FakeUpbit, market: MarketDataBackbone) -> None:
    """The outer one waits for the callback, and the callback must not wait for the outer one."""
    entered = threading.Event()
    took: queue.SimpleQueue[float] = queue.SimpleQueue()

    def close(item: object) -> None:
        entered.set()
        wait_until(lambda: market.closed, "the one outside to begin")
        took.put(seconds_to_close(market))

    market.subscribe_realtime("KRW-BTC", DataType.TRADE, callback=close)
    assert entered.wait(10)
    assert seconds_to_close(market) <= promised(1.0)
    assert took.get(timeout=5) <= promised(1.0)


def test_a_progress_callback_may_close(market: MarketDataBackbone) -> None:
    with pytest.raises(ClosedError):
        market.get_candles("KRW-BTC", "1m", count=5_000, progress=lambda *_: market.close())


# ── after it ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def closed(busy_upbit: FakeUpbit) -> MarketDataBackbone:
    market = backbone_of(busy_upbit)
    for _ in range(5):
        market.get_ticker("KRW-BTC")  # now it is known to the hot path
    market.close()
    return market


def test_what_was_answered_from_memory_before_is_not_after_closing(closed: MarketDataBackbone) -> None:
    with pytest.raises(ClosedError):
        closed.get_ticker("KRW-BTC")


def test_reports_can_still_be_read_after_closing(closed: MarketDataBackbone) -> None:
    assert "closed" in repr(closed)
    assert closed.health().to_json()
    assert closed.performance().to_json()


def test_a_forgotten_backbone_goes_away_by_itself(upbit: FakeUpbit) -> None:
    """Nobody subscribed, so nobody can hear of it any more: threads and sockets go when the object does."""
    market = backbone_of(upbit)
    for _ in range(5):
        market.get_ticker("KRW-BTC")  # promoted: a session streams it
    wait_until(lambda: upbit.sessions(), "the session")
    gone = weakref.ref(market)
    del market
    gc.collect()
    assert gone() is None
    wait_until(lambda: not our_threads(), "every thread to end", promised(3.0))


def test_the_last_words_are_heard(upbit: FakeUpbit, market: MarketDataBackbone) -> None:
    """A listener learns that the line was closed on purpose."""
    heard: queue.SimpleQueue[object] = queue.SimpleQueue()
    market.on_event(heard.put)
    live(market)
    market.close()
    events = [heard.get_nowait() for _ in range(heard.qsize())]
    assert [event.state for event in events if isinstance(event, ConnectionEvent)][-1] is ConnectionState.CLOSED
