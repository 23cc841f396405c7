"""Everything that breaks a line, over real sockets: the stream comes back by itself with the same set."""

from __future__ import annotations

import itertools
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.waiting import promised
from upbit_backbone.models.enums import DataType
from upbit_backbone.models.events import ConnectionState, RateLimitEvent, StaleEvent
from upbit_backbone.models.request import Topic
from upbit_backbone.simulator import FakeUpbit

MakeRig = Callable[..., Any]
BTC = Topic(DataType.TICKER, "KRW-BTC")
ETH = Topic(DataType.TRADE, "KRW-ETH")
BOOK = Topic(DataType.ORDERBOOK, "KRW-BTC")
WANTED = {("ticker", "KRW-BTC"), ("trade", "KRW-ETH")}
VISIBLE_SECONDS = 2.0
SHORT_LIVED = {"healthy_after_seconds": 0.01}  # every break is a first break


def mark(server: FakeUpbit) -> int:
    """Where the wire log is now."""
    return max((entry["n"] for entry in server.wire_log()), default=0)


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 1014, 3000, 4000, 4999])
def test_any_close_code_ends_in_recovery_with_the_same_set(rig: MakeRig, upbit: FakeUpbit, code: int) -> None:
    live = rig().live(BTC, ETH)
    assert live.recovers(lambda: upbit.close_sessions(code)) < VISIBLE_SECONDS
    assert upbit.subscribed() == WANTED
    assert f"closed by Upbit: {code}" in live.reasons()


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2000])
def test_a_close_code_that_must_not_travel_is_a_violation_and_recovered_from(
    rig: MakeRig, upbit: FakeUpbit, code: int
) -> None:
    assert rig().live(BTC, ETH).recovers(lambda: upbit.close_sessions(code)) < VISIBLE_SECONDS


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_an_end_without_close_frame_is_recovered_from(rig: MakeRig, upbit: FakeUpbit, how: str) -> None:
    live = rig().live(BTC, ETH)
    assert live.recovers(lambda: upbit.drop_sessions(how)) < VISIBLE_SECONDS
    assert upbit.subscribed() == WANTED
    assert {topics for _, topics, _ in live.sink.interruptions} == {frozenset({BTC, ETH})}


def test_a_frozen_peer_is_given_up_after_ping_and_pong_time(rig: MakeRig, upbit: FakeUpbit) -> None:
    live = rig(ping_interval_seconds=0.3, pong_timeout_seconds=0.3).live(BTC)
    assert live.recovers(lambda: upbit.freeze(new_connections=False)) < 3.0
    assert "pings unanswered" in live.reasons()


def test_half_a_frame_before_the_freeze_changes_nothing(rig: MakeRig, upbit: FakeUpbit) -> None:
    live = rig(ping_interval_seconds=0.3, pong_timeout_seconds=0.3).live(BTC)
    assert live.recovers(lambda: upbit.send_half_frame()) < 3.0


def test_a_silent_stall_is_proven_by_the_probe_and_ends_in_reconnection(rig: MakeRig, upbit: FakeUpbit) -> None:
    live = rig(stall_probe_seconds=0.5).live(BTC, BOOK)
    live.verdict = True
    upbit.mute()
    live.until(lambda: any(isinstance(event, StaleEvent) for event in live.events), "the alarm", 8.0)
    upbit.unmute()
    live.until(lambda: [e.stale for e in live.events if isinstance(e, StaleEvent)][-1] is False, "the all-clear")
    assert live.epoch > 1


def test_a_quiet_market_is_left_alone(rig: MakeRig, upbit: FakeUpbit) -> None:
    live = rig(stall_probe_seconds=0.2).live(BTC)
    live.verdict = False
    upbit.pause()
    try:
        frames = live.sink.frames_seen
        live.until(lambda: (live.manager.stats()[0].last_data_age or 0.0) > 2.0, "two seconds of silence")
    finally:
        upbit.resume()
    live.until(lambda: live.sink.frames_seen > frames + 3, "data again")
    assert live.epoch == 1, live.reasons()


def test_a_refusing_server_is_found_again_when_it_returns(rig: MakeRig, upbit: FakeUpbit) -> None:
    live = rig().live(BTC, ETH)
    took = live.recovers(lambda: upbit.refuse(3.0))
    assert took < promised(3.0 + 2.5)
    assert ConnectionState.WAITING in live.states()


def test_flapping_keeps_the_connect_limit_and_ends_well(rig: MakeRig, upbit: FakeUpbit) -> None:
    since = mark(upbit)
    live = rig().live(BTC)
    upbit.flap(times=10, seconds=2.0)
    threading.Event().wait(2.1)  # to its end, so that it does not reach the next test
    live.until(lambda: live.manager.stats()[0].connects >= 3, "several connects")
    live.until(lambda: live.manager.stats()[0].last_data_age < 0.5 and live.epoch >= 3, "data again")
    times = [entry["t"] for entry in upbit.wire_log("handshake", since)]
    assert all(later - earlier > 1.0 for earlier, later in zip(times, times[5:], strict=False))


