"""Exceptions from anywhere in threads of ours: what runs out of memory there, or is given an exception by C code.

After each of them the backbone answers, streams and closes, and all counts are right.
"""

from __future__ import annotations

import gc
import os
import random
import sys
import threading

import pytest
from injection import OwnThreads
from scenes import (
    SEED,
    WAIT_SECONDS,
    ask_for_many,
    ask_for_the_past,
    check,
    follow_book,
    follow_candles,
    listen,
    look,
    read,
    record,
    submit,
    subscribe_with_callback,
)

from tests.support.waiting import wait_until
from upbit_backbone import MarketDataBackbone, UpbitBackboneError
from upbit_backbone._concurrency import Deadline, WorkerPool
from upbit_backbone.sessions.session import Session
from upbit_backbone.sessions.session_manager import SessionManager
from upbit_backbone.simulator import FakeUpbit

ROUNDS = int(os.environ.get("UPBIT_BACKBONE_FAULT_ROUNDS", "10"))  # each of them a whole life
TURNS = 3  # the first time, or one of the next
# Every step of every thread is counted here: on a busy machine the stream is seconds late, and rightly not current.
LATEST_SECONDS = 60.0

pytestmark = [
    pytest.mark.skipif(sys.version_info >= (3, 14), reason="CPython 3.14 itself may leave a lock held in a `with`"),
    pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="CPython 3.12 itself crashes: several threads traced"),
    pytest.mark.xdist_group("faults"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    # A thread that breaks on its very last steps tells so by Python's own means.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]

LIFE = [
    read,
    subscribe_with_callback,
    listen,
    submit,
    look,
    ask_for_many,
    ask_for_the_past,
    follow_candles,
    follow_book,
    record,
]


class Broken(BaseException):
    """Nothing that anybody could expect."""


def live(upbit: FakeUpbit, fault: OwnThreads) -> None:
    """A whole life, in which every thread is started; what was broken in it is whole at its end."""
    told = f"{fault.kind.__name__} at {fault.place} (seed {SEED})"
    urls = {"rest_url": upbit.rest_url, "websocket_url": upbit.websocket_url}
    with MarketDataBackbone(**urls, max_lag_seconds=LATEST_SECONDS) as market:
        for method in LIFE:
            try:
                method(market)
            except (fault.kind, UpbitBackboneError):  # who asks a thread may get what it met
                assert fault.struck, told
        fault.end()
        with market.subscribe("KRW-BTC", "trade") as trades:
            check(market, trades.topics, told)
            for method in LIFE:  # it answers
                method(market)
            trades.queue.drain()
            assert trades.get(timeout=WAIT_SECONDS), told  # it streams
        assert market._parts.close(Deadline.after(WAIT_SECONDS)) == [], told  # and it closes
    wait_until(lambda: not own_threads(), lambda: f"the end of {own_threads()} after {told}")


def own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("upbit-")]


@pytest.mark.faults
@pytest.mark.parametrize("kind", [MemoryError, SystemExit, Broken])
def test_wherever_a_thread_of_ours_fails_everything_goes_on(upbit: FakeUpbit, kind: type[BaseException]) -> None:
    chance = random.Random(SEED)
    places, struck = OwnThreads.count(lambda nothing: live(upbit, nothing)), 0
    for place in chance.choices(sorted(places), k=ROUNDS):
        with OwnThreads(kind, place, chance.randrange(min(TURNS, places[place]))) as fault:
            live(upbit, fault)
        struck += bool(fault.struck)
    assert struck
    # A file whose opener broke before anybody held it is closed by Python, which grumbles: here, in no later test.
    gc.collect()


def test_whoever_waits_for_a_job_is_answered_wherever_its_worker_breaks() -> None:
    """At each place in turn: a worker that dies takes no job with it."""
    for place in sorted(OwnThreads.count(work_twice)):
        with OwnThreads(Broken, place) as fault:
            work_twice(fault)


def work_twice(fault: OwnThreads) -> None:
    pool = WorkerPool(1, "upbit-test")
    for number in range(2):
        try:
            assert pool.submit(lambda: number).result(WAIT_SECONDS) == number  # noqa: B023
        except Broken:
            assert fault.struck
    assert pool.close(Deadline.after(WAIT_SECONDS)) == []


def test_a_session_that_fails_while_it_asks_what_is_wanted_asks_again(
    market: MarketDataBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, ask = [], SessionManager._requests_of

    def fail_at_first(manager: SessionManager, session: Session) -> object:
        asked.append(session)
        if len(asked) == 1:
            raise MemoryError
        return ask(manager, session)

    monkeypatch.setattr(SessionManager, "_requests_of", fail_at_first)
    with market.subscribe("KRW-BTC", "trade") as trades:
        assert trades.get(timeout=WAIT_SECONDS)
    assert len(asked) > 1
