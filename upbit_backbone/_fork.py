"""Forks noticed: whether this process is a child of the one in which something was made, however it was forked.

`os.fork` tells Python; a fork made in C (uWSGI's) tells nobody. So every object of ours that has locks or threads keeps
the mark of the process it was made in, and looks at it before it does anything. Where the kernel can do it, a mark is
a byte of memory that a child finds wiped: looking costs a tenth of asking for the process id.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Final, Protocol

from .errors import ClosedError

MADV_WIPEONFORK: Final = 18  # of Linux since 4.14; the module `mmap` has no name for it


class Mark(Protocol):
    """`mark[0]` is true in the process that made it, and false in all that were forked from it."""

    def __getitem__(self, index: int, /) -> int: ...


class PidMark:
    """A mark for systems that wipe nothing: compares process ids."""

    __slots__ = ("_pid",)

    def __init__(self) -> None:
        self._pid = os.getpid()

    def __getitem__(self, index: int, /) -> int:
        return os.getpid() == self._pid

    def __repr__(self) -> str:
        return f"<PidMark of process {self._pid}>"


def new_mark() -> Mark:
    """A mark of this process, the quickest that the system has."""
    if not hasattr(os, "fork"):
        return b"\1"  # Windows: nobody is ever forked
    with contextlib.suppress(OSError, AttributeError, ImportError):
        return _wiped_page()
    return PidMark()


def _wiped_page() -> Mark:
    import mmap  # not everywhere, and of no use where there is no fork

    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    page.madvise(MADV_WIPEONFORK)
    page[0] = 1
    return page


_mark = _coming = new_mark()
_noticing = threading.RLock()  # held while a child starts over, so that its threads do so once
_starts: list[Callable[[], object]] = []


def at_fork(start_over: Callable[[], object]) -> None:
    """Call `start_over` once in every child, before anything of ours is used there."""
    _starts.append(start_over)


def notice() -> Mark:
    """The mark of this process. In a child that has not noticed yet, everything of the module level starts over."""
    global _mark, _coming
    if _mark[0]:
        return _mark
    with _noticing:
        if not _coming[0]:  # else it is what starts over that asks
            _coming = new_mark()
            for start_over in _starts:
                start_over()
            _mark = _coming  # last: whoever sees it finds everything in order
        return _coming


def _forked() -> None:
    global _noticing
    # The parent may have held it in another thread just then; that thread does not exist here.
    _noticing = threading.RLock()
    notice()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class ForkGuard:
    """Knows whether the process forked since it was made. Asked before any lock is taken."""

    __slots__ = ("_what", "mark")

    def __init__(self, what: str) -> None:
        self._what = what
        self.mark: Final = notice()  # for the hot path, which looks at it without a call

    @property
    def is_foreign(self) -> bool:
        return not self.mark[0]

    def check(self) -> None:
        """ClosedError in a forked child, where the threads and locks of the parent do not work."""
        if not self.mark[0]:
            notice()
            raise ClosedError(f"{self._what} was made before fork(); make a new one in the child process")

    def __repr__(self) -> str:
        return f"<ForkGuard of {self._what}{', foreign' if self.is_foreign else ''}>"
