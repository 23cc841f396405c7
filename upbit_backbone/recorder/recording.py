"""A recording on disk: appended to by one writer, read by anybody, over any damage."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

from .._arguments import Moment, aware
from .._concurrency import get_logger
from .._file_lock import FileLock
from ..errors import InvalidRequestError, MalformedDataError, one_line
from .format import (
    FORMAT,
    HEAD_SIZE,
    Damage,
    Member,
    MemberHead,
    Record,
    RecordKind,
    Wants,
    decode_member,
    decode_records,
    member_head,
    microseconds,
    walk,
)

log = get_logger("upbit_backbone.recorder")

# Before it is continued, a recording of at most this size is read through (half a second); of a larger one only the
# heads of its blocks, and damage within a block is for its readers to find.
CHECKED_BYTES = 64 * 1024 * 1024
SHOWN_DAMAGES = 5


class Place(NamedTuple):
    """Where a record is: ordered as the records are."""

    part: int
    offset: int
    record: int


class RecordingWriter:
    """Appends members to a new or an existing recording, which nobody else writes meanwhile.

    Each member is one write, then synced: a crash loses only what was not handed in yet. Of an existing recording only
    an incomplete last member is cut away, so that what follows can be read by anybody; damage before it is skipped and
    told (`damages`), for the data behind it is good. Any other file is refused, and so is one in use.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.written = 0
        self.damages: tuple[Damage, ...] = ()
        self._file = _open_to_write(path)
        try:
            self._lock = FileLock(path, "recording")
        except BaseException:
            self._file.close()
            raise
        try:
            self._end = self._end_of_whole_members()
            # What is written to a removed file is gone with the process. (Some file systems count no names.)
            self._had_name = os.fstat(self._file.fileno()).st_nlink > 0
        except BaseException:
            self.close()
            raise

    def _end_of_whole_members(self) -> int:
        size = os.fstat(self._file.fileno()).st_size
        is_checked = size <= CHECKED_BYTES
        damages: list[Damage] = []
        members = 0
        for each in walk(self._file, size, lambda head: is_checked or _begins(head)):
            if isinstance(each, Damage):
                damages.append(each)
                continue
            members += 1
            _check_format(each, self._path)
        if size and not members and not _is_begun(self._file, damages):
            raise InvalidRequestError(f"{one_line(self._path)} exists and is no recording; choose another name")
        if damages and damages[-1].is_torn:
            torn = damages.pop()
            log.warning(
                "the recording was torn by a crash: its last bytes are cut away",
                extra={"path": str(self._path), "cut_bytes": torn.size},
            )
            size = torn.offset
            self._file.truncate(size)
        self.damages = tuple(damages)
        if damages:
            log.warning("the recording is damaged %s", in_words(damages), extra={"path": str(self._path)})
        return size

    @property
    def size(self) -> int:
        return self._end

    def append(self, member: bytes) -> None:
        """Write an encoded member and see it to the disk. On an error (OSError) nothing of it is left there."""
        self._file.seek(self._end)
        try:
            left = memoryview(member)
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
            if self._had_name and not os.fstat(self._file.fileno()).st_nlink:
                raise OSError(errno.ENOENT, "the file was removed while it was being recorded")
        except BaseException:
            self._take_back()
            raise
        self._end += len(member)
        self.written += len(member)

    def _take_back(self) -> None:
        try:
            self._file.truncate(self._end)
        except OSError as error:  # half a member stays; readers and the next writer know what to do with it
            log.warning("the recording cannot be cut: %s", one_line(error), extra={"path": str(self._path)})

    def close(self) -> None:
        """Idempotent."""
        self._file.close()
        self._lock.release()

    def __repr__(self) -> str:
        return f"<RecordingWriter {one_line(self._path)} {self.written} bytes>"


