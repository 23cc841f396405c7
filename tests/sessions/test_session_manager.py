"""Subscription requests from many threads, limits judged by the simulator's wire log, and ends that are ends."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.waiting import promised, wait_until
from upbit_backbone._concurrency import Deadline
from upbit_backbone.errors import ClosedError, NetworkError, SubscriptionError
from upbit_backbone.models.enums import DataType
from upbit_backbone.models.events import ConnectionEvent, ConnectionState
from upbit_backbone.models.request import SubscriptionRequest, Topic
from upbit_backbone.simulator import FakeUpbit

MakeRig = Callable[..., Any]
BTC = Topic(DataType.TICKER, "KRW-BTC")
ETH = Topic(DataType.TRADE, "KRW-ETH")
BOOK = Topic(DataType.ORDERBOOK, "KRW-BTC")


@pytest.fixture(scope="module")
def wide() -> Iterator[FakeUpbit]:
    """Many markets, little traffic."""
    with FakeUpbit(seed=7, trades_per_second=5.0) as server:
        yield server


def mark(server: FakeUpbit) -> int:
    """Where the wire log is now."""
    return max((entry["n"] for entry in server.wire_log()), default=0)


def messages(server: FakeUpbit, since: int) -> list[dict[str, Any]]:
    return server.wire_log("message", since)


def test_the_servers_set_is_the_union_of_what_32_threads_want(rig: MakeRig, wide: FakeUpbit) -> None:
    manager = rig(wide).live(BTC).manager
    codes = [code for code in wide.markets() if code.startswith("KRW-")]
    since = mark(wide)
    kept: list[Topic] = []

    def churn(number: int) -> None:
        rng = random.Random(number)
        mine: dict[tuple[int, int], Topic] = {}
        for turn in range(15):
            if mine and rng.random() < 0.4:
                owner = rng.choice(list(mine))
                manager.release(owner)
                del mine[owner]
            else:
                owner = (number, turn)
                mine[owner] = Topic(rng.choice([DataType.TICKER, DataType.TRADE]), rng.choice(codes[:60]))
                manager.acquire(owner, [SubscriptionRequest(mine[owner])])
        kept.extend(mine.values())

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    union = {BTC, *kept}
    assert manager.topics() == union
    expected = {(topic.data_type.value, topic.symbol) for topic in union}
    wait_until(lambda: wide.subscribed() == expected)
    sent = messages(wide, since)
    assert len(sent) <= 5, "480 calls in a burst"
    assert max(in_any_second([entry["t"] for entry in sent])) <= 5


def in_any_second(times: list[float]) -> list[int]:
    return [sum(start <= other < start + 1.0 for other in times) for start in times] or [0]


def test_a_hundred_subscribe_and_unsubscribe_calls_cost_at_most_five_messages_a_second(
    rig: MakeRig, wide: FakeUpbit
) -> None:
    manager = rig(wide).live(BTC).manager
    threading.Event().wait(1.3)  # so that the first message of the connection is not counted with them
    codes, pause = wide.markets()[:100], threading.Event()
    since, began = mark(wide), time.monotonic()
    for number, code in enumerate(codes):
        manager.acquire(code, [SubscriptionRequest(Topic(DataType.TRADE, code))])
        if number % 2:
            manager.release(code)
        pause.wait(0.008)
    expected = {("trade", code) for code in codes[::2]} | {("ticker", "KRW-BTC")}
    wait_until(lambda: wide.subscribed() == expected)
    seconds = math.ceil(time.monotonic() - began)  # one, unless the machine is busy
    assert len(messages(wide, since)) <= 5 * seconds


def test_the_deepest_request_goes_on_the_wire(rig: MakeRig, upbit: FakeUpbit) -> None:
    manager = rig(upbit).manager
    manager.acquire("one", [SubscriptionRequest(BOOK, 1)])
    wait_until(lambda: upbit.subscribed() == {("orderbook", "KRW-BTC.1")})
    manager.acquire("another", [SubscriptionRequest(BOOK, 15)])
    wait_until(lambda: upbit.subscribed() == {("orderbook", "KRW-BTC.15")})
    manager.release("another")
    wait_until(lambda: upbit.subscribed() == {("orderbook", "KRW-BTC.1")})


def test_restoring_costs_one_message_with_the_identical_set(rig: MakeRig, upbit: FakeUpbit) -> None:
    live = rig().live(BTC, ETH, BOOK)
    before, since = upbit.subscribed(), mark(upbit)
    live.recovers(lambda: upbit.close_sessions(1001))
    threading.Event().wait(1.0)
    assert len(messages(upbit, since)) == 1
    assert upbit.subscribed() == before


def test_many_topics_spread_over_connections_within_the_caps(rig: MakeRig, wide: FakeUpbit) -> None:
    live = rig(wide, max_connections=3, max_topics_per_connection=200)
    codes = wide.markets()[:500]
    live.acquire(*(Topic(DataType.TICKER, code) for code in codes))
    live.until(lambda: len(wide.subscribed()) == 500, "all subscriptions")
    sizes = [sum(len(one["codes"]) for one in session["subscriptions"]) for session in wide.sessions()]
    assert len(sizes) == 3
    assert max(sizes) <= 200
    live.until(lambda: live.sink.frames_seen >= 500, "a snapshot of each")
    with pytest.raises(SubscriptionError, match="max_connections"):
        live.acquire(*(Topic(DataType.TRADE, code) for code in codes[:101]))
    assert len(live.manager.topics()) == 500, "a refused call changes nothing"


def test_an_idle_connection_is_closed_and_its_thread_ends(rig: MakeRig, upbit: FakeUpbit) -> None:
    live = rig(idle_connection_seconds=0.3).live(BTC)
    threads = threading.active_count()
    live.manager.release(BTC)
    live.until(lambda: not live.manager.stats(), "retirement")
    live.until(lambda: threading.active_count() < threads, "the thread's end")
    live.until(lambda: not upbit.sessions(), "the goodbye")
    assert upbit.wire_log("close")[-1]["code"] == 1000
    frames = live.sink.frames_seen
    live.acquire(ETH)
    live.until(lambda: live.sink.frames_seen > frames, "a new connection for a new request")


def test_a_request_that_returns_before_the_idle_time_finds_the_connection_open(rig: MakeRig, upbit: FakeUpbit) -> None:
    live = rig(idle_connection_seconds=1.0).live(BTC)
    live.manager.release(BTC)
    live.acquire(ETH)
    live.until(lambda: upbit.subscribed() == {("trade", "KRW-ETH")}, "the new set")
    threading.Event().wait(1.2)
    assert live.manager.stats()[0].connects == 1


def test_the_pulse_of_a_topic_shows_its_sessions_life(rig: MakeRig, upbit: FakeUpbit) -> None:
    live = rig()
    assert live.manager.health(BTC) is None
    live.live(BTC)
    health = live.manager.health(BTC)
    assert (health.connected, health.epoch, health.suspect) == (True, 1, False)
    assert time.monotonic() - health.heard_at < 5.0
    live.recovers(lambda: upbit.close_sessions(1001))
    assert live.manager.health(BTC) is health
    assert health.epoch == 2
    live.manager.release(BTC)
    assert live.manager.health(BTC) is None


def test_asking_to_reconnect_gives_a_new_epoch(rig: MakeRig) -> None:
    live = rig().live(BTC)
    live.recovers(lambda: live.manager.reconnect(reason="because"))
    assert "because" in live.reasons()
    live.recovers(lambda: live.manager.reconnect(live.manager.stats()[0].session))


def test_who_wants_nothing_may_say_so_any_number_of_times(rig: MakeRig) -> None:
    live = rig().live(BTC)
    live.manager.release("a stranger")
    assert live.manager.topics() == {BTC}
    for _ in range(2):
        live.manager.release(BTC)
    assert live.manager.topics() == frozenset()


def test_stats_and_repr_tell_the_state(rig: MakeRig) -> None:
    live = rig().live(BTC, BOOK)
    (stats,) = live.manager.stats()
    assert (stats.state, stats.topics, stats.epoch, stats.connects, stats.reconnects) == (
        ConnectionState.LIVE,
        2,
        1,
        1,
        0,
    )
    assert stats.messages > 0
    assert stats.bytes > 0
    assert stats.messages_sent == 1
    assert "<SessionManager open <Registry 2 topics for 2 requests>" in repr(live.manager)
    assert "\n" not in repr(live.manager)


# Ends


def test_close_is_quick_idempotent_and_final(rig: MakeRig) -> None:
    live = rig().live(BTC)
    assert live.close() < 0.5
    assert live.close() < 0.1
    with pytest.raises(ClosedError):
        live.acquire(ETH)
    live.manager.release(BTC)
    assert {stats.state for stats in live.manager.stats()} == {ConnectionState.CLOSED}
    assert live.states()[-1] is ConnectionState.CLOSED
    frames = live.sink.frames_seen
    threading.Event().wait(0.2)
    assert live.sink.frames_seen == frames


def test_eight_threads_may_close_at_once(rig: MakeRig) -> None:
    live = rig().live(BTC)
    threads = [threading.Thread(target=live.manager.close, args=(Deadline.after(2),)) for _ in range(8)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started < promised(1.0)


def connecting_into_silence(live: Any, upbit: FakeUpbit) -> None:
    upbit.handshake_fault("silence", times=None, seconds=30.0)
    live.acquire(BTC)
    live.until(lambda: ConnectionState.CONNECTING in live.states(), "dialling")
    threading.Event().wait(0.3)


def waiting_to_retry(live: Any, upbit: FakeUpbit) -> None:
    upbit.handshake_fault("status", status=403, times=1)
    live.acquire(BTC)
    live.until(lambda: ConnectionState.WAITING in live.states(), "the refusal")


def frozen(live: Any, upbit: FakeUpbit) -> None:
    live.live(BTC)
    upbit.freeze(new_connections=False)


def in_half_a_frame(live: Any, upbit: FakeUpbit) -> None:
    live.live(BTC)
    upbit.send_half_frame()


def muted(live: Any, upbit: FakeUpbit) -> None:
    live.live(BTC)
    upbit.mute()


def flooded(live: Any, upbit: FakeUpbit) -> None:
    live.live(BTC, BOOK)
    upbit.load(5_000)


def dripping_handshake(live: Any, upbit: FakeUpbit) -> None:
    upbit.handshake_fault("drip", times=1)
    live.acquire(BTC)
    threading.Event().wait(0.3)


@pytest.mark.parametrize(
    "state",
    [lambda live, upbit: None, connecting_into_silence, dripping_handshake, waiting_to_retry, frozen, in_half_a_frame,
     muted, flooded],
    ids=["idle", "silence", "drip", "waiting", "frozen", "half-frame", "muted", "flooded"],
)  # fmt: skip
def test_close_ends_within_two_seconds_whatever_goes_on(
    rig: MakeRig, upbit: FakeUpbit, state: Callable[[Any, FakeUpbit], None]
) -> None:
    live = rig()
    state(live, upbit)
    try:
        assert live.close() < 1.0
    finally:
        upbit.load(0)


def test_a_consumer_stuck_in_the_sink_is_named_instead_of_waited_for(rig: MakeRig) -> None:
    live = rig()
    release, reached = threading.Event(), threading.Event()

    def stick() -> None:
        reached.set()
        release.wait()

    live.sink.at_frame = stick
    live.acquire(BTC)
    assert reached.wait(10)
    started = time.monotonic()
    stubborn = live.manager.close(Deadline.after(0.5))
    assert time.monotonic() - started < promised(1.0)
    assert stubborn == ["upbit-session-1"]
    release.set()


def test_two_hundred_open_and_close_cycles_leave_nothing(rig: MakeRig, upbit: FakeUpbit) -> None:
    """The leak fixture judges: threads and sockets are back to base. Most cycles end before the connect limit."""
    live = rig()
    for _ in range(200):
        each = rig()
        each.acquire(BTC)
        each.close()
    live.live(BTC)


def test_many_reconnects_keep_threads_and_sockets_at_base(rig: MakeRig) -> None:
    live = rig().live(BTC)
    threads = threading.active_count()
    for _ in range(12):
        live.recovers(lambda: live.manager.reconnect())
    assert threading.active_count() == threads
    assert live.manager.stats()[0].reconnects == 12


def test_a_dial_that_ignores_every_request_to_stop_is_left_behind_by_name(rig: MakeRig) -> None:
    live = rig()
    dialling, release = threading.Event(), threading.Event()

    def deaf_dial(deadline: Deadline, *, stop: threading.Event) -> Any:
        dialling.set()
        release.wait(10)
        raise NetworkError("at last")

    live.set_dial(deaf_dial)
    live.acquire(BTC)
    assert dialling.wait(10)
    started = time.monotonic()
    assert live.manager.close(Deadline.after(0.4)) == ["upbit-session-1"]
    assert time.monotonic() - started < promised(1.0)
    release.set()


def test_waking_from_the_machines_sleep_reconnects_within_moments(rig: MakeRig) -> None:
    live = rig().live(BTC)

    def sleep_an_hour() -> None:
        live.clock.asleep = 3600.0

    assert live.recovers(sleep_an_hour) < 4.0
    assert "the machine slept for 3600 s" in live.reasons()


def test_a_wall_clock_set_back_or_a_little_forward_changes_nothing(rig: MakeRig) -> None:
    live = rig().live(BTC)
    live.clock.asleep = -3600.0
    threading.Event().wait(2.2)
    live.clock.asleep = -3598.5
    threading.Event().wait(2.2)
    assert live.epoch == 1, live.reasons()


# Failures of our own


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread"), ValueError("bug")])
def test_an_error_nobody_foresaw_costs_the_connection_and_not_the_thread(rig: MakeRig, error: Exception) -> None:
    live = rig().live(BTC)
    failures = [error]

    def fail_once() -> None:
        if failures:
            raise failures.pop()

    assert live.recovers(lambda: setattr(live.sink, "at_frame", fail_once)) < 2.0
    crash = next(
        event for event in live.events if isinstance(event, ConnectionEvent) and "thread failed" in event.reason
    )
    assert type(error).__name__ in crash.reason
    assert live.manager.stats()[0].state is ConnectionState.LIVE


def test_a_listener_that_always_fails_does_not_spin_the_thread(rig: MakeRig) -> None:
    live = rig()
    calls = 0

    def fail() -> None:
        nonlocal calls
        calls += 1
        raise MemoryError

    live.sink.at_frame = fail
    live.acquire(BTC)
    threading.Event().wait(2.0)
    assert 1 <= calls <= 12
    assert live.close() < 1.0


def test_a_system_without_threads_refuses_the_request_and_changes_nothing(
    rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = rig()

    def no_thread(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(NetworkError, match="can't start new thread"):
            live.acquire(BTC)
    assert live.manager.topics() == frozenset()
    assert live.manager.health(BTC) is None
    live.live(BTC)


def test_audits_agree_with_the_simulator(rig: MakeRig, upbit: FakeUpbit) -> None:
    live = rig(audit_subscriptions=True).live(BTC, ETH, BOOK)
    threading.Event().wait(2.5)
    assert not [event for event in live.events if "differs" in getattr(event, "reason", "")]
    assert live.epoch == 1, live.reasons()
