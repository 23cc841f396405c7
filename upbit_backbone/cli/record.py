"""`record` and `replay`: what came in, into a file and out of it again."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.text import Text

from .._concurrency import Deadline
from .._language import spoken
from ..archive.replay import StoreRecording, is_store
from ..backbone import MarketDataBackbone
from ..errors import InvalidRequestError
from ..models.enums import DataType, Overflow
from ..models.events import GapEvent
from ..models.report import SinkStats
from ..recorder import Recording
from ..recorder.format import Record, RecordKind
from ..routing.requests import data_types
from ..sinks.base import Sink
from ..sinks.day_files import CsvSink, JsonlSink, ParquetSink
from ..sinks.sqlite import SqliteSink
from . import output, running
from .watch import print_json_line, print_line

Types = Annotated[
    list[str] | None,
    typer.Option(
        "--type",
        help=f"What to take: {running.TYPE_HELP}; repeatable.",
        metavar="TYPE",
        autocompletion=running.type_words,
    ),
]
STATUS_SECONDS = 1.0
CLOSE_SECONDS = 10.0  # for the last files; whoever cannot wait presses Ctrl-C once more


@running.command
def record(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="The recording (an existing one is continued), then market codes; with --sqlite, --parquet, --csv, "
            "--jsonl, --postgres or --redis market codes alone.",
            metavar="[FILE] SYMBOL...",
        ),
    ] = None,
    types: Types = None,
    sqlite: Annotated[
        Path | None, typer.Option("--sqlite", help="Keep the data in this SQLite file; see the command store.")
    ] = None,
    parquet: Annotated[
        Path | None,
        typer.Option("--parquet", help="Keep Parquet files by market and day in this folder (the [parquet] extra)."),
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Keep CSV files by market and day in this folder.")] = None,
    jsonl: Annotated[
        Path | None, typer.Option("--jsonl", help="Keep files of JSON lines by market and day in this folder.")
    ] = None,
    postgres: Annotated[
        str | None,
        typer.Option(
            "--postgres",
            metavar="DSN",
            help="Keep the data in this PostgreSQL database: postgresql://USER@HOST/DATABASE; the password better in "
            "PGPASSWORD or ~/.pgpass (the [postgres] extra).",
        ),
    ] = None,
    redis: Annotated[
        str | None,
        typer.Option(
            "--redis",
            metavar="URL",
            help="Keep the newest of each market in streams of this Redis server: redis://, rediss:// (TLS) or unix:// "
            "(the [redis] extra).",
        ),
    ] = None,
    kept: Annotated[
        int | None, typer.Option(min=1, help="With --redis: how many are kept in each stream (10,000 by default).")
    ] = None,
    spill: Annotated[
        Path | None,
        typer.Option(
            "--spill",
            help="With --postgres or --redis: what the server has not taken at the end waits in this file for next "
            "time.",
        ),
    ] = None,
    quote: Annotated[
        str | None, typer.Option(help="Into a store or folder: all markets priced in this currency, such as KRW.")
    ] = None,
    seconds: running.Seconds = None,
    rotate_mib: Annotated[
        float | None, typer.Option("--rotate-mib", help="Begin a new file (FILE.0001…, .0002…) at so many MiB.")
    ] = None,
    rotate_seconds: Annotated[
        float | None, typer.Option("--rotate-seconds", help="Begin a new file after so many seconds.")
    ] = None,
    json: running.Json = False,
) -> int:
    """Record everything that comes in for these markets, until Ctrl-C."""
    kinds = data_types(types or (DataType.TICKER, DataType.TRADE, DataType.ORDERBOOK))
    places = {"sqlite": sqlite, "parquet": parquet, "csv": csv, "jsonl": jsonl, "postgres": postgres, "redis": redis}
    sink = _sink(places, spill, kept)
    if sink is not None:
        if rotate_mib is not None or rotate_seconds is not None:
            raise InvalidRequestError("--rotate-mib and --rotate-seconds are for recordings: a store is one file")
        return _into_sink(sink, words or None, quote, kinds, Deadline.after(seconds), json)
    if words is None or quote is not None or len(words) < 2:
        raise InvalidRequestError("name the recording and then at least one market: record day.rec KRW-BTC")
    file, *symbols = words
    rotation = {"rotate_bytes": _mib(rotate_mib), "rotate_seconds": rotate_seconds}
    return _into_recording(Path(file), symbols, kinds, Deadline.after(seconds), rotation, json)


def _mib(size: float | None) -> int | None:
    return None if size is None else int(size * 1024 * 1024)


def _into_recording(
    file: Path,
    symbols: list[str],
    kinds: tuple[DataType, ...],
    end: Deadline,
    rotation: dict[str, Any],
    json: bool,
) -> int:
    with running.open_market() as market:
        recorder = market.record(file, **rotation)
        try:
            arrivals = itertools.count()
            market.subscribe_realtime(symbols, kinds, callback=lambda item: next(arrivals))
            _show_until(
                end,
                lambda: recorder.stats.error is not None,
                lambda left: recorder.wait(Deadline.after(left)),
                lambda: _summary(recorder.stats),
            )
            came = next(arrivals)
            if not came:
                running.say_error(f"nothing came: {running.why_nothing(market)}")
        finally:
            recorder.close()
    stats = recorder.stats
    if json:
        output.print_json(output.as_plain(stats))
    else:
        print(_summary(stats))
    if stats.damage:
        running.say_error(f"what was there before is damaged {stats.damage}", label="note")
    if stats.error:
        running.say_error(f"{output.safe(stats.path)}: {stats.error}")
        return running.FILE_TROUBLE
    return 0 if came else running.FOUND_TROUBLE


def _sink(asked: Mapping[str, Path | str | None], spill: Path | None, kept: int | None) -> Sink | None:
    """The one that was asked for, if any was."""
    chosen = {kind: where for kind, where in asked.items() if where is not None}
    if len(chosen) > 1:
        raise InvalidRequestError("give one of --sqlite, --parquet, --csv, --jsonl, --postgres and --redis")
    if spill is not None and not chosen.keys() & {"postgres", "redis"}:
        raise InvalidRequestError("--spill is for --postgres and --redis: beside a file there is one already")
    if kept is not None and "redis" not in chosen:
        raise InvalidRequestError("--kept is for --redis")
    for kind, where in chosen.items():
        if kind in _PACKAGES:
            running.need(*_PACKAGES[kind])
        if kind == "postgres":
            from ..sinks.postgres import PostgresSink

            return PostgresSink(str(where), spill=spill)
        if kind == "redis":
            from ..sinks.redis_streams import KEPT, RedisStreamsSink

            return RedisStreamsSink(str(where), kept=kept or KEPT, spill=spill)
        return _FILES[kind](Path(where))
    return None


# What each of them needs: the package, and the extra that brings it.
_PACKAGES = {"parquet": ("pyarrow", "parquet"), "postgres": ("psycopg", "postgres"), "redis": ("redis", "redis")}
_FILES: dict[str, Callable[[Path], Sink]] = {
    "sqlite": SqliteSink, "parquet": ParquetSink, "csv": CsvSink, "jsonl": JsonlSink,
}  # fmt: skip


def _into_sink(
    sink: Sink,
    symbols: list[str] | None,
    quote: str | None,
    kinds: tuple[DataType, ...],
    end: Deadline,
    json: bool,
) -> int:
    with running.open_market() as market:
        recorder = market.record_to(sink, symbols, kinds, quote=quote)
        try:
            _show_until(end, lambda: False, recorder.wait, lambda: _sink_summary(recorder.stats))
            why = "" if recorder.stats.written else running.why_nothing(market)
        finally:
            recorder.close(CLOSE_SECONDS)
    code = _tell_written(recorder.stats, json)
    if code == running.FOUND_TROUBLE:
        running.say_error(f"nothing came: {why}")
    return code


def _tell_written(stats: SinkStats, json: bool) -> int:
    """Show the figures of a recording that is over; the exit code."""
    if json:
        output.print_json(output.as_plain(stats))
    else:
        print(_sink_summary(stats))
    if stats.error:
        running.say_error(f"{stats.sink}: {stats.error}")
        return running.FILE_TROUBLE
    return 0 if stats.written else running.FOUND_TROUBLE


def _sink_summary(stats: SinkStats) -> str:
    parts = [f"{stats.written:,} written"]
    parts += [f"{stats.waiting:,} waiting"] if stats.waiting else []
    parts += [f"{stats.spilled:,} on disk"] if stats.spilled else []
    parts += [f"{stats.dropped:,} lost"] if stats.dropped else []
    parts += [f"{stats.filling} topics being filled"] if stats.filling else []
    return f"{output.safe(stats.sink)}: {', '.join(map(spoken, parts))}"


def _summary(stats: Any) -> str:
    lost = f", {stats.lost} lost" if stats.lost else ""
    sizes = f"{stats.received_bytes:,} bytes received, {stats.written_bytes:,} written"
    files = f", {stats.files} files" if stats.files > 1 else ""
    return spoken(f"{output.safe(stats.path)}: {stats.records:,} records, {sizes}{files}{lost}")


def _show_until(
    end: Deadline,
    has_ended: Callable[[], bool],
    wait: Callable[[float], object],
    summary: Callable[[], str],
) -> None:
    """A line that follows what is recorded, until the end, or Ctrl-C."""

    def watch(show: Callable[[], object]) -> None:
        while not end.expired and not has_ended():
            show()
            wait(end.remaining_or(STATUS_SECONDS))

    try:
        if not output.is_terminal():
            watch(lambda: None)
            return
        with Live(console=output.console, auto_refresh=False) as live:
            watch(lambda: live.update(Text(f"● {summary()}"), refresh=True))
    except KeyboardInterrupt:
        return  # the usual way to end a recording


@running.command
def replay(
    file: Annotated[Path, typer.Argument(help="A recording, or a store.")],
    symbols: Annotated[list[str] | None, typer.Argument(help="Only these markets.", metavar="[SYMBOL...]")] = None,
    types: Types = None,
    speed: Annotated[str, typer.Option(help="1 for the recorded pace, 10 for ten times it, max for no pause.")] = "max",
    start: Annotated[str | None, typer.Option(help="Play from this time on (UTC unless it names a zone).")] = None,
    end: Annotated[str | None, typer.Option(help="Play what came before this time.")] = None,
    info: Annotated[bool, typer.Option("--info", help="Only tell what is in the recording.")] = False,
    sqlite: Annotated[
        Path | None, typer.Option("--sqlite", help="Say nothing, but keep what is played in this SQLite file.")
    ] = None,
    json: running.Json = False,
) -> int:
    """Play a recording or a store: the same deliveries, line by line."""
    kinds = data_types(types or tuple(DataType))
    if info and not is_store(file):
        recording = Recording(file)
        _show_contents(recording, _contents(recording), json)
        return running.FOUND_TROUBLE if recording.damage else 0
    if info:
        raise InvalidRequestError(f"{output.safe(file)} is a store: the command store tells what is in it")
    span: dict[str, Any] = {"start": running.moment_of(start, "--start"), "end": running.moment_of(end, "--end")}
    topics = sorted(topic for topic in _played_topics(file, span["end"]) if _is_asked(topic, symbols, kinds))
    if not topics:
        raise InvalidRequestError(f"{output.safe(file)} has none of that; --info tells what is in it")
    found = sorted({DataType(kind) for kind, _ in topics})
    codes = sorted({symbol for _, symbol in topics})
    if sqlite is not None:
        return _convert(file, sqlite, codes, found, json, span)
    say = print_json_line if json else print_line
    count = 0

    def take(item: Any) -> None:
        nonlocal count
        count += 1
        say(item)

    holes: dict[tuple[Any, Any, str], None] = {}

    def hear(event: Any) -> None:
        if isinstance(event, GapEvent) and not event.complete:
            holes[event.start, event.end, event.reason] = None

    with MarketDataBackbone.replay(file, speed=speed_of(speed), on_event=hear, **span, **running.overrides) as market:
        stream = market.subscribe(codes, found, overflow=Overflow.DROP_OLDEST)
        running.follow(stream, Deadline.after(None), take, is_over=lambda: stream.closed)
    for since, until, reason in holes:
        running.say_error(f"missing from {output.moment(since)} to {output.moment(until)} KST: {reason}", label="note")
    return 0 if count else running.FOUND_TROUBLE


def _played_topics(file: Path, until: datetime | None) -> set[tuple[str, str]]:
    if is_store(file):
        return {(topic.data_type.value, topic.symbol) for topic in StoreRecording(file).topics}
    streamed = Recording(file).located(None, until, RecordKind.SUBSCRIBED)
    return {topic for _, each in streamed for topic in _topics(each)}


def _convert(
    file: Path, target: Path, codes: list[str], kinds: list[DataType], json: bool, span: dict[str, Any]
) -> int:
    """A recording into a store, as fast as that can be written."""
    with (
        MarketDataBackbone.replay(file, speed=None, **span, **running.overrides) as market,
        market.record_to(SqliteSink(target), codes, kinds) as recorder,
    ):
        recorder.wait()
    return _tell_written(recorder.stats, json)


def speed_of(text: str) -> float | None:
    """What --speed says; None for "max"."""
    if text == "max":
        return None
    try:
        return float(text.removesuffix("x"))
    except ValueError as error:
        raise InvalidRequestError(f"--speed {output.safe(text)}: expected a number such as 10, or max") from error


def _is_asked(topic: tuple[str, str], symbols: list[str] | None, kinds: tuple[DataType, ...]) -> bool:
    kind, symbol = topic
    return (not symbols or symbol in symbols) and kind in kinds


def _topics(subscribed: Record) -> Iterator[tuple[str, str]]:
    for kind, symbol, _ in (subscribed.details or {}).get("topics", ()):
        yield str(kind), str(symbol)


def _contents(recording: Recording) -> dict[str, Any]:
    kinds: Counter[str] = Counter()
    topics: set[tuple[str, str]] = set()
    first = last = None
    size = frames = 0
    began = time.monotonic()
    for each in recording:
        kinds[each.kind.value] += 1
        size += each.size
        frames += len(each.blobs) if each.kind is RecordKind.FRAMES else 0
        first, last = first or each.wall, each.wall
        if each.kind is RecordKind.SUBSCRIBED:
            topics.update(_topics(each))
    return {
        "records": dict(kinds), "frames": frames, "bytes": size, "first": first, "last": last,
        "topics": sorted(topics), "seconds_to_read": round(time.monotonic() - began, 3),
    }  # fmt: skip


def _show_contents(recording: Recording, found: dict[str, Any], json: bool) -> None:
    if json:
        times = {name: found[name].isoformat() if found[name] else None for name in ("first", "last")}
        output.print_json({**found, **times, "damage": recording.damage})
        return
    print(spoken(f"from {output.moment(found['first'])} to {output.moment(found['last'])} KST"))
    print(spoken(f"{found['frames']:,} frames, {found['bytes']:,} bytes, records: {found['records']}"))
    print(spoken("topics: " + ", ".join(f"{kind}:{output.safe(symbol)}" for kind, symbol in found["topics"])))
    if recording.damage:
        print(spoken(f"damaged {recording.damage}"))
