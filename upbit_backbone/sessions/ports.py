"""Ports: what sessions need from others; a connection, somebody who takes the frames, a probe by REST."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from .._concurrency import Clock, Deadline, Waitable
from ..errors import RateLimitError
from ..models.enums import DataSource
from ..models.events import Event
from ..models.request import Topic
from ..models.session import Notice, SessionHealth
from .gathering import Gathering


class Connection(Protocol):
    """An open WebSocket, or what stands in for one, owned by one I/O thread; only `abort` may be called from others."""

    @property
    def source(self) -> DataSource:
        """What the data that comes on it carries."""

    def fileno(self) -> int: ...

    def pending(self) -> int: ...

    def recv(self) -> bytes | None:
        """What is there, without waiting: None if nothing is, b"" at the end. NetworkError when broken."""

    def send_text(self, text: str) -> None: ...

    def send_ping(self, payload: bytes = b"") -> None: ...

    def send_pong(self, payload: bytes = b"") -> None: ...

    def send_close(self, code: int = 1000) -> bool: ...

    def abort(self) -> None: ...

    def close(self) -> None: ...


class Dial(Protocol):
    """Opens a connection by `deadline`, or raises an error of ours; setting `stop` calls it off."""

    def __call__(self, deadline: Deadline, *, stop: Waitable) -> Connection: ...


class FrameSink(Protocol):
    """Takes what sessions receive. Called on the session's thread: never blocks, never raises."""

    def frames(self, health: SessionHealth, epoch: int, frames: Sequence[bytes], monotonic: float) -> Sequence[Notice]:
        """Data of this epoch, in wire order. Returns what concerns the session itself.

        In `health` it notes when something new came (`news_at`) and how late that was.
        """

    def subscribed(self, health: SessionHealth, epoch: int, topics: frozenset[Topic]) -> None:
        """The session now streams exactly `topics`.

        Those that were not in the previous set of the same epoch await their first frame; those no longer in
        it are not streamed any more. An empty set: the connection was closed because nobody wanted anything.
        """

    def interrupted(self, health: SessionHealth, epoch: int, topics: frozenset[Topic], reason: str) -> None:
        """The line was lost, and with it the streams of `topics`, which are still wanted."""


# `FrameSink.frames` alone.
TakeFrames = Callable[[SessionHealth, int, Sequence[bytes], float], Sequence[Notice]]
Emit = Callable[[Event], None]
# Blocks until a connect is allowed or the deadline is near; raises RateLimitError, BannedError or a timeout. What it
# gives is entered before connecting and left when that is over.
# The second argument: whether the session's line was open before and broke.
TurnToConnect = Callable[[Deadline, bool], AbstractContextManager[None]]
# Told of every 429 and 418 at the handshake, so that the whole process can keep them.
Refused = Callable[[RateLimitError], None]
# Of which topics REST shows something newer than the stream gave; none, if all are quiet. None: unknown. Blocks.
Probe = Callable[[frozenset[Topic]], frozenset[Topic] | None]
RunJob = Callable[[Callable[[], None]], object]
# How many messages of a session could not be understood; whoever decodes them counts.
Malformed = Callable[[str], int]
# Which of these topics had no frame since the given monotonic time.
SilentTopics = Callable[[frozenset[Topic], float], frozenset[Topic]]


class Collaborators(NamedTuple):
    """Whom sessions work with; the same for all sessions of a manager."""

    clock: Clock
    dial: Dial
    sink: FrameSink
    emit: Emit
    turn_to_connect: TurnToConnect
    refused: Refused
    probe: Probe
    run_job: RunJob
    silent_topics: SilentTopics | None
    malformed: Malformed
    connect_seconds: float
    gathering: Gathering
