from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.errors import MalformedDataError
from upbit_backbone.recorder.format import (
    HEADER_SIZE,
    Record,
    RecordKind,
    decode_member,
    decode_records,
    encode_member,
    encode_record,
    member_length,
)

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
    assert member_length(member) == len(member)


@given(st.binary(min_size=1, max_size=200), st.data())
def test_one_flipped_bit_is_always_noticed(data, choose):
    member = bytearray(encode_member(data))
    place = choose.draw(st.integers(HEADER_SIZE, len(member) - 1))
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
    assert member_length(garbage[:HEADER_SIZE]) is None


@pytest.mark.parametrize("sizes", ["[-1]", "[999]", '["x"]', "null"])
def test_sizes_that_do_not_fit_are_refused(sizes):
    line = b'{"kind":"rest","monotonic":1,"wall_us":1,"session":"","epoch":0,"sizes":%s}\nab\n' % sizes.encode()
    with pytest.raises(MalformedDataError):
        list(decode_records(line))
