"""The recording format. Pure: bytes in, bytes out.

A recording is a row of gzip members, so `zcat` and `gzip` read it too. Each member holds whole records and carries its
own length in a gzip extra field: a reader can hop from member to member, and whatever a crash tore is found at once.
A record is one line of JSON (what, when, from which session, and the sizes of the blobs), the blobs as they came
over the wire, and a newline.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from ..errors import MalformedDataError

_HEADER = struct.Struct("<4sIBBH2sHI")  # gzip header with one extra field: b"UB", 4 bytes, length of the member
_TRAILER = struct.Struct("<II")
HEADER_SIZE = _HEADER.size
_MAGIC = b"\x1f\x8b\x08\x04"
_FIELD = b"UB"
MAX_MEMBER_BYTES = 256 * 1024 * 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class RecordKind(StrEnum):
    BEGIN = "begin"  # a recorder was attached; what was open before is over
    FRAMES = "frames"  # a batch as the session handed it over
    SUBSCRIBED = "subscribed"
    INTERRUPTED = "interrupted"
    REST = "rest"
    LOST = "lost"  # the disk was too slow: so many records are missing here


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


def encode_record(record: Record) -> bytes:
    """The exact inverse of `decode_records`."""
    head: dict[str, Any] = {
        "kind": record.kind.value,
        "monotonic": record.monotonic,
        "wall_us": (record.wall - _EPOCH) // timedelta(microseconds=1),
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


def encode_member(data: bytes, level: int = 6) -> bytes:
    """`data` as one gzip member that knows its own length."""
    deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = deflate.compress(data) + deflate.flush()
    length = HEADER_SIZE + len(body) + _TRAILER.size
    header = _HEADER.pack(_MAGIC, 0, 0, 255, 8, _FIELD, 4, length)
    return b"".join((header, body, _TRAILER.pack(zlib.crc32(data), len(data) & 0xFFFFFFFF)))


def member_length(header: bytes) -> int | None:
    """The length of the member that begins with these HEADER_SIZE bytes; None if it is none of ours."""
    if len(header) < HEADER_SIZE:
        return None
    magic, _, _, _, extra, field, field_size, length = _HEADER.unpack(header[:HEADER_SIZE])
    is_ours = magic == _MAGIC and extra == 8 and field == _FIELD and field_size == 4
    is_possible = HEADER_SIZE + _TRAILER.size <= length <= MAX_MEMBER_BYTES
    return int(length) if is_ours and is_possible else None


def decode_member(member: bytes) -> bytes:
    """The data of a whole member; MalformedDataError if a single bit is wrong or it unpacks to an absurd size."""
    checksum, size = _TRAILER.unpack(member[-_TRAILER.size :])
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = inflate.decompress(member[HEADER_SIZE : -_TRAILER.size], MAX_MEMBER_BYTES)
    except zlib.error as error:
        raise MalformedDataError(f"a block of the recording is damaged: {error}") from error
    is_whole = inflate.eof and not inflate.unconsumed_tail and not inflate.unused_data
    if not is_whole or size != len(data) & 0xFFFFFFFF or checksum != zlib.crc32(data):
        raise MalformedDataError("a block of the recording is damaged: its checksum does not fit")
    return data
