"""Everything that can happen to a session: commands from others, results of effects, time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UpbitBackboneError
from ..models.notice import Notice
from ..models.topic import Topic, Wish
from ..wire.frames import FrameEvent
from .mute_topics import Question


@dataclass(frozen=True, slots=True)
class WishesChanged:
    """This is the whole set that is wanted from now on."""

    wishes: frozenset[Wish]


@dataclass(frozen=True, slots=True)
class CloseRequested:
    """The end, for good."""


@dataclass(frozen=True, slots=True)
class ReconnectRequested:
    """Somebody outside has reason to mistrust the line."""

    reason: str


@dataclass(frozen=True, slots=True)
class BanImposed:
    """Upbit blocks this IP for so many seconds: neither connect nor send before that."""

    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Opened:
    """The handshake succeeded."""


@dataclass(frozen=True, slots=True)
class OpenFailed:
    """Dialling failed."""

    error: UpbitBackboneError


@dataclass(frozen=True, slots=True)
class OpenDeferred:
    """Our own limiter did not let us dial yet; nothing went on the wire."""

    error: UpbitBackboneError


@dataclass(frozen=True, slots=True)
class Received:
    """Bytes from the wire."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Heard:
    """What `Lifecycle.cut` made of bytes from the wire."""

    events: Sequence[FrameEvent]


@dataclass(frozen=True, slots=True)
class LineLost:
    """The connection ended without a close frame, or reading or writing failed."""

    reason: str
    code: int | None = None


@dataclass(frozen=True, slots=True)
class Noticed:
    """What the sink found among the frames of `epoch` that concerns the session."""

    epoch: int
    frames: int  # how many were handed over
    notices: Sequence[Notice]


@dataclass(frozen=True, slots=True)
class SilentFound:
    """Answer to AskSilent: of the topics asked about, these had no frame since that time."""

    epoch: int
    question: Question
    silent: frozenset[Topic]


@dataclass(frozen=True, slots=True)
class ProbeAnswered:
    """Answer to StartProbe: of `behind` REST shows newer trades than the stream gave. None: REST does not say."""

    epoch: int
    topics: frozenset[Topic]
    whole_line: bool
    behind: frozenset[Topic] | None


@dataclass(frozen=True, slots=True)
class ClockJumped:
    """The wall clock moved ahead of the monotonic one: the machine slept, and the line with it."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Crashed:
    """The session's own thread met an error nobody foresaw; its connection is already closed."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed. Comes after everything that was there to read at that time."""


Input = (
    WishesChanged
    | CloseRequested
    | ReconnectRequested
    | BanImposed
    | Opened
    | OpenFailed
    | OpenDeferred
    | Received
    | Heard
    | LineLost
    | Noticed
    | SilentFound
    | ProbeAnswered
    | ClockJumped
    | Crashed
    | Tick
)
