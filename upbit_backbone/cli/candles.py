"""`candles`: history on the screen or into a file, with a progress bar, continued where it was broken off."""

from __future__ import annotations

import errno
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from .._language import spoken, word
from ..backbone import MarketDataBackbone
from ..errors import DownloadCancelledError, InvalidRequestError, UpbitBackboneError
from ..exchange.markets import normalise_symbol, swapped
from ..exchange.timeframes import WORDS, timeframe_of
from ..export.files import CsvFile, Download, ParquetFile, write_csv, write_parquet
from ..export.whole_file import is_replaceable, resolved
from ..history.download import CancelToken
from ..history.ranges import Fill, ResumePoint
from ..models.market import CandleData
from ..models.report import DownloadEstimate
from . import output, running
from .output import area_chart

SHOWN_ROWS = 20
CHART_HEIGHT = 8
ASK_SECONDS = 60.0
ESTIMATE_SECONDS = 2.0
COLUMNS = ("start (KST)", ">open", ">high", ">low", ">close", ">volume", "")
SPARE = ("", "volume", "open", "high", "low")
FLUSH_ROWS = 2_000  # ten pages, a second of Upbit's rate: so much is asked for again after a crash, at most

FROM_HELP = "From this time on (ISO 8601; UTC unless it has an offset)."

Report = Callable[[int, int | None], object]


