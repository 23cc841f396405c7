"""Inputs and effects: what a lifecycle is told, and what it asks its session to do, in order."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from ..errors import RateLimitError, UpbitBackboneError
from ..models.events import Event
from ..models.request import SubscriptionRequest, Topic
from ..models.session import Notice
from ..wire.frames import FrameEvent
from .stall_detectors import Question

# Structs, since 33 dataclasses take 30 ms to be made, and the first subscription of a process waits for them.

# Everything that can happen to a session: commands from others, results of effects, time.


class SubscriptionsChanged(Struct, frozen=True):
    """This is the whole set that is wanted from now on."""

    requests: frozenset[SubscriptionRequest]


class CloseRequested(Struct, frozen=True):
    """The end, for good."""


class ReconnectRequested(Struct, frozen=True):
    """Somebody outside has reason to mistrust the line."""

    reason: str


class RetryRequested(Struct, frozen=True):
    """Whoever waits between two attempts makes the next one now; changes nothing in any other state."""


class BanImposed(Struct, frozen=True):
    """Upbit blocks this IP for so many seconds: neither connect nor send before that."""

    seconds: float
    reason: str


class Opened(Struct, frozen=True):
    """The handshake succeeded."""


class OpenFailed(Struct, frozen=True):
    """Dialling failed."""

    error: UpbitBackboneError


class OpenDeferred(Struct, frozen=True):
    """Our own limiter did not let us dial yet; nothing went on the wire."""

    error: UpbitBackboneError


class Received(Struct, frozen=True):
    """Bytes from the wire."""

    data: bytes


class Heard(Struct, frozen=True):
    """What `Lifecycle.cut` made of bytes from the wire."""

    events: Sequence[FrameEvent]


class ConnectionLost(Struct, frozen=True):
    """The connection ended without a close frame, or reading or writing failed."""

    reason: str
    code: int | None = None


class Ponged(Struct, frozen=True):
    """A pong came on the connection `epoch`; all that came before it is with the sink."""

    epoch: int
    payload: bytes


class Noticed(Struct, frozen=True):
    """What the sink found among the frames of `epoch` that concerns the session."""

    epoch: int
    frames: int  # how many were handed over
    notices: Sequence[Notice]


class SilentFound(Struct, frozen=True):
    """Answer to AskSilent: of the topics asked about, these had no frame since that time."""

    epoch: int
    question: Question
    silent: frozenset[Topic]


class ProbeAnswered(Struct, frozen=True):
    """Answer to StartProbe: of `behind` REST shows newer trades than the stream gave. None: REST does not say."""

    epoch: int
    topics: frozenset[Topic]
    whole_line: bool
    behind: frozenset[Topic] | None


class ClockJumped(Struct, frozen=True):
    """The wall clock moved ahead of the monotonic one: the machine slept, and the line with it."""

    seconds: float


class Crashed(Struct, frozen=True):
    """The session's own thread met an error nobody foresaw; its connection is already closed."""

    error: BaseException


class Tick(Struct, frozen=True):
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


class Dial(Struct, frozen=True):
    """Get permission and connect; answer with Opened, OpenFailed or OpenDeferred."""


class SendText(Struct, frozen=True):
    text: str


class SendPing(Struct, frozen=True):
    payload: bytes


class SendPong(Struct, frozen=True):
    payload: bytes


class Drop(Struct, frozen=True):
    """Give the connection back. With a `code`, say goodbye first."""

    code: int | None


class Deliver(Struct, frozen=True):
    """Hand these messages to the sink; answer with Noticed."""

    epoch: int
    frames: list[bytes]


class HearPong(Struct, frozen=True):
    """A pong came behind the messages that are being delivered; answer with Ponged."""

    epoch: int
    payload: bytes


class TellSubscribed(Struct, frozen=True):
    epoch: int
    topics: frozenset[Topic]


class TellInterrupted(Struct, frozen=True):
    epoch: int
    topics: frozenset[Topic]
    reason: str


class Emit(Struct, frozen=True):
    event: Event


class AskSilent(Struct, frozen=True):
    """Find out which of the question's topics had no frame since then; answer with SilentFound."""

    epoch: int
    question: Question


class StartProbe(Struct, frozen=True):
    """Ask REST, in the background, whether `topics` were traded meanwhile; answer with ProbeAnswered."""

    epoch: int
    topics: frozenset[Topic]
    whole_line: bool


class ShedLoad(Struct, frozen=True):
    """The line is too slow for what is subscribed on it: let others carry some, and nobody what nobody needs."""


class ReportRefusal(Struct, frozen=True):
    """Upbit answered 429 or 418: the rest of the process must know."""

    error: RateLimitError


class BecameIdle(Struct, frozen=True):
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
