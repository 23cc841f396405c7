"""Everything a lifecycle can ask its session to do, in the order in which it is to be done."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import RateLimitError
from ..models.events import Event
from ..models.topic import Topic
from .mute_topics import Question


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
    | TellSubscribed
    | TellInterrupted
    | Emit
    | AskSilent
    | StartProbe
    | ReportRefusal
    | BecameIdle
)
