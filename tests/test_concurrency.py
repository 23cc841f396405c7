"""Threads that begin, work, idle away and end; calls that are shared; waits that end; forks that are refused."""

from __future__ import annotations

import concurrent.futures
import copy
import math
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from tests.support.clock import TICK, CoarseClock
from tests.support.waiting import promised
from upbit_backbone._concurrency import (
    Deadline,
    EventCount,
    Flag,
    ForkGuard,
    LoopThread,
    SharedFuture,
    SingleFlight,
    WorkerPool,
    join_all,
    spawn,
    spawn_unwaited,
    wait_event,
    wait_future,
)
from upbit_backbone.errors import ClosedError, InvalidRequestError, RateLimitError, RequestTimeoutError

WAIT_SECONDS = 30.0


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool(3, "test-pool", idle_seconds=WAIT_SECONDS)
    yield pool
    pool.close(Deadline.after(WAIT_SECONDS))


# --- deadlines ---


@pytest.mark.parametrize("bad", [math.nan, -1, -0.001, True, "1", object()])
def test_a_timeout_that_is_no_number_of_seconds_is_refused(bad: object) -> None:
    with pytest.raises(InvalidRequestError, match="expected seconds"):
        Deadline.after(bad)  # type: ignore[arg-type]


def test_an_endless_timeout_is_no_overflow() -> None:
    assert Deadline.after(math.inf).remaining_or(1.0) == 1.0
    assert Deadline.after(1e300).remaining_or(1.0) == 1.0
    assert Deadline.after(10**400).remaining_or(1.0) == 1.0


def test_a_deadline_counts_down_and_stops_at_zero() -> None:
    now = [100.0]
    deadline = Deadline.after(2.0, lambda: now[0])
    now[0] = 101.5
    assert deadline.remaining() == 0.5
    assert deadline.fraction(0.5).remaining() == 0.25
    assert deadline.sooner(9.0).remaining() == 0.5
    now[0] = 200.0
    assert deadline.remaining() == 0.0
    assert deadline.expired


def test_no_deadline_never_expires() -> None:
    never = Deadline.after(None)
    assert never.remaining() is None
    assert not never.expired
    assert never.remaining_or(3.0) == 3.0
    assert repr(never) == "Deadline(never)"


def test_waiting_ends_at_the_deadline_whatever_is_waited_for() -> None:
    started = time.monotonic()
    assert not EventCount().wait_for(lambda: False, Deadline.after(0.05))
    assert not wait_event(threading.Event(), Deadline.after(0.05))
    with pytest.raises(RequestTimeoutError, match="ticker"):
        wait_future(Future(), Deadline.after(0.05), "ticker")
    assert 0.15 <= time.monotonic() - started < promised(5.0)


def test_by_a_clock_that_ticks_coarsely_waits_end_and_do_not_spin() -> None:
    asked = []

    def clock() -> float:
        asked.append(None)
        return CoarseClock().monotonic()

    for seconds in (0.0, 0.001, 0.02, 0.05):
        started = time.monotonic()
        asked.clear()
        assert not EventCount().wait_for(lambda: False, Deadline.after(seconds, clock))
        assert time.monotonic() - started >= seconds - TICK
        assert len(asked) < 200  # a wait that ends by the machine's clock and not by this one is taken up again
    deadline = Deadline.after(0.001, clock)
    assert wait_event_is_over(deadline)
    assert deadline.remaining() == 0.0
    assert deadline.fraction(0.5).expired


def wait_event_is_over(deadline: Deadline) -> bool:
    return not wait_event(threading.Event(), deadline) and deadline.expired


# --- waiting and telling ---


def test_who_waits_is_woken_by_who_changes_the_state_and_tells() -> None:
    changed, state, got = EventCount(), [], Flag()

    def wait() -> None:
        if changed.wait_for(lambda: state, Deadline.after(WAIT_SECONDS)):
            got.set()

    threads = [spawn(wait, f"test-wait-{n}") for n in range(5)]
    state.append("news")
    changed.notify_all()
    assert got.wait(WAIT_SECONDS)
    assert join_all(threads, Deadline.after(WAIT_SECONDS)) == []
    assert not changed.waiting


def test_a_wait_ends_at_its_deadline_and_leaves_no_waiter_behind() -> None:
    changed = EventCount()
    assert not changed.wait_for(lambda: False, Deadline.after(0.02))
    assert not changed.waiting
    with pytest.raises(ZeroDivisionError):
        changed.wait_for(lambda: 1 / 0, Deadline.after(WAIT_SECONDS))
    assert not changed.waiting


