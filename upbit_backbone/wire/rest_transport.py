"""REST transport: GET requests to one host; bytes back by the deadline, or an error of ours.

Every worker takes a line (a kept connection) from a stack and puts it back, so a line belongs to one thread at a time
and the warmest one is used first. Nothing here knows limits, retries or meanings: see `channels`.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from .._concurrency import Deadline, Flag, ForkGuard, raise_if_users
from ..errors import ClosedError, MessageTooBigError, NetworkError, ProtocolError, one_line
from ..exchange.endpoints import RestCall
from .dialing import proxy_for
from .trust import tls_context

if TYPE_CHECKING:
    from .http_connection import Exchange, HttpConnection
    from .io_deadline import Departure

# A line unused for longer is not trusted: servers close idle connections, and a request written into a closed one costs
# a second attempt.
IDLE_SECONDS: Final = 30.0
# The largest answer measured, books of 855 markets, was 2.3 MB.
MAX_BODY_BYTES: Final = 16 * 1024 * 1024
MAX_ERROR_BODY_BYTES: Final = 4096  # a name and a sentence; a gateway's page of HTML says no more in its rest
# JSON lists of Upbit's shrink to a tenth; beyond this it is no answer but a bomb.
MAX_RATIO: Final = 200
SMALL_BYTES: Final = 1024 * 1024


class RestResponse(NamedTuple):
    """What the server said: names in `headers` are looked up in lower case; `elapsed` in seconds.

    `received_at` is given where somebody wrote it down, so that a recording and its replay agree. `asked_at` is when
    the question was, by `time.monotonic`, where it was asked just now.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    elapsed: float
    wire_bytes: int
    received_at: datetime | None = None
    asked_at: float | None = None


class Transport(Protocol):
    """What others need of `RestTransport`, and what stands in front of it or instead of it offers as well."""

    def get(self, call: RestCall, deadline: Deadline, departure: Departure | None = None) -> RestResponse: ...

    def close(self) -> None: ...


class RestTransport:
    """One REST host. Usable from any number of threads; every call has its own total deadline."""

    def __init__(
        self,
        base_url: str,
        *,
        ca_file: str | None = None,
        proxy: str | None = None,
        connect_seconds: float = 5.0,
    ) -> None:
        # Loaded by who makes a transport and not by who imports us, because requests costs more to import than all
        # of ours; and not at the first question, because beside a thread that computes all the time every file read
        # waits for its turn.
        from .http_connection import Caps, Destination

        parts = urlsplit(base_url)
        is_secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._destination = Destination(
            base_url,
            self._host,
            parts.port or (443 if is_secure else 80),
            tls_context(ca_file) if is_secure else None,
            proxy_for(base_url, proxy),
            connect_seconds,
            user_agent=f"upbit-backbone/{_own_version()}",
        )
        self._caps = Caps(MAX_BODY_BYTES, MAX_ERROR_BODY_BYTES)
        self._guard = ForkGuard("REST transport")
        self._stop = Flag()
        self._lock = threading.Lock()  # guards _free and _busy
        self._free: list[HttpConnection] = []
        self._busy: set[HttpConnection] = set()

    def get(self, call: RestCall, deadline: Deadline, departure: Departure | None = None) -> RestResponse:
        """The answer by `deadline`, whatever its status. `departure` is told when the request leaves.

        Raises RequestTimeoutError, NetworkError, TlsError, ProtocolError, MessageTooBigError or ClosedError. A kept
        connection that turns out to be dead is replaced once, unseen.
        """
        self._guard.check()
        started = time.monotonic()
        line = self._take()
        try:
            try:
                exchange = self._exchange(line, call, deadline, departure)
            except NetworkError:
                # Only where not a byte of an answer came on a kept connection: then the server had hung up before it
                # read the request, and asking again is not a second try of something that may have been counted twice.
                if not line.is_stale or deadline.expired:
                    raise
                # A new one for certain: those still in the stack are as old as the one that was dead.
                line = self._take(fresh=True)
                exchange = self._exchange(line, call, deadline, departure)
            self._give_back(line)
        except BaseException:
            self._drop(line)  # once more: after Ctrl-C on the way nobody else would ever hang up
            raise
        body = _decoded(exchange, call)
        elapsed = time.monotonic() - started
        return RestResponse(exchange.status, exchange.headers, body, elapsed, len(exchange.body), asked_at=started)

    def _exchange(
        self, line: HttpConnection, call: RestCall, deadline: Deadline, departure: Departure | None
    ) -> Exchange:
        what = f"{call.path} at {self._host}"
        try:
            return line.get(call.target, what, deadline, departure, self._caps)
        except BaseException as error:
            # Whatever the error was, where the stream stands is unknown: the next answer read from it could be that of
            # this request.
            self._drop(line)
            # requests and urllib3 make an error of their own of an alarm of the user's that goes off in them.
            raise_if_users(error)
            if self._stop.is_set() and isinstance(error, NetworkError):
                raise ClosedError(f"{what}: called off because its owner was closed") from error  # we cut it ourselves
            raise

    def _take(self, fresh: bool = False) -> HttpConnection:
        with self._lock:
            if self._stop.is_set():
                raise ClosedError("the REST transport is closed")
            line, outdated = self._pop_free(fresh)
        for each in outdated:
            each.hang_up()
        line = line or self._new_line()
        try:
            with self._lock:
                self._busy.add(line)
        except BaseException:  # Ctrl-C: whoever asked for it does not get it
            self._drop(line)
            raise
        return line

    def _drop(self, line: HttpConnection) -> None:
        with self._lock:
            # Before it is hung up: `close` may cut what is busy, and must not cut a number that was given back.
            self._busy.discard(line)
            if line in self._free:
                self._free.remove(line)
        line.hang_up()

    def _pop_free(self, fresh: bool) -> tuple[HttpConnection | None, list[HttpConnection]]:
        """The warmest line, unless a fresh one is wanted; and those that a router may have forgotten meanwhile."""
        oldest = time.monotonic() - IDLE_SECONDS
        outdated = [line for line in self._free if line.used_at < oldest]
        self._free = [line for line in self._free if line.used_at >= oldest]
        return (self._free.pop() if self._free and not fresh else None), outdated

    def _new_line(self) -> HttpConnection:
        from .http_connection import HttpConnection

        return HttpConnection(self._destination, self._stop)

    def _give_back(self, line: HttpConnection) -> None:
        line.used_at = time.monotonic()
        with self._lock:
            self._busy.discard(line)
            # Looked at under the lock, as `close` empties the stack under it: otherwise a line given back in between
            # would stay open for ever.
            is_wanted = not self._stop.is_set()
            if is_wanted:
                self._free.append(line)
        if not is_wanted:
            line.hang_up()

    def close(self) -> None:
        """Cut every connection; calls under way end at once with ClosedError. Safe to call again."""
        if self._guard.is_foreign:
            return
        # First, so that whoever takes or gives back a line from now on sees it.
        self._stop.set()
        with self._lock:
            free, self._free = self._free, []
            busy = list(self._busy)
        for line in free:
            line.hang_up()
        # Cut, not closed: closing a socket that another thread is reading would free its number under that thread.
        for line in busy:
            line.interrupt()

    def __repr__(self) -> str:
        state = "closed" if self._stop.is_set() else f"{len(self._free)} idle, {len(self._busy)} busy"
        return f"<RestTransport {self._host}:{self._destination.port} {state}>"


