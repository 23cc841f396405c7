"""What every command shares: settings of the run, the backbone it opens, and errors turned into exit codes."""

from __future__ import annotations

import errno
import functools
import os
import queue
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn, ParamSpec, Protocol

import typer

from .._concurrency import Deadline, Flag
from .._language import is_korean, spoken
from ..backbone import MarketDataBackbone
from ..errors import ClosedError, InvalidRequestError, RateLimitError, UpbitBackboneError, one_line
from ..models.enums import DataType
from ..models.events import Event
from . import output

# Following a subscription in the main thread: take what comes, draw now and then, end in time.

DRAW_SECONDS = 0.125


class Readable(Protocol):
    @property
    def queue(self) -> queue.Queue[Any]: ...


def follow(
    subscription: Readable,
    end: Deadline,
    take: Callable[[Any], object],
    draw: Callable[[], object] = lambda: None,
    is_over: Callable[[], bool] = lambda: False,
) -> None:
    """Give every item to `take` and call `draw` about eight times a second, until `end`, or until the stream is over.

    `take` may return True to end it.
    """
    items = subscription.queue
    next_drawing = Deadline.after(0.0)
    while not end.expired:
        try:
            if take(items.get(timeout=end.sooner(next_drawing.remaining_or(DRAW_SECONDS)).remaining_or(DRAW_SECONDS))):
                break
        except queue.Empty:
            if is_over() and items.empty():
                break
        except ClosedError:
            break
        if next_drawing.expired:
            draw()
            next_drawing = Deadline.after(DRAW_SECONDS)
    draw()


FOUND_TROUBLE, WRONG_USE, MISSING_EXTRA, FAILED, LIMITED, FILE_TROUBLE, INTERRUPTED = 1, 2, 3, 4, 5, 6, 130

EXIT_CODES = """Exit codes: 0 done · 1 something is wrong (doctor) or nothing came · 2 wrong command or symbol ·
3 a package of an extra is missing · 4 Upbit or the network failed · 5 rate limit or ban ·
6 a file could not be read or written · 130 Ctrl-C"""

P = ParamSpec("P")