@running.command
def candles(
    symbol: running.Symbol,
    timeframe: Annotated[str, typer.Argument(help=f"One of {', '.join(WORDS)}.", metavar="TF")],
    count: Annotated[int | None, typer.Option(min=1, help="The newest so many (default: 200).")] = None,
    start: Annotated[str | None, typer.Option(help=FROM_HELP)] = None,
    end: Annotated[str | None, typer.Option(help="Before this time (default: now).")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write CSV. With --start, a broken download goes on.")] = None,
    parquet: Annotated[
        Path | None, typer.Option(help="Write Parquet (the [parquet] extra). With --start, a broken download goes on.")
    ] = None,
    fill: Annotated[bool, typer.Option("--fill", help="Make up candles for periods without trades.")] = False,
    resume: Annotated[
        bool | None,
        typer.Option("--resume/--fresh", help="Continue FILE (also a finished one), or start over."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Start over, whatever FILE.part holds.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before a download of more than a minute.")] = False,
    json: running.Json = False,
) -> int:
    """Candles of one market, oldest first, to the screen or a file."""
    first, stop, target = running.moment_of(start, "--start"), running.moment_of(end, "--end"), csv or parquet
    _check_options(csv, parquet, first, count, resume=resume, force=force)
    if first and stop and first >= stop:
        raise InvalidRequestError(f"--start {start} is not before --end {end}: nothing lies in between")
    if parquet:
        running.need("pyarrow", "parquet")
    was_finished = target is not None and target.is_file()
    if target is not None:
        _may_write(target, is_meant=force or resume is not None)
    way: Fill = "forward" if fill else "none"
    found: list[CandleData] = []
    with ExitStack() as stack, running.about_file(target):
        market = stack.enter_context(running.open_market())
        end_of_it = stop if first else None
        estimate = market.estimate(symbol, timeframe, first, end_of_it, count=count, timeout=ESTIMATE_SECONDS)
        _tell_what_it_takes(estimate, yes=yes)
        report = stack.enter_context(_progress(f"{symbol} {timeframe}"))
        if target and first and is_replaceable(resolved(target)):
            download = Download(_meant(market, symbol), timeframe_of(timeframe).word, _ceil(timeframe, first), way)
            with (CsvFile if csv else ParquetFile)(
                target, CandleData, resume=False if force else resume, download=download
            ) as file:
                if resume is None and not (force or was_finished or file.rows) and target.is_file():
                    raise InvalidRequestError(f"{output.safe(target)} was finished by another meanwhile: see there")
                rows = _into_file(market, file, download, stop, report)
        else:
            write = write_csv if csv else write_parquet
            with _kept_when_broken_off(target, write) as pressed:
                found = market.get_candles(
                    symbol, timeframe, count, start=first, to=None if first else stop, end=stop if first else None,
                    fill=way, progress=report, cancel=pressed,
                )  # fmt: skip
            rows = len(found)
            if target is not None:
                write(found, target, CandleData)
    if target is not None:
        _say_written(rows, target, json)
    elif json:
        output.print_json([output.as_plain(each) for each in found])
    else:
        _show(symbol, timeframe, found)
    return 0 if rows else running.FOUND_TROUBLE


def _check_options(
    csv: Path | None,
    parquet: Path | None,
    start: datetime | None,
    count: int | None,
    *,
    resume: bool | None,
    force: bool,
) -> None:
    if csv and parquet:
        raise InvalidRequestError("--csv and --parquet: give one of them")
    if resume and force:
        raise InvalidRequestError("--resume goes on in the file, --force starts over: give one of them")
    if resume and not (csv or parquet):
        raise InvalidRequestError("--resume goes on in a file: give --csv or --parquet")
    if resume and (start is None or count is not None):
        raise InvalidRequestError(
            "--resume goes with --start (and --end) only: the newest so many candles are others each time, so there is "
            "nothing to go on from; the file was left as it is"
        )


def _tell_what_it_takes(estimate: DownloadEstimate, *, yes: bool) -> None:
    """Before anything is asked for; above a minute whoever sits at a terminal may think it over."""
    is_long = estimate.seconds > ASK_SECONDS
    if is_long or (estimate.requests > 1 and sys.stderr.isatty()):
        running.say_error(str(estimate), label="note")
    if is_long and not yes and sys.stdin.isatty():
        typer.confirm(spoken("Go on?"), abort=True, err=True)


def _may_write(target: Path, *, is_meant: bool) -> None:
    """A finished file is not written over unless that was said, or is said now; a missing folder is told at once."""
    if not target.parent.is_dir():  # and not after a long download
        raise FileNotFoundError(errno.ENOENT, "there is no such folder; make it, or name another", str(target.parent))
    is_broken_off = target.with_name(target.name + ".part").exists()
    is_there = target.is_file() and target.stat().st_size > 0
    if is_meant or is_broken_off or not is_there:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InvalidRequestError(f"{output.safe(target)} exists: give --force to write over it, or another name")
    typer.confirm(spoken(f"{output.safe(target)} exists. Write over it?"), abort=True, err=True)


def _meant(market: MarketDataBackbone, symbol: str) -> str:
    """The code that the rows will carry: "BTC-KRW" may mean KRW-BTC."""
    code = normalise_symbol(symbol)
    other = swapped(code)
    listed = [] if other is None else [each.symbol for each in market.get_markets()]
    return other if other in listed and code not in listed else code


def _ceil(timeframe: str, moment: datetime) -> datetime:
    return timeframe_of(timeframe).ceil(moment)


def _into_file(
    market: MarketDataBackbone, file: CsvFile, download: Download, end: datetime | None, report: Report
) -> int:
    """Closed candles, oldest first, so that what is there already is simply gone on from."""
    start = _check_rows(market, file, download, end)
    try:
        if end is None or start < end:  # else it was broken off after its last row
            _write_rows(market, file, download, start, end, report)
    except BaseException:
        if file.rows:
            running.say_error(
                f"broken off after {file.rows} rows; the same command goes on from {file.part.name}", label="note"
            )
        raise
    return file.rows


def _check_rows(market: MarketDataBackbone, file: CsvFile, download: Download, end: datetime | None) -> datetime:
    """Where to go on. InvalidRequestError if the rows that are there are not the beginning of this download."""
    if file.first is None or file.last is None:
        return download.start
    if end is not None and file.last >= end:
        raise InvalidRequestError(
            f"{output.safe(file.path.name)} goes on to {file.last.isoformat()}, beyond --end {end.isoformat()}: give "
            "another name, or --force to start over"
        )
    if not file.is_noted:
        # Nobody noted where the rows were to begin: they begin where they should if no candle lies in between.
        before = market.get_candles(download.symbol, download.timeframe, 1, to=file.first)
        if before and before[0].timestamp >= download.start:
            raise InvalidRequestError(
                f"{output.safe(file.path.name)} begins at {file.first.isoformat()}, this download at "
                f"{download.start.isoformat()}, and there are candles in between: give another name, or --force to "
                "start over"
            )
    running.say_error(f"{output.safe(file.path.name)}: going on after {file.last.isoformat()}", label="note")
    return download.unit.next_start(file.last)


def _write_rows(
    market: MarketDataBackbone,
    file: CsvFile,
    download: Download,
    start: datetime,
    end: datetime | None,
    report: Report,
) -> None:
    fill: Fill = "forward" if download.fill == "forward" else "none"
    for candle in market.iter_candles(
        download.symbol, download.timeframe, start=start, end=end, fill=fill, progress=report
    ):
        if candle.is_closed:
            file.write([candle])
            if file.rows % FLUSH_ROWS == 0:
                file.flush()


@contextmanager
def _kept_when_broken_off(target: Path | None, write: Callable[..., int]) -> Iterator[CancelToken]:
    """Ctrl-C or an error in a download that is written in one go: what came is kept beside `target`, and it is said
    how to ask for the rest. Gives what calls the download off."""
    with running.first_ctrl_c() as pressed:
        try:
            yield pressed
        except UpbitBackboneError as error:
            if target is not None and error.partial and error.resume is not None and is_replaceable(resolved(target)):
                kept = _free_name(target)
                write(error.partial, kept, CandleData)
                running.say_error(
                    f"broken off: {len(error.partial):,} candles are kept in {output.safe(kept.name)}; the rest, into "
                    f"another file: candles {_asking_for(error.resume)}",
                    label="note",
                )
            if isinstance(error, DownloadCancelledError):
                raise KeyboardInterrupt from None
            raise


def _free_name(target: Path) -> Path:
    names = (f"{target.stem}.partial{number}{target.suffix}" for number in itertools.chain([""], itertools.count(2)))
    return next(kept for name in names if not (kept := target.with_name(name)).exists())


def _asking_for(rest: ResumePoint) -> str:
    """The command's arguments that ask for the rest."""
    options = {"--count": rest.count, "--start": rest.start, "--end": rest.end or rest.to}
    given = [
        f"{name} {value.isoformat() if isinstance(value, datetime) else value}"
        for name, value in options.items()
        if value is not None
    ]
    return " ".join([rest.symbol, rest.timeframe, *given, *(["--fill"] if rest.fill == "forward" else [])])


def _say_written(rows: int, path: Path, json: bool) -> None:
    if json:
        output.print_json({"rows": rows, "path": str(path)})
    else:
        # A pipe or a device may be where our own output goes, between whose rows this would stand.
        place = sys.stdout if is_replaceable(resolved(path)) else sys.stderr
        print(spoken(f"{rows:,} candles in {output.safe(path)}"), file=place)


@contextmanager
def _progress(title: str) -> Iterator[Report]:
    """A bar on stderr while it is a terminal; nothing otherwise."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # No thread of rich's own: the bar moves when a page came.
    bar = Progress(*columns, console=console, transient=True, auto_refresh=False)
    with bar:
        task = bar.add_task(output.safe(title), total=None)

        def report(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)
            bar.refresh()

        yield report


def _show(symbol: str, timeframe: str, found: list[CandleData]) -> None:
    shown = found[-SHOWN_ROWS:] if output.is_terminal() else found
    title = f"{output.safe(symbol)} {output.safe(timeframe)}"
    output.show_table(title, COLUMNS, map(_row, shown), SPARE)
    if not output.is_terminal() or not found:
        return
    width = max(10, output.console.width - 2)
    closes = [float(each.close_price) for each in found]
    style = output.RISE_STYLE if closes[-1] >= closes[0] else output.FALL_STYLE
    for line in area_chart(closes, width, CHART_HEIGHT):
        output.console.print(Text(line, style))
    note = (
        f"{len(found):,} candles from {output.moment(found[0].timestamp)} to {output.moment(found[-1].timestamp)} KST"
    )
    output.console.print(Text(spoken(note), output.QUIET_STYLE))
    sys.stdout.flush()


def _row(candle: CandleData) -> tuple[str, ...]:
    prices = (candle.open_price, candle.high_price, candle.low_price, candle.close_price, candle.volume)
    note = word("filled" if candle.is_filled else "" if candle.is_closed else "forming")
    return output.moment(candle.timestamp), *map(output.number, prices), note
