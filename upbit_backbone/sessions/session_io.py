"""Session I/O: the session's socket and the wake-up that interrupts its `select`."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable
from typing import Final

from ..errors import NetworkError, UpbitBackboneError, one_line
from .messages import ConnectionLost
from .ports import Connection

# Wakes a thread out of its `select`: a socket pair, because only sockets can be selected everywhere.

_DRAIN_BYTES: Final = 4096


class WakeupSocket:
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
        return f"<WakeupSocket {'closed' if self._is_closed else 'open'}>"


# The one connection a session has at a time, and the wait for it and for others. Owned by the session's thread.

ABNORMAL_CLOSE: Final = 1006


class SessionSocket:
    """`wake` and `abort` may be called from any thread, everything else by the owner only."""

    def __init__(self) -> None:
        self._connection: Connection | None = None
        try:
            self._waker = WakeupSocket()
        except OSError as theirs:
            raise NetworkError(f"no sockets to be had: {one_line(theirs)}") from theirs
        try:
            self._selector = selectors.DefaultSelector()
        except OSError as theirs:
            self._waker.close()
            raise NetworkError(f"no selector to be had: {one_line(theirs)}") from theirs
        self._selector.register(self._waker, selectors.EVENT_READ)

    @property
    def has_unread(self) -> bool:
        """Whether bytes were taken from the system that no selector knows of."""
        return self._connection is not None and bool(self._connection.pending())

    def wait(self, seconds: float) -> None:
        """Until there is something to read, somebody wakes us, or time is up."""
        # TLS may hold decrypted bytes that no selector knows of: waiting for the socket would wait for the next packet.
        if self.has_unread:
            return
        ready = [key.fileobj for key, _ in self._selector.select(max(0.0, seconds))]
        if self._waker in ready:
            self._waker.clear()

    def take(self, connection: Connection) -> None:
        """Use this connection from now on."""
        self._connection = connection  # first: an abort that comes before the registration has something to cut
        self._selector.register(connection, selectors.EVENT_READ)

    def read(self) -> bytes | ConnectionLost | None:
        """What is there, without waiting; None where there is nothing or no connection."""
        if self._connection is None:
            return None
        try:
            data = self._connection.recv()
        except UpbitBackboneError as error:
            return ConnectionLost(one_line(error), ABNORMAL_CLOSE)
        return ConnectionLost("ended without a close frame", ABNORMAL_CLOSE) if data == b"" else data

    def send(self, send: Callable[[Connection], object]) -> ConnectionLost | None:
        """Send something; a failure is the end of the line, because half a frame may be out."""
        if self._connection is None:
            return None
        try:
            send(self._connection)
        except UpbitBackboneError as error:
            return ConnectionLost(one_line(error), ABNORMAL_CLOSE)
        return None

    def drop(self, code: int | None) -> None:
        """Give the connection back; with a `code`, say goodbye first."""
        # Taken out first, so that a second drop, or an abort that comes now, finds nothing.
        connection, self._connection = self._connection, None
        if connection is None:
            return
        # Before it is closed: the selector finds it by its number, which is gone, or someone else's, afterwards.
        self._selector.unregister(connection)
        try:
            if code is not None:
                connection.send_close(code)
        finally:
            connection.close()

    def wake(self) -> None:
        self._waker.wake()

    def abort(self) -> None:
        """Cut the connection under an owner that is stuck in it."""
        # Read once, because its owner may drop it meanwhile; to abort one that is closed by now does nothing.
        connection = self._connection
        if connection is not None:
            connection.abort()

    def release(self) -> None:
        """The end: nothing stays open."""
        self.drop(None)
        self._selector.close()
        self._waker.close()

    def __repr__(self) -> str:
        return f"<SessionSocket {self._connection!r}>"