def _decoded(exchange: Exchange, call: RestCall) -> bytes:
    """The body's plain bytes, within the cap."""
    is_error = exchange.status >= 400
    if exchange.is_cut and not is_error:
        raise MessageTooBigError(f"{call.path}: an answer of more than {MAX_BODY_BYTES} bytes")
    said = exchange.headers.get("content-encoding", "")
    codings = [coding for each in said.split(",") if (coding := each.strip().lower()) not in ("", "identity")]
    # Only what was asked for is taken: nested encodings are another way to make a bomb.
    if not codings or not exchange.body:
        return exchange.body
    if codings not in (["gzip"], ["x-gzip"]):  # two names of one thing (RFC 9110, 8.4.1.3)
        raise ProtocolError(f"{call.path}: Content-Encoding {one_line(said, 40)}, which was never asked for")
    return _gunzipped(exchange.body, call, is_error)


def _gunzipped(data: bytes, call: RestCall, is_error: bool) -> bytes:
    # Bounded by the ratio as well as by the size, so that a small bomb is found out before 16 MiB of it are unpacked.
    cap = MAX_ERROR_BODY_BYTES if is_error else min(MAX_BODY_BYTES, max(SMALL_BYTES, len(data) * MAX_RATIO))
    pieces: list[bytes] = []
    room = cap + 1
    is_whole = False
    try:
        while data and room > 0:
            # A gzip stream may consist of several members, one after the other; one decompressor stops after the first.
            unzipper = zlib.decompressobj(16 + zlib.MAX_WBITS)
            piece = unzipper.decompress(data, room)
            pieces.append(piece)
            room -= len(piece)
            data = unzipper.unused_data
            is_whole = unzipper.eof
    except zlib.error as theirs:
        raise ProtocolError(f"{call.path}: the gzip data is damaged: {one_line(theirs)}") from theirs
    if is_error:
        return b"".join(pieces)[:cap]
    if room <= 0:
        raise MessageTooBigError(f"{call.path}: more than {cap} bytes in a compressed answer")
    # A cut stream unpacks without an error as far as it goes; only its missing end tells.
    if not is_whole:
        raise NetworkError(f"{call.path}: the compressed answer was cut off in the middle")
    return b"".join(pieces)


@cache
def _own_version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # slow to import, and not needed before

    try:
        return version("upbit-backbone")
    except PackageNotFoundError:
        return "0"
    except OSError as theirs:
        raise NetworkError(f"no REST transport can be made: {one_line(theirs)}") from theirs
