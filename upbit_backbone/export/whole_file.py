"""Files that are whole or not there: written beside their name, put in place in one step, by one writer at a time."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from .._concurrency import get_logger
from .._file_lock import FileLock
from ..errors import ResourceError, one_line
from ..models.market import CandleData

log = get_logger("upbit_backbone.export")


def resolved(path: str | os.PathLike[str]) -> Path:
    """The file that `path` means: through a symbolic link the file it points to is written, and the link stays.

    What is no file keeps its name: /dev/stdout leads to a pipe, whose own name ("pipe:[1234]") nobody can open.
    """
    return Path(os.path.realpath(path) if is_replaceable(Path(path)) else path)


def is_replaceable(path: Path) -> bool:
    """Whether a new file may take the place of `path`. A pipe or a device is written into: it is there for others."""
    return path.is_file() or not path.exists()


def sole_writer(path: Path) -> FileLock:
    """The exclusive right to write `path`; FileInUseError, which names the holder, while somebody else has it."""
    return FileLock(path, "export")


def alone(path: Path) -> contextlib.AbstractContextManager[object]:
    """`sole_writer` where a file will be; into a pipe or a device anybody may write."""
    return sole_writer(path) if is_replaceable(path) else contextlib.nullcontext()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place at the end, or vanishes on an error."""
    if not is_replaceable(path):
        with _temporary_folder() as folder:
            whole = Path(folder) / "whole"
            yield whole
            with whole.open("rb") as source, path.open("wb", buffering=0) as target:
                shutil.copyfileobj(source, target)
        return
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        put_in_place(temporary, path)
    except BaseException:
        discard(temporary)
        raise


def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="upbit-export-")
    except FileNotFoundError as theirs:
        raise ResourceError(f"{one_line(theirs)}: make one, or write to a file instead") from theirs


def discard(path: Path) -> None:
    """Remove a file that is of no use any more. Raises nothing: what went wrong before is what has to be told."""
    try:
        with contextlib.suppress(FileNotFoundError):
            path.chmod(stat.S_IWRITE)  # Windows removes no read-only file, and has made it one as its predecessor was
            path.unlink()
    except OSError as error:
        log.warning("a temporary file cannot be removed: %s", one_line(error), extra={"path": str(path)})


def put_in_place(temporary: Path, path: Path) -> None:
    """`temporary` becomes `path` in one step, with the access rights of the file it replaces, and is on the disk."""
    with contextlib.suppress(FileNotFoundError):
        temporary.chmod(stat.S_IMODE(path.stat().st_mode))  # a private file stays private
    temporary.replace(path)
    if hasattr(os, "O_DIRECTORY"):  # elsewhere (Windows) a directory cannot be flushed
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def kind_of(items: Iterable[Any], kind: type[Any] | None) -> tuple[Iterable[Any], type[Any]]:
    """The items and what they are, told by the first; an empty file is one of candles."""
    if kind is not None:
        return items, kind
    iterator = iter(items)
    head = list(islice(iterator, 1))
    return (item for part in (head, iterator) for item in part), type(head[0]) if head else CandleData
