"""Watermarks: until when, by Upbit's time, all that a stream had to give has been collected. Pure.

A stream says what it brings, never that it has brought everything. That follows from what is known of its line: while a
topic is *settled* (its line is proven to be heard, and no gap of it is open), everything Upbit published before the
newest stamps seen, less a margin, has come. What is said here is written down and believed
after a crash, so whatever is in doubt counts as not collected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Final

from ..exchange.fields import SHUFFLE
from ..exchange.timeframes import timeframe_of
from ..models.enums import DataType
from ..models.request import Topic
from .base import Span
from .columns import type_word

STATE: Final = frozenset({DataType.TICKER.value, DataType.ORDERBOOK.value})
STAMPED: Final = STATE | {DataType.TRADE.value}  # with the time of something that happened; candles have their period's

IsSettled = Callable[[Topic], bool]


class _Track:
    """One topic: collected from `start` on; `end` was said, `candidate` will be once it has proved good.

    `last` is the latest stamp, `believed` the latest but one: of a single stamp from the future nobody would get rid.
    """

    __slots__ = ("believed", "candidate", "end", "is_held", "last", "start")

    def __init__(self) -> None:
        self.start: datetime | None = None
        self.last: datetime | None = None
        self.believed: datetime | None = None
        self.candidate: datetime | None = None
        self.end: datetime | None = None
        self.is_held = False

    def restart(self) -> None:
        self.start = self.last = self.believed = self.candidate = self.end = None
        self.is_held = True


class Watermarks:
    """Used by one thread. `liveness_seconds` is how long ago a line that counts as current was heard at most."""

    def __init__(self, liveness_seconds: float) -> None:
        # What was sent before the line was last heard has come, since a line keeps its order.
        self._margin = timedelta(seconds=liveness_seconds) + SHUFFLE
        self._tracks: dict[tuple[str, str], _Track] = {}
        self._topics: dict[tuple[str, str], Topic] = {}
        self._begun: list[Span] = []

    def arrived(self, items: Iterable[Any]) -> None:
        """These were collected, in the order in which they came."""
        for item in items:
            kind, stamp = type_word(item), item.timestamp
            track = self._tracks.get((item.symbol, kind))
            if track is None:
                track = self._enter(item, kind)
            if track.start is None and not track.is_held:
                # Trades overtake each other: one that was published before the very first may be a little later by its
                # stamp. The forming candle is whole whenever it comes, for Upbit makes it.
                track.start = stamp + SHUFFLE if kind == DataType.TRADE.value else stamp
                self._begun.append(Span(item.symbol, kind, track.start, track.start))
            if track.last is None or stamp >= track.last:
                track.last, track.believed = stamp, track.last
            elif track.believed is None or stamp > track.believed:
                track.believed = stamp

    def _enter(self, item: Any, kind: str) -> _Track:
        level = getattr(item, "level", None)
        topic = Topic(DataType(kind), item.symbol) if level is None else Topic(DataType(kind), item.symbol, level)
        self._topics[item.symbol, kind] = topic
        track = self._tracks[item.symbol, kind] = _Track()
        return track

    def take_begun(self) -> list[Span]:
        """Empty spans, one where each topic began since the last call: a crash before the first real one leaves behind
        from when on something is missing."""
        begun, self._begun = self._begun, []
        return begun

    def join(self, symbol: str, kind: str, start: datetime, before: datetime) -> None:
        """What was before the stream's first item was fetched, so that all from `before` on is there. It was fetched
        for a stream that began at `start`; should that have begun anew since, it is of no use to it."""
        track = self._tracks.get((symbol, kind))
        if track is not None and track.start == start:
            track.start = min(track.start, before)

    def start_of(self, symbol: str, kind: str) -> datetime | None:
        """From when on the stream itself is collected; None before its first item."""
        track = self._tracks.get((symbol, kind))
        return None if track is None else track.start

    def advance(self, is_settled: IsSettled) -> list[Span]:
        """What may be written down as complete now, together with all that has been collected before.

        To be called before new items are taken, some time apart. A bound counts only if its topic is settled twice in
        a row: between a line's return and the gap that is then found, for a moment, all looks well.
        """
        spans = []
        now = self._vouched()
        for (symbol, kind), track in self._tracks.items():
            track.is_held = False
            if track.start is None or not is_settled(self._topics[symbol, kind]):
                track.candidate = None
                continue
            proven, track.candidate = track.candidate, self._bound(kind, track, now)
            if proven is not None and proven > (track.end or track.start):
                track.end = proven
                spans.append(Span(symbol, kind, track.start, proven))
        return spans

    @property
    def has_candidates(self) -> bool:
        """Whether another call of `advance` may find more."""
        return any(track.candidate is not None for track in self._tracks.values())

    def _vouched(self) -> datetime | None:
        """Until when, by Upbit's own stamps, time has come."""
        stamps = [track.believed for (_, kind), track in self._tracks.items() if track.believed and kind in STAMPED]
        return max(stamps, default=None)

    def _bound(self, kind: str, track: _Track, now: datetime | None) -> datetime | None:
        """Before this, everything has come, as far as anybody knows now."""
        if kind in STATE:
            return track.believed
        bounds = [] if now is None else [now - self._margin]
        if kind == DataType.TRADE.value:
            bounds += [track.believed - SHUFFLE] if track.believed else []
        else:
            # A candle is final once a later one has begun, or its period is over and what was sent until then is here.
            bounds = [timeframe_of(kind).floor(each) for each in bounds] + ([track.last] if track.last else [])
        return max(bounds, default=None)

    def interrupted(self) -> None:
        """A line was lost. What a state went through meanwhile nobody has, and it begins anew with the next picture.

        Gaps in trades and candles are found, and told, by those who fill them.
        """
        for kind, track in ((kind, track) for (_, kind), track in self._tracks.items()):
            if kind in STATE:
                track.restart()

    def lost(self) -> None:
        """Something that had come was lost on the way, nobody knows of which topic: all begin anew."""
        for track in self._tracks.values():
            track.restart()

    def __repr__(self) -> str:
        return f"<Watermarks {len(self._tracks)} topics>"
