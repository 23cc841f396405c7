"""I/O deadline: waiting on a socket with an end; one deadline and one `stop` over many non-blocking steps.

A timeout per socket call, which is all that sockets and websocket-client offer, never ends against a server
that drips bytes. Here every step looks at the same deadline, and at the same `stop`, four times a second; so does the
socket that http.client gets.
"""

from __future__ import annotations

import contextlib
import io
import selectors
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from .. import errors
from .._concurrency import WAIT_SLICE_SECONDS, Deadline, Flag, Waitable, raise_if_users
from .http_head import END_OF_HEAD, MAX_HEAD_BYTES, MAX_INTERIM_ANSWERS, Head, looks_like_http, parse_head
from .trust import remedy

READ: Final = selectors.EVENT_READ
WRITE: Final = selectors.EVENT_WRITE
HEAD_READ_BYTES: Final = 16_384

T = TypeVar("T")


class IoDeadline:
    """How long a wait may last: until `deadline`, or until somebody sets `stop`."""

    def __init__(self, what: str, deadline: Deadline, stop: Waitable | None = None) -> None:
        self.what = what
        self._deadline = deadline
        self._stop = stop

    def check(self) -> None:
        # Asked first: who was closed shall hear that, though the deadline may have passed as well.
        if self._stop is not None and self._stop.is_set():
            raise errors.ClosedError(f"{self.what}: called off because its owner was closed")
        if self._deadline.expired:
            raise errors.RequestTimeoutError(f"{self.what}: not finished by its deadline")

    def about(self, what: str) -> IoDeadline:
        """The same for a part of it, which its errors name."""
        return IoDeadline(what, self._deadline, self._stop)

    def sooner(self, seconds: float) -> IoDeadline:
        return IoDeadline(self.what, self._deadline.sooner(seconds), self._stop)

    def share(self, part: float) -> IoDeadline:
        return IoDeadline(self.what, self._deadline.fraction(part), self._stop)

    def wait_socket(self, sock: socket.socket, events: int) -> None:
        # Not select(), which fails with descriptors above 1023.
        with selectors.DefaultSelector() as selector:
            selector.register(sock, events)
            # In slices, because `stop` cannot wake a selector, and a lock wait on Windows cannot be interrupted before
            # Python 3.14.
            while not selector.select(self._slice()):
                self.check()

    def wait_done(self, future: Future[Any]) -> None:
        done = Flag()
        future.add_done_callback(lambda _: done.set())
        while not done.wait(self._slice()):
            self.check()

    def _slice(self) -> float:
        return self._deadline.remaining_or(WAIT_SLICE_SECONDS)


def retry_until_ready(step: Callable[[], T], sock: socket.socket, io_deadline: IoDeadline, blocked_on: int = READ) -> T:
    """Repeat a non-blocking `step` until it succeeds. Third-party errors leave here as ours."""
    while True:
        io_deadline.check()
        try:
            return step()
        except BlockingIOError:
            events = blocked_on
        # TLS may have to read in order to write (and the other way round), so what to wait for is its word, not the
        # step's.
        except ssl.SSLWantReadError:
            events = READ
        except ssl.SSLWantWriteError:
            # A key update of TLS 1.3 can ask for this in the middle of a read.
            events = WRITE
        except OSError as theirs:
            raise translated(theirs, io_deadline.what) from theirs
        io_deadline.wait_socket(sock, events)