def test_a_flag_is_an_event() -> None:
    flag = Flag()
    assert not flag.wait(0.01)
    assert not flag.is_set()
    thread = spawn(flag.set, "test-flag")
    assert flag.wait(WAIT_SECONDS)
    flag.clear()
    assert not flag.is_set()
    assert join_all([thread], Deadline.after(WAIT_SECONDS)) == []


def test_a_future_brings_results_and_errors_to_who_waits_for_it_at_any_time() -> None:
    future: Future[int] = SharedFuture()
    assert future.set_running_or_notify_cancel()
    thread = spawn(lambda: future.set_result(5), "test-future")
    assert future.result(WAIT_SECONDS) == 5
    assert join_all([thread], Deadline.after(WAIT_SECONDS)) == []
    with pytest.raises(TimeoutError):
        SharedFuture().result(0.01)
    late: Future[int] = SharedFuture()
    assert late.cancel()
    assert not late.set_running_or_notify_cancel()
    assert concurrent.futures.wait([future, late], WAIT_SECONDS).not_done == set()


# --- threads that nothing ends ---


def test_whatever_a_turn_raises_the_next_one_follows() -> None:
    errors = iter([ValueError(), SystemExit(), KeyboardInterrupt(), GeneratorExit(), MemoryError()])
    told, over = [], Flag()

    def turn() -> None:
        error = next(errors, None)
        if error is None:
            over.set()
        else:
            raise error

    loop = LoopThread(turn, "test-loop", is_over=over.is_set, failed=told.append)
    loop.ensure()
    first = loop.thread
    assert over.wait(WAIT_SECONDS)
    assert loop.join(Deadline.after(WAIT_SECONDS)) == []
    assert [type(error) for error in told] == [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError]
    assert loop.thread is first


def test_a_report_that_fails_ends_nothing_either(caplog: pytest.LogCaptureFixture) -> None:
    turns, over = [], Flag()

    def turn() -> None:
        turns.append(1)
        if len(turns) == 3:
            over.set()
        raise ValueError

    def failed(error: BaseException) -> None:
        raise SystemExit from error

    loop = LoopThread(turn, "test-loop", is_over=over.is_set, failed=failed)
    loop.ensure()
    assert over.wait(WAIT_SECONDS)
    assert loop.join(Deadline.after(WAIT_SECONDS)) == []
    assert "cannot even report" in caplog.text


def test_a_thread_that_dies_between_its_turns_is_told_of_and_replaced(caplog: pytest.LogCaptureFixture) -> None:
    """Asynchronous exceptions reach places that no `except` covers."""
    asked, threads, over = [], [], Flag()

    def is_over() -> bool:
        asked.append(1)
        if len(asked) == 3:
            raise SystemExit
        return over.is_set()

    def turn() -> None:
        threads.append(threading.current_thread())
        if len(set(threads)) == 2:
            over.set()

    ended = Flag()
    loop = LoopThread(turn, "test-loop", is_over=is_over, at_end=ended.set)
    loop.ensure()
    assert ended.wait(WAIT_SECONDS)
    assert loop.join(Deadline.after(WAIT_SECONDS)) == []
    assert "broke out of its loop" in caplog.text
    assert loop.thread is threads[-1]


def test_a_thread_that_could_not_be_replaced_is_started_by_the_next_who_looks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked, over, turned = [], Flag(), Flag()

    def is_over() -> bool:
        asked.append(1)
        if len(asked) == 2:
            monkeypatch.setattr("upbit_backbone._concurrency._start", no_thread)
            raise SystemExit
        return over.is_set()

    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    loop = LoopThread(turned.set, "test-loop", is_over=is_over)
    loop.ensure()
    dead = loop.thread
    assert dead is not None
    dead.join(WAIT_SECONDS)
    assert "no thread to replace" in caplog.text
    with pytest.raises(RuntimeError):
        loop.ensure()
    monkeypatch.undo()
    loop.ensure()
    assert turned.wait(WAIT_SECONDS)
    over.set()
    assert loop.join(Deadline.after(WAIT_SECONDS)) == []