Symbols = Annotated[list[str], typer.Argument(help="Market codes such as KRW-BTC.", metavar="SYMBOL...")]
Symbol = Annotated[str, typer.Argument(help="A market code such as KRW-BTC.", metavar="SYMBOL")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts (streams: one object a line).")]
Seconds = Annotated[
    float | None, typer.Option("--seconds", min=0.0, help="End after so many seconds (default: at Ctrl-C).")
]

TYPE_HELP = "ticker, trade, orderbook, or candles such as 1m or 1h"


def type_words() -> list[str]:
    """What a shell completes after --type; every other spelling of a timeframe is understood as well."""
    return list(DataType)


# Settings given before the command (--region, --rest-url …); BackboneConfig fields, stronger than the environment.
overrides: dict[str, Any] = {}


@contextmanager
def open_market(on_event: Callable[[Event], object] | None = None, **settings: Any) -> Iterator[MarketDataBackbone]:
    """A backbone with the settings of this run, and these besides, closed at the end."""
    with MarketDataBackbone(on_event=on_event, **overrides, **settings) as market:
        yield market


def command(function: Callable[P, int | None]) -> Callable[P, None]:
    """A command whose errors become one line on stderr and an exit code, and which Ctrl-C ends without a traceback."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = function(*args, **kwargs)
            sys.stdout.flush()
        except KeyboardInterrupt:
            _let_exit_code_count()
            raise typer.Exit(INTERRUPTED) from None
        except OSError as error:
            raise typer.Exit(tell_file_trouble(error)) from None
        except UpbitBackboneError as error:
            fail(error)
        raise typer.Exit(code or 0)

    return run


def _let_exit_code_count() -> None:
    """CPython notes a Ctrl-C that came while a text was executed, as dataclasses do to make a class, and `python -m`
    ends by the signal then, although it was caught. What is executed last is what it notes."""
    exec("")  # noqa: S102


def tell_file_trouble(error: OSError) -> int:
    """Say what a file, or our own output, would not do; the exit code. Whoever closed our output asked for no more."""
    is_lost = is_lost_pipe(error)
    if not is_lost:
        say_error(_in_words(error))
    if is_lost or (error.filename is None and sys.stdout is sys.__stdout__):
        leave_stdout()  # which still holds what it could not write
    return 0 if is_lost else FILE_TROUBLE


def is_lost_pipe(error: OSError) -> bool:
    """Whoever read our output is gone. Windows says so by "invalid argument", without the name of a file."""
    return isinstance(error, BrokenPipeError) or (error.errno == errno.EINVAL and error.filename is None)


def _in_words(error: OSError) -> str:
    names = [output.safe(name) for name in (error.filename, error.filename2) if name is not None]
    what = error.strerror or str(error) or type(error).__name__
    hint = "; is it open in another program?" if isinstance(error, PermissionError) and os.name == "nt" else ""
    if not names and error.errno is not None:  # a file's trouble names it: see `about_file`
        names = [spoken("the output")]
    return f"{' → '.join(names)}: {what}{hint}" if names else what


@contextmanager
def about_file(path: Path | None) -> Iterator[None]:
    """What the system says of a full disk names no file: in here it is about `path`."""
    try:
        yield
    except OSError as error:
        if path is not None and error.filename is None:
            error.filename = str(path)
        raise


def moment_of(text: str | None, name: str) -> datetime | None:
    """What the option `name` says as an aware time, UTC where it names no zone; else InvalidRequestError."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        example = "2026-01-31, 2026-01-31T09:00 or 2026-01-31T09:00+09:00"
        raise InvalidRequestError(f"{name} {output.safe(text)}: expected a time such as {example}") from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def why_nothing(market: MarketDataBackbone) -> str:
    """How the streams are, for somebody who got nothing from them."""
    report = market.health()
    states = [
        f"session {each.session} is {each.state.value} ({each.last_error or 'no error'})" for each in report.sessions
    ]
    return "; ".join(report.reasons or states) or "no connection was made; upbit-backbone doctor tells more"


def fail(error: UpbitBackboneError) -> NoReturn:
    say_error(str(error))
    if error.retry_after:
        say_error(f"try again in {error.retry_after:.0f} s", label="hint")
    raise typer.Exit(code_of(error)) from None


def code_of(error: UpbitBackboneError) -> int:
    if isinstance(error, RateLimitError):
        return LIMITED
    if not isinstance(error, InvalidRequestError):
        return FAILED
    # A path is an argument to the library; whoever types one has named a file that cannot be had.
    is_about_a_file = isinstance(error.__cause__, OSError) and error.__cause__.filename is not None
    return FILE_TROUBLE if is_about_a_file else WRONG_USE


def say_error(text: str, label: str = "error") -> None:
    print(f"upbit-backbone: {spoken(label)}: {spoken(one_line(text, 600))}", file=sys.stderr)


def need(package: str, extra: str) -> None:
    """End with exit code 3, saying what to install, unless `package` is there."""
    import importlib.util

    if importlib.util.find_spec(package) is None:
        say_error(f'this needs {package}: pip install "upbit-backbone[{extra}]"')
        if not is_korean():  # of which a Korean system in another locale knows nothing
            say_error(f'{package} 패키지가 필요합니다: pip install "upbit-backbone[{extra}]"', label="안내")
        raise typer.Exit(MISSING_EXTRA)


@contextmanager
def first_ctrl_c() -> Iterator[Flag]:
    """A flag that the first Ctrl-C sets instead of raising KeyboardInterrupt; the second is an ordinary one."""
    pressed = Flag()  # an Event's lock may be held by what the signal interrupts
    before = signal.getsignal(signal.SIGINT)

    def press(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        pressed.set()

    signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def leave_stdout() -> None:
    # Nobody takes our output any more; without this the interpreter complains when it flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def end_in_order() -> None:
    """Let SIGTERM, and Ctrl-Break on Windows, unwind the stack: the terminal is restored, the backbone closed."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    for number in filter(None, (signal.SIGTERM, getattr(signal, "SIGBREAK", None))):
        signal.signal(number, leave)
