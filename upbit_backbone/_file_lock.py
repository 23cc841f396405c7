"""One writer per file: an exclusive lock that all processes of a machine respect, and that says who holds it.

    with FileLock("day.csv", "download"):
        …                                  # whoever wants day.csv meanwhile gets FileInUseError, which names us

The lock is on a small file beside the wanted one (`day.csv.lock`), so that it covers a file which is written under
another name and renamed at the end. The system gives the lock back when its process ends, however it ends; what a
crash leaves behind is an empty claim that the next holder takes over.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import weakref
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ._deadline import Flag
from ._fork import at_fork, notice
from ._log import get_logger
from .errors import FileInUseError, InvalidRequestError, one_line

log = get_logger("upbit_backbone")

MAX_HOLDER_BYTES: Final = 500
NAME_LOOKS: Final = 25
NAME_LOOK_SECONDS: Final = 0.01
_TAKEN: Final = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK})
# Network file systems without locks: there it is better to write unprotected, and say so, than not to write at all.
_UNKNOWN: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    def _is_gone(holder: str) -> bool:
        return False  # asking for a process there may end it

    # Windows refuses even to read a locked byte, so the one that is locked lies far behind the holder's name.
    _PLACE = 1 << 30

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, _PLACE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, _PLACE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined, unused-ignore]

else:

    def _is_gone(holder: str) -> bool:
        """Whether the one of this name has ended, so that another must have come who has not signed yet."""
        named = re.search(r" by process (\d+) on (\S+) since", holder)
        if named is None or named[2] != socket.gethostname():
            return False
        try:
            os.kill(int(named[1]), 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            return False
        return False

    # flock and not lockf: it belongs to the open file, so two writers within one process exclude each other, too.
    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


class FileLock:
    """The sole right to write `path`, from construction until `release` or the end of the process.

    `purpose` ("recording", "download") is what others read about the holder. The file itself need not exist. Raises
    FileInUseError at once where somebody else, in this process or another, has it; InvalidRequestError where no lock
    can be made. A symbolic link is the file it leads to. Waits for nobody, but 0.25 s at most for the name of one who
    has just come; usable from any thread.
    """

    def __init__(self, path: str | os.PathLike[str], purpose: str) -> None:
        notice()
        target = Path(os.path.realpath(path))
        self.path = target
        self._claim = target.with_name(f"{target.name}.lock")
        self._descriptor = self._take()
        try:
            _held.add(self)
            since = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z"
            self._sign(f"{purpose} by process {os.getpid()} on {socket.gethostname()} since {since}")
        except BaseException:
            self.release()
            raise

    def _sign(self, holder: str) -> None:
        try:
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            os.write(self._descriptor, holder.encode())
        except OSError as error:  # a full disk: the lock holds all the same, only nobody can read whose it is
            log.warning("%s is locked without a name: %s", one_line(self.path), error.strerror)

    def _take(self) -> int:
        patience, before = Flag(), ""
        for look in range(NAME_LOOKS):
            descriptor = self._open_claim()
            try:
                has_it = self._lock(descriptor)
                is_claim = self._is_still_there(descriptor)
                holder = "" if has_it else _name_in(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            if has_it and is_claim:
                return descriptor
            os.close(descriptor)  # its holder removed it just before: locked is a file nobody else will open
            # Between a holder's lock and his name stands nothing there, or the name of one who crashed before him:
            # believed is what is there still a moment later.
            if look and is_claim and holder and holder == before and not _is_gone(holder):
                break
            before = holder if is_claim else ""
            patience.wait(0.0 if has_it else NAME_LOOK_SECONDS)
        holder = before or "by somebody who could not leave a name"
        raise FileInUseError(
            f"{one_line(self.path)} is in use: {holder}. Choose another name, or wait until that has ended",
            holder=holder,
        )

    def _open_claim(self) -> int:
        try:
            return os.open(self._claim, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            if not self._claim.parent.is_dir():  # the folder is what was meant; of the claim nobody has heard
                raise InvalidRequestError(
                    f"{one_line(self.path.name)}: there is no folder {one_line(self._claim.parent)}; make it, or name "
                    "another"
                ) from error
            raise InvalidRequestError(
                f"{one_line(self.path)}: {one_line(self._claim.name)} beside it, which keeps other writers away, "
                f"cannot be made: {error.strerror}"
            ) from error

    def _lock(self, descriptor: int) -> bool:
        """Whether it is ours now."""
        try:
            _lock(descriptor)
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            if error.errno not in _UNKNOWN:
                raise InvalidRequestError(f"{one_line(self.path)} cannot be locked: {error.strerror}") from error
            log.warning("no locks on this file system: see to it that nobody else writes %s", one_line(self.path))
        return True

    def _is_still_there(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self._claim))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let others have it. Idempotent."""
        notice()  # in a child it is the parent's, and gone after this
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        _held.discard(self)
        # Removed before it is unlocked, so that nobody's new claim is: but Windows removes nothing that is open.
        with contextlib.suppress(OSError):  # a claim that stays is empty, and harmless
            self._claim.unlink()
        with contextlib.suppress(OSError):  # closing unlocks as well, but not what a forked child still has open
            _unlock(descriptor)
        os.close(descriptor)

    def _leave_to_parent(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<FileLock {one_line(self.path)} {'released' if self._descriptor < 0 else 'held'}>"


_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _name_in(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return one_line(os.read(descriptor, MAX_HOLDER_BYTES).decode("utf-8", "replace"))


def _leave_all_to_parent() -> None:
    # A lock belongs to all who have the file open: a child that outlives a killed parent would keep it for ever.
    for each in list(_held):
        each._leave_to_parent()
    _held.clear()


at_fork(_leave_all_to_parent)
