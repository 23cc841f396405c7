"""After a fork the child is told at once to make its own; it never hangs, and the parent notices nothing."""

from __future__ import annotations

import os
from textwrap import dedent

import pytest

from tests.lifecycle.lives import Run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

# Every lock of the library that the parent's threads may hold is taken at the moment of the fork.
PARENT = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forking with threads; that is the point
trades = market.subscribe("KRW-BTC", "trade")
with_callback = market.subscribe_realtime("KRW-ETH", "trade", callback=lambda item: None)
series = market.candle_series("KRW-BTC", "1m", size=5)
book = market.live_orderbook("KRW-BTC")
listening = market.on_event(lambda event: None)
import tempfile
recorder = market.record(os.path.join(tempfile.mkdtemp(), "day.rec"))
ub.get_ticker("KRW-BTC")
while market.get_ticker("KRW-BTC").source is not DataSource.WEBSOCKET:
    time.sleep(0.01)

def refused(name, call):
    started = time.monotonic()
    try:
        call()
    except ClosedError as error:
        verdict = "fork" if "fork" in str(error) else f"ClosedError without a word of the fork: {error}"
    except BaseException as error:
        verdict = repr(error)
    else:
        verdict = "no error"
    took = time.monotonic() - started
    if verdict != "fork" or took > 2.0:
        print("BAD", name, verdict, f"{took:.2f}", flush=True)

def quiet(name, call):
    started = time.monotonic()
    try:
        call()
    except BaseException as error:
        print("BAD", name, repr(error), flush=True)
    if time.monotonic() - started > 2.0:
        print("BAD", name, "took too long", flush=True)

ASKED = {
    "get_ticker": lambda: market.get_ticker("KRW-BTC"),
    "get_ticker realtime": lambda: market.get_ticker("KRW-BTC", realtime=True),
    "get_tickers": lambda: market.get_tickers(quote="KRW"),
    "get_orderbook": lambda: market.get_orderbook("KRW-BTC"),
    "get_trades": lambda: market.get_trades("KRW-BTC"),
    "get_candles": lambda: market.get_candles("KRW-BTC"),
    "get_markets": lambda: market.get_markets(),
    "subscribe": lambda: market.subscribe("KRW-BTC"),
    "subscribe_realtime": lambda: market.subscribe_realtime("KRW-BTC", callback=print),
    "unsubscribe": lambda: market.unsubscribe(with_callback),
    "candle_series": lambda: market.candle_series("KRW-BTC"),
    "live_orderbook": lambda: market.live_orderbook("KRW-BTC"),
    "submit": lambda: market.submit(market.get_ticker, "KRW-BTC"),
    "on_event": lambda: market.on_event(print),
    "explain": lambda: market.explain("ticker", "KRW-BTC"),
    "health": lambda: market.health(),
    "Subscription.get": lambda: trades.get(timeout=5),
    "Subscription.queue.get": lambda: trades.queue.get(timeout=5),
    "Subscription.queue.drain": lambda: trades.queue.drain(),
    "iteration": lambda: next(iter(trades)),
    "wait_update": lambda: series.wait_update(timeout=5),
    "wait_change": lambda: book.wait_change(timeout=5),
    "LiveOrderbook.book": lambda: book.book,
    "Recorder.stats": lambda: recorder.stats,
    "series[-1]": lambda: series[-1],
    "get_ticker, current a moment ago": lambda: market.get_ticker("KRW-BTC"),
}
ENDED = {
    "repr": lambda: repr(market),
    "closed": lambda: market.closed or 1 / 0,
    "Subscription.close": lambda: trades.close(),
    "Listening.close": lambda: listening.close(),
    "Recorder.close": lambda: recorder.close(),
    "series.is_current": lambda: not series.is_current or 1 / 0,
    "LiveOrderbook.is_current": lambda: not book.is_current or 1 / 0,
    "CandleSeries.close": lambda: series.close(),
    "LiveOrderbook.close": lambda: book.close(),
    "close": lambda: market.close(),
    "close again": lambda: market.close(),
}

