"""The recording format: bytes in, bytes out, and the walk over the members of a file and every damage in it. Pure.

A recording is a row of gzip members, so `zcat` and `gzip` read it too. Each member holds whole records and carries in
gzip extra fields its own length and what is in it (how many records of which kinds, from when to when): the index is
in the file, a reader hops from member to member and unpacks only those it wants, and whatever was damaged or torn is
found at once. A record is one line of JSON (what, when, from which session, and the sizes of the blobs), the blobs as
they came over the wire, and a newline. A BEGIN record says which format and which version of the library wrote what
follows.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, BinaryIO, NamedTuple

from ..errors import MalformedDataError, one_line

# What the BEGIN record says under "format". 1: members without a summary, and BEGIN without a format. A reader refuses
# what is newer than it knows instead of misreading it.
FORMAT = 2
_HEADER = struct.Struct("<4sIBBH2sHI")  # gzip header and its first extra field: b"UB", 4 bytes, length of the member
_SUMMARY = struct.Struct("<2sHqqIH")  # b"US", 26 bytes, first and last time in µs, number of records, their kinds,
_CHECK = struct.Struct("<I")  # and the checksum of all before it: what tells where to look must not mislead
_TRAILER = struct.Struct("<II")
MAGIC = b"\x1f\x8b\x08\x04"
_LENGTH_FIELD, _SUMMARY_FIELD = b"UB", b"US"
_FIELD_HEAD = 4  # name and size, before every extra field
_SUMMARY_SIZE = _SUMMARY.size + _CHECK.size
HEAD_SIZE = _HEADER.size + _SUMMARY_SIZE  # enough to tell what a member is
_FIXED = 12  # of a gzip header, before the extra fields
MAX_MEMBER_BYTES = 256 * 1024 * 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class RecordKind(StrEnum):
    BEGIN = "begin"  # a recorder was attached; what was open before is over
    FRAMES = "frames"  # a batch as the session handed it over
    SUBSCRIBED = "subscribed"
    INTERRUPTED = "interrupted"
    REST = "rest"
    LOST = "lost"  # the disk was too slow: so many records are missing here


_BIT_OF = {kind: 1 << place for place, kind in enumerate(RecordKind)}  # new kinds go to the end


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that came in. `monotonic` has meaning only between two BEGIN records; `wall` is aware UTC."""

    kind: RecordKind
    monotonic: float
    wall: datetime
    session: str = ""
    epoch: int = 0
    blobs: tuple[bytes, ...] = ()
    details: dict[str, Any] | None = None  # topics, reason, path, status …

    @property
    def size(self) -> int:
        return sum(map(len, self.blobs))


def microseconds(wall: datetime) -> int:
    """Since 1970, exactly."""
    return (wall - _EPOCH) // _MICROSECOND


def encode_record(record: Record) -> bytes:
    """The exact inverse of `decode_records`."""
    head: dict[str, Any] = {
        "kind": record.kind.value,
        "monotonic": record.monotonic,
        "wall_us": microseconds(record.wall),
        "session": record.session,
        "epoch": record.epoch,
        "sizes": [len(blob) for blob in record.blobs],
    }
    if record.details:
        head["details"] = record.details
    line = json.dumps(head, separators=(",", ":")).encode()
    return b"".join((line, b"\n", *record.blobs, b"\n"))


def decode_records(data: bytes) -> Iterator[Record]:
    """The records of one member; MalformedDataError where they make no sense."""
    at = 0
    while at < len(data):
        end = data.find(b"\n", at)
        try:
            head = json.loads(data[at : end if end >= 0 else len(data)])
            sizes = [int(size) for size in head["sizes"]]
            record, at = _record(head, data, end + 1, sizes)
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
            raise MalformedDataError(f"a record of the recording cannot be understood: {error}") from error
        yield record


def _record(head: dict[str, Any], data: bytes, at: int, sizes: Sequence[int]) -> tuple[Record, int]:
    blobs = []
    for size in sizes:
        if size < 0 or at + size > len(data):
            raise ValueError(f"a blob of {size} bytes does not fit")
        blobs.append(data[at : at + size])
        at += size
    if data[at : at + 1] != b"\n":
        raise ValueError("a record does not end with a newline")
    record = Record(
        kind=RecordKind(head["kind"]),
        monotonic=float(head["monotonic"]),
        wall=_EPOCH + timedelta(microseconds=int(head["wall_us"])),
        session=str(head["session"]),
        epoch=int(head["epoch"]),
        blobs=tuple(blobs),
        details=head.get("details"),
    )
    return record, at + 1


