"""Limits, bans and pauses that the processes of one user keep together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import uuid
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.clock import ManualClock
from tests.support.waiting import wait_until
from upbit_backbone._concurrency import SYSTEM_CLOCK, Deadline
from upbit_backbone.config import BackboneConfig
from upbit_backbone.errors import BannedError, RateLimitError
from upbit_backbone.limits.ban import Ban
from upbit_backbone.limits.between_processes import InterProcessLimiter
from upbit_backbone.limits.count_file import (
    BLOCK_BYTES,
    HELD_SECONDS,
    LOCK_RETRY_SECONDS,
    LOOK_AT_FILE_SECONDS,
    NO_BAN,
    OLD_FILE_SECONDS,
    STUCK_SECONDS,
    SharedCountFile,
)
from upbit_backbone.limits.rate_limiter import RateLimiter
from upbit_backbone.limits.shared_count import ARRIVED_SECONDS, LOOK_AGAIN_SECONDS
from upbit_backbone.models.enums import Priority, RateGroup
from upbit_backbone.models.events import Event, RateLimitEvent
from upbit_backbone.simulator import FakeUpbit

TICKER, CANDLE = RateGroup.TICKER, RateGroup.CANDLE
NORMAL = Priority.NORMAL


@pytest.fixture
def host() -> str:
    return f"test-{uuid.uuid4()}"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def two(clock: ManualClock, host: str) -> Iterator[tuple[SharedCountFile, SharedCountFile]]:
    """The counts of two processes."""
    counts = SharedCountFile(host, clock), SharedCountFile(host, clock)
    yield counts
    for count in counts:
        count.close()


@contextmanager
def limiter_of(host: str, **options: object) -> Iterator[RateLimiter]:
    limiter = RateLimiter(host, between_processes=True, **options)  # type: ignore[arg-type]
    try:
        yield limiter
    finally:
        limiter.close()


def file_of(folder: Path) -> Path:
    return next(folder.glob("upbit-backbone*/*.limits"))


def run_in_another_process(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *arguments], stdout=subprocess.PIPE, text=True
    )


def busiest_second(times: list[float]) -> int:
    times = sorted(times)
    return max(place + 1 - bisect_left(times, moment - 1.0 + 1e-9) for place, moment in enumerate(times))


# --- requests ---


def test_it_is_the_default() -> None:
    assert BackboneConfig.__dataclass_fields__["share_limits_between_processes"].default is True


def test_a_request_counts_for_all_until_a_second_after_it_arrived(two, clock: ManualClock) -> None:
    mine, theirs = two
    claim = mine.take(TICKER, 1, 7)
    assert claim.wait == 0.0
    clock.now += 3.0
    assert theirs.take(TICKER, 1, 8).wait > 0.0  # still under way
    assert theirs.take(CANDLE, 1, 8).wait == 0.0  # each group has a count of its own
    mine.settle(TICKER, 7, claim.at, clock.now + ARRIVED_SECONDS)
    clock.now += ARRIVED_SECONDS - 0.03
    assert theirs.take(TICKER, 1, 8).wait == pytest.approx(0.03)
    clock.now += 0.04
    given_back = theirs.take(TICKER, 1, 8)
    assert given_back.wait == 0.0
    theirs.settle(TICKER, 8, given_back.at, None)  # never sent
    assert mine.take(TICKER, 1, 9).wait == 0.0


def test_a_request_given_up_counts_for_all_as_long_as_it_may_arrive(two, clock: ManualClock) -> None:
    mine, theirs = two
    claim = mine.take(TICKER, 1, 7)
    mine.settle(TICKER, 7, claim.at, clock.now + 21.0)
    clock.now += 20.9
    assert theirs.take(TICKER, 1, 8).wait > 0.0
    clock.now += 0.2
    assert theirs.take(TICKER, 1, 8).wait == 0.0


def test_who_was_interrupted_before_he_knew_where_he_counts_gives_his_place_back(two) -> None:
    mine, theirs = two
    mine.take(TICKER, 1, 7)
    mine.settle(TICKER, 7, None, None)
    assert theirs.take(TICKER, 1, 8).wait == 0.0


def test_processes_that_allow_themselves_different_rates_count_each_other(two) -> None:
    mine, theirs = two
    assert [mine.take(TICKER, 30, number).wait for number in range(1, 31)] == [0.0] * 30
    assert theirs.take(TICKER, 10, 99).wait > 0.0
    assert mine.counted(TICKER) == theirs.counted(TICKER) == 30
    assert theirs.take(TICKER, 1000, 99).wait == 0.0  # such a server is not Upbit, and nothing is counted
    assert mine.counted(TICKER) == 30


RUBBISH = [
    b"",
    b"\xff\xfe",
    b"[1]",
    NO_BAN[:8] + b"\xff" * 20,
    NO_BAN + b"\xff" * 7 * BLOCK_BYTES,
    b"x" * 100_000,
    NO_BAN[:8] + b"\x7f" * 7 * BLOCK_BYTES,
]


@pytest.mark.parametrize("rubbish", RUBBISH)
def test_a_count_survives_rubbish_in_its_file(two, clock: ManualClock, temporary_folder: Path, rubbish: bytes) -> None:
    mine, theirs = two
    assert mine.take(TICKER, 2, 1).wait == 0.0
    file = file_of(temporary_folder)
    assert file.stat().st_mode & 0o077 == 0
    file.write_bytes(rubbish)
    assert mine.take(TICKER, 2, 2).wait == 0.0
    mine.passed(clock.now)  # it may have looked like a ban that is over
    assert theirs.take(TICKER, 2, 3).wait == 0.0
    assert theirs.take(TICKER, 2, 4).wait > 0.0


def test_a_file_that_somebody_tidied_away_is_made_anew_for_all(two, clock: ManualClock, temporary_folder: Path) -> None:
    mine, theirs = two
    mine.take(TICKER, 2, 1)
    theirs.take(TICKER, 2, 2)
    file_of(temporary_folder).unlink()
    clock.now += LOOK_AT_FILE_SECONDS
    assert mine.take(TICKER, 1, 3).wait == 0.0
    assert theirs.take(TICKER, 1, 4).wait > 0.0


def test_the_file_is_let_go_with_the_last_backbone_of_the_process(host: str) -> None:
    with limiter_of(host) as mine, limiter_of(host) as another:
        assert mine._shared is not None
        count = mine._shared._count
        with another.permit(TICKER, NORMAL, Deadline.after(30)) as permit:
            permit.sent()
            mine.close()
            assert count._descriptor >= 0
            another.close()
            assert count._descriptor < 0
        assert count._descriptor < 0  # settled, and let go again
        assert count.counted(TICKER) == 1
        count.close()


def test_counts_of_hosts_that_nobody_asks_any_more_are_removed(clock: ManualClock, temporary_folder: Path) -> None:
    for host, age in (("old", OLD_FILE_SECONDS + 60), ("young", 60.0)):
        count = SharedCountFile(host, clock)
        count.take(TICKER, 1, 1)
        count.close()
        file = next(temporary_folder.glob(f"*/{host}.limits"))
        then = clock.wall().timestamp() - age
        os.utime(file, (then, then))
    count = SharedCountFile("new", clock)
    count.take(TICKER, 1, 1)
    count.close()
    assert sorted(path.name for path in temporary_folder.glob("*/*")) == ["new.limits", "young.limits"]


# --- processes that die or stand still ---

HOLDER = """
    import sys
    from upbit_backbone._concurrency import SYSTEM_CLOCK
    from upbit_backbone.limits.between_processes import inter_process_limiter
    from upbit_backbone.models.enums import RateGroup
    limiter = inter_process_limiter(sys.argv[1], SYSTEM_CLOCK)
    for _ in range(2):
        assert limiter.claim(RateGroup.TICKER, None).ask(2) == 0.0
    print("counted", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="who stands still is known by /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_what_a_killed_or_stopped_process_had_under_way_is_free_a_second_later(host: str, how: int) -> None:
    program = [sys.executable, "-c", textwrap.dedent(HOLDER), host]
    clock = ManualClock()
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "counted\n"
            clock.now = SYSTEM_CLOCK.monotonic() + 1.0  # from here on by hand
            mine = SharedCountFile(host, clock)
            assert mine.take(TICKER, 2, 1).wait > 0.0
            clock.now += ARRIVED_SECONDS
            assert mine.take(TICKER, 2, 1).wait > 0.0  # it runs, and its requests may be under way
            process.send_signal(how)
            wait_until(lambda: stands_still(process.pid), "the process stands still")
            assert mine.take(TICKER, 2, 1).wait > 0.0  # they may have left just before
            clock.now += ARRIVED_SECONDS + 0.01
            assert mine.take(TICKER, 2, 1).wait == 0.0
            assert clock.now < SYSTEM_CLOCK.monotonic() + HELD_SECONDS
        finally:
            mine.close()
            process.kill()


def stands_still(process: int) -> bool:
    return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] in "TZ"


