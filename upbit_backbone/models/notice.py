"""What a stream says about itself, as opposed to about the market."""

from __future__ import annotations

from dataclasses import dataclass

from .topic import Topic


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
