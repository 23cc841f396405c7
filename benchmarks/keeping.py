"""Keeping what comes in: rows written and read back, a full market into a store, a database that is away for an hour.

Rows are those of the stream, with all their columns. What is asked for is in rows a second of wall time; beside each
stands what a row costs in CPU, which is what can be compared on a machine that has other work.

`python -m benchmarks.keeping` is only rows, written five times and read from SQLite twice: some two minutes.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from benchmarks.children import Child
from benchmarks.clients.task import Task
from benchmarks.full_market import KINDS, RATE, SETTLE_SECONDS, _await_pieces
from benchmarks.measuring import cpu_seconds, resident_mib
from benchmarks.options import Options
from benchmarks.servers import Stream, paced
from benchmarks.table import LIMIT, Figure, absent, render
from upbit_backbone import SqliteSink, Store
from upbit_backbone._concurrency import SYSTEM_CLOCK, Deadline
from upbit_backbone.models.enums import DataSource, Side, StreamType
from upbit_backbone.models.market import TradeData
from upbit_backbone.sinks import trade_rows
from upbit_backbone.sinks.base import Batch, Sink, Span
from upbit_backbone.sinks.sink_recorder import BATCH_ROWS, SPILL_BYTES
from upbit_backbone.sinks.sink_writer import SinkWriter
from upbit_backbone.sinks.spool import Spool
from upbit_backbone.sinks.sqlite import CHECKPOINT_PAGES, connect, transaction
from upbit_backbone.sinks.trade_rows import KEY

TITLE = "keeping what comes in"
OURS = "upbit_backbone"
WRITTEN_ROWS, WRITTEN_PER_SECOND = 300_000, 150_000
READ_ROWS, READ_PER_SECOND = 10_000_000, 1_000_000
BEYOND_PERCENT = 35.0
# Trades of all markets in a busy hour, a hundred a second; pushed as fast as they are taken.
HOUR_OF_TRADES, OUTAGE_MIB = 360_000, 64.0
MARKETS = ("KRW-BTC", "KRW-ETH", "KRW-XRP", "KRW-SOL", "KRW-DOGE")
START = datetime(2026, 1, 31, tzinfo=UTC)
FIRST_ID = int(START.timestamp()) * 10_000_000  # milliseconds, and four digits
FEW = ["timestamp", "price", "volume", "side"]
DAY_SECONDS = 86_400.0
LONG_SECONDS = 120.0
# However long the day is.
EXPORT_MIB = 300.0
EXPORT = """
import pathlib, sys, time
from upbit_backbone.sinks import ParquetSink
wall, cpu = time.perf_counter(), time.process_time()
ParquetSink(sys.argv[1]).export()
print(time.perf_counter() - wall, time.process_time() - cpu)
(most,) = [line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(int(most.split()[1]) / 1024)
"""
SINKS = {"sqlite": "SQLite", "parquet": "Parquet"}


def run(options: Options) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="upbit-keeping-") as folder:
        figures = _written(Path(folder), options) + _read(Path(folder), options)
    return figures + _full_market(options) + _outage(options)


def trades(count: int) -> Iterator[TradeData]:
    """As a stream brings them, of five markets in turn."""
    rng = random.Random(1)
    for number in range(count):
        moment, price = (
            START + timedelta(milliseconds=7 * number),
            Decimal(95_000_000 + rng.randrange(-500, 500) * 1000),
        )
        yield TradeData(
            MARKETS[number % len(MARKETS)], price, Decimal(rng.randrange(1, 10**9)).scaleb(-8),
            Side.BID if number % 2 else Side.ASK, moment, FIRST_ID + 70_000 * number, DataSource.WEBSOCKET,
            Decimal(94_000_000), price - 94_000_000, price + 1000, Decimal("0.12345678"), price, Decimal("0.5"),
            moment + timedelta(milliseconds=40), StreamType.REALTIME, False, moment + timedelta(microseconds=60_123),
        )  # fmt: skip


def batches_of(count: int) -> Iterator[Batch]:
    """Of the size that a recorder makes when much comes in."""
    rows = trades(count)
    while items := [each for _, each in zip(range(BATCH_ROWS), rows, strict=False)]:
        yield Batch(items)


class Spent:
    """Wall and CPU time of what is done within; several times, if it is entered several times."""

    wall = cpu = 0.0

    def __enter__(self) -> Spent:
        self.wall, self.cpu = self.wall - time.perf_counter(), self.cpu - time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall, self.cpu = self.wall + time.perf_counter(), self.cpu + time.process_time()


def _speed(case: str, rows: int, spent: Spent, target: float | None, more: str = "", who: str = OURS) -> Figure:
    note = f"{rows:,} rows in {spent.wall:.1f} s; CPU {spent.cpu / rows * 1e6:.2f} µs a row{more}"
    return Figure(case, who, rows / spent.wall, "rows/s", target=target, at_least=True, note=note)


def _written(folder: Path, options: Options) -> list[Figure]:
    case, rows, spent, by_hand = "SQLite, trades written", options.count(WRITTEN_ROWS), Spent(), Spent()
    sink, other = SqliteSink(folder / "written.db"), folder / "by_hand.db"
    empty = SqliteSink(other)
    empty.open()
    empty.close()
    sink.open()
    try:
        with contextlib.closing(connect(other)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
            for batch in batches_of(rows):
                with spent:
                    sink.write(batch)
                ready = list(zip(*trade_rows.columns_of(batch.items), strict=True))
                with by_hand, transaction(connection):
                    connection.executemany(trade_rows.INSERT, ready)
    finally:
        sink.close()
    size = f", {sink.path.stat().st_size / rows:.0f} bytes; each batch of {BATCH_ROWS:,} waits for the disk"
    limit = _speed(case, rows, by_hand, None, "; the same rows, ready made, by executemany alone", who=LIMIT)
    return [_speed(case, rows, spent, WRITTEN_PER_SECOND, size), limit]


def _read(folder: Path, options: Options) -> list[Figure]:
    rows = READ_ROWS // 10 if options.quick else READ_ROWS
    try:
        import pandas  # noqa: F401
        from pyarrow import parquet
    except ImportError:
        return [absent("trades read back into a frame", OURS, "rows/s", "pyarrow and pandas are not installed")]
    days = _day_of_trades(folder / "days", rows)
    store = Store(days)

    figures = _asked_about(store, rows) + _from_sqlite(store, rows) + _exported(days, rows)
    (file,) = days.glob("trades/*/*.parquet")

    def floats() -> Any:
        table = parquet.read_table(file)
        return table.cast(_as_floats(table.schema)).to_pandas()

    figures.append(_timed("Parquet, its columns as floats", rows, floats))
    figures.append(_timed("Parquet, its columns exact, Arrow", rows, lambda: parquet.read_table(file)))
    return figures


def _from_sqlite(store: Store, rows: int) -> list[Figure]:
    def frame(**more: Any) -> Any:
        return store.table("trades", "KRW-BTC", **more).to_pandas()

    times = frame(columns=FEW[:1])  # so that what is loaded at first use counts for nobody
    assert len(times) == rows
    return [
        _timed("SQLite, time, price, volume, side as floats", rows, lambda: frame(columns=FEW, numbers="float")),
        _fetched("SQLite, time, price, volume, side as floats", store.path, rows, ["timestamp", "rest"]),
        _timed("SQLite, all columns as floats", rows, lambda: frame(numbers="float")),
        _fetched("SQLite, all columns as floats", store.path, rows, [*KEY, "rest"]),
        _timed("SQLite, all columns exact, Arrow", rows, lambda: store.table("trades", "KRW-BTC")),
    ]


def _fetched(case: str, path: Path, rows: int, columns: list[str]) -> Figure:
    """The same cells as Python gets them of SQLite, thrown away: no frame is made, no number read out of its text, and
    what lies in a trade's list is left in it."""
    found = 0
    with contextlib.closing(connect(path, read_only=True)) as connection, Spent() as spent:
        taken = connection.execute(f"SELECT {', '.join(columns)} FROM trade_rows WHERE symbol = 'KRW-BTC'")  # noqa: S608
        while some := taken.fetchmany(BATCH_ROWS):
            found += len(some)
    assert found == rows
    return _speed(case, rows, spent, None, "; by fetchmany alone, no frame made of it", who=LIMIT)


def _exported(days: Path, rows: int) -> list[Figure]:
    """A day's Parquet file, made of SQLite in a process of its own, whose memory is that of nothing else."""
    told = subprocess.run([sys.executable, "-c", EXPORT, str(days)], check=True, capture_output=True, text=True)
    wall, cpu, most = map(float, told.stdout.split())
    note = f"a day's file, made of SQLite; CPU {cpu / rows * 1e6:.2f} µs a row"
    return [
        Figure("Parquet, the file written", OURS, rows / wall, "rows/s", note=note),
        Figure("Parquet, memory while it is written", OURS, most, "MiB", target=EXPORT_MIB, note="the most at a time"),
    ]


def _asked_about(store: Store, rows: int) -> list[Figure]:
    """What a day of so many trades takes on disk, and to be asked what of it is there."""
    with Spent() as spent:
        (day,) = store.quality(START)
    assert (day.rows, day.complete_seconds) == (rows, DAY_SECONDS)
    return [
        Figure("SQLite, a day's file", OURS, store.path.stat().st_size / rows, "bytes a row", note=f"{rows:,} rows"),
        Figure("SQLite, what of the day is there", OURS, spent.wall, "s", note="rows counted; coverage to the second"),
    ]


def _timed(case: str, rows: int, read: Callable[[], Any]) -> Figure:
    before = resident_mib(is_alone=True)
    with Spent() as spent:
        found = read()
    assert len(found) == rows
    return _speed(case, rows, spent, READ_PER_SECOND, f"; {resident_mib(is_alone=True) - before:,.0f} MiB more with it")


def _as_floats(schema: Any) -> Any:
    import pyarrow

    kinds = [pyarrow.float64() if pyarrow.types.is_decimal(each.type) else each.type for each in schema]
    return pyarrow.schema([(each.name, kind) for each, kind in zip(schema, kinds, strict=True)])


def _day_of_trades(folder: Path, rows: int) -> Path:
    """A folder with so many trades of one market on one day: made by SQLite itself, in the form that a sink gives."""
    from upbit_backbone.sinks import ParquetSink

    sink = ParquetSink(folder, export_seconds=1e9)
    sink.open()
    end = START + timedelta(seconds=DAY_SECONDS)
    first = next(trades(1))
    sink.write(Batch([first], spans=(Span("KRW-BTC", "trade", START, end),)))
    SqliteSink.close(sink)  # without the file, which is measured
    step = 86_000_000_000 // rows
    (listed,) = trade_rows.lists_of([first])
    price, others = first.price, listed.split(",", 3)[3]  # behind side, price and volume
    made = {"timestamp": f"timestamp + i * {step}", "sequential_id": "sequential_id + i * 10"}
    made |= {
        "rest": f"""printf('["%s","%d","%d.%08d",%s', CASE i % 2 WHEN 0 THEN 'ASK' ELSE 'BID' END,
            {price} + (i * 7919 % 1000) * 1000, i % 3, i * 104729 % 99999999 + 1, '{others}')"""
    }
    cells = ", ".join(made.get(name, name) for name in (*KEY, "rest"))
    connection = sqlite3.connect(folder / "store.db", isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -200000")
        connection.execute("CREATE TEMP TABLE first AS SELECT * FROM trade_rows")
        connection.execute(
            f"INSERT INTO trade_rows WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?) "  # noqa: S608
            f"SELECT {cells} FROM n, first",
            (rows,),
        )
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()
    return folder


# A full market


def _full_market(options: Options) -> list[Figure]:
    with paced() as stream:
        base, _ = _share(stream, options, "queue")
        figures = [Figure("full market, the stream itself", OURS, base, "% of a core", note=f"{RATE:,.0f} messages/s")]
        for mode in SINKS:
            share, answer = _share(stream, options, mode)
            words = f"full market into {SINKS[mode]}"
            note = f"{share:.0f} % in all; {answer['written']:,} written, {answer['waiting']:,} wait"
            figures += [
                Figure(f"{words}, beyond the stream", OURS, share - base, "% of a core", target=BEYOND_PERCENT,
                       note=note),
                Figure(f"{words}, lost", OURS, answer["lost"], "messages", target=0),
            ]  # fmt: skip
    return figures


def _share(stream: Stream, options: Options, mode: str) -> tuple[float, dict[str, Any]]:
    """Of a core, while everything comes in; and what the client says at the end."""
    symbols = tuple(stream.fake.markets())
    task = Task(stream.rest_url, stream.websocket_url, KINDS, symbols, mode)
    before = stream.counters()["sent"]
    with (
        tempfile.TemporaryDirectory(prefix="upbit-keeping-") as folder,
        Child("benchmarks.clients", "ours", *task.arguments(), environment={"BENCHMARK_FOLDER": folder}) as client,
    ):
        _await_pieces(stream, len(symbols) * len(KINDS))
        stream.rate(RATE)
        try:
            time.sleep(SETTLE_SECONDS)
            client.ask("start")
            used, began = cpu_seconds(client.pid), time.monotonic()
            time.sleep(options.seconds * 2)
            used, spent = cpu_seconds(client.pid) - used, time.monotonic() - began
        finally:
            stream.rate(0)
        sent, answer = stream.counters()["sent"] - before, _settled(client, mode)
    if mode != "queue":
        # The first frame of each topic comes besides those that are counted.
        kept = answer["written"] + answer["duplicates"] - answer["fetched"]
        answer["lost"] = max(0, sent + len(symbols) * len(KINDS) - kept)
    return used / spent * 100, answer


def _settled(client: Child, mode: str) -> dict[str, Any]:
    """What the client says once it has written all that arrived."""
    deadline = time.monotonic() + LONG_SECONDS
    before: dict[str, Any] = {}
    while True:
        answer = client.ask("stop")
        is_still = all(answer.get(name) == before.get(name) for name in ("written", "duplicates"))
        if mode == "queue" or (is_still and not answer["waiting"]) or time.monotonic() > deadline:
            return answer
        before = answer
        time.sleep(1.5)


# A database that is away


def _outage(options: Options) -> list[Figure]:
    case = "PostgreSQL away for an hour of trades"
    try:
        import pytest

        from tests.support.postgres import PostgresServer
        from upbit_backbone.sinks.postgres import PostgresSink
    except ImportError as missing:
        return [absent(f"{case}, memory", OURS, "MiB", str(missing))]
    rows = options.count(HOUR_OF_TRADES)
    with tempfile.TemporaryDirectory(prefix="upbit-keeping-") as folder:
        os.chmod(folder, 0o755)  # noqa: S103 - the server is another user's where we are root
        try:
            server = PostgresServer(Path(folder))
        except pytest.skip.Exception as missing:
            return [absent(f"{case}, memory", OURS, "MiB", str(missing))]
        try:
            sink = PostgresSink(server.dsn())
            return _through_outage(case, server, sink, rows)
        finally:
            server.kill()


def _through_outage(case: str, server: Any, sink: Sink, rows: int) -> list[Figure]:
    sink.open()
    writer = SinkWriter(sink, "away", Spool(None, SPILL_BYTES), emit=lambda event: None, clock=SYSTEM_CLOCK)
    writer.start()
    server.kill()
    before, most, pushed = resident_mib(is_alone=True), 0.0, Spent()  # the server is a child of ours
    for batch in batches_of(rows):
        with pushed:
            writer.put(batch)
        most = max(most, resident_mib(is_alone=True))
    waited = writer.stats()
    server.start()
    deadline = Deadline.after(LONG_SECONDS)
    while writer.stats().waiting and not deadline.expired:
        most = max(most, resident_mib(is_alone=True))
        time.sleep(0.1)
    stubborn = writer.close(Deadline.after(5.0))
    ((kept,),) = server.run(server.dsn(), "SELECT count(*) FROM upbit.trades")
    note = (
        f"{rows:,} trades, {waited.spilled_bytes / 2**20:.0f} MiB on disk; CPU {pushed.cpu / rows * 1e6:.1f} µs a row"
    )
    return [
        Figure(f"{case}, memory grown", OURS, most - before, "MiB", target=OUTAGE_MIB, note=note),
        Figure(f"{case}, lost", OURS, rows - kept, "rows", target=0, note=f"{stubborn or ''}"),
    ]


def main() -> None:
    """Rows alone, several times: one time says little of a disk, or of a machine that has other work."""
    with tempfile.TemporaryDirectory(prefix="upbit-keeping-") as folder:
        for turn in range(5):
            (written := Path(folder, str(turn))).mkdir()
            print(render(TITLE, _written(written, Options())), flush=True)
        days = _day_of_trades(Path(folder, "days"), READ_ROWS)
        for _ in range(2):
            print(render(TITLE, _from_sqlite(Store(days), READ_ROWS)), flush=True)


if __name__ == "__main__":
    main()
