"""Sink: where data is kept. Five methods, of which one has to be written.

    class Printer(Sink):
        def write(self, batch):
            for item in batch.items:
                print(item)

    with market.record_to(Printer(), "KRW-BTC", DataType.TRADE) as recorder:
        recorder.wait(60)

Batching, retries, the bounded spill to disk and the counters are the recorder's work, not the sink's.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ..errors import MalformedDataError, one_line
from ..models.events import GapEvent
from .columns import TABLE_NAMED, Row, from_micros, table_of, to_micros


class Span(NamedTuple):
    """All that Upbit had of `symbol` and `type` ("trade", "candle.1m", …) from `start` on and before `end` is written.

    Times are Upbit's. `is_fill` marks a stretch that was fetched afterwards, gaps within it included. What a `GapEvent`
    said is missing stays missing, whatever span it lies in, until a fill covers it.
    """

    symbol: str
    type: str
    start: datetime
    end: datetime
    is_fill: bool = False


class Hole(NamedTuple):
    """What a sink knows it lacks: from `start` on and before `end`, or (None) until recording goes on."""

    symbol: str
    type: str
    start: datetime
    end: datetime | None


@dataclass(frozen=True)
class Batch:
    """What is written at once: items as they came, the gaps told since the last batch, and what is complete with it.

    A batch that failed comes again as it was, perhaps after the program has been started again: whoever writes it
    under the items' keys writes nothing twice.
    """

    items: Sequence[Any] = ()
    gaps: tuple[GapEvent, ...] = ()
    spans: tuple[Span, ...] = ()

    def kinds(self) -> dict[str, list[Any]]:
        """The items by the table they belong to: "trades", "candles", "tickers", "orderbooks"."""
        kinds: dict[str, list[Any]] = {}
        of_class: dict[type[Any], list[Any]] = {}  # looked up once for each class, not for each item
        for item in self.items:
            found = of_class.get(type(item))
            if found is None:
                found = of_class[type(item)] = kinds.setdefault(table_of(item).name, [])
            found.append(item)
        return kinds

    def rows(self) -> dict[str, list[Row]]:
        """The items as rows by table; see `columns`."""
        return {name: TABLE_NAMED[name].rows(items) for name, items in self.kinds().items()}

    def encode(self) -> bytes:
        """One line of JSON, without its end."""
        spans = [
            (each.symbol, each.type, to_micros(each.start), to_micros(each.end), each.is_fill) for each in self.spans
        ]
        gaps = [json.loads(each.to_json()) for each in self.gaps]
        return msgspec.json.encode({"rows": self.rows(), "gaps": gaps, "spans": spans})

    @classmethod
    def decode(cls, line: bytes) -> Batch:
        """What `encode` wrote. MalformedDataError for anything else."""
        try:
            found = msgspec.json.decode(line)
            items = [TABLE_NAMED[name].item(row) for name, rows in found["rows"].items() for row in rows]
            gaps = tuple(GapEvent.from_json(json.dumps(each)) for each in found["gaps"])
            spans = tuple(
                Span(symbol, kind, from_micros(start), from_micros(end), is_fill)
                for symbol, kind, start, end, is_fill in found["spans"]
            )
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, msgspec.MsgspecError) as error:
            raise MalformedDataError(f"no batch of ours: {one_line(error)}") from error
        return cls(items, gaps, spans)

    def __len__(self) -> int:
        return len(self.items)


class Sink(ABC):
    """Keeps batches. Every method is called by one recorder, one call at a time: `open` on the thread that asked for
    the recording, the others on the recorder's own, so none of them needs a lock, and none may be slow for ever.

    What `open` raises goes to whoever asked for the recording. What the others raise is told, and the call made again
    later with the same batch; meanwhile batches wait in memory and then in a file (`spill_path`), within bounds.
    """

    spill_path: Path | None = None  # where batches wait on disk; None for a temporary file that does not outlive us

    @property
    def name(self) -> str:
        """What the figures and messages call it."""
        return type(self).__name__

    def open(self) -> None:  # noqa: B027 - what a sink has no need of, it leaves out; so the others
        """Connect, and see that all is as it must be; before anything else."""

    @abstractmethod
    def write(self, batch: Batch) -> int | None:
        """Keep a batch, all of it or none; how many of its items were new, or None where nobody counts."""

    def gap(self, event: GapEvent) -> None:  # noqa: B027
        """Something is missing, or came late. Called before the batch that carries it is written."""

    def flush(self) -> None:  # noqa: B027
        """See to it that what was written is safe. Called when nothing waits, and before `close`."""

    def close(self) -> None:  # noqa: B027
        """Let go. Nothing is called afterwards."""

    def holes(self) -> Iterable[Hole]:
        """What is missing of what was recorded before: the recorder has it fetched, as far as Upbit still has it.

        A sink that has this method also gets, some seconds late, what was traded until a new stream surely had all."""
        return ()

    def __repr__(self) -> str:
        return f"<{self.name}>"
