"""upbit_backbone: `subscribe` or `subscribe_realtime`.

Modes: `queue` (a loop over the mailbox that reads every item, books included), `best` (of books the best level only),
`callback`, `unread` (subscribed, and nobody reads: what is overwritten was never decoded), `live` (no subscriber at
all; kept current for `get_*`), `sqlite` and `parquet` (recorded into a store in $BENCHMARK_FOLDER).
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from benchmarks.clients.task import Seen, Task
from upbit_backbone import DataSource, DataType, MarketDataBackbone, OrderbookData, Overflow, TickerData

_subscriptions: list[Any] = []
_recorders: list[Any] = []


def consume(task: Task, seen: Seen) -> None:
    """Reads until the process ends."""
    market = MarketDataBackbone(rest_url=task.rest_url, websocket_url=task.websocket_url, websocket_format=task.format)
    kinds = [DataType(kind) for kind in task.kinds]
    symbols = list(task.symbols)
    touch = _touch(task.kinds, seen, is_best_enough=task.mode == "best")
    if task.mode == "callback":
        market.subscribe_realtime(symbols, kinds, callback=touch)
        threading.Event().wait()
    if task.mode in ("sqlite", "parquet"):
        _recorders.append(market.record_to(_sink(task.mode), symbols, kinds))
        threading.Event().wait()
    overflow = Overflow.CONFLATE if task.mode == "unread" else Overflow.DROP_OLDEST
    more = {"levels": task.depth} if task.depth != 30 else {}
    with market.subscribe(symbols, kinds, overflow=overflow, **more) as items:
        _subscriptions.append(items)
        if task.mode == "unread":
            others = range(task.subscribers - 1)
            _subscriptions.extend(market.subscribe(symbols, kinds, overflow=overflow, **more) for _ in others)
            threading.Event().wait()
        for item in items:
            touch(item)


def _sink(mode: str) -> Any:
    from upbit_backbone import sinks

    class Counting(sinks.SqliteSink if mode == "sqlite" else sinks.ParquetSink):  # type: ignore[misc]
        fetched = 0

        def write(self, batch: Any) -> int:
            """What was asked for at the beginning came besides the stream; such batches have nothing else."""
            if batch.items and batch.items[0].source is DataSource.REST:
                Counting.fetched += len(batch)
            written: int = super().write(batch)
            return written

    folder = Path(os.environ["BENCHMARK_FOLDER"])
    return Counting(folder / "store.db" if mode == "sqlite" else folder / "days")


def _touch(kinds: tuple[str, ...], seen: Seen, *, is_best_enough: bool) -> Any:
    """What user code does with an item: look at it, which is what decodes a book."""
    if kinds == ("trade",):
        return lambda item: seen(item.sequential_id)

    def look(item: Any) -> None:
        if isinstance(item, OrderbookData):
            assert (item.best_ask if is_best_enough else item.asks) is not None
        if isinstance(item, TickerData):
            assert item.current_price is not None
            seen(0)
        else:
            seen(getattr(item, "sequential_id", 0))

    return look


def report() -> dict[str, Any]:
    """The subscription's own counters."""
    if _recorders:
        kept = _recorders[0].stats
        counted = {"written": kept.written, "duplicates": kept.duplicates}
        fetched = getattr(_recorders[0].sink, "fetched", 0)
        return {**counted, "fetched": fetched, "waiting": kept.waiting, "dropped": kept.dropped}
    stats = [each.stats for each in _subscriptions]
    return {"received": sum(each.received for each in stats), "dropped": sum(each.dropped for each in stats)}
