from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from upbit_backbone._concurrency import Deadline, join_all, spawn
from upbit_backbone._file_lock import FileLock
from upbit_backbone.errors import FileInUseError, InvalidRequestError

HOLD = """
import sys
from upbit_backbone._file_lock import FileLock
lock = FileLock(sys.argv[1], "download")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "day.csv"


@pytest.fixture
def held_elsewhere(path: Path):
    """Another process that holds `path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_in_a_process_is_refused_and_told_who_has_it(path: Path) -> None:
    with FileLock(path, "recording"):
        with pytest.raises(
            FileInUseError, match=f"day.csv is in use: recording by process {os.getpid()} on "
        ) as caught:
            FileLock(path, "download")
        assert caught.value.holder.startswith("recording by process")
    with FileLock(path, "download"):
        pass
    assert list(path.parent.iterdir()) == []


def test_another_process_is_refused_and_told_who_has_it(path: Path, held_elsewhere: subprocess.Popen[str]) -> None:
    with pytest.raises(FileInUseError, match=f"download by process {held_elsewhere.pid} on "):
        FileLock(path, "download")


def test_a_killed_holder_holds_nothing(path: Path, held_elsewhere: subprocess.Popen[str]) -> None:
    held_elsewhere.kill()
    held_elsewhere.wait(10.0)
    with FileLock(path, "download") as lock:
        assert "held" in repr(lock)
    assert "released" in repr(lock)


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links here")
def test_a_link_and_a_roundabout_way_are_the_same_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.touch()
    link = path.parent / "other"
    link.symlink_to(path)
    monkeypatch.chdir(path.parent)
    with FileLock(path, "recording"):
        for name in (link, Path("day.csv"), path.parent / ".." / path.parent.name / "day.csv"):
            with pytest.raises(FileInUseError):
                FileLock(name, "recording")


def test_a_folder_that_does_not_exist_is_named(path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"^day\.csv: there is no folder .*none; make it"):
        FileLock(path / "none" / "day.csv", "recording")


def test_releasing_again_takes_nothing_from_the_next_holder(path: Path) -> None:
    first = FileLock(path, "recording")
    first.release()
    with FileLock(path, "download"):
        first.release()
        with pytest.raises(FileInUseError, match="download"):
            FileLock(path, "recording")


def test_of_many_threads_one_at_a_time_has_it(path: Path) -> None:
    """The claim is removed and made again all the time: nobody may lock one that has just been removed."""
    inside, most, times = [0], [0], [0]

    def work() -> None:
        while times[0] < 300:
            try:
                lock = FileLock(path, "recording")
            except FileInUseError:
                continue
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            times[0] += 1
            inside[0] -= 1
            lock.release()

    threads = [spawn(work, f"writer-{number}") for number in range(4)]
    assert join_all(threads, Deadline.after(60.0)) == []
    assert most == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_outlives_its_parent_does_not_keep_the_lock(path: Path) -> None:
    program = f"""
import os, signal, sys
from upbit_backbone._file_lock import FileLock
lock = FileLock({str(path)!r}, "recording")
read, write = os.pipe()
child = os.fork()
if child == 0:
    os.write(write, b"!")  # the child runs: what is done after a fork was done
    sys.stdin.read()
    os._exit(0)
os.read(read, 1)
print(child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert parent.wait(10.0) == -signal.SIGKILL
    try:
        FileLock(path, "recording").release()
    finally:
        os.kill(child, signal.SIGKILL)
        parent.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files there")
def test_on_a_full_disk_the_lock_holds_without_a_name(path: Path) -> None:
    program = f"""
import logging, resource, signal
from upbit_backbone._file_lock import FileLock
from upbit_backbone.errors import FileInUseError
logging.basicConfig()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
with FileLock({str(path)!r}, "recording"):
    try:
        FileLock({str(path)!r}, "download")
    except FileInUseError as error:
        print(error.holder)
FileLock({str(path)!r}, "recording").release()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "by somebody who could not leave a name\n"
    assert "is locked without a name: File too large" in done.stderr


def test_a_file_system_without_locks_is_written_to_with_a_warning(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import errno

    from upbit_backbone import _file_lock

    def no_locks(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(_file_lock, "_lock", no_locks)
    with FileLock(path, "recording"):
        assert "nobody else writes" in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="locks by other means there")
@pytest.mark.parametrize("stale", ["", "download by process 1 on here since long ago"])
def test_the_name_of_one_who_has_just_come_is_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch, stale: str
) -> None:
    import fcntl

    from upbit_backbone import _file_lock

    claim = path.with_name(f"{path.name}.lock")
    claim.write_text(stale)
    read, looks = _file_lock._name_in, []

    def look(descriptor: int) -> str:
        name = read(descriptor)
        looks.append(name)
        claim.write_text("recording by process 2 on here since now")  # after the first look at it
        return name

    monkeypatch.setattr(_file_lock, "_name_in", look)
    with claim.open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(FileInUseError, match="recording by process 2 on here since now") as caught:
            FileLock(path, "download")
    assert looks[0] == stale
    assert caught.value.holder == "recording by process 2 on here since now"


# Several processes on one file, killed anywhere, in rounds that a seed repeats.
ROUNDS = {"csv": 80, "parquet": 60, "recording": 60}


def play(kind: str, first: int, rounds: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.two_writers", kind, str(first), str(rounds)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    # And not for want of anything that could go wrong. (Who meets whom there is a matter of moments, not of rounds.)
    assert all(f"'{what}'" in done.stdout for what in ("killed", "opens"))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("kind", ["csv", "recording"])  # all three for longer: below
def test_writers_that_start_and_are_killed_at_any_time_lose_double_and_mix_nothing(kind: str) -> None:
    play(kind, 0, ROUNDS[kind])


@pytest.mark.endurance
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("kind", ROUNDS)
def test_writers_do_so_over_and_over(kind: str) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    play(kind, 10_000, 500)
