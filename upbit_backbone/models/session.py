"""What a session tells about itself, as opposed to about the market: its health, and Upbit's notices."""

from __future__ import annotations

from dataclasses import dataclass

from .topic import Topic

# What a stream says about itself, as opposed to about the market.


@dataclass(frozen=True, slots=True)
class UpStatus:
    """Upbit's `{"status":"UP"}`, the answer to a text PING: a sign of life."""


@dataclass(frozen=True, slots=True)
class StreamError:
    """Upbit's error object; the server closes the connection shortly after."""

    name: str
    message: str


@dataclass(frozen=True, slots=True)
class SubscriptionList:
    """The answer to LIST_SUBSCRIPTIONS: (type, codes as Upbit spells them, level or None) per entry."""

    entries: tuple[tuple[str, tuple[str, ...], str | None], ...]
    ticket: str | None


@dataclass(frozen=True, slots=True)
class FirstFrame:
    """The first frame of a topic in the present epoch has arrived."""

    topic: Topic


@dataclass(frozen=True, slots=True)
class UnknownMessage:
    """A well-formed message of a type we do not know (yet): never an error."""

    type: str


Notice = UpStatus | StreamError | SubscriptionList | FirstFrame | UnknownMessage


# The sign of life of one WebSocket session.


class SessionHealth:
    """Written by its session's own thread only; read by anyone without a lock (each attribute is replaced whole).

    `epoch` grows with every connection, so that data from before a break can never pass for data after it.
    `heard_at` is the monotonic time of the last sign of life (data, pong or UP). `suspect` holds while a silent
    stall is suspected; `mute` are single topics proven mute while the others flow. `connected` is False from the
    moment the line is known to be lost. `clock_offset` is the wall clock minus the monotonic one when the session last
    looked: whoever finds another one later knows before the session does that the machine slept.
    """

    __slots__ = ("clock_offset", "connected", "epoch", "heard_at", "mute", "session", "suspect")

    def __init__(self, session: str) -> None:
        self.session = session
        self.epoch = 0
        self.connected = False
        self.heard_at = float("-inf")
        self.clock_offset: float | None = None
        self.suspect = False
        self.mute: frozenset[Topic] = frozenset()

    def __repr__(self) -> str:
        state = "connected" if self.connected else "not connected"
        return f"<SessionHealth {self.session} epoch {self.epoch} {state}{' suspect' if self.suspect else ''}>"
