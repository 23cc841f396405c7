from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.recorder import Recorder, Recording
from upbit_backbone.recorder import recorder as recorder_module
from upbit_backbone.recorder.format import RecordKind


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
    path.write_bytes(whole[:-5])
    with Recorder(path) as recorder:
        fill_recorder(recorder, 2, first=6)
    assert numbers(path) == expected(8)
    assert Recording(path).damage is None


def test_damage_in_the_middle_is_named_and_ends_the_reading(make_recording, fill_recorder):
    path = make_recording(50)
    first_size = path.stat().st_size
    with Recorder(path) as recorder:
        fill_recorder(recorder, 5, first=50)
    data = bytearray(path.read_bytes())
    data[first_size + 30] ^= 0xFF
    path.write_bytes(data)
    recording = Recording(path)
    assert sum(record.kind is RecordKind.FRAMES for record in recording) == 50
    assert recording.damage is not None
    assert recording.damage.startswith(f"at byte {first_size}: ")


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
    with Recorder(path) as recorder:
        fill_recorder(recorder, 3)
    fill_recorder(recorder, 3)
    assert "No space left" in (recorder.stats.error or "")
    assert caplog.text.count("recording ends") == 1


def test_a_killed_process_loses_at_most_the_last_second(path):
    program = textwrap.dedent(f"""
        import itertools, sys, threading, time
        from datetime import UTC, datetime
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