def test_a_crash_loop_after_the_handshake_is_slowed_down(rig: MakeRig, upbit: FakeUpbit) -> None:
    since = mark(upbit)
    upbit.handshake_fault("close_after_101", times=None, seconds=4.0)
    live = rig().acquire(BTC)
    live.until(lambda: live.sink.frames_seen, "data after the crash loop")
    arrived = [entry["t"] for entry in upbit.wire_log("handshake", since)]
    pauses = [later - earlier for earlier, later in itertools.pairwise(arrived)]
    assert all(pause > 0.2 for pause in pauses[1:]), "only the first retry is immediate, whatever the handshakes say"
    attempts = [event.attempt for event in live.waits()]
    assert attempts == sorted(attempts), "a handshake proves no health"
    assert attempts[-1] > 3


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_maintenance_at_the_handshake_is_waited_out(rig: MakeRig, upbit: FakeUpbit, status: int) -> None:
    upbit.handshake_fault("status", status=status, times=2, body="<html>maintenance</html>")
    refused = [each for each in rig().live(BTC).waits() if str(status) in each.reason]
    assert len(refused) == 2


def test_a_429_at_the_handshake_is_obeyed(rig: MakeRig, upbit: FakeUpbit) -> None:
    since = mark(upbit)
    upbit.handshake_fault("status", status=429, times=1, headers={"Retry-After": "2"})
    live = rig().live(BTC)
    first, second = [entry["t"] for entry in upbit.wire_log("handshake", since)]
    assert second - first >= 1.95
    assert [event.banned for event in live.events if isinstance(event, RateLimitEvent)][:1] == [False]


def test_a_418_at_the_handshake_silences_every_session_until_its_end(upbit: FakeUpbit, rig: MakeRig) -> None:
    del upbit
    with FakeUpbit(seed=4, markets=["KRW-BTC"]) as server:  # of its own, because the ban is the whole host's
        server.handshake_fault("status", status=418, times=1, headers={"Retry-After": "2"})
        one, other = rig(server).acquire(BTC), rig(server)
        one.until(lambda: any(isinstance(e, RateLimitEvent) for e in one.events), "the ban")
        other.acquire(BTC)
        one.until(lambda: one.sink.frames_seen and other.sink.frames_seen, "data after the ban")
        first, *others = [entry["t"] for entry in server.wire_log("handshake")]
        assert min(others) - first >= 1.95
        assert len(others) == 2
        one.close()
        other.close()


@pytest.mark.parametrize("mode", ["drip", "silence", "flood", "wrong_accept", "extension", "garbage", "fin", "reset",
                                  "reset_after_101", "delay"])  # fmt: skip
def test_a_broken_handshake_is_given_up_and_the_next_one_succeeds(rig: MakeRig, upbit: FakeUpbit, mode: str) -> None:
    upbit.handshake_fault(mode, times=1, latency=0.2)
    rig(connect_timeout_seconds=1.0).live(BTC)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_permanent_refusal_is_not_retried_in_a_hurry(rig: MakeRig, upbit: FakeUpbit, status: int) -> None:
    since = mark(upbit)
    upbit.handshake_fault("status", status=status, times=None, seconds=60.0)
    refused = rig().acquire(BTC)
    refused.until(lambda: refused.waits_for(f"answered {status}"), "the refusal")
    (event,) = refused.waits_for(f"answered {status}")
    assert event.retry_in >= 59.0
    assert len(upbit.wire_log("handshake", since)) == 1
    assert refused.close() < 0.5


@pytest.mark.parametrize(
    "poison",
    [b"\xff\xff\xff", b"\x83\x00", b"\x82\x80abcd", b"\x80\x01x", b"\x82\x7f" + struct.pack(">Q", 2**40), b"\x09\x00"],
)
def test_broken_framing_ends_in_recovery(rig: MakeRig, upbit: FakeUpbit, poison: bytes) -> None:
    live = rig().live(BTC, ETH)
    assert live.recovers(lambda: upbit.send_raw(poison)) < VISIBLE_SECONDS
    assert "protocol violation" in live.reasons()


def test_a_message_in_endless_fragments_ends_in_recovery(rig: MakeRig, upbit: FakeUpbit) -> None:
    assert rig().live(BTC).recovers(lambda: upbit.send_fragments(1000)) < VISIBLE_SECONDS


def test_a_ping_flood_does_not_stop_the_data(rig: MakeRig, upbit: FakeUpbit) -> None:
    live = rig().live(BTC)
    upbit.send_pings(20_000)
    frames = live.sink.frames_seen
    live.until(lambda: live.sink.frames_seen > frames + 10, "data beside the flood", 5.0)
    assert live.epoch == 1, live.reasons()


@pytest.fixture(scope="module")
def secure() -> Iterator[FakeUpbit]:
    with FakeUpbit(seed=5, tls=True, markets=["KRW-BTC", "KRW-ETH"]) as server:
        yield server


@pytest.mark.parametrize("how", ["close", "fin", "rst", "freeze"])
def test_over_tls_it_is_the_same(rig: MakeRig, secure: FakeUpbit, how: str) -> None:
    live = rig(secure, ping_interval_seconds=0.3, pong_timeout_seconds=0.5, ca_file=secure.ca_file).live(BTC, ETH)
    acts: dict[str, Callable[[], object]] = {
        "close": lambda: secure.close_sessions(1011),
        "fin": lambda: secure.drop_sessions("fin"),
        "rst": lambda: secure.drop_sessions("rst"),
        "freeze": lambda: secure.freeze(new_connections=False),
    }
    assert live.recovers(acts[how]) < 4.0
    live.close()
    secure.thaw()


def test_an_unknown_authority_is_never_trusted_nor_retried_in_a_hurry(
    rig: MakeRig, secure: FakeUpbit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secure, "ca_file", None)
    refused = rig(secure).acquire(BTC)
    refused.until(lambda: refused.waits_for("certificate"), "the refusal")
    (event,) = refused.waits_for("certificate")
    assert event.retry_in >= 59.0
    refused.close()
