"""Ledger: what a database says is complete (`coverage`) and what is missing all the same (`gaps`), in SQL that each of
them understands. It begins no transaction: whoever writes items with it has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from ..models.events import GapEvent
from .base import Hole, Span
from .coverage import TICK, Interval, KnownGap, complete, merged, without

Topic = tuple[str, str]  # (symbol, type)


class Rows(Protocol):
    """What a statement gives: the cursor of any driver."""

    def fetchall(self) -> Sequence[Any]: ...


class Ledger:
    """`execute` runs a statement with "?" for its values; `write` and `read` are how a time lies in the database."""

    def __init__(
        self,
        execute: Callable[[str, Sequence[Any]], Rows],
        write: Callable[[datetime], Any],
        read: Callable[[Any], datetime],
    ) -> None:
        self._execute = execute
        self._write = write
        self._read = read

    # Writing

    def tell(self, event: GapEvent) -> None:
        """One row in `gaps`. One that is there stays as it is: a fill may have brought a part of it since."""
        missing = (event.missing_start, event.missing_end)
        self._execute(
            "INSERT INTO gaps VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL) ON CONFLICT DO NOTHING",
            (
                *(event.symbol, event.type.value, self._write(event.start), self._write(event.end)),
                *(None if each is None else self._write(each) for each in missing),
                *(event.recovered, event.complete, event.late, event.reason, self._write(event.at)),
            ),
        )

    def cover(self, span: Span) -> None:
        """Enter a stretch, as one with those it touches; what it fills is missing no longer."""
        start, end = span.start, span.end
        known = (span.symbol, span.type, self._write(end), self._write(start))
        touching = 'FROM coverage WHERE symbol = ? AND type = ? AND start <= ? AND "end" >= ?'
        ((first, last),) = self._execute(f'SELECT min(start), max("end") {touching}', known).fetchall()
        if first is not None:
            first, last = self._read(first), self._read(last)
            if first <= start and last >= end and not span.is_fill:
                return
            self._execute(f"DELETE {touching}", known)
            start, end = min(first, start), max(last, end)
        values = (span.symbol, span.type, self._write(start), self._write(end))
        self._execute("INSERT INTO coverage VALUES (?, ?, ?, ?)", values)
        self.filled(span)

    def filled(self, span: Span) -> None:
        """What a fill brought is missing no longer: of each gap, what lies in it."""
        if not span.is_fill:
            return
        overlapping = self._execute(
            "SELECT start, told_at, missing_start, missing_end FROM gaps WHERE symbol = ? AND type = ? "
            "AND filled_at IS NULL AND missing_end >= ? AND missing_start < ?",
            (span.symbol, span.type, self._write(span.start), self._write(span.end)),
        ).fetchall()
        for begin, told_at, first, last in overlapping:
            self._narrow((span.symbol, span.type, begin, told_at), Interval(self._read(first), self._read(last)), span)

    def _narrow(self, key: tuple[Any, ...], gap: Interval, filled: Span) -> None:
        """`gap` has its last moment for an end, as receipts tell it."""
        end = self._write(filled.end)
        if gap.start < filled.start and filled.end <= gap.end:  # its middle: the part behind becomes a gap of its own
            self._execute(
                f"INSERT INTO gaps SELECT symbol, type, ?, {_REST} FROM gaps WHERE {_KEY} ON CONFLICT DO NOTHING",  # noqa: S608
                (end, end, self._write(gap.end), *key),
            )
        if gap.start < filled.start:
            before = self._write(filled.start - TICK)
            self._execute(f"UPDATE gaps SET missing_end = ? WHERE {_KEY}", (before, *key))  # noqa: S608
        elif filled.end <= gap.end:
            self._execute(f"UPDATE gaps SET missing_start = ? WHERE {_KEY}", (end, *key))  # noqa: S608
        else:
            now = self._write(datetime.now(UTC))
            self._execute(f"UPDATE gaps SET filled_at = ? WHERE {_KEY}", (now, *key))  # noqa: S608

    # Reading

    def topics(self) -> list[Topic]:
        """The (symbol, type) pairs something is known of."""
        return list(self._execute("SELECT DISTINCT symbol, type FROM coverage ORDER BY symbol, type", ()).fetchall())

    def spans(self, symbol: str, kind: str) -> list[Interval]:
        """What was written as complete, in order, gaps within it included."""
        return self._spans("WHERE symbol = ? AND type = ?", (symbol, kind)).get((symbol, kind), [])

    def gaps(self, symbol: str, kind: str) -> list[KnownGap]:
        """What receipts said is missing, and no fill has brought since."""
        return self._gaps("AND symbol = ? AND type = ?", (symbol, kind)).get((symbol, kind), [])

    def holes(self) -> list[Hole]:
        """What is missing between what is complete, and of each topic from the end of the last stretch on."""
        gaps = self._gaps("", ())
        return [
            hole for topic, spans in self._spans("", ()).items() for hole in holes_of(topic, spans, gaps.get(topic, ()))
        ]

    def _spans(self, where: str, values: Sequence[Any]) -> Mapping[Topic, list[Interval]]:
        found: dict[Topic, list[Interval]] = {}
        statement = f'SELECT symbol, type, start, "end" FROM coverage {where} ORDER BY symbol, type, start'  # noqa: S608
        for symbol, kind, start, end in self._execute(statement, values).fetchall():
            found.setdefault((symbol, kind), []).append(Interval(self._read(start), self._read(end)))
        return found

    def _gaps(self, also: str, values: Sequence[Any]) -> Mapping[Topic, list[KnownGap]]:
        found: dict[Topic, list[KnownGap]] = {}
        statement = f"SELECT {_TOLD} FROM gaps WHERE {_OPEN} {also} ORDER BY missing_start"  # noqa: S608
        for symbol, kind, start, end, reason, got in self._execute(statement, values).fetchall():
            gap = KnownGap(self._read(start), self._read(end), reason, got)
            found.setdefault((symbol, kind), []).append(gap)
        return found

    def __repr__(self) -> str:
        return "<Ledger>"


_KEY: Final = "symbol = ? AND type = ? AND start = ? AND told_at = ?"
_TOLD: Final = "symbol, type, missing_start, missing_end, reason, recovered"
_OPEN: Final = "missing_start IS NOT NULL AND filled_at IS NULL"
_REST: Final = '"end", ?, ?, recovered, complete, late, reason, told_at, filled_at'


def holes_of(topic: Topic, spans: Iterable[Interval], gaps: Iterable[KnownGap]) -> list[Hole]:
    """What is missing of one topic, of which at least one span is known; the last hole is open."""
    known = merged(spans)
    reached = known[-1].end
    missing = without([Interval(known[0].start, reached)], complete(known, gaps))
    # What is missing at the end reaches on to where recording begins again.
    since = missing.pop().start if missing and missing[-1].end == reached else reached
    return [*(Hole(*topic, *hole) for hole in missing), Hole(*topic, since, None)]