def test_who_joins_waits_for_a_thread_that_is_just_being_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that is not alive yet is no dead one: what it has to write at its end would come after the join."""
    asked_for, over, ended = Flag(), Flag(), Flag()

    def start_late(thread: threading.Thread) -> None:
        asked_for.set()
        threading.Timer(0.1, thread.start).start()

    monkeypatch.setattr("upbit_backbone._concurrency._start", start_late)
    loop = LoopThread(over.wait, "test-loop", is_over=over.is_set, at_end=ended.set)
    loop.ensure()
    assert asked_for.wait(WAIT_SECONDS)
    over.set()
    assert loop.join(Deadline.after(WAIT_SECONDS)) == []
    assert ended.is_set()


def test_many_who_look_after_a_thread_at_once_start_one() -> None:
    over, running, most = Flag(), [], []

    def turn() -> None:
        running.append(1)
        most.append(len(running))
        over.wait(WAIT_SECONDS)
        running.pop()

    loop = LoopThread(turn, "test-loop", is_over=over.is_set)
    helpers = [spawn(loop.ensure, f"test-ensure-{n}") for n in range(16)]
    assert join_all(helpers, Deadline.after(WAIT_SECONDS)) == []
    over.set()
    assert loop.join(Deadline.after(WAIT_SECONDS)) == []
    assert set(most) == {1}


def test_a_thread_can_be_started_without_waiting_for_anything() -> None:
    started = Flag()
    with threading._active_limbo_lock:  # type: ignore[attr-defined]  # held by an interrupted Thread.start
        spawn_unwaited(started.set, "test-unwaited")
        assert not started.is_set()
    assert started.wait(WAIT_SECONDS)


def test_what_is_closed_without_waiting_may_be_closed_while_the_interpreter_ends() -> None:
    code = "import atexit; from upbit_backbone import _concurrency as c; atexit.register(c.spawn_unwaited, int, 'late')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- worker pool ---


def test_results_and_errors_come_back_in_futures(pool: WorkerPool) -> None:
    def fail() -> None:
        raise RateLimitError("slow down", retry_after=2.0)

    assert pool.submit(lambda: 6 * 7).result(WAIT_SECONDS) == 42
    with pytest.raises(RateLimitError) as caught:
        pool.submit(fail).result(WAIT_SECONDS)
    assert caught.value.retry_after == 2.0


def test_no_thread_starts_before_there_is_work_and_never_more_than_allowed(pool: WorkerPool) -> None:
    before = threading.active_count()
    release = threading.Event()
    futures = [pool.submit(lambda: release.wait(WAIT_SECONDS)) for _ in range(10)]
    assert threading.active_count() - before == 3
    release.set()
    assert all(future.result(WAIT_SECONDS) for future in futures)


def test_workers_are_named_and_reused(pool: WorkerPool) -> None:
    names = {pool.submit(lambda: threading.current_thread().name).result(WAIT_SECONDS) for _ in range(20)}
    assert names == {"test-pool-1"}


def test_idle_workers_end_and_come_back() -> None:
    pool = WorkerPool(2, "test-idle", idle_seconds=0.05)
    first = pool.submit(threading.current_thread).result(WAIT_SECONDS)
    first.join(WAIT_SECONDS)
    assert not first.is_alive()
    assert pool.submit(threading.current_thread).result(WAIT_SECONDS) is not first
    pool.close(Deadline.after(WAIT_SECONDS))


def test_closing_fails_what_has_not_begun_and_leaves_the_stuck_behind_by_name() -> None:
    pool = WorkerPool(1, "test-stuck")
    release, begun = threading.Event(), threading.Event()
    stuck = pool.submit(lambda: (begun.set(), release.wait(WAIT_SECONDS)))
    waiting = pool.submit(lambda: "never")
    begun.wait(WAIT_SECONDS)
    started = time.monotonic()
    assert pool.close(Deadline.after(0.1)) == ["test-stuck-1"]
    assert time.monotonic() - started < promised(2.0)
    with pytest.raises(ClosedError):
        waiting.result(0)
    with pytest.raises(ClosedError):
        pool.submit(lambda: None)
    release.set()
    assert stuck.result(WAIT_SECONDS)
    assert pool.close(Deadline.after(WAIT_SECONDS)) == []


def test_a_worker_can_close_its_own_pool() -> None:
    pool = WorkerPool(1, "test-self")
    assert pool.submit(lambda: pool.close(Deadline.after(1.0))).result(WAIT_SECONDS) == []
    pool.close(Deadline.after(WAIT_SECONDS))


def test_a_cancelled_job_never_runs(pool: WorkerPool) -> None:
    release, ran = threading.Event(), threading.Event()
    for _ in range(3):
        pool.submit(lambda: release.wait(WAIT_SECONDS))
    future = pool.submit(ran.set)
    assert future.cancel()
    release.set()
    assert pool.submit(lambda: "next").result(WAIT_SECONDS) == "next"
    assert not ran.is_set()


def test_a_worker_outlives_a_callback_that_breaks_it(pool: WorkerPool, caplog: pytest.LogCaptureFixture) -> None:
    """What is called back when a result is there runs on the worker."""

    def broken(future: Future[int]) -> None:
        raise SystemExit

    release = threading.Event()
    future = pool.submit(lambda: release.wait(WAIT_SECONDS))
    future.add_done_callback(broken)
    release.set()
    assert future.result(WAIT_SECONDS)
    assert [pool.submit(lambda: 7).result(WAIT_SECONDS) for _ in range(10)] == [7] * 10
    assert pool.close(Deadline.after(WAIT_SECONDS)) == []  # other workers answer before that one has told
    assert "a worker broke down" in caplog.text


def test_a_job_whose_submission_was_interrupted_is_not_waited_for(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: threading.Thread) -> None:
        raise KeyboardInterrupt

    ran = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr("upbit_backbone._concurrency._start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.submit(ran.set)
    assert pool.submit(lambda: 7).result(WAIT_SECONDS) == 7
    assert not ran.is_set()


def test_many_threads_submit_at_once_and_nothing_is_lost(pool: WorkerPool) -> None:
    results: list[int] = []

    def submit(base: int) -> None:
        futures = [pool.submit(lambda number=base + n: number) for n in range(50)]
        results.extend(future.result(WAIT_SECONDS) for future in futures)

    threads = [spawn(lambda base=n * 50: submit(base), f"test-submit-{n}") for n in range(20)]
    assert join_all(threads, Deadline.after(WAIT_SECONDS)) == []
    assert sorted(results) == list(range(1000))


# --- single flight ---


def test_a_hundred_equal_calls_share_one_flight() -> None:
    flights: SingleFlight[str, Future[int]] = SingleFlight()
    joined = [flights.join("key") for _ in range(100)]
    assert sum(leads for _, leads in joined) == 1
    assert flights.merged == 99
    joined[0][0].set_result(7)
    assert {future.result(0) for future, _ in joined} == {7}
    assert len(flights) == 0
    assert flights.join("key")[1]


def test_a_flight_that_may_not_be_joined_is_replaced_and_still_lands() -> None:
    flights: SingleFlight[str, Future[int]] = SingleFlight()
    old, _ = flights.join("key")
    new, leads = flights.join("key", may_join=lambda flight: flight is not old)
    assert leads
    old.set_result(1)
    assert flights.join("key") == (new, False)


# --- exit and fork ---

FORGOTTEN_POOL = """
    import threading, time
    from upbit_backbone._concurrency import WorkerPool, Deadline, at_exit

    class Owner:
        def close(self, deadline):
            print("closed with", deadline.remaining() > 0, flush=True)

    class Broken:
        def close(self, deadline):
            raise RuntimeError("nobody sees this")

    owner, broken = Owner(), Broken()
    at_exit(owner.close)
    at_exit(broken.close)
    pool = WorkerPool(2, "forgotten")
    pool.submit(lambda: threading.Event().wait(60))
    raise SystemExit(3)
