from __future__ import annotations

import os

import pytest

from upbit_backbone._concurrency import Deadline
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.sinks import spool as spool_module
from upbit_backbone.sinks.base import Batch, Span
from upbit_backbone.sinks.spool import Spool

from .conftest import at, trade

NOW = Deadline(0.0)


@pytest.fixture(autouse=True)
def little_memory(monkeypatch):
    monkeypatch.setattr(spool_module, "MEMORY_ROWS", 5)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "day.db.spill"


def batch(number: int, size: int = 2) -> Batch:
    span = Span("KRW-BTC", "trade", at(0), at(number))
    return Batch([trade(10 * number + each) for each in range(size)], spans=(span,))


def numbers_of(batch: Batch) -> int:
    return (batch.items[0].sequential_id - 17_000_000_000_000_000) // 10


def taken_from(spool: Spool) -> list[int]:
    found = []
    while (each := spool.take(NOW)) is not None:
        found.append(numbers_of(each))
        spool.done()
    return found


@pytest.mark.parametrize("has_path", [False, True])
def test_batches_come_out_in_their_order_from_memory_and_disk_alike(file, has_path):
    spool = Spool(file if has_path else None, 1 << 20)
    assert all(spool.put(batch(number)) for number in range(8))
    assert spool.size.batches == 8
    assert spool.size.rows == 16
    assert spool.size.spilled_rows == 12
    assert taken_from(spool) == list(range(8))
    assert spool.size == (0, 0, 0, 0)
    assert spool.put(batch(9))
    assert taken_from(spool) == [9]
    assert spool.close() == 0
    assert not file.exists()


def test_a_batch_stays_until_it_is_done():
    spool = Spool(None, 1 << 20)
    spool.put(batch(1))
    assert spool.take(NOW) is spool.take(NOW)
    spool.done()
    assert spool.take(NOW) is None
    spool.close()


def test_what_finds_no_room_is_refused_and_the_rest_is_kept(file):
    spool = Spool(file, 3_000)
    kept = [number for number in range(20) if spool.put(batch(number))]
    assert 2 < len(kept) < 20
    assert spool.size.spilled_bytes <= 3_000
    assert taken_from(spool) == kept
    spool.close()


def test_what_still_waits_at_the_end_comes_first_the_next_time(file):
    spool = Spool(file, 1 << 20)
    for number in range(6):
        spool.put(batch(number))
    spool.take(NOW)
    spool.done()
    assert spool.close() == 0
    again = Spool(file, 1 << 20)
    again.put(batch(7))
    assert again.size.rows == 12
    assert taken_from(again) == [1, 2, 3, 4, 5, 7]
    again.close()
    assert os.listdir(file.parent) == []


def test_without_a_file_of_its_own_what_waits_at_the_end_is_lost_and_counted():
    spool = Spool(None, 1 << 20)
    for number in range(6):
        spool.put(batch(number))
    assert spool.close() == 12
    assert not spool.put(batch(7))


def test_a_batch_that_a_crash_tore_is_left_out(file):
    file.write_bytes(batch(1).encode() + b"\n" + batch(2).encode() + b"\n" + batch(3).encode()[:-7])
    spool = Spool(file, 1 << 20)
    assert taken_from(spool) == [1, 2]
    spool.close()


def test_behind_a_batch_that_cannot_be_read_nothing_counts_as_complete(file):
    lines = [batch(number).encode() for number in range(4)]
    lines[1] = b"\x00" * len(lines[1])
    file.write_bytes(b"\n".join(lines) + b"\n")
    spool = Spool(file, 1 << 20)
    spans = {}
    while (each := spool.take(NOW)) is not None:
        spans[numbers_of(each)] = len(each.spans)
        spool.done()
    assert spans == {0: 1, 2: 0, 3: 0}
    assert spool.lost >= 1
    for number in range(5):
        spool.put(batch(number))
    assert len(spool.take(NOW).spans) == 1
    spool.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full")
def test_a_full_disk_refuses_and_what_is_in_memory_is_kept(file):
    file.symlink_to("/dev/full")
    spool = Spool(None, 1 << 20)
    spool._path = file
    assert [spool.put(batch(number)) for number in range(4)] == [True, True, False, False]
    assert taken_from(spool) == [0, 1]
    spool._path = None
    spool.close()


def test_a_spill_file_that_cannot_be_read_is_told_before_anything_begins(tmp_path):
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        Spool(tmp_path, 1 << 20)
