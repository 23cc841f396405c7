"""What we call fails: log lines, events and thread starts, one by one in turn and at random by seed.

After each of them the backbone answers, streams and closes, and all counts are right.
"""

from __future__ import annotations

import _thread
import logging
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from scenes import METHODS, SEED, WAIT_SECONDS, check, hold, listen, read, streaming, submit, subscribe_with_callback

from tests.support.waiting import wait_until
from upbit_backbone import MarketDataBackbone
from upbit_backbone.delivery.event_bus import EventBus
from upbit_backbone.errors import UpbitBackboneError
from upbit_backbone.simulator import FakeUpbit

PLACES = int(os.environ.get("UPBIT_BACKBONE_FAULT_PLACES", "25"))
TRIES = 10
FEW_PLACES = 1  # of each method, in every run of the tests
ROUNDS = int(os.environ.get("UPBIT_BACKBONE_FAULT_ROUNDS", "4"))
SHARE = 0.2  # of all calls, where they fail at random

pytestmark = [
    pytest.mark.xdist_group("faults"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


class Fault:
    """Counts the calls of what it is put around; raises `error` at the call `at`, or at a share of them at random."""

    def __init__(self, error: BaseException, at: int = -1, chance: random.Random | None = None) -> None:
        self.error = error
        self.count = 0
        self.struck = 0
        self._at = at
        self._chance = chance
        self._lock = threading.Lock()  # guards the counts: most of these calls come from other threads

    def pass_by(self) -> None:
        with self._lock:
            strikes = self.count == self._at or (self._chance is not None and self._chance.random() < SHARE)
            self.count += 1
            self.struck += strikes
        if strikes:
            raise type(self.error)(*self.error.args)


class _Handler(logging.Handler):
    def __init__(self, fault: Fault) -> None:
        super().__init__()
        self._fault = fault

    def emit(self, record: logging.LogRecord) -> None:
        self._fault.pass_by()


@contextmanager
def log_lines(fault: Fault) -> Iterator[None]:
    """A handler of the user's that raises."""
    logger, handler = logging.getLogger("upbit_backbone"), _Handler(fault)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


@contextmanager
def patched(owner: Any, name: str, fault: Fault) -> Iterator[None]:
    before = getattr(owner, name)

    def failing(*args: Any, **options: Any) -> Any:
        fault.pass_by()
        return before(*args, **options)

    setattr(owner, name, failing)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def events(fault: Fault) -> Iterator[None]:
    """Telling the listeners raises, wherever something happens."""
    with patched(EventBus, "emit", fault):
        yield


@contextmanager
def thread_starts(fault: Fault) -> Iterator[None]:
    """The system has no thread to give, or no memory for one."""
    with patched(threading.Thread, "start", fault), patched(_thread, "start_new_thread", fault):
        yield


Seam = Callable[[Fault], Any]
Method = Callable[[MarketDataBackbone], None]
FAULTS: list[tuple[Seam, BaseException]] = [
    *((seam, error) for seam in (log_lines, events) for error in (OSError("full"), MemoryError(), SystemExit(3))),
    *((thread_starts, error) for error in (RuntimeError("can't start new thread"), MemoryError())),
]


def is_allowed(error: BaseException | None, seam: Seam, injected: BaseException) -> bool:
    """No more may come out than what was injected where the user may meet it: on a thread of his own."""
    if seam is thread_starts:  # who asked for a thread hears that there is none
        return error is None or isinstance(error, (RuntimeError, MemoryError, UpbitBackboneError))
    return error is None or (not isinstance(injected, Exception) and type(error) is type(injected))


def run(call: Callable[[], object]) -> BaseException | None:
    try:
        call()
    except BaseException as error:
        return error
    return None


def lose_the_line(market: MarketDataBackbone) -> None:
    """The line breaks, comes back, and fills its gap."""

    def epochs() -> int:
        return sum(each.epoch for each in market.session_manager.stats())

    with hold(market.subscribe("KRW-XRP", "trade")) as trades:
        trades.get(timeout=WAIT_SECONDS)
        before = epochs()
        market.session_manager.reconnect(reason="a test breaks the line")
        wait_until(lambda: epochs() > before, "another line")
        trades.queue.drain()
        trades.get(timeout=WAIT_SECONDS)


def start_anew(market: MarketDataBackbone) -> None:
    """A whole life, in which every thread is started."""
    urls = {"rest_url": market._parts.config.rest_url, "websocket_url": market._parts.config.websocket_url}
    with MarketDataBackbone(**urls) as other:
        for method in (subscribe_with_callback, read, listen, submit):
            method(other)


QUICK = [subscribe_with_callback, lose_the_line]
FEW = [subscribe_with_callback, listen, lose_the_line, start_anew]
ALL = [*METHODS, lose_the_line, start_anew]


def fail_in_turn(upbit: FakeUpbit, method: Method, seam: Seam, error: BaseException, most: int) -> int:
    """One failure after the other, each in a call of its own; how many there were."""
    urls = {"rest_url": upbit.rest_url, "websocket_url": upbit.websocket_url}
    struck = 0
    with MarketDataBackbone(**urls) as market, streaming(market, method) as trades:
        # How many there are is not the same each time: promotion, health and the line go on beside it.
        counted = Fault(error)
        with seam(counted):
            method(market)
        step = max(1, counted.count // most)
        # From the first half of a step on, and the very first besides: there may be fewer the next time.
        for at in sorted({0, *range(random.Random(SEED).randrange((step + 1) // 2), counted.count, step)}):
            fault = Fault(error, at)
            with seam(fault):
                raised = run(lambda: method(market))
            where = f"{method.__name__}, {seam.__name__} number {at} raising {error!r}"
            assert is_allowed(raised, seam, error), f"{where} (seed {SEED}): {raised!r}"
            check(market, trades.topics, where)
            struck += fault.struck
    return struck


in_every_way = pytest.mark.parametrize(
    ("seam", "error"), FAULTS, ids=[f"{seam.__name__}-{type(error).__name__}" for seam, error in FAULTS]
)


@in_every_way
def test_what_fails_once_leaves_nothing_behind(upbit: FakeUpbit, seam: Seam, error: BaseException) -> None:
    # Again where nothing passed the seam: a log line more or less depends on what goes on beside it.
    assert any(sum(fail_in_turn(upbit, method, seam, error, FEW_PLACES) for method in QUICK) for _ in range(TRIES))


@pytest.mark.faults
@in_every_way
@pytest.mark.parametrize("method", ALL, ids=lambda method: method.__name__)
def test_whatever_fails_in_turn_leaves_nothing_behind(
    upbit: FakeUpbit, method: Method, seam: Seam, error: BaseException
) -> None:
    fail_in_turn(upbit, method, seam, error, PLACES)


@pytest.mark.faults
@in_every_way
def test_what_fails_again_and_again_leaves_nothing_behind(upbit: FakeUpbit, seam: Seam, error: BaseException) -> None:
    """At random by seed, a fifth of all calls: also where one of ours tells of a failure and that fails, too."""
    urls = {"rest_url": upbit.rest_url, "websocket_url": upbit.websocket_url}
    chance = random.Random(SEED)
    with MarketDataBackbone(**urls) as market, streaming(market, read) as trades:
        for _ in range(ROUNDS):
            method = chance.choice(FEW)
            with seam(Fault(error, chance=chance)):
                raised = run(lambda: method(market))  # noqa: B023
            where = f"{method.__name__}, {seam.__name__} raising {error!r} at random"
            assert is_allowed(raised, seam, error), f"{where} (seed {SEED}): {raised!r}"
            check(market, trades.topics, where)