"""


def test_a_stuck_worker_never_keeps_the_process_alive() -> None:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORGOTTEN_POOL)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 3
    assert done.stdout == "closed with True\n"
    assert "Traceback" not in done.stderr
    assert time.monotonic() - started < promised(10)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_what_was_made_before_a_fork_says_so_in_the_child_even_while_its_lock_is_held() -> None:
    program = """
        import os, sys, threading
        from upbit_backbone._concurrency import WorkerPool, Deadline, ForkGuard
        from upbit_backbone.errors import ClosedError
        pool = WorkerPool(1, "parent")
        guard = ForkGuard("thing")
        guard.check()
        with pool._lock:
            child = os.fork()
        if child == 0:
            try:
                pool.submit(print)
            except ClosedError as error:
                fine = "fork" in str(error) and pool.close(Deadline.after(1)) == [] and guard.is_foreign
                os._exit(0 if fine else 1)
            os._exit(2)
        _, status = os.waitpid(child, 0)
        assert pool.submit(lambda: 5).result(5) == 5  # the parent is unaffected
        sys.exit(os.waitstatus_to_exitcode(status))
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_fork_guard_is_silent_where_nobody_forked() -> None:
    guard = ForkGuard("thing")
    guard.check()
    assert not guard.is_foreign


def test_errors_survive_pickling_and_copying_with_what_they_know() -> None:
    error = RateLimitError("slow", retry_after=3.0, group="ticker")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301
        assert (again.retry_after, again.group, str(again)) == (3.0, "ticker", "slow")
