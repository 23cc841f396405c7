"""A recording on disk: appended to by one writer, read up to the first damage by anybody."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import InvalidRequestError, MalformedDataError, one_line
from .format import HEADER_SIZE, Record, decode_member, decode_records, encode_member, member_length

log = logging.getLogger("upbit_backbone.recorder")

# (offset of the member, which record of it): places are ordered as the records are
Place = tuple[int, int]


class RecordingWriter:
    """Appends members to a new or an existing recording.

    Each member is one write, then synced: a crash loses only what was not handed in yet. What a crash tore off at the
    end of an existing recording is cut away, so that new members can be read; any other file is refused.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file: BinaryIO = open(path, "r+b" if path.exists() else "w+b", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise InvalidRequestError(f"{one_line(path)}: cannot record there: {error.strerror}") from error
        try:
            self._file.seek(self._end_of_whole_members())
        except BaseException:
            self._file.close()
            raise
        self.written = 0

    def _end_of_whole_members(self) -> int:
        size = os.fstat(self._file.fileno()).st_size
        end = 0
        for _, offset, length in _hop(self._file, size):
            end = offset + length
        if end == size:
            return end
        if end == 0:
            raise InvalidRequestError(f"{one_line(self._path)} exists and is no recording; choose another name")
        log.warning(
            "the recording was torn by a crash: its last bytes are cut away",
            extra={"path": str(self._path), "cut_bytes": size - end},
        )
        self._file.truncate(end)
        return end

    def append(self, records: bytes) -> None:
        """Write encoded records as one member and see it to the disk."""
        member = memoryview(encode_member(records))
        self.written += len(member)
        while member:
            member = member[self._file.write(member) :]
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __repr__(self) -> str:
        return f"<RecordingWriter {one_line(self._path)} {self.written} bytes>"


class Recording:
    """A recording to read. `damage` says where reading had to stop, once it has; None while all is well."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.damage: str | None = None
        try:
            with open(self.path, "rb") as file:
                start = file.read(HEADER_SIZE)
        except OSError as error:
            raise InvalidRequestError(f"{one_line(path)}: cannot read the recording: {error.strerror}") from error
        if start and member_length(start) is None:
            raise InvalidRequestError(f"{one_line(path)} is no recording of upbit-backbone")

    def __iter__(self) -> Iterator[Record]:
        for _, record in self.located():
            yield record

    def located(self) -> Iterator[tuple[Place, Record]]:
        """Every record with its place, in order, up to the first damage."""
        with open(self.path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            end = 0
            try:
                for member, offset, length in _hop(file, size, want_data=True):
                    for position, record in enumerate(decode_records(decode_member(member))):
                        yield (offset, position), record
                    end = offset + length
            except MalformedDataError as error:
                self.damage = f"at byte {end}: {error}"
                return
            if end < size:
                self.damage = f"at byte {end}: the last block is not complete, {size - end} bytes are left out"

    def at(self, place: Place) -> Record:
        """The record at a place that `located` gave."""
        offset, position = place
        with open(self.path, "rb") as file:
            file.seek(offset)
            length = member_length(file.read(HEADER_SIZE)) or 0
            file.seek(offset)
            return list(decode_records(decode_member(file.read(length))))[position]

    def __repr__(self) -> str:
        return f"<Recording {one_line(self.path)}{' damaged' if self.damage else ''}>"


def _hop(file: BinaryIO, size: int, *, want_data: bool = False) -> Iterator[tuple[bytes, int, int]]:
    """(member or b"", offset, length) of each member that is there in full, from the start of the file."""
    offset = 0
    while offset < size:
        file.seek(offset)
        length = member_length(file.read(HEADER_SIZE))
        if length is None or offset + length > size:
            return
        if want_data:
            file.seek(offset)
        yield (file.read(length) if want_data else b""), offset, length
        offset += length
