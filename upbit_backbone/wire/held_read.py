"""Held read: taking from a socket what is there, without giving up the GIL for it.

CPython gives the GIL up around every call of a socket, also around one that cannot wait. Beside a thread that computes
it comes back after the switch interval, 5 ms: for a session that waited for its socket, and then for the GIL, that was
a second time for each read (p50 and p99 at 1,000 messages a second 13.7 and 45 ms, now 5.7 and 20).
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final

try:
    import ctypes
except ImportError:  # a Python that was built without it
    ctypes = None  # type: ignore[assignment]


def _find_recv() -> Any:
    """recv(2) of the C library, called with the GIL held; None where there is none that never waits, as on Windows."""
    if ctypes is None or not hasattr(socket, "MSG_DONTWAIT"):
        return None
    try:
        recv = ctypes.PyDLL(None, use_errno=True).recv
    except (OSError, AttributeError):  # a Python without shared libraries
        return None
    recv.restype = ctypes.c_ssize_t
    return recv


_recv: Final = _find_recv()
_NOTHING_THERE: Final = frozenset((errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR))


def held_read(sock: socket.socket, room: bytearray, how: int = 0) -> Callable[[], int] | None:
    """A function that reads into `room` what is there, for as long as `sock` is open; None where this system has none.
    `how` are flags of recv(2).

    It never waits and never raises: how many bytes came, 0 at the end of the stream, -1 where `raise_failure`
    tells what is wrong, if anything is. `room` stays where it is while it lives.
    """
    if _recv is None:
        return None
    # Made once, as the very arguments that C takes: to turn numbers into them at each call cost twice what it does.
    place = ctypes.byref((ctypes.c_char * len(room)).from_buffer(room))
    length, flags = ctypes.c_size_t.from_param(len(room)), ctypes.c_int.from_param(socket.MSG_DONTWAIT | how)
    return partial(_recv, ctypes.c_int.from_param(sock.fileno()), place, length, flags)


def held_look(sock: socket.socket) -> Callable[[], int] | None:
    """As `held_read`, but what is there stays where it is: 1 where something is."""
    return held_read(sock, bytearray(1), socket.MSG_PEEK)


def raise_failure() -> None:
    """Why this thread's latest held read gave -1, as an OSError; returns where merely nothing was there."""
    # Here and not from the next read: the system tells of a broken line once, and of an end from then on. And raised
    # here: whoever had it in a variable and raised it would hold himself by it, until the garbage collector comes.
    number = ctypes.get_errno()
    if number not in _NOTHING_THERE:
        raise OSError(number, os.strerror(number))