def child(forked_in_c=False):
    import faulthandler
    faulthandler.dump_traceback_later(40, exit=True)  # a hang is shown, not waited for
    for name, call in ASKED.items():
        refused(name, call)
    for name, call in ENDED.items():
        quiet(name, call)
    if forked_in_c:
        # A thread started in a child that Python was not told of waits now and then for a lock of Python's or of the
        # C library's own, which one of the parent's threads held just then.
        print("CHILD DONE", flush=True)
        return
    own = ub.get_ticker("KRW-BTC")  # module-level functions make a new one
    assert own.current_price > 0
    with MarketDataBackbone() as mine:
        assert mine.subscribe("KRW-BTC", "trade").get(timeout=10)
        assert mine.get_candles("KRW-BTC", count=3)
    print("CHILD DONE", flush=True)

def fork_in_c():
    # As uWSGI forks: Python is not told. A thread that is about to take the GIL just then leaves its child without
    # one, which is Python's affair and not ours: such a child shows it at its first system call, and another is made.
    import ctypes, select
    while True:
        reading, writing = os.pipe()
        pid = ctypes.PyDLL(None).fork()
        if not pid:
            os.write(writing, b"1")
            os.write(writing, b"2")
            return 0
        said = b""
        while len(said) < 2 and select.select([reading], [], [], 15)[0]:
            said += os.read(reading, 2)
        if len(said) == 2:
            return pid
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

def all_locks():
    # those of ours, taken
    import gc
    from collections import deque
    import upbit_backbone.default_backbone
    followed = (dict, list, tuple, set, deque)
    kinds = (type(threading.Lock()), type(threading.RLock()))
    waiting, seen, locks = [market, trades, series, book, listening], set(), []
    while waiting:
        each = waiting.pop()
        if id(each) in seen or isinstance(each, type):
            continue
        seen.add(id(each))
        if isinstance(each, kinds):
            locks.append(each)
        if isinstance(each, (threading.Condition, threading.Event)):
            waiting += vars(each).values()
        elif isinstance(each, followed) or type(each).__module__.startswith("upbit_backbone"):
            waiting += gc.get_referents(each)
    locks.append(upbit_backbone.default_backbone._lock)
    taken = [lock for lock in locks if lock.acquire(timeout=0.05)]
    print("LOCKS", len(taken), len(locks), flush=True)
    return taken

def parent_goes_on():
    for _ in range(20):
        trades.get(timeout=10)
    assert market.get_ticker("KRW-BTC").source is DataSource.WEBSOCKET
    assert ub.get_ticker("KRW-BTC")
    assert [session.reconnects for session in market.health().sessions] == [0]
    assert recorder.stats.error is None
    market.close()
    say("END")
"""

FORKS = {
    "os.fork": """
        pid = os.fork()
        if not pid:
            child()
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        parent_goes_on()
    """,
    "in C": """
        pid = fork_in_c()
        if not pid:
            child(forked_in_c=True)
            os._exit(0)  # as a worker that is stopped; what Python does at its end is no more ours than its GIL
        assert os.waitpid(pid, 0)[1] == 0
        parent_goes_on()
    """,
    "in C, every lock held": """
        taken = all_locks()
        pid = fork_in_c()
        if not pid:
            child(forked_in_c=True)
            os._exit(0)
        for lock in taken:
            lock.release()
        assert os.waitpid(pid, 0)[1] == 0
        parent_goes_on()
    """,
    "multiprocessing": """
        import multiprocessing
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join()
        assert process.exitcode == 0
        parent_goes_on()
    """,
    "every lock held": """
        taken = all_locks()
        pid = os.fork()
        if not pid:
            child()
            os._exit(0)
        for lock in taken:
            lock.release()
        assert os.waitpid(pid, 0)[1] == 0
        parent_goes_on()
    """,
}


@pytest.mark.parametrize("name", FORKS)
def test_the_child_is_told_and_the_parent_goes_on(name: str, run: Run) -> None:
    child = run(PARENT + dedent(FORKS[name]))
    child.expect("END")
    end = child.finish()
    assert end.code == 0
    assert "BAD" not in "".join(child.seen)
    assert "CHILD DONE\n" in child.seen
    assert end.errors == ""
