"""Rows of history that came and cannot be read: holes that are told, never a silently shorter answer. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

from ..errors import MalformedDataError, one_line
from ..models.events import HistoryGapEvent
from ..unify.reader import UnreadRow
from ..unify.rest import Rows, UnreadablePageError, unread_of

Model = TypeVar("Model")


def rows_of(error: UnreadablePageError) -> Rows[Model]:
    """The page that `error` is about: nothing but holes. Raises it where they do not even tell when they are."""
    # A hole without a time cannot be told nor asked for again.
    if any(row.at is None for row in error.unread):
        raise error
    return Rows((), error.unread)


def holes_in(rows: Sequence[object]) -> list[datetime]:
    """When the unreadable ones among `rows` are, oldest first, as far as they tell."""
    return sorted({row.at for row in unread_of(rows) if row.at is not None})


def told(symbol: str, kind: str, unread: Sequence[UnreadRow], now: datetime) -> HistoryGapEvent:
    """The event for the unreadable rows of one page; `kind` is "trade" or our word for the timeframe."""
    times = sorted(row.at for row in unread if row.at is not None)
    return HistoryGapEvent(
        at=now,
        symbol=symbol,
        kind=kind,
        count=len(unread),
        first=times[0] if times else None,
        last=times[-1] if times else None,
        reason=one_line(unread[0].error),
    )


def nothing_left(symbol: str, unread: Sequence[UnreadRow]) -> MalformedDataError:
    """The error where all that was asked for cannot be read."""
    return MalformedDataError(f"{symbol}: nothing of Upbit's answer can be read: {unread[0].error}")
