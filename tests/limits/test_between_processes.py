"""A process's part in what all of them count, and whole processes that keep limits, bans and pauses together."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.clock import ManualClock
from upbit_backbone._concurrency import SYSTEM_CLOCK, Deadline
from upbit_backbone.config import BackboneConfig
from upbit_backbone.errors import BannedError, RateLimitError
from upbit_backbone.limits.ban import Ban
from upbit_backbone.limits.between_processes import InterProcessLimiter
from upbit_backbone.limits.count_file import HELD_SECONDS, SharedCountFile
from upbit_backbone.limits.rate_limiter import RateLimiter
from upbit_backbone.models.enums import Priority, RateGroup
from upbit_backbone.models.events import Event, RateLimitEvent
from upbit_backbone.simulator import FakeUpbit

TICKER, CANDLE = RateGroup.TICKER, RateGroup.CANDLE
NORMAL = Priority.NORMAL


@contextmanager
def limiter_of(host: str, **options: object) -> Iterator[RateLimiter]:
    limiter = RateLimiter(host, between_processes=True, **options)  # type: ignore[arg-type]
    try:
        yield limiter
    finally:
        limiter.close()


def run_in_another_process(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *arguments], stdout=subprocess.PIPE, text=True
    )


def busiest_second(times: list[float]) -> int:
    times = sorted(times)
    return max(place + 1 - bisect_left(times, moment - 1.0 + 1e-9) for place, moment in enumerate(times))


def test_it_is_the_default() -> None:
    assert BackboneConfig.__dataclass_fields__["share_limits_between_processes"].default is True


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


def no_folder(folder: Path) -> Path:
    return folder / "nowhere"


def a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file"


def ours_open_to_all(folder: Path) -> Path:
    SharedCountFile("any", SYSTEM_CLOCK, folder).take(TICKER, 1, 1)
    next(folder.glob("upbit-backbone*")).chmod(0o777)
    return folder


def a_link(folder: Path) -> Path:
    SharedCountFile("any", SYSTEM_CLOCK, folder).take(TICKER, 1, 1)
    ours = next(folder.glob("upbit-backbone*"))
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
    with limiter_of(host) as mine, mine.handshake(Deadline.after(30), is_reconnect=True):
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
