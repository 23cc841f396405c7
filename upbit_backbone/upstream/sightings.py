"""Sightings: when each topic last moved as one relay has seen it, for others to compare with what they have seen. Pure.

Relays have lines of their own to Upbit, so each is a witness for the others, and the one that leads is for all whom it
feeds: who finds a topic silent asks Upbit only where no witness knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import msgspec

from ..models.request import Topic
from ..wire.relay_keys import topic_named

MAX_BYTES: Final = 1 << 20
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)

# When each topic last moved by Upbit's clock; None where the witness streams it and nothing has ever come.
Sightings = Mapping[Topic, datetime | None]


class _Told(msgspec.Struct):
    relay: str
    seen: dict[str, Annotated[int, msgspec.Meta(ge=0, le=10**13)] | None]


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_Told).decode


def told(relay: str, seen: Sightings) -> bytes:
    """As one text. Rounded down: what is told is never later than what was seen."""
    moments = {str(each): None if at is None else (at - _EPOCH) // _MILLISECOND for each, at in seen.items()}
    return _encode(_Told(relay, moments))


def heard(text: bytes | None, *, but_of: str = "") -> dict[Topic, datetime | None]:
    """What `told` said; nothing where there is no text, where it is none of ours, or where it is `but_of` oneself."""
    if text is None or len(text) > MAX_BYTES:
        return {}
    try:
        found = _decode(text)
    except msgspec.DecodeError:
        return {}
    if found.relay == but_of:
        return {}
    named = ((topic_named(name), at) for name, at in found.seen.items())
    return {topic: None if at is None else _EPOCH + at * _MILLISECOND for topic, at in named if topic is not None}
