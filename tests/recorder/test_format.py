from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.errors import MalformedDataError
from upbit_backbone.recorder.format import (
    HEAD_SIZE,
    Record,
    RecordKind,
    decode_member,
    decode_records,
    encode_member,
    encode_record,
    encode_records,
    member_head,
    microseconds,
)

OLD_HEAD = 20  # of a member without a summary

records = st.builds(
    Record,
    kind=st.sampled_from(RecordKind),
    monotonic=st.floats(0, 1e9),
    wall=st.integers(0, 4_000_000_000_000_000).map(
        lambda n: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=n)
    ),
    session=st.text(),
    epoch=st.integers(0, 10_000),
    blobs=st.lists(st.binary(), max_size=4).map(tuple),
    details=st.none() | st.dictionaries(st.text(), st.text() | st.integers(), min_size=1, max_size=3),
)


@given(st.lists(records, max_size=6))
def test_what_is_recorded_is_read_again_exactly(many):
    data = b"".join(map(encode_record, many))
    assert list(decode_records(decode_member(encode_member(data)))) == many


@given(st.binary())
def test_any_gzip_reader_can_read_a_member_and_we_know_its_length(data):
    member = encode_member(data)
    assert gzip.decompress(member) == data
    assert member_head(member[:HEAD_SIZE]).length == len(member)


@given(st.lists(records, min_size=1, max_size=6))
def test_a_member_of_records_tells_what_is_in_it(many):
    member = encode_records(many)
    head = member_head(member[:HEAD_SIZE])
    assert b"".join(map(encode_record, many)) == gzip.decompress(member) == decode_member(member)
    assert head.summary.records == len(many)
    assert {kind for kind in RecordKind if head.summary.has(kind)} == {record.kind for record in many}
    assert head.summary.first_us == min(microseconds(record.wall) for record in many)
    assert head.summary.last_us == max(microseconds(record.wall) for record in many)


@given(st.lists(records, min_size=1, max_size=3), st.data())
def test_a_damaged_head_never_misleads(many, choose):
    member = bytearray(encode_records(many))
    place = choose.draw(st.integers(0, HEAD_SIZE - 1))
    member[place] ^= 1 << choose.draw(st.integers(0, 7))
    head = member_head(bytes(member[:HEAD_SIZE]))
    assert head is None or not head.is_proven


@given(st.binary(min_size=1, max_size=200), st.data())
def test_one_flipped_bit_is_always_noticed(data, choose):
    member = bytearray(encode_member(data))
    place = choose.draw(st.integers(OLD_HEAD, len(member) - 1))
    member[place] ^= 1 << choose.draw(st.integers(0, 7))
    try:
        found = decode_member(bytes(member))
    except MalformedDataError:
        return
    assert found == data  # a bit that deflate does not use


@given(st.binary())
def test_garbage_is_refused_as_ours(garbage):
    with pytest.raises(MalformedDataError):
        list(decode_records(b"{" + garbage))
    assert member_head(garbage[:HEAD_SIZE]) is None


@pytest.mark.parametrize("sizes", ["[-1]", "[999]", '["x"]', "null"])
def test_sizes_that_do_not_fit_are_refused(sizes):
    line = b'{"kind":"rest","monotonic":1,"wall_us":1,"session":"","epoch":0,"sizes":%s}\nab\n' % sizes.encode()
    with pytest.raises(MalformedDataError):
        list(decode_records(line))
