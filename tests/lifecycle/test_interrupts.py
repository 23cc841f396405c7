"""Ctrl-C ends every blocking call within half a second, with KeyboardInterrupt and nothing broken behind it."""

from __future__ import annotations

import re
import signal
import sys
import threading
from typing import Any

import pytest

from tests.lifecycle.lives import Run
from tests.support.threads import Call
from tests.support.waiting import promised, wait_until
from upbit_backbone import DataStrategy, MarketDataBackbone
from upbit_backbone._concurrency import Deadline, WorkerPool
from upbit_backbone.simulator import FakeUpbit

INTERRUPT_SECONDS = 0.5
EXIT_SECONDS = 1.0

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="signals are sent the POSIX way"),
    pytest.mark.skipif(
        sys.version_info >= (3, 14),
        reason="CPython 3.14 may leave a lock held when a signal's exception comes right after `with lock:` took it",
    ),
]

# Each blocks for ever, or nearly, while REST hangs and nothing is traded.
BLOCKING = {
    "get_ticker": "market.get_ticker('KRW-BTC', timeout=60)",
    "get_ticker realtime": "market.get_ticker('KRW-ETH', realtime=True, timeout=60)",
    "get_candles": "market.get_candles('KRW-BTC', '1m', count=10_000, timeout=60)",
    "iter_candles": "list(market.iter_candles('KRW-BTC', '1m', count=10_000))",
    "for loop": "[item for item in trades]",
    "queue.get": "[trades.queue.get() for _ in range(10**9)]",
    "queue.join": "trades.queue.join()",
    "get": "[trades.get(timeout=None) for _ in range(10**9)]",
    "wait_update": "[series.wait_update() for _ in range(10**9)]",
    "wait_change": "[book.wait_change() for _ in range(10**9)]",
}
ARRANGE = """
trades = market.subscribe("KRW-BTC", "trade")
trades.get(timeout=10)
series = market.candle_series("KRW-BTC", "1m", size=5)
book = market.live_orderbook("KRW-BTC")
say("ARRANGED")
sys.stdin.read()
"""
TRY = """
soon_blocked()
try:
    {call}
except KeyboardInterrupt:
    say("INTERRUPTED")
market.close()
say("END")
"""


@pytest.mark.parametrize("name", BLOCKING)
def test_ctrl_c_ends_it(name: str, run: Run, upbit: FakeUpbit) -> None:
    child = run(ARRANGE + TRY.format(call=BLOCKING[name]))
    child.expect("ARRANGED")
    upbit.pause()
    upbit.rest_fault("*", "hang", times=None)
    child.end_input()
    child.expect("READY")
    sent = child.interrupt()
    assert child.expect("INTERRUPTED") - sent <= promised(INTERRUPT_SECONDS)
    closed = child.expect("END")
    end = child.finish()
    assert (end.code, end.errors) == (0, "")
    assert closed - sent <= promised(INTERRUPT_SECONDS + 2.0)
    assert end.at - closed <= promised(EXIT_SECONDS)


def test_ctrl_c_ends_a_close_that_waits_for_a_callback(run: Run) -> None:
    script = """
    entered = threading.Event()
    def stuck(item):
        entered.set()
        threading.Event().wait()
    market.subscribe_realtime("KRW-BTC", "trade", callback=stuck)
    entered.wait(10)
    soon_blocked()
    try:
        market.close(timeout=30)
    except KeyboardInterrupt:
        say("INTERRUPTED")
    market.close(timeout=0.1)
    say("END")
    """
    child = run(script)
    child.expect("READY")
    sent = child.interrupt()
    assert child.expect("INTERRUPTED") - sent <= promised(INTERRUPT_SECONDS)
    closed = child.expect("END")
    end = child.finish()
    assert end.code == 0
    assert "Traceback" not in end.errors
    assert end.at - closed <= promised(EXIT_SECONDS)


def test_ctrl_c_that_nobody_catches_ends_the_program_with_one_traceback(run: Run) -> None:
    child = run("books = market.subscribe('KRW-BTC', 'orderbook'); books.get(timeout=10)\nsoon_blocked()\n"
                "for book in books: pass")  # fmt: skip
    child.expect("READY")
    sent = child.interrupt()
    end = child.finish()
    assert end.code == -signal.SIGINT
    assert end.errors.count("Traceback") == 1
    assert end.errors.rstrip().endswith("KeyboardInterrupt")
    assert end.at - sent <= promised(EXIT_SECONDS + INTERRUPT_SECONDS)


def test_ctrl_c_twice_ends_at_once_even_if_a_callback_is_stuck(run: Run) -> None:
    script = """
    import atexit
    entered = threading.Event()
    def stuck(item):
        entered.set()
        threading.Event().wait()
    market.subscribe_realtime("KRW-BTC", "trade", callback=stuck)
    entered.wait(10)
    try:
        say("READY")
        threading.Event().wait(60)
    except KeyboardInterrupt:
        soon_blocked("_leave")
    """
    child = run(script)
    child.expect("READY")
    child.interrupt()
    child.expect("READY")
    sent = child.interrupt()
    end = child.finish()
    assert "Traceback" not in end.errors
    assert end.at - sent <= promised(EXIT_SECONDS)