def test_a_request_whose_place_was_given_away_meanwhile_does_not_leave(two, clock: ManualClock) -> None:
    mine, theirs = two
    claim = InterProcessLimiter(mine, clock).claim(TICKER, lambda group, claim: None)
    assert claim.ask(1) == 0.0
    clock.now += 2.0
    claim.leaving()  # slow, but nobody took its place
    clock.now += HELD_SECONDS
    assert theirs.take(TICKER, 1, 8).wait == 0.0
    with pytest.raises(RateLimitError, match="stood still"):
        claim.leaving()
    claim.settle(None)
    assert theirs.counted(TICKER) == 1  # and what is not its own it does not give back


@pytest.mark.skipif(sys.platform == "win32", reason="nobody replaces a file there that another has open")
def test_a_process_stopped_with_the_file_in_its_hands_stops_nobody_else(
    two, clock: ManualClock, temporary_folder: Path
) -> None:
    import fcntl

    mine, theirs = two
    assert theirs.take(TICKER, 2, 1).wait == 0.0
    with file_of(temporary_folder).open("r+b") as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        assert mine.take(TICKER, 2, 2).wait == LOCK_RETRY_SECONDS
        clock.now += STUCK_SECONDS + 0.1
        assert mine.take(TICKER, 2, 2).wait == LOCK_RETRY_SECONDS  # from now on with a copy
        assert mine.take(TICKER, 2, 2).wait == 0.0
        clock.now += LOOK_AT_FILE_SECONDS
        assert theirs.take(TICKER, 2, 3).wait > 0.0  # the copy holds what was counted before


