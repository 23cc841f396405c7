"""Position: how far a subscriber has come, as a text that outlasts his program (`since=`). Pure.

One line: a mark for each topic with a past, that of the last item he was given. A trade's mark is its number and its
time, a candle's is its start.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple, Self

from ..errors import InvalidRequestError, one_line
from ..models.market import CandleData, TradeData
from ..models.request import Topic
from ..wire.relay_keys import topic_named

VERSION: Final = "position-1"
MOST_CHARACTERS: Final = 1_000_000  # thousands of markets
_MARK: Final = re.compile(r"(?P<topic>[^=\s]{1,80})=(?P<number>[0-9]{1,20})?@(?P<time>[0-9]{1,16})", re.ASCII)


class Mark(NamedTuple):
    """The last item of a topic: its time in microseconds and, of a trade, its number."""

    time: int
    number: int | None = None

    @classmethod
    def of(cls, item: TradeData | CandleData) -> Self:
        return cls.at(item.timestamp, item.sequential_id if isinstance(item, TradeData) else None)

    @classmethod
    def at(cls, moment: datetime, number: int | None = None) -> Self:
        return cls(round(moment.timestamp() * 1e6), number)

    @property
    def moment(self) -> datetime:
        return datetime.fromtimestamp(self.time // 1_000_000, UTC).replace(microsecond=self.time % 1_000_000)


def write_position(marks: Mapping[Topic, Mark]) -> str:
    """The text that `read_position` reads."""
    words = (
        f"{topic}={'' if mark.number is None else mark.number}@{mark.time}" for topic, mark in sorted(marks.items())
    )
    return " ".join([VERSION, *words])


def is_position(value: object) -> bool:
    """Whether somebody means a position by it, be it right or wrong."""
    return isinstance(value, str) and value.startswith("position-")


def read_position(text: str, topics: Iterable[Topic]) -> dict[Topic, Mark]:
    """The marks of those topics that it has any of. InvalidRequestError where it is no position, or one of others."""
    version, *words = text[:MOST_CHARACTERS].split(" ")
    found = [_MARK.fullmatch(word) for word in words]
    if version != VERSION or not all(found) or len(text) > MOST_CHARACTERS:
        raise InvalidRequestError(
            f"since={one_line(text, 60)!r}: not a position that this version wrote; expected what "
            f"subscription.position gave, which begins with {VERSION!r}"
        )
    marks = {
        topic_named(each["topic"]): Mark(int(each["time"]), None if each["number"] is None else int(each["number"]))
        for each in found
        if each is not None
    }
    wanted = {topic: marks[topic] for topic in topics if topic in marks}
    if marks and not wanted:
        raise InvalidRequestError(
            f"since={one_line(text, 60)!r}: the position of another subscription, to none of these"
        )
    return wanted