class Summary(NamedTuple):
    """What is in one member, kept as on the disk, because a day has a hundred thousand of them."""

    first_us: int
    last_us: int
    records: int
    kinds: int

    def has(self, *kinds: RecordKind) -> bool:
        return any(self.kinds & _BIT_OF[kind] for kind in kinds)


class MemberHead(NamedTuple):
    """What a member says of itself: `summary` is None in recordings of format 1, and where it is damaged.

    `is_proven` is whether a checksum proves all of it; else only the whole member can.
    """

    length: int
    body_at: int
    summary: Summary | None

    @property
    def is_proven(self) -> bool:
        return self.summary is not None

    @property
    def is_damaged(self) -> bool:
        return self.summary is None and self.body_at >= HEAD_SIZE


def encode_member(data: bytes, level: int = 6, summary: Summary | None = None) -> bytes:
    """`data` as one gzip member that knows its own length, and what is in it."""
    deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = deflate.compress(data) + deflate.flush()
    extra = _HEADER.size - _FIXED + (0 if summary is None else _SUMMARY_SIZE)
    length = _FIXED + extra + len(body) + _TRAILER.size
    head = _HEADER.pack(MAGIC, 0, 0, 255, extra, _LENGTH_FIELD, 4, length)
    if summary is not None:
        head += _encode_summary(summary)
        head += _CHECK.pack(zlib.crc32(head))
    return b"".join((head, body, _TRAILER.pack(zlib.crc32(data), len(data) & 0xFFFFFFFF)))


def encode_records(records: Sequence[Record]) -> bytes:
    """`records` as one member with its summary."""
    walls = [microseconds(record.wall) for record in records]
    kinds = sum(_BIT_OF[kind] for kind in {record.kind for record in records})
    summary = Summary(min(walls), max(walls), len(records), kinds)
    return encode_member(b"".join(map(encode_record, records)), summary=summary)


def _encode_summary(summary: Summary) -> bytes:
    return _SUMMARY.pack(_SUMMARY_FIELD, _SUMMARY_SIZE - _FIELD_HEAD, *summary)


def member_head(start: bytes) -> MemberHead | None:
    """What the member that begins with these HEAD_SIZE bytes (fewer at the end of a file) is; None if none of ours."""
    if len(start) < _HEADER.size:
        return None
    magic, _, _, _, extra, field, field_size, length = _HEADER.unpack(start[: _HEADER.size])
    is_ours = magic == MAGIC and field == _LENGTH_FIELD and field_size == 4
    body_at = _FIXED + extra
    if not is_ours or not body_at + _TRAILER.size <= length <= MAX_MEMBER_BYTES or body_at < _HEADER.size:
        return None
    return MemberHead(length, body_at, _decode_summary(start[: min(body_at, HEAD_SIZE)]))


def _decode_summary(head: bytes) -> Summary | None:
    """None where there is none, or where it is damaged."""
    if len(head) < HEAD_SIZE or head[-_CHECK.size :] != _CHECK.pack(zlib.crc32(head[: -_CHECK.size])):
        return None
    name, size, first, last, records, kinds = _SUMMARY.unpack_from(head, _HEADER.size)
    if name != _SUMMARY_FIELD or size != _SUMMARY_SIZE - _FIELD_HEAD:
        return None
    return Summary(first, last, records, kinds)


def could_begin_member(start: bytes) -> bool:
    """Whether a file that ends with these bytes, fewer than a header, may have been torn while a member was written."""
    return MAGIC.startswith(start[: len(MAGIC)])


def is_whole(torn: bytes) -> bool:
    """Whether a member that seems to be torn is there to its end after all, so that only its length is damaged."""
    head = member_head(torn[:HEAD_SIZE])
    if head is None:
        return False
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = inflate.decompress(torn[head.body_at :], MAX_MEMBER_BYTES)
    except zlib.error:
        return False
    trailer = inflate.unused_data[: _TRAILER.size]
    return inflate.eof and trailer == _TRAILER.pack(zlib.crc32(data), len(data) & 0xFFFFFFFF)


