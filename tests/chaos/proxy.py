"""A TCP proxy that misbehaves on request: late, narrow, in crumbs, cut off, frozen, deaf, or gone."""

from __future__ import annotations

import random
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType

from upbit_backbone._concurrency import Deadline, join_all, spawn

Address = tuple[str, int]

READ_BYTES = 65_536
FULL_BYTES = 262_144  # a pipe that holds more is not read into, so that the pressure reaches the sender
RETRY_SECONDS = 0.002
RST = struct.pack("ii", 1, 0)  # SO_LINGER: a close that resets


@dataclass(slots=True)
class Toxics:
    """What is wrong with the line at the moment. Times in seconds, amounts in bytes."""

    latency: float = 0.0
    jitter: float = 0.0
    bandwidth: float = 0.0  # per second towards the client; 0: no limit
    slices: int = 0  # towards the client, at most so many bytes in one piece; 0: as they come


@dataclass(slots=True, eq=False)
class Pipe:
    """One direction of one connection."""

    source: socket.socket
    sink: socket.socket
    is_downstream: bool
    waiting: deque[tuple[float, bytes]] = field(default_factory=deque)
    held: int = 0
    free_at: float = 0.0
    due: float = 0.0
    passed: int = 0
    has_ended: bool = False


@dataclass(slots=True, eq=False)
class Pair:
    """One connection through the proxy."""

    client: socket.socket
    server: socket.socket
    up: Pipe
    down: Pipe
    limit: int | None
    is_frozen: bool = False