def translated(theirs: OSError, what: str) -> errors.NetworkError:
    """Our error for one of the socket's or TLS layer's."""
    if isinstance(theirs, ssl.SSLCertVerificationError):
        return errors.TlsError(
            f"{what}: certificate not accepted: {errors.one_line(theirs.verify_message)}; {remedy(theirs)}"
        )
    # A peer that hangs up in the middle of TLS is a restarting server, not one with unacceptable TLS.
    if isinstance(theirs, ssl.SSLError) and not isinstance(theirs, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return errors.TlsError(f"{what}: TLS failed: {errors.one_line(theirs.reason or theirs)}")
    return errors.NetworkError(f"{what}: {errors.one_line(theirs.strerror or theirs)}")


def send_all(sock: socket.socket, data: bytes, io_deadline: IoDeadline) -> None:
    """All of `data` or an error, after which an unknown part of it is on the wire."""
    rest = memoryview(data)
    while rest:
        rest = rest[retry_until_ready(partial(sock.send, rest), sock, io_deadline, WRITE) :]


def read_exactly(sock: socket.socket, count: int, io_deadline: IoDeadline) -> bytes:
    """So many bytes, and not one of those that come after them."""
    received = b""
    while len(received) < count:
        chunk = retry_until_ready(partial(sock.recv, count - len(received)), sock, io_deadline)
        if not chunk:
            raise errors.NetworkError(f"{io_deadline.what}: the connection was closed before an answer was complete")
        received += chunk
    return received


def read_final_head(sock: socket.socket, io_deadline: IoDeadline) -> tuple[Head, bytes]:
    """The head of the answer that counts, and whatever came with it after its end. Interim answers are read past."""
    early = b""
    for _ in range(MAX_INTERIM_ANSWERS + 1):
        raw, early = read_head(sock, io_deadline, early)
        head = parse_head(raw)
        if not head.is_interim:
            return head, early
    raise errors.ProtocolError(f"{io_deadline.what}: more than {MAX_INTERIM_ANSWERS} interim answers")


def read_head(sock: socket.socket, io_deadline: IoDeadline, early: bytes = b"") -> tuple[bytes, bytes]:
    """The bytes of an HTTP head, capped, and whatever came with it after its end; `early` is what is there already."""
    received = bytearray(early)
    end = received.find(END_OF_HEAD)
    while end < 0:
        room = MAX_HEAD_BYTES - len(received)
        if room <= 0:
            raise errors.MessageTooBigError(f"{io_deadline.what}: more than {MAX_HEAD_BYTES} bytes of HTTP headers")
        # From where the end may begin, not from the start: headers dripped byte by byte would cost quadratic time.
        searched = max(0, len(received) - len(END_OF_HEAD) + 1)
        chunk = retry_until_ready(partial(sock.recv, min(room, HEAD_READ_BYTES)), sock, io_deadline)
        if not chunk:
            raise errors.NetworkError(f"{io_deadline.what}: the connection was closed before an answer was complete")
        received += chunk
        # At once, because a peer that speaks another protocol may never send the empty line for which we would wait.
        if not looks_like_http(received):
            raise errors.ProtocolError(f"{io_deadline.what}: not HTTP: {errors.one_line(bytes(received[:40]))}")
        end = received.find(END_OF_HEAD, searched)
    return bytes(received[:end]), bytes(received[end + len(END_OF_HEAD) :])


# Deadline socket, which http.client sees: every read and write of an exchange looks at the one deadline it has.
#
# A timeout per socket call, which is all that requests offers, never ends against a server that drips bytes.

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
        self.failure: errors.UpbitBackboneError | None = None
        self._deadline = deadline
        self.departure = departure

    def wait_seconds(self) -> float:
        """How long the next read may wait before it must ask again; an error once it is too late."""
        with self.keeping_failure():
            self.io_deadline.check()
        return max(SHORTEST_WAIT_SECONDS, self._deadline.remaining_or(WAIT_SLICE_SECONDS))

    def broken(self, theirs: OSError) -> errors.UpbitBackboneError:
        self.failure = translated(theirs, self.io_deadline.what)
        return self.failure

    @contextlib.contextmanager
    def keeping_failure(self) -> Iterator[None]:
        try:
            yield
        except errors.UpbitBackboneError as ours:
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
        self._early = memoryview(b"")  # received already, and to be received once more
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

    def put_back(self, data: bytes | bytearray) -> None:
        """Who receives next gets `data` once more."""
        self._early = memoryview(bytes(data))

    def recv_into(self, buffer: Any) -> int:
        if self._early:
            count = min(len(buffer), len(self._early))
            buffer[:count], self._early = self._early[:count], self._early[count:]
            return count
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
