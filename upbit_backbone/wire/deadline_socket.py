"""Deadline socket, which http.client sees: every read and write of an exchange looks at the one deadline it has.

A timeout per socket call, which is all that requests offers, never ends against a server that drips bytes.
"""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any, Final, Protocol

from .._concurrency import WAIT_SLICE_SECONDS, Deadline, Waitable, raise_if_users
from ..errors import UpbitBackboneError
from .io_deadline import IoDeadline, send_all, translated

READ_BUFFER_BYTES: Final = 65_536
# A timeout of 0.0 would mean "non-blocking" to the socket, not "no time left".
SHORTEST_WAIT_SECONDS: Final = 0.001


class Departure(Protocol):
    """Who wants to know when a request leaves: right before (and may raise), and right after; and when the first of an
    answer comes."""

    def leaving(self) -> object: ...

    def sent(self) -> object: ...

    def answered(self) -> object: ...


class Watch:
    """One exchange: how long it may take, who hears of its departure, and the error it ended with.

    urllib3 would take our timeout for one of its own, so the real reason is kept here.
    """

    def __init__(
        self, what: str, deadline: Deadline, stop: Waitable | None = None, departure: Departure | None = None
    ) -> None:
        self.io_deadline = IoDeadline(what, deadline, stop)
        self.failure: UpbitBackboneError | None = None
        self._deadline = deadline
        self.departure = departure

    def wait_seconds(self) -> float:
        """How long the next read may wait before it must ask again; an error once it is too late."""
        with self.keeping_failure():
            self.io_deadline.check()
        return max(SHORTEST_WAIT_SECONDS, self._deadline.remaining_or(WAIT_SLICE_SECONDS))

    def broken(self, theirs: OSError) -> UpbitBackboneError:
        self.failure = translated(theirs, self.io_deadline.what)
        return self.failure

    @contextlib.contextmanager
    def keeping_failure(self) -> Iterator[None]:
        try:
            yield
        except UpbitBackboneError as ours:
            self.failure = ours
            raise


class DeadlineSocket:
    """What http.client uses of a socket. `watch` is replaced for each exchange."""

    def __init__(self, sock: socket.socket, watch: Watch) -> None:
        self.watch = watch
        self.requests = 0
        self.answered = False
        self.has_ended = False
        self._sock = sock
        # Guards the moment of closing, so that cut() never hits a descriptor that is someone else's by now.
        self._lock = threading.Lock()
        self._files = 0
        self._is_closed = False

    def sendall(self, data: bytes) -> None:
        self.requests += 1
        self.answered = False
        watch = self.watch
        with watch.keeping_failure():
            if watch.departure is not None:
                # Here and not before the connection was dialled: between a request's turn and its first byte a ban may
                # have come, and what was held up on its way must not be sent into it.
                watch.departure.leaving()
            send_all(self._sock, data, watch.io_deadline)
            if watch.departure is not None:
                watch.departure.sent()

    def makefile(self, mode: str, *_: Any, **__: Any) -> io.BufferedReader:
        self._files += 1
        return io.BufferedReader(_Reader(self), READ_BUFFER_BYTES)

    def recv_into(self, buffer: Any) -> int:
        while True:
            self._sock.settimeout(self.watch.wait_seconds())
            try:
                count = self._sock.recv_into(buffer)
            # A receive that timed out leaves the stream intact and may be repeated; a send that did leaves half a
            # request, so there is no such loop in `sendall`.
            except (TimeoutError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as theirs:
                raise_if_users(theirs)  # a TimeoutError of the user's, set by `signal.alarm`
                continue
            except OSError as theirs:
                raise self.watch.broken(theirs) from theirs
            # The first byte proves that the request had arrived, which is what the limiter counts by; the rest of a
            # slow body says nothing more about that.
            if count and not self.answered:
                self.answered = True
                if self.watch.departure is not None:
                    self.watch.departure.answered()
            self.has_ended = count == 0
            return count

    def fileno(self) -> int:
        return self._sock.fileno()

    def settimeout(self, _: Any) -> None:
        """Not theirs to decide."""

    def shutdown(self, how: int) -> None:
        self._sock.shutdown(how)

    def close(self) -> None:
        """No more requests. http.client says so before it has read the last answer, and expects that to work."""
        self._is_closed = True
        self._close_if_unused()

    def file_closed(self) -> None:
        self._files -= 1
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._is_closed and not self._files:
            self.destroy()

    def cut(self) -> None:
        """End the owner's reads and writes at once; from any thread."""
        with self._lock, contextlib.suppress(OSError):
            # Not SSLSocket.shutdown, which tears the TLS layer out from under the thread that is using it.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def destroy(self) -> None:
        """Give the descriptor back, whoever may still hold a file of it."""
        with self._lock:
            # Under the lock although closing alone needs none: `cut` must not run between this and the reuse of the
            # number.
            self._sock.close()


class _Reader(io.RawIOBase):
    def __init__(self, sock: DeadlineSocket) -> None:
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._sock.recv_into(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._sock.file_closed()
