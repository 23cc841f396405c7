"""Who carries a question out, and that nobody suffers from what befalls another."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.rest_scene import last_request, soon
from tests.support.threads import Call, all_at_once
from tests.support.waiting import promised, wait_until
from upbit_backbone.errors import NetworkError, RequestTimeoutError
from upbit_backbone.simulator import FakeUpbit

Make = Callable[..., Any]


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, the system gives no more threads."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    return lambda: monkeypatch.setattr(threading.Thread, "start", refuse)


# --- a lone question ---


def test_a_lone_question_waits_for_no_company(scene: Make, upbit: FakeUpbit) -> None:
    made, since = scene(merge_window_seconds=8.0), last_request(upbit)
    started = time.monotonic()
    for ask in (made.rest.tickers, made.rest.orderbooks):
        for symbol in ("KRW-BTC", "KRW-ETH"):
            assert list(ask([symbol], deadline=soon(30))) == [symbol]
    assert time.monotonic() - started < promised(5.0)
    assert len(upbit.requests(since=since)) == 4


def test_lone_questions_on_a_kept_connection_need_no_thread(scene: Make, no_threads: Callable[[], None]) -> None:
    made = scene()
    assert made.rest.tickers(["KRW-ETH"], deadline=soon())  # whose name was resolved on a thread
    no_threads()
    assert made.rest.tickers(["KRW-BTC"], deadline=soon())
    assert made.rest.orderbooks(["KRW-BTC"], deadline=soon())
    assert made.rest.trades_page("KRW-BTC", deadline=soon())
    assert made.rest.candles_page("KRW-BTC", "1m", deadline=soon())
    assert made.rest.markets(deadline=soon())


def test_one_in_a_hurry_is_answered_too(scene: Make) -> None:
    made = scene(merge_window_seconds=8.0)
    assert made.rest.tickers(["KRW-BTC"], deadline=soon(1.9))


# --- behind another ---


def test_what_is_asked_behind_a_question_leaves_as_one_list(scene: Make, upbit: FakeUpbit) -> None:
    made, symbols, since = scene(), upbit.markets()[:40], last_request(upbit)
    upbit.rest_fault("/v1/ticker", mode="latency", latency=0.09)
    first = Call(lambda: made.rest.tickers(["KRW-BTC"], deadline=soon()))
    wait_until(lambda: upbit.requests(since=since))
    asked = [symbol for symbol in symbols if symbol != "KRW-BTC"]
    answers = all_at_once(len(asked), lambda n: made.rest.tickers([asked[n]], deadline=soon()))
    assert [list(answer) for answer in answers] == [[symbol] for symbol in asked]
    assert list(first.outcome()) == ["KRW-BTC"]
    assert len(upbit.requests(since=since)) <= 3


@pytest.mark.parametrize("kind", ["tickers", "orderbooks"])
def test_without_a_thread_to_be_had_everybody_on_the_list_is_told(
    scene: Make, upbit: FakeUpbit, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    made, since = scene(), last_request(upbit)
    ask, symbols = getattr(made.rest, kind), upbit.markets()[1:9]
    upbit.rest_fault("/v1/ticker" if kind == "tickers" else "/v1/orderbook", mode="latency", latency=1.5)
    first = Call(lambda: ask([upbit.markets()[0]], deadline=soon()))
    wait_until(lambda: upbit.requests(since=since))
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("upbit-rest"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    answers = all_at_once(len(symbols), lambda n: ask([symbols[n]], deadline=soon()))
    assert [type(answer) for answer in answers] == [NetworkError] * len(symbols)
    assert {"no thread could be started" in str(answer) for answer in answers} == {True}
    assert all(answer.retryable for answer in answers)
    monkeypatch.undo()
    assert first.outcome()
    assert list(ask(symbols, deadline=soon())) == symbols


def test_a_page_in_a_hurry_without_a_thread_to_be_had_is_a_network_error(
    scene: Make, no_threads: Callable[[], None]
) -> None:
    made = scene()
    assert made.rest.tickers(["KRW-ETH"], deadline=soon())
    no_threads()
    with pytest.raises(NetworkError, match="can't start new thread"):
        made.rest.candles_page("KRW-BTC", "1m", deadline=soon(1.5))
    assert made.rest.candles_page("KRW-BTC", "1m", deadline=soon())  # nothing was left behind


# --- deadlines and interruptions ---


def test_who_outlives_the_one_who_sent_the_call_asks_again(scene: Make, upbit: FakeUpbit) -> None:
    made, since = scene(rest_attempts=1), last_request(upbit)
    upbit.rest_fault("/v1/*", mode="hang", times=1)
    leader = Call(lambda: made.rest.tickers(["KRW-BTC"], deadline=soon(2.2)))
    wait_until(lambda: upbit.requests(since=since))
    follower = Call(lambda: made.rest.tickers(["KRW-BTC"], deadline=soon(15.0)))
    twin = Call(lambda: made.rest.tickers(["KRW-BTC"], deadline=soon(2.2)))
    assert isinstance(leader.outcome(), RequestTimeoutError)
    assert list(follower.outcome()) == ["KRW-BTC"]
    twin.outcome()  # by the answer to the follower or by its own deadline, but it ends
    assert len(upbit.requests(since=since)) == 2


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
@pytest.mark.parametrize("kind", ["tickers", "candles"])
def test_who_shares_a_question_does_not_share_its_interruption(scene: Make, upbit: FakeUpbit, kind: str) -> None:
    made, since = scene(), last_request(upbit)
    upbit.rest_fault("/v1/*", mode="latency", latency=0.8, times=1)

    def ask() -> Any:
        if kind == "tickers":
            return list(made.rest.tickers(["KRW-BTC"], deadline=soon()))
        return [candle.symbol for candle in made.rest.candles_page("KRW-BTC", "1m", deadline=soon())]

    def follow() -> Any:
        wait_until(lambda: upbit.requests(since=since))
        return ask()

    follower = Call(follow)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.4)
        with pytest.raises(KeyboardInterrupt):
            ask()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert follower.outcome() == ["KRW-BTC"]
    assert ask() == ["KRW-BTC"]