@pytest.mark.skipif(sys.platform == "win32", reason="nobody replaces a file there that another has open")
def test_who_stood_still_in_the_middle_of_counting_counts_again_where_the_others_do(
    host: str, temporary_folder: Path
) -> None:
    class StandingStill(ManualClock):
        """Stands still once, and the others go on without it."""

        has_stood = False

        def monotonic(self) -> float:
            file = next(temporary_folder.glob("*/*.limits"), None)
            if file and file.stat().st_size > len(NO_BAN) and not self.has_stood:  # it has the lock, and has counted
                self.has_stood = True
                copy = file.with_suffix(".copy")
                copy.write_bytes(NO_BAN)
                copy.replace(file)
                self.now += 5.0
            return super().monotonic()

    slow = StandingStill()
    mine = SharedCountFile(host, slow)
    assert mine.take(TICKER, 2, 1).wait == 0.0
    assert slow.has_stood
    theirs = SharedCountFile(host, slow)
    assert theirs.counted(TICKER) == 1
    mine.close()
    theirs.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_the_file_for_itself(host: str) -> None:
    program = """
        import os, sys
        from upbit_backbone._concurrency import SYSTEM_CLOCK
        from upbit_backbone.limits.between_processes import inter_process_limiter
        from upbit_backbone.models.enums import RateGroup
        parents = inter_process_limiter(sys.argv[1], SYSTEM_CLOCK)
        with parents._count._opened(0.0) as descriptor:  # locked, as another thread's might be at a fork
            child = os.fork()
            if child == 0:
                claim = inter_process_limiter(sys.argv[1], SYSTEM_CLOCK).claim(RateGroup.TICKER, None)
                os._exit(0 if claim.ask(1) > 0.0 else 1)
            status = os.waitpid(child, 0)[1]
        sys.exit(os.waitstatus_to_exitcode(status))
    """
    process = run_in_another_process(program, host)
    process.communicate(timeout=60)
    assert process.returncode == 0


# --- not shared ---


def no_folder(folder: Path) -> Path:
    return folder / "nowhere"


def a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file"


def ours_open_to_all(folder: Path) -> Path:
    SharedCountFile("any", SYSTEM_CLOCK, folder).take(TICKER, 1, 1)
    file_of(folder).parent.chmod(0o777)
    return folder