def test_terminating_it_kills_it_at_once(run: Run) -> None:
    """SIGTERM is not ours: Python leaves it to the system, which ends the process on the spot."""
    child = run("trades = market.subscribe('KRW-BTC', 'trade'); trades.get(timeout=10)\nsoon_blocked()\nlist(trades)")
    child.expect("READY")
    sent = child.interrupt(signal.SIGTERM)
    end = child.finish()
    assert (end.code, end.errors) == (-signal.SIGTERM, "")
    assert end.at - sent <= promised(EXIT_SECONDS)


def test_a_service_that_turns_sigterm_into_an_exit_leaves_in_time(run: Run) -> None:
    script = """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(3))
    soon_blocked()
    with market, market.subscribe("KRW-BTC", "orderbook") as books:
        for book in books:
            pass
    """
    child = run(script)
    child.expect("READY")
    sent = child.interrupt(signal.SIGTERM)
    end = child.finish()
    assert (end.code, end.errors) == (3, "")
    assert end.at - sent <= promised(EXIT_SECONDS)


def test_alarms_raised_inside_waits_leave_no_lock_behind(run: Run) -> None:
    """A handler that raises, hundreds of times, at any point of any wait: afterwards everything still works."""
    script = """
    class Alarm(BaseException):
        pass

    def ring(number, frame):
        raise Alarm

    trades = market.subscribe("KRW-BTC", "trade")
    trades.get(timeout=10)
    series = market.candle_series("KRW-BTC", "1m", size=5)
    book = market.live_orderbook("KRW-BTC")
    signal.signal(signal.SIGALRM, ring)
    calls = [
        lambda: trades.get(timeout=0.05), lambda: trades.queue.get(timeout=0.05),
        lambda: market.get_ticker("KRW-BTC", realtime=True, timeout=0.05), lambda: book.wait_change(timeout=0.05),
        lambda: series.wait_update(timeout=0.05), lambda: market.get_orderbook("KRW-ETH", max_age=0, timeout=0.05),
        lambda: market.get_tickers(["KRW-BTC", "KRW-XRP"], max_age=0, timeout=0.05),
    ]
    alarms = 0
    end = time.monotonic() + 3
    while time.monotonic() < end and alarms < 400:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0005 + 0.004 * (alarms % 7) / 7)
            calls[alarms % len(calls)]()
        except Alarm:
            alarms += 1
        except (UpbitBackboneError, queue.Empty):
            alarms += 1
        finally:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Alarm:
                pass
    say("RANG", alarms)
    trades.get(timeout=10)
    book.wait_change(timeout=10)
    market.get_ticker("KRW-XRP", timeout=5)
    market.get_ticker("KRW-ETH", realtime=True, timeout=5)
    say("WORKS")
    market.close()
    say("END")
    """
    child = run(script)
    child.expect("RANG")
    works = child.expect("WORKS")
    assert child.expect("END") - works <= promised(2.0)
    end = child.finish()
    assert end.code == 0
    # CPython complains of an alarm inside its own callbacks and finalizers; of nothing else may be complained.
    assert [line for line in end.errors.splitlines() if re.match(r"[\w.]+(Error|Exception)\b", line)] == []


def test_ctrl_c_while_a_question_is_being_sent_is_nobody_elses(
    market: MarketDataBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes when the worker has been hired: the job may be served, shared or neither, and all of that ends well."""
    hire, hired = WorkerPool._hire, []

    def interrupted(pool: WorkerPool, *given: Any) -> None:
        hire(pool, *given)
        if not hired and "upbit-rest" in repr(pool):
            hired.append(pool)
            raise KeyboardInterrupt

    market.get_markets()
    monkeypatch.setattr(WorkerPool, "_hire", interrupted)
    for ask in (
        # In too much of a hurry to be asked on the thread that asks.
        lambda: market.get_orderbook("KRW-BTC", strategy=DataStrategy.REST_ONLY, max_age=0, timeout=1.9),
        lambda: market.get_trades("KRW-BTC", count=1, timeout=1.9),
        lambda: market.get_candles("KRW-BTC", "1d", count=1, timeout=1.9),
    ):
        hired.clear()
        with pytest.raises(KeyboardInterrupt):
            ask()
        assert hired
        assert ask()


def test_whoever_shares_a_call_does_not_share_its_interruption(
    market: MarketDataBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go_on = threading.Event(), threading.Event()
    hire = WorkerPool._hire

    def interrupted(pool: WorkerPool, *given: Any) -> None:
        entered.set()
        go_on.wait(10)
        raise KeyboardInterrupt

    market.get_markets()
    monkeypatch.setattr(WorkerPool, "_hire", interrupted)
    first = Call(lambda: market._parts.rest.trades_page("KRW-BTC", count=1, deadline=Deadline.after(1.9)))
    assert entered.wait(10)
    second = Call(lambda: market._parts.rest.trades_page("KRW-BTC", count=1, deadline=Deadline.after(5)))
    wait_until(lambda: market._parts.rest.cache.stats().merged > 0, "the second to join")
    monkeypatch.setattr(WorkerPool, "_hire", hire)
    go_on.set()
    assert isinstance(first.outcome(), KeyboardInterrupt)
    assert isinstance(second.outcome(), list)  # by asking again
