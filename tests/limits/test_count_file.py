"""The count that the processes of one user keep in a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.clock import ManualClock
from tests.support.waiting import wait_until
from upbit_backbone._concurrency import SYSTEM_CLOCK
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
from upbit_backbone.limits.shared_count import ARRIVED_SECONDS, LOOK_AGAIN_SECONDS
from upbit_backbone.models.enums import RateGroup

TICKER, CANDLE = RateGroup.TICKER, RateGroup.CANDLE


def file_of(folder: Path) -> Path:
    return next(folder.glob("upbit-backbone*/*.limits"))


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
