"""The limiter under real threads: order, deadlines, bans, and permits that are never lost."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from tests.support.clock import CoarseClock, ManualClock
from tests.support.waiting import promised, wait_until
from upbit_backbone._concurrency import Deadline, join_all, spawn
from upbit_backbone.errors import BannedError, ClosedError, RateLimitError, RequestTimeoutError
from upbit_backbone.limits.rate_limiter import RateLimiter
from upbit_backbone.models.enums import Priority, RateGroup
from upbit_backbone.models.events import Event, RateLimitEvent

WAIT_SECONDS = 20.0
TICKER, CANDLE = RateGroup.TICKER, RateGroup.CANDLE
NORMAL = Priority.NORMAL
Make = Callable[..., RateLimiter]


def soon(seconds: float = WAIT_SECONDS) -> Deadline:
    return Deadline.after(seconds)


@pytest.fixture
def host() -> str:
    return f"test-{uuid.uuid4()}"


@pytest.fixture
def make(host: str) -> Iterator[Make]:
    made: list[RateLimiter] = []

    def make_one(per_second: float = 10.0, **options: object) -> RateLimiter:
        limiter = RateLimiter(host, per_second, **options)  # type: ignore[arg-type]
        made.append(limiter)
        return limiter

    yield make_one
    for limiter in made:
        limiter.close()


def send(
    limiter: RateLimiter, group: RateGroup = TICKER, priority: Priority = NORMAL, seconds: float = WAIT_SECONDS
) -> float:
    """One whole request; when it was sent."""
    with limiter.permit(group, priority, soon(seconds)) as permit:
        permit.leaving()
        permit.sent()
        permit.answered()
        assert permit.sent_at is not None
        assert permit.left_at is not None
        assert permit.left_at <= permit.sent_at
        return permit.sent_at


def use_up(limiter: RateLimiter, group: RateGroup = TICKER) -> None:
    for _ in range(10):
        send(limiter, group)


def busiest_second(times: list[float]) -> int:
    times = sorted(times)
    return max(bisect_left(times, at + 1.0) - index for index, at in enumerate(times))


def test_one_server_has_one_budget_and_one_ban_however_its_address_is_written(host: str) -> None:
    spellings = [f"https://{host}", f"https://{host.upper()}:443", f"https://{host}.", host]
    limiters = [RateLimiter(spelling) for spelling in spellings]
    try:
        for turn in range(10):
            send(limiters[turn % 4])
        assert [limiter.look(TICKER).available for limiter in limiters] == [0, 0, 0, 0]
        with pytest.raises(RateLimitError), limiters[0].permit(TICKER, NORMAL, soon(0.1)):
            pytest.fail("it had a turn")
        limiters[1].ban(seconds=30.0)
        for limiter in limiters:
            with pytest.raises(BannedError), limiter.permit(CANDLE, NORMAL, soon()):
                pytest.fail("it had a turn")
    finally:
        for limiter in limiters:
            limiter.close()


def test_thirty_two_threads_of_three_backbones_share_ten_a_second(make: Make) -> None:
    limiters = [make(), make(), make()]
    times: list[float] = []
    end = time.monotonic() + 4.0

    def hammer(limiter: RateLimiter) -> None:
        while time.monotonic() < end:
            times.append(send(limiter))

    threads = [spawn(lambda n=n: hammer(limiters[n % 3]), f"test-hammer-{n}") for n in range(32)]
    assert join_all(threads, soon(60)) == []
    assert busiest_second(times) <= 10
    assert len(times) / (max(times) - min(times)) >= 9.0


def test_a_coarse_clock_lets_no_eleventh_through(make: Make) -> None:
    limiters = [make(clock=CoarseClock()), make(clock=CoarseClock())]
    times: list[float] = []

    def hammer(limiter: RateLimiter) -> None:
        for _ in range(3):
            with limiter.permit(TICKER, NORMAL, soon()) as permit:
                permit.leaving()
                permit.sent()
                times.append(time.monotonic())  # when it really left
                permit.answered()

    threads = [spawn(lambda n=n: hammer(limiters[n % 2]), f"test-hammer-{n}") for n in range(9)]
    assert join_all(threads, soon(60)) == []
    assert len(times) == 27
    assert busiest_second(times) <= 10


def test_groups_have_budgets_of_their_own(make: Make) -> None:
    limiter = make()
    started = time.monotonic()
    for group in (TICKER, CANDLE, RateGroup.TRADE, RateGroup.ORDERBOOK, RateGroup.MARKET):
        use_up(limiter, group)
    assert time.monotonic() - started < promised(0.9)


def test_connects_are_five_a_second(make: Make) -> None:
    limiter = make()
    times = []
    for _ in range(7):
        with limiter.handshake(soon()):
            times.append(time.monotonic())
    assert busiest_second(times) <= 5


def test_a_handshake_counts_until_it_is_over_and_a_second_more(make: Make) -> None:
    """Its request may leave at the end of a long dial: five that did would meet five that came later."""
    clock = ManualClock()
    limiter = make(clock=clock)

    def room() -> int:
        return limiter.look(RateGroup.WEBSOCKET_CONNECT).available

    with ExitStack() as dials:
        for _ in range(5):
            dials.enter_context(limiter.handshake(soon()))
        clock.now += 4.0
        assert room() == 0
    clock.now += 1.0
    assert room() == 0
    clock.now += 0.1
    assert room() == 5


def test_in_a_ban_the_second_between_two_handshakes_begins_when_the_first_is_over(make: Make) -> None:
    clock = ManualClock()
    limiter = make(clock=clock)
    limiter.ban(seconds=300.0)
    with limiter.handshake(soon(), is_reconnect=True):
        clock.now += 4.0
        with pytest.raises(RateLimitError), limiter.handshake(soon(), is_reconnect=True):
            pass
    for _ in range(2):
        with pytest.raises(RateLimitError), limiter.handshake(soon(), is_reconnect=True):
            pass
        clock.now += 0.499
    clock.now += 0.003
    with limiter.handshake(soon(), is_reconnect=True):
        assert limiter.banned_for() > 200.0


def test_the_urgent_go_first_and_equals_in_order_of_arrival(make: Make) -> None:
    limiter = make(1.0)
    queue = [
        ("low-1", Priority.LOW),
        ("normal-1", NORMAL),
        ("low-2", Priority.LOW),
        ("normal-2", NORMAL),
        ("high", Priority.HIGH),
    ]
    served: list[str] = []

    def wait(name: str, priority: Priority) -> None:
        with limiter.permit(TICKER, priority, soon()):
            served.append(name)  # and given back unused, so that exactly one holds it at a time

    with limiter.permit(TICKER, NORMAL, soon()):
        threads = []
        for place, (name, priority) in enumerate(queue, 1):
            threads.append(spawn(partial(wait, name, priority), f"test-{name}"))
            wait_until(lambda place=place: limiter.look(TICKER).waiting == place)
    assert join_all(threads, soon()) == []
    assert served == ["high", "normal-1", "normal-2", "low-1", "low-2"]


def test_a_greedy_thread_cannot_starve_a_polite_one(make: Make) -> None:
    limiter = make()
    stop = threading.Event()

    def greedy() -> None:
        while not stop.is_set():
            send(limiter)

    threads = [spawn(greedy, f"test-greedy-{n}") for n in range(8)]
    waits = []
    for _ in range(3):
        started = time.monotonic()
        send(limiter)
        waits.append(time.monotonic() - started)
    stop.set()
    assert join_all(threads, soon()) == []
    assert max(waits) <= 2.5


def test_a_turn_that_surely_comes_too_late_is_refused_at_once(make: Make) -> None:
    limiter = make()
    use_up(limiter)
    started = time.monotonic()
    with pytest.raises(RateLimitError, match="larger timeout") as caught, limiter.permit(TICKER, NORMAL, soon(0.5)):
        pytest.fail("it had a turn")
    assert time.monotonic() - started < promised(0.3)
    assert caught.value.retry_after is not None
    assert 0.5 < caught.value.retry_after < 1.2
    assert caught.value.group == "ticker"


def test_a_deadline_that_passes_while_waiting_is_a_timeout(make: Make) -> None:
    limiter = make(1.0)
    with limiter.permit(TICKER, NORMAL, soon()):  # not sent yet: nobody can know when it will be free
        started = time.monotonic()
        with pytest.raises(RequestTimeoutError), limiter.permit(TICKER, NORMAL, soon(0.3)):
            pytest.fail("it had a turn")
        assert 0.25 < time.monotonic() - started < promised(1.5)
        assert limiter.look(TICKER).waiting == 0
    assert limiter.look(TICKER).available == 1


def test_a_permit_that_is_not_used_goes_to_the_next_one_waiting(make: Make) -> None:
    limiter = make(1.0)
    with limiter.permit(TICKER, NORMAL, soon()):
        got = threading.Event()
        thread = spawn(lambda: (send(limiter), got.set()), "test-next")
        wait_until(lambda: limiter.look(TICKER).waiting == 1)
        assert not got.is_set()
    assert got.wait(0.5 * WAIT_SECONDS)
    join_all([thread], soon())


def test_giving_up_gives_the_turn_back_over_and_over(make: Make) -> None:
    limiter = make(2.0)
    outcomes: Counter[str] = Counter()

    def impatient(seed: int) -> None:
        for n in range(40):
            try:
                with limiter.permit(TICKER, Priority((seed + n) % 3), soon(0.001 * (n % 7))):
                    outcomes["unused"] += 1
            except (RateLimitError, RequestTimeoutError) as error:
                outcomes[type(error).__name__] += 1

    threads = [spawn(lambda n=n: impatient(n), f"test-impatient-{n}") for n in range(16)]
    assert join_all(threads, soon()) == []
    assert sum(outcomes.values()) == 16 * 40
    assert limiter.look(TICKER).available == 2
    assert limiter.look(TICKER).waiting == 0


def test_closing_calls_off_its_own_waiters_only(make: Make) -> None:
    mine, theirs = make(1.0), make(1.0)
    send(mine)
    outcomes: dict[str, object] = {}

    def wait(name: str, limiter: RateLimiter) -> None:
        try:
            outcomes[name] = send(limiter)
        except ClosedError as error:
            outcomes[name] = error

    threads = [spawn(lambda: wait("mine", mine), "test-mine"), spawn(lambda: wait("theirs", theirs), "test-theirs")]
    wait_until(lambda: theirs.look(TICKER).waiting == 2)
    mine.close()
    assert join_all(threads, soon()) == []
    assert isinstance(outcomes["mine"], ClosedError)
    assert isinstance(outcomes["theirs"], float)


def test_connects_have_a_rate_of_their_own_and_the_most_careful_decides_there_too(make: Make) -> None:
    connect = RateGroup.WEBSOCKET_CONNECT
    brisk = make(10.0, connects_per_second=50.0)
    assert (brisk.look(connect).available, brisk.look(TICKER).available) == (50, 10)
    usual = make(10.0)
    assert brisk.look(connect).available == 5
    usual.close()
    assert (brisk.look(connect).available, brisk.look(TICKER).available) == (50, 10)


def test_the_most_careful_backbone_sets_the_rate_as_long_as_it_lives(make: Make) -> None:
    brisk, careful = make(10.0), make(2.0)
    assert brisk.look(TICKER).per_second == 2.0
    careful.close()
    assert brisk.look(TICKER).per_second == 10.0


def test_a_429_stops_one_group_for_everybody_and_is_told_to_everybody(make: Make) -> None:
    events: list[Event] = []
    first, second = make(emit=events.append), make(emit=events.append)
    sent_at = send(first)
    first.penalise(TICKER, None, sent_at)
    first.penalise(TICKER, None, sent_at)  # the same burst
    assert [type(event) for event in events] == [RateLimitEvent] * 2
    assert all(isinstance(event, RateLimitEvent) and not event.banned and event.group == "ticker" for event in events)
    send(second, CANDLE, seconds=0.2)
    with pytest.raises(RateLimitError):
        send(second, seconds=0.3)
    started = time.monotonic()
    send(second)
    assert time.monotonic() - started > 0.5
    assert first.look(TICKER).penalties == 2


def test_a_ban_stops_every_group_connects_and_later_backbones_alike(make: Make) -> None:
    events: list[Event] = []
    limiter = make(emit=events.append)
    limiter.ban(datetime.now(UTC) + timedelta(seconds=30))
    later = make()
    for each in (limiter, later):
        for group in RateGroup:
            with pytest.raises(BannedError) as caught, each.permit(group, Priority.HIGH, soon()):
                pytest.fail("it had a turn")
            assert caught.value.retry_after is not None
            assert 25 < caught.value.retry_after <= 30
            assert caught.value.until is not None
    assert isinstance(events[0], RateLimitEvent)
    assert events[0].banned
    limiter.close()
    later.close()
    assert 25 < make().banned_for() <= 30


def test_a_ban_reaches_those_who_already_wait_and_those_about_to_write(make: Make) -> None:
    limiter = make(1.0)
    with limiter.permit(CANDLE, NORMAL, soon()) as permit:
        send(limiter)
        outcome: list[Exception] = []

        def wait() -> None:
            try:
                send(limiter)
            except BannedError as error:
                outcome.append(error)

        thread = spawn(wait, "test-waiting")
        wait_until(lambda: limiter.look(TICKER).waiting == 1)
        limiter.ban(seconds=20.0)
        assert join_all([thread], soon(5)) == []
        assert len(outcome) == 1
        with pytest.raises(BannedError):
            permit.leaving()


def test_after_a_ban_one_request_goes_first_and_the_others_follow_its_success(make: Make) -> None:
    limiter = make()
    limiter.ban(seconds=1.0)
    time_over = time.monotonic() + 1.0
    wait_until(lambda: time.monotonic() > time_over and not limiter.banned_for())
    others = threading.Event()
    with limiter.permit(TICKER, NORMAL, soon()) as probe:
        thread = spawn(lambda: (send(limiter, CANDLE), others.set()), "test-other")
        wait_until(lambda: limiter.look(CANDLE).waiting == 1)
        assert not others.wait(0.1)
        probe.sent()
        assert probe.sent_at is not None
        limiter.passed(probe.sent_at)
    assert others.wait(2.0)
    join_all([thread], soon())


def test_learning_from_remaining_makes_room_for_strangers(make: Make) -> None:
    limiter = make()
    sent_at = send(limiter)
    limiter.learn(TICKER, 0, sent_at)
    with pytest.raises(RateLimitError):
        send(limiter, seconds=0.5)


def test_it_says_in_one_line_how_it_is(make: Make, host: str) -> None:
    limiter = make()
    assert repr(limiter) == f"<RateLimiter of <HostLimiter {host} open>>"
    limiter.ban(seconds=50.0)
    assert "banned for 50 s" in repr(limiter)


# --- forked ---


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_gets_a_clear_error_and_still_respects_the_ban() -> None:
    program = """
        import os, sys
        from upbit_backbone._concurrency import Deadline
        from upbit_backbone.errors import BannedError, ClosedError
        from upbit_backbone.models.enums import Priority, RateGroup
        from upbit_backbone.limits.rate_limiter import RateLimiter
        limiter = RateLimiter("forked")
        limiter.ban(seconds=60.0)
        with limiter._host_limiter._lock:
            child = os.fork()
        if child == 0:
            try:
                with limiter.permit(RateGroup.TICKER, Priority.NORMAL, Deadline.after(1)):
                    pass
            except ClosedError:
                try:
                    with RateLimiter("forked").permit(RateGroup.TICKER, Priority.NORMAL, Deadline.after(1)):
                        pass
                except BannedError:
                    os._exit(0)
            os._exit(1)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
