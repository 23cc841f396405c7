"""Breaks: whatever ends the connection, the stream goes on, tells why, and misses no trade."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from tests.chaos.watched import Watched, say, worst_second
from tests.support.waiting import PAUSE, promised, wait_until
from upbit_backbone.models.events import GapEvent
from upbit_backbone.simulator import FakeUpbit

Watch = Callable[..., Watched]

CONNECT_LIMIT = 5
VISIBLE_SECONDS = 2.0  # generous: half a second is the aim, on a machine of one's own
CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999]
RESERVED = [0, 1005, 1006, 1015]  # must not travel: a violation


def test_no_close_code_costs_a_trade_and_each_is_told(watch: Watch, upbit: FakeUpbit) -> None:
    seen = watch(upbit)
    for code in CODES:
        took = seen.recovers(partial(upbit.close_sessions, code, f"reason {code}"))
        assert took < promised(VISIBLE_SECONDS), code
        say(f"close {code}: {took:.3f} s")
    wait_until(lambda: [event.code for event in seen.breaks] == CODES, seen.reasons)
    assert all(f"reason {event.code}" in event.reason for event in seen.breaks)
    assert all(event.since is not None for event in seen.breaks)
    assert seen.is_whole()
    assert worst_second(seen.handshakes()) <= CONNECT_LIMIT


def test_a_close_code_that_must_not_travel_costs_no_trade_either(watch: Watch, upbit: FakeUpbit) -> None:
    seen = watch(upbit)
    for code in RESERVED:
        assert seen.recovers(partial(upbit.close_sessions, code)) < VISIBLE_SECONDS, code
    assert seen.is_whole()


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_an_end_without_a_word_costs_no_trade(watch: Watch, upbit: FakeUpbit, how: str) -> None:
    seen = watch(upbit, ["KRW-BTC", "KRW-ETH"])
    threads: list[int] = []
    for number in range(4):
        took = seen.recovers(lambda: upbit.drop_sessions(how))
        say(f"{how} {number}: {took:.3f} s")
        assert took < promised(VISIBLE_SECONDS)
        threads.append(threading.active_count())
    wait_until(lambda: [event.code for event in seen.breaks] == [1006] * 4, seen.reasons)
    assert seen.is_whole("KRW-BTC", "KRW-ETH")
    assert max(threads) <= threads[0] + 6, threads  # the few workers of REST and of the gap repair


def test_ten_closes_in_two_seconds_keep_the_connect_limit_and_lose_nothing(watch: Watch, upbit: FakeUpbit) -> None:
    seen = watch(upbit)
    seen.recovers(lambda: upbit.flap(times=10, seconds=2.0))
    PAUSE.wait(2.0)  # to its end
    wait_until(lambda: len(upbit.sessions()) == 1, "one session")
    seen.flows()
    assert seen.is_whole()
    assert worst_second(seen.handshakes()) <= CONNECT_LIMIT
    assert all(gap.complete for gap in seen.of(GapEvent))


@pytest.mark.parametrize("mode", ["close_after_101"])
def test_a_handshake_that_works_does_not_reset_the_patience(watch: Watch, upbit: FakeUpbit, mode: str) -> None:
    seen = watch(upbit, healthy_after_seconds=30.0, reconnect_cap_seconds=2.0)
    upbit.handshake_fault(mode, times=None, seconds=2.0)
    upbit.drop_sessions("fin")
    wait_until(lambda: not upbit.inject("faults")["handshake"], "the end of the crash loop")
    ended = time.monotonic()
    seen.flows()  # it may be back already: the very attempt that found the loop ended
    took = time.monotonic() - ended
    say(f"after the crash loop: {took:.3f} s")
    assert took < promised(2.5)
    assert len(seen.handshakes()) <= 8
    attempts = [event.attempt for event in seen.breaks]
    assert attempts == sorted(attempts)
    assert seen.is_whole()
