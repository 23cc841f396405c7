"""Wakes a thread out of its `select`: a socket pair, because only sockets can be selected everywhere."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Final

_DRAIN_BYTES: Final = 4096


class Waker:
    """`wake()` from any thread, also after `close()`; the owner selects on `fileno()` and calls `clear()`."""

    def __init__(self) -> None:
        self._mine, self._others = socket.socketpair()
        self._mine.setblocking(False)
        self._others.setblocking(False)
        # Guards _is_closed, so that no wake-up goes to a file descriptor that belongs to someone else by now.
        # The write under it cannot block.
        self._lock = threading.Lock()
        self._is_closed = False

    def fileno(self) -> int:
        return self._mine.fileno()

    def wake(self) -> None:
        with self._lock:
            if not self._is_closed:
                # A full buffer means that more than enough wake-ups are under way.
                with contextlib.suppress(BlockingIOError):
                    self._others.send(b"\0")

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._mine.recv(_DRAIN_BYTES)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            self._mine.close()
            self._others.close()

    def __repr__(self) -> str:
        return f"<Waker {'closed' if self._is_closed else 'open'}>"
