"""Answer files: what a process of this user has just asked Upbit, for the others of this machine while Redis is away.

They lie beside the count of requests, in a folder of this user's: each the last answer to one of the questions that
share its name, so that there are few of them, whatever is asked. A file is replaced whole. How old its answer is the
monotonic clock says, which all processes of a machine read alike, and the file's own time bears it out: what was
written before the machine started anew is nobody's answer.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from pathlib import Path
from typing import Final, NamedTuple

from .._concurrency import Clock, get_logger
from ..errors import one_line
from ..limits.count_file import shared_folder, shared_name

log = get_logger("upbit_backbone.upstream")

MAX_ANSWER_BYTES: Final = 1 << 20
MAGIC: Final = b"UPBITAF1"
HEAD: Final = struct.Struct("=8sd32s32s")  # then when its request left, of which question, who asked, and its bytes
CLOCKS_APART_SECONDS: Final = 5.0  # between the two times of a file: more is another start of the machine


class FiledAnswer(NamedTuple):
    """What Upbit said to `whose` question, which left at `left_at` (monotonic)."""

    body: bytes
    left_at: float
    whose: str


class AnswerFiles:
    """The answers of `host`. Usable from any thread; raises nothing: where files cannot be had, nothing is shared."""

    def __init__(self, host: str, clock: Clock, directory: Path | None = None) -> None:
        self._name = f"{shared_name(host)}.answer"
        self._clock = clock
        self._directory = directory

    def read(self, digest: str) -> FiledAnswer | None:
        """The last answer to the question `digest`, however old it is."""
        try:
            flags = (
                os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
            )
            with open(os.open(self._path(digest), flags), "rb") as file:
                raw = file.read(HEAD.size + MAX_ANSWER_BYTES + 1)
                written_at = os.fstat(file.fileno()).st_mtime
        except OSError:
            return None
        if not HEAD.size <= len(raw) <= HEAD.size + MAX_ANSWER_BYTES:
            return None
        magic, left_at, question, whose = HEAD.unpack_from(raw)
        if magic != MAGIC or question != digest.encode():
            return None
        age, seems = self._clock.monotonic() - left_at, self._clock.wall().timestamp() - written_at
        if age < 0 or abs(age - seems) > CLOCKS_APART_SECONDS:
            return None
        return FiledAnswer(raw[HEAD.size :], left_at, whose.decode("ascii", "replace"))

    def write(self, digest: str, answer: FiledAnswer) -> None:
        """Leave it for the others."""
        if len(answer.body) > MAX_ANSWER_BYTES:
            return
        try:
            path = self._path(digest)
            own = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
            try:
                own.write_bytes(HEAD.pack(MAGIC, answer.left_at, digest.encode(), answer.whose.encode()) + answer.body)
                own.chmod(0o600)
                own.replace(path)  # Windows refuses while another reads: then he has what he wanted
            finally:
                with contextlib.suppress(FileNotFoundError):
                    own.unlink()
        except OSError as error:
            log.debug("an answer is not left for other processes", extra={"why": one_line(error)})

    def _path(self, digest: str) -> Path:
        return shared_folder(self._directory) / f"{self._name}{digest[0]}"

    def __repr__(self) -> str:
        return f"<AnswerFiles {self._name}>"
