"""Inputs and effects: what a lifecycle is told, and what it asks its session to do, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import RateLimitError, UpbitBackboneError
from ..models.events import Event
from ..models.request import SubscriptionRequest, Topic
from ..models.session import Notice
from ..wire.frames import FrameEvent
from .stall_detectors import Question

# Everything that can happen to a session: commands from others, results of effects, time.


@dataclass(frozen=True, slots=True)
class SubscriptionsChanged:
    """This is the whole set that is wanted from now on."""

    requests: frozenset[SubscriptionRequest]


@dataclass(frozen=True, slots=True)
class CloseRequested:
    """The end, for good."""


@dataclass(frozen=True, slots=True)
class ReconnectRequested:
    """Somebody outside has reason to mistrust the line."""

    reason: str


@dataclass(frozen=True, slots=True)
class RetryRequested:
    """Whoever waits between two attempts makes the next one now; changes nothing in any other state."""


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
class ConnectionLost:
    """The connection ended without a close frame, or reading or writing failed."""

    reason: str
    code: int | None = None


@dataclass(frozen=True, slots=True)
class Ponged:
    """A pong came on the connection `epoch`; all that came before it is with the sink."""

    epoch: int
    payload: bytes


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
    SubscriptionsChanged
    | CloseRequested
    | ReconnectRequested
    | RetryRequested
    | BanImposed
    | Opened
    | OpenFailed
    | OpenDeferred
    | Received
    | Heard
    | ConnectionLost
    | Ponged
    | Noticed
    | SilentFound
    | ProbeAnswered
    | ClockJumped
    | Crashed
    | Tick
)


# Everything a lifecycle can ask its session to do, in the order in which it is to be done.


@dataclass(frozen=True, slots=True)
class Dial:
    """Get permission and connect; answer with Opened, OpenFailed or OpenDeferred."""


@dataclass(frozen=True, slots=True)
class SendText:
    text: str


@dataclass(frozen=True, slots=True)
class SendPing:
    payload: bytes


@dataclass(frozen=True, slots=True)
class SendPong:
    payload: bytes


@dataclass(frozen=True, slots=True)
class Drop:
    """Give the connection back. With a `code`, say goodbye first."""

    code: int | None


@dataclass(frozen=True, slots=True)
class Deliver:
    """Hand these messages to the sink; answer with Noticed."""

    epoch: int
    frames: list[bytes]


@dataclass(frozen=True, slots=True)
class HearPong:
    """A pong came behind the messages that are being delivered; answer with Ponged."""

    epoch: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class TellSubscribed:
    epoch: int
    topics: frozenset[Topic]


@dataclass(frozen=True, slots=True)
class TellInterrupted:
    epoch: int
    topics: frozenset[Topic]
    reason: str


@dataclass(frozen=True, slots=True)
class Emit:
    event: Event


@dataclass(frozen=True, slots=True)
class AskSilent:
    """Find out which of the question's topics had no frame since then; answer with SilentFound."""

    epoch: int
    question: Question


@dataclass(frozen=True, slots=True)
class StartProbe:
    """Ask REST, in the background, whether `topics` were traded meanwhile; answer with ProbeAnswered."""

    epoch: int
    topics: frozenset[Topic]
    whole_line: bool


@dataclass(frozen=True, slots=True)
class ShedLoad:
    """The line is too slow for what is subscribed on it: let others carry some, and nobody what nobody needs."""


@dataclass(frozen=True, slots=True)
class ReportRefusal:
    """Upbit answered 429 or 418: the rest of the process must know."""

    error: RateLimitError


@dataclass(frozen=True, slots=True)
class BecameIdle:
    """The connection was closed because nobody wants anything; the session may be retired."""


Effect = (
    Dial
    | SendText
    | SendPing
    | SendPong
    | Drop
    | Deliver
    | HearPong
    | TellSubscribed
    | TellInterrupted
    | Emit
    | AskSilent
    | StartProbe
    | ShedLoad
    | ReportRefusal
    | BecameIdle
)
