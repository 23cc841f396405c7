"""The members of a recording's file, one after another and over every damage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from ..errors import MalformedDataError, one_line
from .format import (
    HEAD_SIZE,
    MAGIC,
    MAX_MEMBER_BYTES,
    MemberHead,
    could_begin_member,
    decode_member,
    is_whole,
    member_head,
)

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