def a_link(folder: Path) -> Path:
    SharedCountFile("any", SYSTEM_CLOCK, folder).take(TICKER, 1, 1)
    ours = file_of(folder).parent
    ours.rename(folder / "elsewhere")
    ours.symlink_to(folder / "elsewhere")
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="rights of files are others there")
@pytest.mark.parametrize("make", [no_folder, a_file, ours_open_to_all, a_link])
def test_without_a_file_of_its_own_a_process_keeps_the_limits_alone_and_says_so_once(
    make, temporary_folder: Path, host: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TMPDIR", str(make(temporary_folder)))
    with limiter_of(host) as limiter, limiter_of(host) as another:
        for each in (limiter, another) * 4:
            with each.permit(TICKER, NORMAL, Deadline.after(30)) as permit:
                permit.sent()
                permit.answered()
        assert limiter.look(TICKER).granted == 8
    assert [record.getMessage() for record in caplog.records] == ["limits are not shared with other processes"]
    assert not list(temporary_folder.rglob(f"{host}*"))


# --- bans and pauses ---


def test_a_ban_of_unknown_length_is_told_to_the_others_and_ends_for_all_with_one_probe(two, clock: ManualClock) -> None:
    mine, theirs = two
    before = mine.impose_ban(None, None, at_connect=False)
    refused = theirs.take(TICKER, 10, 8)
    assert refused.ban is not None
    assert refused.ban.until == before.until
    assert refused.wait == pytest.approx(before.until - clock.now)
    clock.now = before.until + 0.1
    assert theirs.take(TICKER, 10, 8).wait == 0.0  # the probe
    assert mine.take(TICKER, 10, 7).wait == LOOK_AGAIN_SECONDS
    theirs.passed(clock.now)
    assert mine.take(TICKER, 10, 7).wait == 0.0


def test_a_probe_that_was_not_sent_leaves_its_part_to_the_next(two, clock: ManualClock) -> None:
    mine, theirs = two
    ban = mine.impose_ban(10.0, None, at_connect=False)
    clock.now = ban.until + 0.1
    probe = theirs.take(TICKER, 10, 8)
    assert mine.take(TICKER, 10, 7).wait > 0.0
    theirs.settle(TICKER, 8, probe.at, None)
    assert mine.take(TICKER, 10, 7).wait == 0.0


def test_the_second_ban_of_all_processes_together_is_the_longer(two, clock: ManualClock) -> None:
    mine, theirs = two
    first = mine.impose_ban(None, None, at_connect=False)
    length = first.until - clock.now
    clock.now = first.until + 1.0
    second = theirs.impose_ban(None, None, at_connect=False)
    assert second.offences == 2
    assert second.until - clock.now == pytest.approx(2 * length)


def test_lines_that_broke_in_a_ban_try_once_a_second_over_all_processes(two, clock: ManualClock) -> None:
    mine, theirs = two
    mine.impose_ban(30.0, None, at_connect=False)
    assert mine.connecting().connect_wait(clock.now) == 0.0
    clock.now += 0.4
    assert theirs.connecting().connect_wait(clock.now) == pytest.approx(0.6)
    clock.now += 0.7
    assert theirs.connecting().connect_wait(clock.now) == 0.0
    mine.impose_ban(30.0, None, at_connect=True)
    assert theirs.connecting().connect_wait(clock.now) > 20.0


def test_a_ban_of_before_the_machine_started_anew_is_over(two, clock: ManualClock) -> None:
    mine, theirs = two
    clock.now = 5_000.0
    mine.impose_ban(600.0, None, at_connect=False)
    clock.wall_ahead = 7_000.0  # a night later
    clock.now = 60.0
    assert theirs.take(TICKER, 10, 8).wait == 0.0


def test_a_ban_stops_the_backbones_of_another_process_and_tells_them(host: str) -> None:
    told: list[Event] = []
    theirs = SharedCountFile(host, SYSTEM_CLOCK)
    with limiter_of(host, emit=told.append) as mine:
        theirs.impose_ban(300.0, None, at_connect=False)
        with pytest.raises(BannedError), mine.permit(TICKER, NORMAL, Deadline.after(30)):
            pytest.fail("it had a turn")
        assert 200 < mine.banned_for() <= 300
        with pytest.raises(BannedError), mine.permit(CANDLE, NORMAL, Deadline.after(30)):
            pytest.fail("it had a turn")
        assert [(type(each), each.banned) for each in told if isinstance(each, RateLimitEvent)] == [
            (RateLimitEvent, True)
        ]
    theirs.close()


def test_a_ban_of_our_own_reaches_the_other_processes(host: str) -> None:
    theirs = SharedCountFile(host, SYSTEM_CLOCK)
    with limiter_of(host) as mine:
        mine.ban()
        found = theirs.take(TICKER, 10, 1).ban
        assert isinstance(found, Ban)
        assert found.offences == 1
        assert not found.covers_connects
    theirs.close()


def test_a_line_that_broke_in_a_ban_another_process_met_may_try_to_come_back(host: str) -> None:
    theirs = SharedCountFile(host, SYSTEM_CLOCK)
    theirs.impose_ban(300.0, None, at_connect=False)
    with limiter_of(host) as mine:
        mine.acquire(RateGroup.WEBSOCKET_CONNECT, NORMAL, Deadline.after(30), is_reconnect=True)
        assert mine.banned_for() > 200
    theirs.close()


def test_a_429_stops_the_group_in_every_process_for_as_long_as_upbit_said(host: str) -> None:
    told: list[Event] = []
    theirs = SharedCountFile(host, SYSTEM_CLOCK)
    with limiter_of(host, emit=told.append) as mine:
        theirs.pause(TICKER, 300.0)
        with pytest.raises(RateLimitError) as refused, mine.permit(TICKER, NORMAL, Deadline.after(30)):
            pytest.fail("it had a turn")
        assert refused.value.retry_after is not None
        assert refused.value.retry_after > 200
        assert [each.group for each in told if isinstance(each, RateLimitEvent)] == ["ticker"]
        assert mine.look(TICKER).per_second == 5.0  # slower from now on, as after one of our own
        with mine.permit(CANDLE, NORMAL, Deadline.after(30)) as permit:
            permit.sent()
        mine.penalise(CANDLE, 300.0)
        assert theirs.take(CANDLE, 10, 1).wait > 200
        assert len(told) == 2
    theirs.close()


def test_what_other_processes_ask_is_not_taken_for_a_strangers(host: str) -> None:
    theirs = SharedCountFile(host, SYSTEM_CLOCK)
    with limiter_of(host) as mine:
        taken = [theirs.take(TICKER, 10, number) for number in range(1, 7)]
        assert [claim.wait for claim in taken] == [0.0] * 6
        mine.learn(TICKER, 4)
        assert mine.look(TICKER).available == 10
        mine.learn(TICKER, 1)  # three more than all of us
        assert mine.look(TICKER).available == 7
    theirs.close()


# --- real processes ---

ASKING = """
    import sys
    from upbit_backbone._concurrency import Deadline
    from upbit_backbone.models.enums import Priority, RateGroup
    from upbit_backbone.limits.rate_limiter import RateLimiter
    limiter = RateLimiter(sys.argv[1], between_processes=True)
    for _ in range(8):
        with limiter.permit(RateGroup.TICKER, Priority.NORMAL, Deadline.after(120)) as permit:
            permit.leaving()
            permit.sent()
            permit.answered()
            print(repr(permit.sent_at), flush=True)
"""


def test_three_processes_share_ten_a_second(host: str) -> None:
    processes = [run_in_another_process(ASKING, host) for _ in range(3)]
    times = [float(line) for process in processes for line in process.communicate(timeout=120)[0].splitlines()]
    assert all(process.returncode == 0 for process in processes)
    assert len(times) == 24
    assert busiest_second(times) <= 10


DESK = """
    import os, sys, time
    from upbit_backbone import MarketDataBackbone, UpbitBackboneError
    seconds, number = float(sys.argv[1]), int(sys.argv[2])
    errors = 0
    with MarketDataBackbone(timeout_seconds=60) as market:
        symbols = [each.symbol for each in market.get_markets(quote="KRW")]
        end, turn = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            begun, turn = time.monotonic(), turn + 1
            try:
                market.get_tickers(symbols)
                for chart in range(3):
                    market.get_candles(symbols[(number * 31 + turn * 3 + chart) % len(symbols)], "1m", count=200)
            except UpbitBackboneError as error:
                print(repr(error), flush=True)
            time.sleep(max(0.0, begun + 1.0 - time.monotonic()))
"""


@pytest.mark.endurance
def test_eight_processes_with_250_prices_and_three_charts_a_second_meet_no_429(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UPBIT_BACKBONE_SHARE_LIMITS_BETWEEN_PROCESSES", "1")
    markets = [f"KRW-{chr(65 + number // 26)}{chr(65 + number % 26)}X" for number in range(250)]
    with FakeUpbit(seed=20, markets=markets, trades_per_second=100) as upbit:
        for name, value in upbit.environment().items():
            monkeypatch.setenv(name, value)
        processes = [run_in_another_process(DESK, "20", str(number)) for number in range(8)]
        errors = [process.communicate(timeout=300)[0] for process in processes]
        assert all(process.returncode == 0 for process in processes)
        assert errors == [""] * 8
        statuses = {entry["status"] for entry in upbit.requests()}
        assert len(upbit.requests(group="candle")) > 50  # else nobody was held back
    assert statuses == {200}