def decode_member(member: bytes) -> bytes:
    """The data of a whole member; MalformedDataError if a single bit is wrong or it unpacks to an absurd size."""
    head = member_head(member[:HEAD_SIZE])
    if head is None or head.length != len(member):
        raise MalformedDataError("a block of the recording is damaged: its head is wrong")
    checksum, size = _TRAILER.unpack(member[-_TRAILER.size :])
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = inflate.decompress(member[head.body_at : -_TRAILER.size], MAX_MEMBER_BYTES)
    except zlib.error as error:
        raise MalformedDataError(f"a block of the recording is damaged: {error}") from error
    is_complete = inflate.eof and not inflate.unconsumed_tail and not inflate.unused_data
    if not is_complete or size != len(data) & 0xFFFFFFFF or checksum != zlib.crc32(data):
        raise MalformedDataError("a block of the recording is damaged: its checksum does not fit")
    return data


# The members of a recording's file, one after another and over every damage.

SEARCH_BYTES = 1024 * 1024

# Whether a member with this head is to be unpacked.
Wants = Callable[[MemberHead], bool]


class Member(NamedTuple):
    """A member that is there in full. `data` is None where it was not asked for."""

    offset: int
    head: MemberHead
    data: bytes | None

    @property
    def end(self) -> int:
        return self.offset + self.head.length


class Damage(NamedTuple):
    """Bytes of which nothing can be read. `is_torn`: a last member that a crash did not let be finished."""

    offset: int
    size: int
    reason: str
    is_torn: bool = False

    def __str__(self) -> str:
        return f"at byte {self.offset}: {self.reason}, {self.size} bytes are left out"


def walk(file: BinaryIO, size: int, wants: Wants) -> Iterator[Member | Damage]:
    """All members of the first `size` bytes of `file` in order; of those that `wants` says, the data.

    No damage ends the walk: the next member is looked for, and taken only if it is whole, because compressed data may
    hold any bytes. `file` is best unbuffered: most reads are of a few bytes, far from each other.
    """
    offset = 0
    while offset < size:
        found = _member_at(file, offset, size, wants)
        if isinstance(found, Member):
            if found.head.is_damaged:
                yield Damage(offset, 0, "the head of a block is damaged, though not its data")
            yield found
            offset = found.end
            continue
        after = _next_member(file, offset + 1, size)
        if after is None:
            yield _rest(file, offset, size, found)
            return
        yield Damage(offset, after - offset, found)
        offset = after


def _member_at(file: BinaryIO, offset: int, size: int, wants: Wants) -> Member | str:
    """The member at `offset`, or in words why there is none."""
    head = member_head(_read(file, offset, HEAD_SIZE))
    if head is None:
        return "no block begins where one should"
    if offset + head.length > size:
        return "a block that ends beyond the end of the file"
    if not wants(head) and (head.is_proven or _is_plausible(file, offset + head.length, size)):
        return Member(offset, head, None)
    try:
        return Member(offset, head, decode_member(_read(file, offset, head.length)))
    except MalformedDataError as error:
        # The length is not to be trusted either: after a torn member that was not cut, it reaches over whole ones.
        return one_line(error)


def _is_plausible(file: BinaryIO, offset: int, size: int) -> bool:
    """Whether the file goes on with a member there, or ends."""
    return offset == size or member_head(_read(file, offset, HEAD_SIZE)) is not None


def _next_member(file: BinaryIO, start: int, size: int) -> int | None:
    """Where the first whole member at or after `start` begins."""
    while start < size:
        piece = _read(file, start, SEARCH_BYTES + len(MAGIC) - 1)
        place = piece.find(MAGIC)
        while 0 <= place < SEARCH_BYTES:
            if isinstance(_member_at(file, start + place, size, lambda head: True), Member):
                return start + place
            place = piece.find(MAGIC, place + 1)
        start += SEARCH_BYTES
    return None


def _rest(file: BinaryIO, offset: int, size: int, reason: str) -> Damage:
    """What follows the last whole member: torn by a crash, or damaged."""
    left = size - offset
    rest = _read(file, offset, min(left, MAX_MEMBER_BYTES))
    head = member_head(rest[:HEAD_SIZE])
    if head is None:
        is_torn = left < HEAD_SIZE and could_begin_member(rest)
    else:
        # A crash leaves the first bytes of what was written, and those as they were written: behind a head that its own
        # checksum refutes there is damage, however long it says it is. (Nor is a member torn whose length alone is
        # damaged; in format 1 only its end can tell.)
        is_refuted = head.is_damaged and left >= HEAD_SIZE
        is_torn = head.length > left and not is_refuted and not is_whole(rest)
    return Damage(offset, left, "the last block is not complete" if is_torn else reason, is_torn)


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)
