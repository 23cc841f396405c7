"""A backbone that nobody closed lets its process go: within a second, quietly, with the exit code it meant."""

from __future__ import annotations

from textwrap import dedent

import pytest

from tests.lifecycle.lives import Child, Ending, Run
from tests.support.waiting import promised
from upbit_backbone.simulator import FakeUpbit

EXIT_SECONDS = 1.0

SITUATIONS = {
    "promoted": "[market.get_ticker('KRW-BTC') for _ in range(10)]",
    "module-level functions": "ub.get_ticker('KRW-BTC')",
    "busy callback": "market.subscribe_realtime('KRW-BTC', 'trade', callback=lambda item: None); wait_live()",
    "printing callback": "market.subscribe_realtime('KRW-BTC', 'trade', callback=print); wait_live()",
    "listener and series": (
        "market.on_event(lambda event: None); series = market.candle_series('KRW-BTC', '1m', size=5);"
        "book = market.live_orderbook('KRW-BTC'); market.alert(lambda alert: None)"
    ),
    "several of them": "others = [MarketDataBackbone() for _ in range(5)]; [o.get_markets() for o in others]",
    "at exit by hand": "import atexit; atexit.register(market.close); market.get_ticker('KRW-BTC')",
    "held by a finalizer": "Holder.market = market; holder = Holder(); holder.me = holder",
}

HELPERS = """
def wait_live():
    market.held = market.subscribe("KRW-BTC", "trade")
    market.held.get(timeout=10)

class Holder:
    def __del__(self):
        self.market.close()

def hangs(call):
    threading.Thread(target=call, daemon=True).start()

def enter(event):
    event.set()
    threading.Event().wait()
"""


def ending(child: Child) -> tuple[Ending, float]:
    """How it ended, and how many seconds after its main program did."""
    at = child.expect("END")
    end = child.finish()
    return end, end.at - at


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_forgotten_backbone_lets_the_process_go(name: str, run: Run) -> None:
    end, seconds = ending(run(HELPERS + SITUATIONS[name] + "\nsay('END')"))
    assert (end.code, end.errors) == (0, "")
    assert seconds <= promised(EXIT_SECONDS)


STUCK = {
    "in a callback": """
        entered = threading.Event()
        market.subscribe_realtime("KRW-BTC", "trade", callback=lambda item: enter(entered))
        entered.wait(10)
    """,
    "in a listener": """
        entered = threading.Event()
        market.on_event(lambda event: enter(entered))
        held = market.subscribe("KRW-BTC")
        entered.wait(10)
    """,
    "in a job": """
        entered = threading.Event()
        market.submit(enter, entered)
        entered.wait(10)
    """,
}


@pytest.mark.parametrize("name", STUCK)
def test_code_of_the_users_that_never_returns_does_not_hold_it_up(name: str, run: Run) -> None:
    end, seconds = ending(run(HELPERS + dedent(STUCK[name]) + "\nsay('END')"))
    assert (end.code, end.errors) == (0, "")
    assert seconds <= promised(EXIT_SECONDS)


def test_a_download_under_way_does_not_hold_it_up(run: Run, upbit: FakeUpbit) -> None:
    upbit.rest_fault("/v1/candles*", "latency", latency=0.5, times=None)
    script = """
going = threading.Event()
hangs(lambda: market.get_candles("KRW-BTC", "1m", count=50_000, timeout=60, progress=lambda *_: going.set()))
going.wait(10)
say("END")
"""
    end, seconds = ending(run(HELPERS + script))
    assert end.code == 0  # the thread that was downloading may still say why it ended
    assert seconds <= promised(EXIT_SECONDS)


def test_questions_that_hang_do_not_hold_it_up(run: Run, upbit: FakeUpbit) -> None:
    upbit.rest_fault("*", "hang", times=None)
    script = """
    futures = [market.submit(market.get_ticker, "KRW-BTC", timeout=60) for _ in range(20)]
    say("END")
    """
    end, seconds = ending(run(script))
    assert (end.code, end.errors) == (0, "")
    assert seconds <= promised(EXIT_SECONDS)


def test_a_frozen_server_does_not_hold_it_up(run: Run, upbit: FakeUpbit) -> None:
    child = run("trades = market.subscribe('KRW-BTC', 'trade'); trades.get(timeout=10); say('LIVE'); sys.stdin.read(); "
                "say('END')")  # fmt: skip
    child.expect("LIVE")
    upbit.freeze()
    child.end_input()
    end, seconds = ending(child)
    assert (end.code, end.errors) == (0, "")
    assert seconds <= promised(EXIT_SECONDS)


def test_the_exit_code_is_kept(run: Run) -> None:
    end, seconds = ending(run("market.subscribe('KRW-BTC').get(timeout=10); say('END'); sys.exit(7)"))
    assert (end.code, end.errors) == (7, "")
    assert seconds <= promised(EXIT_SECONDS)


def test_an_unhandled_exception_is_the_only_traceback(run: Run) -> None:
    end, seconds = ending(run("market.subscribe('KRW-BTC').get(timeout=10); say('END'); raise LookupError('mine')"))
    assert end.code == 1
    assert end.errors.count("Traceback") == 1
    assert end.errors.rstrip().endswith("LookupError: mine")
    assert seconds <= promised(EXIT_SECONDS)


def test_it_can_still_be_closed_and_asked_at_exit(run: Run) -> None:
    """Exit functions run last in, first out: ours was registered first, so it runs after this one."""
    script = """
    import atexit
    def goodbye():
        print(market.get_ticker("KRW-BTC").symbol, flush=True)
        market.close()
        try:
            market.get_ticker("KRW-BTC")
        except ClosedError as error:
            print("closed", flush=True)
    atexit.register(goodbye)
    held = market.subscribe("KRW-BTC")
    held.get(timeout=10)
    say("END")
    """
    end, seconds = ending(run(script))
    assert (end.code, end.errors, end.output.split()) == (0, "", ["KRW-BTC", "closed"])
    assert seconds <= promised(EXIT_SECONDS + 1.0)  # it asked a question meanwhile