class Recording:
    """A recording to read: one file, or the parts of one that was rotated, given by the name it was recorded under.

    Damage is skipped; `damage` tells all that was met so far, None while all is well. A recording by a later version
    of this library, in a format that is not known here, raises InvalidRequestError.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.parts = _parts(self.path)
        self._damages: dict[tuple[int, int], Damage] = {}
        self.began = self._look_at_beginning()

    def _look_at_beginning(self) -> datetime | None:
        """The time of the first record, None where there is none. Raises for what is no recording."""
        for path in self.parts:
            with _open_to_read(path) as file:
                size = os.fstat(file.fileno()).st_size
                met: list[Damage] = []
                for each in walk(file, size, lambda head: True):
                    if isinstance(each, Damage):
                        met.append(each)
                        continue
                    _check_format(each, path)
                    with contextlib.suppress(MalformedDataError, StopIteration):  # told as damage when it is read
                        return next(decode_records(each.data or b"")).wall
                if size and not _is_begun(file, met):
                    raise InvalidRequestError(f"{one_line(path)} is no recording of upbit-backbone")
        return None

    @property
    def damages(self) -> tuple[Damage, ...]:
        """What could not be read so far, in order."""
        return tuple(damage for _, damage in sorted(self._damages.items()))

    @property
    def damage(self) -> str | None:
        return in_words(self.damages) if self._damages else None

    def __iter__(self) -> Iterator[Record]:
        for _, record in self.located():
            yield record

    def located(
        self, since: Moment | None = None, until: Moment | None = None, *kinds: RecordKind
    ) -> Iterator[tuple[Place, Record]]:
        """Every record with its place, in order: those from `since` on and before `until` (aware datetimes or ISO 8601
        text with a zone), of `kinds` (none: of all).

        What cannot be among them is hopped over without unpacking it.
        """
        for place, found in self.entries(since, until, *kinds):
            if isinstance(found, Record):
                yield place, found

    def entries(
        self, since: Moment | None = None, until: Moment | None = None, *kinds: RecordKind
    ) -> Iterator[tuple[Place, Record | Damage]]:
        """As `located`, and in its place each damage that was met."""
        start, stop = (
            None if moment is None else aware(moment, name) for moment, name in ((since, "since"), (until, "until"))
        )
        first, end = (None if moment is None else microseconds(moment) for moment in (start, stop))

        def wants(head: MemberHead) -> bool:
            if head.summary is None:
                return True
            is_in_time = (first is None or head.summary.last_us >= first) and (
                end is None or head.summary.first_us < end
            )
            return is_in_time and (not kinds or head.summary.has(*kinds))

        for part, path in enumerate(self.parts):
            for each in self._members(part, path, wants):
                if isinstance(each, Damage):
                    yield Place(part, each.offset, -1), each
                    continue
                _check_format(each, path)
                try:
                    for position, record in enumerate(decode_records(each.data or b"")):
                        is_asked = (start is None or record.wall >= start) and (stop is None or record.wall < stop)
                        if is_asked and (not kinds or record.kind in kinds):
                            yield Place(part, each.offset, position), record
                except MalformedDataError as error:
                    damage = self._damaged(part, Damage(each.offset, each.head.length, one_line(error)))
                    yield Place(part, each.offset, -1), damage

    def _members(self, part: int, path: Path, wants: Wants) -> Iterator[Member | Damage]:
        with _open_to_read(path) as file:
            for each in walk(file, os.fstat(file.fileno()).st_size, wants):
                yield self._damaged(part, each) if isinstance(each, Damage) else each

    def _damaged(self, part: int, damage: Damage) -> Damage:
        self._damages[part, damage.offset] = damage
        return damage

    def streams_at(self, moment: Moment) -> list[Record]:
        """What streamed at `moment`: the SUBSCRIBED records that were in force then, one of each session."""
        kinds = (RecordKind.BEGIN, RecordKind.SUBSCRIBED, RecordKind.INTERRUPTED)
        streams: dict[str, Record] = {}
        for _, record in self.located(None, moment, *kinds):
            if record.kind is RecordKind.SUBSCRIBED:
                streams[record.session] = record
            elif record.kind is RecordKind.INTERRUPTED:
                streams.pop(record.session, None)
            elif not (record.details or {}).get("continues"):
                streams.clear()
        return list(streams.values())

    def at(self, place: Place) -> Record:
        """The record at a place that `located` gave."""
        with _open_to_read(self.parts[place.part]) as file:
            file.seek(place.offset)
            head = member_head(file.read(HEAD_SIZE))
            file.seek(place.offset)
            return list(decode_records(decode_member(file.read(head.length if head else 0))))[place.record]

    def __repr__(self) -> str:
        return f"<Recording {one_line(self.path)}{' damaged' if self._damages else ''}>"


def in_words(damages: Sequence[Damage]) -> str:
    """ "at byte 4711: …, 15 bytes are left out", for one damage or several."""
    shown = "; ".join(map(str, damages[:SHOWN_DAMAGES]))
    return shown + (f"; and {len(damages) - SHOWN_DAMAGES} more" if len(damages) > SHOWN_DAMAGES else "")


def numbered(path: Path, number: int) -> Path:
    """The name of one part of a rotated recording: day.rec, 3 → day.0003.rec."""
    return path.with_name(f"{path.stem}.{number:04d}{path.suffix}")


def numbers_of(path: Path) -> list[int]:
    """The numbers of the parts that there are of a rotated recording, ascending."""
    if not path.parent.is_dir():
        return []
    name = re.compile(rf"{re.escape(path.stem)}\.(\d{{4,}}){re.escape(path.suffix)}")
    matches = (name.fullmatch(each.name) for each in path.parent.iterdir())
    return sorted(int(match[1]) for match in matches if match)


def _parts(path: Path) -> tuple[Path, ...]:
    if path.exists():
        return (path,)
    return tuple(numbered(path, number) for number in numbers_of(path)) or (path,)


def _begins(head: MemberHead) -> bool:
    return head.summary is not None and head.summary.has(RecordKind.BEGIN)


def _check_format(member: Member, path: Path) -> None:
    """InvalidRequestError if `member` begins what a later version wrote in a format of its own."""
    if member.data is None or not _begins(member.head):
        return
    with contextlib.suppress(MalformedDataError):  # a kind of a later format, for example; what came before it tells
        for record in decode_records(member.data):
            about = record.details or {}
            written_as = about.get("format")
            if record.kind is RecordKind.BEGIN and isinstance(written_as, int) and written_as > FORMAT:
                raise InvalidRequestError(
                    f"{one_line(path)} was recorded by upbit-backbone {one_line(about.get('library'))} in format "
                    f"{written_as}; this version reads formats up to {FORMAT}: update upbit-backbone"
                )


def _is_begun(file: BinaryIO, damages: Sequence[Damage]) -> bool:
    """Whether a file without a whole member is a recording all the same: a crash tore its very first one."""
    file.seek(0)
    return bool(damages) and damages[-1].is_torn and member_head(file.read(HEAD_SIZE)) is not None


def _open_to_write(path: Path) -> BinaryIO:
    try:
        # A pipe or a terminal would block while it is opened, or take the bytes and keep nothing.
        if path.exists() and not path.is_file():
            raise InvalidRequestError(f"{one_line(path)} is no regular file: a recording must be one; name another")
        # Not truncated: it may be somebody else's who was quicker.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        return open(descriptor, "r+b", buffering=0)
    except OSError as error:
        raise InvalidRequestError(f"{one_line(path)}: cannot record there: {error.strerror}") from error


def _open_to_read(path: Path) -> BinaryIO:
    try:
        if path.exists() and not path.is_file():
            raise InvalidRequestError(f"{one_line(path)} is no regular file: a recording must be one")
        return open(path, "rb", buffering=0)
    except OSError as error:
        raise InvalidRequestError(f"{one_line(path)}: cannot read the recording: {error.strerror}") from error