class ChaosProxy:
    """Forwards to `upstream` (an address, or the path of a socket), on one thread of its own, until `close`. The verbs
    may be called from any thread."""

    def __init__(self, upstream: Address | str, *, host: str = "127.0.0.1", port: int = 0, seed: int = 1) -> None:
        self._upstream = upstream
        self._random = random.Random(seed)
        self._lock = threading.Lock()  # guards everything below; the thread holds it while it acts
        self._toxics = Toxics()
        self._limits: deque[int] = deque()
        self._pairs: list[Pair] = []
        self._is_deaf = False
        self._deaf: list[socket.socket] = []
        self._stopping = False
        self.accepted: list[float] = []
        self.recorded: list[bytes] = []
        self._selector = selectors.DefaultSelector()
        self._bell, self._rope = socket.socketpair()
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._listener: socket.socket | None = None
        self.address: Address = (host, port)
        self._listen()
        self._thread = spawn(self._run, "test-chaos-proxy")

    # Verbs

    def set(self, **toxics: float) -> None:
        """The toxics from now on; those not named are off."""
        with self._lock:
            self._toxics = Toxics(**toxics)  # type: ignore[arg-type]
        self._ring()

    def cut_after(self, limits: Iterable[int]) -> None:
        """The coming connections are cut after so many bytes towards the client, one number each."""
        with self._lock:
            self._limits.extend(limits)

    @property
    def cuts_left(self) -> int:
        return len(self._limits)

    def freeze(self) -> None:
        """The present connections stay open, but nothing passes any more; new ones are fine."""
        with self._lock:
            for pair in self._pairs:
                pair.is_frozen = True
                for pipe in (pair.up, pair.down):
                    self._ignore(pipe)

    def blackhole(self, is_deaf: bool = True) -> None:
        """New connections are accepted and never heard of again."""
        with self._lock:
            self._is_deaf = is_deaf

    def go_away(self) -> None:
        """No listener, and everything open is reset."""
        with self._lock:
            self._stop_listening()
            self._end_all()
        self._ring()

    def come_back(self) -> None:
        with self._lock:
            if self._listener is None:
                self._listen()
        self._ring()

    def close(self) -> None:
        with self._lock:
            self._stopping = True
            self._ring()  # here: once the thread sees that it is to stop, it closes what rings it
        assert join_all([self._thread], Deadline.after(5)) == []

    # The thread

    def _run(self) -> None:
        try:
            while True:
                ready = self._selector.select(self._pause())
                with self._lock:
                    if self._stopping:
                        return
                    for key, _ in ready:
                        self._serve(key.fileobj, key.data)
                    for pair in list(self._pairs):
                        self._pump(pair)
        finally:
            self._end_all()
            self._stop_listening()
            self._selector.close()
            self._bell.close()
            self._rope.close()

    def _pause(self) -> float:
        now = time.monotonic()
        with self._lock:
            dues = [pipe.due for pair in self._pairs if not pair.is_frozen
                    for pipe in (pair.up, pair.down) if pipe.waiting]  # fmt: skip
        return max(0.0, min([due - now for due in dues], default=0.5))

    def _serve(self, what: object, pair_and_pipe: object) -> None:
        if what is self._bell:
            self._bell.recv(READ_BYTES)
        elif what is self._listener:
            self._accept()
        elif isinstance(pair_and_pipe, tuple):
            pair, pipe = pair_and_pipe
            if pair in self._pairs:
                self._take(pair, pipe)

    def _accept(self) -> None:
        assert self._listener is not None
        client, _ = self._listener.accept()
        self.accepted.append(time.monotonic())
        if self._is_deaf:
            self._deaf.append(client)
            return
        try:
            server = _connected(self._upstream)
        except OSError:
            _reset(client)
            return
        for each in (client, server):
            each.setblocking(False)
            if each.family != socket.AF_UNIX:
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        limit = self._limits.popleft() if self._limits else None
        pair = Pair(client, server, Pipe(client, server, False), Pipe(server, client, True), limit)
        self._pairs.append(pair)
        for pipe in (pair.up, pair.down):
            self._selector.register(pipe.source, selectors.EVENT_READ, (pair, pipe))

    def _take(self, pair: Pair, pipe: Pipe) -> None:
        try:
            data = pipe.source.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._end(pair)
            return
        if not data:
            pipe.has_ended = True
            self._ignore(pipe)
            return
        if pipe.is_downstream:
            self.recorded.append(data)
        pipe.waiting.append((time.monotonic() + self._lateness(), data))
        pipe.due = max(pipe.waiting[0][0], pipe.free_at)
        pipe.held += len(data)
        if pipe.held > FULL_BYTES:
            self._ignore(pipe)

    def _lateness(self) -> float:
        toxics = self._toxics
        return max(0.0, toxics.latency + self._random.uniform(-toxics.jitter, toxics.jitter))

    def _pump(self, pair: Pair) -> None:
        if pair.is_frozen:
            return
        for pipe in (pair.up, pair.down):
            if not self._pump_pipe(pair, pipe):
                self._end(pair)
                return
            if pipe.has_ended and not pipe.waiting:
                self._end(pair, graceful=True)
                return
            is_ignored = pipe.source not in self._selector.get_map()
            if is_ignored and not pipe.has_ended and pipe.held < FULL_BYTES:
                self._selector.register(pipe.source, selectors.EVENT_READ, (pair, pipe))

    def _pump_pipe(self, pair: Pair, pipe: Pipe) -> bool:
        """Pass on what is due; False when the connection is to end."""
        now = time.monotonic()
        while pipe.waiting and max(pipe.waiting[0][0], pipe.free_at) <= now:
            due, data = pipe.waiting.popleft()
            piece = data[: self._piece(pair, pipe, len(data))]
            try:
                sent = pipe.sink.send(piece) if piece else 0
            except BlockingIOError:
                pipe.waiting.appendleft((due, data))
                pipe.free_at = now + RETRY_SECONDS
                break
            except OSError:
                return False
            pipe.passed += sent
            pipe.held -= sent
            if sent < len(data):
                pipe.waiting.appendleft((due, data[sent:]))
            if pipe.is_downstream and self._toxics.bandwidth:
                pipe.free_at = max(pipe.free_at, now) + sent / self._toxics.bandwidth
            if pipe.is_downstream and pair.limit is not None and pipe.passed >= pair.limit:
                return False
        if pipe.waiting:
            pipe.due = max(pipe.waiting[0][0], pipe.free_at)
        return True

    def _piece(self, pair: Pair, pipe: Pipe, size: int) -> int:
        if not pipe.is_downstream:
            return size
        if self._toxics.slices:
            size = min(size, self._random.randint(1, self._toxics.slices))
        if self._toxics.bandwidth:
            size = min(size, max(1, int(self._toxics.bandwidth / 50)))
        return size if pair.limit is None else min(size, pair.limit - pipe.passed)

    def _ignore(self, pipe: Pipe) -> None:
        if pipe.source in self._selector.get_map():
            self._selector.unregister(pipe.source)

    def _end(self, pair: Pair, *, graceful: bool = False) -> None:
        self._pairs.remove(pair)
        for pipe in (pair.up, pair.down):
            self._ignore(pipe)
        for each in (pair.client, pair.server):
            each.close() if graceful else _reset(each)

    def _end_all(self) -> None:
        for pair in list(self._pairs):
            self._end(pair)
        for each in self._deaf:
            _reset(each)
        self._deaf.clear()

    def _listen(self) -> None:
        self._listener = socket.create_server(self.address)
        self.address = self._listener.getsockname()[:2]
        self._selector.register(self._listener, selectors.EVENT_READ)

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            self._selector.unregister(listener)
            listener.close()

    def _ring(self) -> None:
        self._rope.send(b"!")

    def __enter__(self) -> ChaosProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ChaosProxy {self.address} → {self._upstream}, {len(self._pairs)} connections, {self._toxics}>"


def _reset(each: socket.socket) -> None:
    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    each.close()


def _connected(upstream: Address | str) -> socket.socket:
    if not isinstance(upstream, str):
        return socket.create_connection(upstream, 2.0)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(upstream)
    except OSError:
        connection.close()
        raise
    return connection
