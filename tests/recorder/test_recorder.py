from __future__ import annotations

import contextlib
import gzip
import os
import queue
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.clock import START
from tests.support.waiting import wait_until
from upbit_backbone.errors import FileInUseError, InvalidRequestError
from upbit_backbone.recorder import Recorder, Recording
from upbit_backbone.recorder import recorder as recorder_module
from upbit_backbone.recorder.format import (
    FORMAT,
    HEAD_SIZE,
    Record,
    RecordKind,
    encode_member,
    encode_record,
    encode_records,
    member_head,
)
from upbit_backbone.recorder.recording import RecordingWriter


def numbers(path) -> list[bytes]:
    return [record.blobs[0] for record in Recording(path) if record.kind is RecordKind.FRAMES]


def expected(count: int, first: int = 0) -> list[bytes]:
    return [b'{"number":%d}' % number for number in range(first, first + count)]


def test_everything_handed_in_is_read_again_in_order(make_recording):
    recording = Recording(make_recording(200))
    kinds = [record.kind for record in recording]
    assert kinds[:2] == [RecordKind.BEGIN, RecordKind.SUBSCRIBED]
    assert kinds[-1] is RecordKind.INTERRUPTED
    assert numbers(recording.path) == expected(200)
    assert recording.damage is None


def test_a_part_is_asked_for_by_text_as_well_as_by_a_time(make_recording):
    recording = Recording(make_recording(20))
    times = [record.wall for _, record in recording.located()]
    middle = times[len(times) // 2]
    later = list(recording.located(since=middle))
    assert list(recording.located(since=middle.isoformat())) == later
    assert 0 < len(later) < len(times)
    assert [record for _, record in recording.located(until=middle.isoformat())]
    assert recording.streams_at(times[-1].isoformat()) == recording.streams_at(times[-1])
    for named in ("since", "until"):
        with pytest.raises(InvalidRequestError, match=f"{named}='yesterday'"):
            list(recording.located(**{named: "yesterday"}))


def test_gzip_reads_a_recording(make_recording):
    assert b'{"number":19}' in gzip.decompress(make_recording(20).read_bytes())


def test_a_second_recorder_appends(make_recording, fill_recorder):
    path = make_recording(5)
    with Recorder(path) as recorder:
        fill_recorder(recorder, 3, first=5)
    assert numbers(path) == expected(8)
    assert [record.kind for record in Recording(path)].count(RecordKind.BEGIN) == 2


def test_a_recording_cut_anywhere_reads_up_to_the_damage_and_can_be_continued(path, fill_recorder):
    for piece in range(4):
        with Recorder(path) as recorder:
            fill_recorder(recorder, 2, first=2 * piece)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 7):
        path.write_bytes(whole[:cut])
        if cut < 20:
            continue
        found = numbers(path)
        assert found == expected(len(found))
        assert len(found) >= 2 * (cut * 4 // len(whole)) - 2
        with Recorder(path) as recorder:
            fill_recorder(recorder, 2, first=len(found))
        assert numbers(path) == expected(len(found) + 2)
        assert Recording(path).damage is None


def ends_of_members(data: bytes) -> list[int]:
    ends, offset = [], 0
    while offset < len(data):
        offset += member_head(data[offset : offset + HEAD_SIZE]).length
        ends.append(offset)
    return ends


def member(first: int, batches: int = 2) -> bytes:
    """What a recorder writes at a time: that it began, and so many batches."""

    def record(kind, *blobs, **details):
        number = first if kind is RecordKind.BEGIN else int(blobs[0].split(b":")[1][:-1])
        return Record(kind, number / 100, START + timedelta(seconds=number / 100), "s", 1, blobs, details or None)

    begin = record(RecordKind.BEGIN, format=FORMAT, library="0.2.0")
    return encode_records([begin, *(record(RecordKind.FRAMES, name) for name in expected(batches, first))])


@pytest.fixture
def pieces():
    """A recording of six members, two batches each, and where each member ends."""
    data = b"".join(member(2 * number) for number in range(6))
    return data, ends_of_members(data)


@pytest.mark.parametrize("seed", range(200))
def test_damage_costs_the_member_it_is_in_and_no_other_whatever_is_killed_after_it(path, pieces, seed):
    data, ends = pieces
    rng = random.Random(seed)
    start = rng.randrange(len(data))
    damaged = bytearray(data)
    for place in range(start, min(len(data), start + rng.choice([1, 1, 2, 8, 300]))):
        damaged[place] ^= rng.randrange(1, 256)
    hit = {
        number
        for number, end in enumerate(ends)
        if any(damaged[place] != data[place] for place in range(ends[number - 1] if number else 0, end))
    }
    path.write_bytes(damaged)
    whole = {name for number in range(6) if number not in hit for name in expected(2, first=2 * number)}

    def check(found, more):
        assert found == sorted(found, key=lambda name: int(name.split(b":")[1][:-1]))
        assert whole | more <= set(found)
        assert set(found) <= set(expected(12)) | more

    recording = Recording(path)
    found = [record.blobs[0] for record in recording if record.kind is RecordKind.FRAMES]
    check(found, set())
    # A bit that only fills up a byte of compressed data may be wrong without anybody's loss.
    assert recording.damage is not None or found == expected(12)
    more: set[bytes] = set()
    for first in (12, 14, 16):
        with contextlib.closing(RecordingWriter(path)) as writer:
            assert writer.size == path.stat().st_size >= len(data), "damage is no reason to cut anything"
            assert writer.damages or found == expected(12)
            writer.append(member(first))
        more |= set(expected(2, first))
        check(numbers(path), more)
        with path.open("ab") as file:  # the next writer is killed anywhere in its first member
            file.write(member(first)[: rng.randrange(200)])
        check(numbers(path), more)


def test_a_torn_member_behind_damage_hides_nothing_that_follows(path, pieces, fill_recorder):
    data, ends = pieces
    damaged = bytearray(data[: ends[-1] - 10])
    damaged[ends[-3]] ^= 0xFF  # the head of the last but one: now nothing proves that the last is a member
    path.write_bytes(damaged)
    for first in (12, 14):
        with Recorder(path) as recorder:
            fill_recorder(recorder, 2, first=first)
    assert numbers(path) == expected(8) + expected(4, first=12)


@pytest.mark.parametrize("reaches", [HEAD_SIZE - 18, HEAD_SIZE + 20, 250])
def test_a_last_member_damaged_from_its_length_on_is_not_taken_for_torn(path, pieces, fill_recorder, reaches):
    data, ends = pieces
    begin = ends[-2] + 16  # the length, in the member's head
    damaged = bytearray(data)
    damaged[begin : begin + reaches] = bytes(byte ^ 0x03 for byte in damaged[begin : begin + reaches])
    path.write_bytes(damaged)
    for first in (12, 14):
        with Recorder(path) as recorder:
            fill_recorder(recorder, 2, first=first)
        assert recorder.stats.damage is not None
    assert path.read_bytes().startswith(damaged), "damage is no reason to cut anything"
    assert numbers(path) == expected(10) + expected(4, first=12)


def test_damage_is_told_by_place_and_the_reading_goes_on(path, pieces, caplog, fill_recorder):
    data, ends = pieces
    damaged = bytearray(data)
    damaged[ends[2] - 12] ^= 0xFF
    path.write_bytes(damaged)
    recording = Recording(path)
    assert sum(record.kind is RecordKind.FRAMES for record in recording) == 10
    assert recording.damage.startswith(f"at byte {ends[1]}: ")
    assert recording.damage.endswith(f"{ends[2] - ends[1]} bytes are left out")
    with Recorder(path) as recorder:
        fill_recorder(recorder, 1)
    assert f"damaged at byte {ends[1]}" in caplog.text


def test_a_recording_of_the_first_format_is_read_and_continued(path, fill_recorder):
    def old(kind, *blobs, **details):
        record = Record(kind, 1.0, datetime(2026, 1, 1, tzinfo=UTC), "s", 1, blobs, details or None)
        return encode_member(encode_record(record))

    path.write_bytes(old(RecordKind.BEGIN) + old(RecordKind.FRAMES, b'{"number":0}'))
    with Recorder(path) as recorder:
        fill_recorder(recorder, 1, first=1)
    assert numbers(path) == expected(2)
    assert Recording(path).damage is None


def test_it_carries_its_format_and_the_librarys_version_and_a_later_one_is_refused(path, make_recording):
    begin = next(iter(Recording(make_recording(1))))
    assert begin.details["format"] == FORMAT
    assert begin.details["library"]
    later = Record(RecordKind.BEGIN, 1.0, begin.wall, details={"format": FORMAT + 1, "library": "9.1"})
    with path.open("ab") as file:
        file.write(encode_records([later]))
    told = rf"recorded by upbit-backbone 9\.1 in format {FORMAT + 1}"
    size = path.stat().st_size
    with pytest.raises(InvalidRequestError, match=told):
        list(Recording(path))
    with pytest.raises(InvalidRequestError, match=told):
        Recorder(path)
    assert path.stat().st_size == size


def test_two_recorders_do_not_share_a_file(path, fill_recorder):
    with Recorder(path) as first:
        fill_recorder(first, 3)
        with pytest.raises(FileInUseError, match=rf"in use: recording by process {os.getpid()} "):
            Recorder(path)
    assert numbers(path) == expected(3)
    with Recorder(path) as second:
        fill_recorder(second, 1, first=3)
    assert numbers(path) == expected(4)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_second_process_is_refused_and_changes_nothing(path, fill_recorder):
    program = f"from upbit_backbone.recorder import Recorder; Recorder({str(path)!r})"
    with Recorder(path) as recorder:
        fill_recorder(recorder, 3)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert f"FileInUseError: {path} is in use: recording by process {os.getpid()}" in done.stderr
    assert numbers(path) == expected(3)


@pytest.mark.parametrize("content", [b"hello, I am a letter", gzip.compress(b"other", mtime=0), b"\x1f\x8b"])
def test_any_other_file_is_refused_and_left_alone(path, content):
    path.write_bytes(content)
    with pytest.raises(InvalidRequestError, match="recording"):
        Recorder(path)
    with pytest.raises(InvalidRequestError, match="no recording"):
        Recording(path)
    assert path.read_bytes() == content


def test_a_folder_that_does_not_exist_is_named(path):
    with pytest.raises(InvalidRequestError, match="cannot record there"):
        Recorder(path / "none" / "x.rec")
    with pytest.raises(InvalidRequestError, match="cannot read"):
        Recording(path)


def test_a_slow_disk_never_holds_up_the_receiving_thread(path, monkeypatch, fill_recorder):
    gate = threading.Event()
    monkeypatch.setattr(recorder_module, "MAX_WAITING_BYTES", 10_000)
    monkeypatch.setattr(recorder_module.RecordingWriter, "append", lambda self, data: gate.wait(10.0))
    recorder = Recorder(path)
    began = time.perf_counter()
    fill_recorder(recorder, 2_000)
    assert time.perf_counter() - began < 2.0
    assert recorder.stats.lost > 1_000
    gate.set()
    assert recorder.close(5.0) == []


def test_what_was_lost_is_marked_in_the_recording(path, monkeypatch, fill_recorder):
    monkeypatch.setattr(recorder_module, "MAX_WAITING_BYTES", 2_000)
    monkeypatch.setattr(recorder_module, "FLUSH_SECONDS", 60.0)
    with Recorder(path) as recorder:
        fill_recorder(recorder, 100)
        lost = recorder.stats.lost
    marks = [record for record in Recording(path) if record.kind is RecordKind.LOST]
    assert [mark.details for mark in marks] == [{"records": lost}]
    assert "records, " in repr(recorder)


def test_a_disk_error_ends_the_recording_and_is_told(path, monkeypatch, fill_recorder, caplog):
    def fail(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recorder_module.RecordingWriter, "append", fail)
    events: queue.Queue = queue.Queue()
    with Recorder(path, emit=events.put) as recorder:
        fill_recorder(recorder, 3)
        event = events.get(timeout=10.0)
        handed_over = 5  # with BEGIN and SUBSCRIBED
        assert (event.error, event.lost) == ("[Errno 28] No space left on device", handed_over)
        fill_recorder(recorder, 3)
        assert (recorder.stats.records, recorder.stats.lost) == (0, handed_over + 4)
    fill_recorder(recorder, 3)  # closed: it is nobody's any more
    assert "No space left" in (recorder.stats.error or "")
    assert recorder.stats.lost == handed_over + 4
    assert caplog.text.count("recording ends") == 1


FULL = """
import os, resource, signal, sys, threading, time
from datetime import UTC, datetime, timedelta
from upbit_backbone.recorder import Recorder
from upbit_backbone.recorder.recorder import FLUSH_SECONDS
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
failed = threading.Event()
recorder = Recorder(sys.argv[1], emit=lambda event: failed.set())
handed_over = 1
while not failed.is_set():
    recorder.frames("s", 1, [os.urandom(100)], time.monotonic(), datetime.now(UTC))
    handed_over += 1
    failed.wait(0.0005)
recorder.close()
stats = recorder.stats
print(handed_over, stats.records, stats.received_bytes, stats.written_bytes, stats.lost)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files there")
@pytest.mark.parametrize("room", [2_000, 50_000, 200_000])
def test_on_a_full_disk_only_what_is_readable_counts_as_recorded(path, room):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(room)], capture_output=True, text=True, check=True
    )
    handed_over, records, received, written, lost = map(int, done.stdout.split())
    recording = Recording(path)
    readable = list(recording)
    assert recording.damage is None, "what was half written was taken back"
    assert records == len(readable)
    assert received == sum(record.size for record in readable)
    assert written == path.stat().st_size
    assert records + lost == handed_over
    assert room - written < 400, "what there was room for was written"


@pytest.mark.skipif(sys.platform == "win32", reason="nothing that is open can be removed there")
def test_a_file_that_is_removed_while_it_is_recorded_is_an_error_and_not_recorded(path, fill_recorder, until_written):
    events: queue.Queue = queue.Queue()
    with Recorder(path, emit=events.put) as recorder:
        fill_recorder(recorder, 1)
        until_written(recorder)
        path.unlink()
        fill_recorder(recorder, 1)
        assert "was removed" in events.get(timeout=10.0).error
        assert (recorder.stats.records, recorder.stats.lost) == (3, 2)


def test_whatever_ends_the_writing_thread_is_told(path, fill_recorder, monkeypatch, until_written):
    def exhausted(self):
        raise MemoryError("no more")

    monkeypatch.setattr(Recorder, "_flush", exhausted)
    events: queue.Queue = queue.Queue()
    with Recorder(path, emit=events.put) as recorder:
        fill_recorder(recorder, 1)
        assert events.get(timeout=10.0).error == "no more"
        fill_recorder(recorder, 1)
        assert (recorder.stats.records, recorder.stats.lost) == (0, 5)
    with Recorder(path):
        pass  # nobody holds it any more


def test_a_writing_thread_that_dies_is_replaced_and_nothing_is_lost(path, fill_recorder, monkeypatch, caplog):
    with Recorder(path) as recorder:
        first, take_turn, broke = recorder._loop.thread, recorder._loop._take_turn, threading.Event()

        def broken():
            if not broke.is_set():
                broke.set()
                raise SystemExit
            take_turn()

        monkeypatch.setattr(recorder._loop, "_take_turn", broken)
        wait_until(lambda: recorder._loop.thread is not first, "a new thread")
        fill_recorder(recorder, 1)
    assert "broke out of its loop" in caplog.text
    assert (recorder.stats.waiting, recorder.stats.lost, recorder.stats.error) == (0, 0, None)
    assert recorder.stats.records == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_refused_at_once(path):
    os.mkfifo(path)
    for use in (Recorder, Recording):
        with pytest.raises(InvalidRequestError, match="no regular file"):
            use(path)
    with pytest.raises(InvalidRequestError, match="no regular file"):
        Recorder(path.parent)


def test_a_rotated_recording_is_many_small_ones_and_reads_as_one(path, monkeypatch, fill_recorder, until_written):
    monkeypatch.setattr(recorder_module, "FLUSH_SECONDS", 0.005)
    with Recorder(path, rotate_bytes=1_500) as recorder:
        fill_recorder(recorder, 1)
        for number in range(1, 400):
            recorder.frames("upbit-session-1", 1, [b'{"number":%d}' % number], 50.0, datetime(2026, 11, 20, tzinfo=UTC))
            if number % 20 == 0:
                until_written(recorder)
    files = sorted(path.parent.glob("day.*.rec"))
    assert len(files) == recorder.stats.files > 3
    assert [file.name for file in files] == [f"day.{number:04d}.rec" for number in range(1, len(files) + 1)]
    assert all(file.stat().st_size <= 1_500 for file in files)
    assert numbers(path) == expected(400)
    assert recorder.stats.written_bytes == sum(file.stat().st_size for file in files)
    assert recorder.stats.records == sum(1 for _ in Recording(path))
    begin, streams = list(Recording(files[2]))[:2]
    assert (begin.kind, begin.details["continues"]) == (RecordKind.BEGIN, files[1].name)
    assert (streams.kind, streams.session, streams.epoch) == (RecordKind.SUBSCRIBED, "upbit-session-1", 1)
    assert begin.wall == streams.wall


def test_rotation_by_time_begins_files_and_goes_on_where_it_was(path, monkeypatch, fill_recorder, until_written):
    monkeypatch.setattr(recorder_module, "FLUSH_SECONDS", 0.005)
    for first in (0, 2):
        with Recorder(path, rotate_seconds=0.000_1) as recorder:
            for number in (first, first + 1):
                fill_recorder(recorder, 1, first=number)
                until_written(recorder)
    assert len(list(path.parent.iterdir())) >= 4
    assert numbers(path) == expected(4)


def test_a_rotating_recorder_keeps_others_away_from_all_its_files(path, fill_recorder):
    with Recorder(path, rotate_bytes=10_000):
        for name in (path, path.with_name("day.0001.rec")):
            with pytest.raises(FileInUseError):
                Recorder(name)
        with pytest.raises(FileInUseError):
            Recorder(path, rotate_bytes=10_000)


@pytest.mark.parametrize("options", [{"rotate_bytes": 0}, {"rotate_seconds": -1.0}, {"rotate_seconds": float("nan")}])
def test_an_impossible_rotation_is_refused(path, options):
    with pytest.raises(InvalidRequestError, match="expected a number > 0"):
        Recorder(path, **options)


def test_a_killed_process_loses_at_most_the_last_second(path):
    program = textwrap.dedent(f"""
        import itertools, sys, threading, time
        from datetime import UTC, datetime, timedelta
        from upbit_backbone.recorder import Recorder
        recorder = Recorder({str(path)!r})
        for number in itertools.count():
            recorder.frames("s", 1, [b"%d %f" % (number, time.time())], time.monotonic(), datetime.now(UTC))
            if number == 200:
                print("running", flush=True)
            threading.Event().wait(0.005)
    """)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "running\n"
        threading.Event().wait(1.5)
        killed_at = time.time()
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    frames = [record.blobs[0].split() for record in Recording(path) if record.kind is RecordKind.FRAMES]
    assert [int(number) for number, _ in frames] == list(range(len(frames)))
    assert killed_at - float(frames[-1][1]) < 1.0
