"""Session I/O: the session's socket and the wake-up that interrupts its wait."""

from __future__ import annotations

import contextlib
import select
import selectors
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from ..errors import NetworkError, UpbitBackboneError, one_line
from .messages import ConnectionLost
from .ports import Connection

# Wakes a thread out of its wait: a socket pair, because only sockets can be waited for everywhere.

_DRAIN_BYTES: Final = 4096


class WakeupSocket:
    """`wake()` from any thread, also after `close()`; the owner waits for `fileno()` and calls `clear()`."""

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


# Waiting for whichever of a few sockets can be read first.

MILLISECONDS: Final = 1000.0
ABNORMAL_CLOSE: Final = 1006


class Poll(Protocol):
    """What of `select.poll` is used."""

    def register(self, fd: int, events: int, /) -> object: ...

    def unregister(self, fd: int, /) -> object: ...

    def poll(self, milliseconds: float, /) -> Sequence[tuple[int, int]]:
        """Number and event of each socket that can be read; none once the time is up."""


class SelectorPoll:
    """As `select.poll`, where the system has none."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def register(self, fd: int, events: int, /) -> None:
        self._selector.register(fd, selectors.EVENT_READ)

    def unregister(self, fd: int, /) -> None:
        self._selector.unregister(fd)

    def poll(self, milliseconds: float, /) -> list[tuple[int, int]]:
        return [(key.fd, events) for key, events in self._selector.select(milliseconds / MILLISECONDS)]

    def close(self) -> None:
        self._selector.close()


def new_poll() -> Poll:
    """poll(2) itself: what `selectors` lays around it costs a waking thread as much again as the wait."""
    plain: Callable[[], Poll] | None = getattr(select, "poll", None)
    return SelectorPoll() if plain is None else plain()


def _received(connection: Connection) -> bytes | ConnectionLost | None:
    try:
        data = connection.recv()
    except UpbitBackboneError as error:
        return ConnectionLost(one_line(error), ABNORMAL_CLOSE)
    if data or data is None:
        return data
    return ConnectionLost("ended without a close frame", ABNORMAL_CLOSE)


# The one connection a session has at a time, and the wait for it and for others. Owned by the session's thread.

_READABLE: Final[int] = getattr(select, "POLLIN", selectors.EVENT_READ)


class SessionSocket:
    """`wake` and `abort` may be called from any thread, everything else by the owner only."""

    def __init__(self) -> None:
        self._connection: Connection | None = None
        try:
            self._waker = WakeupSocket()
        except OSError as theirs:
            raise NetworkError(f"no sockets to be had: {one_line(theirs)}") from theirs
        try:
            self._poll = new_poll()
        except OSError as theirs:
            self._waker.close()
            raise NetworkError(f"no selector to be had: {one_line(theirs)}") from theirs
        self._waker_fd = self._waker.fileno()
        self._connection_fd = -1
        self._poll.register(self._waker_fd, _READABLE)
        self._pause: Poll | None = None  # made when first needed: it waits for the wake-up alone

    @property
    def has_unread(self) -> bool:
        """Whether bytes were taken from the system that no selector knows of."""
        return self._connection is not None and bool(self._connection.pending())

    def take(self, connection: Connection) -> None:
        """Use this connection from now on."""
        self._connection = connection  # first: an abort that comes before the registration has something to cut
        self._connection_fd = connection.fileno()
        self._poll.register(self._connection_fd, _READABLE)

    def read(self, seconds: float) -> bytes | ConnectionLost | None:
        """What comes within so many seconds; None once they are over, or somebody has woken us."""
        connection = self._connection
        # TLS may hold decrypted bytes that no selector knows of: waiting for the socket would wait for the next packet.
        if connection is None or not connection.pending():
            for fd, _ in self._poll.poll(seconds * MILLISECONDS if seconds > 0.0 else 0.0):
                if fd == self._waker_fd:
                    self._waker.clear()
        return None if connection is None else _received(connection)

    def gather(self, seconds: float) -> bytes | ConnectionLost | None:
        """What has come when so long has passed, without a further wait; None if nothing has, or somebody has woken us,
        of which `read` hears then."""
        if self._pause is None:
            self._pause = new_poll()
            self._pause.register(self._waker_fd, _READABLE)
        # To ask first whether there is something would give up the GIL a second time, for what is nearly always so.
        is_woken = self._pause.poll(seconds * MILLISECONDS)
        connection = self._connection
        return None if is_woken or connection is None else _received(connection)

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
        # Before it is closed: its number may be someone else's afterwards.
        self._poll.unregister(self._connection_fd)
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
        for poll in (self._poll, self._pause):
            if isinstance(poll, SelectorPoll):
                poll.close()
        self._waker.close()

    def __repr__(self) -> str:
        return f"<SessionSocket {self._connection!r}>"
